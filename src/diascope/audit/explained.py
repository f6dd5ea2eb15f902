"""Image files explained: maps, overlays and raw attributions in files, and what measures say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from diascope import __version__, hardware
from diascope.attacks.saving import write_png
from diascope.audit.imagefiles import (
    image_id,
    logits_of,
    make_room,
    prepared,
    reader_of,
    shown,
    unique_names,
    veiled,
)
from diascope.audit.mapmeasures import MapMeasures
from diascope.audit.results import plain
from diascope.audit.subject import Subject
from diascope.data import Preprocess
from diascope.errors import UserError
from diascope.explain import Explainer, explain_all, rectify, render
from diascope.explain.base import need_of
from diascope.explain.colours import DEFAULT, colourise
from diascope.explain.overlays import enlarged, outlined, overlay
from diascope.files import replacing, write_text
from diascope.models import heads
from diascope.registry import to_settings

SCHEMA = "diascope-explain-1"
MAPS, OVERLAYS, RAW, RESULTS = "maps", "overlays", "raw", "results.json"
AT_ONCE = 32
SEEN = 320  # the least side of an overlay in pixels

Row = dict[str, Any]
Progress = Callable[[int, int], None]


@dataclass
class Explained:
    """What became of the images: a row each, and what is needed to draw them.

    images: (N, C, H, W) uint8 as the models saw them; masks: (N, H, W) bool, or None; heats: of
    each model and method the rendered maps (N, H, W) uint8, 255 for the most evidence.
    """

    rows: list[Row]
    images: Tensor
    masks: Tensor | None
    heats: dict[str, dict[str, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class ExplanationOfFiles:
    """Explanations of images by one or more models, called with their files.

    methods: explainers by name. target: the class that is explained, None for what each model
    makes of each image. colours, over: of the pictures, and what overlays lie on. The random
    numbers of an image belong to `seed` and its pixels. Into `out` go `maps/NAME-METHOD.png`
    (rendered), `overlays/NAME-METHOD.png` (over the image, with the outline of its mask),
    `raw/NAME-METHOD.npy` (float32, signed, (C or 1, H, W)), of several models in a folder each,
    and `results.json`, which is brought up to date after every batch.
    """

    subjects: Sequence[Subject]
    methods: Mapping[str, Explainer]
    out: Path
    target: int | None = None
    seed: int = 0
    colours: str = DEFAULT
    over: Literal["grey", "image"] = "grey"
    measures: MapMeasures = field(default_factory=MapMeasures)

    def __call__(
        self,
        files: Sequence[str],
        masks: Sequence[str | None] = (),
        command: str = "",
        progress: Progress | None = None,
    ) -> Explained:
        """Explain the images; raises `UserError` for unreadable ones and a folder that is taken.

        masks: the file of each image's mask, None for an image without one; empty for no masks.
        """
        levels = prepared(files, self.subjects[0])
        regions = prepared_masks(files, masks, self.subjects[0])
        make_room(self.out)
        told = shown(files)
        told_masks = shown([mask or "" for mask in masks]) or [""] * len(files)
        command = veiled(command, [*files, *(mask for mask in masks if mask)])
        names, found = unique_names(told), Explained([], levels, regions)
        heats: dict[tuple[str, str], list[Tensor]] = {}
        measured = "faithfulness" in self.measures.families  # then it takes the longer part
        total = len(files) * len(self.subjects) * len(self.methods) * (1 + measured)
        tick = _counter(total, progress)
        for start in range(0, len(files), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            inside = None if regions is None else regions[part]
            rows: list[Row] = [
                {"image": file, "name": name, "mask": mask or None, "models": {}}
                for file, name, mask in zip(told[part], names[part], told_masks[part], strict=True)
            ]
            for subject, own in self._batch(levels[part], inside, rows, tick):
                for method, heat in own.items():
                    heats.setdefault((subject, method), []).append(heat)
            found.rows += rows
            self._write_results(command, found.rows, len(files))
        for (subject, method), parts in heats.items():
            found.heats.setdefault(subject, {})[method] = torch.cat(parts)
        return found

    def _batch(
        self, levels: Tensor, inside: Tensor | None, rows: list[Row], tick: Callable[[int], None]
    ) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Explain a batch of prepared images; yield each model's rendered maps, by method."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        x = levels.float().div(255).to(device)
        inside = None if inside is None else inside.to(device)
        ids = torch.tensor([image_id(image) for image in levels]).to(device)
        reference: dict[str, Tensor] = {}
        for subject in self.subjects:
            model = subject.model.to(device).to(memory_format=torch.channels_last)
            logits = logits_of(subject, x)
            y = heads.predictions(logits)
            y = y if self.target is None else torch.full_like(y, self.target)
            counted = {name: _Counted(method, tick) for name, method in self.methods.items()}
            seeded = torch.Generator().manual_seed(self.seed)
            found = explain_all({"": model}, counted, x, y, generator=seeded, ids=ids)[""]
            shown, numbers = {}, {}
            for name, raw in found.items():
                method = self.methods[name]
                heat = rectify(raw, method.rectification)
                numbers[name] = self.measures(
                    model, method, x, y, heat, inside,
                    raw=raw, other=reference.get(name), seed=self.seed, ids=ids,
                )  # fmt: skip
                reference.setdefault(name, heat)
                if "faithfulness" in self.measures.families:
                    tick(len(x))
                shown[name] = render(raw, method.rectification)
            self._describe(subject, rows, logits, y, numbers)
            for name, raw in found.items():
                self._write(subject, name, rows, x, inside, raw, shown[name])
            yield subject.name, {n: (h * 255).round().byte().cpu() for n, h in shown.items()}

    def _describe(
        self,
        subject: Subject,
        rows: list[Row],
        logits: Tensor,
        y: Tensor,
        numbers: Mapping[str, Sequence[Row]],
    ) -> None:
        """Add to each row what the model says, and the measures and files of its maps."""
        classes = subject.card["classes"]
        guess, p = heads.predictions(logits).tolist(), heads.probabilities(logits).tolist()
        for i, row in enumerate(rows):
            row["models"][subject.name] = {
                "prediction": classes[guess[i]],
                "probability": p[i][guess[i]],
                "probabilities": dict(zip(classes, p[i], strict=True)),
                "explained": classes[int(y[i])],
                "maps": {
                    method: {
                        "map": str(self._place(MAPS, subject, row, method, ".png")),
                        "overlay": str(self._place(OVERLAYS, subject, row, method, ".png")),
                        "raw": str(self._place(RAW, subject, row, method, ".npy")),
                        **of_images[i],
                    }
                    for method, of_images in numbers.items()
                },
            }

    def _write(
        self,
        subject: Subject,
        method: str,
        rows: Sequence[Row],
        x: Tensor,
        inside: Tensor | None,
        raw: Tensor,
        heat: Tensor,
    ) -> None:
        """Write the files of one method's maps."""
        maps = colourise(heat, self.colours)
        laid = enlarged(overlay(x, heat, self.colours, grey=self.over == "grey"), SEEN)
        laid = laid if inside is None else outlined(laid, enlarged(inside, SEEN))
        for folder, pictures in ((MAPS, maps), (OVERLAYS, laid)):
            for row, pixels in zip(rows, pictures.permute(0, 2, 3, 1).cpu().numpy(), strict=True):
                write_png(self.out / self._place(folder, subject, row, method, ".png"), pixels)
        for row, values in zip(rows, raw.float().cpu().numpy(), strict=True):
            place = self._place(RAW, subject, row, method, ".npy")
            with replacing(self.out / place) as temporary:
                np.save(temporary, values, allow_pickle=False)

    def _place(self, folder: str, subject: Subject, row: Row, method: str, suffix: str) -> Path:
        """Return where a file goes, relative to `out`."""
        own = Path(folder) / subject.name if len(self.subjects) > 1 else Path(folder)
        return own / f"{row['name']}-{method}{suffix}"

    def _write_results(self, command: str, rows: Sequence[Row], count: int) -> None:
        card = self.subjects[0].card
        content = {
            "schema": SCHEMA,
            "version": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command,
            "versions": {"diascope": __version__, "torch": torch.__version__},
            "hardware": hardware.describe(),
            "seed": self.seed,
            "complete": len(rows) == count,
            "models": [
                {"name": subject.name, "architecture": subject.architecture}
                for subject in self.subjects
            ],
            **{key: card[key] for key in ("classes", "size", "preprocess")},
            "methods": {
                name: {**to_settings(method), "rectification": method.rectification}
                for name, method in self.methods.items()
            },
            "measures": self.measures.described(),
            "images": rows,
        }
        text = json.dumps(plain(content), indent=1, allow_nan=False)
        write_text(self.out / RESULTS, text + "\n")


