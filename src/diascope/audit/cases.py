"""The cases that are shown: which, and how each model sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diascope.attacks import Threat, robustness_curve
from diascope.attacks.base import at_eps, verdict
from diascope.audit.measure import seeded
from diascope.audit.results import Attacked, Case, View
from diascope.audit.settings import AuditSettings
from diascope.data import Pixels
from diascope.explain import render
from diascope.models import heads
from diascope.models.modes import exactly
from diascope.randomness import derive

RULE = (
    "Drawn by lot: of each class the images whose hashed id comes first, "
    "whatever any model says of them."
)


def choose(pixels: Pixels, count: int, seed: int) -> NDArray[np.int64]:
    """Return the rows of the cases: as many of each class as can be, drawn by hashed id."""
    labels, ids = pixels.dataset.labels, pixels.dataset.ids
    lot = np.array([derive(seed, "case", int(i)) for i in ids])
    order = np.argsort(lot)
    place = pd.Series(labels[order]).groupby(labels[order]).cumcount().to_numpy()
    ranked = order[np.lexsort((labels[order], place))]
    return np.sort(ranked[:count])


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
) -> list[Case]:
    """Return the chosen cases, with every model's view of each."""
    rows = choose(pixels, settings.shown_cases, settings.seed)
    if not len(rows):
        return []
    views = {
        name: _views(name, model, tables[name], pixels, rows, settings, device)
        for name, model in models.items()
    }
    table = pixels.dataset.table.iloc[rows]
    masks = pixels.m(rows).numpy() if pixels.masks is not None else None
    images = _bytes(pixels.x(rows))
    return [
        Case(
            id=path,
            label=label,
            source=source,
            image=images[i],
            mask=masks[i] if masks is not None and masks[i].any() else None,
            views=[views[name][i] for name in models],
        )
        for i, (path, label, source) in enumerate(
            zip(table.path, table.label, table.source, strict=True)
        )
    ]


def _views(
    name: str,
    model: nn.Module,
    table: pd.DataFrame,
    pixels: Pixels,
    rows: NDArray[np.int64],
    settings: AuditSettings,
    device: torch.device,
) -> list[View]:
    views: list[View] = []
    minimal = table.minimal_epsilon.to_numpy()
    for part in np.split(rows, range(settings.batch_size, len(rows), settings.batch_size)):
        views += _views_of_batch(name, model, minimal, pixels, part, settings, device)
    return views


def _views_of_batch(
    name: str,
    model: nn.Module,
    minimal: NDArray[np.float64],
    pixels: Pixels,
    rows: NDArray[np.int64],
    settings: AuditSettings,
    device: torch.device,
) -> list[View]:
    x, y, ids = pixels.x(rows, device), pixels.y(rows, device), pixels.ids(rows).to(device)
    clean = _seen(model, x, y, ids, pixels.dataset.classes, settings)
    attacked: list[list[Attacked]] = [[] for _ in rows]
    for eps in shown_epsilons(settings.grid(x.shape[-1]), settings.shown_epsilons):
        x_adv = _attacked(model, x, y, ids, eps, minimal[rows] <= eps, settings)
        saved = Threat(settings.norm, eps).round(x_adv, x)
        for i, seen in enumerate(_seen(model, x_adv, y, ids, pixels.dataset.classes, settings)):
            change = (x_adv[i] - x[i]).permute(1, 2, 0).cpu().numpy().astype(np.float32)
            image = _bytes(saved[i : i + 1])[0]
            attacked[i].append(Attacked(eps=eps, image=image, perturbation=change, **seen))
    return [
        View(model=name, minimal_epsilon=float(minimal[rows[i]]), attacked=attacked[i], **seen)
        for i, seen in enumerate(clean)
    ]


def _attacked(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    eps: float,
    broken: NDArray[np.bool_],
    settings: AuditSettings,
) -> Tensor:
    """Return images attacked at full strength; the curve's own points where these miss.

    The curve calls an image broken by any point on the way, or by one of a smaller epsilon.
    """
    attack = settings.build_attack()
    x_adv = at_eps(attack, eps)(model, x, y, generator=seeded(settings, "attack"), ids=ids)
    missed = ~verdict(model, x_adv, y).cpu() & torch.from_numpy(broken)
    if missed.any():
        rows = missed.nonzero()[:, 0].to(x.device)
        curve = robustness_curve(
            model,
            x[rows],
            y[rows],
            attack=attack,
            epsilons=[e for e in settings.grid(x.shape[-1]) if e <= eps],
            keep_x_adv=True,
            generator=seeded(settings, "attack"),
            ids=ids[rows],
        )
        assert curve.x_adv is not None
        x_adv[rows] = curve.x_adv.to(x_adv)
    return x_adv


def _seen(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    classes: Sequence[str],
    settings: AuditSettings,
) -> list[dict[str, Any]]:
    """Return prediction, its probability and the map of the true class, for each image."""
    explainer = settings.build_explainer()
    with exactly(model) as inner, torch.no_grad():
        logits = inner(x)
    p = heads.probabilities(logits)
    guess = heads.predictions(logits)
    raw = explainer(model, x, y, generator=seeded(settings, "explain"), ids=ids)
    heat = render(raw, explainer.rectification).cpu().numpy().astype(np.float32)
    return [
        {"prediction": classes[k], "probability": float(p[i, k]), "heat": heat[i]}
        for i, k in enumerate(guess.tolist())
    ]


def _bytes(x: Tensor) -> NDArray[np.uint8]:
    pixels = (x.detach().cpu() * 255).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().numpy()
