"""The report: one HTML file with everything in it, which asks the network for nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from diascope.audit.results import Finding, Results
from diascope.files import write_text
from diascope.report import numbers, tables, words
from diascope.report.charts import glyph
from diascope.report.curves import references, robustness_chart
from diascope.report.plates import browser

SEVERITIES = {"high": "High", "medium": "Medium", "low": "Low", "info": "Note"}


def write_report(results: Results, path: Path) -> Path:
    """Write the report of `results` to `path`, complete or not at all, and return the path."""
    write_text(path, render_report(results))
    return path


def render_report(results: Results) -> str:
    """Return the report of `results` as one HTML document."""
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            results=results,
            created=_date(results.created),
            sizes=words.sizes(results),
            norm=numbers.norm_text(results.norm),
            verdict=words.verdict(results),
            headline=tables.headline(results),
            curves=[robustness_chart(results, wide) for wide in (True, False)],
            levels=[words for _, words in references(results)],
            curve_table=tables.curve_table(results),
            statements=words.difference_statements(results),
            localisation=tables.localisation_tables(results),
            recall=tables.recall_table(results),
            browser=browser(results),
            findings=_by_severity(results.findings),
            severities=SEVERITIES,
            method=_method(results),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("diascope.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(glyph=glyph, inline=_inline, n=numbers, words=words)
    environment.filters["shown"] = _shown
    return environment


def _inline(name: str) -> Markup:
    """Return a style sheet or script of the package, as it stands."""
    return Markup(files("diascope.report").joinpath("templates", name).read_text("utf-8"))


def _by_severity(findings: list[Finding]) -> list[Finding]:
    order = list(SEVERITIES)
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def _date(created: str) -> str:
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return created
    return f"{moment.day} {moment:%B %Y, %H:%M} {moment.tzname() or ''}".strip()


def _shown(value: Any) -> str:
    """Return a setting in words: a mapping as `a: 1, b: 2`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_shown(v)}" for k, v in value.items()) or numbers.DASH
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown(v) for v in value) or numbers.DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return numbers.DASH if value is None or value == "" else str(value)


def _method(results: Results) -> list[tuple[str, list[tuple[str, Any]]]]:
    """Return what is needed to repeat the audit, in groups of (name, value)."""
    data = {k: v for k, v in results.data.items() if k not in ("counts", "chance", "majority")}
    epsilons = ", ".join(numbers.eps_text(e, results.norm) for e in results.epsilons)
    attack = {**results.attack, "norm": numbers.norm_text(results.norm), "epsilons": epsilons}
    run = {
        "command": results.command,
        "seed": results.seed,
        "created": results.created,
        "time taken": numbers.duration(results.seconds),
        "diascope": results.version,
        "results schema": results.schema,
    }
    groups = {"Run": run, "Data": data, "Attack": attack, "Explanation": results.explainer}
    groups["Hardware"] = results.hardware
    groups["Tables, a row an image"] = results.tables
    return [(name, list(values.items())) for name, values in groups.items()]
