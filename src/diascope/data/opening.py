"""Opening datasets by name, and what DATA means on the command line."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from diascope.data.dataset import Dataset
from diascope.data.named import DATASETS
from diascope.errors import UserError, nearest

TABLES = (".csv", ".parquet")


def open_dataset(
    name: str,
    root: str | Path | None = None,
    classes: Sequence[str] | None = None,
    *,
    per_class: int | None = None,
    per_class_seed: int = 0,
    **options: Any,
) -> Dataset:
    """Return the dataset called `name`, whose files are at `root`.

    `classes` keeps some classes, in that order; `per_class` a balanced draw of that many
    images a class by `per_class_seed`; `options` are the dataset's own. Raises `UserError`
    for an unknown name, class or option.
    """
    opener = DATASETS[name]
    dataset: Dataset = opener(None if root is None else Path(root), **_checked(name, options))
    if classes is not None:
        dataset = dataset.restrict([classes] if isinstance(classes, str) else list(classes))
    if per_class is not None:
        dataset = dataset.balanced(per_class, per_class_seed)
    return dataset


def open_data(text: str | Path, classes: Sequence[str] | None = None, **options: Any) -> Dataset:
    """Return the dataset that `text` describes, as on the command line.

    `text` is `name`, `name:root`, `name:key=value,...`, `name:root,key=value,...`, a folder of
    class folders, or a CSV or Parquet table. Raises `UserError` for anything else.
    """
    text = str(text)
    name, colon, rest = text.partition(":")
    path = Path(text).expanduser()
    if path.is_dir():
        if any(path.glob("[Hh][Aa][Mm]10000_metadata*")):
            raise UserError(f"{text}: this is HAM10000: write ham10000:{text}")
        return open_dataset("folder", path, classes, **options)
    if path.suffix.lower() in TABLES and (path.exists() or name not in DATASETS.names()):
        return open_dataset("table", path, classes, **options)
    if name in DATASETS.names() and (colon or name == text):
        root, given = _parsed(text, rest)
        own = given.pop("classes", None)
        return open_dataset(name, root, own if classes is None else classes, **{**given, **options})
    if path.exists() or "/" in text:
        known = "a folder of class folders, a .csv or a .parquet table"
        raise UserError(f"{text}: expected {known}" if path.exists() else f"{text}: not found")
    raise UserError(f"unknown dataset '{name}': {nearest(name, DATASETS.names())}")


def _parsed(text: str, rest: str) -> tuple[Path | None, dict[str, Any]]:
    """Return the root and the options of the part after the colon."""
    if not rest or Path(rest).expanduser().exists():
        return Path(rest).expanduser() if rest else None, {}
    root, options = None, {}
    for place, part in enumerate(_parts(rest)):
        key, equals, value = part.partition("=")
        if not equals:
            if place:
                raise UserError(f"{text}: '{part}': an option is written key=value")
            root = Path(part).expanduser()
            continue
        try:
            options[key.strip()] = yaml.safe_load(value) if "{" not in value else value
        except yaml.YAMLError:
            raise UserError(f"{text}: '{part}': the value is not YAML") from None
    return root, options


def _parts(rest: str) -> list[str]:
    """Return `rest` cut at its commas, but not at those within [brackets]."""
    parts, depth = [""], 0
    for letter in rest:
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _checked(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return `options` converted to the types that the dataset's opener declares."""
    opener: Callable[..., Dataset] = DATASETS[name]
    hints = typing.get_type_hints(opener)
    known = [key for key in inspect.signature(opener).parameters if key != "root"]
    values = {}
    for key, value in options.items():
        if key not in known:
            words = [*known, "classes", "per_class", "per_class_seed"]
            raise UserError(f"{name}: unknown option '{key}': {nearest(key, words)}")
        try:
            values[key] = TypeAdapter(hints[key]).validate_python(value)
        except ValidationError as error:
            message = error.errors()[0]["msg"].lower()
            raise UserError(f"{name}: {key}={value!r}: {message}") from None
    return values
