"""Evaluations: one file a kind, a frozen dataclass called with an `Exam`, giving columns."""

from __future__ import annotations

from typing import Protocol

from diascope.registry import Registry
from diascope.studies.exam import Exam, Measured


class Evaluation(Protocol):
    """A measurement of one trained model on N images, its settings in its fields.

    Its class may have a `revision`, a number that is raised when the same settings come to measure
    something else, so that finished tables are not taken for it; a field that is added later is
    a `registry.added` one, so that they are.
    """

    def __call__(self, exam: Exam) -> Measured:
        """Measure; raises `UserError` where the images or the model lack what it needs."""
        ...

    def passes(self, images: int, classes: int, beside: int) -> float:
        """Return about how many forward passes it makes, a backward pass counting two."""
        ...

    def columns(self) -> list[str]:
        """Return the names of the columns it gives, from which claims are checked beforehand."""
        ...


EVALUATIONS = Registry("evaluation", __name__)
