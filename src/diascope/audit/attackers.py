"""Which attack a model can be given: by gradients, by scores, or by labels alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diascope.attacks import (
    FAB,
    Attack,
    AutoAttack,
    BoundaryAttack,
    Square,
    Threat,
    robustness_curve,
)
from diascope.attacks.base import attacks
from diascope.audit.effort import Effort
from diascope.audit.parts import Access
from diascope.audit.settings import AuditSettings
from diascope.audit.subject import Subject
from diascope.explain import explainers

BY_SCORES, BY_LABELS = ("square",), ("boundary",)


def access_of(name: str) -> Access:
    """Return what an attack is given of the model."""
    if name in BY_LABELS:
        return "labels"
    return "scores" if name in BY_SCORES else "white box"


def fits(name: str, subject: Subject) -> bool:
    """Tell whether a model gives what an attack needs."""
    needed = access_of(name)
    if needed == "white box":
        return subject.gradients
    return needed == "labels" or subject.scores


def named(name: str, norm: str, effort: Effort) -> Attack:
    """Return the attack of a name at the effort of an audit; its eps is set by the curve.

    `NAME-LOSS` is one of the gradient attacks on another loss, such as "apgd-margin".
    """
    name, _, loss = name.partition("-")
    fields: dict[str, dict[str, Any]] = {
        "pgd": {"steps": effort.curve_steps},
        "mifgsm": {"steps": effort.curve_steps},
        "apgd": {"steps": effort.curve_steps},
        "fab": {"steps": effort.curve_steps},
        "square": {"queries": effort.queries},
        "boundary": {"queries": effort.queries},
    }
    settings = {"name": name, **fields.get(name, {}), "norm": norm}
    built: Attack = attacks.build({**settings, **({"loss": loss} if loss else {})}, "attack")
    return built


def check_names(settings: AuditSettings) -> None:
    """Raise `UserError` for an attack or explainer that is unknown, or cannot be had so."""
    effort = settings.build_effort()
    settings.build_attack(), settings.build_explainer()
    for name in effort.attacks:
        named(name, settings.norm, effort)
    for name in effort.explainers:
        explainers.build({"name": name}, "explainer")


def main_attack(settings: AuditSettings, subject: Subject) -> Attack:
    """Return the attack of the robustness curve: as set, or for a black box what fits it."""
    effort = settings.build_effort()
    if subject.gradients:
        return settings.build_attack()
    return named("square" if subject.scores else "boundary", settings.norm, effort)


def passes_of(attack: Attack, classes: int) -> float:
    """Return how many forward passes an image costs at most, a backward pass counting two."""
    if isinstance(attack, AutoAttack):
        return sum(passes_of(stage, classes) for stage in attack.stages)
    restarts = float(getattr(attack, "restarts", 1))
    if isinstance(attack, Square | BoundaryAttack):
        return restarts * attack.queries
    targeted = isinstance(attack, FAB) or getattr(attack, "loss", "") == "dlr-targeted"
    targets = min(getattr(attack, "targets", 1) or 1, classes - 1) if targeted else 1
    return restarts * targets * (3 * getattr(attack, "steps", 1) + 6)


def passes_of_curve(attack: Attack, classes: int, epsilons: int) -> float:
    """Return how many forward passes the curve of an image costs at most, over some epsilons."""
    if isinstance(attack, BoundaryAttack):
        return passes_of(attack, classes) + 1
    brief = getattr(attack, "brief", None)  # what goes ahead, as `robustness_curve` asks for it
    ahead = 0.0 if brief is None else passes_of(brief(), classes)
    return epsilons * (passes_of(attack, classes) + ahead) + 1


def usual_share(attack: Attack, epsilons: int) -> float:
    """Return the share of these passes that the curve of a model without defence usually costs.

    A search by scores or labels spends its queries on nearly all images. A gradient attack breaks
    most at a small epsilon, and is not run on them again; one that a brief climb goes ahead of is
    made in full about once for each of the images that withstand the smallest.
    """
    if isinstance(attack, Square | BoundaryAttack):
        return 0.9
    return 0.06 + 0.6 / epsilons if hasattr(attack, "brief") else 0.3


def minimal_on_grid(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: Attack,
    grid: Sequence[float],
    *,
    generator: torch.Generator,
    ids: Tensor,
    batch_size: int,
    checkpoint: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> NDArray[np.float64]:
    """Return the smallest epsilon of `grid` that breaks each image (N,), inf where none does.

    The Boundary Attack walks once for all epsilons; any other climbs them on survivors.
    """
    if isinstance(attack, BoundaryAttack):
        found = attack.run(model, x, y, generator=generator, ids=ids)
        size = Threat(attack.norm, 0).size(found.x_adv - x).double().cpu()
        size[~found.started.cpu()] = torch.inf
        if progress is not None:
            progress(len(x) * len(grid))
        edges = np.asarray(sorted({0.0, *grid}))
        place = np.searchsorted(edges, size.numpy() * (1 - 1e-6))
        return np.append(edges, np.inf)[place]
    curve = robustness_curve(
        model,
        x,
        y,
        attack=attack,
        epsilons=list(grid),
        batch_size=batch_size,
        generator=generator,
        ids=ids,
        checkpoint=checkpoint,
        progress=progress,
    )
    return curve.minimal_epsilon.numpy()
