"""Plans that a store remembers, so that the state of a study is known without making it anew."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diascope import __version__
from diascope.errors import UserError
from diascope.files import write_text
from diascope.settings import read_yaml
from diascope.studies.jobs import Job, digest


def remember(jobs: Sequence[Job], store: Path, asked: Sequence[Any], file: Path) -> None:
    """Keep the jobs of a plan; asked: what it depends on beside the files."""
    fields = ("kind", "label", "content", "needs", "free")
    content = [{key: value for key, value in asdict(job).items() if key in fields} for job in jobs]
    write_text(_place(store, asked, file), json.dumps(content))


def remembered(store: Path, asked: Sequence[Any], file: Path) -> list[Job] | None:
    """Return the jobs of a plan made of the same files, None where there is none."""
    try:
        content = json.loads(_place(store, asked, file).read_text())
        return [Job(**{**each, "needs": tuple(each["needs"])}) for each in content]
    except (OSError, UserError, ValueError, TypeError, KeyError):
        return None


def _place(store: Path, asked: Sequence[Any], file: Path) -> Path:
    prints = [
        [each.name, hashlib.blake2b(each.read_bytes(), digest_size=16).hexdigest()]
        for each in _files(file)
    ]
    return store / "plans" / f"{digest([__version__, list(asked), prints])}.json"


def _files(file: Path) -> list[Path]:
    """Return a study file and all that it is based on."""
    found, left = list[Path](), [file]
    while left:
        each = left.pop(0)
        if each in found:
            continue
        found.append(each)
        left += [each.parent / base for base in _bases(read_yaml(each))]
    return found


def _bases(content: Any) -> Iterator[str]:
    """Yield every `base` within the content of a file."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            if key == "base" and isinstance(value, str):
                yield value
            else:
                yield from _bases(value)
