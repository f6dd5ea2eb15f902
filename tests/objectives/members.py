"""Objectives by name, with a small attack where they take one, and pieces to test them with."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from tests.nets import images, small_net
from torch import Tensor, nn

from diascope.objectives import Objective, objectives

NAMES = objectives.names()
HEADS = {"one logit": 1, "two classes": 2, "three classes": 3, "multi-label": 4}


def build(name: str, attack: dict[str, Any] | str = "", **options: Any) -> Objective:
    """Return the objective; what its class says of its fields is all that is known of it."""
    settings: dict[str, Any] = {"name": name, **options}
    for field in dataclasses.fields(objectives[name]):
        if field.metadata.get("kind") == "attack":
            settings[field.name] = attack or {"name": "fgsm", "eps": 0.05}
    return objectives.build(settings)


ATTACKED = [name for name in NAMES if build(name).attack is not None]


@dataclass(frozen=True)
class Brighter:
    """An attack that asks nothing of the model: each channel is moved by another constant."""

    eps: float = 0.1
    norm: str = "linf"

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        shift = torch.linspace(1, -1, x.shape[1], dtype=x.dtype).view(1, -1, 1, 1)
        return (x + self.eps * shift).clamp(0, 1)


def problem(head: str, count: int = 6, double: bool = True) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a small net in eval mode, images and labels for it."""
    outputs, dtype = HEADS[head], torch.float64 if double else torch.float32
    y = torch.arange(count) % max(2, outputs)
    if head == "multi-label":
        y = (torch.arange(count * 4).view(count, 4) % 3 == 0).to(dtype)
    return small_net(outputs).to(dtype), images(count, 8).to(dtype), y


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
