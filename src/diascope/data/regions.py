"""Further regions of a row, such as the phantom's hairs, beside its mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diascope.data.dataset import Dataset
from diascope.data.preprocess import Preprocess
from diascope.data.verify import in_threads
from diascope.errors import UserError, nearest

_DEFAULT = Preprocess()


def load_region(
    dataset: Dataset, column: str, size: int, preprocess: Preprocess = _DEFAULT
) -> NDArray[np.bool_]:
    """Return the regions of a further column of the table, at the working size: (N, size, size).

    The column holds what `mask` holds, places that the reader reads, such as the phantom's `hair`
    and `shortcut`; where it is "" nothing is inside. The geometry is that of `load_pixels`, so
    that row k belongs to row k of the pixels. Raises `UserError` for a column that is absent, and
    for a region that cannot be read.
    """
    if column not in dataset.table:
        known = nearest(column, [str(name) for name in dataset.table])
        raise UserError(f"{dataset.name}: no column '{column}': {known}")
    entries = dataset.table[column].astype(str).tolist()
    regions = np.zeros((len(dataset), size, size), np.bool_)

    def read(row: int) -> None:
        if entries[row]:
            window = None
            if preprocess.sees_the_image:
                window = preprocess.window(dataset.reader.image(dataset.entries[row][0]))
            regions[row] = preprocess.mask(dataset.reader.mask(entries[row]), size, window)

    in_threads(read, len(dataset))
    return regions
