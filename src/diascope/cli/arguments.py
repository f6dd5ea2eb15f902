"""What several verbs take alike: images and assignments in one list, classes by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diascope.audit.subject import Subject

ASSIGNMENT = re.compile(r"[A-Za-z_][\w.]*=.*")


def files_and_settings(words: Sequence[str], what: str = "image") -> tuple[list[str], list[str]]:
    """Return the files (of what kind), and the assignments key=value among them."""
    from diascope.errors import UserError

    settings = [w for w in words if ASSIGNMENT.fullmatch(w) and not Path(w).exists()]
    files = [w for w in words if w not in settings]
    if not files:
        raise UserError(f"no {what} is given; name one or more files")
    return files, settings


def class_index(label: str | None, subject: Subject, option: str) -> int | None:
    """Return the index of a class of the model, None for None."""
    from diascope.errors import UserError, nearest

    classes = list(subject.card["classes"])
    if label is None:
        return None
    if label not in classes:
        raise UserError(f"{option} {label}: no class of {subject.name}; {nearest(label, classes)}")
    return classes.index(label)


def listed(words: str | None) -> list[str] | None:
    """Return names with commas between as a list, None for None."""
    return None if words is None else [part.strip() for part in words.split(",") if part.strip()]
