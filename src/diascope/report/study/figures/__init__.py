"""Figures of a study: one file a kind, a frozen dataclass whose fields the study file sets.

A kind says which quantities it needs and turns them into plots, bars, tables or pictures; how
these look is no business of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from matplotlib.figure import Figure

from diascope.errors import UserError, nearest
from diascope.registry import Registry
from diascope.report.study.series import Bars, Plot, Value
from diascope.report.study.values import Values
from diascope.report.tables import Table
from diascope.studies.quantities import atoms, check, parse
from diascope.studies.results import StudyResults
from diascope.studies.study import Study

FIGURES = Registry("figure", __name__)
RUN = "{run}"  # in a quantity of a figure: each of its runs in turn


@dataclass(frozen=True)
class Seen:
    """What a figure is made of: the results, the numbers, and the store for pictures."""

    results: StudyResults
    values: Values
    store: Path


@dataclass(frozen=True)
class Measure:
    """One number of a figure: of which part, row and column (or place x), and the paper's."""

    part: str
    row: str
    column: str | float
    value: Value
    published: float | str | None = None


@dataclass(frozen=True)
class Drawn:
    """What a figure came to.

    table: its numbers, from which the file for machines is written; folded: shown only when asked,
    for there are charts. pictures: a figure that is pixels, with `alt` for those who do not see it.
    """

    plots: list[Plot] = field(default_factory=list)
    bars: list[Bars] = field(default_factory=list)
    table: Table | None = None
    folded: bool = True
    pictures: Figure | None = None
    alt: str = ""
    notes: list[str] = field(default_factory=list)
    cells: list[Measure] = field(default_factory=list)

    def measures(self) -> list[Measure]:
        """Return every number that it shows."""
        found = list(self.cells)
        for plot in self.plots:
            for each in plot.series:
                paper = dict(each.published)
                found += [
                    Measure(plot.title, each.name, x, v, paper.get(x)) for x, v in each.points
                ]
        for panel in self.bars:
            found += [Measure(panel.title, b.name, "", b.value, b.published) for b in panel.bars]
        return found


def counts_note(drawn: Drawn) -> list[str]:
    """Return on how many images the numbers of a figure were measured, a sentence; or nothing."""
    of_part: dict[str, set[int]] = {}
    for each in drawn.measures():
        if each.value.images:
            of_part.setdefault(each.part or str(each.column), set()).add(each.value.images)
    of_count: dict[tuple[int, int], list[str]] = {}
    for part, counts in of_part.items():
        of_count.setdefault((min(counts), max(counts)), []).append(part)
    told = []
    for (least, most), parts in of_count.items():
        count = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        count = count.replace(",", "\u202f")
        told.append(f"{count} ({' / '.join(parts)})" if len(of_count) > 1 else count)
    return [f"Images: {'; '.join(told)}."] if told else []


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What every figure may say.

    where: the paper's figure or table. runs: which runs it shows, in this order; none for all.
    names: of the runs, as they are shown.
    """

    title: str
    caption: str = ""
    where: str = ""
    runs: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    def shown(self, study: Mapping[str, Any]) -> list[str]:
        """Return the runs it shows: those it names, else all that its evaluation examines."""
        spec = (study.get("evaluations") or {}).get(getattr(self, "evaluation", ""), {})
        return self.runs or list(spec.get("runs") or study["runs"])

    def name(self, run: str) -> str:
        """Return a run's name as it is shown."""
        return self.names.get(run, run)

    def quantities(self, runs: list[str]) -> Iterator[Any]:
        """Yield the quantities that it reads of these runs."""
        yield from ()

    def headings(self, runs: list[str]) -> Iterator[tuple[str, list[str]]]:
        """Yield each name under which something is published, and the names there may be."""
        yield from ()


class StudyFigure(Protocol):
    """A figure of a study, as its file declares it."""

    title: str
    caption: str
    where: str

    def show(self, seen: Seen) -> Drawn:
        """Return what it shows; what was not measured stays empty."""
        ...


def of_run(quantity: Any, run: str) -> Any:
    """Return a quantity with `{run}` in it replaced, however deep."""
    if isinstance(quantity, str):
        return quantity.replace(RUN, run)
    if isinstance(quantity, Mapping):
        return {key: of_run(value, run) for key, value in quantity.items()}
    if isinstance(quantity, list | tuple):
        return [of_run(value, run) for value in quantity]
    return quantity


def build_figure(settings: Mapping[str, Any], where: str) -> Any:
    """Return the figure that its settings (`kind` and the fields of that kind) describe."""
    settings = dict(settings)
    kind = settings.pop("kind", None)
    if kind is None:
        raise UserError(f"{where}: 'kind' is missing; one of {', '.join(FIGURES)}")
    if kind not in FIGURES.names():
        raise UserError(f"{where}: no kind '{kind}': {nearest(str(kind), FIGURES)}")
    return FIGURES.build({**settings, "name": kind}, where)


def check_figures(study: Study, where: str) -> None:
    """Raise `UserError`, one line, for the first mistake in the figures of a study.

    Unknown kinds and keys, runs and evaluations that the study does not have; `where` is the file.
    """
    for name, settings in study.figures.items():
        place = f"{where}: figures.{name}"
        if not _plain(name):
            raise UserError(f"{place}: name a figure by letters, digits, '-' and '.'")
        built = build_figure(settings, place)
        for run in [*built.runs, *built.names, *getattr(built, "x", ())]:
            _there(run, study.runs, place, "run")
        evaluation = getattr(built, "evaluation", None)
        if evaluation is not None:
            _there(evaluation, study.evaluations, place, "evaluation")
        runs = built.shown(study.model_dump())
        for given, known in built.headings(runs):
            _there(given, known, f"{place}.published", "run, line or heading")
        for quantity in built.quantities(runs):
            check(atoms(parse(quantity, place)), study, place)


def _plain(name: str) -> bool:
    return bool(name) and all(c.isalnum() or c in "-._+" for c in name) and name[0].isalnum()


def _there(name: str, known: Iterable[str], where: str, noun: str) -> None:
    if name not in known:
        raise UserError(f"{where}: no {noun} '{name}': {nearest(name, known)}")


def headed(
    published: Mapping[str, Mapping[str, Any]], runs: list[str], heads: Iterable[str]
) -> Iterator[tuple[str, list[str]]]:
    """Yield the names of what is published by run and heading, and those there may be."""
    for run, values in published.items():
        yield run, runs
        for head in values:
            yield head, list(heads)
