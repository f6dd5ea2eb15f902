"""Averages of the weights over the training, which are judged and kept in their place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from diascope.training.options import AveragingConfig


class Averaging:
    """The average of the weights so far; where there is none yet, the weights themselves.

    "ema": after each step, average += (1 - d) (weights - average), with d the smaller of `decay`
    and (1 + n) / (10 + n) at the n-th step, so that the start is soon forgotten. "swa": after each
    epoch, the plain mean (Izmailov et al. 2018, algorithm 1). Both begin in epoch `start`. Running
    statistics of batch-norm are averaged as the weights are (ours: Izmailov et al. compute them
    anew, on images that adversarial training would have to attack for it).
    """

    def __init__(self, config: AveragingConfig) -> None:
        self.config = config
        self.count = 0
        self.weights: dict[str, Tensor] = {}

    def after_step(self, model: nn.Module, epoch: int) -> None:
        """Take in the weights after a step of `epoch` (from 0)."""
        if self.config.name == "ema" and self._begun(epoch):
            assert self.config.decay is not None
            decay = min(self.config.decay, (1 + self.count) / (10 + self.count))
            self._take_in(model, 1 - decay)

    def after_epoch(self, model: nn.Module, epoch: int) -> None:
        """Take in the weights at the end of `epoch` (from 0)."""
        if self.config.name == "swa" and self._begun(epoch):
            self._take_in(model, 1 / (self.count + 1))

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Give the model the averaged weights for as long as the context lasts."""
        if not self.count:
            yield
            return
        before = {key: value.clone() for key, value in model.state_dict().items()}
        model.load_state_dict(self.weights)
        try:
            yield
        finally:
            model.load_state_dict(before)

    def settle(self, model: nn.Module) -> None:
        """Give the model the averaged weights for good."""
        if self.count:
            model.load_state_dict(self.weights)

    def to_dict(self) -> dict[str, Any]:
        """Return what `restore` needs."""
        return {"count": self.count, "weights": self.weights}

    def restore(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on from what `to_dict` returned."""
        self.count = state["count"]
        self.weights = {key: value.to(device) for key, value in state["weights"].items()}

    def _begun(self, epoch: int) -> bool:
        return epoch + 1 >= (self.config.start or 1)

    @torch.no_grad()
    def _take_in(self, model: nn.Module, share: float) -> None:
        for key, value in model.state_dict().items():
            if key in self.weights and value.is_floating_point():
                self.weights[key].lerp_(value, share)
            else:
                self.weights[key] = value.detach().clone()
        self.count += 1
