"""The curves of every attack, a small chart a model, and the worst case over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from diascope.audit.parts import AttackCurve, Bounds
from diascope.audit.results import ModelResult, Results
from diascope.report import numbers as n
from diascope.report.charts import f, figure, glyph, line, marker, path, sign_class, text
from diascope.report.curves import Label, Panel, place_labels, references, short, uses_root
from diascope.report.tables import Block, Row, Table, cell

WIDTH, RIGHT, TOP, BOTTOM = 430.0, 132.0, 14.0, 232.0


@dataclass(frozen=True)
class Multiple:
    """One model's chart of all its attacks, with a key of signs for phones and print."""

    name: str
    index: int
    chart: Markup
    key: list[tuple[Markup, str]]


WORST = "worst case"  # of each image, as the audit measures it


def _single(model: ModelResult) -> list[AttackCurve]:
    return [attack for attack in model.attacks if attack.name != WORST]


def attack_charts(results: Results) -> list[Multiple]:
    """Return a chart for each model that met more than one attack."""
    return [
        _multiple(results, model, i)
        for i, model in enumerate(results.models)
        if len(_single(model)) > 1
    ]


def worst_case(attacks: Sequence[AttackCurve], points: int) -> list[Bounds]:
    """Return at each epsilon the lowest accuracy that any attack left, with its interval."""
    nothing = (float("nan"),) * 3
    found: list[Bounds] = []
    for k in range(points):
        known = [a.accuracy[k] for a in attacks if k < len(a.accuracy)]
        known = [bounds for bounds in known if n.defined(bounds[0])]
        found.append(min(known, key=lambda bounds: bounds[0], default=nothing))
    return found


def _multiple(results: Results, model: ModelResult, index: int) -> Multiple:
    eps = results.epsilons
    panel = Panel(40.0, WIDTH - RIGHT, TOP, BOTTOM, (0, 1), max(eps, default=0.0), uses_root(eps))
    body = _frame(results, panel)
    labels: list[Label] = []
    for k, attack in enumerate(_single(model)):
        points = [(panel.x(e), panel.y(b[0])) for e, b in _known(eps, attack.accuracy)]
        if not points:
            continue
        whiskers = "".join(
            f'<path class="whisker thin" d="M{f(panel.x(e))} {f(panel.y(max(b[1], 0)))}'
            f'V{f(panel.y(min(b[2], 1)))}"/>'
            for e, b in _known(eps, attack.accuracy)
            if n.has_limits(b)
        )
        marks = "".join(marker(k, x, y, 3.8) for x, y in points)
        body += f'<g class="{sign_class(k)}">{whiskers}{line(k, points)}{marks}</g>'
        labels.append((points[-1][1], short(attack.name, 14), k))
    worst = [(panel.x(e), panel.y(b[0])) for e, b in _known(eps, _worst(results, model))]
    body = (f'<path class="worst" d="{path(worst)}"/>' if worst else "") + body
    labels += [
        (panel.y(value), words.rsplit(" ", 1)[0], None) for value, words in references(results)
    ]
    body += place_labels(panel, labels)
    unit = f"eps, {n.norm_text(results.norm)}"
    body += text(panel.left, BOTTOM + 40, unit, "small")
    size = (WIDTH, BOTTOM + 48)
    chart = figure(
        f"attacks-{index}-small", size, f"{model.name}: each attack", _told(results, model), body
    )
    key = [
        (glyph(k), f"{a.name}, {a.access}, {a.images} images") for k, a in enumerate(_single(model))
    ]
    return Multiple(model.name, index, chart, key)


def _frame(results: Results, panel: Panel) -> str:
    out = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        y = panel.y(tick)
        out.append(f'<path class="grid" d="M{f(panel.left)} {f(y)}H{f(panel.right)}"/>')
        if tick in (0, 0.5, 1):
            out.append(text(panel.left - 7, y + 4, n.number(tick, 1), "tick", "end"))
    for value, _ in references(results):
        y = panel.y(value)
        out.append(f'<path class="reference" d="M{f(panel.left)} {f(y)}H{f(panel.right)}"/>')
    last = -99.0
    for eps in results.epsilons:
        x = panel.x(eps)
        if x - last >= 34:
            words = n.eps_text(eps, results.norm)
            out.append(text(x, panel.bottom + 18, words, "tick", "middle"))
            last = x
    return "".join(out)


def _known(eps: Sequence[float], accuracy: Sequence[Bounds]) -> list[tuple[float, Bounds]]:
    return [(e, b) for e, b in zip(eps, accuracy, strict=False) if n.defined(b[0])]


def _worst(results: Results, model: ModelResult) -> list[Bounds]:
    return worst_case(model.attacks, len(results.epsilons))


def _told(results: Results, model: ModelResult) -> str:
    parts = []
    for attack in model.attacks:
        points = _known(results.epsilons, attack.accuracy)
        values = (f"{n.value_of(b)} at eps {n.eps_text(e, results.norm)}" for e, b in points)
        parts.append(f"{attack.name}: {', '.join(values)}.")
    return " ".join(parts)


def attack_table(results: Results) -> Table | None:
    """Return the accuracies under every attack and the worst case; None without attacks."""
    blocks = []
    for model in results.models:
        if not model.attacks:
            continue
        rows = [
            Row(
                attack.name,
                [cell(_at(attack.accuracy, k), "not measured") for k in range(_points(results))],
                f"{attack.access}, {attack.images} images",
                k if len(_single(model)) > 1 else None,
            )
            for k, attack in enumerate(_single(model))
        ]
        if len(_single(model)) > 1:
            worst = [cell(b, "not measured") for b in _worst(results, model)]
            rows.append(Row("worst of them", worst, "at each eps"))
        blocks.append(Block(rows, model.name if len(results.models) > 1 else ""))
    if not blocks:
        return None
    columns: list[tuple[str, int | None]] = [
        (n.eps_text(e, results.norm), None) for e in results.epsilons
    ]
    corner = f"{n.norm_text(results.norm)} eps"
    return Table("Accuracy under each attack", corner, columns, blocks, _beside_the_curve(results))


def _beside_the_curve(results: Results) -> str:
    """Say on which of the curve's images the attacks were measured."""
    here = {a.images for m in results.models for a in m.attacks}
    curve = {m.attacked or results.data.get("images", 0) for m in results.models if m.attacks}
    if here == curve:
        return "on the images of the curve above"
    if len(here) == len(curve) == 1 and max(here) < max(curve):
        return f"on {max(here)} of the {max(curve)} images of the curve above, drawn by lot"
    return ""


def _points(results: Results) -> int:
    return len(results.epsilons)


def _at(curve: Sequence[Bounds], place: int) -> Bounds | None:
    return curve[place] if place < len(curve) else None
