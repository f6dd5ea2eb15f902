"""What a lesion of each class is like: the signs in which the phantom writes the class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diascope.data.phantom.dice import Dice

CLASSES = ("nevus", "keratosis", "melanoma")

# asymmetry, border irregularity, colour variegation, mottled surface, sharpness of the border
TYPICAL = torch.tensor(
    [
        [0.12, 0.08, 0.08, 0.10, 0.20],
        [0.35, 0.35, 0.25, 0.90, 0.90],
        [0.85, 0.85, 0.90, 0.20, 0.45],
    ]
)


@dataclass(frozen=True)
class Traits:
    """The signs of a batch of lesions, each (B,) in [0, 1]; `label` is the class, int64."""

    label: Tensor
    asymmetry: Tensor
    border: Tensor
    colour: Tensor
    mottle: Tensor
    sharpness: Tensor


def draw_labels(lesion: Dice) -> Tensor:
    """Return the class of each lesion (B,), all equally likely."""
    return lesion.between("class", 0, len(CLASSES)).long()


def draw_traits(lesion: Dice, difficulty: float) -> Traits:
    """Draw classes, and signs around those typical of the class.

    A lesion leans towards another class by a share |normal| x `difficulty` / 2, so that some
    look like a class they are not; each sign then varies by itself.
    """
    label = draw_labels(lesion)
    other = (label + lesion.between("leaning", 1, len(CLASSES)).long()) % len(CLASSES)
    share = (lesion.normal("share").abs() * difficulty / 2).clamp(max=0.9)[:, None]
    signs = (1 - share) * TYPICAL[label] + share * TYPICAL[other]
    signs = signs + (0.06 + 0.1 * difficulty) * lesion.normal("signs", (5,))
    return Traits(label, *signs.clamp(0, 1.1).unbind(1))
