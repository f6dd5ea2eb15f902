"""The store of all studies: runs and tables by key, each complete or absent.

    runs/KEY/           the run folder; runs/KEY.json, written last, says that it is finished
    tables/KEY.parquet  a row an image; tables/KEY.json, written last, says that it is finished
    errors/KEY.txt      what a job that failed said, until it succeeds
    scratch/KEY/        parts of an examination under way that are finished
    data/KEY.json       the fingerprint of the images that runs of this store were trained on, or
                        digests of images under what their files show from outside

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
from diascope.studies.jobs import Job, digest

if TYPE_CHECKING:
    import pandas as pd

_FOLDERS = {"train": "runs", "examine": "tables"}
_WEIGHTS = "model.safetensors"


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

    def keep_scratch(self, key: str, made_with: Any) -> None:
        """Have the folder for an examination's parts; parts made with something else are removed.

        made_with: plain values.
        """
        folder = self.scratch(key)
        mark = folder / f"{digest(made_with)}.mark"
        if not mark.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            mark.touch()

    def error_file(self, key: str) -> Path:
        """Return the file that tells why a job failed last."""
        return self.folder / "errors" / f"{key}.txt"

    def files(self, job: Job) -> list[Path]:
        """Return all that there may be of a job: what is to be removed to do it anew."""
        record = self._record_file(job.kind, job.key)
        of_kind = self.run(job.key) if job.kind == "train" else self.table_file(job.key)
        return [record, of_kind, self.scratch(job.key), self.error_file(job.key)]

    def record(self, job: Job) -> dict[str, Any] | None:
        """Return what is recorded of a job that is finished; None where it is not.

        Keys: label, seconds, hardware, finished (when), content, diascope and commit (which did
        it), images_digest; of a training data (name, fingerprint, images by class) and epoch; of
        an examination images, left_out, columns, about and masking.
        """
        return self._finished(job.kind, job.key)

    def run_record(self, key: str) -> dict[str, Any] | None:
        """Return the record of a finished run; None where there is none."""
        return self._finished("train", key)

    def trained(self, key: str) -> dict[str, Any]:
        """Return the record of a finished run; raises `UserError` where there is none."""
        found = self._finished("train", key)
        if found is None:
            raise UserError(f"{self.run(key)}: no finished run is here; train it first")
        return found

    def examined(self, key: str) -> dict[str, Any]:
        """Return the record of a finished table; raises `UserError` where there is none."""
        found = self._finished("examine", key)
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
        return place.is_dir() and any(each.suffix != ".mark" for each in place.iterdir())

    def data_file(self, key: str) -> Path:
        """Return the file of what is known of some data."""
        return self.folder / "data" / f"{key}.json"

    def digests(self, data: str) -> dict[str, str]:
        """Return the kept digests of images by what their files show from outside."""
        found = self._json(self.data_file(data))
        return {} if found is None else dict(found["digests"])

    def note_digests(self, data: str, name: str, digests: Mapping[str, str]) -> None:
        """Keep the digests of images."""
        write_text(self.data_file(data), json.dumps({"name": name, "digests": digests}))

    def fingerprint(self, data: str) -> str | None:
        """Return the fingerprint under which images were last used, by the digest of `data`."""
        found = self._json(self.data_file(data))
        return None if found is None else str(found["fingerprint"])

    def note_data(self, data: str, fingerprint: str, name: str) -> None:
        """Keep the fingerprint of images."""
        text = json.dumps({"fingerprint": fingerprint, "name": name})
        write_text(self.data_file(data), text)

    def at_work(self, key: str) -> bool:
        """Tell whether a process of this machine or another holds the lock of a key."""
        try:
            with self._lock_file(key).open("r") as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    @contextmanager
    def locked(self, key: str) -> Iterator[bool]:
        """Hold the lock of a key; yields False where another process holds it.

        Raises `UserError` where the store cannot be written.
        """
        file = self._lock_file(key)
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

    def _lock_file(self, key: str) -> Path:
        return self.folder / "locks" / f"{key}.lock"

    def _finished(self, kind: str, key: str) -> dict[str, Any] | None:
        """Return a record, where what it tells of is there, too."""
        result = self.run(key) / _WEIGHTS if kind == "train" else self.table_file(key)
        return self._json(self._record_file(kind, key)) if result.is_file() else None

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
