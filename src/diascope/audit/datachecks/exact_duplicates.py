"""Does the same picture occur twice?"""

from __future__ import annotations

from diascope.audit.datachecks import DATA_CHECKS
from diascope.audit.datachecks.evidence import Evidence
from diascope.audit.results import Finding


@DATA_CHECKS.register("exact_duplicates")
def exact_duplicates(evidence: Evidence) -> list[Finding]:
    """Find images of the dataset whose decoded pixels are equal."""
    clusters = evidence.copies.clusters(evidence.copies.exact & evidence.own)
    if not clusters:
        return []
    named = evidence.dataset.groups
    apart = [rows for rows in clusters if len(set(named[rows])) > 1]
    count = sum(len(rows) for rows in clusters)
    return [
        Finding(
            check="exact_duplicates",
            severity="medium" if apart else "low",
            title=f"Pictures that occur more than once: {len(clusters)}",
            evidence=(
                f"{count} images have the same decoded pixels as another, in {len(clusters)} sets; "
                f"{len(apart)} of the sets are of different groups"
            ),
            meaning=(
                "A repeated picture counts twice; where its copies are of different groups, a "
                "split by group may put one into training and one into test."
            ),
            remedy="Keep one of each set, or give all of a set the same group.",
            count=count,
            files=evidence.files(clusters),
        )
    ]
