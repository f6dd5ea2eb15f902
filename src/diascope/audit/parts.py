"""What the stages of an audit find of one model: numbers with intervals, ready for JSON.

Every `Bounds` is (value, low, high) of a 95% percentile bootstrap over groups, NaN where
undefined. Epsilons are in pixel units, in the norm of the audit; 0 is without an attack.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Bounds = tuple[float, float, float]
Verdict = Literal["passed", "failed", "undecided"]
Severity = Literal["info", "low", "medium", "high"]
Access = Literal["white box", "scores", "labels"]

UNKNOWN: Bounds = (float("nan"),) * 3


@dataclass(frozen=True)
class Localisation:
    """One localisation measure of one model, its chance level and the centre prior's value."""

    value: Bounds
    chance: Bounds
    centre: Bounds
    above_chance: Bounds  # paired differences
    above_centre: Bounds


@dataclass(frozen=True)
class AttackCurve:
    """Accuracy under one attack at each epsilon of the audit's grid; attacks are independent."""

    name: str  # such as "apgd-dlr"
    attack: dict[str, Any]  # its settings without eps
    access: Access  # what the attack was given of the model
    images: int
    accuracy: list[Bounds]


@dataclass(frozen=True)
class GroupScore:
    """The images that share a value of an attribute: a class, a source, a sex, a device.

    rest_corrected: as `rest`, at the level that makes it hold with 95% for all the values that
    are compared with their rest at once (Bonferroni). within: as that, of images of the same
    class, so that another mix of classes cannot make it; unknown for classes. note: what was
    pooled, or that there are few images.
    """

    attribute: str  # "class", "source", or a column of the table
    value: str
    images: int
    groups: int  # patients or lesions
    accuracy: Bounds
    rest: Bounds  # paired by group where it can be: accuracy here less that of all other images
    attacked: Bounds  # accuracy at the reference epsilon
    rest_corrected: Bounds = UNKNOWN
    within: Bounds = UNKNOWN
    note: str = ""


@dataclass(frozen=True)
class OperatingPoint:
    """Decisions at the threshold, without an attack (eps 0) or under one aimed at it."""

    eps: float
    images: int
    positives: int
    negatives: int
    sensitivity: Bounds
    specificity: Bounds
    missed: int  # positive, called negative: malignant called benign
    false_alarms: int  # negative, called positive
    ppv: Bounds = UNKNOWN  # where `Operating.prevalence` of the images are positive
    npv: Bounds = UNKNOWN


@dataclass(frozen=True)
class Operating:
    """The clinical operating point: positive classes against the rest at one threshold.

    rule: how the threshold was chosen; chosen_on: on which images, and how many. validation: the
    decisions on these; None where there were none. prevalence: that of the audited images, which
    a clinic's need not be. drawn: the decisions without an attack on the images that are
    attacked; None where these are all, or none is.
    """

    positive: list[str]
    rule: str
    threshold: float
    chosen_on: str
    points: list[OperatingPoint]
    validation: OperatingPoint | None = None
    prevalence: float = float("nan")
    drawn: OperatingPoint | None = None

    @property
    def unattacked(self) -> OperatingPoint:
        """The decisions without an attack that those under attack are compared with."""
        return self.points[0] if self.drawn is None else self.drawn


@dataclass(frozen=True)
class OperatingDifference:
    """Paired differences of two models, each at its own threshold and under its own attack.

    Over the images that both have decisions of: all at eps 0, those drawn for the attack above.
    """

    eps: float
    positives: int
    negatives: int
    sensitivity: Bounds
    specificity: Bounds


@dataclass(frozen=True)
class Confusion:
    """How many images of each class (rows) were called what (columns), at one epsilon."""

    eps: float
    counts: list[list[int]]


@dataclass(frozen=True)
class Bin:
    """The images whose confidence lies in (low, high]; accuracy is NaN where there are none."""

    low: float
    high: float
    images: int
    confidence: float  # their mean
    accuracy: Bounds


@dataclass(frozen=True)
class Calibration:
    """How far confidence is from accuracy, without an attack (eps 0) or under one."""

    eps: float
    images: int
    ece: Bounds  # expected calibration error, equal-width bins
    brier: Bounds
    confidence: Bounds  # mean probability of the prediction
    accuracy: Bounds
    bins: list[Bin]
    ece_by_chance: float = float("nan")  # of a perfect model that is as sure, on as many images
    nll: Bounds = UNKNOWN  # negative log-likelihood, in nats
    gap: Bounds = UNKNOWN  # confidence less accuracy, paired: above 0 is overconfident
    confidence_right: Bounds = UNKNOWN  # of the right answers alone
    confidence_wrong: Bounds = UNKNOWN
    attack: dict[str, Any] = field(default_factory=dict)  # its settings; empty at eps 0


