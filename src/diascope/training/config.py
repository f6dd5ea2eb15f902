"""The configuration of a training run: what a YAML file may say, and what it is resolved to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from diascope.data.preprocess import Preprocess
from diascope.objectives import Objective
from diascope.settings import Settings, override, read_yaml, validate
from diascope.training.objective import build_objective, resolved_objective
from diascope.training.options import AugmentConfig, Metric, OptimizerConfig, ScheduleConfig


class SplitConfig(Settings):
    """What is trained on: `fractions` of train, val and test, by `seed`; or a split `file`."""

    seed: int = 0
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    file: Path | None = None


class DataConfig(Settings):
    """Which images: `name` and `options` as in `diascope.data.open_data`, `size` in pixels."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    classes: list[str] | None = None
    size: int = Field(default=224, ge=8, le=4096)
    crop: Literal["centre-square", "none"] = "centre-square"
    channels: Literal[1, 3] = 3
    split: SplitConfig = SplitConfig()
    skip_unreadable: bool = False

    @property
    def preprocess(self) -> Preprocess:
        """How an image becomes a square."""
        return Preprocess(crop=self.crop, channels=self.channels)


class ModelConfig(Settings):
    """Which classifier: the arguments of `diascope.models.create_model`."""

    name: str = "resnet18"
    pretrained: bool = False
    attention: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class ValidationConfig(Settings):
    """How an epoch is judged under attack.

    `attack`: null for the objective's own. `images`: how many of the validation images are
    attacked, a fixed draw; null for all.
    """

    attack: dict[str, Any] | None = None
    images: PositiveInt | None = None


class TrainingConfig(Settings):
    """How the weights are found.

    `select`: "best" takes the epoch whose `metric` on the validation images is best, "last" the
    last; `metric` "auto" is accuracy under attack where the objective has an attack, else
    accuracy. `patience`: stop after so many epochs in which the metric did not improve by more
    than `min_delta`; null never stops. `precision` and `device` "auto" take what the machine
    gains from. `epoch_share` is the share of the training images that an epoch sees.
    `clip_gradient` bounds the gradient's length. `checkpoint_seconds` is the time between two
    saved states; 0 saves every step.
    """

    epochs: PositiveInt = 10
    batch_size: PositiveInt = 32
    seed: int = 0
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    select: Literal["best", "last"] = "best"
    metric: Metric = "auto"
    patience: PositiveInt | None = None
    min_delta: NonNegativeFloat = 0.0
    class_weights: Literal["none", "inverse-frequency"] = "none"
    augment: AugmentConfig | None = AugmentConfig()
    epoch_share: float = Field(default=1.0, gt=0, le=1)
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    clip_gradient: float | None = Field(default=None, gt=0)
    checkpoint_seconds: NonNegativeFloat = 30.0
    validation: ValidationConfig = ValidationConfig()


class TrainConfig(Settings):
    """A whole training run.

    `objective` is a name, or a mapping with `name` and the objective's fields. Beside its attack
    it may hold the shorthand `eps` (see `resolved_objective`), of which `objective_eps_given` is
    the record in a resolved configuration. `record` tells what made a run, and is not compared.
    """

    data: DataConfig
    model: ModelConfig = ModelConfig()
    objective: dict[str, Any] | str = "standard"
    objective_eps_given: dict[str, Any] | None = None
    training: TrainingConfig = TrainingConfig()
    out: Path | None = None
    record: dict[str, Any] | None = Field(default=None, exclude=True, repr=False)

    def build_objective(self, where: str = "objective") -> Objective:
        """Return the objective; raises `UserError` for a mistake in its settings."""
        return build_objective(self.objective, self.objective_eps_given, self.data.size, where)

    def resolved(self, where: str = "objective") -> TrainConfig:
        """Return an equal configuration with the objective spelled out; idempotent."""
        objective, given = resolved_objective(
            self.objective, self.objective_eps_given, self.data.size, where
        )
        return self.model_copy(update={"objective": objective, "objective_eps_given": given})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values from which `read_config` makes an equal configuration."""
        return self.model_dump(mode="json")


def read_config(
    source: Path | Mapping[str, Any], overrides: Iterable[str] = (), where: str = ""
) -> TrainConfig:
    """Return the resolved configuration in a YAML file (or a mapping), with `overrides` applied.

    An override is written `training.epochs=3`. The `config.yaml` of a run folder is read too.
    Raises `UserError`, one line, for the first mistake.
    """
    if isinstance(source, Path):
        where = where or str(source)
        content = read_yaml(source)
    else:
        where, content = where or "configuration", dict(source)
    config = validate(TrainConfig, override(content, overrides), where)
    return config.resolved(f"{where}: objective")
