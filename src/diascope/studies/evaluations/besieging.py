"""Images under attack at several epsilons: by one attack alone, and by many together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from diascope.attacks import APGD, FAB, Attack, BoundaryAttack, Square, at_eps
from diascope.attacks.base import attacks, verdict
from diascope.attacks.threat import Norm, Threat
from diascope.attacks.trial import Trial, trial
from diascope.audit.masking.meter import Meter, Metered
from diascope.errors import UserError
from diascope.studies.exam import Exam, Sample

ROUNDING = 1e-6  # relative: what float32 may add to the length of a perturbation


@dataclass(frozen=True)
class Siege:
    """A model attacked at rising epsilons, its verdicts taken in float32.

    grid (E,): ascending. seeded: gives the generator of a purpose; an attack's noise belongs to
    (seed, its name, image), so that no image's result depends on the others.
    """

    model: nn.Module
    norm: Norm
    grid: Sequence[float]
    batch_size: int
    seeded: Callable[[str], torch.Generator]

    def clean(self, some: Sample) -> Tensor:
        """Return which images (n,) are misclassified as they are."""
        return verdict(self.model, some.x, some.y, batch_size=self.batch_size)

    def alone(self, name: str, attack: Attack, some: Sample, clean: Tensor) -> Tensor:
        """Return which images an attack breaks at each epsilon, (E, n) bool.

        Every epsilon is a run of its own on all images that are right as they are: nothing is
        carried from one to the next, so that more may be broken at a smaller one, a sign of masked
        gradients. An attack that looks for the nearest broken image runs once for all.
        """
        if nearest(attack):
            return self._sizes(name, attack, some, clean)[None] <= self._limits(clean)[:, None]
        broken = clean.repeat(len(self.grid), 1)
        left = (~clean).nonzero()[:, 0]
        with self._trial(name, attack, some) as run:
            for place, eps in enumerate(self.grid):
                if eps > 0 and len(left):
                    x, y, ids = some.x[left], some.y[left], some.ids[left]
                    broken[place, left] = run.attempt(x, y, ids, eps).broken
        return broken

    def together(
        self, attacks: Mapping[str, Attack], some: Sample, clean: Tensor, known: Tensor
    ) -> tuple[Tensor, dict[str, int]]:
        """Return the smallest epsilon of the grid that breaks each image, and who broke how many.

        (n,) float64: 0 for images misclassified as they are, inf where nothing broke one. known
        (E, n) bool: what was broken before. The epsilons rise, and each attack meets only the
        images that no one has broken yet, so that an image broken at one is broken at every larger.
        """
        minimal = torch.full((len(some.y),), torch.inf, dtype=torch.float64, device=clean.device)
        minimal[clean] = 0.0
        limits, count = self._limits(clean), dict.fromkeys(("known", *attacks), 0)
        least = [place for place, eps in enumerate(self.grid) if eps > 0][:1]
        settled = clean | known[least].any(0)  # nothing smaller is to be found of them
        sizes = {
            name: self._sizes(name, attack, some, settled)
            for name, attack in attacks.items()
            if nearest(attack)
        }
        with ExitStack() as stack:
            runs = {
                name: stack.enter_context(self._trial(name, attack, some))
                for name, attack in attacks.items()
                if not nearest(attack)
            }
            for place, eps in enumerate(self.grid):
                if not eps > 0:
                    continue
                found = {"known": known[place]}
                found |= {name: size <= limits[place] for name, size in sizes.items()}
                for name, broken in found.items():
                    rows = ((minimal > eps) & broken).nonzero()[:, 0]
                    minimal[rows], count[name] = eps, count[name] + len(rows)
                for name, run in runs.items():
                    left = (minimal > eps).nonzero()[:, 0]
                    if not len(left):
                        break
                    hit = run.attempt(some.x[left], some.y[left], some.ids[left], eps).broken
                    minimal[left[hit]], count[name] = eps, count[name] + int(hit.sum())
        return minimal, count

    def _trial(self, name: str, attack: Attack, some: Sample) -> AbstractContextManager[Trial]:
        return trial(
            self.model,
            some.x,
            attack,
            batch_size=self.batch_size,
            generator=self.seeded(f"attack {name}"),
        )

    def _limits(self, clean: Tensor) -> Tensor:
        """Return the largest perturbation that counts at each epsilon, (E,)."""
        grid = torch.tensor(self.grid, dtype=torch.float64, device=clean.device)
        return grid * (1 + ROUNDING)

    def _sizes(self, name: str, attack: Attack, some: Sample, settled: Tensor) -> Tensor:
        """Return the size of the smallest perturbation found, (n,): 0 if settled, inf if none."""
        free = replace(attack, eps=None)  # type: ignore[type-var]
        if isinstance(free, FAB):
            free = replace(free, stop_below_eps=False)
        size = torch.full(settled.shape, torch.inf, dtype=torch.float64, device=settled.device)
        size[settled] = 0.0
        left = (~settled).nonzero()[:, 0]
        for rows in torch.split(left, self.batch_size) if len(left) else ():
            x, y = some.x[rows], some.y[rows]
            generator = self.seeded(f"attack {name}")
            points = free(self.model, x, y, generator=generator, ids=some.ids[rows])
            broken = verdict(self.model, points, y, batch_size=self.batch_size)
            away = Threat(self.norm, 0.0).size((points - x).double())
            size[rows] = torch.where(broken, away, torch.inf)
        return size


def nearest(attack: Attack) -> bool:
    """Tell whether an attack looks for the nearest broken image, so that one run is enough."""
    return isinstance(attack, FAB | BoundaryAttack)


def strong(
    norm: Norm, classes: int, steps: int, queries: int, targets: int, restarts: int = 1
) -> dict[str, Attack]:
    """Return attacks that find what others miss, as AutoAttack (Croce and Hein 2020) does.

    APGD on the cross-entropy, and on the logit ratio towards `targets` other classes (of two
    classes on the margin), each from `restarts` starts; FAB, which looks for the nearest; Square,
    which sees no gradient.
    """
    others = min(targets, max(1, classes - 1))
    follower = replace(slope_follower(norm, classes, steps, targets), restarts=restarts)
    return {
        "apgd-ce": APGD(norm=norm, steps=steps, restarts=restarts),
        "apgd-dlr" if classes > 2 else "apgd-margin": follower,
        "fab": FAB(norm=norm, steps=steps, targets=others),
        "square": Square(norm=norm, queries=queries),
    }


def slope_follower(norm: Norm, classes: int, steps: int, targets: int) -> APGD:
    """Return the strongest single attack that follows gradients, which needs no cross-entropy."""
    if classes < 3:
        return APGD(norm=norm, steps=steps, loss="margin")
    targets = min(targets, classes - 1)
    return APGD(norm=norm, steps=steps, loss="dlr-targeted", targets=targets)


def pgd_40() -> dict[str, Any]:
    """Return the settings of P2's attack: 40 steps of a thirtieth of eps, from a random start."""
    return {"name": "pgd", "steps": 40, "rel_step_size": 1 / 30}


