"""The images of a dataset that the models have not seen, to be browsed beside one's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diascope.audit.subject import unseen
from diascope.data import Dataset, open_data
from diascope.data.verify import read_row
from diascope.errors import UserError
from diascope.viewer.limits import Refused
from diascope.viewer.room import Room
from diascope.viewer.session import Picture

PAGE = 12


@dataclass(frozen=True)
class Samples:
    """Rows of a dataset (M,) that the audit would take, called by their number, never by name.

    labels (M,): the classes by their place among the models' outputs.
    """

    dataset: Dataset
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]

    @classmethod
    def open(cls, data: str, room: Room) -> Samples:
        """Open DATA and leave out what the models were trained on; raises `UserError`."""
        dataset = open_data(data)
        if unknown := set(dataset.classes) - set(room.classes):
            raise UserError(
                f"--data {data}: its class {', '.join(sorted(unknown))} is none of the models' "
                f"({', '.join(room.classes)})"
            )
        rows = np.flatnonzero(unseen(dataset, room.subjects).rows)
        names = np.array([room.classes.index(name) for name in dataset.classes])
        return cls(dataset, rows, names[dataset.labels[rows]])

    def described(self) -> dict[str, Any]:
        """Return what the page must know to list them: the class's index of each."""
        return {
            "name": self.dataset.name,
            "labels": [int(k) for k in self.labels],
            "classes_there": [int(k) for k in np.unique(self.labels)],
            "page": PAGE,
        }

    def picture(self, number: int, room: Room) -> Picture:
        """Return an image as the models see it, with the outline of its mask or boxes.

        Raises `Refused` for one that cannot be read.
        """
        if not 0 <= number < len(self.rows):
            raise Refused(404, "There is no such image in the data.")
        row = int(self.rows[number])
        found = read_row(self.dataset, row)
        if found.image is None:
            reason = found.problems[0].reason
            raise Refused(415, f"Image {number + 1} of the data {reason}.")
        picture = replace(room.prepare(found.image), label=int(self.labels[number]))
        if found.mask is None or found.problems or picture.frame is None:
            return picture  # without an outline, for its mask cannot be read
        return replace(picture, outline=room.outline(found.mask, picture.frame))
