"""The checks of the data that an audit uses: its test images, and those of the training beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from diascope.audit.datachecks import run_data_checks
from diascope.audit.datachecks.evidence import Evidence, Names
from diascope.audit.datachecks.looking import Looked, look_at_pixels
from diascope.audit.results import Finding
from diascope.audit.subject import Subject
from diascope.data import Dataset, Pixels

LISTED = 50  # sets of files that results.json keeps of a finding


def trained_sides(dataset: Dataset, subjects: Sequence[Subject]) -> Names:
    """Return train or val for the images (N,) that a subject used so, by its split file; else "".

    A subject knows a dataset by its name, and an image by its path.
    """
    sides = np.full(len(dataset), "", object)
    for subject in subjects:
        if subject.split is None or subject.card.get("data", {}).get("name") != dataset.name:
            continue
        known = subject.split[subject.split.split.isin(["train", "val"])]
        found = dataset.table.path.map(known.drop_duplicates("path").set_index("path").split)
        sides = np.where(found.notna() & (sides != "train"), found, sides)
    return sides


def audited_findings(
    pixels: Pixels,
    trained: Pixels | None,
    subjects: Sequence[Subject],
    left_out: dict[str, int],
    seed: int = 0,
) -> list[Finding]:
    """Return what the checks find in the test images, and between them and the training images.

    Images are looked at as the models see them, so that nothing is decoded again; what only the
    files can tell is for `diascope data verify`. Of the files, results keep the first 50 sets.
    """
    looked = look_at_pixels(pixels)
    sides = np.full(len(pixels), "test", object)
    if trained is not None and len(trained):
        sides = np.concatenate([sides, trained_sides(trained.dataset, subjects)])
        looked = joined(looked, look_at_pixels(trained))
    names = {str(subject.card.get("data", {}).get("name", "")) for subject in subjects}
    evidence = Evidence(
        looked,
        sides,
        left_out=left_out,
        trained_on=tuple(sorted(names - {"", pixels.dataset.name})),
        seed=seed,
    )
    return [replace(f, files=f.files[:LISTED]) for f in run_data_checks(evidence)]


def joined(first: Looked, second: Looked) -> Looked:
    """Return the images of both, which are of one dataset."""
    table = pd.concat([first.dataset.table, second.dataset.table], ignore_index=True)
    both = (first, second)
    return Looked(
        replace(first.dataset, table=table),
        read=np.concatenate([each.read for each in both]),
        contents=[*first.contents, *second.contents],
        thumbnails=np.concatenate([each.thumbnails for each in both]),
        centres=np.concatenate([each.centres for each in both]),
        oblong=np.concatenate([each.oblong for each in both]),
        statistics=np.concatenate([each.statistics for each in both]),
        sizes=np.concatenate([each.sizes for each in both]),
        stored=np.concatenate([each.stored for each in both]),
        formats=[*first.formats, *second.formats],
        problems=(*first.problems, *second.problems),
    )
