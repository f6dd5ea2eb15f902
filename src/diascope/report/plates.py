"""The cases as the page shows them: pictures encoded, predictions judged, steps of epsilon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import rankdata

from diascope.audit.results import Attacked, Case, Heat, Image, Results, View
from diascope.report import numbers as n
from diascope.report import pictures

BUDGET = 11_000_000  # bytes of pictures in one report
SAMPLES = 6  # pictures of each kind from which their size is foretold
LARGEST = 256  # pixels; plates are shown at about 200


@dataclass(frozen=True)
class Guess:
    """A prediction and whether it is right."""

    name: str
    probability: str
    right: bool

    @property
    def sign(self) -> str:
        """Return the sign that stands beside the word."""
        return "✓" if self.right else "✗"

    @property
    def word(self) -> str:
        """Return right or wrong."""
        return "right" if self.right else "wrong"


@dataclass(frozen=True)
class StepPlates:
    """The pictures of one model at one epsilon."""

    place: int
    image: str
    perturbation: str
    heat: str
    guess: Guess
    alike: str  # rank correlation of the map with that without an attack


@dataclass(frozen=True)
class ModelPlates:
    """The pictures of one model; `maps`: one a method, the shown one first, empty where none."""

    name: str
    index: int
    maps: list[str]
    guess: Guess
    broken: str
    steps: list[StepPlates]


@dataclass(frozen=True)
class CasePlates:
    """One case; `outline` is an SVG path in pixels of `width` x `height`."""

    number: int
    id: str
    label: str
    source: str
    reason: str
    width: int
    height: int
    image: str
    outline: str
    views: list[ModelPlates]


@dataclass(frozen=True)
class Browser:
    """All cases, the steps of epsilon, and the magnification at each."""

    cases: list[CasePlates]
    epsilons: list[str]
    factors: list[str]
    start: int
    side: int
    shrunk: bool
    methods: list[str]

    @property
    def state(self) -> list[dict[str, Any]]:
        """Return what the filters need of each case: class, and who is right at which step."""
        return [
            {
                "label": case.label,
                "clean": [view.guess.right for view in case.views],
                "attacked": [
                    [{s.place: s.guess.right for s in v.steps}.get(k) for v in case.views]
                    for k in range(len(self.epsilons))
                ],
            }
            for case in self.cases
        ]


def browser(results: Results, budget: int = BUDGET) -> Browser:
    """Encode every case of the results, shrinking the pictures until they fit the budget."""
    cases = results.cases
    steps = sorted({a.eps for c in cases for v in c.views for a in v.attacked if a.eps > 0})
    factors = [_factor(cases, eps) for eps in steps]
    own = max((max(c.image.shape[:2]) for c in cases), default=0)
    methods = method_names(results)
    encoding = pictures.fitting(budget, _kinds(cases, factors, steps), min(own, LARGEST))
    side = encoding.side
    index = {m.name: i for i, m in enumerate(results.models)}

    def encode_view(view: View, place: int, label: str) -> ModelPlates:
        at = {a.eps: a for a in view.attacked}
        return ModelPlates(
            name=view.model,
            index=index.get(view.model, place),
            maps=[pictures.heat_map(view.heat, side)]
            + [
                pictures.heat_map(view.maps[m], side) if m in view.maps else "" for m in methods[1:]
            ],
            guess=_guess(view, label),
            broken=_broken(view, results, label),
            steps=[
                _step(view, at[eps], k, factors[k], encoding, label)
                for k, eps in enumerate(steps)
                if eps in at
            ],
        )

    return Browser(
        cases=[_case(case, i + 1, side, encode_view) for i, case in enumerate(cases)],
        epsilons=[n.eps_text(eps, results.norm) for eps in steps],
        factors=[f"{factor:g}" for factor in factors],
        start=len(steps) // 2,
        side=side,
        shrunk=side < own,
        methods=methods,
    )


def method_names(results: Results) -> list[str]:
    """Return the explanation methods of the cases, the shown one first."""
    others = [name for c in results.cases for v in c.views for name in v.maps]
    return list(dict.fromkeys([str(results.explainer.get("name", "shown")), *others]))


def _kinds(cases: list[Case], factors: list[float], steps: list[float]) -> list[pictures.Kind]:
    """Return what pictures there are, with a few of each spread over the cases."""
    views = [view for case in cases for view in case.views]
    seen = [a for view in views for a in view.attacked if a.eps > 0]
    maps = [heat for view in views for heat in (view.heat, *view.maps.values())]
    maps += [a.heat for a in seen]
    factor = dict(zip(steps, factors, strict=True))
    photos = [c.image for c in cases] + [a.image for a in seen]
    return [
        pictures.Kind(len(photos), [partial(_photograph, p) for p in _few(photos)]),
        pictures.Kind(len(maps), [partial(_heat, m) for m in _few(maps)]),
        pictures.Kind(len(seen), [partial(_added, a, factor[a.eps]) for a in _few(seen)]),
    ]


def _photograph(image: Image, encoding: pictures.Encoding) -> str:
    return pictures.photograph(image, encoding.side)


def _heat(heat: Heat, encoding: pictures.Encoding) -> str:
    return pictures.heat_map(heat, encoding.side)


def _added(seen: Attacked, factor: float, encoding: pictures.Encoding) -> str:
    return pictures.perturbation(seen.perturbation, factor, encoding)


def _few(items: list[Any]) -> list[Any]:
    return items[:: max(len(items) // SAMPLES, 1)][: SAMPLES + 1]


def _case(
    case: Case, number: int, side: int, encode_view: Callable[[View, int, str], ModelPlates]
) -> CasePlates:
    height, width = case.image.shape[:2]
    return CasePlates(
        number=number,
        id=case.id,
        label=case.label,
        source=case.source,
        reason=getattr(case, "reason", ""),
        width=width,
        height=height,
        image=pictures.photograph(case.image, side),
        outline="" if case.mask is None else pictures.outline(case.mask),
        views=[encode_view(view, i, case.label) for i, view in enumerate(case.views)],
    )


def _step(
    view: View, seen: Attacked, place: int, factor: float, encoding: pictures.Encoding, label: str
) -> StepPlates:
    side = encoding.side
    return StepPlates(
        place=place,
        image=pictures.photograph(seen.image, side),
        perturbation=pictures.perturbation(seen.perturbation, factor, encoding),
        heat=pictures.heat_map(seen.heat, side),
        guess=_guess(seen, label),
        alike=n.number(alike(view.heat, seen.heat), 2),
    )


def alike(a: Heat, b: Heat) -> float:
    """Return the rank correlation of two maps, on a raster of at most about 64 x 64 pixels."""
    every = max(1, max(a.shape) // 64)
    ranks = [rankdata(m[::every, ::every].ravel()) for m in (a, b)]
    if any(r.std() == 0 for r in ranks) or a.shape != b.shape:
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def _guess(seen: View | Attacked, label: str) -> Guess:
    return Guess(seen.prediction, n.number(seen.probability, 2), seen.prediction == label)


def _factor(cases: list[Case], eps: float) -> float:
    """Return one magnification for all pictures at an epsilon, so that they can be compared."""
    found = [a.perturbation for c in cases for v in c.views for a in v.attacked if a.eps == eps]
    return pictures.magnification(found)


def _broken(view: View, results: Results, label: str) -> str:
    """Return when the curve calls the image broken, and where a picture shows it broken before."""
    minimal = view.minimal_epsilon
    if n.defined(minimal):
        if minimal <= 0:
            return "wrong without an attack"
        said = f"first broken at eps {n.eps_text(minimal, results.norm)}"
    elif minimal == float("inf") and results.epsilons:
        said = f"not broken up to eps {n.eps_text(max(results.epsilons), results.norm)}"
    else:
        return f"smallest breaking eps: {n.DASH} (not measured)"
    alone = min((a.eps for a in view.attacked if a.eps > 0 and a.prediction != label), default=None)
    if alone is None or alone >= minimal:
        return said
    return f"{said} on the curve; by the attack alone at {n.eps_text(alone, results.norm)}"
