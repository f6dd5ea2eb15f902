"""Does the border of the image tell the label?"""

from __future__ import annotations

import numpy as np

from diascope.audit.datachecks import DATA_CHECKS
from diascope.audit.datachecks.areas import Floats, averaged, whole
from diascope.audit.datachecks.evidence import Evidence
from diascope.audit.datachecks.looking import Looked
from diascope.audit.datachecks.predictability import graded, predictability
from diascope.audit.results import Finding

CELLS = 16  # a side; the outermost ring is the border, 1/16 of the image at each side
GRADES = {"high": 0.9, "medium": 0.8, "low": 0.7}
CHUNK = 4096


@DATA_CHECKS.register("border_shortcut")
def border_shortcut(evidence: Evidence) -> list[Finding]:
    """Find data whose label follows from the outermost 6% of the image at each side."""
    found = predictability(evidence.dataset, border_of(evidence.looked), evidence.seed)
    severity = graded(found, GRADES)
    if found is None or severity is None:
        return []
    return [
        Finding(
            check="border_shortcut",
            severity=severity,
            title="The border of the image alone tells the label",
            evidence=f"from the mean grey values of 60 cells of the border: {found.words}",
            meaning=(
                "Collimation, letters, dark corners, rulers or the way of cutting differ between "
                "the classes: a model can tell them without the organ."
            ),
            remedy=(
                "Look at images of each class side by side; crop the border off or prepare all "
                "images alike, and test where the maps look."
            ),
            count=found.images,
        )
    ]


def border_of(looked: Looked) -> Floats:
    """Return the grey values of the border (N, 60), NaN for images that could not be read."""
    ring = np.ones((CELLS, CELLS), np.bool_)
    ring[1:-1, 1:-1] = False
    values = np.full((len(looked), int(ring.sum())), np.nan, np.float32)
    for start in range(0, len(looked), CHUNK):
        part = np.asarray(looked.thumbnails[start : start + CHUNK])
        values[start : start + CHUNK] = averaged(part, whole(len(part)), CELLS)[:, ring]
    values[~looked.read] = np.nan
    return values
