"""Which classes are positive: those whose detection is the purpose of the model."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diascope.data import Dataset
from diascope.errors import UserError, nearest

DISEASE = {
    *("malignant", "malignancy", "cancer", "carcinoma", "adenocarcinoma", "tumor", "tumour"),
    *("melanoma", "mel", "bcc", "scc", "akiec"),
    *("pneumonia", "covid", "covid19", "opacity", "pneumothorax", "tuberculosis", "tb"),
    *("disease", "diseased", "abnormal", "positive"),
    *("referable", "moderate", "severe", "proliferative"),  # retinopathy from grade 2 on
}
HEALTHY = {"no", "non", "not", "without", "negative", "normal", "healthy", "benign"}


def positive_classes(
    classes: Sequence[str], wanted: Sequence[str] = ()
) -> tuple[tuple[str, ...], str]:
    """Return the positive classes in the order of `classes`, and how they were chosen.

    As `wanted`; else the classes in whose name a word of `DISEASE` stands and none of `HEALTHY`,
    where that is some of them and not all; else the second of two classes, or the first where the
    second has a healthy name. None, and the reason, where no rule says. Raises `UserError` for a
    wanted class that is unknown, and where all of them are wanted.
    """
    for name in wanted:
        if name not in classes:
            raise UserError(f"positive: no class '{name}': {nearest(name, classes)}")
    if wanted:
        chosen = tuple(name for name in classes if name in wanted)
        if len(chosen) == len(classes):
            raise UserError("positive: all classes are named; leave out those that are negative")
        return chosen, "as set"
    words = {name: set(re.findall(r"[a-z]+|\d+", name.lower())) for name in classes}
    ill = tuple(n for n in classes if words[n] & DISEASE and not words[n] & HEALTHY)
    if 0 < len(ill) < len(classes):
        return ill, "guessed by name"
    if len(classes) != 2:
        return (), "no name of a class says which are positive; give them with --positive"
    second_is_healthy = words[classes[1]] & HEALTHY and not words[classes[0]] & HEALTHY
    if second_is_healthy:
        return (classes[0],), "the first of two, for the second has a healthy name"
    return (classes[1],), "the second of two"


def positive_images(dataset: Dataset, wanted: Sequence[str] = ()) -> NDArray[np.bool_]:
    """Return which images (N,) are positive; none where no class is."""
    chosen, _ = positive_classes(dataset.classes, wanted)
    places = [dataset.classes.index(name) for name in chosen]
    return np.asarray(np.isin(dataset.labels, places))
