"""Plausible values of every part of a result, for tests of the report."""

from __future__ import annotations

from typing import Any

import numpy as np

from diascope.audit.parts import (
    AttackCurve,
    Bin,
    Bounds,
    Calibration,
    Confusion,
    CorruptionDifference,
    CorruptionScore,
    Elsewhere,
    Faithful,
    GroupScore,
    Interface,
    Localisation,
    MapScores,
    MaskingOutcome,
    Operating,
    OperatingDifference,
    OperatingPoint,
    SanityStep,
    StageReport,
    Steadiness,
)

QUESTIONS = (
    "Do iterative attacks beat single-step ones?",
    "Do white-box attacks beat black-box ones?",
    "Does accuracy never rise with eps?",
    "Does an attack without bounds reach every image?",
    "Does random noise within eps never beat the gradient?",
    "Do more steps and restarts change nothing?",
    "Are gradients neither zero nor infinite, and is the loss not saturated?",
    "Do gradients agree with finite differences?",
    "Is the forward pass deterministic, or averaged over?",
    "Does the model return logits?",
    "Is a broken image met on the way returned?",
    "Do several losses agree on the worst case?",
    "Do eps and bounds hold after rounding to 8 bits?",
    "Are threat model, settings and intervals reported?",
)
CORRUPTIONS = ("gaussian_blur", "jpeg", "exposure", "colour_cast", "noise", "rotation")
LOCALISATION = {"mass_inside": 0.4, "pointing": 0.5, "average_precision": 0.36}


def around(value: float, half: float = 0.04) -> Bounds:
    return value, value - half, value + half


def share(value: float, half: float = 0.04) -> Bounds:
    value = float(np.clip(value, 0, 1))
    return value, max(value - half, 0.0), min(value + half, 1.0)


def localised(index: int, shift: float = 0.0) -> dict[str, Localisation]:
    found = {}
    for key, base in LOCALISATION.items():
        value = base + 0.18 * index + shift
        found[key] = Localisation(
            around(value, 0.03),
            around(0.24, 0.01),
            around(0.52, 0.02),
            around(value - 0.24, 0.03),
            around(value - 0.52, 0.03),
        )
    return found


def every_part(
    index: int, clean: float, grid: list[float], classes: tuple[str, ...], masks: bool
) -> dict[str, Any]:
    """The fields of a `ModelResult` that stages fill."""
    return {
        "interface": interface(),
        "attacked": 200,
        "attacks": attacks(index, clean, grid),
        "group_scores": groups(index, clean, classes),
        "confusion": [confusion(0.0, clean, classes), confusion(0.5, clean / 3, classes)],
        "operating": operating(index, classes),
        "calibration": [calibration(0.0, clean), calibration(0.5, clean / 3)],
        "corruptions": corruptions(index, clean),
        "elsewhere": [elsewhere("another hospital", clean - 0.14), elsewhere("a third", clean)],
        "maps": maps(index, masks),
        "masking": masking(index),
    }


def interface() -> Interface:
    return Interface(
        kind="run",
        gradients=True,
        outputs="logits",
        channels=3,
        size=64,
        input="RGB in [0, 1]; normalises inside",
        declared=True,
        statements=["Scores do not sum to 1: logits."],
    )


def attacks(index: int, clean: float, grid: list[float]) -> list[AttackCurve]:
    rate = 2.5 if index == 0 else 0.35
    kinds = (
        ("pgd", "white box", 1.0, {"name": "pgd", "steps": 20, "norm": "l2"}),
        ("apgd-dlr", "white box", 1.12, {"name": "apgd", "loss": "dlr", "norm": "l2"}),
        ("square", "scores", 0.5, {"name": "square", "queries": 500, "norm": "l2"}),
    )
    return [
        AttackCurve(
            name, settings, access, 128, [share(clean * np.exp(-e * rate * k)) for e in grid]
        )
        for name, access, k, settings in kinds
    ]


def groups(index: int, clean: float, classes: tuple[str, ...]) -> list[GroupScore]:
    def one(attribute: str, value: str, shift: float) -> GroupScore:
        accuracy = share(clean + shift, 0.06)
        return GroupScore(
            attribute,
            value,
            80,
            71,
            accuracy,
            around(shift, 0.07),
            share(accuracy[0] / 3),
            rest_corrected=around(shift, 0.1),
            within=around(shift, 0.11),
            note="few images" if value == "b" else "",
        )

    found = [one("class", c, 0.06 - 0.08 * k) for k, c in enumerate(classes)]
    found += [one("source", "a", 0.02), one("source", "b", -0.11)]
    return [*found, one("sex", "female", 0.01), one("sex", "male", -0.01 - 0.01 * index)]


def confusion(eps: float, right: float, classes: tuple[str, ...]) -> Confusion:
    k = len(classes)
    wrong = (1 - right) / max(k - 1, 1)
    return Confusion(
        eps, [[round(100 * (right if i == j else wrong)) for j in range(k)] for i in range(k)]
    )


