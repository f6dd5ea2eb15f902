"""Does a picture stand in training and in test?"""

from __future__ import annotations

import numpy as np

from diascope.audit.datachecks import DATA_CHECKS
from diascope.audit.datachecks.evidence import Evidence
from diascope.audit.results import Finding


@DATA_CHECKS.register("split_leakage")
def split_leakage(evidence: Evidence) -> list[Finding]:
    """Find copies, exact or near, whose images stand in different splits."""
    if len(set(evidence.sides) - {""}) < 2:
        return []
    copies = evidence.copies
    sides = np.append(evidence.sides, [""] * (len(evidence.where) - len(evidence.sides)))
    of_pairs = sides[copies.pairs]
    crossing = evidence.own & (of_pairs[:, 0] != of_pairs[:, 1]) & (of_pairs != "").all(1)
    found = []
    for exact in (True, False):
        among = crossing & (copies.exact == exact)
        clusters = copies.clusters(among)
        if not clusters:
            continue
        count = sum(len(rows) for rows in clusters)
        kind = "exact" if exact else "near"
        found.append(
            Finding(
                check="split_leakage",
                severity="high" if exact or _tests(of_pairs[among]) else "medium",
                title=f"Pictures with {kind} duplicates in another split: {len(clusters)}",
                evidence=f"{_counted(of_pairs[among])}; {count} images in all",
                meaning="A model is tested, or chosen, on pictures it was trained on.",
                remedy="Give the images of each set one group, and split again.",
                count=count,
                files=evidence.files(clusters),
            )
        )
    return found


def _tests(pairs: np.ndarray[tuple[int, int], np.dtype[np.object_]]) -> bool:
    return bool((pairs == "test").any())


def _counted(pairs: np.ndarray[tuple[int, int], np.dtype[np.object_]]) -> str:
    """Return how many pairs lie between which splits, in words."""
    names, counts = np.unique([" and ".join(sorted(pair)) for pair in pairs], return_counts=True)
    return ", ".join(f"{n} pairs between {name}" for name, n in zip(names, counts, strict=True))
