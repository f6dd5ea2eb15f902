"""Queries that go through a net as changes in bfloat16: what tests see, and make of them."""

from __future__ import annotations

from diascope.models.changes import Changes, trial
from diascope.models.frozen import FrozenModel


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


def passes(monkeypatch, more_than=8):
    """Return lists of the sizes of larger batches to come: in float32, and by changes."""
    asked, changed = [], []
    for owner, name, seen in ((FrozenModel, "forward", asked), (Changes, "__call__", changed)):
        old = getattr(owner, name)

        def new(self, x, *others, old=old, seen=seen):
            if len(x) > more_than:
                seen.append(len(x))
            return old(self, x, *others)

        monkeypatch.setattr(owner, name, new)
    return asked, changed
