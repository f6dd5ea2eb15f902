"""The robustness figure: accuracy against epsilon, and the paired differences beneath."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import east_asian_width

from markupsafe import Markup

from diascope.audit.parts import Bounds
from diascope.audit.results import Results
from diascope.report import numbers as n
from diascope.report.charts import f, figure, line, marker, path, sign_class, text

LEFT, TOP, GAP = 54.0, 34.0, 66.0
INSET = 12.0  # from the edges of a panel to the first and last epsilon
GAP_LABELS = 16.0  # least distance between two labels

Label = tuple[float, str, int | None]  # height, words, and the model's index where it is one's


@dataclass(frozen=True)
class Panel:
    """A plotting area: x from epsilons, y from values."""

    left: float
    right: float
    top: float
    bottom: float
    limits: tuple[float, float]
    largest: float
    root: bool

    def x(self, eps: float) -> float:
        """Return the place of an epsilon."""
        share = eps / self.largest if self.largest else 0.0
        start = self.left + INSET
        return start + (self.right - INSET - start) * (math.sqrt(share) if self.root else share)

    def y(self, value: float) -> float:
        """Return the place of a value."""
        low, high = self.limits
        return self.bottom - (self.bottom - self.top) * (value - low) / (high - low)


def robustness_chart(results: Results, wide: bool) -> Markup:
    """Draw the curves, and the differences where models are compared.

    The wide drawing labels each line at its end; the narrow one, for phones, goes with a key.
    """
    width, right = (880.0, 210.0) if wide else (380.0, 14.0)
    height = 330.0 if wide else 270.0
    eps = results.epsilons
    root = uses_root(eps)
    largest = max(eps, default=0.0)
    top = Panel(LEFT, width - right, TOP, height, (0, 1), largest, root)
    body = text(0, 16, "Accuracy", "head") + _grid(top, [0, 0.25, 0.5, 0.75, 1], False)
    body += _curves(results, top, wide) + _eps_axis(results, top)
    end = height + 44
    if results.comparisons:
        extent = [v for c in results.comparisons for b in c.curve for v in b if n.defined(v)]
        ticks = nice_ticks(min([0.0, *extent]), max([0.0, *extent]))
        bottom = height + GAP + (170 if wide else 150)
        low = Panel(
            LEFT, width - right, height + GAP + 18, bottom, (ticks[0], ticks[-1]), largest, root
        )
        body += text(0, height + GAP, "Difference in accuracy, paired", "head")
        body += _grid(low, ticks, True) + _differences(results, low, wide) + _eps_axis(results, low)
        end = bottom + 44
    spacing = ", square-root scale" if root else ""
    unit = f"eps, {n.norm_text(results.norm)} norm in pixel units{spacing}"
    body += text(LEFT, end - 4, unit, "small")
    identity = f"curve-{'wide' if wide else 'narrow'}"
    return figure(identity, (width, end), "Accuracy under attack", described(results), body)


def uses_root(epsilons: Sequence[float]) -> bool:
    """Tell whether the small epsilons would crowd together on a linear scale."""
    inner = sorted(e for e in epsilons if e > 0)
    return len(inner) > 2 and inner[len(inner) // 2] < 0.35 * inner[-1]


def nice_ticks(low: float, high: float) -> list[float]:
    """Return round ticks that span `low` to `high` and hold zero."""
    span = max(high - low, 0.02)
    step = next((s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5) if span / s <= 5), 0.5)
    first, last = math.floor(low / step - 1e-9), math.ceil(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def described(results: Results) -> str:
    """Return the curves in words."""
    parts = []
    for model in results.models:
        points = zip(results.epsilons, model.curve, strict=False)
        told = (f"{n.value_of(b)} at eps {n.eps_text(e, results.norm)}" for e, b in points)
        parts.append(f"{model.name}: {', '.join(told)}.")
    return " ".join(parts)


def _grid(panel: Panel, ticks: Sequence[float], signed: bool) -> str:
    out = []
    for tick in ticks:
        y = panel.y(tick)
        kind = "zero" if signed and abs(tick) < 1e-9 else "grid"
        out.append(f'<path class="{kind}" d="M{f(panel.left)} {f(y)}H{f(panel.right)}"/>')
        digits = 2 if ticks[1] - ticks[0] != 0.1 else 1
        words = n.number(tick, digits, signed=signed and abs(tick) > 1e-9)
        out.append(text(panel.left - 8, y + 4, words, "tick", "end"))
    return "".join(out)


def _eps_axis(results: Results, panel: Panel) -> str:
    out, last = [], -math.inf
    for eps in results.epsilons:
        x = panel.x(eps)
        out.append(f'<path class="axis" d="M{f(x)} {f(panel.bottom)}v5"/>')
        if x - last >= 30:
            words = n.eps_text(eps, results.norm)
            out.append(text(x, panel.bottom + 20, words, "tick", "middle"))
            last = x
    return "".join(out)


def _curves(results: Results, panel: Panel, wide: bool) -> str:
    bands, lines = [], []
    labels: list[Label] = []
    levels = [(panel.y(value), words) for value, words in references(results)]
    for i, model in enumerate(results.models):
        points = list(zip(results.epsilons, model.curve, strict=False))
        drawn = [(panel.x(e), panel.y(b[0])) for e, b in points if n.defined(b[0])]
        if not drawn:
            continue
        kind = sign_class(i)
        band = _band(panel, points)
        bands.append(f'<g class="{kind}"><path class="band" d="{band}"/></g>' if band else "")
        marks = "".join(marker(i, x, y) for x, y in drawn)
        lines.append(f'<g class="{kind}">{line(i, drawn)}{marks}</g>')
        labels.append((drawn[-1][1], short(model.name, 20), i))
    labels += [(y, words, None) for y, words in levels]
    rules = "".join(
        f'<path class="reference" d="M{f(panel.left)} {f(y)}H{f(panel.right)}"/>' for y, _ in levels
    )
    told = place_labels(panel, labels) if wide else ""
    return "".join(bands) + rules + "".join(lines) + told


def _band(panel: Panel, points: Sequence[tuple[float, Bounds]]) -> str:
    inside = [(panel.x(e), b) for e, b in points if n.has_limits(b)]
    if len(inside) < 2:
        return ""
    upper = [(x, panel.y(min(b[2], 1.0))) for x, b in inside]
    lower = [(x, panel.y(max(b[1], 0.0))) for x, b in reversed(inside)]
    return path([*upper, *lower], close=True)


def references(results: Results) -> list[tuple[float, str]]:
    """Return the levels that need no skill, with their names: chance and the commonest class."""
    chance, majority = results.data.get("chance"), results.data.get("majority")
    told = [(majority, "commonest class"), (chance, "chance")]
    if n.defined(chance) and n.defined(majority) and abs(chance - majority) < 0.012:
        told = [(chance, "chance, commonest")]
    return [(v, f"{words} {n.number(v, 2)}") for v, words in told if n.defined(v)]


def place_labels(panel: Panel, labels: Sequence[Label]) -> str:
    """Return labels right of a panel, pushed apart where they would touch."""
    ordered = sorted(labels, key=lambda label: label[0])
    places: list[float] = []
    for y, _, _ in ordered:
        places.append(max(y, places[-1] + GAP_LABELS) if places else y)
    limit = panel.bottom
    for i in range(len(places) - 1, -1, -1):
        places[i] = min(places[i], limit)
        limit = places[i] - GAP_LABELS
    out = []
    for y, (_, words, index) in zip(places, ordered, strict=True):
        if index is None:
            out.append(text(panel.right + 16, y + 4, words, "small"))
        else:
            sign = marker(index, panel.right + 21, y, 3.6)
            out.append(f'<g class="{sign_class(index)}">{sign}</g>')
            out.append(text(panel.right + 32, y + 4, words))
    return "".join(out)


def _differences(results: Results, panel: Panel, wide: bool) -> str:
    out: list[str] = []
    labels: list[Label] = []
    count = len(results.comparisons)
    index = {m.name: i for i, m in enumerate(results.models)}
    for k, comparison in enumerate(results.comparisons):
        place = index.get(comparison.model, k)
        shift = 9.0 * (k - (count - 1) / 2)
        drawn, last = [], None
        for eps, bounds in zip(results.epsilons, comparison.curve, strict=False):
            if not n.defined(bounds[0]):
                continue
            x, y = panel.x(eps) + shift, panel.y(bounds[0])
            if n.has_limits(bounds):
                low, high = panel.y(bounds[1]), panel.y(bounds[2])
                drawn.append(f'<path class="whisker" d="M{f(x)} {f(low)}V{f(high)}"/>')
            drawn.append(marker(place, x, y, hollow=not n.excludes_zero(bounds)))
            last = y
        out.append(f'<g class="{sign_class(place)}">{"".join(drawn)}</g>')
        if last is not None:
            labels.append((last, _less(comparison.model, comparison.reference), place))
    return "".join(out) + (place_labels(panel, labels) if wide else "")


def _less(model: str, reference: str) -> str:
    """Return the names of a difference; what one does not need of the room the other has."""
    ours, theirs = (min(_long(name), part) for name, part in ((model, 10), (reference, 8)))
    first, second = short(model, 18 - theirs), short(reference, 18 - ours)
    return f"{first} {n.MINUS} {second}"


def short(name: str, length: float) -> str:
    """Return a name cut to the breadth of so many letters; the tables hold all of it."""
    if _long(name) <= length:
        return name
    while _long(name) > length - 1:
        name = name[:-1]
    return name + "…"


def _long(name: str) -> float:
    return sum(map(_breadth, name))


def _breadth(letter: str) -> float:
    broad = letter in "MWmw@%" or east_asian_width(letter) in "WF"
    return 1.65 if broad else 1.2 if letter.isupper() else 1.0
