"""The pixel caches that lie on the disk: seen, and removed."""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from diascope.data.cache import ASIDE, _remove, cache_folder
from diascope.data.store import ABOUT, FORMAT

_UNPACKED = "unpacked"  # arrays of large .npz files
_NAME = re.compile(r"[0-9a-f]{24}-[0-9a-f]{24}")


@dataclass(frozen=True)
class Cache:
    """One cache: where it lies, `bytes` on the disk, `used` in seconds since 1970, what it holds.

    `state` is "complete", "unfinished" (a builder is at work on it, or stopped), "unusable"
    (damaged, or of another version of Diascope), or "unpacked" (a file: an array of a .npz).
    """

    folder: Path
    state: str
    bytes: int
    used: float
    dataset: str = "?"
    images: int = 0
    size: int = 0
    channels: int = 0

    @property
    def days(self) -> float:
        """The days since it was last used."""
        return max(0.0, time.time() - self.used) / 86_400

    def __str__(self) -> str:
        what = f"{self.dataset}, {self.images:,} images of {self.size}x{self.size}"
        what = f"{what}x{self.channels}" if self.state == "complete" else self.state
        return f"{self.folder.name}  {self.bytes / 1e6:10,.1f} MB  {self.days:6.1f} days  {what}"


def caches(folder: Path | None = None) -> list[Cache]:
    """Return the caches in `folder` (the default one), the longest unused first."""
    folder = folder if folder is not None else cache_folder()
    found = [_seen(path) for path in folder.iterdir()] if folder.is_dir() else []
    found += [_unpacked(path) for path in (folder / _UNPACKED).glob("*.npy")]
    return sorted((cache for cache in found if cache), key=lambda cache: cache.used)


def remove(cache: Cache) -> bool:
    """Remove a cache, unless a builder is at work on it; return whether it is gone.

    A process that reads from it at the time may go on to its end.
    """
    if cache.state == "unfinished":
        return _remove(cache.folder)
    if cache.state == "unpacked":
        cache.folder.unlink(missing_ok=True)
        return True
    (cache.folder / ABOUT).unlink(missing_ok=True)
    shutil.rmtree(cache.folder, ignore_errors=True)
    return not cache.folder.exists()


def _unpacked(path: Path) -> Cache:
    status = path.stat()
    return Cache(path, "unpacked", status.st_size, max(status.st_mtime, status.st_atime))


def _seen(path: Path) -> Cache | None:
    """Return what `path` is; None where it is no cache of ours."""
    if not path.is_dir():
        return None
    unfinished = path.name.startswith(ASIDE)
    if not unfinished and not _NAME.fullmatch(path.name):
        return None
    files = [file.stat() for file in path.iterdir() if file.is_file()]
    size = sum(file.st_size for file in files)
    used = max((file.st_mtime for file in files), default=path.stat().st_mtime)
    if unfinished:
        return Cache(path, "unfinished", size, used)
    try:
        about = json.loads((path / ABOUT).read_text())
        known = [about[name] for name in ("dataset", "images", "size", "channels")]
        state = "complete" if about["format"] == FORMAT else "unusable"
        return Cache(path, state, size, used, *known)
    except (OSError, ValueError, KeyError, TypeError):
        return Cache(path, "unusable", size, used)
