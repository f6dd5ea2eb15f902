"""The results of several studies as one Markdown file that is complete by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from diascope.report import numbers as n
from diascope.report.study import words
from diascope.report.study.against import against
from diascope.report.study.checks import checks_lines
from diascope.report.study.claims import complete, shown
from diascope.report.study.commands import report_line
from diascope.report.study.figures import Seen, build_figure
from diascope.report.study.figures.pictures import PicturesFigure
from diascope.report.study.markdown import (
    COLUMNS,
    Written,
    bullets,
    claim_cells,
    head,
    row,
    written_lines,
)
from diascope.report.study.measured import how_measured
from diascope.report.study.method import machines, shared_seconds
from diascope.report.study.page import written_figure
from diascope.report.study.values import Values
from diascope.studies.results import StudyResults, Verdict


def write_summary(studies: Sequence[StudyResults], store: Path | None = None) -> str:
    """Return several studies as Markdown: claims, figures as tables, and what speaks against them.

    store: where the tables of the studies lie; without, there are no figures. The hours of a study
    stand on the line of its first claim; work that studies share is counted once in the total.
    """
    studies = [complete(results) for results in studies]
    verdicts = Counter[Verdict](c.verdict for results in studies for c in results.claims)
    counts = {verdict: verdicts[verdict] for verdict in words.SIGNS if verdicts[verdict]}
    scales = n.listed(sorted({results.scale for results in studies}))
    claims = [claim for results in studies for claim in results.claims]
    told = [words.sentence(counts), words.spoken_of(claims), f"Scale: {scales}."]
    lines = ["# Studies", "", " ".join(part for part in told if part), ""]
    lines += [f"{words.INTERVALS} {words.HOLM}", ""]
    if any(each.few for results in studies for each in shown(results)):
        lines += [words.FEW_SEEDS, ""]
    lines += head([*COLUMNS, "hardware", "hours"])
    shared = shared_seconds(studies)
    for results in studies:
        title = f"**{results.title}** (`{results.name}`) {results.source}"
        lines.append(row([title, *[""] * (len(COLUMNS) + 1)]))
        work = [machines(results), hours_text(results, shared[results.name])]
        for each in shown(results):
            lines.append(row([*claim_cells(each), *work]))
            work = ["", ""]
    lines += ["", f"Hours of all, each job once: {words.hours(_once(studies))}.", ""]
    for results in studies:
        lines += _study(results, store)
    commands = [results.regenerate for results in studies]
    data = ", with DATA the folder of all data" if "DATA" in " ".join(commands).split() else ""
    made = f"Made by{data}:"
    return "\n".join([*lines, "## To repeat it", "", made, "", "```", *commands, "```", ""])


def hours_text(results: StudyResults, shared: float) -> str:
    """Return the hours of a study, and how many of them other studies count as well."""
    told = words.hours(results.seconds)
    return f"{told}, of which {words.hours(shared)} shared" if shared else told


def _once(studies: Sequence[StudyResults]) -> float:
    """Return the seconds of all jobs that are there, each counted once."""
    jobs = {job.key: job for results in studies for job in results.jobs}
    return sum(job.seconds for job in jobs.values() if job.state in ("done", "there"))


def _study(results: StudyResults, store: Path | None) -> list[str]:
    """Return what stands beneath the claims: figures, and how far they can be believed."""
    lines = [f"## {results.title} (`{results.name}`)", ""]
    for figure in _figures(results, store):
        lines += [f"### {figure.title}", "", *written_lines(figure), ""]
    lines += bullets("How it was measured:", [each.line for each in how_measured(results)])
    lines += bullets("Checks on gradient masking:", checks_lines(results))
    lines += bullets("What speaks against these numbers:", [a.line for a in against(results)])
    title = "What differs from the paper:" if results.source else "Caveats:"
    return [*lines, *bullets(title, results.study.get("caveats") or [])]


def _figures(results: StudyResults, store: Path | None) -> list[Written]:
    if store is None:
        return []
    seen = Seen(results, Values(results, store), store)
    found = []
    for name, settings in (results.study.get("figures") or {}).items():
        figure, line = build_figure(settings, f"figures.{name}"), report_line(results, name)
        if isinstance(figure, PicturesFigure):
            told = "Pictures, which the report shows."
            found.append(Written(figure.title, line, notes=[told]))
        else:
            found.append(written_figure(figure, figure.show(seen), line))
    return found
