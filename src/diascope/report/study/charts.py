"""The charts of a study's page: lines with bands and whiskers, bars, and effects about zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup

from diascope.audit.parts import Bounds
from diascope.report import numbers as n
from diascope.report.charts import f, figure, line, marker, path, sign_class, text
from diascope.report.curves import Label, Panel, place_labels, short, uses_root
from diascope.report.study.series import Bars, Plot, Series, Value, extent, plot_extent, spread_of

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 430.0, 46.0, 128.0, 30.0, 246.0
BAR, HEAD = 40.0, 8.0  # height of a bar with its name above, and of what stands over the first


def line_chart(plot: Plot, identity: str) -> Markup:
    """Draw lines over a number: the mean, whiskers of its interval, a band from seed to seed.

    What the paper has is a large hollow mark.
    """
    places = plot.places
    ticks = rounded_ticks(*plot_extent(plot))
    root = uses_root(places)
    limits = ticks[0], ticks[-1]
    panel = Panel(LEFT, WIDTH - RIGHT, TOP, BOTTOM, limits, max(places, default=0.0), root)
    body = text(0, 14, plot.y_title, "head") + _grid(panel, ticks)
    body += "".join(
        f'<path class="reference" d="M{f(panel.left)} {f(panel.y(y))}H{f(panel.right)}"/>'
        for y, _ in plot.levels
    )
    body += "".join(_band(panel, each) for each in plot.series)
    body += "".join(_line(panel, each) for each in plot.series)
    labels: list[Label] = [
        (panel.y(known[-1][1].bounds[0]), short(each.name, 13), each.index)
        for each in plot.series
        if (known := [(x, v) for x, v in each.points if v.known])
    ]
    labels += [(panel.y(y), short(words, 15), None) for y, words in plot.levels]
    body += place_labels(panel, labels) + _places(panel, places)
    spacing = ", square-root scale" if root else ""
    body += text(panel.left, BOTTOM + 40, f"{plot.x_title}{spacing}", "small")
    return figure(f"{identity}-lines", (WIDTH, BOTTOM + 48), plot.title, told(plot), body)


def bar_chart(bars: Bars, identity: str) -> Markup:
    """Draw bars from zero, a name over each; seeds as strokes, the paper's as a hollow mark."""
    drawn = [v for bar in bars.bars for v in spread_of(bar.value)]
    drawn += [bar.published for bar in bars.bars if n.defined(bar.published)]
    low, high = extent([*drawn, *bars.edges])
    if len(bars.edges) == 1:  # room on the side of the claim
        high = max(high, bars.edges[0] + 0.1 * (high - low))
    ticks = rounded_ticks(low, high)
    start, span = ticks[0], ticks[-1] - ticks[0]
    left, right = 22.0, WIDTH - 26.0

    def x(value: float) -> float:
        return left + (right - left) * (value - start) / span

    end = HEAD + BAR * len(bars.bars)
    out = _held_against(x, bars.edges, (start, ticks[-1]), end + 4)
    for tick in ticks:
        kind = "zero" if abs(tick) < 1e-9 else "grid"
        out.append(f'<path class="{kind}" d="M{f(x(tick))} {f(HEAD)}V{f(end + 4)}"/>')
        digits = _digits(ticks)
        out.append(text(x(tick), end + 19, n.number(tick, digits), "tick", "middle"))
    for k, bar in enumerate(bars.bars):
        y = HEAD + BAR * k + 28
        ranged = n.ranged(bar.value.bounds, signed=not bars.bodies)
        out.append(text(left + 5, y - 13, short(bar.name, 34), "over"))
        out.append(text(WIDTH - 2, y - 13, ranged, "small over", "end"))
        out.append(_bar(x, y, bar.value, bar.index, bars.bodies))
        if n.defined(bar.published):
            ring = marker(bar.index, x(bar.published), y, 6.5, hollow=True)
            out.append(f'<g class="{sign_class(bar.index)} published">{ring}</g>')
    return figure(f"{identity}-bars", (WIDTH, end + 26), bars.title, told_bars(bars), "".join(out))


def _held_against(
    x: Callable[[float], float], edges: Sequence[float], limits: tuple[float, float], bottom: float
) -> list[str]:
    """Draw what effects are held against: shaded where the claim holds, dashed at a bound."""
    if not edges:
        return []
    left, right = x(edges[0]), x(edges[1] if len(edges) > 1 else limits[1])
    high = bottom - HEAD
    shade = f'<rect class="holds" x="{f(left)}" y="{f(HEAD)}" width="{f(right - left)}" '
    out = [f'{shade}height="{f(high)}"/>']
    for edge in edges:
        out.append(f'<path class="bound" d="M{f(x(edge))} {f(HEAD)}V{f(bottom)}"/>')
    return out


