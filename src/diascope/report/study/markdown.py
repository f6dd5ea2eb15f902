"""The results of studies as Markdown: one study, and a summary of several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from diascope.report import numbers as n
from diascope.report.study import words
from diascope.report.study.claims import complete, shown
from diascope.report.study.method import machines, totals
from diascope.report.tables import Table
from diascope.studies.results import StudyResults, Verdict

SUMMARY = ["claim", "published", "ours, with 95% interval", "verdict", "hardware", "hours"]


def write_summary(studies: Sequence[StudyResults]) -> str:
    """Return the claims of several studies as one Markdown table, with what each took.

    The hours are those of the whole study, on the line of its first claim.
    """
    studies = [complete(results) for results in studies]
    verdicts = Counter[Verdict](c.verdict for results in studies for c in results.claims)
    counts = {verdict: verdicts[verdict] for verdict in words.SIGNS if verdicts[verdict]}
    scales = n.listed(sorted({results.scale for results in studies}))
    lines = ["# Studies", "", f"{words.sentence(counts)} Scale: {scales}.", ""]
    lines += [
        "Intervals of 95% over images, in whole groups; over seeds, too, from five seeds.",
        "",
    ]
    lines += _head(SUMMARY)
    for results in studies:
        lines.append(_row([f"**{results.title}** {results.source}", *[""] * 5]))
        for k, each in enumerate(shown(results)):
            first = k == 0
            lines.append(
                _row(
                    [
                        f"`{each.claim.name}` {each.claim.says}",
                        each.published or n.DASH,
                        _ours(each.effect, each.ours),
                        _verdict(each.sign, each.claim.verdict, each.deciding, each.claim.reason),
                        machines(results) if first else "",
                        words.hours(results.seconds) if first else "",
                    ]
                )
            )
    lines += ["", "Made by:", "", "```", *[results.regenerate for results in studies], "```", ""]
    return "\n".join(lines)


@dataclass(frozen=True)
class Written:
    """A figure in Markdown: the line that makes it anew, its picture, and its table."""

    title: str
    line: str
    file: str = ""
    table: Table | None = None


def study_markdown(results: StudyResults, figures: Sequence[Written] = ()) -> str:
    """Return one study as Markdown, with its figures."""
    results = complete(results)
    claims = shown(results)
    out = [f"# {results.title}", ""]
    source = f"{results.source}. " if results.source else ""
    out += [f"{source}Scale: {results.scale}. {results.created}.", ""]
    out += [words.sentence(words.counted(results)), ""]
    if not results.complete:
        out += ["**Not complete**: what is missing is listed under Jobs.", ""]
    out += _head(["claim", "published", "ours, with 95% interval", "p corrected", "verdict"])
    for each in claims:
        statement = f"<br>`{each.claim.statement}`" if each.claim.statement else ""
        verdict = _verdict(each.sign, each.claim.verdict, each.deciding, each.claim.reason)
        seeds = f"<br>{each.seeds}" if each.seeds else ""
        out.append(
            _row(
                [
                    f"{each.claim.says}{statement}",
                    each.published or n.DASH,
                    _ours(each.effect, each.ours) + seeds,
                    each.p,
                    verdict,
                ]
            )
        )
    if any(each.few for each in claims):
        out += ["", words.FEW_SEEDS]
    caveats = results.study.get("caveats") or []
    if caveats:
        out += ["", "What differs from the paper:", "", *[f"- {each}" for each in caveats]]
    for figure in figures:
        out += ["", f"## {figure.title}", ""]
        out += [f"![{figure.title}]({figure.file})", ""] if figure.file else []
        out += [*_table(figure.table), ""] if figure.table else []
        out.append(f"`{figure.line}`")
    out += ["", "## Jobs", "", *[f"- {name}: {told}" for name, told in totals(results)]]
    out += [f"- {j.label}: {j.state}, {j.reason}" for j in results.jobs if j.reason]
    return "\n".join([*out, "", f"`{results.regenerate}`", ""])


def _table(table: Table) -> list[str]:
    """Return a table in Markdown, value and interval in one cell."""
    lines = _head([table.corner, *[head for head, _ in table.columns]])
    for block in table.blocks:
        for row in block.rows:
            lines.append(_row([row.head, *[f"{c.text} {c.under}" for c in row.cells]]))
    return lines


def _ours(effect: str, ours: Sequence[tuple[str, str]]) -> str:
    if effect == n.DASH:
        return effect
    return "<br>".join([effect, *[f"{name}: {value}" for name, value in ours[:4]]])


def _verdict(sign: str, verdict: str, deciding: str, reason: str) -> str:
    rest = "; ".join(part for part in (reason, deciding) if part)
    return f"{sign} {verdict}" + (f": {rest}" if rest else "")


def _head(names: Sequence[str]) -> list[str]:
    return [_row(names), "|" + "---|" * len(names)]


def _row(cells: Sequence[str]) -> str:
    told = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(told)} |"