@dataclass(frozen=True)
class CorruptionScore:
    """Accuracy under one everyday corruption; drop: paired, that of the clean image less it.

    distance: how far it moves an image on average, in the norm of the audit.
    """

    name: str
    severity: int  # 1 to 5
    images: int
    accuracy: Bounds
    drop: Bounds
    distance: float = float("nan")


@dataclass(frozen=True)
class CorruptionDifference:
    """Paired difference of two models' accuracies under one everyday corruption."""

    name: str
    severity: int  # 1 to 5
    images: int
    accuracy: Bounds


@dataclass(frozen=True)
class Elsewhere:
    """The scores on another hospital's images; drop: here less there, of independent images.

    here: the scores that the drop is counted from, of the audited images of the same classes.
    missing: classes of which there are no images there. attacked_images: of `attacked`, drawn.
    """

    name: str
    images: int
    groups: int
    scores: dict[str, Bounds]  # accuracy, balanced_accuracy, auroc
    drop: dict[str, Bounds]
    attacked: Bounds  # accuracy at the reference epsilon
    here: dict[str, Bounds] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    attacked_images: int = 0


@dataclass(frozen=True)
class Faithful:
    """One faithfulness measure of one method's maps, beside orders that know nothing of the model.

    random: the same measure of the same images, their pixels in random order; centre: from the
    middle outwards. over_random, over_centre: paired differences, above 0 where the map does
    better, whichever way the measure goes.
    """

    value: Bounds
    random: Bounds
    centre: Bounds
    over_random: Bounds
    over_centre: Bounds
    images: int = 0


@dataclass(frozen=True)
class Steadiness:
    """How alike maps stay, by a measure of the family "agreement" (1: the same).

    against: what was changed: "noise 0.01", "attack", or the name of the model compared with,
    "seed of NAME" where it differs by the training seed alone.
    """

    against: str
    measure: str
    value: Bounds
    images: int


@dataclass(frozen=True)
class SanityStep:
    """How alike a map is to that of a model whose layers, from the head to `layers`, are random.

    images: on which it was measured; of fewer than 8 nothing is decided.
    """

    layers: str
    agreement: dict[str, float]  # by measure
    bounds: dict[str, Bounds] = field(default_factory=dict)  # the same with intervals
    images: int = 0


@dataclass(frozen=True)
class MapScores:
    """What the measures say of the maps of one explanation method.

    measures: faithfulness, sharpness, colour, completeness, by the measure's name. sanity: the
    cascade of random weights, from the head down; passed: by the intervals of its last step, None
    where it was not run, or decided nothing. left_out: why the method does not explain this model;
    then all else is empty.
    """

    name: str
    explainer: dict[str, Any]
    images: int
    localisation: dict[str, Localisation] = field(default_factory=dict)
    localisation_correct: dict[str, Localisation] = field(default_factory=dict)
    measures: dict[str, Bounds] = field(default_factory=dict)
    steadiness: list[Steadiness] = field(default_factory=list)
    sanity: list[SanityStep] = field(default_factory=list)
    passed: bool | None = None
    faithfulness: dict[str, Faithful] = field(default_factory=dict)
    left_out: str = ""


@dataclass(frozen=True)
class MaskingOutcome:
    """One of the checks that tell an honest robustness figure from a masked gradient."""

    number: int  # 1 to 14
    name: str
    question: str
    verdict: Verdict
    evidence: str
    meaning: str
    remedy: str
    severity: Severity  # of the finding, where it failed
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Interface:
    """What a probe found of a model's input and output.

    kind: "run", "timm", "module", "torchscript", "exported", "onnx", "callable". gradients:
    whether it can be differentiated. outputs: what it returns. statements: what was noticed, a
    sentence each; problems: those of them that make the numbers doubtful; codes: of each problem
    a word for its kind.
    """

    kind: str
    gradients: bool
    outputs: Literal["logits", "probabilities", "labels"]
    channels: int
    size: int
    input: str  # such as "RGB in [0, 1]; normalises inside"
    declared: bool  # whether the input was declared, or found by the probe
    statements: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)

    @property
    def access(self) -> Access:
        """What an attack is given of the model."""
        if self.gradients:
            return "white box"
        return "labels" if self.outputs == "labels" else "scores"


@dataclass(frozen=True)
class StageReport:
    """What became of one stage of one model."""

    model: str
    stage: str
    state: Literal["done", "failed", "left out", "unfinished"]
    reason: str = ""
    images: int = 0
    seconds: float = 0.0
    queries: int = 0  # images that a black box was asked about
