"""Was everything measured that should have been?"""

from __future__ import annotations

from diascope.audit.checks import CHECKS
from diascope.audit.results import Finding, Results


@CHECKS.register("stages")
def stages(results: Results) -> list[Finding]:
    """Find stages that failed; what they would have shown is unknown."""
    names = {model.name for model in results.models}
    return [
        Finding(
            check="stages",
            model=report.model if report.model in names else "",
            severity="medium",
            title=f"{report.stage} of {report.model} could not be measured",
            evidence=report.reason,
            meaning="What it would have shown is unknown; the other numbers do not depend on it.",
            remedy=(
                "Mend the cause and run the same command again: what was measured is read back. "
                f"The whole error is in stages/{report.model}/{report.stage}.error.txt, where it "
                "was not a mistake of the input."
            ),
        )
        for report in results.stages
        if report.state == "failed"
    ]
