"""Queries that go through a net as changes in bfloat16: what tests see, and make of them."""

from __future__ import annotations

import torch
from torch import nn

from diascope.models.changes import Changes, trial
from diascope.models.frozen import FrozenModel


class Pooling(nn.Module):
    """A net of digits behind a stem with a pooling."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv, self.next = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
            self.head = nn.Linear(16, 10)
        self.requires_grad_(False)

    def forward(self, x):
        maps = torch.max_pool2d(self.conv(x).relu(), 3, 1, 1)
        return self.head(self.next(maps).relu().mean((2, 3))) * 20


def changes_with(monkeypatch, answer):
    """Have changes answered by `answer` of (themselves, x, base, where) once they were tried."""
    answered = []

    class Other(Changes):
        def __call__(self, x, base, where=None):
            answered.append(where)
            return answer(self, x, base, where)

    def changes_of(*args, **kwargs):
        changes = honest(*args, **kwargs)
        assert changes is not None
        changes.__class__ = Other
        return changes

    honest = trial.changes_of
    monkeypatch.setattr(trial, "changes_of", changes_of)
    return answered


def passes(monkeypatch, more_than=0):
    """Return lists of the sizes of batches to come: in float32, and by changes.

    What is known in float32 (`Changes.known`) is in neither.
    """
    asked, changed = [], []
    for owner, name, seen in ((FrozenModel, "forward", asked), (Changes, "__call__", changed)):
        old = getattr(owner, name)

        def new(self, x, *others, old=old, seen=seen):
            if len(x) > more_than:
                seen.append(len(x))
            return old(self, x, *others)

        monkeypatch.setattr(owner, name, new)
    return asked, changed
