"""Quantities: the numbers that claims are about, as a study file writes them.

A quantity is

- a number;
- "RUN/EVALUATION.COLUMN", the mean of a column over images and seeds;
- "balanced:RUN/EVALUATION.COLUMN", the mean over the classes of its mean in each class; without a
  column, of "correct";
- "auroc:RUN/EVALUATION", of the columns label and prob_<class>;
- {mean: [q, q, ...]}, {minus: [q, q]}, {times: [number, q]}.

" where all_correct" behind one that names a run: over the images that every run of the claim
classifies correctly. A run's name has no "/", an evaluation's no ".", a column may have both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import reduce
from typing import Any, TypeVar

from diascope.errors import UserError, nearest
from diascope.studies.study import Study

STATISTICS = ("auroc", "balanced")
CONDITIONS = ("all_correct",)
OPERATIONS = ("mean", "minus", "times")
GIVEN = ("correct", "loss", "prob_*")  # numbers that every table has
OF_ONE = ("_redrawn", "_noised", "_elsewhere")  # of an agreement: of the model with itself
ATTACKED = re.compile(r"(?P<attack>[^@.]+)@(?P<eps>[^@]+)")  # a column: correct under attack
STRONGEST = "strongest"

T = TypeVar("T")


@dataclass(frozen=True)
class Atom:
    """A statistic of one column of one evaluation of one run.

    statistic: "mean", "balanced" or "auroc", which has no column. where: "" or "all_correct".
    """

    run: str
    evaluation: str
    column: str = ""
    statistic: str = "mean"
    where: str = ""

    def __str__(self) -> str:
        statistic = "" if self.statistic == "mean" else f"{self.statistic}:"
        column = f".{self.column}" if self.column else ""
        where = f" where {self.where}" if self.where else ""
        return f"{statistic}{self.run}/{self.evaluation}{column}{where}"


@dataclass(frozen=True)
class Number:
    """A number that the study file gives."""

    value: float

    def __str__(self) -> str:
        return f"{self.value:g}"


@dataclass(frozen=True)
class Combined:
    """What `operation` ("mean", "minus", "times") makes of its parts."""

    operation: str
    parts: tuple[Quantity, ...]

    def __str__(self) -> str:
        told = [f"({p})" if isinstance(p, Combined) else str(p) for p in self.parts]
        if self.operation == "mean":
            return f"mean of {', '.join(told)}"
        return (" - " if self.operation == "minus" else " x ").join(told)


Quantity = Atom | Number | Combined


def parse(written: object, where: str) -> Quantity:
    """Return the quantity that a study file writes; a `UserError` begins with `where`."""
    if isinstance(written, Mapping):
        return _combined(written, where)
    if isinstance(written, str):
        return _atom(" ".join(written.split()), where)
    if isinstance(written, int | float) and not isinstance(written, bool):
        if not math.isfinite(written):
            raise UserError(f"{where}: {written} is not a finite number")
        return Number(float(written))
    raise UserError(f"{where}: {written!r}: write a number, 'RUN/EVALUATION.COLUMN', or {_FORMS}")


_FORMS = "a mapping with one of " + ", ".join(OPERATIONS)


def _combined(written: Mapping[Any, Any], where: str) -> Quantity:
    if len(written) != 1:
        raise UserError(f"{where}: {dict(written)}: write {_FORMS}, and nothing beside it")
    [(operation, operands)] = written.items()
    if operation not in OPERATIONS:
        known = nearest(str(operation), OPERATIONS)
        raise UserError(f"{where}: no operation '{operation}': {known}")
    if not isinstance(operands, list | tuple) or not operands:
        raise UserError(f"{where}.{operation}: write a list, such as [q, q]")
    if operation != "mean" and len(operands) != 2:
        raise UserError(f"{where}.{operation}: two are needed, {len(operands)} given")
    parts = tuple(parse(each, f"{where}.{operation}") for each in operands)
    if operation == "times" and not isinstance(parts[0], Number):
        raise UserError(f"{where}.times: the first must be a number, not '{parts[0]}'")
    return Combined(operation, parts)


def _atom(text: str, where: str) -> Atom:
    said = f"{where}: '{text}'"
    body, where_, condition = text.partition(" where ")
    if where_ and condition not in CONDITIONS:
        raise UserError(f"{said}: no condition '{condition}': {nearest(condition, CONDITIONS)}")
    head, colon, rest = body.partition(":")
    statistic, body = (head, rest) if colon and "/" not in head else ("mean", body)
    if statistic not in (*STATISTICS, "mean"):
        raise UserError(f"{said}: no statistic '{statistic}': {nearest(statistic, STATISTICS)}")
    run, slash, rest = body.partition("/")
    evaluation, _, column = rest.partition(".")
    if not slash or not run or not evaluation or " " in body:
        raise UserError(f"{said}: write RUN/EVALUATION.COLUMN")
    if statistic == "auroc" and column:
        raise UserError(f"{said}: an AUROC is of the columns prob_<class>; write auroc:{run}/"
                        f"{evaluation}")  # fmt: skip
    if statistic == "balanced":
        column = column or "correct"
    if statistic == "mean" and not column:
        raise UserError(f"{said}: which column? write {run}/{evaluation}.COLUMN")
    return Atom(run, evaluation, column, statistic, condition)


def atoms(quantity: Quantity) -> list[Atom]:
    """Return what a quantity reads of the tables, each once, in the order of its writing."""
    return list(dict.fromkeys(_leaves(quantity)))


def _leaves(quantity: Quantity) -> Iterator[Atom]:
    if isinstance(quantity, Atom):
        yield quantity
    elif isinstance(quantity, Combined):
        for part in quantity.parts:
            yield from _leaves(part)


def compute(quantity: Quantity, of: Callable[[Atom], T], number: Callable[[float], T]) -> T:
    """Return the value of a quantity, given those of its atoms and numbers (arrays do)."""
    if isinstance(quantity, Atom):
        return of(quantity)
    if isinstance(quantity, Number):
        return number(quantity.value)
    values: list[Any] = [compute(part, of, number) for part in quantity.parts]
    if quantity.operation == "mean":
        return reduce(lambda a, b: a + b, values) / len(values)  # type: ignore[no-any-return]
    first, second = values
    return first - second if quantity.operation == "minus" else first * second  # type: ignore[no-any-return]


def replaced(quantity: Quantity, by: Callable[[Atom], Atom]) -> Quantity:
    """Return the quantity with each of its atoms replaced."""
    if isinstance(quantity, Atom):
        return by(quantity)
    if isinstance(quantity, Combined):
        return Combined(quantity.operation, tuple(replaced(part, by) for part in quantity.parts))
    return quantity


def check(found: Sequence[Atom], study: Study, where: str, *, columns: bool = True) -> None:
    """Raise `UserError`, with the nearest right name, for what a study does not have."""
    for atom in found:
        said = f"{where}: '{atom}'"
        if atom.run not in study.runs:
            raise UserError(f"{said}: no run '{atom.run}': {nearest(atom.run, study.runs)}")
        if atom.evaluation not in study.evaluations:
            known = nearest(atom.evaluation, study.evaluations)
            raise UserError(f"{said}: no evaluation '{atom.evaluation}': {known}")
        runs = study.evaluations[atom.evaluation].runs
        if runs is not None and atom.run not in runs:
            raise UserError(
                f"{said}: '{atom.evaluation}' is not of '{atom.run}'; add it to "
                f"evaluations.{atom.evaluation}.runs"
            )
        if columns and atom.column:
            _check_column(atom, study, said)


def _check_column(atom: Atom, study: Study, said: str) -> None:
    from diascope.studies.evaluations import EVALUATIONS

    spec = study.evaluations[atom.evaluation].measure
    known = EVALUATIONS.build(spec, f"evaluations.{atom.evaluation}.measure").columns()
    known = [*known, *GIVEN]
    if not any(fnmatchcase(atom.column, pattern) for pattern in known):
        raise UserError(f"{said}: no column '{atom.column}': {nearest(atom.column, known)}")