def build_attack(
    settings: Mapping[str, Any] | str, norm: Norm, where: str, name: str = ""
) -> Attack:
    """Return the attack of settings, in a norm; `name` is taken where they have none.

    Raises `UserError` for mistakes in them, and for another norm.
    """
    content = {"name": settings} if isinstance(settings, str) else dict(settings)
    if "name" not in content and name:
        content["name"] = name
    attack: Attack = attacks.build({"norm": norm, **content}, where)
    if attack.norm != norm:
        raise UserError(f"{where}: norm {attack.norm}, but the evaluation's is {norm}")
    return attack


class Attacking:
    """What looks at images under one attack."""

    attack: Mapping[str, Any] | str
    norm: Norm

    @cached_property
    def built(self) -> Attack:
        """The attack; raises `UserError` for mistakes in it."""
        return build_attack(self.attack, self.norm, "attack")

    def attacked(self, exam: Exam, some: Sample, eps: float) -> Tensor:
        """Return images attacked within eps, (n, C, H, W)."""
        model = Metered(exam.model, Meter(exam.tell))
        attack, noise = at_eps(self.built, eps), exam.seeded("attack")
        return attack(model, some.x, some.y, generator=noise, ids=some.ids)


def check_grid(epsilons: Sequence[float], *, above: float | None = None) -> None:
    """Raise `ValueError` unless there are epsilons, each with a name of its own."""
    least = "above 0" if above is not None else "of at least 0"
    fits = [0 <= e < math.inf and (above is None or e > above) for e in epsilons]
    if not epsilons or not all(fits):
        raise ValueError(f"epsilons must be finite numbers {least}, and one at least")
    if len({f"{eps:g}" for eps in epsilons}) < len(epsilons):
        raise ValueError(f"epsilons {list(epsilons)}: two are the same to six digits")
