"""What an epoch adds up to: its loss, and where its time went."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from diascope.attacks import Attack
from diascope.attacks.threat import Norm
from diascope.objectives import Objective
from diascope.training.team import Team


@dataclass
class Meter:
    """Sums over the steps of an epoch; they are part of the state, so that a resume goes on.

    `loss` is summed over the images, in float64 on the device. Seconds are the host's: a GPU
    works on while the host goes ahead, so there only `total` is exact, and `attack` and `update`
    share what they queue. `attack` is a part of `update`.
    """

    loss: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    images: int = 0
    total: float = 0.0
    data: float = 0.0
    update: float = 0.0
    attack: float = 0.0

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time of the block to one of the seconds."""
        began = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, part, getattr(self, part) + time.perf_counter() - began)

    def add(self, loss: Tensor, images: int) -> None:
        """Take in the mean loss of a batch."""
        self.loss = self.loss + loss.detach().double() * images
        self.images += images

    def of_team(self, team: Team) -> Meter:
        """Return the meter of all processes: their losses and images, this one's seconds."""
        if team.alone:
            return self
        loss = team.total(self.loss)
        images = int(team.total(torch.tensor(self.images, device=loss.device)))
        return replace(self, loss=loss, images=images)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values and a tensor."""
        return {**asdict(self), "loss": self.loss.cpu()}

    def row(self) -> dict[str, float]:
        """Return the columns of `metrics.csv` that the meter knows."""
        return {
            "train_loss": float(self.loss) / max(1, self.images),
            "seconds_data": self.data,
            "seconds_update": self.update,
            "seconds_attack": self.attack,
            "images_per_second": self.speed,
        }

    @property
    def speed(self) -> float:
        """Training images a second."""
        return self.images / self.total if self.total else 0.0


@dataclass(frozen=True)
class TimedAttack:
    """An attack whose time is added to `clock.meter`; nothing else is changed."""

    attack: Attack
    clock: Clock

    @property
    def norm(self) -> Norm:
        """The attack's norm."""
        return self.attack.norm

    @property
    def eps(self) -> float | Tensor | None:
        """The attack's epsilon."""
        return self.attack.eps

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return the attack's images."""
        with self.clock.meter.timed("attack"):
            return self.attack(model, x, y, generator=generator, ids=ids)


@dataclass
class Clock:
    """Holds the meter of the epoch that runs."""

    meter: Meter = field(default_factory=Meter)


def with_clock(objective: Objective, clock: Clock) -> Objective:
    """Return an objective that computes the same and tells the time of its attack."""
    if objective.attack is None:
        return objective
    timed = TimedAttack(objective.attack, clock)
    return replace(objective, attack=timed)  # type: ignore[type-var]
