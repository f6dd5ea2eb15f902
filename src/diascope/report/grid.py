"""Grids of pictures, as the figures of papers: rows by columns, from one function.

A grid is laid out in points (1/72 inch) on one matplotlib axes, so that every word keeps its size
whatever the number of pictures, and nothing has to be guessed by an automatic layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from diascope.explain.colours import table
from diascope.explain.overlays import Box
from diascope.files import replacing
from diascope.report.lettering import FAMILY, Lettering, wrapped
from diascope.report.pictures import polygons

DPI = 200
SMALL, USUAL, LARGE = Lettering(7.5), Lettering(8.5), Lettering(10.0)
INK, QUIET, RIGHT, WRONG, FRAME = "#1b2224", "#566164", "#00664b", "#a83a12", "#009e73"
SPACE, APART = 4.0, 14.0  # between pictures, and between groups of them
MARGIN = 8.0
SIDES = (62.0, 118.0)  # the least and the largest side of a picture, unless told
BREADTH = 560.0  # of the pictures of a row together, where their sides may be chosen


@dataclass(frozen=True)
class Cell:
    """A picture (H, W, 3) or (H, W) uint8, the words under it, and what is drawn over it.

    right: whether the prediction in the caption's last line is right, shown by a sign and a
    colour. mask: (H, W) bool; boxes: (x, y, w, h) in pixels; both are drawn as double lines.
    framed: marked as the best of its row, as P1 does in green.
    """

    picture: NDArray[np.uint8]
    caption: str = ""
    right: bool | None = None
    mask: NDArray[np.bool_] | None = None
    boxes: Sequence[Box] = ()
    framed: bool = False


Groups = Sequence[tuple[str, int]]  # a name, and over how many columns (or rows) it goes


def grid(
    cells: Sequence[Sequence[Cell | None]],
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    groups: Groups = (),
    sections: Groups = (),
    title: str = "",
    colours: str = "",
    side: float | None = None,
) -> Figure:
    """Return a figure of pictures in rows and columns; None leaves a place empty.

    rows, columns: their labels, none or one each. groups and sections join neighbouring columns
    and rows under a name, in their order. colours: the colour map to explain at the foot. side:
    of a picture in inches; else what suits the number of columns. Raises `ValueError` for rows
    of several lengths, and for labels that do not fit them.
    """
    _check(cells, rows, columns, groups, sections)
    count = len(cells[0])
    chosen = side * 72 if side else float(np.clip(BREADTH / count, *SIDES))
    layout = _Layout(cells, rows, columns, groups, sections, title, colours, chosen)
    figure = Figure(figsize=(layout.width / 72, layout.height / 72), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    layout.draw(axes)
    axes.set_xlim(0, layout.width)
    axes.set_ylim(layout.height, 0)
    axes.set_aspect("auto")
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a figure, complete or not at all, in the format of the suffix: .png, .svg or .pdf."""
    timeless = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix)
    with replacing(path) as temporary, rc_context({"svg.hashsalt": "diascope"}):
        figure.savefig(temporary, dpi=DPI, facecolor="white", metadata=timeless)
    return path


