"""From an image of any size to the square at which a model works."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import SerializerFunctionWrapHandler, model_serializer

from diascope.data.circle import find_disc
from diascope.data.filters import Filters, filtered
from diascope.data.windows import Window, centre_square
from diascope.settings import Settings

Crop = Literal["centre-square", "none", "circle"]
Resize = Literal["bicubic", "bilinear", "lanczos", "area"]
_KERNELS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
}
_UNSAID: dict[str, Any] = {"resize": "bicubic", "filters": []}


class Preprocess(Settings):
    """How an image becomes a square: what is cut out, how it is resized, channels, filters.

    `crop`: "centre-square" cuts out the largest square about the centre (P1's centre 450x450
    of 600x450); "none" keeps everything and changes the aspect ratio; "circle" cuts out the
    bounding square of the lit disc of a fundus photograph (see `find_disc`), black where the disc
    reaches beyond the image, and the centre square of an image in which no disc is found.
    `resize`: the kernel, antialiased. `channels`: 3 repeats grey images, 1 turns colour into luma
    (ITU-R 601). `filters`: names or settings of filters (`diascope.data.filters`), applied in
    their order to the resized image.

    Plain values (`model_dump`) leave out `resize` and `filters` that change nothing, so that cards
    and caches of the time before them are equal to today's.
    """

    crop: Crop = "centre-square"
    channels: Literal[1, 3] = 3
    resize: Resize = "bicubic"
    filters: Filters = ()

    def window(self, image: NDArray[np.uint8]) -> Window:
        """Return what is kept of `image` (H, W, C), and with that of its regions."""
        disc = find_disc(image) if self.crop == "circle" else None
        return disc.window if disc is not None else self._of_shape(*image.shape[:2])

    @property
    def sees_the_image(self) -> bool:
        """Whether what is kept depends on the image's pixels, not on its shape alone."""
        return self.crop == "circle"

    def image(
        self, image: NDArray[np.uint8], size: int, window: Window | None = None
    ) -> NDArray[np.uint8]:
        """Return (size, size, channels) of `image` (H, W, 1 or 3).

        `window` is what `self.window(image)` returned, where it is known already.
        """
        square = self._resized((window or self.window(image)).cut(image), size)
        return np.broadcast_to(filtered(square, self.filters), (size, size, self.channels))

    def mask(
        self, mask: NDArray[np.bool_], size: int, window: Window | None = None
    ) -> NDArray[np.bool_]:
        """Return (size, size) of `mask` (H, W): true where at least half the area is.

        `window` is that of its image, which is needed where the preprocessing `sees_the_image`.
        """
        if window is None and self.sees_the_image:
            raise ValueError(f"crop '{self.crop}': a mask is cut by the window of its image")
        cut = (window or self._of_shape(*mask.shape)).cut(mask)
        pixels = Image.fromarray(cut.astype(np.uint8) * 255)
        return np.asarray(pixels.resize((size, size), Image.Resampling.BOX)) >= 128

    def _of_shape(self, height: int, width: int) -> Window:
        if self.crop == "none":
            return Window(0, 0, height, width)
        return centre_square(height, width)

    def _resized(self, image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
        """Return (size, size, 1 or channels) of what was cut out."""
        if image.shape == (size, size, self.channels):
            return image
        pixels = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        if self.channels == 1:
            pixels = pixels.convert("L")
        square = pixels.resize((size, size), _KERNELS[self.resize], reducing_gap=3.0)
        return np.asarray(square).reshape(size, size, -1)

    @model_serializer(mode="wrap")
    def _plain(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        return {k: v for k, v in content.items() if k not in _UNSAID or v != _UNSAID[k]}
