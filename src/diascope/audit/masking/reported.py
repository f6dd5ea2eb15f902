"""14. Is it said what was attacked, how, and what came of it for each class?"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from scipy.stats import fisher_exact

from diascope.attacks import Attack
from diascope.audit.masking import MASKING
from diascope.audit.masking.question import CHANCE, Question
from diascope.audit.masking.stand import Stand
from diascope.audit.parts import MaskingOutcome
from diascope.evaluation.statistics import Interval, bootstrap_mean

FEWEST_OF_CLASS = 5
APART = 0.3
OFF = (None, False)

ASKED = Question(
    14,
    "reported",
    "Are threat model, settings, per-class results and intervals reported?",
    "One figure for all classes hides one that differs greatly under attack.",
    "Report the accuracy under attack of each class with its interval, beside the overall figure.",
    "low",
)


@MASKING.register("reported")
def reported(stand: Stand) -> MaskingOutcome:
    """State the threat and the settings, and the accuracy under attack of each class.

    An image misclassified without an attack counts as broken. A class differs greatly where its
    accuracy is over 30 points from that of the others, beyond chance (Fisher's exact test, its
    level divided among the classes).
    """
    if stand.why_not or stand.eps == 0:
        return ASKED.undecided(stand.why_not or "the reference epsilon is 0")
    stands = np.zeros(len(stand.x))
    stands[stand.rows.cpu().numpy()] = (~stand.reference.broken).double().cpu().numpy()
    labels = stand.y.cpu().numpy()
    kinds, numbers, told, apart = sorted(set(labels.tolist())), {}, [], []
    for kind in kinds:
        own, name = labels == kind, _name(stand, kind)
        found = _interval(stand, stands[own], stand.group_names[own])
        numbers[f"accuracy of {name}"] = found.value
        told.append(f"{name} {found:.2f} of {int(own.sum())}")
        few = min(own.sum(), (~own).sum()) < FEWEST_OF_CLASS
        if not few and _differs(stands[own], stands[~own], len(kinds)):
            apart.append(name)
    threat = f"{stand.norm} eps {stand.eps:.4g}, white box, untargeted"
    how = described(stand.main)
    overall = _interval(stand, stands, stand.group_names)
    known = " that are right without an attack" if len(stand.rows) == len(stands) else ""
    evidence = (
        f"{threat}, {how}: accuracy {overall:.2f} of {len(stands)} images{known}; {', '.join(told)}"
    )
    if apart:
        evidence = f"{', '.join(apart)} differs greatly from the others; {evidence}"
    if not overall.defined:
        return ASKED.undecided(f"all images are of one group: no interval; {evidence}", numbers)
    return ASKED.decided(not apart, evidence, known=numbers, accuracy=overall.value)


def _interval(stand: Stand, values: np.ndarray[Any, Any], groups: np.ndarray[Any, Any]) -> Interval:
    return bootstrap_mean(
        values, groups, replicates=stand.replicates, seed=stand.seed, proportion=True
    )


def _differs(own: np.ndarray[Any, Any], rest: np.ndarray[Any, Any], classes: int) -> bool:
    if abs(own.mean() - rest.mean()) <= APART:
        return False
    table = [[own.sum(), len(own) - own.sum()], [rest.sum(), len(rest) - rest.sum()]]
    return bool(fisher_exact(table).pvalue < CHANCE / classes)


def _name(stand: Stand, kind: int) -> str:
    return stand.classes[kind] if kind < len(stand.classes) else f"class {kind}"


def described(attack: Attack) -> str:
    """Return the attack and those of its settings that are on, norm and eps apart."""
    values = {f.name: getattr(attack, f.name) for f in fields(attack)}  # type: ignore[arg-type]
    told = (f"{k} {v}" for k, v in values.items() if k not in ("norm", "eps") and v not in OFF)
    return f"{type(attack).__name__} ({', '.join(told)})"
