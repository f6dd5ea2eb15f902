"""What the checks on masking stand on: one model, some images, and the attacks run on them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diascope.attacks import APGD, FGSM, PGD, Attack, BoundaryAttack, Square, Threat
from diascope.attacks.base import NoGradientWarning, NotFiniteWarning, verdict
from diascope.attacks.threat import Norm
from diascope.attacks.trial import trial
from diascope.audit.masking.meter import Meter, Metered
from diascope.audit.masking.question import FEWEST
from diascope.models.heads import is_correct
from diascope.models.modes import exactly, unwrapped
from diascope.randomness import derive

LEFT = 0.1  # the share of the images that must still stand for an attack to be outdone on them
TARGETS = 3  # other classes that targeted runs aim at
FEW = 16  # images for what is costly
KERNELS = 1e-4  # of the spread of the logits: what two runs of the same kernels may differ by


class Run(NamedTuple):
    """What an attack came to on some images: where it took them (n, C, H, W), and which it broke.

    broken (n,) bool: by the verdict of the model itself in float32.
    """

    points: Tensor
    broken: Tensor


@dataclass(eq=False)
class Stand:
    """One model under the checks, and what several of them share, each measured once.

    x (N, C, H, W) in [0, 1], y (N,), ids (N,): the images. norm, eps: the threat at which the
    audit reports one figure; epsilons: its grid. attack: the audit's main attack, by default PGD of
    `steps` steps. steps, queries: of the attacks that the checks add. groups (N,): patients or
    lesions. others: models to transfer from. passes are counted by `meter`, which tells `tell`.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    ids: Tensor
    norm: Norm
    eps: float
    epsilons: Sequence[float]
    steps: int = 20
    queries: int = 300
    attack: Attack | None = None
    groups: NDArray[Any] | None = None
    classes: Sequence[str] = ()
    others: Mapping[str, nn.Module] = field(default_factory=dict)
    batch_size: int = 64
    seed: int = 0
    replicates: int = 2000
    tell: Callable[[float], None] = lambda passes: None

    def __post_init__(self) -> None:
        self.meter = Meter(self.tell)
        self.target = Metered(self.model, self.meter)
        self.epsilons = tuple(sorted({float(e) for e in self.epsilons if e > 0} | {self.eps} - {0}))
        first = next(unwrapped(self.model).parameters(), self.x)
        self.x, self.y, self.ids = (t.to(first.device) for t in (self.x.detach(), self.y, self.ids))

    @cached_property
    def main(self) -> Attack:
        """The audit's main attack, in the norm of the audit."""
        attack = self.attack or PGD(steps=self.steps)
        return replace(attack, norm=self.norm)  # type: ignore[type-var]

    @cached_property
    def logits(self) -> Tensor:
        """The logits (N, K) of the images themselves, in float32."""
        return self.ask(self.x)

    @cached_property
    def correct(self) -> Tensor:
        """Which images are classified correctly without an attack, (N,) bool."""
        return is_correct(self.logits, self.y)

    @cached_property
    def rows(self) -> Tensor:
        """The places of the images that there is something to break of, (n,)."""
        return self.correct.nonzero()[:, 0]

    @cached_property
    def why_not(self) -> str:
        """Why no attack can be judged here; empty where one can."""
        if not self.epsilons:
            return "no epsilon above 0 is audited, so there is no attack to check"
        return self.too_few

    @property
    def too_few(self) -> str:
        """Why so few images tell nothing; empty where there are enough."""
        if len(self.rows) >= FEWEST:
            return ""
        return (
            f"only {len(self.rows)} of {len(self.x)} images are classified correctly without an "
            f"attack; at least {FEWEST} are needed"
        )

    def ask(self, x: Tensor) -> Tensor:
        """Return the logits of images (B, C, H, W), in eval mode and float32."""
        with torch.no_grad(), exactly(self.target) as inner:
            parts = torch.split(x, self.batch_size)
            return torch.cat([inner(part).detach().clone().float() for part in parts])

    def broken(self, x: Tensor, rows: Tensor) -> Tensor:
        """Return the verdict on images (n, C, H, W) made of the images `rows`, (n,) bool."""
        return verdict(self.target, x, self.y[rows], batch_size=self.batch_size)

    def run(
        self,
        attack: Attack,
        eps: float,
        rows: Tensor | None = None,
        *,
        purpose: str = "attack",
        model: nn.Module | None = None,
        batch_size: int | None = None,
    ) -> Run:
        """Attack the images `rows` (those classified correctly if None) within `eps`.

        A run of its own: every image anew, from noise that belongs to (seed, purpose, image).
        model: another one to attack; what is broken is still asked of the model under audit.
        """
        rows = self.rows if rows is None else rows
        x, y, ids = self.x[rows], self.y[rows], self.ids[rows]
        if not len(rows):
            return Run(x, torch.zeros(0, dtype=torch.bool, device=x.device))
        with (
            quiet(),
            trial(
                self.target if model is None else model,
                x,
                attack,
                batch_size=batch_size or self.batch_size,
                generator=self.generator(purpose),
                transfer_to=None if model is None else self.target,
            ) as attempts,
        ):
            outcome = attempts.attempt(x, y, ids, eps)
        return Run(outcome.points, outcome.broken)

    def generator(self, purpose: str) -> torch.Generator:
        """Return a generator that depends on the seed and the purpose alone."""
        return torch.Generator().manual_seed(derive(self.seed, "masking", purpose) & (2**62 - 1))

    def threat(self, eps: float) -> Threat:
        """Return the ball of the audit's norm."""
        return Threat(self.norm, eps)

    @cached_property
    def reference(self) -> Run:
        """The main attack on every image classified correctly, at the reference epsilon."""
        return self.run(self.main, self.eps)

    @cached_property
    def by_epsilon(self) -> Tensor:
        """Which images the main attack broke at each of `epsilons`, (E, n) bool."""
        known = {self.eps: self.reference.broken} if self.eps > 0 else {}
        return torch.stack(
            [known[e] if e in known else self.run(self.main, e).broken for e in self.epsilons]
        )

    @cached_property
    def single_step(self) -> Tensor:
        """Which images FGSM broke at each of `epsilons`, (E, n) bool."""
        return torch.stack([self.run(FGSM(norm=self.norm), e).broken for e in self.epsilons])

    @cached_property
    def working(self) -> float:
        """The epsilon at which the main attack may be outdone; 0 where it left nothing standing.

        The reference, if a tenth of the images (and two) still stand there; else the largest
        smaller one of which this holds.
        """
        need = max(2, math.ceil(LEFT * len(self.rows)))
        left = (~self.by_epsilon).sum(1).tolist()
        fit = [e for e, n in zip(self.epsilons, left, strict=True) if n >= need and e <= self.eps]
        return max(fit, default=0.0)

    @cached_property
    def why_not_beyond(self) -> str:
        """Why no attack can do better than the main one; empty where one can."""
        if self.why_not or self.working > 0:
            return self.why_not
        return (
            f"the main attack breaks nearly every image already at eps {self.epsilons[0]:.3g}: "
            "nothing is left for another to break"
        )

    @cached_property
    def main_broken(self) -> Tensor:
        """Which images the main attack broke at the working epsilon, (n,) bool."""
        return self.by_epsilon[self.epsilons.index(self.working)]

    @cached_property
    def stronger(self) -> dict[str, Tensor]:
        """What more steps and more restarts of the main attack broke at the working epsilon."""
        names = {f.name for f in fields(self.main)}  # type: ignore[arg-type]
        longer: Attack = PGD(norm=self.norm, steps=4 * self.steps)
        if "steps" in names:
            longer = self.change(self.main, steps=4 * self.main.steps)  # type: ignore[attr-defined]
        elif "queries" in names:
            longer = self.change(self.main, queries=4 * self.main.queries)  # type: ignore[attr-defined]
        runs = {"4 times the steps": (longer, "attack")}
        if "restarts" in names and type(self.main) is not FGSM:
            again = self.change(self.main, restarts=3 * self.main.restarts)  # type: ignore[attr-defined]
            runs["3 times the restarts, from other starts"] = (again, "restarts")
        return self._on_those_left(runs, self.main_broken)

    @cached_property
    def losses(self) -> dict[str, Tensor]:
        """What other losses and targets broke at the working epsilon, (n,) bool by name."""
        several = self.logits.shape[1] > 2
        runs: dict[str, Attack] = {}
        if getattr(self.main, "loss", "") != "ce":
            runs["cross-entropy"] = PGD(norm=self.norm, steps=self.steps)
        runs["margin"] = PGD(norm=self.norm, steps=self.steps, loss="margin")
        if several:
            runs["logit ratio"] = APGD(norm=self.norm, steps=self.steps, loss="dlr")
            runs["targeted at the runners-up"] = APGD(
                norm=self.norm, steps=self.steps, loss="dlr-targeted", targets=TARGETS
            )
        else:
            runs["margin, own step sizes"] = APGD(norm=self.norm, steps=self.steps, loss="margin")
        return self._on_those_left({k: (a, "losses") for k, a in runs.items()}, self.main_broken)

    @cached_property
    def white_box(self) -> Tensor:
        """What any attack that used gradients broke at the working epsilon, (n,) bool."""
        found = self.main_broken.clone()
        for more in (*self.stronger.values(), *self.losses.values()):
            found |= more
        return found

    @cached_property
    def black_box(self) -> dict[str, Tensor]:
        """What attacks without this model's gradients broke of what those with them left."""
        runs: dict[str, Attack] = {
            "Square": Square(norm=self.norm, queries=self.queries),
            "Boundary": BoundaryAttack(norm=self.norm, queries=self.queries),
        }
        found = self._on_those_left({k: (a, "black box") for k, a in runs.items()}, self.white_box)
        attack = PGD(norm=self.norm, steps=self.steps)
        for name, other in self.others.items():
            metered, rows = Metered(other, self.meter), self._left(self.white_box)
            if not differentiable(other, self.x[:1]) or not len(rows):
                continue
            broken = self.run(attack, self.working, rows, purpose="transfer", model=metered).broken
            found[f"transfer from {name}"] = self._among(rows, broken)
        return found

    def change(self, attack: Attack, **values: Any) -> Attack:
        """Return the same attack with other settings."""
        return replace(attack, **values)  # type: ignore[type-var]

    def _on_those_left(
        self, runs: Mapping[str, tuple[Attack, str]], broken: Tensor
    ) -> dict[str, Tensor]:
        rows = self._left(broken)
        return {
            name: self._among(rows, self.run(attack, self.working, rows, purpose=purpose).broken)
            for name, (attack, purpose) in runs.items()
        }

    def _left(self, broken: Tensor) -> Tensor:
        """Return the places (m,) of the images classified correctly that are not `broken` (n,)."""
        return self.rows[~broken]

    def _among(self, rows: Tensor, broken: Tensor) -> Tensor:
        """Return verdicts on the images `rows` as verdicts on all classified correctly, (n,)."""
        whole = torch.zeros(len(self.x), dtype=torch.bool, device=self.x.device)
        whole[rows] = broken
        return whole[self.rows]

    @cached_property
    def few(self) -> Tensor:
        """The places of at most 16 of the images classified correctly, for costly looks, (m,)."""
        return self.rows[:FEW]

    @cached_property
    def again(self) -> float:
        """The largest difference of a logit between two forward passes of one batch."""
        x = self.x[: self.batch_size]
        return float((self.ask(x) - self.ask(x)).abs().nan_to_num(0, 0, 0).max())

    @property
    def spread(self) -> float:
        """The standard deviation of the logits, above 0."""
        values = self.logits[self.logits.isfinite()].double()
        return max(float(values.std()) if len(values) > 1 else 0.0, 1e-12)

    @property
    def random(self) -> bool:
        """Whether the model's answers differ from one forward pass to the next."""
        return self.again > KERNELS * self.spread

    @cached_property
    def group_names(self) -> NDArray[Any]:
        """The patient or lesion of each image (N,); each its own where none are known."""
        return np.arange(len(self.x)) if self.groups is None else np.asarray(self.groups)


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out the warnings of attacks on what the checks say in their own words."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoGradientWarning)
        warnings.simplefilter("ignore", NotFiniteWarning)
        yield


def differentiable(model: nn.Module, x: Tensor) -> bool:
    """Tell whether the logits of images (B, C, H, W) depend on them as far as autograd sees."""
    with torch.enable_grad(), exactly(model) as inner:
        logits = inner(x.detach().clone().requires_grad_(True))
    return bool(logits.requires_grad)
