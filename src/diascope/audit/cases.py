"""The cases that are shown with pictures, and a row for every image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diascope.attacks import BoundaryAttack, Threat
from diascope.audit.attackers import main_attack, passes_of
from diascope.audit.bench import Bench
from diascope.audit.mapmethods import methods
from diascope.audit.measure import seeded
from diascope.audit.points import attacked_points
from diascope.audit.results import Attacked, Case, Heat, Row, RowView, View
from diascope.audit.settings import AuditSettings
from diascope.audit.subject import Subject
from diascope.audit.telling import RULE, choose, column, confidence, select
from diascope.data import Pixels
from diascope.explain import Explainer, render
from diascope.explain.base import passes_of as cost_of_map
from diascope.hardware import out_of_memory
from diascope.models import heads
from diascope.models.modes import exactly

__all__ = ["RULE", "cases", "choose", "passes_of_cases", "rows", "shown_epsilons"]

BROKEN_EARLY = 0.4  # of the passes of an attack that are usually made, at the larger epsilons


def shown_epsilons(grid: Sequence[float], count: int) -> list[float]:
    """Return at most `count` positive epsilons of the grid, the largest among them."""
    positive = [e for e in grid if e > 0]
    places = np.unique(np.linspace(len(positive) - 1, 0, count).round().astype(int))
    return [positive[i] for i in places] if positive else []


def cases(
    models: Mapping[str, nn.Module],
    tables: Mapping[str, pd.DataFrame],
    pixels: Pixels,
    settings: AuditSettings,
    device: torch.device,
    *,
    subjects: Sequence[Subject] = (),
    batch_size: int | None = None,
    tell: Callable[[str, int], None] = lambda model, images: None,
) -> list[Case]:
    """Return the chosen cases, with every model's view of each.

    Black boxes, which `subjects` tell apart, are attacked by scores or labels and explained by
    Occlusion. An image of which a table knows no minimal epsilon is attacked for the picture
    alone. batch_size: of fewer images than in the settings. `tell` hears of each model and how
    many of its images are finished.
    """
    chosen = select(tables, pixels, settings.shown_cases, settings.seed)
    if not chosen:
        return []
    places = np.array([row for row, _ in chosen])
    known = {subject.name: subject for subject in subjects}
    step = batch_size or settings.batch_size
    views: dict[str, list[View]] = {}
    for name, model in models.items():
        subject = known.get(name) or Subject(name, model, None, {})
        minimal = _minimal(tables[name])
        fitting = _fitting(subject, model, pixels, settings, device)
        eye = _Eye(subject, model, minimal, fitting, settings, device)
        views[name] = []
        for part in np.split(places, range(step, len(places), step)):
            views[name] += eye.views(pixels, part)
            tell(name, len(part))
    table = pixels.dataset.table.iloc[places]
    masks = pixels.m(places).numpy() if pixels.masks is not None else None
    images = _bytes(pixels.x(places))
    return [
        Case(
            id=path,
            label=label,
            source=source,
            image=images[i],
            mask=masks[i] if masks is not None and masks[i].any() else None,
            views=[views[name][i] for name in models],
            reason=chosen[i][1],
        )
        for i, (path, label, source) in enumerate(
            zip(table.path, table.label, table.source, strict=True)
        )
    ]


def rows(
    tables: Mapping[str, pd.DataFrame],
    pixels: Pixels,
    names: Sequence[str],
    cases: Sequence[Case],
) -> list[Row]:
    """Return a row for every image, in the order of the tables, with the views of `names`."""
    place = {case.id: i for i, case in enumerate(cases)}
    views: list[list[RowView]] = []
    for name in names:
        table = tables[name]
        numbers = (
            confidence(table),
            _minimal(table),
            column(table, "average_precision"),
        )
        said = zip(table.prediction, *(values.tolist() for values in numbers), strict=True)
        views.append([RowView(*values) for values in said])
    table = pixels.dataset.table
    told = zip(table.path, table.label, table.source, table.group, strict=True)
    return [
        Row(path, label, source, group, [of[i] for of in views], place.get(path))
        for i, (path, label, source, group) in enumerate(told)
    ]


def passes_of_cases(bench: Bench) -> float:
    """Return how many forward passes the pictures of one model's cases are expected to cost."""
    settings, effort = bench.settings, bench.effort
    wanted = methods(settings, effort, gradients=bench.subject.gradients)
    costs = [cost_of_map(method, bench.pixels.size) for method in wanted.values()]
    attack = main_attack(settings, bench.subject)
    shown = len(shown_epsilons(bench.epsilons, settings.shown_epsilons))
    walks = min(shown, 1) if isinstance(attack, BoundaryAttack) else shown
    each = sum(costs) + shown * costs[0] + 1 + shown  # and what each is taken for
    each += BROKEN_EARLY * walks * passes_of(attack, bench.classes)
    return min(settings.shown_cases, len(bench.pixels)) * each


