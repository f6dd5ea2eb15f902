"""What withstands: the paper's attacks as papers run them, and the strongest that fit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diascope.attacks import Attack
from diascope.attacks.threat import Norm
from diascope.audit.masking import run_masking
from diascope.audit.masking.cost import most, of_attack
from diascope.audit.masking.meter import Meter, Metered
from diascope.audit.masking.stand import Stand
from diascope.errors import UserError, gathered
from diascope.registry import added, to_settings
from diascope.studies.evaluations import EVALUATIONS
from diascope.studies.evaluations.besieging import (
    Siege,
    build_attack,
    check_grid,
    nearest,
    pgd_40,
    slope_follower,
    strong,
)
from diascope.studies.exam import Column, Exam, Measured, Sample, at, known

STRONGEST, MINIMAL = "strongest", "minimal_epsilon"
GREY = 0.5 / 255  # half a grey level: a smaller change of pixels is none at 8 bits
PIECE = 8  # batches whose images are attacked together
SHARE, MASKING_SHARE = 0.5, 0.3  # of the passes against a model that withstands all
TOGETHER_SHARE = 0.2  # of attacks that meet what withstood those before

Bools = NDArray[np.bool_]
Arrays = dict[str, NDArray[Any]]
Several = Mapping[str, dict[str, Any] | str]


def _paper() -> Several:
    return {"pgd": pgd_40()}


@EVALUATIONS.register("robust")
@dataclass(frozen=True, kw_only=True)
class Robust:
    """Accuracy under attack: by attacks as the papers run them, and the worst case of many.

    epsilons: in pixel units. attacks: settings by the name that their columns bear, `name` of the
    attack apart if it is another; their norm is `norm`. strongest: attacks besides those, None for
    `strong` of `steps`, `queries`, `targets` and `restarts`. images: how many are attacked, None
    for all; strongest_images: how many of them by all together. masking_images: how many the checks
    on masked gradients look at, 0 for no checks; masking_steps, masking_queries: of their attacks;
    masking_attack: their main one, by default the strongest with gradients, APGD on the targeted
    logit ratio (of two classes on the margin), for one on the cross-entropy is outdone by other
    losses on honest robust nets as well; reference: the epsilon at which they look, by default the
    middle one above 0.

    Columns: `<attack>@<eps>`, 1 where an image withstood, 0 where it was broken or misclassified
    already, each attack and epsilon by itself, so that one may rise with epsilon;
    `strongest@<eps>`, the worst case over every attack at this epsilon or a smaller one;
    `minimal_epsilon`, the smallest of them that broke it: 0 where it is misclassified as it is,
    inf where none did. NaN where an image was not attacked. Every verdict is the model's own in
    float32; an image that an attack breaks on its way counts as broken.
    """

    epsilons: tuple[float, ...]
    norm: Norm = "linf"
    attacks: Several = field(default_factory=_paper, hash=False)
    strongest: Several | None = field(default=None, hash=False)
    steps: int = 30
    queries: int = 500
    targets: int = 3
    restarts: int = added(1)
    images: int | None = None
    strongest_images: int | None = None
    masking_images: int = 48
    masking_steps: int = 20
    masking_queries: int = 200
    masking_attack: dict[str, Any] | str | None = field(default=None, hash=False)
    reference: float | None = None

    def __post_init__(self) -> None:
        check_grid(self.epsilons)
        if not self.attacks:
            raise ValueError("attacks: name one at least")
        for name in ("images", "strongest_images"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ValueError(f"{name}={count}: at least 1, or null for all")
        counts = ("steps", "queries", "targets", "restarts", "masking_steps", "masking_queries")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: at least 1 is needed")
        if self.masking_images < 0:
            raise ValueError(f"masking_images={self.masking_images}: at least 0")
        if self.reference is not None and not 0 < self.reference < math.inf:
            raise ValueError(f"reference={self.reference}: a number above 0")
        _ = self.paper, self._strong(2), self._checked(2)  # raise UserError for mistakes in them

    @cached_property
    def grid(self) -> tuple[float, ...]:
        """The epsilons, rising."""
        return tuple(sorted(self.epsilons))

    @property
    def middle(self) -> float | None:
        """The epsilon at which gradients are checked; None where there is none above 0."""
        above = [eps for eps in self.grid if eps > 0]
        return self.reference or (above[(len(above) - 1) // 2] if above else None)

    @cached_property
    def paper(self) -> dict[str, Attack]:
        """The attacks that are run alone, by name."""
        return _built(self.attacks, self.norm, "attacks")

    def _strong(self, classes: int) -> dict[str, Attack]:
        if self.strongest is not None:
            return _built(self.strongest, self.norm, "strongest")
        return strong(self.norm, classes, self.steps, self.queries, self.targets, self.restarts)

    def _checked(self, classes: int) -> Attack:
        """Return the main attack of the checks on masked gradients."""
        if self.masking_attack is not None:
            return build_attack(self.masking_attack, self.norm, "masking_attack")
        return slope_follower(self.norm, classes, self.masking_steps, self.targets)

    def __call__(self, exam: Exam) -> Measured:
        """Measure; see `Evaluation`."""
        if not len(exam.pixels) or len(exam.classes) < 2:
            raise UserError(
                f"{exam.pixels.dataset.name}: {len(exam.pixels)} images of {len(exam.classes)} "
                "classes: an attack needs an image and two classes"
            )
        meter = Meter(exam.tell)
        model = Metered(exam.model, meter)
        siege = Siege(model, self.norm, self.grid, exam.batch_size, exam.seeded)
        with gathered() as doubts:
            columns, about, correct = self._attacked(exam, siege)
            masking = self._masking(exam, correct)
        about["doubts"] = doubts
        return Measured(columns, about, masking)

    def _attacked(
        self, exam: Exam, siege: Siege
    ) -> tuple[dict[str, Column], dict[str, Any], Bools]:
        """Return the columns, what is told of them, and which images are right as they are."""
        rows = exam.drawn(self.images)
        chosen = exam.drawn(min(self.strongest_images or len(rows), len(rows)))
        stronger = self._strong(len(exam.classes))
        columns = {name: exam.blank() for name in self.columns()}
        broke: dict[str, int] = {}
        correct = np.zeros(len(exam.pixels), dtype=bool)
        for some in exam.batches(rows, PIECE * exam.batch_size):
            clean = siege.clean(some)
            correct[some.rows] = (~clean).cpu().numpy()
            known = torch.zeros(len(self.grid), len(clean), dtype=torch.bool, device=clean.device)
            for name, attack in self.paper.items():
                alone = partial(_alone, siege, name, attack, some, clean)
                found = exam.kept(["alone", name, some.rows], alone)
                broken = torch.from_numpy(found["broken"]).to(clean.device)
                known |= broken
                for eps, column in zip(self.grid, _withstood(broken), strict=True):
                    columns[at(name, eps)][some.rows] = column
            place = np.flatnonzero(np.isin(some.rows, chosen))
            if not len(place):
                continue
            part = some.take(place)
            before = clean[place], known[:, place]
            together = partial(_together, siege, stronger, part, *before)
            found = exam.kept(["together", part.rows], together)
            columns[MINIMAL][part.rows] = minimal = found["minimal"]
            for eps in self.grid:
                columns[at(STRONGEST, eps)][part.rows] = (minimal > eps).astype(np.float64)
            count = zip(("known", *stronger), found["count"].tolist(), strict=True)
            broke = {name: broke.get(name, 0) + number for name, number in count}
        about = {
            "norm": self.norm,
            "epsilons": list(self.grid),
            "attacks": {name: _told(attack) for name, attack in self.paper.items()},
            "strongest": {name: _told(attack) for name, attack in stronger.items()},
            "broke_first": {
                "the attacks above" if n == "known" else n: c for n, c in broke.items()
            },
            "images": len(rows),
            "strongest_images": len(chosen),
            "reference": self.middle,
            "below_8_bits": [e for e in self.grid if self.norm == "linf" and 0 < e < GREY],
        }
        return columns, about, correct

    def _masking(self, exam: Exam, correct: Bools) -> list[dict[str, Any]] | None:
        """Return what the checks say of images that are classified correctly."""
        if not self.masking_images or self.middle is None:
            return None
        rows = exam.drawn(self.masking_images, correct)
        some = exam.sample(rows if len(rows) else exam.drawn(self.masking_images))
        stand = Stand(
            exam.model,
            some.x,
            some.y,
            some.ids,
            norm=self.norm,
            eps=self.middle,
            epsilons=[eps for eps in self.grid if eps > 0],
            steps=self.masking_steps,
            queries=self.masking_queries,
            attack=self._checked(len(exam.classes)),
            groups=exam.pixels.dataset.groups[some.rows],
            classes=exam.classes,
            others=exam.beside,
            batch_size=exam.batch_size,
            seed=exam.seed,
            tell=exam.tell,
        )
        found = exam.kept(["masking", some.rows], lambda: {"outcomes": _outcomes(stand)})
        outcomes: list[dict[str, Any]] = json.loads(str(found["outcomes"]))
        for outcome in outcomes:
            if outcome["verdict"] == "undecided":
                outcome["verdict"] = "not applicable"
        return outcomes

    def passes(self, images: int, classes: int, beside: int) -> float:
        """Return the passes, by the share of them that is usually made; see `Evaluation`."""
        attacked = min(self.images or images, images)
        together = min(self.strongest_images or attacked, attacked)
        above = sum(eps > 0 for eps in self.grid)

        def each(chosen: Mapping[str, Attack]) -> float:
            return sum(
                (1 if nearest(a) else above) * of_attack(a, classes) for a in chosen.values()
            )

        alone = SHARE * attacked * each(self.paper)
        strongest = TOGETHER_SHARE * together * each(self._strong(classes))
        checks = 0.0
        if self.masking_images and above:
            checks = MASKING_SHARE * most(
                min(self.masking_images, images),
                above,
                self.masking_steps,
                self.masking_queries,
                main=self._checked(classes),
                others=beside,
                outputs=classes,
            )
        return attacked + alone + strongest + checks

    def columns(self) -> list[str]:
        """Return the columns."""
        names = [*self.attacks, STRONGEST]
        return [*(at(name, eps) for name in names for eps in self.grid), MINIMAL]


def _alone(siege: Siege, name: str, attack: Attack, some: Sample, clean: Tensor) -> Arrays:
    return {"broken": siege.alone(name, attack, some, clean).cpu().numpy()}


def _together(
    siege: Siege, attacks: Mapping[str, Attack], some: Sample, clean: Tensor, known: Tensor
) -> Arrays:
    minimal, count = siege.together(attacks, some, clean, known)
    return {"minimal": minimal.cpu().numpy(), "count": np.array(list(count.values()))}


def _outcomes(stand: Stand) -> str:
    return json.dumps([known(asdict(outcome)) for outcome in run_masking(stand)])


def _built(several: Several, norm: Norm, where: str) -> dict[str, Attack]:
    """Return attacks by name, of one norm; an entry without `name` is that of its key."""
    for key in several:
        if key in (STRONGEST, MINIMAL) or "@" in key or "." in key:
            raise UserError(f"{where}: '{key}' is no name of a column of its own: choose another")
    return {
        key: build_attack(settings, norm, f"{where}.{key}", key)
        for key, settings in several.items()
    }


def _withstood(broken: Tensor) -> NDArray[np.float64]:
    return (~broken).double().cpu().numpy()


def _told(attack: Attack) -> dict[str, Any]:
    settings = to_settings(attack)
    settings.pop("eps", None)
    return settings
