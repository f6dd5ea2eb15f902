"""The results of one study as Markdown, and the parts that a summary of several is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from diascope.report import numbers as n
from diascope.report.study import words
from diascope.report.study.against import against
from diascope.report.study.checks import checks_lines
from diascope.report.study.claims import Shown, complete, shown
from diascope.report.study.measured import how_measured
from diascope.report.study.method import totals
from diascope.report.tables import Table
from diascope.studies.results import StudyResults

COLUMNS = ["claim", "published", "ours, with 95% interval", "p corrected", "verdict"]


@dataclass(frozen=True)
class Written:
    """A figure in Markdown: the line that makes it anew, its picture, its table, and notes."""

    title: str
    line: str
    file: str = ""
    table: Table | None = None
    notes: list[str] = field(default_factory=list)


def study_markdown(results: StudyResults, figures: Sequence[Written] = ()) -> str:
    """Return one study as Markdown, with its figures."""
    results = complete(results)
    claims = shown(results)
    out = [f"# {results.title}", ""]
    source = f"{results.source}. " if results.source else ""
    out += [f"{source}Scale: {results.scale}. {results.created}.", ""]
    told = [words.sentence(words.counted(results)), words.spoken_of(results.claims)]
    out += [" ".join(part for part in told if part), ""]
    if not results.complete:
        out += ["**Not complete**: what is missing is listed under Jobs.", ""]
    out += [*head(COLUMNS), *[row(claim_cells(each)) for each in claims], ""]
    out += [f"{words.INTERVALS} {words.HOLM}", ""]
    out += bullets("How it was measured:", [each.line for each in how_measured(results)])
    out += bullets("Checks on gradient masking:", checks_lines(results))
    out += bullets("What speaks against these numbers:", [a.line for a in against(results)])
    title = "What differs from the paper:" if results.source else "Caveats:"
    out += bullets(title, results.study.get("caveats") or [])
    for figure in figures:
        out += [f"## {figure.title}", "", *written_lines(figure), ""]
    out += bullets("## Jobs", [f"{name}: {told}" for name, told in totals(results)])
    out += [f"- {j.label}: {j.state}, {j.reason}" for j in results.jobs if j.reason]
    return "\n".join([*out, "", f"`{results.regenerate}`", ""])


def claim_cells(each: Shown) -> list[str]:
    """Return a claim as a row: what it says, the paper's, ours with each seed, p, and verdict."""
    claim = each.claim
    said = [f"`{claim.name}` {claim.says}", f"`{claim.statement}`" if claim.statement else ""]
    said.append(f"In place of: {claim.instead_of}" if claim.instead_of else "")
    published = [each.published, f"({claim.where})" if claim.where else ""]
    ours = [each.effect, *[f"{name}: {value}" for name, value in each.ours], each.seeds]
    verdict = [f"{each.sign} {each.verdict}", *[f"but {told}" for told in claim.qualifications]]
    verdict += [told for _, told in each.reasons]
    cells = [said, published, ours if each.effect != n.DASH else [], [each.p], verdict]
    return ["<br>".join(part for part in cell if part) or n.DASH for cell in cells]


def written_lines(figure: Written) -> list[str]:
    """Return a figure: its picture, its table, its notes and the line that makes it anew."""
    out = [f"![{figure.title}]({figure.file})", ""] if figure.file else []
    out += [*_table(figure.table), ""] if figure.table else []
    out += [*[f"{note}" for note in figure.notes], ""] if figure.notes else []
    return [*out, f"`{figure.line}`"]


def _table(table: Table) -> list[str]:
    """Return a table in Markdown, value and interval in one cell."""
    lines = [f"{table.under[:1].upper()}{table.under[1:]}.", ""] if table.under else []
    lines += head([table.corner, *[name for name, _ in table.columns]])
    for block in table.blocks:
        if block.head:
            lines.append(row([f"**{block.head}**", *[""] * len(table.columns)]))
        for each in block.rows:
            lines.append(row([each.head, *[f"{c.text} {c.under}" for c in each.cells]]))
    return lines


def bullets(title: str, lines: Sequence[str]) -> list[str]:
    """Return lines as a list under a title; nothing where there are none."""
    return [title, "", *[f"- {' '.join(line.split())}" for line in lines], ""] if lines else []


def head(names: Sequence[str]) -> list[str]:
    """Return the head of a table."""
    return [row(names), "|" + "---|" * len(names)]


def row(cells: Sequence[str]) -> str:
    """Return a row of a table."""
    told = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(told)} |"
