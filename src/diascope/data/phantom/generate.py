"""The phantom: dermatoscopy-like images of which everything is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diascope.data.phantom.dice import Dice
from diascope.data.phantom.hair import draw_hair
from diascope.data.phantom.lesion import draw_lesion
from diascope.data.phantom.marks import draw_ruler, draw_sticker
from diascope.data.phantom.optics import (
    HOSPITALS,
    has_tube,
    hospital_value,
    inside_tube,
    photograph,
)
from diascope.data.phantom.shape import place_lesion
from diascope.data.phantom.skin import draw_skin
from diascope.data.phantom.traits import CLASSES, draw_labels, draw_traits
from diascope.errors import UserError, nearest
from diascope.randomness import Noise, derive

BLOCK = 32  # images drawn together, always the same ones, so that no rounding depends on `images`
VERSION = 1  # of what is drawn; counts up with every change that alters a pixel


@dataclass(frozen=True)
class PhantomSettings:
    """What to generate.

    `hospital` is "a", "b" or "both" (by turns of two images). `agreement`, in [0, 1], plants a
    sticker in a corner that tells the class with that probability, and another class, drawn
    uniformly, otherwise; None draws no sticker. `agreement_b` is that of hospital b where it
    differs. `difficulty`, from 0, is how far classes overlap. `second_views` is the share of
    lesions of which there are two images.
    """

    images: int = 2000
    size: int = 64
    seed: int = 0
    hospital: str = "a"
    agreement: float | None = None
    agreement_b: float | None = None
    difficulty: float = 0.3
    second_views: float = 0.15

    def __post_init__(self) -> None:
        if self.images < 1:
            raise UserError(f"phantom: images={self.images}: give 1 or more")
        if not 16 <= self.size <= 1024:
            raise UserError(f"phantom: size={self.size}: give 16 to 1024 pixels")
        if self.hospital not in (*HOSPITALS, "both"):
            known = nearest(str(self.hospital), (*HOSPITALS, "both"))
            raise UserError(f"phantom: unknown hospital '{self.hospital}': {known}")
        for name in ("agreement", "agreement_b", "second_views"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"phantom: {name}={value}: give a number from 0 to 1")
        if self.difficulty < 0:
            raise UserError(f"phantom: difficulty={self.difficulty}: give 0 or more")


@dataclass(frozen=True)
class Phantom:
    """Generated images and the truth about them.

    `images` (N, H, W, 3) uint8; `labels` (N,) int64, indices into `classes`; `masks` of the
    lesions, `hairs` and `shortcut` (the sticker), (N, H, W) bool; `hospital` (N,) of "a" or "b";
    `lesion` (N,) int64, equal for two views of one lesion of one hospital.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    masks: NDArray[np.bool_]
    hairs: NDArray[np.bool_]
    shortcut: NDArray[np.bool_]
    hospital: NDArray[np.str_]
    lesion: NDArray[np.int64]
    classes: tuple[str, ...] = CLASSES

    def __len__(self) -> int:
        return len(self.labels)


_ARRAYS = [field.name for field in fields(Phantom) if field.name != "classes"]


def generate(
    images: int = 2000,
    size: int = 64,
    seed: int = 0,
    hospital: str = "a",
    agreement: float | None = None,
    agreement_b: float | None = None,
    difficulty: float = PhantomSettings.difficulty,
    second_views: float = PhantomSettings.second_views,
) -> Phantom:
    """Generate `images` pictures of `size` x `size`; see `PhantomSettings`.

    An image depends on the settings and its index alone, not on how many are generated; with
    another `size` it is the same scene, with other sensor noise. Raises `UserError`.
    """
    settings = PhantomSettings(
        images, size, seed, hospital, agreement, agreement_b, difficulty, second_views
    )
    return _joined(list(blocks(settings)))


def blocks(settings: PhantomSettings) -> Iterator[Phantom]:
    """Yield the images of `settings` in their order, `BLOCK` at a time."""
    for number in range(-(-settings.images // BLOCK)):
        block = draw_block(settings, number)
        left = settings.images - number * BLOCK
        yield block if left >= BLOCK else _rows(block, slice(0, left))


@torch.inference_mode()
def draw_block(
    settings: PhantomSettings, number: int, without: frozenset[str] = frozenset()
) -> Phantom:
    """Draw images `number` * BLOCK onwards; `without` leaves out "lesion", "hair" or "camera"."""
    size = settings.size
    index = torch.arange(number * BLOCK, (number + 1) * BLOCK)
    which, lesion_index = lineage(settings, index)
    view = Dice(Noise(derive(settings.seed, "phantom", "view"), 2 * index + which))
    lesion = _lesion_dice(settings, which, lesion_index)
    traits = draw_traits(lesion, settings.difficulty)
    shape = place_lesion(lesion, view, traits, size)
    skin = draw_skin(lesion, view, size)
    bare = "lesion" in without
    light = skin.colour() if bare else draw_lesion(skin, lesion, traits, shape, size)
    agreement, tube = _agreement(settings)[which], has_tube(view, which)
    light, shortcut = draw_sticker(light, view, traits.label, agreement, shape.mask, tube)
    light = draw_ruler(light, view, hospital_value(which, "ruler"))
    drawn, hairs = draw_hair(light, view)
    light = light if "hair" in without else drawn
    camera = "camera" not in without
    picture = photograph(light, view, which) if camera else light
    seen = inside_tube(view, which, size) > (0.5 if camera else -1)
    return Phantom(
        images=(picture.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy(),
        labels=traits.label.numpy(),
        masks=(shape.mask & seen).numpy(),
        hairs=(hairs & seen).numpy(),
        shortcut=(shortcut & seen).numpy(),
        hospital=np.array(list(HOSPITALS))[which.numpy()],
        lesion=lesion_index.numpy(),
    )


def lineage(settings: PhantomSettings, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the hospital (0 for a, 1 for b) and the lesion's number of each image `index`.

    Images go in pairs of one hospital; a lesion bears the number of its first image. A share s
    of the lesions has two images where a share 2 s / (1 + s) of the pairs shows one lesion.
    """
    pair = index // 2
    turns = {"a": 0 * pair, "b": 0 * pair + 1, "both": pair % 2}
    which = turns[settings.hospital]
    dice = Dice(Noise(derive(settings.seed, "phantom", "pair"), 2 * pair + which))
    share = settings.second_views
    twins = dice.happens("twins", 2 * share / (1 + share))
    return which, torch.where(twins, 2 * pair, index)


def image_labels(
    settings: PhantomSettings, which: torch.Tensor, lesion_index: torch.Tensor
) -> torch.Tensor:
    """Return the class of each image (N,) from what `lineage` returns."""
    return draw_labels(_lesion_dice(settings, which, lesion_index))


def _lesion_dice(
    settings: PhantomSettings, which: torch.Tensor, lesion_index: torch.Tensor
) -> Dice:
    return Dice(Noise(derive(settings.seed, "phantom", "lesion"), 2 * lesion_index + which))


def _agreement(settings: PhantomSettings) -> torch.Tensor:
    a = settings.agreement
    b = a if settings.agreement_b is None else settings.agreement_b
    return torch.tensor([float("nan") if v is None else float(v) for v in (a, b)])


def _rows(block: Phantom, rows: slice) -> Phantom:
    arrays: dict[str, Any] = {name: getattr(block, name)[rows] for name in _ARRAYS}
    return replace(block, **arrays)


def _joined(parts: list[Phantom]) -> Phantom:
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS
    }
    return replace(parts[0], **arrays)
