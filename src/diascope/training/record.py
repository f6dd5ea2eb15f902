"""What made a run: versions, machine and data, for the record in `config.yaml`."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

from diascope import __version__, hardware
from diascope.data.dataset import Dataset
from diascope.data.pixels import Pixels
from diascope.models.checkpoint import WEIGHTS

_SAMPLE = 512  # images whose pixels are hashed


def describe_run(
    parts: Mapping[str, Pixels], test: Dataset, weights: Path | None = None
) -> dict[str, Any]:
    """Return versions, commit, hardware, data and start weights of a run, as plain values."""
    start = {"path": str(weights), "content": content_of(weights)} if weights else None
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "diascope": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "timm": timm.__version__,
        "hardware": hardware.describe(),
        "data": {
            "name": test.name,
            "fingerprint": fingerprint(parts),
            "classes": list(test.classes),
            "images": {**{k: p.dataset.counts for k, p in parts.items()}, "test": test.counts},
            "skipped": sum(len(p.skipped) for p in parts.values()),
            **_reading(test),
        },
        "weights": start,
    }


def _reading(dataset: Dataset) -> dict[str, Any]:
    """Return how files were read, where that is not the usual, for images read later."""
    depth = getattr(dataset.reader, "depth", 16)
    return {} if depth == 16 else {"depth": depth}


def content_of(weights: Path | None) -> str | None:
    """Return a hash of a file of weights, or of a run folder's; None where there is none."""
    if weights is None:
        return None
    weights = weights.expanduser()
    file = weights / WEIGHTS if weights.is_dir() else weights
    if not file.is_file():
        return None
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def fingerprint(parts: Mapping[str, Pixels]) -> str:
    """Return a hash of what is trained and validated on.

    It covers the rows in their order (paths, labels, groups), the classes, and the pixels of up
    to 512 images of each part, evenly spread.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, part in parts.items():
        table = part.dataset.table[["path", "label", "group"]]
        digest.update(repr((name, part.dataset.classes, len(part))).encode())
        digest.update(table.to_csv(index=False).encode())
        if len(part):
            rows = np.unique(np.linspace(0, len(part) - 1, _SAMPLE).astype(np.int64))
            digest.update(np.ascontiguousarray(part.images[rows]).tobytes())
    return digest.hexdigest()


def commit() -> str | None:
    """Return the git commit of this package's source, "+changes" where it differs; else None."""
    here = Path(__file__)
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    head = _git(here.parent, "rev-parse", "HEAD")
    changed = _git(here.parent, "status", "--porcelain", "--untracked-files=no")
    return f"{head}+changes" if head and changed else head


def _git(folder: Path, *words: str) -> str | None:
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
