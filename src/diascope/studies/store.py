"""The store of all studies: runs and tables by key, each complete or absent.

    runs/KEY/           the run folder; runs/KEY.json, written last, says that it is finished
    tables/KEY.parquet  a row an image; tables/KEY.json, written last, says that it is finished
    errors/KEY.txt      what a job that failed said, until it succeeds
    scratch/KEY/        checkpoints of an examination under way
    data/KEY.json       the fingerprint of the images that runs of this store were trained on

Two processes share a store: whoever works on a key holds its lock (flock), which the system
releases when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diascope.errors import UserError
from diascope.files import write_text
from diascope.studies.jobs import Job

if TYPE_CHECKING:
    import pandas as pd

_FOLDERS = {"train": "runs", "examine": "tables"}


@dataclass(frozen=True)
class Store:
    """A folder that keeps what jobs came to."""

    folder: Path

    def run(self, key: str) -> Path:
        """Return the folder of a run."""
        return self.folder / "runs" / key

    def table_file(self, key: str) -> Path:
        """Return the file of a table."""
        return self.folder / "tables" / f"{key}.parquet"

    def scratch(self, key: str) -> Path:
        """Return the folder for what an examination keeps while it is under way."""
        return self.folder / "scratch" / key

    def error_file(self, key: str) -> Path:
        """Return the file that tells why a job failed last."""
        return self.folder / "errors" / f"{key}.txt"

    def record(self, job: Job) -> dict[str, Any] | None:
        """Return what is recorded of a job that is finished; None where it is not.

        Keys: label, seconds, hardware, finished (when), content; of a training data (name,
        fingerprint, images by class) and epoch; of an examination images, left_out, columns, about
        and masking.
        """
        return self._json(self._record_file(job.kind, job.key))

    def trained(self, key: str) -> dict[str, Any]:
        """Return the record of a finished run; raises `UserError` where there is none."""
        found = self._json(self._record_file("train", key))
        if found is None:
            raise UserError(f"{self.run(key)}: no finished run is here; train it first")
        return found

    def examined(self, key: str) -> dict[str, Any]:
        """Return the record of a finished table; raises `UserError` where there is none."""
        found = self._json(self._record_file("examine", key))
        if found is None:
            raise UserError(f"{self.table_file(key)}: no finished table is here; run the study")
        return found

    def table(self, key: str) -> pd.DataFrame:
        """Return a table, a row an image; raises `UserError` where it is not finished."""
        from diascope.evaluation.tables import read_table

        self.examined(key)
        return read_table(self.table_file(key))[0]

    def finish(self, job: Job, **record: Any) -> None:
        """Record that a job is finished, and forget what went wrong before."""
        content = {"kind": job.kind, "label": job.label, **record, "content": job.content}
        text = json.dumps(_plain(content), indent=1, allow_nan=False)
        write_text(self._record_file(job.kind, job.key), text)
        self.error_file(job.key).unlink(missing_ok=True)
        shutil.rmtree(self.scratch(job.key), ignore_errors=True)

    def keep_table(self, job: Job, table: pd.DataFrame) -> None:
        """Write the table of an examination, whose record is still to come."""
        from diascope.evaluation.tables import write_table

        self.table_file(job.key).parent.mkdir(parents=True, exist_ok=True)
        write_table(table, self.table_file(job.key), {"key": job.key, "label": job.label})

    def fail(self, job: Job, text: str) -> Path:
        """Keep what a job that failed said."""
        write_text(self.error_file(job.key), f"{job.label}\n\n{text}\n")
        return self.error_file(job.key)

    def failure(self, job: Job) -> str:
        """Return the last line that a failed job said; "" where none is known."""
        try:
            lines = self.error_file(job.key).read_text().strip().splitlines()
        except OSError:
            return ""
        return lines[-1] if lines else ""

    def begun(self, job: Job) -> bool:
        """Tell whether an unfinished job has something to go on from."""
        place = self.run(job.key) if job.kind == "train" else self.scratch(job.key)
        return place.is_dir() and any(place.iterdir())

    def fingerprint(self, data: str) -> str | None:
        """Return the fingerprint under which images were last used, by the digest of `data`."""
        found = self._json(self.folder / "data" / f"{data}.json")
        return None if found is None else str(found["fingerprint"])

    def note_data(self, data: str, fingerprint: str, name: str) -> None:
        """Keep the fingerprint of images."""
        text = json.dumps({"fingerprint": fingerprint, "name": name})
        write_text(self.folder / "data" / f"{data}.json", text)

    @contextmanager
    def locked(self, key: str) -> Iterator[bool]:
        """Hold the lock of a key; yields False where another process holds it.

        Raises `UserError` where the store cannot be written.
        """
        file = self.folder / "locks" / f"{key}.lock"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle = file.open("a")
        except OSError as error:
            raise UserError(
                f"{self.folder}: the store cannot be written ({error.strerror}); name another with "
                "--store"
            ) from None
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def _record_file(self, kind: str, key: str) -> Path:
        return self.folder / _FOLDERS[kind] / f"{key}.json"

    def _json(self, file: Path) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(file.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: cannot be read ({error}); remove it") from None
        return found


def _plain(value: Any) -> Any:
    """Return values that JSON can hold; a number that is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "tolist"):  # of numpy
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)
