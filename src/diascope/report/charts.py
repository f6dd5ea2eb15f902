"""Marks that all figures share: signs of the models, a small strip, the SVG around them.

A model is told by colour (Okabe and Ito's, which colour-blind readers tell apart), by marker and
by dash, so that no figure needs its colours. Colours stand in the style sheet: class `m0` to `m5`.
From the seventh model on colours return, with another marker and another dash.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup, escape

from diascope.audit.parts import Bounds
from diascope.report import numbers as n

SIGNS = 6
DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "4 2 1 2")


class Sign(NamedTuple):
    """The places of a model's colour, marker and dash among six each; no two of 36 are alike."""

    colour: int
    shape: int
    dash: int

    @classmethod
    def of(cls, index: int) -> Sign:
        """Return the sign of the model at a place."""
        again, colour = divmod(index, SIGNS)
        return cls(colour, (colour + again) % SIGNS, (colour + 2 * again) % SIGNS)


def sign_class(index: int) -> str:
    """Return the style class of a model's colour."""
    return f"m{Sign.of(index).colour}"


def f(value: float) -> str:
    """Return a coordinate, as short as it can be."""
    return f"{value:.1f}".removesuffix(".0")


def path(points: Iterable[tuple[float, float]], close: bool = False) -> str:
    """Return the data of a path through points."""
    return "M" + "L".join(f"{f(x)} {f(y)}" for x, y in points) + ("Z" if close else "")


def marker(index: int, x: float, y: float, r: float = 4.5, hollow: bool = False) -> str:
    """Return a model's marker at a point: circle, square, triangle, diamond, and so on."""
    kind = "hollow" if hollow else "solid"
    shape = Sign.of(index).shape
    if shape == 0:
        return f'<circle class="mark {kind}" cx="{f(x)}" cy="{f(y)}" r="{f(r)}"/>'
    corners = {
        1: [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
        2: [(0, -1.2), (1.15, 0.85), (-1.15, 0.85)],
        3: [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
        4: [(0, 1.2), (1.15, -0.85), (-1.15, -0.85)],
        5: [(-0.6, -1.1), (0.6, -1.1), (1.2, 0), (0.6, 1.1), (-0.6, 1.1), (-1.2, 0)],
    }[shape]
    data = path(((x + r * a, y + r * b) for a, b in corners), close=True)
    return f'<path class="mark {kind}" d="{data}"/>'


def line(index: int, points: Iterable[tuple[float, float]]) -> str:
    """Return a model's line through points."""
    dash = DASHES[Sign.of(index).dash]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path class="line" d="{path(points)}"{dashed}/>'


def glyph(index: int) -> Markup:
    """Return a model's sign, as it stands beside its name; hidden from screen readers."""
    body = line(index, [(1, 7), (27, 7)]) + marker(index, 14, 7)
    return Markup(
        f'<svg class="glyph {sign_class(index)}" viewBox="0 0 28 14" width="28" height="14" '
        f'aria-hidden="true" focusable="false">{body}</svg>'
    )


def text(x: float, y: float, words: object, kind: str = "", anchor: str = "start") -> str:
    """Return escaped text at a point."""
    return (
        f'<text x="{f(x)}" y="{f(y)}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'
    )


def figure(identity: str, size: tuple[float, float], title: str, desc: str, body: str) -> Markup:
    """Return an SVG image with a title and a description for those who do not see it."""
    w, h = f(size[0]), f(size[1])
    kind = identity.rsplit("-", 1)[-1]
    return Markup(
        f'<svg class="chart {kind}" viewBox="0 0 {w} {h}" role="img" '
        f'aria-labelledby="{identity}-title {identity}-desc">'
        f'<title id="{identity}-title">{escape(title)}</title>'
        f'<desc id="{identity}-desc">{escape(desc)}</desc>{body}</svg>'
    )


@dataclass(frozen=True)
class Strip:
    """A value with its interval on a scale from 0 to 1, beside chance and the centre prior."""

    value: Bounds
    chance: float
    centre: float
    index: int
    name: str


def strip(data: Strip, width: float = 168, height: float = 22) -> Markup:
    """Draw a strip: the model's marker and interval, a bar for chance, a ring for the Gaussian."""
    left, right, middle = 6.0, width - 6.0, height / 2

    def at(value: float) -> float:
        return left + (right - left) * min(max(value, 0.0), 1.0)

    body = f'<path class="axis" d="M{f(left)} {f(middle)}H{f(right)}"/>'
    body += "".join(f'<path class="axis" d="M{f(at(t))} {f(middle - 3)}v6"/>' for t in (0, 0.5, 1))
    if n.defined(data.chance):
        body += f'<path class="chance" d="M{f(at(data.chance))} {f(middle - 8)}v16"/>'
    if n.defined(data.centre):
        body += f'<circle class="prior" cx="{f(at(data.centre))}" cy="{f(middle)}" r="5"/>'
    if n.has_limits(data.value):
        low, high = at(data.value[1]), at(data.value[2])
        body += f'<path class="whisker" d="M{f(low)} {f(middle)}H{f(high)}"/>'
    if n.defined(data.value[0]):
        body += marker(data.index, at(data.value[0]), middle, 4)
    label = (
        f"{data.name}: {n.ranged(data.value)}, chance {n.number(data.chance)}, "
        f"centred Gaussian {n.number(data.centre)}"
    )
    return Markup(
        f'<svg class="strip {sign_class(data.index)}" viewBox="0 0 {f(width)} {f(height)}" '
        f'width="{f(width)}" height="{f(height)}" role="img" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{body}</svg>"
    )


@dataclass(frozen=True)
class Dots:
    """A value with its interval on a scale from 0 to 1, and the same under attack."""

    value: Bounds
    attacked: Bounds
    index: int
    name: str


def dots(data: Dots, width: float = 200, height: float = 26) -> Markup:
    """Draw a value as a solid mark and the same under attack as a hollow one, with whiskers."""
    left, right, middle = 7.0, width - 7.0, height / 2

    def at(value: float) -> float:
        return left + (right - left) * min(max(value, 0.0), 1.0)

    body = f'<path class="axis" d="M{f(left)} {f(middle)}H{f(right)}"/>'
    body += "".join(f'<path class="axis" d="M{f(at(t))} {f(middle - 3)}v6"/>' for t in (0, 0.5, 1))
    for bounds, shift, hollow in ((data.attacked, 3.5, True), (data.value, -3.5, False)):
        y = middle + shift
        if n.has_limits(bounds):
            kind = "whisker thin" if hollow else "whisker"
            body += f'<path class="{kind}" d="M{f(at(bounds[1]))} {f(y)}H{f(at(bounds[2]))}"/>'
        if n.defined(bounds[0]):
            body += marker(data.index, at(bounds[0]), y, 3.6, hollow)
    label = f"{data.name}: {n.ranged(data.value)}"
    if n.defined(data.attacked[0]):
        label += f", under attack {n.ranged(data.attacked)}"
    return Markup(
        f'<svg class="strip {sign_class(data.index)}" viewBox="0 0 {f(width)} {f(height)}" '
        f'width="{f(width)}" height="{f(height)}" role="img" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{body}</svg>"
    )
