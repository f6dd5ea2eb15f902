"""The phantom as files: PNG images, masks and a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from diascope.data.phantom.generate import PhantomSettings, blocks
from diascope.data.phantom.reader import phantom_dataset
from diascope.errors import UserError
from diascope.files import write_text

REGIONS = {"masks": "mask", "hairs": "hair", "shortcut": "shortcut"}


def write_phantom(out: str | Path, **options: Any) -> Path:
    """Write the phantom of `options` (fields of `PhantomSettings`) under `out`.

    Files are images/, masks/, hairs/, shortcut/ and table.csv, whose columns are those of a
    dataset with `hair` and `shortcut` beside `mask`, paths relative to `out`. Returns the
    table's path, which is written last. Raises `UserError` where the folder cannot be written.
    """
    out = Path(out)
    settings = PhantomSettings(**options)
    dataset = phantom_dataset(settings)
    names = dataset.table["path"].str.replace("/", "-") + ".png"
    try:
        for folder in ("images", *REGIONS):
            (out / folder).mkdir(parents=True, exist_ok=True)
        number = 0
        for block in blocks(settings):
            for row in range(len(block)):
                name = names[number]
                Image.fromarray(block.images[row]).save(out / "images" / name)
                for folder in REGIONS:
                    _save_region(out / folder / name, getattr(block, folder)[row])
                number += 1
        write_text(out / "table.csv", _table(dataset.table, names).to_csv(index=False))
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error})") from None
    return out / "table.csv"


def _save_region(file: Path, region: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
    Image.fromarray(region.astype(np.uint8) * 255).save(file)


def _table(table: pd.DataFrame, names: pd.Series) -> pd.DataFrame:
    places = {column: f"{folder}/" + names for folder, column in REGIONS.items()}
    return table.assign(path="images/" + names, **places)
