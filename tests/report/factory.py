"""Plausible results of models that never were, for tests of the report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from tests.report.parts import around, differences, every_part, localised, stages

from diascope.audit.results import (
    Attacked,
    Case,
    Comparison,
    Finding,
    ModelResult,
    Results,
    Row,
    RowView,
    View,
)

CLASSES = ("melanoma", "nevus", "keratosis")
EPSILONS = (0.25, 0.5, 1.0, 2.0)
METHODS = ("smoothgrad", "gradcam")

__all__ = ["around", "bare_results", "make_results"]


def make_results(
    models: tuple[str, ...] = ("standard", "pgd-l2"),
    classes: tuple[str, ...] = CLASSES,
    cases: int = 3,
    size: int = 32,
    channels: int = 3,
    masks: bool = True,
    findings: bool = True,
    epsilons: tuple[float, ...] = EPSILONS,
    seed: int = 0,
    images: int = 300,
    parts: bool = True,
    **changes: Any,
) -> Results:
    """Results with every part; `parts` False: with none of those that stages fill."""
    rng = np.random.default_rng(seed)
    grid = [0.0, *epsilons]
    shown = [
        _case(k, rng, models, classes, size, channels, masks, epsilons, METHODS if parts else ())
        for k in range(cases)
    ]
    results = Results(
        title=" and ".join(models) + " on phantom",
        version="0.1.0",
        created="2026-11-21T09:30:00+00:00",
        command="diascope audit runs/standard runs/pgd-l2 --data phantom --out out",
        seed=0,
        hardware={"platform": "Linux", "cpu": "a processor", "threads": 2, "gpus": []},
        seconds=251.3,
        data={
            "name": "phantom",
            "images": images,
            "groups": images - 38,
            "classes": list(classes),
            "counts": {c: images // len(classes) for c in classes},
            "size": size,
            "sources": ["a"],
            "chance": 1 / len(classes),
            "majority": 0.41,
        },
        norm="l2",
        attack={"name": "pgd", "steps": 20, "norm": "l2"},
        explainer={"name": "gradient"},
        epsilons=grid,
        models=[_model(m, i, grid, classes, masks, parts) for i, m in enumerate(models)],
        comparisons=[_compared(m, models[0], grid, masks, parts) for m in models[1:]],
        findings=FINDINGS if findings else [],
        tables={m: f"tables/{m}.parquet" for m in models},
        cases_rule="Drawn by lot: of each class the images whose hashed id comes first.",
        settings={"norm": "l2", "images": None, "effort": {}, "replicates": 2000},
        budget="standard",
        effort={"curve_images": 200, "attacks": ["pgd", "apgd", "square"]} if parts else {},
        reference_eps=epsilons[len(epsilons) // 2 - 1] if epsilons else 0.0,
        positive=[classes[0]] if parts else [],
        stages=stages(models) if parts else [],
        cases=shown,
        rows=_rows(rng, shown, models, classes, images, epsilons) if parts else [],
    )
    return replace(results, **changes)


def bare_results(**changes: Any) -> Results:
    """Results of an audit that measured nothing but the curve and the maps of one method."""
    return make_results(parts=False, **changes)


FINDINGS = [
    Finding("note", "info", "Maps were made of logits", "explainer gradient", "Usual.", "None."),
    Finding(
        "fragility",
        "high",
        "standard falls below chance at l2 eps 0.5",
        "accuracy 0.21 [0.17, 0.25]",
        "A change of this size, chosen by someone who knows the model, turns its answers.",
        "Train adversarially at an epsilon near this one, and audit it again.",
        model="standard",
    ),
    Finding("centre", "low", "The maps find the lesion worse than a blob", "AP 0.31", "m", "r"),
]


def _model(
    name: str,
    index: int,
    grid: list[float],
    classes: tuple[str, ...],
    masks: bool,
    parts: bool,
) -> ModelResult:
    clean = 0.88 - 0.03 * index
    curve = [around(clean * np.exp(-e * (2.5 if index == 0 else 0.35))) for e in grid]
    localisation = localised(index) if masks else {}
    return ModelResult(
        name=name,
        architecture="resnet18",
        parameters=11_178_051,
        objective={"name": "adversarial" if index else "standard"},
        scores={
            "accuracy": around(clean),
            "balanced_accuracy": around(clean - 0.02),
            "auroc": around(clean + 0.07, 0.02),
        },
        recall={c: around(clean - 0.05 * k, 0.06) for k, c in enumerate(classes)},
        curve=curve,
        median_epsilon=0.4 if index == 0 else float("inf"),
        localisation=localisation,
        localisation_correct=localisation,
        **(every_part(index, clean, grid, classes, masks) if parts else {}),
    )


def _compared(
    model: str, reference: str, grid: list[float], masks: bool, parts: bool
) -> Comparison:
    curve = [around(-0.03 + 0.5 * min(e, 1.0), 0.05) for e in grid]
    paired = {"average_precision": around(0.18, 0.03)} if masks else {}
    more = differences() if parts else {}
    return Comparison(model, reference, {"accuracy": curve[0]}, curve, paired, paired, **more)


def _case(
    number: int,
    rng: np.random.Generator,
    models: tuple[str, ...],
    classes: tuple[str, ...],
    size: int,
    channels: int,
    masks: bool,
    epsilons: tuple[float, ...],
    methods: tuple[str, ...],
) -> Case:
    y, x = np.mgrid[:size, :size] / size
    cy, cx = rng.uniform(0.38, 0.62, 2)
    angle = np.arctan2(y - cy, x - cx)
    radius = rng.uniform(0.18, 0.3) * (1 + 0.15 * np.sin(3 * angle + rng.uniform(0, 6)))
    distance = np.hypot(y - cy, x - cx)
    mask = distance < radius
    skin, lesion = np.array([0.85, 0.68, 0.6]), np.array([0.42, 0.27, 0.22])
    soft = 1 / (1 + np.exp(40 * (distance - radius)))[..., None]
    photo = (skin * (1 - soft) + lesion * soft + rng.normal(0, 0.02, (size, size, 1)))[
        ..., :channels
    ]
    label = classes[number % len(classes)]
    views = []
    for i, model in enumerate(models):
        attacked = []
        for eps in epsilons:
            delta = rng.normal(0, eps / size / channels**0.5, (size, size, channels))
            attacked.append(
                Attacked(
                    eps=eps,
                    image=_bytes(photo + delta),
                    perturbation=delta.astype(np.float32),
                    heat=_heat(rng, distance, i),
                    prediction=label if i or eps < 0.4 else classes[(number + 1) % len(classes)],
                    probability=float(rng.uniform(0.4, 1)),
                )
            )
        minimal = 0.5 if i == 0 else float("inf")
        others = {m: _smooth(distance, 0.2 + 0.1 * k) for k, m in enumerate(methods)}
        heat = _heat(rng, distance, i)
        views.append(View(model, label, 0.91, heat, minimal, attacked, others))
    return Case(
        f"phantom-{number:05d}.png", label, "a", _bytes(photo), mask if masks else None, views
    )


def _rows(
    rng: np.random.Generator,
    shown: list[Case],
    models: tuple[str, ...],
    classes: tuple[str, ...],
    images: int,
    epsilons: tuple[float, ...],
) -> list[Row]:
    """The shown cases first, then images whose numbers are drawn."""
    rows = [
        Row(
            case.id,
            case.label,
            case.source,
            f"patient {k:03d}",
            [RowView(v.prediction, v.probability, v.minimal_epsilon, 0.4) for v in case.views],
            case=k,
        )
        for k, case in enumerate(shown)
    ]
    grid = [0.0, *epsilons, float("inf"), float("nan")]
    for k in range(len(shown), images):
        label = classes[k % len(classes)]
        views = []
        for _ in models:
            eps = grid[rng.integers(len(grid))]
            other = classes[(k + 1) % len(classes)]
            precision = float(rng.uniform()) if k % 7 else float("nan")
            views.append(
                RowView(other if eps == 0 else label, float(rng.uniform(0.4, 1)), eps, precision)
            )
        rows.append(Row(f"phantom-{k:05d}.png", label, "ab"[k % 2], f"patient {k:03d}", views))
    return rows


def _smooth(distance: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-((distance / width) ** 2)).astype(np.float32)


def _heat(rng: np.random.Generator, distance: np.ndarray, index: int) -> np.ndarray:
    noise = np.abs(rng.normal(0, 1, distance.shape))
    heat = noise * np.exp(-((distance / 0.3) ** 2)) if index else noise
    return np.minimum(heat / np.quantile(heat, 0.99), 1).astype(np.float32)


def _bytes(photo: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(photo, 0, 1) * 255).astype(np.uint8)
