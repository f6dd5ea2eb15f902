"""Pictures for the tests of data checks, drawn into memory."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.ndimage
from PIL import Image

from diascope.audit.datachecks.evidence import Evidence, sides_of
from diascope.audit.datachecks.looking import look
from diascope.data import Dataset


@dataclass(frozen=True, eq=False)
class InMemory:
    """A reader of arrays by their path."""

    images: Mapping[str, np.ndarray] = field(repr=False)

    def image(self, path):
        return self.images[path]

    def mask(self, path):
        raise NotImplementedError

    def stamp(self, path):
        return path


def texture(seed: int, side: int = 96, grey: bool = True, width: int | None = None) -> np.ndarray:
    """A smooth random picture with detail, (H, W, 1 or 3) uint8."""
    rng = np.random.default_rng([7, seed])
    shape = (side, width or side)
    layers = sum(
        2.0**k * scipy.ndimage.gaussian_filter(rng.normal(size=shape), s) * s
        for k, s in enumerate((1.0, 2.5, 7.0))
    )
    scaled = 128 + 40 * (layers - layers.mean()) / layers.std()
    image = np.clip(scaled, 0, 255).astype(np.uint8)[..., None]
    return image if grey else np.concatenate([image, image // 2, 255 - image], 2)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(image[..., 0]).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))[..., None]


def resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image[..., 0]).resize((width, height)))[..., None]


def cropped(image: np.ndarray, top: float, left: float, bottom: float, right: float) -> np.ndarray:
    """Cut these shares of the height and width away at each side."""
    h, w = image.shape[:2]
    return image[round(top * h) : round(h - bottom * h), round(left * w) : round(w - right * w)]


def brighter(image: np.ndarray, gain: float, gamma: float = 1.0) -> np.ndarray:
    return np.clip(255 * gain * (image / 255) ** gamma, 0, 255).astype(np.uint8)


def dataset_of(
    images: Sequence[np.ndarray], name: str = "pictures", **columns: Sequence[str]
) -> Dataset:
    """A dataset of pictures called 0, 1, ...; labels alternate unless given."""
    paths = [f"{name[0]}{k}.png" for k in range(len(images))]
    columns.setdefault("label", ["ab"[k % 2] for k in range(len(images))])
    reader = InMemory(dict(zip(paths, images, strict=True)))
    return Dataset.of(name, {"path": paths, **columns}, sorted(set(columns["label"])), reader)


def evidence_of(dataset: Dataset, *beside: Dataset, **changes) -> Evidence:
    looked = tuple(look(each, threads=1) for each in (dataset, *beside))
    return Evidence(looked[0], sides_of(dataset), looked[1:], **changes)