class _Layout:
    """Where everything stands, in points from the upper left corner."""

    def __init__(
        self,
        cells: Sequence[Sequence[Cell | None]],
        rows: Sequence[str],
        columns: Sequence[str],
        groups: Groups,
        sections: Groups,
        title: str,
        colours: str,
        side: float,
    ) -> None:
        self.cells, self.side, self.colours = cells, side, colours
        self.groups, self.sections = groups, sections
        height = max((_height(cell, side) for row in cells for cell in row if cell), default=side)
        self.rows = [wrapped(name, USUAL, 96.0, lines=4) for name in rows]
        self.columns = [wrapped(name, USUAL, side, lines=3) for name in columns]
        self.titled = wrapped(title, LARGE, max(side * len(cells[0]), 200.0), lines=3)
        self.captions = [
            [_caption(cell, side) if cell else [] for cell in row] for row in cells
        ]  # lines under each picture
        section = 1.6 * USUAL.size if sections else 0.0
        named = max((USUAL.width(line) for lines in self.rows for line in lines), default=0.0)
        self.left = MARGIN + section + (named + 6.0 if named else 0.0)
        self.x = _places(self.left, side + SPACE, len(cells[0]), groups)
        top = MARGIN + len(self.titled) * LARGE.line + (4.0 if title else 0.0)
        self.group_y = top
        top += USUAL.line + 5.0 if any(name for name, _ in groups) else 0.0
        self.column_y = top
        top += max((len(lines) for lines in self.columns), default=0) * USUAL.line
        under = [max(map(len, row)) * SMALL.line for row in self.captions]
        self.y = _heights(top + 3.0, [height + each + SPACE for each in under], sections)
        self.height = self.y[-1] + height + under[-1] + MARGIN + (20.0 if colours else 0.0)
        wide = max((LARGE.width(line) for line in self.titled), default=0.0)
        foot = 200.0 if colours else 0.0
        self.width = max(self.x[-1] + side, MARGIN + wide, MARGIN + foot) + MARGIN

    def draw(self, axes: Axes) -> None:
        """Draw the whole grid."""
        _write(axes, MARGIN, MARGIN, self.titled, LARGE, align="left")
        self._names(axes)
        outlines: dict[int, list[NDArray[np.float64]]] = {}
        for y, row, captions in zip(self.y, self.cells, self.captions, strict=True):
            for x, cell, lines in zip(self.x, row, captions, strict=True):
                if cell is None:
                    continue
                height = _height(cell, self.side)
                _draw(axes, cell, x, y, self.side, height, outlines)
                colour = {None: INK, True: RIGHT, False: WRONG}[cell.right]
                _write(axes, x + self.side / 2, y + height + 2.0, lines, SMALL, colour=colour)
        if self.colours:
            self._key(axes)

    def _names(self, axes: Axes) -> None:
        lowest = max((len(lines) for lines in self.columns), default=0)
        for x, lines in zip(self.x, self.columns, strict=False):
            y = self.column_y + (lowest - len(lines)) * USUAL.line
            _write(axes, x + self.side / 2, y, lines, USUAL)
        first = 0
        for name, span in self.groups:
            x, end = self.x[first], self.x[first + span - 1] + self.side
            first += span
            if name:
                words = wrapped(name, USUAL, end - x, lines=1)
                _write(axes, (x + end) / 2, self.group_y, words, USUAL, weight="bold")
                line = self.group_y + USUAL.line + 2.0
                axes.plot([x, end], [line, line], color=QUIET, linewidth=0.7)
        for y, row, lines in zip(self.y, self.cells, self.rows, strict=False):
            height = max((_height(cell, self.side) for cell in row if cell), default=self.side)
            middle = y + height / 2 - len(lines) * USUAL.line / 2
            _write(axes, self.left - 6.0, middle, lines, USUAL, align="right")
        first = 0
        for name, span in self.sections:
            y, end = self.y[first], self.y[first + span - 1] + self.side
            first += span
            words = wrapped(name, USUAL, end - y, lines=1)
            axes.text(
                MARGIN,
                (y + end) / 2,
                "".join(words),
                fontsize=USUAL.size,
                color=INK,
                weight="bold",
                rotation=90,
                family=FAMILY,
                ha="left",
                va="center",
                parse_math=False,
            )

    def _key(self, axes: Axes) -> None:
        """Draw the scale of colours at the foot."""
        strip = (table(self.colours)[None] * 255).round().astype(np.uint8)
        signed = self.colours == "signed"
        low, high = ("against", "for") if signed else ("no evidence", "most")
        y, x = self.height - MARGIN - 10.0, MARGIN + SMALL.width(low) + 6.0
        axes.imshow(strip, extent=(x, x + 90.0, y + 8.0, y), interpolation="nearest")
        axes.add_patch(_frame(x, y, 90.0, 8.0, QUIET, 0.5))
        _write(axes, MARGIN, y - 1.0, [low], SMALL, align="left", colour=QUIET)
        _write(axes, x + 96.0, y - 1.0, [high], SMALL, align="left", colour=QUIET)