def operating(index: int, classes: tuple[str, ...]) -> Operating:
    def point(eps: float, sensitivity: float, specificity: float) -> OperatingPoint:
        missed, alarms = round(60 * (1 - sensitivity)), round(140 * (1 - specificity))
        return OperatingPoint(
            eps,
            200,
            60,
            140,
            share(sensitivity),
            share(specificity),
            missed,
            alarms,
            ppv=share(0.6),
            npv=share(0.9),
        )

    under = point(0.5, 0.22 + 0.5 * min(index, 1), 0.36 + 0.3 * min(index, 1))
    return Operating(
        [classes[0]],
        "the highest threshold at which sensitivity reaches 0.90",
        0.31,
        "140 validation images",
        [point(0.0, 0.9, 0.81), under],
        validation=point(0.0, 0.9, 0.84),
        prevalence=0.3,
    )


def calibration(eps: float, accuracy: float) -> Calibration:
    shape = (4, 6, 9, 12, 18, 25, 34, 40, 52)
    bins = [
        Bin(
            k / 10,
            (k + 1) / 10,
            n,
            k / 10 + 0.05,
            share((k / 10 + 0.05) * accuracy + 0.06, 0.4 / n**0.5),
        )
        for k, n in enumerate(shape, 1)
    ]
    empty = Bin(0.0, 0.1, 0, float("nan"), (float("nan"),) * 3)
    return Calibration(
        eps,
        200,
        share(0.88 - accuracy, 0.03),
        share(0.4),
        share(0.88),
        share(accuracy),
        [
            empty,
            *bins,
        ],
    )


def corruptions(index: int, clean: float) -> list[CorruptionScore]:
    found = []
    for k, name in enumerate(CORRUPTIONS):
        for severity in range(1, 6):
            drop = min(0.012 * (k + 1) * severity * (1 + 0.3 * index), clean)
            found.append(
                CorruptionScore(name, severity, 200, share(clean - drop), around(drop, 0.03))
            )
    return found


def differences() -> dict[str, Any]:
    """Return the paired differences of what is in `every_part`, as fields of a comparison."""
    return {
        "operating": [
            OperatingDifference(0.0, 60, 140, around(0.0, 0.06), around(0.01, 0.04)),
            OperatingDifference(0.5, 60, 140, around(0.5, 0.1), around(0.3, 0.07)),
        ],
        "corruptions": [
            CorruptionDifference(name, severity, 200, around(-0.02 * severity, 0.05))
            for name in CORRUPTIONS
            for severity in range(1, 6)
        ],
    }


def elsewhere(name: str, accuracy: float) -> Elsewhere:
    scores = {"accuracy": share(accuracy), "auroc": share(accuracy + 0.06)}
    scores["balanced_accuracy"] = share(accuracy - 0.02)
    drop = {"accuracy": around(0.14, 0.06), "auroc": around(0.05, 0.04)}
    drop["balanced_accuracy"] = around(0.16, 0.06)
    return Elsewhere(name, 180, 164, scores, drop, share(accuracy / 4))


def maps(index: int, masks: bool) -> list[MapScores]:
    found = []
    for k, name in enumerate(("gradient", "smoothgrad", "gradcam")):
        steps = [
            SanityStep(
                layers,
                {"ssim": value + 0.1 * k, "spearman": value},
                {"ssim": around(value + 0.1 * k, 0.06), "spearman": around(value, 0.06)},
                16,
            )
            for layers, value in (("fc", 0.71), ("layer4", 0.42), ("conv1", 0.08))
        ]
        localisation = localised(index, 0.05 * k) if masks else {}
        found.append(
            MapScores(
                name=name,
                explainer={"name": name},
                images=128,
                localisation=localisation,
                localisation_correct=localisation,
                measures={"gini": share(0.5 + 0.1 * k), "entropy": share(0.8 - 0.1 * k)},
                faithfulness={
                    "insertion": faithful(0.55 + 0.04 * k, 0.02 + 0.04 * k),
                    "deletion": faithful(0.3 - 0.03 * k, 0.03 + 0.03 * k),
                },
                steadiness=[
                    Steadiness("noise 0.02", "spearman", share(0.6 + 0.1 * k), 32),
                    Steadiness("attack", "spearman", share(0.3 + 0.1 * k), 32),
                ],
                sanity=steps,
                passed=(True, None, False)[k],
            )
        )
    return found


def faithful(value: float, better: float) -> Faithful:
    ahead = around(better, 0.03)
    return Faithful(share(value), share(0.4), share(0.42), ahead, ahead, 32)


def masking(index: int) -> list[MaskingOutcome]:
    found = []
    for number, question in enumerate(QUESTIONS, 1):
        failed = index == 1 and number in (2, 8)
        undecided = number == 9
        found.append(
            MaskingOutcome(
                number,
                f"check {number}",
                question,
                "failed" if failed else "undecided" if undecided else "passed",
                "PGD of one step 0.61 [0.55, 0.67]; of 20 steps 0.31 [0.25, 0.37]; 64 images",
                "Gradients do not lead the attack where the model is weak.",
                "Attack it with more queries, and trust only the lowest figure.",
                "high" if failed else "info",
            )
        )
    return found


def stages(models: tuple[str, ...]) -> list[StageReport]:
    done = [StageReport(m, s, "done", "", 128, 12.5) for m in models for s in ("curve", "maps")]
    reason = "no validation images are known, on which to choose a threshold"
    return [*done, *(StageReport(m, "operating", "left out", reason) for m in models)]
