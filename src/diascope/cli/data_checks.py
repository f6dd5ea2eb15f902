"""What `diascope data verify` and `diascope data table` do."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from diascope.cli.console import progress
from diascope.files import write_text

if TYPE_CHECKING:
    from diascope.audit.datachecks.evidence import Evidence
    from diascope.audit.datachecks.looking import Looked
    from diascope.audit.results import Finding
    from diascope.data import Dataset

SHOWN = 3  # sets of files that are printed of a finding; --json has all
NAMED = 6  # sources that the table of datasets names
Update = Callable[[str, int, int], None]
HEADER = (
    "dataset",
    "images",
    "groups",
    "classes",
    "sources",
    "regions",
    "train / val / test",
    "findings",
)


def checked(
    data: str, beside: Sequence[str] = (), splits: Path | None = None
) -> tuple[Evidence, list[Finding]]:
    """Open and read the datasets, once each, and return what the checks saw and found."""
    from diascope.audit.datachecks import run_data_checks
    from diascope.audit.datachecks.evidence import Evidence, sides_of
    from diascope.data import open_data

    datasets = [open_data(text) for text in (data, *beside)]
    sides = sides_of(datasets[0], splits)
    with progress() as update:
        looked, *others = (_look(dataset, update) for dataset in datasets)
    evidence = Evidence(looked, sides, tuple(others))
    return evidence, run_data_checks(evidence)


def _look(dataset: Dataset, update: Update) -> Looked:
    from diascope.audit.datachecks.looking import look

    return look(dataset, lambda done, total: update(f"reading {dataset.name}", done, total))


def lines(evidence: Evidence, findings: Sequence[Finding]) -> list[str]:
    """Return what was found, as lines of text: the unusable files first, each with its reason."""
    dataset = evidence.dataset
    shown = [f"{problem.path}: {problem.reason}" for problem in evidence.looked.problems]
    for finding in findings:
        shown.append(f"[{finding.severity}] {finding.title}")
        shown.append(f"    {finding.evidence}")
        shown.append(f"    {finding.meaning} {finding.remedy}")
        if finding.check != "unreadable":
            shown += [f"      {' = '.join(files)}" for files in finding.files[:SHOWN]]
            if len(finding.files) > SHOWN:
                shown.append(f"      and {len(finding.files) - SHOWN} more: --json FILE lists all")
    shown += dataset.notes
    shown.append(
        f"{dataset.name}: {len(dataset)} images, {len(evidence.looked.problems)} problems, "
        f"{len(findings)} findings"
    )
    return shown


def write_json(file: Path, evidence: Evidence, findings: Sequence[Finding]) -> None:
    """Write the findings, with every file that each concerns."""
    dataset, copies = evidence.dataset, evidence.copies
    content = {
        "dataset": dataset.name,
        "images": len(dataset),
        "beside": [each.dataset.name for each in evidence.beside],
        "comparisons": {"places": copies.comparisons, "thumbnails": copies.aligned},
        "findings": [asdict(finding) for finding in findings],
    }
    write_text(file, json.dumps(content, indent=1) + "\n")


def table_row(evidence: Evidence, findings: Sequence[Finding]) -> list[str]:
    """Return the cells of one dataset in the table of datasets."""
    dataset = evidence.dataset
    classes = ", ".join(f"{label} {n:,}" for label, n in dataset.counts.items() if n)
    named = dataset.table.group[dataset.table.group != ""].nunique()
    sources = sorted(set(dataset.table.source) - {""})
    told = [f"{f.title} ({f.severity})" for f in findings if f.severity != "info"]
    return [
        dataset.name,
        f"{len(dataset):,}",
        f"{named:,}" if named else "not named",
        classes,
        _sources(sources),
        f"{evidence.looked.regions:,}",
        _split_sizes(dataset),
        "; ".join(told) or "none",
    ]


def _sources(names: Sequence[str]) -> str:
    if len(names) <= NAMED:
        return ", ".join(names) or "not named"
    return f"{len(names)}, such as {', '.join(names[:2])}"


def _split_sizes(dataset: Dataset) -> str:
    """Return the sizes of the splits that `Dataset.split` gives with seed 0."""
    from diascope.errors import UserError

    how = "official" if (dataset.table.split != "").any() else "drawn, seed 0"
    try:
        sizes = " / ".join(f"{len(part):,}" for part in dataset.split(seed=0))
    except UserError as error:
        return f"none: {error}"
    return f"{sizes} ({how})"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table of the rows under the header."""
    cells = [HEADER, ["---"] * len(HEADER), *rows]
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in escaped)


def reach(findings: Sequence[Finding], fail_on: str | None) -> bool:
    """Return whether a finding is of the severity `fail_on` or graver; False for None.

    Raises `UserError` for a severity that is none.
    """
    from diascope.cli.audit import SEVERITIES
    from diascope.errors import UserError, nearest

    if fail_on is None:
        return False
    if fail_on not in SEVERITIES:
        raise UserError(f"--fail-on {fail_on}: {nearest(fail_on, SEVERITIES)}")
    return any(SEVERITIES.index(f.severity) >= SEVERITIES.index(fail_on) for f in findings)
