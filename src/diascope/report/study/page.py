"""The report of a study: one HTML file, its figures, and its numbers for machines."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image as Pillow

from diascope import __version__
from diascope.errors import UserError, nearest
from diascope.files import replacing, write_text
from diascope.report import grid
from diascope.report import numbers as n
from diascope.report.charts import glyph
from diascope.report.html import date_text, environment
from diascope.report.study import words
from diascope.report.study.against import against
from diascope.report.study.charts import bar_chart, line_chart
from diascope.report.study.checks import masking_tables
from diascope.report.study.claims import complete, shown
from diascope.report.study.commands import report_line
from diascope.report.study.figures import Drawn, Seen, StudyFigure, build_figure, counts_note
from diascope.report.study.markdown import Written, study_markdown
from diascope.report.study.measured import how_measured
from diascope.report.study.method import configurations, job_rows, totals
from diascope.report.study.plots import bars_figure, plots_figure
from diascope.report.study.values import Values
from diascope.report.tables import Table
from diascope.studies.results import StudyResults, save

TITLES = {
    "summary": "Summary",
    "claims": "Claims",
    "figures": "Figures",
    "masking": "Believable?",
    "against": "Against",
    "differs": "Differences",
    "method": "Method",
}
BROADEST = 1400  # pixels of a figure of pictures within the page


@dataclass(frozen=True)
class Shown:
    """A figure as the page shows it; `line` makes it anew."""

    name: str
    title: str
    where: str
    caption: str
    line: str
    drawn: Drawn = field(repr=False)
    charts: list[tuple[str, Markup]] = field(default_factory=list)
    key: list[tuple[Markup, str]] = field(default_factory=list)
    levels: list[str] = field(default_factory=list)
    published: bool = False
    png: bytes = field(default=b"", repr=False)
    picture: str = ""

    @property
    def id(self) -> str:
        """Return its name as an address within the page."""
        return self.name

    @property
    def table(self) -> Table | None:
        """Return its numbers."""
        return self.drawn.table

    @property
    def folded(self) -> bool:
        """Whether its numbers stand under charts."""
        return self.drawn.folded

    @property
    def alt(self) -> str:
        """Return its pictures in words."""
        return self.drawn.alt

    @property
    def notes(self) -> list[str]:
        """Return what must be said beneath it."""
        return [*self.drawn.notes, *counts_note(self.drawn)]


def write_study_report(results: StudyResults, store: Path, out: Path) -> Path:
    """Write `report.html`, `results.json`, `results.md` and `figures/` into `out`.

    store: the study's, with the tables and runs. Returns the path of the page, which is written
    last: where it is, all is.
    """
    results = complete(results)
    figures = _figures(results, store)
    for each in figures:
        _write_figure(each, out / "figures")
    save(_without_pictures(results), out)
    write_text(out / "results.md", study_markdown(results, [_written(f) for f in figures]))
    write_text(out / "report.html", render_study(results, store, figures))
    return out / "report.html"


def write_study_figure(results: StudyResults, store: Path, out: Path, name: str) -> list[Path]:
    """Write one figure of a study into `out/figures`, and return the paths.

    Raises `UserError` where the study has no figure of that name.
    """
    known = results.study.get("figures") or {}
    if name not in known:
        raise UserError(f"{results.name}: no figure '{name}': {nearest(name, known)}")
    (figure,) = _figures(results, store, [name])
    return _write_figure(figure, out / "figures")


def render_study(results: StudyResults, store: Path, figures: Sequence[Shown]) -> str:
    """Return the report as one HTML document."""
    claims = shown(results)
    parts: dict[str, Any] = {
        "claims": claims,
        "figures": figures,
        "masking": masking_tables(results),
        "caveats": results.study.get("caveats") or [],
        "against": against(results),
    }
    always = dict.fromkeys(("summary", "against", "method"), True)
    holds = {**parts, "differs": parts["caveats"], **always}
    jobs = job_rows(results)
    return (
        environment()
        .get_template("study.html.j2")
        .render(
            **parts,
            results=results,
            version=__version__,
            created=date_text(results.created),
            sections={name: title for name, title in TITLES.items() if holds[name]},
            signs=words.SIGNS,
            meanings=words.MEANINGS,
            sentence=words.sentence(words.counted(results)),
            counts=words.counted(results),
            spoken_of=words.spoken_of(results.claims),
            about=results.study.get("about") or "",
            any_published=any(each.published or each.claim.where for each in claims),
            few=any(each.few for each in claims),
            few_seeds=words.FEW_SEEDS,
            holm=words.HOLM,
            whiskers=words.WHISKERS,
            lines={"claims": report_line(results)},
            seeds=", ".join(map(str, results.study.get("seeds") or [])),
            totals=totals(results, store),
            measured=how_measured(results),
            jobs=jobs,
            unfinished=any(job.state[:1] in "✗○" for job in jobs),
            configurations=configurations(results, store),
            study_text=yaml.safe_dump(results.study, sort_keys=False, allow_unicode=True, width=90),
        )
    )


def _figures(results: StudyResults, store: Path, names: Sequence[str] = ()) -> list[Shown]:
    declared = results.study.get("figures") or {}
    seen = Seen(results, Values(results, store), store)
    return [_shown(seen, name, declared[name]) for name in names or declared]


def _shown(seen: Seen, name: str, settings: dict[str, Any]) -> Shown:
    figure = build_figure(settings, f"figures.{name}")
    drawn = figure.show(seen)
    many = len(drawn.bars) > 1
    charts = [
        ("", line_chart(plot, f"{name}-{k}"))  # its axis says what it is
        for k, plot in enumerate(drawn.plots)
    ]
    charts += [
        (bars.title if many else "", bar_chart(bars, f"{name}-{k}"))
        for k, bars in enumerate(drawn.bars)
    ]
    lines = list(dict.fromkeys((s.name, s.index) for plot in drawn.plots for s in plot.series))
    published = [s.published for plot in drawn.plots for s in plot.series]
    published += [[(0.0, b.published)] for p in drawn.bars for b in p.bars if b.published]
    png = _png(drawn, figure.title)
    return Shown(
        name=name,
        title=figure.title,
        where=figure.where,
        caption=figure.caption,
        line=report_line(seen.results, name),
        drawn=drawn,
        charts=charts,
        key=[(glyph(index), told) for told, index in lines],
        levels=list(dict.fromkeys(_level(*each) for plot in drawn.plots for each in plot.levels)),
        published=any(published),
        png=png,
        picture=_uri(png) if drawn.pictures else "",
    )


def _level(height: float, name: str) -> str:
    """Return a level with its height, unless its name tells it."""
    told = n.number(height, 2)
    return name if told in name else f"{name} {told}"


def _png(drawn: Drawn, title: str) -> bytes:
    """Return a figure as a PNG file; nothing for a table."""
    plot: Figure | None = drawn.pictures
    if drawn.plots:
        plot = plots_figure(drawn.plots, title)
    elif drawn.bars:
        plot = bars_figure(drawn.bars, title)
    if plot is None:
        return b""
    file = io.BytesIO()
    plot.savefig(file, format="png", dpi=grid.DPI, facecolor="white")
    return file.getvalue()


def _write_figure(each: Shown, folder: Path) -> list[Path]:
    """Write a figure as a picture and as a table, as far as it is either."""
    drawn, found = each.drawn, []
    if each.png:
        found.append(folder / f"{each.name}.png")
        with replacing(found[-1]) as temporary:
            temporary.write_bytes(each.png)
    if drawn.table is not None:
        found.append(folder / f"{each.name}.csv")
        with replacing(found[-1]) as temporary:
            numbers_table(drawn).to_csv(temporary, index=False)
    return found


def numbers_table(drawn: Drawn) -> pd.DataFrame:
    """Return every number of a figure, a row each, unrounded: for machines."""
    rows = [
        {
            "part": each.part,
            "row": each.row,
            "column": each.column,
            "value": each.value.bounds[0],
            "low": each.value.bounds[1],
            "high": each.value.bounds[2],
            "published": each.published,
            **{f"seed {seed}": value for seed, value in each.value.seeds.items()},
        }
        for each in drawn.measures()
    ]
    return pd.DataFrame(rows)


def _uri(png: bytes) -> str:
    """Return a figure of pictures as a data URI, no broader than the page needs."""
    picture = Pillow.open(io.BytesIO(png)).convert("RGB")
    if picture.width > BROADEST:
        size = BROADEST, round(picture.height * BROADEST / picture.width)
        picture = picture.resize(size, Pillow.Resampling.LANCZOS)
    small = io.BytesIO()
    picture.save(small, "WEBP", quality=86, method=4)
    return f"data:image/webp;base64,{base64.b64encode(small.getvalue()).decode()}"


def _written(each: Shown) -> Written:
    """Return a figure as the Markdown of its study has it."""
    file = f"figures/{each.name}.png" if each.png else ""
    table = None if each.folded else each.table
    return Written(each.title, each.line, file, table, _said(each, each.drawn))


def written_figure(figure: StudyFigure, drawn: Drawn, line: str) -> Written:
    """Return a figure as Markdown that has no pictures beside it: its numbers, all of them."""
    return Written(figure.title, line, "", drawn.table, _said(figure, drawn))


def _said(figure: StudyFigure | Shown, drawn: Drawn) -> list[str]:
    """Return what stands beneath a figure: where the paper has it, caption, notes and counts."""
    above = [
        f"{each[:1].upper()}{each[1:].rstrip('.')}."
        for each in (figure.where, figure.caption)
        if each
    ]
    return [" ".join([*above, *drawn.notes, *counts_note(drawn)])]


def _without_pictures(results: StudyResults) -> StudyResults:
    """Return results whose `about` holds no pictures: these are in the records of the store."""
    about = {
        evaluation: {
            run: {
                seed: {key: value for key, value in (told or {}).items() if key != "pictures"}
                for seed, told in by_seed.items()
            }
            for run, by_seed in by_run.items()
        }
        for evaluation, by_run in results.about.items()
    }
    return replace(results, about=about)
