"""Does a picture occur again in another size, cut or brightness?"""

from __future__ import annotations

from diascope.audit.datachecks import DATA_CHECKS
from diascope.audit.datachecks.copies import SIMILAR
from diascope.audit.datachecks.evidence import Evidence
from diascope.audit.results import Finding


@DATA_CHECKS.register("near_duplicates")
def near_duplicates(evidence: Evidence) -> list[Finding]:
    """Find images that are copies of another but for size, compression, a small cut, brightness."""
    copies = evidence.copies
    near = evidence.own & ~copies.exact
    if not near.any():
        return []
    pairs = copies.pairs[near]
    named = evidence.dataset.groups
    apart = near.copy()
    apart[near] = named[pairs[:, 0]] != named[pairs[:, 1]]
    found = []
    for among, other in ((apart, True), (near & ~apart, False)):
        clusters = copies.clusters(among)
        if not clusters:
            continue
        count = sum(len(rows) for rows in clusters)
        whose = "of different groups" if other else "of one group"
        found.append(
            Finding(
                check="near_duplicates",
                severity="medium" if other else "info",
                title=f"{count} images are near duplicates {whose}",
                evidence=(
                    f"{int(among.sum())} pairs in {len(clusters)} sets; once aligned, their "
                    f"details correlate by {copies.similarity[among].min():.2f} to "
                    f"{copies.similarity[among].max():.2f} (taken from {SIMILAR:.2f})"
                ),
                meaning=(
                    "They are one picture stored twice, or two of one patient that nearly match: a "
                    "split by group does not keep them together."
                    if other
                    else "They are one picture stored twice, or taken twice; a split by group "
                    "keeps them together."
                ),
                remedy=(
                    "Look at the pairs; keep one of each, or give them the same group."
                    if other
                    else "Nothing, as long as splits and intervals are by group."
                ),
                count=count,
                files=evidence.files(clusters),
            )
        )
    return found
