"""Adversarial images on disk, so that reading them back still fools the model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from diascope.attacks.base import check_images, verdict
from diascope.attacks.threat import Threat
from diascope.data.readers import FileReader, brief
from diascope.errors import UserError
from diascope.files import replacing

Bits = Literal[8, "float"]
SUFFIX: dict[Bits, str] = {8: ".png", "float": ".npy"}


class RoundedAwayWarning(UserWarning):
    """At 8 bits nothing is left of some perturbations."""


def save_images(
    folder: Path | str, x_adv: Tensor, x: Tensor, names: Sequence[str], *, bits: Bits = 8
) -> Tensor:
    """Write each image to a file of its own; return the images as `read_images` gives them back.

    x_adv, x: adversarial images and their originals, (B, C, H, W) in [0, 1]. names: of the files,
    without suffix, one an image. What is returned, on the device of `x_adv`, is what has to be
    judged: at 8 bits `broken_before_saving` names the images that no longer fool the model.

    bits=8: `NAME.png`, grey (C = 1) or colour (C = 3), rounded towards the original with
    `Threat.round`, which never leaves the ball, and without loss from there on. The originals
    must be at 8 bits. Every channel of every pixel loses up to one grey level of its change, and
    a change below one grey level (1/255 = 0.0039) is lost: no L-inf eps below it exists in such
    files (below half of it, 1/510, in none that are rounded to the nearest level either). Raises
    a `RoundedAwayWarning` where a whole perturbation is lost so.

    bits="float": `NAME.npy`, (C, H, W), exactly as they are in memory, float32 or float64 (lower
    precisions as float32, which holds their every value). There is no 16-bit PNG: Pillow writes
    none in colour, and readers of images scale what they read to 8 bits.

    Raises `ValueError` for images that do not fit each other, the names or the format.
    """
    check_images(x_adv)
    _check(x_adv, x, names, bits)
    if not len(x_adv):
        return x_adv.clone()
    if bits == "float":
        kept = x_adv.detach().cpu()
        kept = kept if kept.dtype == torch.float64 else kept.float()
        for name, image in zip(names, kept, strict=True):
            with replacing(Path(folder) / f"{name}.npy") as temporary:
                np.save(temporary, image.numpy(), allow_pickle=False)
        return kept.to(x_adv.device)
    levels = _levels(x_adv.detach(), x.detach(), names)
    for name, picture in zip(names, levels, strict=True):
        write_png(Path(folder) / f"{name}.png", picture)
    return _as_images(levels).to(x_adv.device)


def read_images(
    folder: Path | str, names: Sequence[str] | None = None
) -> tuple[tuple[str, ...], Tensor]:
    """Return the names, and the images (B, C, H, W), that `save_images` wrote into a folder.

    All of them, sorted by name, or those asked for in their order. Raises `UserError` for a
    folder without any, a file that is missing or damaged, and images of several sizes or kinds.
    """
    folder = Path(folder)
    found = [f for f in folder.glob("[!.]*") if f.suffix in SUFFIX.values()]
    files = {file.stem: file for file in found}
    if not files:
        raise UserError(f"{folder}: no images here; expected .png or .npy files")
    if len({file.suffix for file in found}) > 1:
        raise UserError(f"{folder}: holds both .png and .npy files; keep them apart")
    chosen = tuple(sorted(files)) if names is None else tuple(names)
    for name in chosen:
        if name not in files:
            raise UserError(f"{folder}: no image '{name}' here")
    images = [_read(files[name]) for name in chosen]
    for name, image in zip(chosen, images, strict=True):
        if image.shape != images[0].shape or image.dtype != images[0].dtype:
            raise UserError(
                f"{files[name]}: {_kind(image)}, while {files[chosen[0]].name} is "
                f"{_kind(images[0])}; images of one size and kind are read at once"
            )
    return chosen, torch.cat(images) if images else torch.empty(0)


def broken_before_saving(
    model: nn.Module,
    x_adv: Tensor,
    saved: Tensor,
    y: Tensor,
    names: Sequence[str],
    *,
    targeted: bool = False,
) -> tuple[str, ...]:
    """Return the names of the images that fooled the model, and as they were saved do not.

    x_adv: what was saved, `saved`: what `save_images` returned, both (B, C, H, W); y: the labels,
    or with `targeted` the classes wanted. Judged by `verdict`, two forward passes.
    """
    before = verdict(model, x_adv, y, targeted=targeted)
    after = verdict(model, saved, y, targeted=targeted)
    lost = (before & ~after).tolist()
    return tuple(name for name, gone in zip(names, lost, strict=True) if gone)


def write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture (H, W, 1) or (H, W, 3) as a PNG file, complete or not at all."""
    pixels = picture[..., 0] if picture.shape[-1] == 1 else picture
    with replacing(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, "PNG")


def _check(x_adv: Tensor, x: Tensor, names: Sequence[str], bits: Bits) -> None:
    if bits not in SUFFIX:
        raise ValueError(f"bits={bits!r}: 8 or 'float'")
    if x_adv.shape != x.shape:
        raise ValueError(f"images {tuple(x_adv.shape)} and originals {tuple(x.shape)} differ")
    if bits == 8 and x.shape[1] not in (1, 3):
        raise ValueError(f"images of {x.shape[1]} channels do not fit into PNG; use bits='float'")
    if len(names) != len(x) or len({name.casefold() for name in names}) < len(names):
        raise ValueError(f"{len(names)} names for {len(x)} images: one each, none twice")
    for name in names:
        if not name or name.startswith(".") or any(c in name for c in "/\\!\0"):
            raise ValueError(f"'{name}': not a plain file name")


def _levels(x_adv: Tensor, x: Tensor, names: Sequence[str]) -> NDArray[np.uint8]:
    """Return the images at 8 bits, (B, H, W, C); warn where one is its original again."""
    rounded = Threat("linf", 1.0).round(x_adv, x)
    grey, original = ((v * 255).round().to(torch.uint8) for v in (rounded, x))
    moved, left = (x_adv != x).flatten(1).any(1), (grey != original).flatten(1).any(1)
    gone = [name for name, lost in zip(names, (moved & ~left).tolist(), strict=True) if lost]
    if gone:
        warnings.warn(
            f"{len(gone)} of {len(names)} images are their originals again at 8 bits, every change "
            f"being below one grey level (1/255): {', '.join(gone)}; bits='float' keeps them",
            RoundedAwayWarning,
            stacklevel=3,
        )
    return grey.permute(0, 2, 3, 1).cpu().numpy()


def _as_images(levels: NDArray[np.uint8]) -> Tensor:
    """Return 8-bit pixels (B, H, W, C) as images (B, C, H, W), as `Pixels.x` does."""
    return torch.from_numpy(levels.copy()).permute(0, 3, 1, 2).to(torch.float32).div_(255)


def _read(file: Path) -> Tensor:
    """Return the image of one file, (1, C, H, W)."""
    if file.suffix == ".png":
        return _as_images(FileReader(file.parent).image(file.name)[None])
    try:
        values = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{file}: cannot be read: {brief(error)}") from None
    if values.ndim != 3 or values.dtype not in (np.float32, np.float64):
        raise UserError(f"{file}: holds {values.dtype} {values.shape}, not a float image (C, H, W)")
    return torch.from_numpy(values)[None]


def _kind(image: Tensor) -> str:
    channels, height, width = image.shape[1:]
    return f"{width}x{height} with {channels} channels, {str(image.dtype).removeprefix('torch.')}"
