"""Maps on their way through a net's own code, and what is seen of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import torch
from torch import Tensor

from diascope.models.changes import rules
from diascope.models.changes.rules import Function, NoRuleError
from diascope.models.changes.steps import Entry, Slot, Steps
from diascope.models.changes.tape import Tape

_POOL = "max_pool2d"


class _Traced(Tensor):
    """Maps (B, ...) whose operations go through `_made`."""

    @classmethod
    def __torch_function__(
        cls, func: Function, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            return cls._made(func, args, kwargs, list(_among((*args, *kwargs.values()))))

    @classmethod
    def _made(cls, func: Function, args: Any, kwargs: Any, maps: list[Self]) -> Any:
        raise NotImplementedError


class Known(_Traced):
    """Maps of which is kept, on `tape`, what operations that are not linear take in and give."""

    tape: Tape
    begins: bool  # whether nothing but rectifiers was met on the way

    @classmethod
    def of(cls, maps: Tensor, tape: Tape, begins: bool = True) -> Self:
        """Return the same values, traced."""
        known = maps.as_subclass(cls)
        known.tape, known.begins = tape, begins
        return known

    @classmethod
    def _made(cls, func: Function, args: Any, kwargs: Any, maps: list[Self]) -> Any:
        name, tape = func.__name__, maps[0].tape
        rule = rules.rule_of(name, args, kwargs, maps)
        begins = maps[0].begins and rule in ("asked", "linear", "rectifier")
        if rule == "rectifier" and len(maps[0]) != tape.count:
            raise NoRuleError(f"{name} of other than the images")
        if rule == "rectifier":
            tape.entries.append(rules.of_rectifier(maps[0]))
        if rule != "curved":
            return cls._wrapped(func(*args, **kwargs), tape, begins)
        taken = tuple(z.clone() for z in maps)
        if maps[0].begins and name == _POOL:
            tape.pooled, taken = True, ()
            tape.entries.clear()
        made = func(*args, **kwargs)
        if not isinstance(made, Tensor) or any(len(z) != tape.count for z in (*taken, made)):
            raise NoRuleError(f"{name} of other than the images")
        tape.entries.append((*taken, made.clone()))
        return cls._wrapped(made, tape, begins)

    @classmethod
    def _wrapped(cls, made: Any, tape: Tape, begins: bool) -> Any:
        if isinstance(made, Tensor):
            return cls.of(made, tape, begins)
        if isinstance(made, list | tuple) and any(isinstance(each, Tensor) for each in made):
            return type(made)(cls._wrapped(each, tape, begins) for each in made)
        return made


class Change(_Traced):
    """A change of maps, or while `whole` the maps that have changed, up to a max-pooling.

    What is done to it is written down in `steps`, in which it has a `slot`. rectified: whether a
    rectifier is put off until after the pooling.
    """

    steps: Steps
    slot: int
    whole: bool
    rectified: bool

    @classmethod
    def of(
        cls, maps: Tensor, steps: Steps, slot: int = 0, whole: bool = False, rectified: bool = False
    ) -> Self:
        """Return the same values, traced."""
        change = maps.as_subclass(cls)
        change.steps, change.slot = steps, slot
        change.whole, change.rectified = whole, rectified
        return change

    @classmethod
    def _made(cls, func: Function, args: Any, kwargs: Any, maps: list[Self]) -> Any:
        name, first = func.__name__, maps[0]
        steps, whole, rectified = first.steps, first.whole, first.rectified
        rule = rules.rule_of(name, args, kwargs, maps)
        if rule == "asked" and not isinstance(made := func(*args, **kwargs), Tensor):
            return made
        over = first if rules.in_place(name, args, kwargs) else None
        if first.whole and steps.ended:
            raise NoRuleError("another way around the pooling")
        if whole and name != _POOL and (rectified or rule in ("weighed", "sum", "curved")):
            raise NoRuleError(f"{name} before {_POOL}")
        if whole and rule == "rectifier":
            return cls.of(first, steps, first.slot, True, rectified=True)
        if whole and name == _POOL:
            known = _next(steps, [])
            func, args, kwargs = rules.pooled, (func, args, kwargs, known, rectified), {}
            whole = False
        elif rule == "sum":
            args, kwargs = rules.summands(name, args, kwargs, lambda e: isinstance(e, Change))
        elif rule == "weighed":
            args, kwargs = rules.unbiased(name, args, kwargs)
        elif rule == "rectifier":
            func, args, kwargs = rules.rectified, (first, _next(steps, maps), over), {}
        elif rule == "curved":
            known = _next(steps, maps)
            func, args, kwargs = rules.difference, (func, args, kwargs, maps, known, over), {}

        def wrap(made: Tensor, slot: int) -> Change:
            if not made.is_floating_point():
                raise NoRuleError(f"{name} to {made.dtype}")
            if first.whole and not whole:  # the pooling: here the change itself begins
                after = Steps(steps.tape, made, before=steps)
                steps.end(slot)
                return cls.of(made, after)
            return cls.of(made, steps, slot, whole, rectified)

        return steps.do(func, _with_slots(args), _with_slots(kwargs), wrap)


def _next(steps: Steps, changes: list[Any]) -> Entry:
    """Return the next entry of the tape, which must be of arguments that change so."""
    place = steps.met
    steps.met += 1
    entry = steps.tape.entries[place] if place < len(steps.tape.entries) else ()
    if [z.shape for z in entry[: len(changes)]] != [change.shape for change in changes]:
        raise NoRuleError("another operation than when the maps were kept")
    return Entry(place)


def _with_slots(value: Any) -> Any:
    """Return arguments with slots in the place of changes."""
    if isinstance(value, Change):
        return Slot(value.slot)
    if type(value) in (tuple, list):
        return type(value)(_with_slots(each) for each in value)
    if type(value) is dict:
        return {name: _with_slots(each) for name, each in value.items()}
    return value


def _among(values: Iterable[Any]) -> Iterable[Any]:
    """Yield the traced tensors among values and sequences of them."""
    for value in values:
        if isinstance(value, _Traced):
            yield value
        elif isinstance(value, list | tuple):
            yield from _among(value)
