"""Can every image and label be used?"""

from __future__ import annotations

from diascope.audit.datachecks import DATA_CHECKS
from diascope.audit.datachecks.evidence import Evidence
from diascope.audit.results import Finding


@DATA_CHECKS.register("unreadable")
def unreadable(evidence: Evidence) -> list[Finding]:
    """Find images, masks, boxes and labels that cannot be used."""
    problems = evidence.looked.problems
    if not problems:
        return []
    paths = sorted({problem.path for problem in problems})
    reasons = "; ".join(str(problem) for problem in problems[:3])
    return [
        Finding(
            check="unreadable",
            severity="high",
            title=f"Files that cannot be used: {len(paths)}",
            evidence=reasons + (f"; and {len(problems) - 3} more" if len(problems) > 3 else ""),
            meaning="Training stops at them, or leaves them out: then the data are others.",
            remedy="Download or export these files again, or name the rows that are to be dropped.",
            count=len(paths),
            files=tuple((path,) for path in paths),
        )
    ]
