"""The report: one HTML file with everything in it, which asks the network for nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from diascope.audit.results import Results
from diascope.files import write_text
from diascope.report import card, numbers, pictures, tables, words
from diascope.report.attackcharts import attack_charts, attack_table
from diascope.report.charts import glyph
from diascope.report.curves import references, robustness_chart
from diascope.report.everyday import corruption_differences, corruption_tables
from diascope.report.findings import SEVERITIES, graded
from diascope.report.glance import differing, glance, large, reference_text
from diascope.report.groupscores import elsewhere_table, group_tables
from diascope.report.maptables import left_out, map_tables
from diascope.report.masking import SIGNS, masking
from diascope.report.operating import (
    halved,
    matrices,
    operating_differences,
    operating_table,
    rules,
)
from diascope.report.plates import browser
from diascope.report.reliability import diagrams
from diascope.report.rows import compact

TITLES = {
    "summary": "Summary",
    "findings": "Findings",
    "robustness": "Robustness",
    "masking": "Believable?",
    "everyday": "Everyday",
    "operating": "Errors",
    "calibration": "Calibration",
    "groups": "Groups",
    "elsewhere": "Elsewhere",
    "maps": "Maps",
    "cases": "Cases",
    "card": "Models",
    "method": "Method",
}


def write_report(results: Results, path: Path) -> Path:
    """Write the report of `results` to `path`, complete or not at all, and return the path."""
    write_text(path, render_report(results))
    return path


def render_report(results: Results) -> str:
    """Return the report of `results` as one HTML document."""
    parts = _parts(results)
    sections = {name: title for name, title in TITLES.items() if _holds(results, parts, name)}
    template = environment().get_template("report.html.j2")
    return template.render(
        results=results,
        many=len(results.models) > 1,
        created=date_text(results.created),
        norm=numbers.norm_text(results.norm),
        sections=sections,
        **parts,
    )


def _parts(results: Results) -> dict[str, Any]:
    """Return what the templates show, by name."""
    figures = glance(results)
    return {
        "verdict": words.verdict(results),
        "figures": figures if len(results.models) > 1 else large(figures),
        "differences": [(tables.pair(c), differing(results, c)) for c in results.comparisons],
        "grades": graded(results),
        "severities": SEVERITIES,
        "curves": [robustness_chart(results, wide) for wide in (True, False)],
        "levels": [told for _, told in references(results)],
        "curve_table": tables.curve_table(results),
        "statements": words.difference_statements(results),
        "attacks": attack_charts(results),
        "attack_table": attack_table(results),
        "masking": masking(results),
        "signs": SIGNS,
        "everyday": corruption_tables(results),
        "everyday_apart": corruption_differences(results),
        "at_reference": reference_text(results),
        "operating": operating_table(results),
        "rules": rules(results),
        "halved": halved(results),
        "decided_apart": operating_differences(results),
        "matrices": matrices(results),
        "calibration": diagrams(results),
        "groups": group_tables(results),
        "recall": tables.recall_table(results),
        "elsewhere": elsewhere_table(results),
        "localisation": tables.localisation_tables(results),
        "maps": map_tables(results),
        "left_out": left_out(results),
        "browser": browser(results),
        "rows": compact(results),
        "missing": card.missing(results),
        "cards": [card.model_card(model) for model in results.models],
        "times": card.times(results),
        "method": card.method(results),
    }


def _holds(results: Results, parts: Mapping[str, Any], name: str) -> bool:
    """Tell whether there is anything to show in a section."""
    if name == "robustness":
        return any(numbers.defined(b[0]) for m in results.models for b in m.curve)
    if name == "operating":
        return bool(parts["operating"] or parts["matrices"])
    if name == "groups":
        return bool(parts["groups"] or parts["recall"].blocks[0].rows)
    if name == "maps":
        return bool(parts["maps"] or parts["localisation"][0].blocks)
    if name == "cases":
        return bool(parts["rows"]["ids"])
    return name not in parts or bool(parts[name])


@cache
def environment() -> Environment:
    """Return the surroundings of every page: the templates, the style sheets, the words."""
    made = Environment(
        loader=PackageLoader("diascope.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(
        glyph=glyph,
        inline=_inline,
        n=numbers,
        words=words,
        heat_ground=Markup(pictures.ground()),
        heat_ramp=Markup(pictures.ramp()),
    )
    made.filters["shown"] = _shown
    made.filters["parted"] = parted
    return made


def parted(name: str) -> Markup:
    """Return the name of a quantity such that lines break between its parts, not inside a number.

    They may after a slash, before an @, and after a dot that stands before a letter.
    """
    return Markup(re.sub(r"(?<=/)|(?=@)|(?<=\.)(?=[a-z])", "<wbr>", str(escape(name))))


def _inline(name: str) -> Markup:
    """Return a style sheet or script of the package, as it stands."""
    return Markup(files("diascope.report").joinpath("templates", name).read_text("utf-8"))


def date_text(created: str) -> str:
    """Return a moment as a reader writes it; what is none stays as it is."""
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
