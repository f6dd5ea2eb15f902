"""Do copies of one picture agree on its label?"""

from __future__ import annotations

from diascope.audit.datachecks import DATA_CHECKS
from diascope.audit.datachecks.evidence import Evidence
from diascope.audit.results import Finding


@DATA_CHECKS.register("duplicate_labels")
def duplicate_labels(evidence: Evidence) -> list[Finding]:
    """Find copies, exact or near, whose labels differ."""
    labels = evidence.dataset.table.label.to_numpy(object)
    clusters = [
        rows for rows in evidence.copies.clusters(evidence.own) if len(set(labels[rows])) > 1
    ]
    if not clusters:
        return []
    count = sum(len(rows) for rows in clusters)
    shown = " and ".join(sorted(set(labels[clusters[0]])))
    return [
        Finding(
            check="duplicate_labels",
            severity="medium",
            title=f"Pictures whose copies have another label: {len(clusters)}",
            evidence=f"{count} images in {len(clusters)} sets; in the first, {shown}",
            meaning="At least one label of each set is wrong, or the classes are not exclusive.",
            remedy="Ask whoever labelled them; leave the sets out until then.",
            count=count,
            files=evidence.files(clusters),
        )
    ]
