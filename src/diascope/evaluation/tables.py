"""Per-image tables in Parquet, with what made them in the file's own metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from diascope.errors import UserError
from diascope.files import replacing

_KEY = b"diascope"


def write_table(table: pd.DataFrame, path: Path, metadata: Mapping[str, Any] | None = None) -> None:
    """Write `table` to `path` as Parquet, complete or not at all.

    `metadata` (seed, hash of the configuration, ...), whatever JSON can hold, is kept under the
    key `diascope` of the schema's metadata. The index of the table is not kept.
    """
    content = pa.Table.from_pandas(table, preserve_index=False)
    kept = dict(content.schema.metadata or {})
    kept[_KEY] = json.dumps(dict(metadata or {}), sort_keys=True, allow_nan=False).encode()
    with replacing(path) as temporary:
        pq.write_table(content.replace_schema_metadata(kept), temporary, compression="zstd")


def read_table(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the table at `path` and its metadata; a `UserError` says why it cannot be read."""
    try:
        with path.open("rb") as file:  # of a path, folder names such as seed=3 become columns
            content = pq.read_table(file)
        metadata: dict[str, Any] = json.loads((content.schema.metadata or {}).get(_KEY, b"{}"))
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such table") from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read as a Parquet table ({reason})") from None
    return content.to_pandas(), metadata
