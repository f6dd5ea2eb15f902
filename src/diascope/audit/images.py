"""The images of an audit: those that no model has seen, prepared as the models expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diascope.audit.datachecks.audited import trained_sides
from diascope.audit.settings import AuditSettings
from diascope.audit.subject import Subject, seen_contents, unseen
from diascope.data import Dataset, Pixels, Preprocess, load_pixels
from diascope.errors import UserError
from diascope.randomness import derive


@dataclass(frozen=True)
class Test:
    """The images that are audited, and why others are not: reason -> number.

    trained: images of the same dataset that a subject was trained or validated on. validation:
    those that each subject's own split held out for choosing, by its name. elsewhere: images of
    other hospitals, by name.
    """

    pixels: Pixels
    left_out: dict[str, int]
    trained: Pixels | None = None
    validation: Mapping[str, Pixels] = field(default_factory=dict)
    elsewhere: Mapping[str, Pixels] = field(default_factory=dict)


def unseen_pixels(
    dataset: Dataset, subjects: Sequence[Subject], settings: AuditSettings, **options: Any
) -> Test:
    """Return the pixels of the images that no subject has seen, prepared as the models expect.

    `settings.images` draws that many by hashed id. `options` go to `load_pixels`.
    """
    card = subjects[0].card
    if absent := [name for name in card["classes"] if name not in dataset.classes]:
        raise UserError(
            f"{dataset.name}: no images of the class '{absent[0]}' of the models; it has "
            f"{', '.join(dataset.classes)}, they tell {', '.join(card['classes'])}: rename its "
            "labels to theirs, or add such images"
        )
    of_classes = dataset.restrict(card["classes"])
    test = unseen(of_classes, subjects)
    left_out = {"of other classes": len(dataset) - len(of_classes), **test.left_out}
    dataset = of_classes.take(test.rows)
    if settings.images is not None and settings.images < len(dataset):
        lot = np.array([derive(settings.seed, "image", int(i)) for i in dataset.ids])
        left_out["not drawn"] = len(dataset) - settings.images
        dataset = dataset.take(np.sort(np.argsort(lot)[: settings.images]))
    preprocess = Preprocess.model_validate(card["preprocess"])
    pixels = load_pixels(dataset, card["size"], preprocess, **options)
    left_out["unreadable"] = len(dataset) - len(pixels.dataset)
    known = seen_contents(subjects)
    if known:
        again = np.array([content in known for content in pixels.fingerprints()], dtype=bool)
        left_out["the same picture as one seen in training or validation"] = int(again.sum())
        if again.all():
            raise UserError(
                f"{dataset.name}: every picture is one that the models were trained or validated "
                "on, under another name; audit them on other data"
            )
        pixels = pixels.take(~again)
    trained = _trained(of_classes, subjects, card, options) if settings.data_checks else None
    return Test(pixels, {reason: n for reason, n in left_out.items() if n}, trained)


def _trained(
    dataset: Dataset, subjects: Sequence[Subject], card: Mapping[str, Any], options: dict[str, Any]
) -> Pixels | None:
    """Return the pixels of the images that some subject was trained on; None where not here."""
    rows = trained_sides(dataset, subjects) != ""
    if not rows.any():
        return None
    preprocess = Preprocess.model_validate(card["preprocess"])
    options = {**options, "skip_unreadable": True}
    try:
        return load_pixels(dataset.take(rows), card["size"], preprocess, **options)
    except UserError:  # not one of them can be read: nothing to compare with
        return None
