"""Accuracy under each of several attacks, none of which knows what another found."""

from __future__ import annotations

import numpy as np

from diascope.attacks import Attack
from diascope.audit.attackers import (
    access_of,
    fits,
    main_attack,
    minimal_on_grid,
    named,
    passes_of_curve,
    usual_share,
)
from diascope.audit.bench import Bench, Rows
from diascope.audit.parts import AttackCurve, Bounds
from diascope.audit.stages import STAGES, Measured, Stage, blank
from diascope.evaluation import bootstrap_curve
from diascope.registry import to_settings


def _attacks(bench: Bench) -> dict[str, Attack]:
    return {
        name: named(name, bench.settings.norm, bench.effort)
        for name in bench.effort.attacks
        if fits(name, bench.subject)
    }


def _rows(bench: Bench) -> Rows:
    """Return the images that are attacked: a part of the curve's, or all where it is told again."""
    main, found = main_attack(bench.settings, bench.subject), list(_attacks(bench).values())
    effort = bench.effort
    return bench.drawn(effort.curve_images if found == [main] else effort.attack_images)


def _cost(bench: Bench, attack: Attack) -> float:
    return len(_rows(bench)) * passes_of_curve(attack, bench.classes, len(bench.epsilons) - 1)


def _costs(bench: Bench) -> list[tuple[Attack, float]]:
    """Return the passes of each attack; what the curve has found already costs nothing."""
    main, here = main_attack(bench.settings, bench.subject), len(_rows(bench))
    known = len(bench.drawn(bench.effort.curve_images)) >= here
    return [
        (attack, 1.0 if attack == main and known else _cost(bench, attack))
        for attack in _attacks(bench).values()
    ]


def _passes(bench: Bench) -> float:
    return sum(cost for _, cost in _costs(bench))


def _share(bench: Bench) -> float:
    epsilons = len(bench.epsilons) - 1
    usual = sum(usual_share(attack, epsilons) * cost for attack, cost in _costs(bench))
    return usual / max(1.0, _passes(bench))


def _measure(bench: Bench) -> Measured:
    rows = _rows(bench)
    curves, columns = [], {}
    for name, attack in _attacks(bench).items():
        minimal = blank(bench)
        known = _known(bench, attack)
        minimal[rows] = _minimal(bench, name, attack) if known is None else known
        columns[f"{name}:minimal_epsilon"] = minimal
        settings = to_settings(attack)
        settings.pop("eps", None)
        curves.append(
            AttackCurve(name, settings, access_of(name), len(rows), _accuracy(bench, minimal[rows]))
        )
    worst = np.fmin.reduce(list(columns.values())) if len(columns) > 1 else None
    if worst is not None:
        accuracy = _accuracy(bench, worst[rows])
        curves.append(AttackCurve("worst case", {}, "white box", len(rows), accuracy))
        columns["worst:minimal_epsilon"] = worst
    return Measured(curves, columns, images=len(rows))


def _known(bench: Bench, attack: Attack) -> np.ndarray | None:
    """Return what the audit's curve found of these images, where it is of this attack."""
    if "minimal_epsilon" not in bench.table or attack != main_attack(bench.settings, bench.subject):
        return None
    found = bench.table.minimal_epsilon.to_numpy()[_rows(bench)]
    return None if np.isnan(found).any() else found


def _minimal(bench: Bench, name: str, attack: Attack) -> np.ndarray:
    rows = _rows(bench)
    each = _cost(bench, attack) / max(1, len(rows) * len(bench.epsilons))
    parts, step = [], 4 * bench.batch_size
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        parts.append(
            minimal_on_grid(
                bench.model,
                bench.pixels.x(part, bench.device),
                bench.pixels.y(part, bench.device),
                attack,
                bench.epsilons,
                generator=bench.seeded("attack"),
                ids=bench.pixels.ids(part).to(bench.device),
                batch_size=bench.batch_size,
                checkpoint=bench.checkpoint(f"{name}-{start}-{len(part)}"),
                progress=lambda settled: bench.tell(settled * each),
            )
        )
    return np.concatenate(parts) if parts else np.zeros(0)


def _accuracy(bench: Bench, minimal: np.ndarray) -> list[Bounds]:
    rows = _rows(bench)
    withstood = (minimal[:, None] > np.asarray(bench.epsilons)).astype(np.float64)
    found = bootstrap_curve(withstood, bench.groups[rows], **bench.bootstrap)
    return [(i.value, i.low, i.high) for i in found]


ATTACKS = STAGES.register("attacks")(
    Stage(
        kind=list[AttackCurve],
        passes=_passes,
        measure=_measure,
        order=20,
        share=_share,
        effort=("attacks", "attack_images", "curve_images", "curve_steps", "queries"),
    )
)
