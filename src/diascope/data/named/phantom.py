"""The phantom: generated dermatoscopy with masks, two hospitals and a planted shortcut."""

from __future__ import annotations

from pathlib import Path

from diascope.data.dataset import Dataset
from diascope.data.named import DATASETS
from diascope.data.phantom import PhantomSettings, phantom_dataset
from diascope.errors import UserError


@DATASETS.register("phantom")
def open_phantom(
    root: Path | None,
    *,
    images: int = PhantomSettings.images,
    size: int = PhantomSettings.size,
    seed: int = PhantomSettings.seed,
    hospital: str = PhantomSettings.hospital,
    agreement: float | None = None,
    agreement_b: float | None = None,
    difficulty: float = PhantomSettings.difficulty,
    second_views: float = PhantomSettings.second_views,
) -> Dataset:
    """Return the phantom, drawn when it is read; the options are those of `PhantomSettings`."""
    if root is not None:
        raise UserError(f"phantom: it has no files, yet '{root}' is given: leave that out")
    return phantom_dataset(
        images=images,
        size=size,
        seed=seed,
        hospital=hospital,
        agreement=agreement,
        agreement_b=agreement_b,
        difficulty=difficulty,
        second_views=second_views,
    )
