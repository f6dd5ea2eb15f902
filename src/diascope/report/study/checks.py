"""The checks on gradient masking: of each claim, and of each evaluation that attacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diascope.report import numbers as n
from diascope.studies.results import ClaimResult, StudyResults

ACCUSES = {
    "gradients": "its gradients are masked",
    "attack": "the attack may not have found all that it can",
    "report": "how its figure is told",
}


@dataclass(frozen=True)
class ClaimCheck:
    """What the checks say of one run that a claim about robustness reads."""

    sign: str
    run: str
    told: str
    evidence: str = ""


def claim_checks(claim: ClaimResult) -> list[ClaimCheck]:
    """Return what the checks say of each run of a claim: not run, none failed, or which failed."""
    found = []
    for run, seeds in claim.checked.items():
        failed = [each for each in claim.failed if each.run == run]
        if not seeds:
            found.append(ClaimCheck("○", run, "the checks were not run"))
        elif not failed:
            found.append(ClaimCheck("✓", run, f"no check failed, in {_seeds(seeds)}"))
        for each in failed:
            favoured = ", on the side that the outcome favours" if each.favoured else ""
            told = (
                f"'{each.name}' of {each.evaluation} failed in {len(each.seeds)} of "
                f"{_seeds(each.checked)}{favoured}: {ACCUSES[each.accuses]}"
            )
            found.append(ClaimCheck("✗", run, told, each.evidence))
    return found


def checks_lines(results: StudyResults) -> list[str]:
    """Return a line for each evaluation that a claim about robustness reads, or that was checked.

    Of each run in how many seeds the checks ran, and which failed in how many of these.
    """
    robust = {run for claim in results.claims for run in claim.checked}
    lines = []
    for evaluation, runs in results.masking.items():
        told = [_over_run(run, seeds) for run, seeds in runs.items() if any(seeds.values())]
        unchecked = [
            run
            for run, seeds in runs.items()
            if run in robust and not any(seeds.values()) and _attacks(results, evaluation)
        ]
        if unchecked:
            told.append(f"{n.listed(unchecked)}: not run")
        if told:
            lines.append(f"{evaluation}: {'; '.join(told)}")
    return lines


def _attacks(results: StudyResults, evaluation: str) -> bool:
    about = results.about.get(evaluation, {})
    return any("strongest" in (a or {}) for by_seed in about.values() for a in by_seed.values())


def _over_run(run: str, seeds: Mapping[str, Any]) -> str:
    """Return of one run in how many seeds it was checked, and what failed in how many."""
    checked = [outcomes for outcomes in seeds.values() if outcomes]
    failed: dict[str, int] = {}
    for outcomes in checked:
        for outcome in outcomes:
            if outcome.get("verdict") == "failed":
                name = str(outcome["name"])
                failed[name] = failed.get(name, 0) + 1
    among = f"{len(checked)} of {_seeds(len(seeds))}" if len(checked) < len(seeds) else ""
    told = [f"{name} failed in {count} of {len(checked)}" for name, count in failed.items()]
    head = f"{run} ({among or _seeds(len(seeds))})"
    return f"{head} {n.listed(told) or 'none failed'}"


def _seeds(count: int) -> str:
    return f"{count} seed{'s' if count != 1 else ''}"


@dataclass(frozen=True)
class Check:
    """One check on gradient masking: its verdict for each run, over the seeds."""

    name: str
    question: str
    outcomes: list[str]  # sign and word, one a run
    evidence: list[tuple[str, str]]  # run and what was seen


@dataclass(frozen=True)
class MaskingTable:
    """The checks of one evaluation."""

    evaluation: str
    runs: list[str]
    checks: list[Check]


MASKING_SIGNS = {"passed": "✓", "failed": "✗", "undecided": "?", "not applicable": "–"}


def masking_tables(results: StudyResults) -> list[MaskingTable]:
    """Return what the checks on gradient masking said, a table an evaluation that attacks."""
    tables = []
    for evaluation, runs in results.masking.items():
        found = {run: _by_check(seeds) for run, seeds in runs.items()}
        names = list(dict.fromkeys(name for each in found.values() for name in each))
        if not names:
            continue
        checks = []
        for name in names:
            cells = {run: _over_seeds(found[run].get(name, {})) for run in runs}
            evidence = [(run, seen) for run, (_, seen) in cells.items() if seen]
            asked = [o for of_run in found.values() for o in of_run.get(name, {}).values()]
            question = next((str(o["question"]) for o in asked if o.get("question")), "")
            told = [each for each, _ in cells.values()]
            checks.append(Check(name, question, told, evidence))
        tables.append(MaskingTable(evaluation, list(runs), checks))
    return tables


def _by_check(seeds: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Return the outcomes by check and seed."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for seed, outcomes in seeds.items():
        for outcome in outcomes or []:
            found.setdefault(str(outcome["name"]), {})[str(seed)] = outcome
    return found


def _over_seeds(outcomes: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """Return the gravest verdict over the seeds, with the seeds where not all have it."""
    if not outcomes:
        return n.DASH, ""
    order = ("failed", "undecided", "passed", "not applicable")
    verdicts = {seed: str(outcome.get("verdict", "")) for seed, outcome in outcomes.items()}
    gravest = next((v for v in order if v in verdicts.values()), next(iter(verdicts.values())))
    seeds = [seed for seed, verdict in verdicts.items() if verdict == gravest]
    among = ""
    if len(seeds) < len(verdicts):
        among = f" (seed {n.listed(seeds)} of {len(verdicts)})"
    evidence = "; ".join(
        f"seed {seed}: {outcome.get('evidence', '')}"
        for seed, outcome in outcomes.items()
        if verdicts[seed] == gravest and outcome.get("evidence")
    )
    return f"{MASKING_SIGNS.get(gravest, '')} {gravest}{among}".strip(), evidence
