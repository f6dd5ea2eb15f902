"""Maps on their way through a net's own code, and what is seen of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import torch
from torch import Tensor

from diascope.models.changes import rules
from diascope.models.changes.rules import Function, NoRuleError, Rule
from diascope.models.changes.steps import Entry, Slot, Steps, Todo
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
        first, rule = maps[0], rules.rule_of(func.__name__, args, kwargs, maps)
        if rule == "asked" and not isinstance(made := func(*args, **kwargs), Tensor):
            return made
        if first.whole:
            return cls._until_pooled(func, args, kwargs, first, rule)
        steps, todo = first.steps, _for_changes(func, args, kwargs, maps, rule)
        return steps.do(_with_slots(todo), lambda made, slot: cls.of(made, steps, slot))

    @classmethod
    def _until_pooled(cls, func: Function, args: Any, kwargs: Any, maps: Self, rule: Rule) -> Any:
        """Do an operation on the maps themselves, the last of them the pooling."""
        name, steps = func.__name__, maps.steps
        if steps.ended:
            raise NoRuleError("another way around the pooling")
        if name == _POOL:
            known = _next(steps, [])
            todo: Todo = rules.pooled, (func, args, kwargs, known, maps.rectified), {}

            def begun(made: Tensor, slot: int) -> Change:
                after = Steps(steps.tape, made, before=steps)
                steps.end(slot)
                return cls.of(made, after)

            return steps.do(_with_slots(todo), begun)
        if maps.rectified or rule not in ("asked", "linear", "rectifier"):
            raise NoRuleError(f"{name} before {_POOL}")
        if rule == "rectifier":
            return cls.of(maps, steps, maps.slot, True, rectified=True)
        todo = func, args, kwargs
        return steps.do(_with_slots(todo), lambda made, slot: cls.of(made, steps, slot, True))


def _for_changes(func: Function, args: Any, kwargs: Any, changes: list[Any], rule: Rule) -> Todo:
    """Return what does to changes what an operation does to maps."""
    name, steps = func.__name__, changes[0].steps
    if rule == "sum":
        return func, *rules.summands(name, args, kwargs, lambda e: isinstance(e, Change))
    if rule == "weighed":
        return func, *rules.unbiased(name, args, kwargs)
    over = changes[0] if rules.in_place(name, args, kwargs) else None
    if rule == "rectifier":
        return rules.rectified, (changes[0], _next(steps, changes), over), {}
    if rule == "curved":
        known = _next(steps, changes)
        return rules.difference, (func, args, kwargs, changes, known, over), {}
    return func, args, kwargs


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
