"""The floating-point operations of a model, counted without computing anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from diascope.models import create_model
from diascope.studies.costs.passes import Passes, objective_passes
from diascope.studies.costs.stages import Stage
from diascope.training.config import ModelConfig
from diascope.training.groups import freeze

_IMAGES = 2  # batch-norm wants two


@dataclass(frozen=True)
class Flops:
    """Operations an image (an addition and a multiplication count two), by `torch`'s own counter.

    forward: of a forward pass. to_input, to_weights: of backward passes, the latter to the weights
    that are trained; that to the input costs what forward does. layers: how many modules compute.
    parameters: how many are trained.
    """

    forward: float
    to_input: float
    to_weights: float
    layers: int
    parameters: int

    def of(self, passes: Passes) -> float:
        """Return the operations of some passes."""
        there = passes.forward * self.forward
        return there + passes.to_input * self.to_input + passes.to_weights * self.to_weights


def step_flops(stage: Stage) -> float:
    """Return the operations an image of a training step."""
    return model_flops(stage).of(objective_passes(stage.objective, stage.classes))


def model_flops(stage: Stage) -> Flops:
    """Return the operations of a stage's model."""
    data = stage.config.data
    model = stage.config.model.model_copy(update={"weights": None, "pretrained": False})
    return _counted(model.model_dump_json(), stage.classes, data.channels, data.size)


@cache
def _counted(spec: str, classes: int, channels: int, size: int) -> Flops:
    model = ModelConfig.model_validate_json(spec)
    net: nn.Module = create_model(
        model.name, classes, False, model.attention, channels, None, **model.options
    )
    net = net.to("meta").train()
    freeze(net, model.trainable)
    x = torch.empty(_IMAGES, channels, size, size, device="meta")
    y = torch.zeros(_IMAGES, dtype=torch.long, device="meta")
    layers = sum(1 for module in net.modules() if not list(module.children()))
    parameters = sum(p.numel() for p in net.parameters() if p.requires_grad)
    with torch.no_grad():
        forward = _count(lambda: net(x))
    weights = _count(lambda: F.cross_entropy(net(x), y).backward()) - forward  # type: ignore[no-untyped-call]
    return Flops(forward, forward, weights, layers, parameters)


def _count(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops()) / _IMAGES
