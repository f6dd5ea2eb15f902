"""Does a picture occur again in another size, cut or brightness?"""

from __future__ import annotations

from diascope.audit.datachecks import DATA_CHECKS
from diascope.audit.datachecks.copies import SIMILAR, SMALLEST
from diascope.audit.datachecks.evidence import Evidence
from diascope.audit.results import Finding


@DATA_CHECKS.register("near_duplicates")
def near_duplicates(evidence: Evidence) -> list[Finding]:
    """Find images that are copies of another but for size, compression, a small cut, brightness."""
    copies = evidence.copies
    small = evidence.looked.read & (evidence.looked.sizes[:, :2].min(1) < SMALLEST)
    known = bool((evidence.dataset.table.group != "").any())
    found = [_unsearched(int(small.sum()))] if small.any() else []
    near = evidence.own & ~copies.exact
    if not near.any():
        return found
    pairs = copies.pairs[near]
    named = evidence.dataset.groups
    apart = near.copy()
    apart[near] = named[pairs[:, 0]] != named[pairs[:, 1]]
    for among, other in ((apart, True), (near & ~apart, False)):
        clusters = copies.clusters(among)
        if not clusters:
            continue
        count = sum(len(rows) for rows in clusters)
        whose = (
            ("of different groups" if known else "(no groups known)") if other else "of one group"
        )
        found.append(
            Finding(
                check="near_duplicates",
                severity="medium" if other else "info",
                title=f"Near duplicates {whose}: {count} images",
                evidence=(
                    f"pairs: {int(among.sum())}, in sets: {len(clusters)}; once aligned, their "
                    f"details correlate by {copies.similarity[among].min():.2f} or more (taken "
                    f"from {SIMILAR:.2f})"
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


def _unsearched(count: int) -> Finding:
    return Finding(
        check="near_duplicates",
        severity="info",
        title=f"Images too small to look for near duplicates: {count}",
        evidence=f"a side has fewer than {SMALLEST} pixels",
        meaning="Changed copies among them are not known; exact duplicates are.",
        remedy="Check the images at the size at which they were taken.",
        count=count,
    )
