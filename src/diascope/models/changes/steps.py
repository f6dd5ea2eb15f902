"""The operations that a change goes through, gone through again without the net's own code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diascope.models.changes.rules import NoRuleError
from diascope.models.changes.tape import Tape

Todo = tuple[Callable[..., Any], Any, Any]  # a function, its arguments, those with names


@dataclass(frozen=True)
class Slot:
    """Stands for the n-th tensor on the way."""

    n: int


@dataclass(frozen=True)
class Entry:
    """Stands for the n-th entry of the tape."""

    n: int


@dataclass(frozen=True)
class Step:
    """func(*args, **kwargs), with slots and entries among them; low: under autocast.

    out: the slots of the tensors that it gives.
    """

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    low: bool
    out: list[int]


class Steps:
    """What was done to the change of maps, step by step, each an operation of torch or a rule.

    tape: what is known of the net, and met: how many of its entries were met. maps: the change, the
    first tensor on the way. before: other steps that gave it.
    """

    def __init__(self, tape: Tape, maps: Tensor, before: Steps | None = None) -> None:
        self.tape, self.before = tape, before
        self.met: int = 0 if before is None else before.met
        self.steps: list[Step] = []
        self._device = maps.device.type
        self._tensors, self._numbers = [maps], {id(maps): 0}
        self._gone: list[list[int]] = []
        self.ended = False

    def do(self, todo: Todo, wrap: Callable[..., Any]) -> Any:
        """Do a step and return what it gives, each tensor as `wrap` makes it of it and its slot."""
        func, args, kwargs = todo
        tensors, entries = self._tensors, self.tape.entries
        made = func(*_filled(args, tensors, entries), **_filled(kwargs, tensors, entries))
        given = _each(made)
        if not all(isinstance(each, Tensor) for each in given):
            return made
        if not all(each.is_floating_point() for each in given):
            raise NoRuleError(f"numbers of another kind, by {func.__name__}")
        out = [self._number(each) for each in given]
        low = torch.is_autocast_enabled(self._device)
        self.steps.append(Step(func, args, kwargs, low, out))
        wrapped = [wrap(each, n) for each, n in zip(given, out, strict=True)]
        return type(made)(wrapped) if isinstance(made, list | tuple) else wrapped[0]

    def _number(self, tensor: Tensor) -> int:
        """Return the number of a tensor, an old one's if that was written over."""
        if id(tensor) not in self._numbers:
            self._numbers[id(tensor)] = len(self._tensors)
            self._tensors.append(tensor)
        return self._numbers[id(tensor)]

    def end(self, result: int) -> None:
        """Forget the tensors and the tape; the one of that number is the result."""
        last = {result: len(self.steps)}
        for n in reversed(range(len(self.steps))):
            step = self.steps[n]
            for slot in (*_slots(step.args), *_slots(step.kwargs), *step.out):
                last.setdefault(slot, n)
        self._gone = [[] for _ in self.steps]
        for slot, n in last.items():
            if n < len(self.steps):
                self._gone[n].append(slot)
        self._result, self._count = result, len(self._tensors)
        self._tensors, self._numbers = [], {}
        self.tape, self.ended = Tape(self.tape.count), True

    def again(self, tape: Tape, maps: Tensor) -> Tensor:
        """Return what the same steps give of other maps, which are overwritten, by another tape."""
        tensors: list[Any] = [maps, *[None] * (self._count - 1)]
        with torch.autocast(self._device, torch.bfloat16):
            for step, gone in zip(self.steps, self._gone, strict=True):
                args = _filled(step.args, tensors, tape.entries)
                kwargs = _filled(step.kwargs, tensors, tape.entries)
                if step.low:
                    made = step.func(*args, **kwargs)
                else:
                    with torch.autocast(self._device, enabled=False):
                        made = step.func(*args, **kwargs)
                for n, each in zip(step.out, _each(made), strict=True):
                    tensors[n] = each
                for n in gone:
                    tensors[n] = None
        return tensors[self._result]  # type: ignore[no-any-return]


def _each(made: Any) -> list[Any]:
    """Return what an operation gives, as a list."""
    return list(made) if isinstance(made, list | tuple) else [made]


def _filled(value: Any, tensors: list[Any], entries: list[tuple[Tensor, ...]]) -> Any:
    """Return arguments with what stands in the slots."""
    kind = type(value)
    if kind is Slot:
        return tensors[value.n]
    if kind is Entry:
        return entries[value.n]
    if kind is tuple or kind is list:
        return kind([_filled(each, tensors, entries) for each in value])
    if kind is dict:
        return {name: _filled(each, tensors, entries) for name, each in value.items()}
    return value


def _slots(value: Any) -> list[int]:
    """Return the numbers of the slots among arguments."""
    if isinstance(value, Slot):
        return [value.n]
    if type(value) is dict:
        value = list(value.values())
    return [n for each in value for n in _slots(each)] if type(value) in (tuple, list) else []
