"""Answers of a model at points near those where it is known: changes in bfloat16, no doubts."""

from __future__ import annotations

import torch
from torch import Tensor

from diascope.attacks.base import broken_and_finite
from diascope.attacks.losses import margin
from diascope.attacks.starting_points import Oracle
from diascope.models.changes import Changes

_DOUBT = 0.01  # of a change of the logits: what may be amiss with it, well above what usually is
_DENIED, _FEW = 0.25, 8  # share of points, if not few, which may be denied: else no more changes


class Nearby:
    """The answers at points near others, at which the model is known in float32.

    Only the changes go through the net in bfloat16 (`diascope.models.changes`). Where a margin is
    no larger than what may be amiss with its change, the model is asked in float32. Each row stands
    for one image of the walk.
    """

    def __init__(self, oracle: Oracle, changes: Changes, points: Tensor) -> None:
        self.oracle, self.changes, self.known = oracle, changes, changes.known(points)
        self._settled = self._denied = 0

    def broken(self, points: Tensor, rows: Tensor) -> Tensor:
        """Return whether points (n, C, H, W) of the images `rows` (n,) are what is sought, (n,)."""
        logits = self.changes(points, self.known)
        doubt = _DOUBT * torch.linalg.vector_norm(logits - self.known.logits, dim=1)
        sure = margin(logits, self.oracle.y[rows]).abs() > doubt  # not where it is no number
        again = (~sure).nonzero()[:, 0]
        if len(again):
            logits[again] = self.oracle.net(points[again])
        return self.oracle.answer(logits, rows)

    def settle(self, points: Tensor, rows: Tensor, places: Tensor) -> tuple[Tensor, bool]:
        """Ask in float32 about the points (n, C, H, W) at `places` (n,), and know these from now.

        Returns which of them are denied, (n,) bool, whose images stay known where they were, and
        whether so many were that the changes are not to be trusted.
        """
        found = self.changes.known(points)
        y, targeted = self.oracle.y[rows], self.oracle.targeted
        holds = broken_and_finite(found.logits, y, targeted=targeted)[0]
        kept = holds.nonzero()[:, 0]
        self.known.put(places[kept], found if len(kept) == len(holds) else found.take(kept))
        self._settled, self._denied = self._settled + len(holds), self._denied + int((~holds).sum())
        return ~holds, self._denied > max(_FEW, _DENIED * self._settled)

    def take(self, keep: Tensor) -> None:
        """Let all but the images at the places `keep` leave."""
        self.known = self.known.take(keep)
