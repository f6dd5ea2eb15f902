"""How a dataset is split, as settings: what `data.split` of a run and `diascope data split` say."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt

from diascope.data.dataset import Dataset
from diascope.data.lists import with_lists
from diascope.data.splits import Spanning, Splits, split
from diascope.data.strata import Stratify
from diascope.errors import UserError
from diascope.settings import Settings


class SplitSettings(Settings):
    """What is trained on: `fractions` of train, val and test, by `seed`; or a split `file`.

    `stratify`, `hold_out`, `spanning` and `per_class` are those of `diascope.data.split`. `lists`
    are official lists of images, files by "train", "val" and "test" (see `with_lists`). `fold`
    joins train and val, and divides them anew: "2/5" validates on the second of five parts, "all"
    trains on all and validates on none. Test stays what it is.
    """

    seed: int = 0
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    file: Path | None = None
    fold: str | None = Field(default=None, pattern=r"^(all|[1-9]\d*/[1-9]\d*)$")
    stratify: Stratify = "class"
    hold_out: str | None = None
    spanning: Spanning = "refuse"
    per_class: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt] | None = None
    lists: dict[Literal["train", "val", "test"], Path] = Field(default_factory=dict)

    def of(self, dataset: Dataset) -> Splits:
        """Return the splits of `dataset`; raises `UserError` where it cannot be split so."""
        if self.file is not None:
            self._alone()
            splits = Splits.load(self.file, dataset)
        else:
            lists = {str(part): file for part, file in self.lists.items()}
            splits = split(
                with_lists(dataset, lists) if lists else dataset,
                self.seed,
                self.fractions,
                stratify=self.stratify,
                hold_out=self.hold_out,
                spanning=self.spanning,
                per_class=self.per_class,
            )
        if self.fold is None:
            return splits
        return splits.refolded(self.fold, self.seed, self.stratify)

    def _alone(self) -> None:
        for key in ("hold_out", "per_class", "lists"):
            if getattr(self, key):
                raise UserError(f"split: {self.file} says who stands where; leave out {key}")
