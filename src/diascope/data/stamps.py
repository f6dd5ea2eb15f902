"""The stamps of many files at once, which tell whether pixels decoded earlier still hold."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence

from diascope.data.dataset import Reader
from diascope.data.readers import FileReader, archive_of


def stamps(reader: Reader, paths: Sequence[str]) -> list[str]:
    """Return `reader.stamp(path)` of each path, for files at a fraction of the cost."""
    if type(reader) is FileReader and reader.depth == 16:
        return _of_files(reader, paths)
    return [reader.stamp(path) for path in paths]


def _of_files(reader: FileReader, paths: Sequence[str]) -> list[str]:
    """Return what `FileReader.stamp` does: a system call a file, and one an archive."""
    root = str(reader.root.absolute())
    archives: dict[str, dict[str, zipfile.ZipInfo]] = {}
    found = []
    for path in paths:
        archive, bang, entry = path.partition("!")
        try:
            if bang:
                if archive not in archives:
                    archives[archive] = archive_of(reader.root / archive).NameToInfo
                info = archives[archive][entry]
                found.append(f"{info.CRC:08x}:{info.file_size}")
            else:
                status = os.stat(os.path.join(root, path))
                found.append(f"{root}:{status.st_size}:{status.st_mtime_ns}")
        except (OSError, KeyError, zipfile.BadZipFile):
            found.append("absent")
    return found