class _Counted:
    """An explainer that says how many images it has explained."""

    def __init__(self, method: Explainer, tick: Callable[[int], None]) -> None:
        self.method, self.tick = method, tick
        self.rectification = method.rectification
        self.precision = getattr(method, "precision", "auto")

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor | int,
        *,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        raw = self.method(model, x, target, generator=generator, ids=ids)
        self.tick(len(x))
        return raw


def _counter(total: int, progress: Progress | None) -> Callable[[int], None]:
    done = 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    return tick


def fitting(
    methods: Mapping[str, Explainer], subjects: Sequence[Subject], file: str
) -> tuple[dict[str, Explainer], dict[str, str]]:
    """Return the methods that explain every model, and why each of the others does not.

    Those that need a kind of model (`need_of`) are tried on one image.
    """
    x = prepared([file], subjects[0]).float().div(255)
    left_out: dict[str, str] = {}
    for name, method in methods.items():
        for subject in subjects if need_of(method) != "any" else ():
            device = next((p.device for p in subject.model.parameters()), x.device)
            try:
                method(subject.model, x.to(device), 0, generator=torch.Generator())
            except UserError as error:
                left_out.setdefault(name, str(error))
    return {name: m for name, m in methods.items() if name not in left_out}, left_out


def prepared_masks(
    files: Sequence[str], masks: Sequence[str | None], subject: Subject
) -> Tensor | None:
    """Return the masks (N, H, W) bool as the model sees the images; None where none is given.

    An image without a mask gets an empty one. Raises `UserError` for another number of masks than
    of images, and for a mask of another size than its image.
    """
    if not any(masks):
        return None
    if len(masks) != len(files):
        raise UserError(
            f"--mask: {len(masks)} masks for {len(files)} images; give one for each, in their "
            "order, and '' for an image without one"
        )
    preprocess = Preprocess.model_validate(subject.card["preprocess"])
    size, reader, regions = subject.card["size"], reader_of(subject), []
    for file, mask in zip(files, masks, strict=True):
        image = reader.image(file)
        region = np.zeros(image.shape[:2], np.bool_)
        if mask:
            found = reader.mask(mask)
            if found.shape != region.shape:
                have, want = (f"{s[1]}x{s[0]}" for s in (found.shape, region.shape))
                told, name = shown([mask, file])
                raise UserError(f"{told}: is {have} pixels, and its image {name} is {want}")
            region = found
        regions.append(preprocess.mask(region, size, preprocess.window(image)))
    return torch.from_numpy(np.stack(regions))
