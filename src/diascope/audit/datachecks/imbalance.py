"""Are there enough images of every class, on every side?"""

from __future__ import annotations

from diascope.audit.datachecks import DATA_CHECKS
from diascope.audit.datachecks.evidence import Evidence
from diascope.audit.results import Finding

UNEVEN, VERY_UNEVEN = 3.0, 10.0  # times as many images in the commonest class as in the rarest
FEW = 20  # groups of a class, below which an interval of its recall is very wide


@DATA_CHECKS.register("imbalance")
def imbalance(evidence: Evidence) -> list[Finding]:
    """Find classes that are rare, that have few groups, or that a split lacks."""
    return [*_uneven(evidence), *_few(evidence), *_lacking(evidence)]


def _uneven(evidence: Evidence) -> list[Finding]:
    counts = {label: n for label, n in evidence.dataset.counts.items() if n}
    if len(counts) < 2:
        return []
    rarest, commonest = (choose(counts, key=lambda c: counts[c]) for choose in (min, max))
    ratio = counts[commonest] / counts[rarest]
    if ratio < UNEVEN:
        return []
    share = counts[commonest] / sum(counts.values())
    return [
        Finding(
            check="imbalance",
            severity="low" if ratio >= VERY_UNEVEN else "info",
            title=f"'{commonest}' has {ratio:.0f} times as many images as '{rarest}'",
            evidence=", ".join(f"{label} {n}" for label, n in counts.items()),
            meaning=f"Always answering '{commonest}' gives an accuracy of {share:.3f}.",
            remedy="Read balanced accuracy, AUROC and recalls; weight the classes or draw evenly.",
            count=counts[rarest],
        )
    ]


def _few(evidence: Evidence) -> list[Finding]:
    dataset = evidence.dataset
    groups = {
        label: len(set(dataset.groups[dataset.labels == k]))
        for k, label in enumerate(dataset.classes)
        if dataset.counts[label]
    }
    few = {label: n for label, n in groups.items() if n < FEW}
    if not few:
        return []
    return [
        Finding(
            check="imbalance",
            severity="low",
            title=f"Classes of fewer than {FEW} patients or lesions: {len(few)}",
            evidence=", ".join(f"{label}: {n}" for label, n in few.items()),
            meaning="Their recalls have intervals so wide that they say next to nothing.",
            remedy="Collect more of them, join them with another class, or leave them out.",
            count=sum(dataset.counts[label] for label in few),
        )
    ]


def _lacking(evidence: Evidence) -> list[Finding]:
    dataset, sides = evidence.dataset, evidence.sides
    lacking = [
        f"{side} has no '{label}'"
        for side in sorted(set(sides) - {""})
        for k, label in enumerate(dataset.classes)
        if (dataset.labels == k).any() and not ((sides == side) & (dataset.labels == k)).any()
    ]
    if not lacking:
        return []
    return [
        Finding(
            check="imbalance",
            severity="medium",
            title="A split lacks a class",
            evidence=", ".join(lacking[:6]) + (", ..." if len(lacking) > 6 else ""),
            meaning="What is never trained cannot be told, and what is never tested is not known.",
            remedy="Split again, by class ('diascope data split').",
        )
    ]