def _minimal(table: pd.DataFrame) -> NDArray[np.float64]:
    """Return the smallest breaking epsilon (N,): 0 of what is wrong as it is, attacked or not."""
    minimal = column(table, "minimal_epsilon")
    wrong = ~table.correct.to_numpy(dtype=bool)
    return np.where(wrong & np.isnan(minimal), 0.0, minimal)


def _fitting(
    subject: Subject,
    model: nn.Module,
    pixels: Pixels,
    settings: AuditSettings,
    device: torch.device,
) -> dict[str, Explainer]:
    """Return the explainers that explain the model, by name, the shown one first.

    Each is tried on one image; the first, too, where there is another.
    """
    x, y = pixels.x([0], device), pixels.y([0], device)
    found: dict[str, Explainer] = {}
    wanted = methods(settings, settings.build_effort(), gradients=subject.gradients)
    for name, method in wanted.items():
        try:
            if len(wanted) > 1:
                method(model, x, y, generator=seeded(settings, "explain"))
        except (Exception, SystemExit) as error:  # of a foreign module; the stage of maps says it
            if out_of_memory(error):
                raise
            continue
        found[name] = method
    return found or wanted


@dataclass(frozen=True)
class _Eye:
    """How one model sees images: with what attack, which maps, and what its table knows."""

    subject: Subject
    model: nn.Module
    minimal: NDArray[np.float64]
    methods: Mapping[str, Explainer]
    settings: AuditSettings
    device: torch.device

    def views(self, pixels: Pixels, rows: NDArray[np.int64]) -> list[View]:
        """Return the views of some rows."""
        x, y = pixels.x(rows, self.device), pixels.y(rows, self.device)
        ids, classes = pixels.ids(rows).to(self.device), pixels.dataset.classes
        clean, grid = self._seen(x, y, ids, classes), self.settings.grid(x.shape[-1])
        maps = {name: self._map(name, x, y, ids) for name in list(self.methods)[1:]}
        attacked: list[list[Attacked]] = [[] for _ in rows]
        for eps, x_adv in attacked_points(
            self.model,
            x,
            y,
            ids,
            attack=main_attack(self.settings, self.subject),
            epsilons=shown_epsilons(grid, self.settings.shown_epsilons),
            grid=grid,
            minimal=torch.from_numpy(self.minimal[rows]),
            seeded=lambda: seeded(self.settings, "attack"),
        ):
            saved = Threat(self.settings.norm, eps).round(x_adv, x)
            for i, seen in enumerate(self._seen(x_adv, y, ids, classes)):
                change = (x_adv[i] - x[i]).permute(1, 2, 0).cpu().numpy().astype(np.float32)
                image = _bytes(saved[i : i + 1])[0]
                attacked[i].append(Attacked(eps=eps, image=image, perturbation=change, **seen))
        return [
            View(
                model=self.subject.name,
                minimal_epsilon=float(self.minimal[rows[i]]),
                attacked=attacked[i],
                maps={name: heats[i] for name, heats in maps.items()},
                **seen,
            )
            for i, seen in enumerate(clean)
        ]

    def _seen(
        self, x: Tensor, y: Tensor, ids: Tensor, classes: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Return prediction, its probability and the map of the true class, for each image."""
        with exactly(self.model) as inner, torch.no_grad():
            logits = inner(x)
        p, guess = heads.probabilities(logits), heads.predictions(logits)
        heat = self._map(next(iter(self.methods)), x, y, ids)
        return [
            {"prediction": classes[k], "probability": float(p[i, k]), "heat": heat[i]}
            for i, k in enumerate(guess.tolist())
        ]

    def _map(self, name: str, x: Tensor, y: Tensor, ids: Tensor) -> Heat:
        """Return the rendered maps (B, H, W) of one method."""
        method, generator = self.methods[name], seeded(self.settings, "explain")
        raw = method(self.model, x, y, generator=generator, ids=ids)
        heat: Heat = render(raw, method.rectification).cpu().numpy().astype(np.float32)
        return heat


def _bytes(x: Tensor) -> NDArray[np.uint8]:
    pixels = (x.detach().cpu() * 255).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().numpy()
