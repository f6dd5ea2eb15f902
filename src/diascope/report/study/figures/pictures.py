"""Images and the maps of every run beside them, as the papers show them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import Tensor

from diascope.explain.colours import DEFAULT
from diascope.report.figures import Said, Shown, Style, grouped_figure, maps_figure
from diascope.report.grid import Cell, grid
from diascope.report.study.figures import FIGURES, Declared, Drawn, Seen

Entry = Mapping[str, Any]  # a picture as the evaluation `examples` tells it


@FIGURES.register("pictures")
@dataclass(frozen=True, kw_only=True)
class PicturesFigure(Declared):
    """A grid of images and of their maps, from the evaluation `examples`.

    explainers: which of them, none for all; each is a group of columns, a column a run. attacked:
    a section a run instead, with the image, the perturbation, the attacked image, and the map of
    the first explainer before and after, as P2 has them. seed: whose models; none for the first
    of the study. every_seed: a column a seed of the one run (P1, figure 10). images: the first of
    these many. over: maps over the image, in grey or in colour; none for the maps alone.
    """

    evaluation: str
    explainers: list[str] = field(default_factory=list)
    attacked: bool = False
    seed: int | None = None
    every_seed: bool = False
    images: int | None = None
    over: Literal["grey", "image"] | None = None
    colours: str = DEFAULT

    def __post_init__(self) -> None:
        if self.every_seed and len(self.runs) != 1:
            raise ValueError("every_seed: name the one run under 'runs'")
        if self.every_seed and self.attacked:
            raise ValueError("every_seed: not with 'attacked'")

    def show(self, seen: Seen) -> Drawn:
        """Return the grid; a note where there is nothing to show."""
        columns = self._columns(seen)
        if not columns:
            return Drawn(notes=["No pictures were made."])
        first = next(iter(columns.values()))
        shared = [e["id"] for e in first if all(_of(other, e["id"]) for other in columns.values())]
        ids = shared[: self.images]
        rows = {name: [_of(each, i) for i in ids] for name, each in columns.items()}
        entries = {name: [e for e in own if e is not None] for name, own in rows.items()}
        if not ids or (self.attacked and "attacked" not in next(iter(entries.values()))[0]):
            return Drawn(notes=["No pictures were made."])
        draw = self._under_attack if self.attacked else self._maps
        return Drawn(
            pictures=draw(entries), alt=self._alt(entries), notes=self._notes(seen, entries)
        )

    def _columns(self, seen: Seen) -> dict[str, list[Entry]]:
        """Return of each column, a run or a seed, its pictures."""
        about = seen.results.about.get(self.evaluation, {})
        if self.every_seed:
            by_seed = about.get(self.runs[0], {})
            found = {f"seed {seed}": by_seed[seed] for seed in by_seed}
        else:
            found = {self.name(run): about[run][seed] for run, seed in self._seeds(seen).items()}
        return {name: each["pictures"] for name, each in found.items() if each.get("pictures")}

    def _methods(self, entries: Mapping[str, Sequence[Entry]]) -> list[str]:
        first = next(iter(entries.values()))[0]["maps"]
        return [name for name in self.explainers or first if name in first]

    def _maps(self, entries: Mapping[str, Sequence[Entry]]) -> Figure:
        first = next(iter(entries.values()))
        shown = self._shown(first)
        said = {name: [_said(e) for e in own] for name, own in entries.items()}
        heats = {
            method: {name: _heat(own, method) for name, own in entries.items()}
            for method in self._methods(entries)
        }
        if len(heats) == 1:
            (maps,) = heats.values()
            return maps_figure(shown, maps, captions=said, title=self.title)
        return grouped_figure(shown, heats, captions=dict.fromkeys(heats, said), title=self.title)

    def _under_attack(self, entries: Mapping[str, Sequence[Entry]]) -> Figure:
        (method, *_) = self._methods(entries)
        body: list[list[Cell | None]] = []
        for own in entries.values():
            shown = self._shown(own)
            before = shown.maps(_heat(own, method))
            after = shown.maps(_heat([e["attacked"] for e in own], method))
            images = shown.images()
            for k, entry in enumerate(own):
                hit = entry["attacked"]
                picture = images[k][0]
                assert picture is not None
                clean, broken = _said(entry), _said(hit)
                body.append(
                    [
                        Cell(picture.picture, clean.words, clean.right, mask=picture.mask),
                        Cell(_pixels(hit["perturbation"])),
                        Cell(_pixels(hit["image"]), broken.words, broken.right),
                        before[k][0],
                        after[k][0],
                    ]
                )
        columns = ["Image", "Perturbation", "Attacked image", "Map", "Map under attack"]
        count = len(next(iter(entries.values())))
        sections = [(name, count) for name in entries]
        options: dict[str, Any] = {"title": self.title, "colours": self.colours}
        return grid(body, columns=columns, sections=sections, **options)

    def _shown(self, own: Sequence[Entry]) -> Shown:
        style: Style = {None: "map", "grey": "grey overlay", "image": "overlay"}[self.over]  # type: ignore[assignment]
        x = torch.stack([_tensor(_pixels(e["image"])) for e in own])
        masks = None
        if any(e.get("mask") for e in own):
            side = x.shape[-2:]
            masks = torch.stack(
                [
                    torch.from_numpy(_pixels(e["mask"])[..., 0] > 127)
                    if e.get("mask")
                    else torch.zeros(side, dtype=torch.bool)
                    for e in own
                ]
            )
        labels = [str(e["label"]) for e in own]
        return Shown(x, labels=labels, masks=masks, style=style, colours=self.colours)

    def _notes(self, seen: Seen, entries: Mapping[str, Sequence[Entry]]) -> list[str]:
        first = next(iter(entries.values()))
        others = {str(e["explained"]) for e in first if e["explained"] != e["label"]}
        told = "The word under each map is what the model says"
        told += f"; maps speak of {'the prediction' if others else 'the label'}."
        if self.every_seed:
            return [told]
        seeds = self._seeds(seen)
        if len(set(seeds.values())) == 1:
            return [f"{told} The models are those of seed {next(iter(seeds.values()))}."]
        each = ", ".join(f"{self.name(run)} {seed}" for run, seed in seeds.items())
        return [f"{told} The models are those of seed: {each}."]

    def _seeds(self, seen: Seen) -> dict[str, str]:
        """Return of each run the seed whose model is shown."""
        about, found = seen.results.about.get(self.evaluation, {}), {}
        for run in self.shown(seen.results.study):
            of_run = about.get(run) or {}
            seed = next(iter(of_run), "") if self.seed is None else str(self.seed)
            if seed in of_run:
                found[run] = seed
        return found

    def _alt(self, entries: Mapping[str, Sequence[Entry]]) -> str:
        count = len(next(iter(entries.values())))
        told = []
        for name, own in entries.items():
            right = sum(bool(e["correct"]) for e in own)
            told.append(f"{name} classifies {right} of {count} correctly")
        methods = ", ".join(self._methods(entries))
        return f"{self.title}: {count} images with their {methods} maps; {'; '.join(told)}."


def _of(pictures: Sequence[Entry], identity: Any) -> Entry | None:
    return next((e for e in pictures if e["id"] == identity), None)


def _said(entry: Entry) -> Said:
    return Said(str(entry["prediction"]), bool(entry["correct"]))


def _pixels(text: str) -> NDArray[np.uint8]:
    """Return a PNG file in base64 as pixels (H, W, 1) or (H, W, 3)."""
    with Pillow.open(io.BytesIO(base64.b64decode(text))) as file:
        pixels = np.array(file, dtype=np.uint8)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _tensor(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def _heat(own: Sequence[Entry], method: str) -> Tensor:
    """Return the maps (N, H, W) in [0, 1]."""
    return torch.stack([_tensor(_pixels(e["maps"][method]))[0] for e in own])
