"""JPEG files as a hospital has them, and torch's own way from them to batches."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
WIDTH, HEIGHT = 600, 450  # of HAM10000's own files
QUALITY = 95


def write_files(folder: Path, data: str | None, count: int, seed: int, quick: bool) -> list[Path]:
    """Write `count` JPEG files of the size of HAM10000's, of its images or the phantom's.

    Images that are smaller, as the reduced ones are, are enlarged.
    """
    if data is None:
        dataset = open_data(f"phantom:images={count},size={64 if quick else 450},seed={seed}")
    else:
        dataset = open_data(data)
    if len(dataset) < count:
        raise UserError(f"--data {data}: has {len(dataset)} images; {count} are needed")
    lot = np.array([derive(seed, "image", int(i)) for i in dataset.ids])
    size = (120, 90) if quick else (WIDTH, HEIGHT)
    files = []
    for number, row in enumerate(np.sort(np.argsort(lot)[:count]).tolist()):
        pixels = dataset.reader.image(str(dataset.table.path[row]))
        image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
        files.append(folder / "ab"[number % 2] / f"{number:05d}.jpg")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        image.save(files[-1], quality=QUALITY)
    return sorted(files)


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
