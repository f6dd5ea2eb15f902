"""Saved too small."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diascope.evaluation.corruptions import CORRUPTIONS
from diascope.evaluation.corruptions.base import Corruption, Levels
from diascope.randomness import Noise


@CORRUPTIONS.register("jpeg")
@dataclass(frozen=True, kw_only=True)
class Jpeg(Corruption):
    """Save as JPEG and read back; levels: the quality, as libjpeg counts it (1 to 95).

    Through Pillow, at 8 bits, with colour at half the resolution as cameras and messengers do.
    The blocks are of 8 pixels of the model's image, whatever its size: harsher than the JPEG of
    a large photograph that is reduced afterwards.
    """

    levels: Levels = (80, 60, 40, 25, 12)

    def _apply(self, x: Tensor, level: float, noise: Noise) -> Tensor:
        pictures = (x * 255).round_().byte().permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, C)
        with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
            back = np.stack(list(pool.map(lambda p: _saved(p, round(level)), pictures)))
        return torch.from_numpy(back).to(x.device).permute(0, 3, 1, 2).float().div_(255)


def _saved(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Return a picture (H, W, 1 or 3) as a JPEG of it shows it."""
    file = io.BytesIO()
    image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
    image.save(file, "JPEG", quality=quality, subsampling=2)
    read = np.asarray(Image.open(file))
    return read[..., None] if read.ndim == 2 else read
