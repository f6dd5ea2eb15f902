"""The one error that is the user's to mend."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class UserError(Exception):
    """A mistake in the input: one line saying what is wrong, where, and what to do.

    The command line prints it without a traceback and ends with exit code 2.
    """


class Doubt(UserWarning):
    """A number was measured, and something speaks against it: one sentence that stops nothing."""


@contextmanager
def gathered() -> Iterator[list[str]]:
    """Yield a list that holds, at the end, each `Doubt` that was warned of, once.

    Other warnings stay warnings.
    """
    doubts: list[str] = []
    found: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always", Doubt)
            yield doubts
    finally:
        ours = [each for each in found if issubclass(each.category, Doubt)]
        doubts += dict.fromkeys(" ".join(str(each.message).split()) for each in ours)
        for each in found:
            if each not in ours:
                warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest known word, or the known words."""
    known = sorted(known)
    close = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}."
