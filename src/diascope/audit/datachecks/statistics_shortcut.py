"""Do brightness, contrast and colour tell the label?"""

from __future__ import annotations

import numpy as np

from diascope.audit.datachecks import DATA_CHECKS
from diascope.audit.datachecks.evidence import Evidence
from diascope.audit.datachecks.predictability import graded, predictability
from diascope.audit.results import Finding

GRADES = {"high": 0.95, "medium": 0.85, "low": 0.75}


@DATA_CHECKS.register("statistics_shortcut")
def statistics_shortcut(evidence: Evidence) -> list[Finding]:
    """Find data whose label follows from the histogram of the image, wherever its pixels lie."""
    looked = evidence.looked
    numbers = np.where(looked.read[:, None], looked.statistics, np.nan)
    found = predictability(evidence.dataset, numbers, evidence.seed)
    severity = graded(found, GRADES)
    if found is None or severity is None:
        return []
    return [
        Finding(
            check="statistics_shortcut",
            severity=severity,
            title="Brightness and colour alone tell the label",
            evidence=f"from mean, spread, histogram and colour of the image: {found.words}",
            meaning=(
                "A model need not see any shape. That may be the disease, where it colours or "
                "darkens the whole image; more often it is the device, exposure or processing."
            ),
            remedy=(
                "Compare the histograms of the classes by source; normalise contrast for all "
                "alike, and take this AUROC as the level that a model must exceed."
            ),
            count=found.images,
        )
    ]
