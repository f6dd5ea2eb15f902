"""Grades of diabetic retinopathy, and the questions that are asked of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

GRADES = ("none", "mild", "moderate", "severe", "proliferative")
Task = Literal["referable", "p2", "any", "grades"]
_FROM = {"referable": 2, "p2": 2, "any": 1}  # the lowest positive grade
_NAMES = {
    "referable": ("not referable", "referable"),
    "p2": ("not referable", "referable"),
    "any": ("no retinopathy", "retinopathy"),
}


def graded(levels: Sequence[str], task: Task) -> tuple[list[str], tuple[str, ...]]:
    """Return the label of each grade, "0" to "4", and the classes of `task`.

    The grades are those of the International Clinical Diabetic Retinopathy scale (Wilkinson et
    al. 2003): 0 none, 1 mild, 2 moderate, 3 severe, 4 proliferative. "grades" keeps the five;
    "referable" parts {0, 1} from {2, 3, 4}, which is P2's division too ("p2"); "any" parts 0 from
    the others. What is no grade stays as it is, to be found by `verify`.
    """
    if task == "grades":
        names = {str(k): name for k, name in enumerate(GRADES)}
        return [names.get(level.strip(), level) for level in levels], GRADES
    classes = _NAMES[task]
    names = {str(k): classes[k >= _FROM[task]] for k in range(len(GRADES))}
    return [names.get(level.strip(), level) for level in levels], classes
