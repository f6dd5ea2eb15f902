"""What an audit leaves: numbers for `results.json`, and cases with their pictures.

Every interval is (value, low, high), a percentile interval at 95% of a bootstrap over groups;
null where undefined. The JSON is `dataclasses.asdict` of `Results` without cases and rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diascope.audit.parts import (
    Access,
    AttackCurve,
    Bounds,
    Calibration,
    Confusion,
    CorruptionDifference,
    CorruptionScore,
    Elsewhere,
    GroupScore,
    Interface,
    Localisation,
    MapScores,
    MaskingOutcome,
    Operating,
    OperatingDifference,
    Severity,
    StageReport,
)
from diascope.files import write_text

SCHEMA = "diascope-results-2"

Image = NDArray[np.uint8]
Heat = NDArray[np.float32]


@dataclass(frozen=True)
class ModelResult:
    """The numbers of one model."""

    name: str
    architecture: str
    parameters: int
    objective: dict[str, Any]
    scores: dict[str, Bounds]  # accuracy, balanced_accuracy, auroc
    recall: dict[str, Bounds]  # per class
    curve: list[Bounds]  # accuracy at each epsilon
    median_epsilon: float  # of the minimal epsilons; inf where over half were never broken
    localisation: dict[str, Localisation]  # over all images with a mask
    localisation_correct: dict[str, Localisation]  # those every model classifies correctly
    interface: Interface | None = None
    attacked: int = 0  # images of the curve; 0: all of them
    attacks: list[AttackCurve] = field(default_factory=list)  # each attack by itself
    group_scores: list[GroupScore] = field(default_factory=list)
    confusion: list[Confusion] = field(default_factory=list)
    operating: Operating | None = None
    calibration: list[Calibration] = field(default_factory=list)
    corruptions: list[CorruptionScore] = field(default_factory=list)
    elsewhere: list[Elsewhere] = field(default_factory=list)
    maps: list[MapScores] = field(default_factory=list)  # the shown method first
    masking: list[MaskingOutcome] = field(default_factory=list)
    not_finite: int = 0  # audited images of which the model returned NaN or infinity
    queries: int = 0  # images that a black box was asked about, in all

    @property
    def access(self) -> Access:
        """What the attacks were given of the model: no two of these can be compared."""
        return "white box" if self.interface is None else self.interface.access


@dataclass(frozen=True)
class Comparison:
    """Paired differences, `model` minus `reference`."""

    model: str
    reference: str
    scores: dict[str, Bounds]
    curve: list[Bounds]
    localisation: dict[str, Bounds]
    localisation_correct: dict[str, Bounds]
    operating: list[OperatingDifference] = field(default_factory=list)
    corruptions: list[CorruptionDifference] = field(default_factory=list)


@dataclass(frozen=True)
class Finding:
    """What one check found: the evidence, what it means, what to do.

    count: how many images it concerns, 0 where it concerns none in particular. files: those that
    belong together, such as copies of one image, in sets; the first of them where they are many.
    model: the name of the model it is of; empty for one that is of the data, or of all of them.
    """

    check: str
    severity: Severity
    title: str
    evidence: str
    meaning: str
    remedy: str
    count: int = 0
    files: tuple[tuple[str, ...], ...] = ()
    model: str = ""


@dataclass(frozen=True)
class Attacked:
    """One model's view of one case under attack at one epsilon."""

    eps: float
    image: Image  # (H, W, C) for the eye: rounded to 8 bits, towards the original image
    perturbation: Heat  # (H, W, C) signed, in pixel units
    heat: Heat  # (H, W) in [0, 1]; of the image before rounding, as is the prediction
    prediction: str
    probability: float  # of the prediction


@dataclass(frozen=True)
class View:
    """One model's view of one case."""

    model: str
    prediction: str
    probability: float  # of the prediction
    heat: Heat  # (H, W) in [0, 1]
    minimal_epsilon: float
    attacked: list[Attacked]
    maps: dict[str, Heat] = field(default_factory=dict)  # of the other methods, without an attack


@dataclass(frozen=True)
class Case:
    """One image, its truth, and how each model sees it."""

    id: str
    label: str
    source: str
    image: Image  # (H, W, C)
    mask: NDArray[np.bool_] | None  # (H, W)
    views: list[View]
    reason: str = ""  # why it is shown


@dataclass(frozen=True)
class RowView:
    """One model's numbers of one image; NaN where it was not measured."""

    prediction: str
    probability: float  # of the prediction
    minimal_epsilon: float  # inf where no epsilon of the grid broke it
    localisation: float  # average precision of the shown map


@dataclass(frozen=True)
class Row:
    """One audited image: there is one for each, in the order of the tables.

    case: its place among the cases with pictures, None for the others.
    """

    id: str
    label: str
    source: str
    group: str
    views: list[RowView]  # in the order of the models
    case: int | None = None


@dataclass(frozen=True)
class Results:
    """Everything an audit found."""

    title: str
    version: str
    created: str  # ISO 8601
    command: str
    seed: int
    hardware: dict[str, Any]
    seconds: float
    data: dict[str, Any]  # name, images, groups, classes, counts, size, sources, chance, majority
    norm: str
    attack: dict[str, Any]
    explainer: dict[str, Any]
    epsilons: list[float]
    models: list[ModelResult]
    comparisons: list[Comparison]
    findings: list[Finding]
    tables: dict[str, str]  # per-image tables, by model, relative to the folder
    cases_rule: str  # how the shown cases were chosen
    settings: dict[str, Any] = field(default_factory=dict)  # of the audit, all of them
    schema: str = SCHEMA
    budget: str = "standard"
    effort: dict[str, Any] = field(default_factory=dict)
    reference_eps: float = 0.0  # at which one must do
    positive: list[str] = field(default_factory=list)  # classes, of the operating point
    stages: list[StageReport] = field(default_factory=list)
    complete: bool = True  # False where the audit was interrupted
    cases: list[Case] = field(default_factory=list, repr=False)
    rows: list[Row] = field(default_factory=list, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON values; what is undefined or infinite becomes null."""
        shown = {k: v for k, v in vars(self).items() if k not in ("cases", "rows")}
        return {k: plain(v) for k, v in shown.items()}

    def save(self, folder: Path) -> Path:
        """Write `results.json` into the folder and return its path."""
        path = folder / "results.json"
        write_text(path, json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n")
        return path


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it: null for numbers that are not finite."""
    if hasattr(value, "__dataclass_fields__"):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value
