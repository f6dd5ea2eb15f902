"""The grids of explained images: a row an image, columns methods and models."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from matplotlib.figure import Figure

from diascope.audit.explained import Explained
from diascope.explain.colours import DEFAULT
from diascope.report.figures import Captions, Said, Shown, Style, grouped_figure, maps_figure
from diascope.report.grid import save

ROWS = 10  # images on a page


def write_grids(
    found: Explained,
    out: Path,
    *,
    colours: str = DEFAULT,
    over: Literal["grey", "image"] = "grey",
    title: str = "",
    suffix: Literal[".png", ".svg", ".pdf"] = ".png",
) -> list[Path]:
    """Write `grid.png` into the folder, `grid-2.png` and so on where there are many images.

    Under the image stands what one model makes of it, or under each map what its model does.
    """
    places = []
    style: Style = "grey overlay" if over == "grey" else "overlay"
    for number, start in enumerate(range(0, len(found.rows), ROWS), 1):
        page = _page(found, slice(start, start + ROWS), colours, style, title)
        name = f"grid{suffix}" if number == 1 else f"grid-{number}{suffix}"
        places.append(save(page, out / name))
    return places


def _page(found: Explained, part: slice, colours: str, style: Style, title: str) -> Figure:
    rows, models = found.rows[part], list(found.heats)
    said: dict[str, list[Said]] = {
        model: [_said(row["models"][model]) for row in rows] for model in models
    }
    alone = len(models) == 1
    shown = Shown(
        found.images[part].float() / 255,
        labels=[each.words for each in said[models[0]]] if alone else (),
        masks=None if found.masks is None else found.masks[part],
        style=style,
        colours=colours,
    )
    heats = {
        method.replace("_", " "): {
            model: found.heats[model][method][part].float() / 255 for model in models
        }
        for method in found.heats[models[0]]
    }
    names = [row["name"] for row in rows]
    if alone:
        maps = {method: of[models[0]] for method, of in heats.items()}
        return maps_figure(shown, maps, rows=names, title=title)
    captions: dict[str, Captions] = dict.fromkeys(heats, said)
    return grouped_figure(shown, heats, captions=captions, rows=names, title=title)


def _said(seen: dict[str, object]) -> Said:
    return Said(f"{seen['prediction']} {seen['probability']:.2f}")
