"""Were images of the audit seen in training?"""

from __future__ import annotations

from diascope.audit.datachecks import DATA_CHECKS
from diascope.audit.datachecks.evidence import Evidence
from diascope.audit.results import Finding

SAME = "the same picture as one seen in training or validation"


@DATA_CHECKS.register("seen_images")
def seen_images(evidence: Evidence) -> list[Finding]:
    """Find pictures that an audit left out, since a model knew them under another name."""
    count = evidence.left_out.get(SAME, 0)
    if not count:
        return []
    return [
        Finding(
            check="seen_images",
            severity="medium",
            title=f"Test images that are training images under another name: {count}",
            evidence=f"the content of {count} images is in the run's split file; left out here",
            meaning="A test with them would have been too good; this audit is without them.",
            remedy="Remove them from the test data, so that other tools leave them out too.",
            count=count,
        )
    ]
