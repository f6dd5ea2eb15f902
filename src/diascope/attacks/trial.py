"""One attack at any epsilon: what it makes of images, and the verdict on it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from diascope.attacks.base import (
    Attack,
    NotFiniteWarning,
    at_eps,
    check_labels,
    is_broken,
    verdict,
)
from diascope.attacks.threat import Threat
from diascope.models.frozen import Arithmetic, FrozenModel, frozen
from diascope.models.modes import exactly, unwrapped

Warm = Literal["lead", "verdict", "climb"] | None


class Outcome(NamedTuple):
    """What an attempt came to.

    points (B, C, H, W): where each image was taken; broken (B,) bool: by the verdict;
    cheaply (B,) bool: broken by the point that was given, without an attack.
    """

    points: Tensor
    broken: Tensor
    cheaply: Tensor


@dataclass(frozen=True)
class Trial:
    """An attack on a frozen model, and how its examples are judged.

    net: what is attacked. judge: whose verdict counts, in float32. climb: a point that is given
    is also one more start of the attack. lead: a shorter attack, from a given point alone, which
    goes ahead of it. rounding: examples are judged at 8 bits. strict: the
    attack asks this verdict of each of its finds, and goes on where it is denied. seeded: makes
    the generator with which every call of the attack begins, so that an image meets the noise
    that the attack alone would give it.
    """

    net: FrozenModel
    judge: nn.Module
    attack: Attack
    batch_size: int
    climb: bool
    rounding: bool
    seeded: Callable[[], torch.Generator]
    device: torch.device
    lead: Attack | None = None
    strict: bool = False
    warned: list[bool] = field(default_factory=list)

    @property
    def targeted(self) -> bool:
        """Whether the labels are the classes wanted."""
        return bool(getattr(self.attack, "targeted", False))

    def threat(self, eps: float | Tensor) -> Threat:
        """Return the ball of the attack at another epsilon, a number or (B,)."""
        return Threat(self.attack.norm, eps)

    def check(self, x: Tensor, y: Tensor) -> None:
        """Raise ValueError unless y are labels of the images x (N, C, H, W); see `check_labels`."""
        check_labels(self.net, x, y)

    def clean(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return which images are broken as they are, and whose logits are not finite, (B,) each.

        Those that are not finite are among the broken, whatever the attack wants.
        """
        broken = verdict(self.judge, x, y, targeted=self.targeted, batch_size=self.batch_size)
        wild = torch.zeros_like(broken)
        doubtful = (~broken if self.targeted else broken).nonzero()[:, 0]
        with torch.no_grad(), exactly(self.judge) as inner:
            for rows in chunks(doubtful, self.batch_size):
                images = x[rows] if x.dtype == torch.float64 else x[rows].float()
                wild[rows] = ~inner(images).isfinite().all(1)
        return broken | wild, wild

    def judged(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the images that the verdict is asked of: at 8 bits where rounding is on."""
        return self.threat(0.0).round(x_adv, x) if self.rounding else x_adv

    def breaks(self, x_adv: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return the verdict on x_adv, (B,) bool."""
        if not len(x):
            return torch.zeros(0, dtype=torch.bool, device=x.device)
        seen = self.judged(x_adv, x)
        return verdict(self.judge, seen, y, targeted=self.targeted, batch_size=self.batch_size)

    def attempt(
        self,
        x: Tensor,
        y: Tensor,
        ids: Tensor,
        eps: float | Tensor,
        given: Tensor | None = None,
        tell: Callable[[int], None] = lambda count: None,
    ) -> Outcome:
        """Break images (B, C, H, W) within `eps`, a number or (B,).

        given: points of the ball; those that break their image are taken at the price of one
        forward. The rest is attacked in full, in batches; `tell` hears of each settled image.
        """
        points = x.clone() if given is None else given.clone()
        broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        if given is not None:
            broken = self.breaks(given, x, y)
        cheaply, rest = broken.clone(), (~broken).nonzero()[:, 0]
        tell(len(x) - len(rest))
        for rows in chunks(rest, self.batch_size):
            more = {"start": given[rows]} if given is not None and self.climb else {}
            attack = at_eps(self.attack, self.threat(eps).take(rows).eps)
            points[rows] = self._run(attack, x[rows], y[rows], ids[rows], more)
            broken[rows] = self.breaks(points[rows], x[rows], y[rows])
            tell(len(rows))
        return Outcome(points, broken, cheaply)

    def ahead(
        self, lead: Attack, x: Tensor, y: Tensor, ids: Tensor, eps: float, given: Tensor
    ) -> Outcome:
        """Go ahead of the attack by `lead`, from points of the ball (B, C, H, W).

        What breaks is confirmed as ever; what does not may yet.
        """
        points = given.clone()
        broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for rows in chunks(torch.arange(len(x), device=x.device), self.batch_size):
            begin = {"start": given[rows], "ahead": True}
            points[rows] = self._run(at_eps(lead, eps), x[rows], y[rows], ids[rows], begin)
            hit = rows[self._seems_broken(points[rows], x[rows], y[rows])]
            broken[hit] = self.breaks(points[hit], x[hit], y[hit])
        return Outcome(points, broken, broken & (points == given).flatten(1).all(1))

    @torch.no_grad()
    def _seems_broken(self, x_adv: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return whether the model seems to misclassify, (B,) bool; all where another judges."""
        if self.judge is not self.net:
            return torch.ones(len(x), dtype=torch.bool, device=x.device)
        return is_broken(self.net(self.judged(x_adv, x)), y, targeted=self.targeted)

    def _run(
        self, attack: Attack, x: Tensor, y: Tensor, ids: Tensor, given: dict[str, Any]
    ) -> Tensor:
        """Return the attack's points; its warnings of logits not finite are kept for one."""
        more = {**given, "judge": self.breaks} if self.strict else given
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", NotFiniteWarning)
            x_adv = attack(self.net, x, y, generator=self.seeded(), ids=ids, **more)
        for one in caught:
            if issubclass(one.category, NotFiniteWarning):
                self.warned.append(True)
            else:
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        return x_adv

    def warn(self, not_finite: Tensor) -> None:
        """Warn once of logits that were not finite: of the images (N,) bool, or on the way."""
        if self.warned or bool(not_finite.any()):
            also = " and for others under attack" if self.warned else ""
            warnings.warn(
                "the model returned logits that are not finite for "
                f"{int(not_finite.sum())} of {len(not_finite)} images as they are{also}; "
                "they count as misclassified",
                NotFiniteWarning,
                stacklevel=3,
            )


def chunks(rows: Tensor, size: int) -> tuple[Tensor, ...]:
    """Return `rows` (N,) in pieces of `size`, none for none."""
    if size < 1:
        raise ValueError(f"chunk={size}: at least 1 is needed")
    return torch.split(rows, size) if len(rows) else ()


@contextmanager
def trial(
    model: nn.Module,
    x: Tensor,
    attack: Attack,
    *,
    batch_size: int,
    generator: torch.Generator | None,
    warm: Warm = None,
    transfer_to: nn.Module | None = None,
    rounding: bool = False,
) -> Iterator[Trial]:
    """Freeze `model` once for many calls of `attack` on images like `x` (N, C, H, W).

    The attack stops early where it can. Where examples are rounded first, or another model
    judges, an attack that takes a judge asks it of its finds, and only those that it confirms
    count; but one that can climb to the end without looking (`stop_early`) makes one example an
    image for another model, as transfer is usually measured, and is led by no other. The
    generator's state is kept as it is now.
    Raises ValueError for warm="climb" and an attack that takes no start.
    """
    takes = inspect.signature(type(attack).__call__).parameters
    if warm == "climb" and "start" not in takes:
        raise ValueError(f"warm='climb': {type(attack).__name__} takes no start; use 'verdict'")
    if warm not in ("lead", "verdict", "climb", None):
        raise ValueError(f"warm='{warm}': one of lead, verdict, climb, None")
    climbs = any(f.name == "stop_early" for f in fields(attack))  # type: ignore[arg-type]
    own, blind = transfer_to is None and not rounding, climbs and transfer_to is not None
    strict = "judge" in takes and not own and not blind
    if climbs:
        attack = replace(attack, stop_early=own or strict)  # type: ignore[type-var]
    led = warm == "lead" and hasattr(attack, "brief") and (own or strict)
    led = led and (takes.keys() >= {"start", "ahead"} or _takes_anything(takes))
    first = next(unwrapped(model).parameters(), x)
    sample = x[:1] if len(x) else x.new_zeros(1, *x.shape[1:])
    precision: Arithmetic = getattr(attack, "precision", "float32")
    with frozen(model, sample.to(first.device), precision=precision) as net:
        yield Trial(
            net=net,
            judge=net if transfer_to is None else transfer_to,
            attack=attack,
            batch_size=batch_size,
            climb=warm == "climb",
            lead=attack.brief() if led else None,  # type: ignore[attr-defined]
            rounding=rounding,
            strict=strict,
            seeded=_repeating(generator),
            device=first.device,
        )


def _takes_anything(takes: Mapping[str, inspect.Parameter]) -> bool:
    return any(one.kind is inspect.Parameter.VAR_KEYWORD for one in takes.values())


def _repeating(generator: torch.Generator | None) -> Callable[[], torch.Generator]:
    """Return what makes generators in the present state of `generator`, or of torch's own."""
    source = torch.default_generator if generator is None else generator
    device, state = source.device, source.get_state()

    def again() -> torch.Generator:
        fresh = torch.Generator(device=device)
        fresh.set_state(state)
        return fresh

    return again
