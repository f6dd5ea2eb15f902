"""Official splits that are lists of images: train_val_list.txt, test_list.txt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pandas as pd

from diascope.data.dataset import Dataset
from diascope.data.readers import brief
from diascope.errors import UserError


def with_lists(dataset: Dataset, lists: Mapping[str, Path]) -> Dataset:
    """Return `dataset` whose `split` column says what text files say, an image a line.

    `lists` are files by "train", "val" or "test". A line is an image's path, its file name or its
    file name without suffix; lines of other images are passed over. Images in no list are in
    train where that has no file, else in test where that has none. Raises `UserError` for a file
    that names no image of `dataset`, an image in two lists or, where both have files, in none, and
    a name that two images bear.
    """
    paths = dataset.table.path.astype(str)
    called: dict[str, list[int]] = {}
    for row, path in enumerate(paths):
        name = re.split(r"[/!]", path)[-1]
        for key in {path, name, PurePosixPath(name).stem}:
            called.setdefault(key, []).append(row)
    split = [""] * len(dataset)
    for part, file in lists.items():
        for row in _rows(dataset, file, called):
            if split[row] not in ("", part):
                other = lists[split[row]]
                raise UserError(f"{file}: '{paths.iloc[row]}' stands in {other} too")
            split[row] = part
    rest = next((part for part in ("train", "test") if part not in lists), "")
    missing = [path for path, part in zip(paths, split, strict=True) if not part]
    if missing and not rest:
        raise UserError(
            f"{dataset.name}: {len(missing)} images stand in no list, such as '{missing[0]}': "
            "complete the lists, or leave one out and it takes the rest"
        )
    column = pd.Series([part or rest for part in split], dtype=str)
    return replace(dataset, table=dataset.table.assign(split=column))


def _rows(dataset: Dataset, file: Path, called: Mapping[str, list[int]]) -> list[int]:
    """Return the rows of the images that `file` names."""
    try:
        lines = Path(file).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as a list of images ({brief(error)})") from None
    names = [line.strip() for line in lines if line.strip()]
    found = [called[name] for name in names if name in called]
    if not found:
        such = f", such as '{names[0][:60]}'," if names else ""
        raise UserError(
            f"{file}: none of its {len(names)} lines{such} is an image of {dataset.name}"
        )
    for name, rows in zip([name for name in names if name in called], found, strict=True):
        if len(rows) > 1:
            raise UserError(f"{file}: '{name}' is the name of {len(rows)} images; write paths")
    return [row for rows in found for row in rows]
