"""Stages of an audit, one file a member: a model on a bench -> what was measured of it.

A stage fills one field of `ModelResult`, which bears its name. It is planned (`passes`), run,
written to disk and read back on its own, so that an audit can be stopped anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from diascope.audit.bench import Bench
from diascope.registry import Registry

STAGES = Registry("stage", __name__)

Need = Literal["gradients", "scores", "weights", "masks", "validation", "elsewhere", "others"]


@dataclass(frozen=True)
class Measured:
    """The result of a stage, and its columns (N,) for the table with a row an image.

    Columns hold NaN for images that were not measured. queries: how many images a black box was
    asked about, which whoever runs the stage counts.
    """

    result: Any
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    images: int = 0
    queries: int = 0


def _nothing(bench: Bench) -> str:
    return ""


@dataclass(frozen=True)
class Stage:
    """One piece of an audit.

    kind: the type of `Measured.result`, to read it back from JSON. passes: how many forward
    passes of one image it takes at most, a backward pass counting two; what it costs is known from
    this before it runs. share: of them that are usually made, or what tells it of a bench.
    settled: whether what it tells while it runs adds up to `passes`, as images are settled, or to
    the passes that were made. needs: without which it is left out, and the report says so.
    order: stages run in its order. effort: the numbers of `Effort` whose change makes an earlier
    result useless; empty for all of them. beside: whether what is found depends on the other
    models of the audit.
    """

    kind: Any
    passes: Callable[[Bench], float]
    measure: Callable[[Bench], Measured]
    needs: tuple[Need, ...] = ()
    order: int = 50
    share: float | Callable[[Bench], float] = 1.0
    effort: tuple[str, ...] = ()
    lacks: Callable[[Bench], str] = _nothing
    beside: bool = False
    settled: bool = True

    def usual(self, bench: Bench) -> float:
        """Return the share of the passes that is usually made on a bench."""
        return self.share(bench) if callable(self.share) else self.share


def in_order() -> list[tuple[str, Stage]]:
    """Return every stage with its name, in the order in which they run."""
    return sorted(((name, STAGES[name]) for name in STAGES), key=lambda item: item[1].order)


def blank(bench: Bench) -> NDArray[np.float64]:
    """Return a column (N,) of NaN."""
    return np.full(len(bench.pixels), np.nan)
