"""Points at which a net is known in float32."""

from __future__ import annotations

import torch
from torch import Tensor

from diascope.models.changes.around import Patch
from diascope.models.changes.tape import Tape


class Points:
    """Points (B, C, H, W), their logits (B, K) in float32, and what is kept of their maps.

    drift: in a net that begins with a pooling, by how much the pooled maps of where the images are
    by now are others, (B, h, w, c) in bfloat16.
    """

    def __init__(self, x: Tensor, logits: Tensor, tape: Tape, drift: Tensor | None = None) -> None:
        self.x, self.logits, self.tape, self.drift = x, logits, tape, drift
        self._asked: Tensor | None = None  # the drift of what was last asked about
        if tape.pooled and drift is None:
            pooled = tape.entries[0][0].permute(0, 2, 3, 1)
            self.drift = torch.zeros_like(pooled, dtype=torch.bfloat16)

    def take(self, rows: Tensor) -> Points:
        """Return some of them."""
        drift = None if self.drift is None else self.drift[rows]
        return Points(self.x[rows], self.logits[rows], self.tape.take(rows), drift)

    def put(self, rows: Tensor, new: Points) -> None:
        """Write others in the places `rows`, to which the images have moved."""
        self.x[rows], self.logits[rows] = new.x, new.logits
        self.tape.put(rows, new.tape)
        self.returned(rows)

    def moved(self, rows: Tensor) -> None:
        """Note that some images have moved to where they were last asked about."""
        if self.drift is not None:
            assert self._asked is not None
            self.drift[rows] = self._asked[rows]

    def returned(self, rows: Tensor) -> None:
        """Note that some images are at the points themselves."""
        if self.drift is not None:
            self.drift[rows] = 0

    def drifted(self, patch: Patch) -> Tensor:
        """Return the drift of images of which, since they have moved, a patch is another."""
        assert self.drift is not None
        drift = self.drift.clone()
        pooled = self.tape.entries[0][0].permute(0, 2, 3, 1)
        drift[patch.where] = (patch.values - pooled[patch.where]).bfloat16()
        return drift

    def asked(self, drift: Tensor) -> None:
        """Note the drift of what is asked about."""
        self._asked = drift
