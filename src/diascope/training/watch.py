"""Looks at the metrics of each epoch for the ways in which training fails in silence."""

from __future__ import annotations

from collections.abc import Sequence

from diascope.training.overfitting import (
    CHECK_IMAGES,
    Row,
    catastrophic_overfitting,
    robust_overfitting,
)
from diascope.training.progress import Progress
from diascope.training.validation import Validation


class Watch:
    """The alarms so far, by kind: the epoch (from 1) in which each was first raised, and a line."""

    def __init__(self, validation: Validation) -> None:
        self.attacked = max(1, validation.attacked)
        self.constant = validation.constant
        self.alarms: dict[str, tuple[int, str]] = {}

    def look(self, rows: Sequence[Row], progress: Progress) -> None:
        """Say aloud, once a kind, what the last of the rows shows."""
        checked = min(CHECK_IMAGES, self.attacked)
        found = (
            robust_overfitting(rows, self.attacked),
            catastrophic_overfitting(rows, self.attacked, checked, chance=self.constant),
        )
        for alarm in found:
            if alarm is not None and alarm.kind not in self.alarms:
                self.alarms[alarm.kind] = alarm.epoch, alarm.text
                progress.note(f"epoch {alarm.epoch}: {alarm.text}")

    @property
    def lines(self) -> tuple[str, ...]:
        """The alarms as lines."""
        return tuple(f"epoch {epoch}: {text}" for epoch, text in self.alarms.values())
