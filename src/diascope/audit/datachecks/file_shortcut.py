"""Do size, shape, compression or format of the file tell the label?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diascope.audit.datachecks import DATA_CHECKS
from diascope.audit.datachecks.evidence import Evidence
from diascope.audit.datachecks.looking import Looked
from diascope.audit.datachecks.predictability import graded, predictability
from diascope.audit.results import Finding

GRADES = {"high": 0.9, "medium": 0.75, "low": 0.65}


@DATA_CHECKS.register("file_shortcut")
def file_shortcut(evidence: Evidence) -> list[Finding]:
    """Find data whose label follows from the image's size, aspect ratio, bytes or format."""
    found = predictability(evidence.dataset, file_numbers(evidence.looked), evidence.seed)
    severity = graded(found, GRADES)
    if found is None or severity is None:
        return []
    return [
        Finding(
            check="file_shortcut",
            severity=severity,
            title="The size or format of the file tells the label",
            evidence=(
                "from height, width, aspect ratio, channels, bytes a pixel and file format: "
                f"{found.words}"
            ),
            meaning=(
                "The classes were collected or stored in different ways. Resizing does not remove "
                "it: sharpness, aspect ratio and traces of compression stay in the pixels."
            ),
            remedy=(
                "Store all images from their originals in one way; test within one way of "
                "storing, or in another hospital."
            ),
            count=found.images,
        )
    ]


def file_numbers(looked: Looked) -> NDArray[np.float64]:
    """Return numbers of each image as stored (N, F), NaN for images that could not be read.

    Logarithms of height, width, aspect ratio and bytes a pixel, and one column for each size,
    number of channels and format that many images have.
    """
    height, width, channels = looked.sizes.clip(1).T
    pixels = np.log(height * width)
    stored = np.log(np.nan_to_num(looked.stored, nan=1.0).clip(1))
    known = np.isfinite(looked.stored)
    continuous = [np.log(height), np.log(width), np.log(width / height)]
    continuous.append(np.where(known, stored - pixels, 0.0))
    kinds = [f"{h}x{w}" for h, w in zip(height, width, strict=True)]
    columns = [np.stack(continuous, 1), _one_hot(kinds), _one_hot(looked.formats)]
    columns.append(_one_hot([str(c) for c in channels]))
    return np.where(looked.read[:, None], np.concatenate(columns, 1), np.nan)


def _one_hot(names: list[str]) -> NDArray[np.float64]:
    """Return a column for each of the ten commonest names that are of over 2% of the images."""
    counts = pd.Series(names).value_counts()
    common = counts[counts > 0.02 * len(names)].index[:10]
    return (
        np.stack([np.array(names) == name for name in common], 1).astype(np.float64)
        if len(common)
        else np.zeros((len(names), 0))
    )
