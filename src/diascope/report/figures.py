"""The papers' figures: thin presets over the one `grid`.

P1 is Margeloiu et al. 2020, P2 Wasserman 2022, P3 Li et al. 2022, P4 the saliency-guided
approach of 2024. Images are (N, C, H, W) in [0, 1], maps (N, H, W) in [0, 1] as `render` gives
them, masks (N, H, W) bool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from matplotlib.figure import Figure
from torch import Tensor

from diascope.evaluation.perturbation import perturbation_pictures
from diascope.explain.colours import DEFAULT, colourise
from diascope.explain.overlays import Box, overlay, picture
from diascope.report.grid import Cell, grid

Style = Literal["map", "overlay", "grey overlay"]
Rows = list[list[Cell | None]]


@dataclass(frozen=True)
class Said:
    """What is written under a picture, and whether it is right, where that is known."""

    words: str
    right: bool | None = None


Captions = Mapping[str, Sequence[Said]]  # of each model or method, one an image


@dataclass(frozen=True)
class Shown:
    """The images of a figure, what is known of them, and how maps are shown.

    labels: under each image. boxes: (x, y, w, h) of each image. `outlines_on_maps` draws masks
    and boxes over the maps too, not only over the image.
    """

    x: Tensor
    labels: Sequence[str] = ()
    masks: Tensor | None = None
    boxes: Sequence[Sequence[Box]] = ()
    style: Style = "map"
    colours: str = DEFAULT
    outlines_on_maps: bool = True

    def images(self) -> Rows:
        """Return a column of the images."""
        labels = [Said(label) for label in self.labels]
        return self._column(picture(self.x), labels, over=True)

    def maps(self, heat: Tensor, captions: Sequence[Said] = ()) -> Rows:
        """Return a column of maps (N, H, W)."""
        if self.style == "map":
            shown = colourise(heat, self.colours)
        else:
            grey = self.style == "grey overlay"
            shown = overlay(self.x, heat, self.colours, grey=grey)
        return self._column(shown, captions, over=self.outlines_on_maps)

    def _column(self, pictures: Tensor, said: Sequence[Said], over: bool) -> Rows:
        if len(pictures) != len(self.x) or (said and len(said) != len(self.x)):
            raise ValueError(
                f"{len(pictures)} pictures and {len(said)} captions of {len(self.x)} images"
            )
        pixels = pictures.permute(0, 2, 3, 1).cpu().numpy()
        masks = None if self.masks is None or not over else self.masks.cpu().numpy()
        return [
            [
                Cell(
                    pixels[i],
                    said[i].words if said else "",
                    said[i].right if said else None,
                    mask=None if masks is None else masks[i],
                    boxes=self.boxes[i] if self.boxes and over else (),
                )
            ]
            for i in range(len(pixels))
        ]


def maps_figure(
    shown: Shown,
    heats: Mapping[str, Tensor],
    *,
    captions: Captions | None = None,
    best: Sequence[str] = (),
    rows: Sequence[str] = (),
    **options: Any,
) -> Figure:
    """Return images as rows, and as columns the image and a map of each model.

    P1 5, 7, 8, 11 and 12 (models of several eps, one method), P1 10 (seeds), P3 2 (with boxes).
    best: the column that is framed in each row, "" for none, as P1 frames the most coherent.
    """
    body = beside(shown.images(), *_columns(shown, heats, captions))
    names = list(heats)
    for row, chosen in zip(body, best, strict=False):
        if chosen:
            place = 1 + names.index(chosen)
            cell = row[place]
            assert cell is not None
            row[place] = replace(cell, framed=True)
    return grid(body, rows=rows, columns=["Image", *names], **_key(shown, options))


def sectioned_figure(
    shown: Shown,
    heats: Mapping[str, Mapping[str, Tensor]],
    *,
    captions: Mapping[str, Captions] | None = None,
    **options: Any,
) -> Figure:
    """Return sections one over another, each with all images: P1 6, a section a baseline.

    heats: of each section, of each column; every section has the same columns.
    """
    body: Rows = []
    for name, own in heats.items():
        said = None if captions is None else captions[name]
        body += beside(shown.images(), *_columns(shown, own, said))
    names = list(next(iter(heats.values())))
    sections = [(name, len(shown.x)) for name in heats]
    return grid(body, columns=["Image", *names], sections=sections, **_key(shown, options))


def grouped_figure(
    shown: Shown,
    heats: Mapping[str, Mapping[str, Tensor]],
    *,
    captions: Mapping[str, Captions] | None = None,
    rows: Sequence[str] = (),
    **options: Any,
) -> Figure:
    """Return groups of columns beside the image: P1 1, methods x models, and P1 10."""
    parts = [shown.images()]
    for name, own in heats.items():
        parts += _columns(shown, own, None if captions is None else captions[name])
    columns = ["Image", *(column for own in heats.values() for column in own)]
    groups = [("", 1), *((name, len(own)) for name, own in heats.items())]
    options = _key(shown, options)
    return grid(beside(*parts), rows=rows, columns=columns, groups=groups, **options)


def side_by_side_figure(
    parts: Mapping[str, tuple[Shown, Mapping[str, Tensor]]], **options: Any
) -> Figure:
    """Return several datasets beside each other, each with its own images: P4 6.

    Of each its images and the maps of its models; all have equally many images.
    """
    columns, groups, body = list[str](), list[tuple[str, int]](), list[Rows]()
    for name, (shown, heats) in parts.items():
        body += [shown.images(), *_columns(shown, heats, None)]
        columns += ["Image", *heats]
        groups.append((name, 1 + len(heats)))
    first = next(iter(parts.values()))[0]
    return grid(beside(*body), columns=columns, groups=groups, **_key(first, options))


@dataclass(frozen=True)
class UnderAttack:
    """One model's rows of P2's figures: attacked images, and the maps before and after.

    before, after: what is written under the image and under the attacked one.
    """

    x_adv: Tensor
    clean: Tensor  # maps (N, H, W) of the images
    attacked: Tensor  # maps (N, H, W) of the attacked images
    before: Sequence[Said] = ()
    after: Sequence[Said] = ()


def attacked_figure(shown: Shown, models: Mapping[str, UnderAttack], **options: Any) -> Figure:
    """Return the image, the perturbation, the attacked image, and both maps: P2 9 to 14.

    A section a model, a row an image. Perturbations are min-max scaled, each by itself, as P2
    shows them: they say nothing of their size.
    """
    body: Rows = []
    plain = replace(shown, masks=None, boxes=())
    for seen in models.values():
        pictures = perturbation_pictures(seen.x_adv - shown.x)
        perturbations: Rows = [[Cell(each)] for each in pictures]
        adversarial = replace(shown, x=seen.x_adv, labels=())
        body += beside(
            [[_said(row[0], seen.before, i)] for i, row in enumerate(shown.images())],
            perturbations,
            [
                [_said(row[0], seen.after, i)]
                for i, row in enumerate(replace(plain, x=seen.x_adv, labels=()).images())
            ],
            shown.maps(seen.clean),
            adversarial.maps(seen.attacked),
        )
    columns = ["Image", "Perturbation", "Attacked image", "Map", "Map under attack"]
    sections = [(name, len(shown.x)) for name in models] if any(models) else []
    return grid(body, columns=columns, sections=sections, **_key(shown, options))


def gallery(
    shown: Shown,
    heat: Tensor,
    *,
    captions: Sequence[Said] = (),
    across: int = 4,
    **options: Any,
) -> Figure:
    """Return pairs of an image and its map, `across` in a row: the failures of P1 2 and 9."""
    pairs = beside(shown.images(), shown.maps(heat, captions))
    across = min(across, len(pairs))
    body: Rows = []
    for start in range(0, len(pairs), across):
        chunk = [cell for pair in pairs[start : start + across] for cell in pair]
        body.append([*chunk, *([None] * (2 * across - len(chunk)))])
    groups = [("", 2)] * across
    return grid(body, groups=groups, **_key(shown, options))


def beside(*parts: Rows) -> Rows:
    """Return rows of pictures joined from left to right."""
    return [[cell for row in rows for cell in row] for rows in zip(*parts, strict=True)]


def _columns(shown: Shown, heats: Mapping[str, Tensor], captions: Captions | None) -> list[Rows]:
    said = captions or {}
    return [shown.maps(heat, said.get(name, ())) for name, heat in heats.items()]


def _said(cell: Cell | None, said: Sequence[Said], place: int) -> Cell | None:
    if cell is None or not said:
        return cell
    words = "\n".join(part for part in (cell.caption, said[place].words) if part)
    return replace(cell, caption=words, right=said[place].right)


def _key(shown: Shown, options: Mapping[str, Any]) -> dict[str, Any]:
    return {"colours": shown.colours, **options}
