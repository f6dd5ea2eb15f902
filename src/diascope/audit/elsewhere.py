"""The images of other hospitals, prepared as the models expect and never seen by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from diascope.audit.images import Test, unseen_pixels
from diascope.audit.settings import AuditSettings
from diascope.audit.subject import Subject
from diascope.data import Dataset, Pixels
from diascope.errors import UserError


def elsewhere_pixels(
    datasets: Sequence[Dataset],
    subjects: Sequence[Subject],
    settings: AuditSettings,
    **options: Any,
) -> dict[str, Pixels]:
    """Return the pixels of other datasets by name, of the models' classes and not seen by any.

    As `unseen_pixels`: an image that a model was trained or validated on is left out, whatever
    it is called there. A dataset need not have every class; at most `elsewhere_images` of the
    effort are drawn. `options` go to `load_pixels`. Raises `UserError` where nothing is left.
    """
    wanted = settings.model_copy(
        update={"images": settings.build_effort().elsewhere_images, "data_checks": False}
    )
    found: dict[str, Pixels] = {}
    for dataset in datasets:
        of_classes = _restricted(dataset, subjects[0].card["classes"])
        pixels = unseen_pixels(of_classes, subjects, wanted, **options).pixels
        name, number = dataset.name, 2
        while name in found:
            name, number = f"{dataset.name} ({number})", number + 1
        found[name] = pixels
    return found


def _restricted(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    """Return the images of the models' classes, of which some may be missing."""
    there = [name for name in classes if dataset.counts.get(name)]
    if not there:
        raise UserError(
            f"{dataset.name}: no image of the models' classes ({', '.join(classes)}); it has "
            f"{', '.join(dataset.classes)}: rename its labels to theirs"
        )
    return replace(dataset.restrict(there), classes=tuple(classes))


def other_sources(test: Test) -> dict[str, Pixels]:
    """Return the audited images of sources that no model was trained on, by "source NAME".

    What the models were trained on is known where those images are at hand (`Test.trained`);
    nothing is returned otherwise, nor where all audited images are of other sources: then there
    is nothing at home to compare them with.
    """
    if test.trained is None:
        return {}
    known = set(test.trained.dataset.table.source)
    sources = test.pixels.dataset.table.source.to_numpy(str)
    away = [name for name in dict.fromkeys(sources.tolist()) if name and name not in known]
    if not away or np.isin(sources, away).all():
        return {}
    return {f"source {name}": test.pixels.take(sources == name) for name in away}
