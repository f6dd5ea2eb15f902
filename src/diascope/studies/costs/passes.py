"""The passes through a model that an objective or an attack makes, counted on a tiny net."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from diascope.attacks import Attack
from diascope.objectives import Objective

_IMAGES, _SIDE = 4, 8


@dataclass(frozen=True)
class Passes:
    """Passes an image: forward, backward to the input, and backward to the weights.

    The last go to the weights alone; a backward pass to both is counted as one of each.
    """

    forward: float
    to_input: float
    to_weights: float

    @property
    def units(self) -> float:
        """Their cost, where forward is 1, backward to the input 1, and to the weights 2."""
        return self.forward + self.to_input + 2 * self.to_weights


def objective_passes(objective: Objective, classes: int) -> Passes:
    """Return the passes of a training step, attack and ranking among them."""
    key: Any = objective  # frozen, so that it hashes
    return _step(key, classes)


def attack_passes(attack: Attack | None, classes: int) -> float:
    """Return the forward passes of an attack, a backward pass to the input counting one.

    Attacks that leave off where an image is broken are counted on a net that is broken soon.
    """
    key: Any = attack
    return 0.0 if attack is None else _attack(key, classes)


@cache
def _step(objective: Any, classes: int) -> Passes:
    model, image, behind = _counted(classes)
    loss = objective(model.train(), *_batch(classes), generator=_seeded())
    loss.backward()
    to_input = sum(image.backwards)
    found = (sum(behind.forwards), to_input, sum(behind.backwards) - to_input)
    return Passes(*(count / _IMAGES for count in found))


@cache
def _attack(attack: Any, classes: int) -> float:
    model, image, behind = _counted(classes)
    attack(model.eval(), *_batch(classes), generator=_seeded())
    return (sum(behind.forwards) + sum(image.backwards)) / _IMAGES


class _Log(list[int]):
    """A list that copies of the model write to as well."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Log:
        return self


class _Tally(nn.Module):
    """Lets images through, and counts them on the way forward and back."""

    def __init__(self) -> None:
        super().__init__()
        self.forwards, self.backwards = _Log(), _Log()

    def forward(self, x: Tensor) -> Tensor:
        self.forwards.append(len(x))
        counted: Tensor = _Count.apply(x, self.backwards)
        return counted


class _Count(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, log: list[int]) -> Tensor:
        ctx.log = log
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.log.append(len(gradient))
        return gradient, None


def _counted(classes: int) -> tuple[nn.Module, _Tally, _Tally]:
    """Return a net, and the tallies at its image and behind its first weights."""
    image, behind = _Tally(), _Tally()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, head = nn.Conv2d(1, 4, 3, stride=2), nn.Linear(36, classes)
    model = nn.Sequential(image, first, behind, nn.ReLU(), nn.Flatten(), head)
    with torch.no_grad():
        model.eval()(_batch(classes)[0])
    _look(model, classes)
    for tally in (image, behind):
        tally.forwards.clear()
        tally.backwards.clear()
    return model, image, behind


def _look(model: nn.Module, classes: int) -> None:
    """Have the model looked at as a frozen one, which is done once in a training."""
    from diascope.models.frozen import frozen

    x, _ = _batch(classes)
    with frozen(model, x[:1]) as net, torch.no_grad():
        net(x)


def _batch(classes: int) -> tuple[Tensor, Tensor]:
    x = torch.rand(_IMAGES, 1, _SIDE, _SIDE, generator=_seeded())
    return x, torch.arange(_IMAGES) % classes


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)
