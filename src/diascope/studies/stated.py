"""Claims as a study states them, with their quantities read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from diascope.errors import UserError
from diascope.evaluation.resampling import Floats
from diascope.studies.claims import CLAIMS, Claim
from diascope.studies.inference import Affine, images_for, least_room
from diascope.studies.quantities import (
    ATTACKED,
    Atom,
    Quantity,
    atoms,
    check,
    compute,
    parse,
    replaced,
)
from diascope.studies.study import Study

TAIL = 0.025  # of either side


@dataclass(frozen=True)
class Stated:
    """A claim of a study as it was read, its quantities, and what it presupposes.

    above: pairs of quantities, of which the first must lie above the second for the claim to hold.
    """

    claim: Claim
    quantities: tuple[Quantity, ...]
    above: tuple[tuple[Quantity, Quantity], ...] = ()

    @property
    def atoms(self) -> list[Atom]:
        """What it reads of the tables, each once."""
        conditions = [q for pair in self.above for q in pair]
        return list(dict.fromkeys(a for q in [*self.quantities, *conditions] for a in atoms(q)))

    def describe(self) -> str:
        """Return the claim in symbols, with what it presupposes."""
        return ", and ".join([self.claim.describe(), *(f"{a} > {b}" for a, b in self.above)])

    def replaced(self, by: Callable[[Atom], Atom]) -> Stated:
        """Return the same of other atoms."""
        quantities = tuple(replaced(q, by) for q in self.quantities)
        above = tuple((replaced(a, by), replaced(b, by)) for a, b in self.above)
        return Stated(self.claim, quantities, above)

    def affine(self, pieces: Callable[[Floats], Floats], own: list[Atom]) -> Affine:
        """Return pieces of the quantities as pieces of the atoms `own`."""
        return Affine.of(lambda values: pieces(self.values(values, own)), len(own))

    def contrasts(self, own: list[Atom]) -> Affine:
        """Return all that must be above 0: in each alternative the claim's contrasts and `above`.

        The K alternatives one after the other, each its contrasts and then the conditions.
        """
        blocks = self.claim.alternatives

        def all_of(values: Floats) -> Floats:
            contrasts = self.claim.contrasts(self.values(values, own))
            inner = contrasts.reshape(blocks, -1, *contrasts.shape[1:])
            conditions = self.differences(values, own)
            each = np.broadcast_to(conditions, (blocks, *conditions.shape))
            joint = np.concatenate([inner, each], axis=1)
            return joint.reshape(-1, *contrasts.shape[1:])

        return Affine.of(all_of, len(own))

    def differences(self, of_atoms: Floats, own: list[Atom]) -> Floats:
        """Return how far above its level each condition is, (C, ...), of atoms' values (A, ...)."""
        if not self.above:
            return np.empty((0, *of_atoms.shape[1:]))
        return np.stack(
            [_value(a, of_atoms, own) - _value(b, of_atoms, own) for a, b in self.above]
        )

    def values(self, of_atoms: Floats, own: list[Atom]) -> Floats:
        """Return the quantities (Q, ...) of atoms' values (A, ...)."""
        return np.stack([_value(q, of_atoms, own) for q in self.quantities])


def _value(quantity: Quantity, of_atoms: Floats, own: list[Atom]) -> Floats:
    shape = of_atoms.shape[1:]
    return compute(quantity, lambda a: of_atoms[own.index(a)], lambda v: np.full(shape, v))


def read_claims(study: Study, file: str = "", *, columns: bool = True) -> dict[str, Stated]:
    """Return the claims of a study by name; a `UserError` says what they name wrongly.

    file: of the study, for messages. columns: whether to ask the evaluations for their columns.
    """
    read = {}
    for name, spec in study.claims.items():
        where = f"{file}: claims.{name}" if file else f"claims.{name}"
        claim: Claim = CLAIMS.build(spec.test, f"{where}.test")
        quantities = tuple(parse(q, f"{where}.test") for q in claim.quantities)
        above = tuple(
            (parse(q, f"{where}.above"), parse(level, f"{where}.above"))
            for q, level in spec.above.items()
        )
        stated = Stated(claim, quantities, above)
        if not Stated(claim, quantities).atoms:
            raise UserError(
                f"{where}.test: only numbers are compared; name a RUN/EVALUATION.COLUMN"
            )
        for a, b in above:
            if not (atoms(a) or atoms(b)):
                raise UserError(f"{where}.above: '{a}': name a RUN/EVALUATION.COLUMN and its level")
        check(Stated(claim, quantities).atoms, study, f"{where}.test", columns=columns)
        check(stated.atoms, study, f"{where}.above", columns=columns)
        read[name] = stated
    return read


def undecidable(study: Study) -> list[str]:
    """Return a line of each claim that allows a smaller difference than its images can rule out.

    What is said to differ by less than so much (`equal`, a negative margin, a tolerance) cannot be
    supported where even images that all agree leave more than that open. Told of claims about
    shares of images, of tests that say how many images they take; before any correction for the
    number of claims.
    """
    lines = []
    for name, stated in read_claims(study, columns=False).items():
        room, images = stated.claim.room, _images(stated, study)
        if not 0 < room < 1 or images is None or (least := least_room(images, TAIL)) < room:
            continue
        lines.append(
            f"claim {name}: a difference of less than {room:g} cannot be shown on {images:,} "
            f"{'image' if images == 1 else 'images'}: even where all agree it may be {least:.3f}; "
            f"it takes {images_for(room, TAIL):,} images at least"
        )
    return lines


def _images(stated: Stated, study: Study) -> int | None:
    """Return on how many images a claim about shares is decided; None where it is not known.

    Of robustness, which is decided on the strongest attack too, those that meet it.
    """
    counts: list[int] = []
    for atom in dict.fromkeys(atom for q in stated.quantities for atom in atoms(q)):
        robust = bool(ATTACKED.fullmatch(atom.column))
        if atom.statistic == "auroc" or not (robust or atom.column == "correct"):
            return None
        spec = study.evaluations[atom.evaluation]
        limits = [study.tests[spec.on].images]
        if robust and isinstance(spec.measure, Mapping):
            limits += [spec.measure.get(key) for key in ("images", "strongest_images")]
        counts += [limit for limit in limits if isinstance(limit, int)]
    return min(counts, default=None)
