"""Claims as a study states them, with their quantities read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diascope.errors import UserError
from diascope.evaluation.resampling import Floats
from diascope.studies.claims import CLAIMS, Claim
from diascope.studies.inference import Affine
from diascope.studies.quantities import Atom, Quantity, atoms, check, compute, parse
from diascope.studies.study import Study


@dataclass(frozen=True)
class Stated:
    """A claim of a study as it was read, and its quantities."""

    claim: Claim
    quantities: tuple[Quantity, ...]

    @property
    def atoms(self) -> list[Atom]:
        """What it reads of the tables, each once."""
        return list(dict.fromkeys(atom for q in self.quantities for atom in atoms(q)))

    def affine(self, pieces: Callable[[Floats], Floats], own: list[Atom]) -> Affine:
        """Return pieces of the quantities as pieces of the atoms `own`."""
        return Affine.of(lambda values: pieces(self.values(values, own)), len(own))

    def values(self, of_atoms: Floats, own: list[Atom]) -> Floats:
        """Return the quantities (Q, ...) of atoms' values (A, ...)."""
        place = {atom: a for a, atom in enumerate(own)}
        shape = of_atoms.shape[1:]
        return np.stack(
            [
                compute(q, lambda atom: of_atoms[place[atom]], lambda v: np.full(shape, v))
                for q in self.quantities
            ]
        )


def read_claims(study: Study, file: str = "", *, columns: bool = True) -> dict[str, Stated]:
    """Return the claims of a study by name; a `UserError` says what they name wrongly.

    file: of the study, for messages. columns: whether to ask the evaluations for their columns.
    """
    read = {}
    for name, spec in study.claims.items():
        where = f"{file}: claims.{name}" if file else f"claims.{name}"
        claim: Claim = CLAIMS.build(spec.test, f"{where}.test")
        stated = Stated(claim, tuple(parse(q, f"{where}.test") for q in claim.quantities))
        if not stated.atoms:
            raise UserError(
                f"{where}.test: only numbers are compared; name a RUN/EVALUATION.COLUMN"
            )
        check(stated.atoms, study, f"{where}.test", columns=columns)
        read[name] = stated
    return read
