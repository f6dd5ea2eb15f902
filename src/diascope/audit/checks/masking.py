"""Can the robustness curve be believed, or are the gradients masked?"""

from __future__ import annotations

from diascope.audit.checks import CHECKS
from diascope.audit.parts import MaskingOutcome
from diascope.audit.results import Finding, Results

COUNTED = ("high", "medium")  # a failure of this severity puts the curve in doubt


@CHECKS.register("masking")
def masking(results: Results) -> list[Finding]:
    """Turn every failed check on masked gradients into a finding, and sum them up for each model.

    Silent for models on which the checks were not run.
    """
    found: list[Finding] = []
    for model in results.models:
        if not model.masking:
            continue
        found += [_finding(model.name, outcome) for outcome in failed(model.masking)]
        found.append(_summary(model.name, model.masking))
    return found


def failed(outcomes: list[MaskingOutcome]) -> list[MaskingOutcome]:
    """Return the outcomes that failed."""
    return [outcome for outcome in outcomes if outcome.verdict == "failed"]


def believed(outcomes: list[MaskingOutcome]) -> bool | None:
    """Tell whether the curve can be believed; None where too little could be decided.

    A failure of low severity leaves the figure as it is. Fewer than half of the checks decided
    decide nothing.
    """
    if any(outcome.severity in COUNTED for outcome in failed(outcomes)):
        return False
    undecided = sum(outcome.verdict == "undecided" for outcome in outcomes)
    return None if 2 * undecided > len(outcomes) else True


def _finding(name: str, outcome: MaskingOutcome) -> Finding:
    return Finding(
        check="masking",
        model=name,
        severity=outcome.severity,
        title=f"{outcome.question} Not for {name} (check {outcome.number} of 14)",
        evidence=outcome.evidence,
        meaning=outcome.meaning,
        remedy=outcome.remedy,
    )


def _summary(name: str, outcomes: list[MaskingOutcome]) -> Finding:
    """Return a sentence on all checks of one model; the findings carry the severity."""
    verdicts = [outcome.verdict for outcome in outcomes]
    passed, undecided = verdicts.count("passed"), verdicts.count("undecided")
    evidence = f"of {len(outcomes)} checks on masked gradients {passed} passed"
    if names := [outcome.name for outcome in failed(outcomes)]:
        evidence += f", {len(names)} failed ({', '.join(names)})"
    if undecided:
        names = [outcome.name for outcome in outcomes if outcome.verdict == "undecided"]
        evidence += f", {undecided} could not be decided ({', '.join(names)})"
    title, meaning, remedy = _WORDS[believed(outcomes)]
    return Finding("masking", "info", title.format(name), evidence, meaning, remedy, model=name)


_WORDS = {
    True: (
        "The robustness curve of {} shows no sign of masked gradients",
        "The attack worked as attacks do on models that hide nothing. It stays an upper bound: "
        "an attack made for this model may find more.",
        "For a figure to publish run AutoAttack with --budget thorough.",
    ),
    False: (
        "The robustness curve of {} cannot be believed as it stands",
        "The failed checks show that the attack did not find what is there, so that the true "
        "accuracy under attack is lower, or not known.",
        "Mend what the failed checks name, and audit again.",
    ),
    None: (
        "Whether the robustness curve of {} can be believed is not decided",
        "Too few of the checks could be made to say so.",
        "Audit more images, at epsilons at which some of them withstand the attack.",
    ),
}
