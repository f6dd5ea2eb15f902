"""The processes that train one model together: who does which part, and what they agree on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diascope.errors import UserError

if TYPE_CHECKING:
    from lightning.fabric import Fabric

    from diascope.training.batches import Batches

EVERY = 8  # steps between two agreements of several processes


class Team:
    """One process of `world`, numbered by `rank`; without a Fabric it is alone.

    Of every batch each process takes its share of the images; the gradients are averaged by DDP.
    """

    def __init__(self, fabric: Fabric | None = None) -> None:
        self._fabric = fabric
        self.rank = fabric.global_rank if fabric else 0
        self.world = fabric.world_size if fabric else 1

    @property
    def first(self) -> bool:
        """Whether this process writes the files and speaks to the user."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.world == 1

    def share(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return this process's part of `rows`, as large as the others' to within one."""
        return np.array_split(rows, self.world)[self.rank]

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes."""
        return self._reduced(value, "sum")

    def highest(self, value: Tensor) -> Tensor:
        """Return the largest of the processes' values, entry by entry."""
        return self._reduced(value, "max")

    def agreed(self, wish: int, device: torch.device) -> int:
        """Return the highest number that any process wishes."""
        return wish if self.alone else int(self.highest(torch.tensor(wish, device=device)))

    def due(self, step: int, steps: int) -> bool:
        """Tell whether the processes agree after `step` of `steps`: alone, always."""
        return self.alone or step % EVERY == 0 or step == steps

    def from_first(self, value: Any) -> Any:
        """Return the first process's value."""
        return value if self._fabric is None or self.alone else self._fabric.broadcast(value)

    def wait(self) -> None:
        """Wait until every process is here."""
        if self._fabric is not None and not self.alone:
            self._fabric.barrier()

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """Let the first process through alone, and the others when it is done."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def check(self, batches: Batches) -> None:
        """Raise `UserError` where a batch has fewer images than there are processes."""
        least = batches.images // len(batches)
        if least < self.world:
            raise UserError(
                f"training.batch_size = {batches.batch_size}: batches of {least} images cannot be "
                f"shared by {self.world} processes; use larger batches or fewer devices"
            )

    def _reduced(self, value: Tensor, how: str) -> Tensor:
        if self._fabric is None or self.alone:
            return value
        found = self._fabric.all_reduce(value.clone(), reduce_op=how)
        assert isinstance(found, Tensor)
        return found
