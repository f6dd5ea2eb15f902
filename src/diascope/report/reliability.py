"""Reliability diagrams: how often a model is right when it is so sure."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from diascope.audit.parts import Bin, Bounds, Calibration
from diascope.audit.results import Results
from diascope.report import numbers as n
from diascope.report.charts import f, figure, marker, path, sign_class, text

SIZE, LEFT, TOP, SIDE = (230.0, 250.0), 34.0, 8.0, 184.0


@dataclass(frozen=True)
class Diagram:
    """A reliability diagram of one model at one epsilon, with its numbers in words."""

    name: str
    index: int
    at: str
    chart: Markup
    ece: Bounds
    brier: Bounds
    words: str
    images: int
    by_chance: float  # ECE that a perfect model of this confidence would show


def diagrams(results: Results) -> list[Diagram]:
    """Return the diagrams of every model, clean first."""
    return [
        _diagram(results, model.name, i, found)
        for i, model in enumerate(results.models)
        for found in sorted(model.calibration, key=lambda c: c.eps)
    ]


def _diagram(results: Results, name: str, index: int, found: Calibration) -> Diagram:
    at = f"attack, eps {n.eps_text(found.eps, results.norm)}" if found.eps else "no attack"
    body = _frame()
    filled = [b for b in found.bins if b.images and n.defined(b.accuracy[0])]
    most = max((b.images for b in filled), default=1)
    points = [(_x(b.confidence), _y(b.accuracy[0])) for b in filled]
    drawn = "".join(_bar(b, most) for b in filled)
    gap = [*points, *((x, _y((x - LEFT) / SIDE)) for x, _ in reversed(points))]
    drawn += f'<path class="band" d="{path(gap, close=True)}"/>' if len(points) > 1 else ""
    for b in filled:
        if n.has_limits(b.accuracy):
            low, high = _y(b.accuracy[1]), _y(b.accuracy[2])
            drawn += f'<path class="whisker thin" d="M{f(_x(b.confidence))} {f(low)}V{f(high)}"/>'
    drawn += f'<path class="line" d="{path(points)}"/>' if len(points) > 1 else ""
    for x, y in points:
        drawn += marker(index, x, y, 3.4, hollow=found.eps > 0)
    body += f'<g class="{sign_class(index)}">{drawn}</g>'
    identity = f"reliability-{index}-{'clean' if not found.eps else f(1000 * found.eps)}-small"
    told = "; ".join(
        f"{n.number(b.confidence, 2)} sure, {n.number(b.accuracy[0], 2)} right" for b in filled
    )
    chart = figure(identity, SIZE, f"Reliability of {name}, {at}", told, body)
    words = _lean(found)
    return Diagram(
        name, index, at, chart, found.ece, found.brier, words, found.images, found.ece_by_chance
    )


def _lean(found: Calibration) -> str:
    sure, right = found.confidence, found.accuracy
    if not (n.defined(sure[0]) and n.defined(right[0])):
        return ""
    told = f"{n.number(sure[0], 2)} sure on average, {n.number(right[0], 2)} right"
    if n.has_limits(sure) and n.has_limits(right) and sure[1] > right[2]:
        return f"too sure: {told}"
    if n.has_limits(sure) and n.has_limits(right) and sure[2] < right[1]:
        return f"not sure enough: {told}"
    return told


def _frame() -> str:
    out = [f'<path class="grid" d="M{f(LEFT)} {f(_y(t))}h{f(SIDE)}"/>' for t in (0, 0.5, 1)]
    out += [text(LEFT - 6, _y(t) + 4, n.number(t, 1), "tick", "end") for t in (0, 0.5, 1)]
    out += [text(_x(t), _y(0) + 17, n.number(t, 1), "tick", "middle") for t in (0, 0.5, 1)]
    out.append(f'<path class="reference" d="M{f(_x(0))} {f(_y(0))}L{f(_x(1))} {f(_y(1))}"/>')
    out.append(text(_x(0.5), _y(0) + 36, "confidence", "small", "middle"))
    out.append(text(_x(0) + 4, _y(1) + 14, "accuracy", "small"))
    return "".join(out)


def _bar(found: Bin, most: int) -> str:
    """Return how many images a bin has, as a bar along the foot of the diagram."""
    left, right = _x(found.low) + 1, _x(found.high) - 1
    top = _y(0) - 30 * found.images / most
    corners = [(left, _y(0)), (left, top), (right, top), (right, _y(0))]
    return f'<path class="bar" d="{path(corners, close=True)}"/>'


def _x(value: float) -> float:
    return LEFT + SIDE * value


def _y(value: float) -> float:
    return TOP + SIDE * (1 - value)
