"""Does the hospital tell the label?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from diascope.audit.datachecks import DATA_CHECKS
from diascope.audit.datachecks.evidence import Evidence
from diascope.audit.datachecks.predictability import graded, predictability
from diascope.audit.results import Finding

GRADES = {"high": 0.85, "medium": 0.7, "low": 0.6}


@DATA_CHECKS.register("source_shortcut")
def source_shortcut(evidence: Evidence) -> list[Finding]:
    """Find data whose label follows from the source of the image."""
    table, dataset = evidence.dataset.table, evidence.dataset
    sources = table.source[table.source != ""]
    if sources.nunique() < 2:
        return []
    one_hot = pd.get_dummies(table.source).to_numpy(np.float64)
    found = predictability(dataset, one_hot, evidence.seed)
    severity = graded(found, GRADES)
    if found is None or severity is None:
        return []
    counts = pd.crosstab(table.source, table.label)
    single = [name for name in counts.index if (counts.loc[name] > 0).sum() == 1 and name]
    shown = "; ".join(_counted(str(name), row) for name, row in list(counts.iterrows())[:6])
    return [
        Finding(
            check="source_shortcut",
            severity=severity,
            title="The source of an image tells its label",
            evidence=(
                f"{found.words}; {len(single)} of {len(counts)} sources hold one class only: "
                f"{shown}"
            ),
            meaning=(
                "A model need only recognise the hospital or device. Its accuracy on these data, "
                "and on a test split of them, says nothing of the disease."
            ),
            remedy=(
                "Test within one source that has both classes, or in another hospital; collect "
                "every class from every source."
            ),
            count=len(dataset),
        )
    ]


def _counted(name: str, row: pd.Series[int]) -> str:
    return f"{name or 'unknown'}: " + ", ".join(f"{label} {n}" for label, n in row.items() if n)