def _bar(x: object, y: float, value: Value, index: int, body: bool) -> str:
    assert callable(x)
    if not value.known:
        return text(x(0.0) + 6, y + 4, "not measured", "small")
    at, zero = x(value.bounds[0]), x(0.0)
    out = ""
    if body:
        left, wide = min(at, zero), abs(at - zero)
        out += f'<rect class="body" x="{f(left)}" y="{f(y - 7)}" width="{f(wide)}" height="14"/>'
    for each in value.seeds.values():
        if n.defined(each) and len(value.seeds) > 1:
            out += f'<path class="seed" d="M{f(x(each))} {f(y - 7)}v14"/>'
    if n.has_limits(value.bounds):
        low, high = x(value.bounds[1]), x(value.bounds[2])
        out += f'<path class="whisker" d="M{f(low)} {f(y)}H{f(high)}"/>'
    out += marker(index, at, y, 4.2)
    return f'<g class="{sign_class(index)}">{out}</g>'


def rounded_ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers that span `low` to `high`."""
    span = max(high - low, 1e-6)
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(power * s for s in (1, 2, 2.5, 5, 10) if span / (power * s) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def told(plot: Plot) -> str:
    """Return a plot in words, for those who do not see it."""
    parts = []
    for each in plot.series:
        points = (f"{n.ranged(v.bounds)} at {x:g}" for x, v in each.points if v.known)
        parts.append(f"{each.name}: {', '.join(points) or 'not measured'}.")
        published = ", ".join(f"{y:g} at {x:g}" for x, y in each.published)
        parts.append(f"Published: {published}." if published else "")
    return " ".join(part for part in parts if part)


def told_bars(bars: Bars) -> str:
    """Return bars in words."""
    parts = []
    for bar in bars.bars:
        published = f", published {bar.published:g}" if n.defined(bar.published) else ""
        value = n.ranged(bar.value.bounds) if bar.value.known else "not measured"
        parts.append(f"{bar.name}: {value}{published}.")
    if bars.edges:
        side = " and ".join(f"{edge:g}" for edge in bars.edges)
        parts.append(f"The claim holds {'between' if len(bars.edges) > 1 else 'above'} {side}.")
    return " ".join(parts)


def _digits(ticks: Sequence[float]) -> int:
    step = ticks[1] - ticks[0]
    return next((d for d in range(5) if abs(round(step, d) - step) < 1e-9), 5)


def _grid(panel: Panel, ticks: Sequence[float]) -> str:
    out, digits = [], _digits(ticks)
    for tick in ticks:
        y = panel.y(tick)
        kind = "zero" if abs(tick) < 1e-9 and ticks[0] < 0 else "grid"
        out.append(f'<path class="{kind}" d="M{f(panel.left)} {f(y)}H{f(panel.right)}"/>')
        out.append(text(panel.left - 7, y + 4, n.number(tick, digits), "tick", "end"))
    return "".join(out)


def _places(panel: Panel, places: Sequence[float]) -> str:
    out, last = [], -math.inf
    for place in places:
        x = panel.x(place)
        out.append(f'<path class="axis" d="M{f(x)} {f(panel.bottom)}v5"/>')
        if x - last >= 34:
            out.append(text(x, panel.bottom + 20, f"{place:.3g}", "tick", "middle"))
            last = x
    return "".join(out)


def _band(panel: Panel, each: Series) -> str:
    inside = [(panel.x(x), v.spread) for x, v in each.points if v.known]
    upper = [(x, panel.y(s[1])) for x, s in inside if s]
    lower = [(x, panel.y(s[0])) for x, s in reversed(inside) if s]
    if len(upper) < 2:
        return ""
    band = path([*upper, *lower], close=True)
    return f'<g class="{sign_class(each.index)}"><path class="band" d="{band}"/></g>'


def _line(panel: Panel, each: Series) -> str:
    known: list[tuple[float, Bounds]] = [(x, v.bounds) for x, v in each.points if v.known]
    points = [(panel.x(x), panel.y(b[0])) for x, b in known]
    whiskers = "".join(
        f'<path class="whisker thin" d="M{f(panel.x(x))} {f(panel.y(b[1]))}V{f(panel.y(b[2]))}"/>'
        for x, b in known
        if n.has_limits(b)
    )
    marks = "".join(marker(each.index, x, y, 3.8) for x, y in points)
    rings = "".join(
        marker(each.index, panel.x(x), panel.y(y), 6.5, hollow=True) for x, y in each.published
    )
    strokes = line(each.index, points) if len(points) > 1 else ""
    return (
        f'<g class="{sign_class(each.index)}">{whiskers}{strokes}{marks}'
        f'<g class="published">{rings}</g></g>'
    )
