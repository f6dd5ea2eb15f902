"""A CSV or Parquet table with a row an image, beside its images."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from diascope.data.boxes import SUFFIXES, boxes_of
from diascope.data.dataset import COLUMNS, Dataset
from diascope.data.named import DATASETS
from diascope.data.readers import FileReader, parse_size, read_table
from diascope.errors import UserError, nearest


@DATASETS.register("table")
def open_table(
    root: Path | None,
    *,
    path: str = "path",
    label: str = "label",
    group: str = "",
    source: str = "",
    split: str = "",
    mask: str = "",
    boxes: str = "",
    images: str = "",
    labels: list[str] | None = None,
    image_size: str = "any",
) -> Dataset:
    """Return the dataset that the table in the file `root` describes.

    Each of `path`, `label`, `group`, `source`, `split`, `mask` and `boxes` is the name of a
    column, or a template such as "images.zip!{image_id}.jpg"; the optional ones are taken
    from a column of their own name where the table has one. `boxes` may also be a CSV or Parquet
    file beside the table with a row a box: columns x, y, w, h and one that names the image as a
    column of the table does. Paths are relative to `images`, by default the table's folder.
    `labels` are the classes, by default all that occur. `image_size` is "WxH" or "any". Further
    columns are kept. Raises `UserError` for a missing file or column.
    """
    if root is None:
        raise UserError("table: no file is given: write table:FILE.csv")
    table = read_table(root)
    named = dict(zip(COLUMNS, (path, label, group, source, split, mask, boxes), strict=True))
    columns = {str(column): list(table[column]) for column in table if column not in COLUMNS}
    for column, source_of in named.items():
        if column == "boxes" and source_of not in table and Path(source_of).suffix in SUFFIXES:
            columns[column] = boxes_of(table, root.parent / source_of)
        elif source_of or column in table:
            columns[column] = _column(table, source_of or column, column, root)
    classes = labels or sorted(set(columns["label"]) - {""})
    if len(table) and not classes:
        raise UserError(f"{root}: column '{label}' holds no label")
    reader = FileReader(Path(images) if images else root.parent, parse_size(image_size, str(root)))
    return Dataset.of(root.stem, columns, classes, reader)


def _column(table: pd.DataFrame, wanted: str, role: str, file: Path) -> list[str]:
    """Return a column, or a template filled in for each row."""
    try:
        if "{" in wanted:
            return [wanted.format_map(row) for row in table.to_dict("records")]
        return list(table[wanted].str.strip())
    except (KeyError, ValueError, IndexError, AttributeError) as error:
        missing = str(error.args[0]) if isinstance(error, KeyError) else ""
        if not missing:
            raise UserError(f"{file}: {role}='{wanted}': not a template ({error})") from None
        hint = nearest(missing, [str(column) for column in table])
        say = "" if wanted == role else f" for {role}"
        raise UserError(
            f"{file}: no column '{missing}'{say}: {hint} ({role}=NAME names another)"
        ) from None
