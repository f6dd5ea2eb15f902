"""Answers of a model at points near those where it is known: changes in bfloat16, doubts asked."""

from __future__ import annotations

import torch
from torch import Tensor

from diascope.attacks.losses import margin
from diascope.attacks.starting_points import Oracle
from diascope.models.changes import Changes

_FIRST, _CHECK = 5, 25  # queries, the first and then every so many, whose answers are all checked
_TIMES = 2.0  # of the largest error seen of late: what may be amiss
_FADE = 0.9  # what is left of an error seen, each time that float32 is asked again


class Nearby:
    """The answers at points near others, at which the model is known in float32.

    Only the changes go through the net in bfloat16 (`diascope.models.changes`). How far their
    margins are off for each unit of the way is seen at the first queries, at every 25th, and
    wherever else float32 is asked: where a margin is smaller than that may make it. Row n of what
    is kept stands for the n-th image of the walk.

    known: the points (n, C, H, W) and what is known there. rate (n,): the error of the margin over
    the length of the way, the largest of late.
    """

    def __init__(self, oracle: Oracle, changes: Changes, points: Tensor) -> None:
        self.oracle, self.changes, self.known = oracle, changes, changes.known(points)
        self.rate, self._queries = points.new_zeros(len(points)), 0

    def broken(self, points: Tensor, images: Tensor) -> Tensor:
        """Return whether points (n, C, H, W) are what is sought, (n,); a query of each image.

        images (n,): their numbers in the oracle.
        """
        logits, y = self.changes(points, self.known), self.oracle.y[images]
        way = torch.linalg.vector_norm((points - self.known.x).flatten(1), dim=1)
        told = margin(logits, y)
        sure = told.abs() > _TIMES * self.rate * way  # not where it is no number
        if self._queries < _FIRST or self._queries % _CHECK == 0:
            sure.zero_()
        again = (~sure).nonzero()[:, 0]
        if len(again):
            logits[again] = self.oracle.net(points[again])
            off = (told - margin(logits, y)).abs()[again] / way[again]
            rate = torch.maximum(_FADE * self.rate[again], off.nan_to_num(nan=torch.inf))
            self.rate[again] = torch.where(way[again] > 0, rate, self.rate[again])
        self._queries += 1
        self.oracle.count(images)
        return self.oracle.answer(logits, images)

    def settle(self, points: Tensor, images: Tensor, at: Tensor) -> Tensor:
        """Ask in float32 about where the walks `at` (m,) have come to; these are known from now.

        points (m, C, H, W), images (m,): theirs. Returns which points are denied, (m,) bool; their
        walks stay known where they were.
        """
        found = self.changes.known(points)
        holds = self.oracle.answer(found.logits, images)
        kept = holds.nonzero()[:, 0]
        self.known.put(at[kept], found if len(kept) == len(holds) else found.take(kept))
        return ~holds

    def take(self, keep: Tensor) -> None:
        """Let all but the walks `keep` (m,) leave."""
        self.known, self.rate = self.known.take(keep), self.rate[keep]
