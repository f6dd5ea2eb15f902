"""A CSV or Parquet table with a row an image, beside its images."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from diascope.data.boxes import SUFFIXES, boxes_of
from diascope.data.dataset import COLUMNS, Dataset
from diascope.data.formats import Depth
from diascope.data.groups import PREFIX, of_dicom
from diascope.data.hidden import hide
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
    depth: Depth = 16,
    private: bool | None = None,
) -> Dataset:
    """Return the dataset that the table in the file `root` describes.

    Each of `path`, `label`, `group`, `source`, `split`, `mask` and `boxes` is the name of a
    column, or a template such as "images.zip!{image_id}.jpg"; the optional ones are taken
    from a column of their own name where the table has one. `group` may also be
    "dicom:PatientID", an element of DICOM files. `boxes` may also be a CSV or Parquet
    file beside the table with a row a box: columns x, y, w, h and one that names the image as a
    column of the table does. Paths are relative to `images`, by default the table's folder.
    `labels` are the classes, by default all that occur. `image_size` is "WxH" or "any". `depth`:
    how grey of 16 bits becomes 8 (8, 10, 12, 14, 16 or stretch; see `formats.grey`). `private`:
    pseudonyms in place of paths and groups, by default where a file is DICOM (see `hidden.hide`);
    further columns are kept, unless it holds. Raises `UserError` for a missing file or column.
    """
    if root is None:
        raise UserError("table: no file is given: write table:FILE.csv")
    table = read_table(root)
    of_files = group.startswith(PREFIX)
    named = dict(
        zip(
            COLUMNS,
            (path, label, "" if of_files else group, source, split, mask, boxes),
            strict=True,
        )
    )
    columns = {str(column): list(table[column]) for column in table if column not in COLUMNS}
    for column, source_of in named.items():
        if column == "boxes" and source_of not in table and Path(source_of).suffix in SUFFIXES:
            columns[column] = boxes_of(table, root.parent / source_of)
        elif source_of or (column in table and not (of_files and column == "group")):
            columns[column] = _column(table, source_of or column, column, root)
    classes = labels or sorted(set(columns["label"]) - {""})
    if len(table) and not classes:
        raise UserError(f"{root}: column '{label}' holds no label")
    place = Path(images) if images else root.parent
    reader = FileReader(place, parse_size(image_size, str(root)), depth)
    hashed = of_dicom(reader, columns["path"], group)
    shown, reads = hide(columns, reader, private, hashed)
    return Dataset.of(root.stem, shown, classes, reads)


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
