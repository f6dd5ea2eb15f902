"""The phantom as a dataset: images drawn when they are asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diascope.data.dataset import Dataset, ReadError
from diascope.data.phantom.generate import (
    BLOCK,
    VERSION,
    Phantom,
    PhantomSettings,
    draw_block,
    image_labels,
    lineage,
)
from diascope.data.phantom.optics import HOSPITALS
from diascope.data.phantom.traits import CLASSES

REGIONS = ("hair", "shortcut")  # beside the mask
KEPT_BYTES = 1 << 27
_KEPT: OrderedDict[tuple[PhantomSettings, int], Phantom] = OrderedDict()
_LOCK = threading.Lock()


@dataclass(frozen=True)
class PhantomReader:
    """Serves generated images by paths such as "a/000012"; keeps the last drawn.

    Regions are served by the same paths, the hairs and the sticker by "hair/a/000012" and
    "shortcut/a/000012" as well.
    """

    settings: PhantomSettings

    def image(self, path: str) -> NDArray[np.uint8]:
        """Return the image, (H, W, 3); raises `ReadError` where the phantom has none such."""
        block, row = self._find(path)
        pixels: NDArray[np.uint8] = block.images[row]
        return pixels

    def mask(self, path: str) -> NDArray[np.bool_]:
        """Return the pixels, (H, W), of the lesion, or of what the path begins with."""
        region, _, rest = path.partition("/")
        if region in REGIONS:
            return self.hair(rest) if region == "hair" else self.shortcut(rest)
        block, row = self._find(path)
        pixels: NDArray[np.bool_] = block.masks[row]
        return pixels

    def hair(self, path: str) -> NDArray[np.bool_]:
        """Return the hairs' pixels, (H, W)."""
        block, row = self._find(path)
        pixels: NDArray[np.bool_] = block.hairs[row]
        return pixels

    def shortcut(self, path: str) -> NDArray[np.bool_]:
        """Return the sticker's pixels, (H, W)."""
        block, row = self._find(path)
        pixels: NDArray[np.bool_] = block.shortcut[row]
        return pixels

    def stamp(self, path: str) -> str:
        """Return what the pixels of every path depend on."""
        return f"phantom {VERSION}: {self.settings}"

    def _find(self, path: str) -> tuple[Phantom, int]:
        hospital, _, digits = path.partition("/")
        number = int(digits) if digits.isascii() and digits.isdigit() else -1
        if not 0 <= number < self.settings.images or path != image_path(hospital, number):
            raise ReadError(path, f"the phantom has no such image among {self.settings.images}")
        block, row = _kept_block(self.settings, number // BLOCK), number % BLOCK
        if block.hospital[row] != hospital:
            raise ReadError(path, f"image {number} is of hospital {block.hospital[row]}")
        return block, row


def phantom_dataset(settings: PhantomSettings | None = None, **options: Any) -> Dataset:
    """Return the phantom of `settings`, or of `options` (fields of `PhantomSettings`).

    `group` is the lesion, `source` "hospital-a" or "hospital-b"; `hair` and `shortcut` are further
    regions (`load_region`). Nothing is drawn until an
    image is read. Raises `UserError` for an option out of range.
    """
    settings = settings or PhantomSettings(**options)
    index = torch.arange(settings.images)
    which, lesion = lineage(settings, index)
    letters = [list(HOSPITALS)[k] for k in which.tolist()]
    paths = [image_path(h, number) for h, number in zip(letters, index.tolist(), strict=True)]
    columns = {
        "path": paths,
        "label": [CLASSES[k] for k in image_labels(settings, which, lesion).tolist()],
        "group": [f"{h}/lesion-{n:06d}" for h, n in zip(letters, lesion.tolist(), strict=True)],
        "source": [f"hospital-{h}" for h in letters],
        "mask": paths,
        **{region: [f"{region}/{path}" for path in paths] for region in REGIONS},
    }
    name = "phantom" if settings.seed == 0 else f"phantom-seed{settings.seed}"  # other patients
    return Dataset.of(name, columns, CLASSES, PhantomReader(settings))


def image_path(hospital: str, number: int) -> str:
    """Return the path of image `number`, such as "a/000012"."""
    return f"{hospital}/{number:06d}"


def _kept_block(settings: PhantomSettings, number: int) -> Phantom:
    """Return a block from memory, or draw it; the blocks kept are bounded in bytes."""
    key = settings, number
    with _LOCK:
        if key not in _KEPT:
            _KEPT[key] = draw_block(settings, number)
            held = sum(block.images.nbytes * 2 for block in _KEPT.values())
            while held > KEPT_BYTES and len(_KEPT) > 1:
                held -= _KEPT.popitem(last=False)[1].images.nbytes * 2
        _KEPT.move_to_end(key)
        return _KEPT[key]
