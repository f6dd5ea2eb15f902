"""Is the model better than saying the commonest class every time?"""

from __future__ import annotations

from diascope.audit.checks import CHECKS
from diascope.audit.results import Finding, Results


@CHECKS.register("accuracy")
def accuracy(results: Results) -> list[Finding]:
    """Find models whose accuracy and balanced accuracy exceed neither majority share nor chance."""
    share = results.data["majority"]
    return [
        Finding(
            check="accuracy",
            model=model.name,
            severity="high",
            title=f"{model.name} does no better than always naming the commonest class",
            evidence=(
                f"accuracy {value:.3f} [{low:.3f}, {high:.3f}]; the commonest class holds "
                f"{share:.3f} of the images"
            ),
            meaning="Its robustness and its maps say nothing: there is no skill to lose.",
            remedy="Train longer or with class weights, and check labels and preprocessing.",
        )
        for model in results.models
        for value, low, high in [model.scores["accuracy"]]
        if low <= share and model.scores["balanced_accuracy"][1] <= results.data["chance"]
    ]
