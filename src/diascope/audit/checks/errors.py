"""Which way errors go: one class that swallows another, one answer that attacks lead to."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from diascope.audit.checks import CHECKS
from diascope.audit.parts import Confusion
from diascope.audit.results import Finding, ModelResult, Results

FEWEST = 20  # errors under attack, below which their direction is not spoken of
PRIOR = 0.5  # errors


@CHECKS.register("errors")
def errors(results: Results) -> list[Finding]:
    """Find classes that are called by another's name, and attacks that lead to one answer."""
    found: list[Finding] = []
    for model in results.models:
        for confusion in model.confusion if model.recall else ():
            if confusion.eps == 0:
                found += _swallowed(results, model, confusion)
            else:
                found += _led(results, model, confusion)
    return found


def _swallowed(results: Results, model: ModelResult, confusion: Confusion) -> Iterator[Finding]:
    """Find classes of which over half is called by one other name, beyond doubt."""
    cells, classes = np.asarray(confusion.counts), list(model.recall)
    positive = _positive(results, model)
    for c, name in enumerate(classes):
        total, row = cells[c].sum(), np.where(np.arange(len(classes)) == c, -1, cells[c])
        other, limit = int(row.argmax()), model.recall.get(name, (math.nan,) * 3)[2]
        if not (limit < 0.5 and 2 * row[other] > total):
            continue
        hidden = name in positive and classes[other] not in positive
        yield Finding(
            check="errors",
            model=model.name,
            severity="high" if hidden else "medium",
            title=f"{model.name} calls most of {name} {classes[other]}",
            evidence=(
                f"{row[other]} of {total} images of {name} are called {classes[other]}, and "
                f"{cells[c][c]} by their name; recall at most {limit:.3f}"
            ),
            meaning=(
                f"For this model there is hardly a class {name}; the accuracy over all images "
                "does not show it."
            ),
            remedy=(
                "Weigh the classes in training or draw them evenly, and look at the cases: the "
                "labels, or what the image shows, may not tell the two apart."
            ),
            count=int(row[other]),
        )


def _led(results: Results, model: ModelResult, confusion: Confusion) -> Iterator[Finding]:
    """Find the class that an untargeted attack turns most images into.

    Rates, not counts, are compared, so that a class does not stand out by its size: those of each
    pair of another true class and an answer. Of two classes an even attack goes either way at one
    rate, of more it spreads; one answer with over 2/3 of the rates (of more classes, over half),
    by the lower limit of Wilson's interval, is none of both. Every pair has half an error more
    than was seen (Jeffreys' prior), and the interval counts errors that weigh by their rates
    (Kish 1965, effective sample size), so that a class of few images decides nothing.
    """
    cells, classes = np.asarray(confusion.counts, dtype=np.float64), list(model.recall)
    wrong = cells * (1 - np.eye(len(classes)))
    count = int(wrong.sum())
    if count < FEWEST or not (cells.sum(1) > 0).all():
        return
    seen = wrong + PRIOR * (1 - np.eye(len(classes)))
    weights = 1 / (cells.sum(1, keepdims=True) + PRIOR * len(classes))
    rates = seen * weights
    shares: NDArray[np.float64] = rates.sum(0) / rates.sum()
    answer = int(shares.argmax())
    most = 2 / 3 if len(classes) == 2 else 1 / 2
    effective = rates.sum() ** 2 / (seen * weights**2).sum()
    if not _lower(float(shares[answer]), float(effective)) > most:
        return
    name, positive = classes[answer], _positive(results, model)
    hides = bool(positive) and name not in positive
    others = cells.sum(1)[np.arange(len(classes)) != answer].sum()
    yield Finding(
        check="errors",
        model=model.name,
        severity="medium" if hides else "low",
        title=f"Attacks turn the answers of {model.name} into {name}",
        evidence=(
            f"{int(wrong[:, answer].sum())} of {int(others)} images of other classes are called "
            f"{name} at {results.norm} eps {confusion.eps:.3g}, {count} are wrong in all; "
            f"{shares[answer]:.0%} of the rates of error lead there"
        ),
        meaning=(
            "An attacker who wants any wrong answer gets this one"
            + (": what is there to be found is hidden." if hides else ".")
            + " The way there is the shortest, so that noise and poor images may lead there, too."
        ),
        remedy=(
            "Look at the cases that were turned; weigh the classes evenly in training, and set "
            "the threshold by sensitivity and specificity, not by the most probable class."
        ),
        count=int(wrong[:, answer].sum()),
    )


def _lower(share: float, count: float, z: float = 1.96) -> float:
    """Return the lower limit of Wilson's 95% interval (1927, equation 2) of a share of `count`."""
    centre = share + z**2 / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return (centre - spread) / (1 + z**2 / count)


def _positive(results: Results, model: ModelResult) -> set[str]:
    return set(model.operating.positive if model.operating is not None else results.positive)