def _check(
    cells: Sequence[Sequence[Cell | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    groups: Groups,
    sections: Groups,
) -> None:
    if not cells or not cells[0] or len({len(row) for row in cells}) > 1:
        raise ValueError(f"rows of {[len(row) for row in cells]} pictures do not make a grid")
    for what, names, count in (("rows", rows, len(cells)), ("columns", columns, len(cells[0]))):
        if names and len(names) != count:
            raise ValueError(f"{len(names)} labels for {count} {what}")
    for what, joined, count in (
        ("groups", groups, len(cells[0])),
        ("sections", sections, len(cells)),
    ):
        spans = [span for _, span in joined]
        if spans and (sum(spans) != count or min(spans) < 1):
            raise ValueError(f"{what} of {spans} do not fill {count}")


def _height(cell: Cell, side: float) -> float:
    return side * float(cell.picture.shape[0] / cell.picture.shape[1])


def _places(start: float, step: float, count: int, joined: Groups) -> list[float]:
    return _heights(start, [step] * count, joined)


def _heights(start: float, steps: Sequence[float], joined: Groups) -> list[float]:
    """Return where each of some things begins, those of different groups set apart."""
    ends = set(np.cumsum([span for _, span in joined]).tolist())
    places, at = [], start
    for i, step in enumerate(steps):
        at += APART if i in ends else 0.0
        places.append(at)
        at += step
    return places


def _caption(cell: Cell, side: float) -> list[str]:
    sign = {None: "", True: "✓ ", False: "✗ "}[cell.right]
    above, lower, last = cell.caption.rpartition("\n")
    lines = f"{above}{lower}{sign}{last}".split("\n") if cell.caption else []
    return [part for line in lines for part in wrapped(line, SMALL, side + SPACE - 1.0, lines=2)]


def _draw(
    axes: Axes,
    cell: Cell,
    x: float,
    y: float,
    side: float,
    height: float,
    outlines: dict[int, list[NDArray[np.float64]]],
) -> None:
    pixels = cell.picture[..., 0] if cell.picture.shape[2:] == (1,) else cell.picture
    large = side / 72 * DPI >= 2 * pixels.shape[1]
    axes.imshow(
        pixels,
        cmap="gray",
        vmin=0,
        vmax=255,
        extent=(x, x + side, y + height, y),
        interpolation="nearest" if large else "antialiased",
    )
    scale, edge = side / pixels.shape[1], _frame(x, y, side, height, "#d9dedc", 0.4)
    axes.add_patch(edge)
    if cell.mask is not None:
        lines = outlines.setdefault(id(cell.mask), polygons(cell.mask))
        for line in lines:
            for colour, width in (("black", 1.9), ("white", 0.8)):
                place = x + line[:, 0] * scale, y + line[:, 1] * scale
                axes.plot(*place, color=colour, lw=width)[0].set_clip_path(edge)
    for left, top, wide, high in cell.boxes:
        for colour, width in (("black", 2.2), ("#f0e442", 1.0)):
            corner = x + left * scale, y + top * scale
            box = _frame(*corner, wide * scale, high * scale, colour, width)
            axes.add_patch(box)
            box.set_clip_path(edge)
    if cell.framed:
        axes.add_patch(_frame(x, y, side, height, FRAME, 2.4))


def _frame(x: float, y: float, width: float, height: float, colour: str, line: float) -> Rectangle:
    return Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=line, zorder=3)


def _write(
    axes: Axes,
    x: float,
    y: float,
    lines: Sequence[str],
    lettering: Lettering,
    *,
    align: str = "center",
    colour: str = INK,
    weight: str = "normal",
) -> None:
    for i, line in enumerate(lines):
        axes.text(
            x,
            y + (i + 0.5) * lettering.line,
            line,
            fontsize=lettering.size,
            color=colour,
            weight=weight,
            family=FAMILY,
            ha=align,
            va="center_baseline",
            parse_math=False,
        )
