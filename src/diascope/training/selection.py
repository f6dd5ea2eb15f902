"""Which epoch is best, and when to stop waiting for a better one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from diascope.training.options import Metric


@dataclass
class Selection:
    """The best epoch so far by `metric`; of equal ones that of lower loss, then the earlier.

    `patience` epochs in a row that do not improve on the best by more than `min_delta` end the
    training.
    """

    metric: Metric = "accuracy"
    patience: int | None = None
    min_delta: float = 0.0
    epoch: int = -1
    value: float = -math.inf
    loss: float = math.inf
    anchor: float = -math.inf
    waited: int = 0

    def update(self, epoch: int, row: Mapping[str, float]) -> bool:
        """Take in an epoch's row of metrics and tell whether it is the best so far."""
        value, loss = self._value(row), row["val_loss"]
        if value > self.anchor + self.min_delta:
            self.anchor, self.waited = value, 0
        else:
            self.waited += 1
        better = self.epoch < 0 or (value, -loss) > (self.value, -self.loss)
        if better:
            self.epoch, self.value, self.loss = epoch, value, loss
        return better

    @property
    def exhausted(self) -> bool:
        """Whether the patience is at its end."""
        return self.patience is not None and self.waited >= self.patience

    def _value(self, row: Mapping[str, float]) -> float:
        value = row[f"val_{self.metric}"]
        if math.isnan(value):
            return -math.inf
        return -value if self.metric == "loss" else value
