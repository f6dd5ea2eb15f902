"""Decisions at the clinic's threshold: how many are missed, how many alarms are false."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diascope.attacks import PGD, Attack, Square, robustness_curve
from diascope.audit.bench import Bench
from diascope.audit.parts import Operating, OperatingPoint
from diascope.audit.positive import positive_classes, positive_images
from diascope.audit.stages import STAGES, Measured, Stage, blank
from diascope.audit.summarise import bounds
from diascope.data import Pixels
from diascope.evaluation.operating import choose_threshold, decisions, right_at
from diascope.evaluation.predictions import predict_logits
from diascope.models.threshold import AtThreshold, positive_log_odds

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class _Question:
    """What is asked of the images: `places` of the positive classes, and how these were found."""

    positive: tuple[str, ...]
    places: tuple[int, ...]
    classes: int
    how: str

    @classmethod
    def of(cls, bench: Bench) -> _Question:
        classes = bench.pixels.dataset.classes
        positive, how = positive_classes(classes, bench.settings.positive)
        return cls(positive, tuple(map(classes.index, positive)), len(classes), how)

    def truth(self, pixels: Pixels) -> Bools:
        """Return which images are positive, (N,)."""
        return np.isin(pixels.dataset.labels, self.places)

    def at(self, bench: Bench, cut: float = 0.0) -> AtThreshold:
        """Return the decision at a threshold as a model."""
        decision = AtThreshold(bench.model, self.places, self.classes, log_odds=cut)
        return decision.to(bench.device)

    def scores(self, logits: Tensor) -> NDArray[np.float64]:
        """Return the log odds (N,) of float32 logits (N, K), NaN where they are not finite."""
        odds = positive_log_odds(logits, self.places, self.classes).double().numpy()
        return np.where(np.isfinite(odds), odds, np.nan)


def _epsilons(bench: Bench) -> list[float]:
    if bench.effort.operating_epsilons == "reference":
        return [bench.reference] if bench.reference > 0 else []
    return [e for e in bench.epsilons if e > 0]


def _attack(bench: Bench) -> Attack:
    if bench.subject.gradients:
        return PGD(norm=bench.settings.norm, steps=bench.effort.operating_steps, loss="margin")
    return Square(norm=bench.settings.norm, queries=bench.effort.queries)


def _passes_each(bench: Bench) -> float:
    """Return the passes that one image takes at one epsilon, at most."""
    return (
        3 * bench.effort.operating_steps if bench.subject.gradients else bench.effort.queries
    ) + 2


def _rows(bench: Bench) -> NDArray[np.int64]:
    """Return the images that are attacked: as many positive as negative, as far as there are."""
    truth = positive_images(bench.pixels.dataset, bench.settings.positive)
    return bench.drawn_of_both(bench.effort.operating_images, truth)


def _lacks(bench: Bench) -> str:
    question = _Question.of(bench)
    return "" if question.positive else question.how


def _passes(bench: Bench) -> float:
    rows = _rows(bench)
    chosen_on = 0 if bench.validation is None else len(bench.validation)
    return chosen_on + len(rows) * len(_epsilons(bench)) * _passes_each(bench)


def _measure(bench: Bench) -> Measured:
    question = _Question.of(bench)
    truth = question.truth(bench.pixels)
    prevalence = bench.settings.prevalence or float(truth.mean())
    cut, rule, chosen_on, held_out = _threshold(bench, question, prevalence)
    scores = question.scores(bench.logits)
    right = right_at(scores, truth, cut)
    points = [_point(bench, 0.0, right, truth, bench.groups, prevalence)]
    rows = _rows(bench)
    minimal = blank(bench)
    if _epsilons(bench):
        minimal[rows] = _attacked(bench, question.at(bench, cut), rows, truth[rows])
    before = None
    if _epsilons(bench) and len(rows) < len(truth):
        before = _point(bench, 0.0, right[rows], truth[rows], bench.groups[rows], prevalence)
    for eps in _epsilons(bench):
        stands = minimal[rows] > eps
        points.append(_point(bench, eps, stands, truth[rows], bench.groups[rows], prevalence))
    found = Operating(
        positive=list(question.positive),
        rule=f"{rule}; positive: {', '.join(question.positive)}, {question.how}",
        threshold=1 / (1 + float(np.exp(-cut))),
        chosen_on=chosen_on,
        points=points,
        validation=held_out,
        prevalence=prevalence,
        drawn=before,
    )
    columns = {
        "positive_log_odds": scores,
        "threshold:correct": right.astype(np.float64),
        "threshold:minimal_epsilon": minimal,
    }
    return Measured(found, columns, images=len(bench.pixels))


def _threshold(
    bench: Bench, question: _Question, prevalence: float
) -> tuple[float, str, str, OperatingPoint | None]:
    """Return the log odds decided at, the rule, on what images, and the decisions on these."""
    pixels, wanted, how = bench.validation, bench.settings.sensitivity, bench.settings.threshold
    half = "0.5, which nothing speaks for but custom"
    if how == "half":
        return 0.0, half, "no images: 0.5 was asked for", None
    if pixels is None:
        return 0.0, half, "no images: the model's validation images are not known", None
    logits = predict_logits(bench.model, pixels, bench.batch_size, bench.device)
    bench.tell(len(pixels))
    truth, scores = question.truth(pixels), question.scores(logits)
    cut = choose_threshold(scores, truth, rule=how, wanted=wanted)
    described = f"{len(pixels)} validation images, {int(truth.sum())} positive"
    if np.isnan(cut):
        return 0.0, half, f"no images: {described} do not tell the classes apart", None
    right = right_at(scores, truth, cut)
    held_out = _point(bench, 0.0, right, truth, pixels.dataset.groups, prevalence)
    rule = (
        f"the largest threshold whose sensitivity on the validation images reaches {wanted:g}"
        if how == "sensitivity"
        else "the largest sensitivity + specificity on the validation images (Youden's index)"
    )
    return cut, rule, described, held_out


def _attacked(
    bench: Bench, decision: AtThreshold, rows: NDArray[np.int64], truth: Bools
) -> NDArray[np.float64]:
    """Return the smallest epsilon that turns the decision on each image, inf where none does."""
    attack, epsilons, parts = _attack(bench), _epsilons(bench), []
    each, step = _passes_each(bench), 4 * bench.batch_size
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        y = torch.from_numpy(truth[start : start + step].astype(np.int64))
        curve = robustness_curve(
            decision,
            bench.pixels.x(part, bench.device),
            y.to(bench.device),
            attack=attack,
            epsilons=epsilons,
            batch_size=bench.batch_size,
            generator=bench.seeded("operating"),
            ids=bench.pixels.ids(part).to(bench.device),
            checkpoint=bench.checkpoint(f"operating-{start}-{len(part)}"),
            progress=lambda settled: bench.tell(settled * each),
        )
        parts.append(curve.minimal_epsilon.numpy())
    return np.concatenate(parts) if parts else np.zeros(0)


def _point(
    bench: Bench,
    eps: float,
    right: Bools,
    truth: Bools,
    groups: NDArray[np.object_],
    prevalence: float,
) -> OperatingPoint:
    found = decisions(right, truth, groups, prevalence=prevalence, **bench.bootstrap)
    return OperatingPoint(
        eps=eps,
        images=len(truth),
        positives=found.positives,
        negatives=found.negatives,
        sensitivity=bounds(found.sensitivity),
        specificity=bounds(found.specificity),
        missed=found.missed,
        false_alarms=found.false_alarms,
        ppv=bounds(found.ppv),
        npv=bounds(found.npv),
    )


OPERATING = STAGES.register("operating")(
    Stage(
        kind=Operating,
        passes=_passes,
        measure=_measure,
        needs=("scores",),
        order=40,
        share=0.4,
        effort=("operating_images", "operating_steps", "operating_epsilons", "queries"),
        lacks=_lacks,
    )
)
