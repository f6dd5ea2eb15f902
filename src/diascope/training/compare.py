"""What may differ between a run and its resumption."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from diascope.errors import UserError
from diascope.training.config import TrainingConfig

FREE = ("training.checkpoint_seconds", "training.devices", "training.nodes")
MACHINE = ("device", "precision", "metric")


def as_before(new: TrainingConfig, old: TrainingConfig) -> TrainingConfig:
    """Return `new` with each `auto` replaced by what `old`, the run so far, was resolved to."""
    auto = [key for key in MACHINE if getattr(new, key) == "auto"]
    return new.model_copy(update={key: getattr(old, key) for key in auto})


def refuse_changes(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    where: str,
    prefix: str = "",
    grows: bool = True,
) -> None:
    """Raise `UserError` where `new` would not go on with the run that `old` began.

    Both are plain settings, `prefix` what stands before their keys. More epochs are welcome
    where the run `grows`, unless the learning rate follows a cosine, which would have been
    another one from the start. How often the state is saved and the number of processes are free:
    batches and noise do not depend on them.
    """
    schedule = (old if prefix else old["training"])["schedule"]["name"]
    for key, before, after in differences(old, new, prefix):
        why = ""
        if key in FREE:
            continue
        if key == "training.epochs" and after > before:
            if grows and schedule != "cosine":
                continue
            why = " (its cosine schedule ends there)" if grows else " (it is finished)"
        raise UserError(
            f"{where}: began with {key} = {before}, cannot be resumed with {after}{why}; "
            "give the same configuration, or another run folder"
        )


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yield each dotted key whose value differs, with both values."""
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}", before, after
