"""What several verbs take alike: images and assignments in one list, classes by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def input_apart(assignments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return what input.KEY=VALUE declare of a model's input, and the other assignments."""
    from diascope.settings import override

    declared = [each for each in assignments if each.startswith("input.")]
    content = override({}, declared).get("input", {})
    return content, [each for each in assignments if each not in declared]


def say_doubts(subjects: Sequence[Subject]) -> None:
    """Say what is doubtful of how models that were not trained here are asked."""
    from diascope.cli.console import say

    for subject in subjects:
        for problem in subject.interface.problems if subject.interface else ():
            say(f"{subject.name}: {problem}")


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
