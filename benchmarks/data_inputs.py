"""Image files as a hospital has them, and torch's own way from them to batches."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from diascope.data import open_data
from diascope.errors import UserError
from diascope.randomness import derive

# Deprecated since torchvision 0.29, in favour of torchcodec, a package of its own.
warnings.filterwarnings("ignore", "The image decoding and encoding", DeprecationWarning)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WEIGHED = 32  # images by which the noise is found
NEAR = 0.05  # how far from the weight asked for files may be on average


@dataclass(frozen=True)
class Kind:
    """Files as a dataset has them: of `size` (width, height) and, on average, of `kilobytes`."""

    size: tuple[int, int]
    suffix: str = ".jpg"
    mode: str = "RGB"
    kilobytes: float | None = None
    quality: int = 95  # of JPEG

    def shrunk(self) -> Kind:
        """Return the same kind a fifth as wide and high, for smoke tests."""
        weight = None if self.kilobytes is None else self.kilobytes / 25
        return replace(self, size=(self.size[0] // 5, self.size[1] // 5), kilobytes=weight)


# Of the official downloads: 10,015 files of HAM10000 in 2.7 GB, 112,120 of ChestX-ray14 in 42 GB.
KINDS = {
    "reduced": Kind((600, 450)),
    "ham10000": Kind((600, 450), kilobytes=270, quality=98),
    "chestxray14": Kind((1024, 1024), ".png", "L", kilobytes=375),
}


def write_files(
    folder: Path, data: str | None, count: int, seed: int, quick: bool, kind: str = "reduced"
) -> list[Path]:
    """Write `count` files of a kind, of the images of `data` or the phantom's.

    Images that are smaller, as the reduced ones are, are enlarged. They are then too light, as
    nothing fine is in them: noise is added until some of them, evenly spread, weigh on average
    what the kind says. Raises `UserError` where they are heavier without.
    """
    if data is None:
        dataset = open_data(f"phantom:images={count},size={64 if quick else 450},seed={seed}")
    else:
        dataset = open_data(data)
    if len(dataset) < count:
        raise UserError(f"--data {data}: has {len(dataset)} images; {count} are needed")
    lot = np.array([derive(seed, "image", int(i)) for i in dataset.ids])
    rows, what = np.sort(np.argsort(lot)[:count]).tolist(), KINDS[kind]
    what = what.shrunk() if quick else what

    def enlarged(row: int) -> Image.Image:
        pixels = dataset.reader.image(str(dataset.table.path[row]))
        found = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        return found.convert(what.mode).resize(what.size, Image.Resampling.BICUBIC)

    deviation = 0.0
    if what.kilobytes is not None:
        some = rows[:: -(-count // WEIGHED)]
        deviation = _deviation([enlarged(row) for row in some], what, 1000 * what.kilobytes)
    files = []
    for number, row in enumerate(rows):
        files.append(folder / "ab"[number % 2] / f"{number:05d}{what.suffix}")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        files[-1].write_bytes(_encoded(_noised(enlarged(row), deviation, number), what))
    return sorted(files)


def _deviation(images: Sequence[Image.Image], what: Kind, weight: float) -> float:
    """Return the noise, in grey levels, with which files have this weight in bytes."""

    def weighed(deviation: float) -> float:
        noised = (_noised(image, deviation, number) for number, image in enumerate(images))
        return sum(len(_encoded(image, what)) for image in noised) / len(images)

    low, high = 0.0, 32.0
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (low, middle) if weighed(middle) > weight else (middle, high)
    if abs(found := weighed(low) - weight) > NEAR * weight:
        raise UserError(f"files of these images weigh {weight + found:.0f} bytes, not {weight:.0f}")
    return low


def _noised(image: Image.Image, deviation: float, seed: int) -> Image.Image:
    if not deviation:
        return image
    pixels = np.asarray(image, np.float32)
    noise = np.random.default_rng(seed).standard_normal(pixels.shape, np.float32)
    return Image.fromarray((pixels + deviation * noise).round().clip(0, 255).astype(np.uint8))


def _encoded(image: Image.Image, what: Kind) -> bytes:
    into = io.BytesIO()
    if what.suffix == ".jpg":
        image.save(into, "JPEG", quality=what.quality)
    else:
        image.save(into, "PNG")
    return into.getvalue()


@dataclass(frozen=True)
class Files:
    """A dataset of torch's kind: reads file k with `read`, and transforms it."""

    files: Sequence[Path]
    read: Callable[[Path], Any]
    transform: Callable[[Any], Any]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.transform(self.read(self.files[row])), row % 2


def by_pillow(file: Path) -> Image.Image:
    """Decode as torchvision's datasets do."""
    with file.open("rb") as content:
        return Image.open(content).convert("RGB")


def drafted(size: int) -> Callable[[Path], Image.Image]:
    """Return a reader by Pillow's draft mode: decoded at an eighth, quarter or half of the size,
    whatever is the least that is as large as `size`."""

    def read(file: Path) -> Image.Image:
        with Image.open(io.BytesIO(file.read_bytes())) as image:
            scale = size / min(image.size)
            image.draft("RGB", (int(image.width * scale), int(image.height * scale)))
            return image.convert("RGB")

    return read


def by_torchvision(file: Path) -> Tensor:
    """Decode into a tensor (3, H, W), uint8."""
    found: Tensor = torchvision.io.decode_image(str(file), torchvision.io.ImageReadMode.RGB)
    return found


def transforms(size: int, kind: str, *, full: bool) -> Any:
    """Return torchvision's transforms: resize, centre crop, flips, to float, normalise.

    kind: "pillow" or "tensor", what they are given. `full`: as much augmentation as ours: a
    rotation of up to 50 degrees, a shear of 10, colours.
    """
    bilinear = v2.InterpolationMode.BILINEAR
    augmented = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    if full:
        augmented.append(v2.RandomAffine(50, shear=10, interpolation=bilinear))
        augmented.append(v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2))
    first = [v2.Resize(size, antialias=True), v2.CenterCrop(size)]
    image = [v2.ToImage()] if kind == "pillow" else []
    last = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    return v2.Compose([*first, *augmented, *image, *last])


def loader(dataset: Files, batch_size: int, workers: int) -> DataLoader[tuple[Tensor, int]]:
    """Return torch's DataLoader, shuffled; its workers live on from epoch to epoch."""
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def each(read: Callable[[Path], object], files: Sequence[Path], threads: int) -> None:
    """Call `read` of every file, in so many threads."""
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(read, files, chunksize=8):
            pass
