"""The configuration of a training run: what a YAML file may say, and what it is resolved to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, field_validator

from diascope.data.filters import Filters
from diascope.data.preprocess import Crop, Preprocess, Resize
from diascope.data.splitting import SplitSettings
from diascope.objectives import Objective
from diascope.settings import Settings, validate
from diascope.training.layers import STAGED, difference, read_layers, spell_out
from diascope.training.objective import build_objective, resolved_objective
from diascope.training.offline import OfflineConfig
from diascope.training.options import (
    AugmentConfig,
    AveragingConfig,
    EpsilonConfig,
    Metric,
    OptimizerConfig,
    ScheduleConfig,
)

SplitConfig = SplitSettings


class DataConfig(Settings):
    """Which images: `name` and `options` as in `diascope.data.open_data`, `size` in pixels.

    `crop`, `channels`, `resize` and `filters` are those of `diascope.data.Preprocess`.
    """

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    classes: list[str] | None = None
    size: int = Field(default=224, ge=8, le=4096)
    crop: Crop = "centre-square"
    channels: Literal[1, 3] = 3
    resize: Resize = "bicubic"
    filters: Filters = ()
    split: SplitConfig = SplitConfig()
    skip_unreadable: bool = False

    @property
    def preprocess(self) -> Preprocess:
        """How an image becomes a square."""
        return Preprocess(
            crop=self.crop, channels=self.channels, resize=self.resize, filters=self.filters
        )


class ModelConfig(Settings):
    """Which classifier: the arguments of `diascope.models.create_model`.

    `weights`: where training starts, a run folder or a file of weights; null for random ones (or
    those of `pretrained`). `trainable`: the number of layer groups, counted from the head, that
    are trained (see `diascope.models.layer_groups`); the others keep their weights and their
    batch-norm statistics. Null trains all.
    """

    name: str = "resnet18"
    pretrained: bool = False
    weights: Path | None = None
    trainable: PositiveInt | None = None
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

    `batch_size` is that of a step, however it is computed: shared by the processes of `devices`
    times `nodes`, and by each in `accumulate` parts one after the other, whose gradients are
    added up. "auto" devices and nodes are those of the launcher (torchrun, `fabric run`, SLURM),
    else one. `offline` adds adversarial copies to the training images.
    """

    epochs: PositiveInt = 10
    batch_size: PositiveInt = 32
    seed: int = 0
    accumulate: PositiveInt = 1
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    epsilon: EpsilonConfig = EpsilonConfig()
    averaging: AveragingConfig = AveragingConfig()
    offline: OfflineConfig | None = None
    select: Literal["best", "last"] = "best"
    metric: Metric = "auto"
    patience: PositiveInt | None = None
    min_delta: NonNegativeFloat = 0.0
    class_weights: Literal["none", "inverse-frequency"] = "none"
    augment: AugmentConfig | None = AugmentConfig()
    epoch_share: float = Field(default=1.0, gt=0, le=1)
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: PositiveInt | Literal["auto"] = "auto"
    nodes: PositiveInt | Literal["auto"] = "auto"
    clip_gradient: float | None = Field(default=None, gt=0)
    checkpoint_seconds: NonNegativeFloat = 30.0
    validation: ValidationConfig = ValidationConfig()


class SearchConfig(Settings):
    """A search among the values in `grid`, by dotted key: every combination is a trial.

    A trial is trained on each of `folds` group-safe parts of train and val, and judged by the
    mean of `metric` over the parts, at the epoch that each run selects.
    """

    grid: dict[str, list[Any]] = Field(min_length=1)
    folds: int = Field(default=5, ge=2)
    metric: Literal["accuracy", "balanced_accuracy", "adversarial_accuracy", "loss"] = "accuracy"

    @field_validator("grid", mode="before")
    @classmethod
    def _dotted(cls, grid: Any) -> Any:
        """Return the grid with dotted keys, from nested ones."""
        return dict(_leaves(grid)) if isinstance(grid, Mapping) else grid

    @field_validator("grid")
    @classmethod
    def _not_empty(cls, grid: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for key, values in grid.items():
            if not values:
                raise ValueError(f"'{key}' has no value to try")
            if key.split(".")[0] not in STAGED:
                raise ValueError(f"'{key}': a search goes over model, objective or training")
        return grid


class TrainConfig(Settings):
    """A whole training run.

    `objective` is a name, or a mapping with `name` and the objective's fields. Beside its attack
    it may hold the shorthand `eps` (see `resolved_objective`), of which `objective_eps_given` is
    the record in a resolved configuration. `stages` are trained one after the other, each from
    the weights chosen in the one before: an entry says what differs in it from the rest of the
    configuration. In a resolved configuration the entries are complete, and the rest is the last
    stage. `search` chooses among values of the last stage before the run. `record` tells what
    made a run, and is not compared.
    """

    data: DataConfig
    model: ModelConfig = ModelConfig()
    objective: dict[str, Any] | str = "standard"
    objective_eps_given: dict[str, Any] | None = None
    training: TrainingConfig = TrainingConfig()
    stages: list[dict[str, Any]] = Field(default_factory=list)
    search: SearchConfig | None = None
    out: Path | None = None
    record: dict[str, Any] | None = Field(default=None, exclude=True, repr=False)

    def build_objective(self, where: str = "objective") -> Objective:
        """Return the objective; raises `UserError` for a mistake in its settings."""
        return build_objective(self.objective, self.objective_eps_given, self.data.size, where)

    def resolved(self, where: str = "configuration") -> TrainConfig:
        """Return an equal configuration with objectives and stages spelled out; idempotent.

        Raises `UserError`, beginning with `where`, for a mistake in one of them.
        """
        config = self
        if self.stages:
            content = {**self.model_dump(mode="json"), "record": self.record}
            config = _spelled(content, (), where)
        objective, given = resolved_objective(
            config.objective, config.objective_eps_given, config.data.size, f"{where}: objective"
        )
        return config.model_copy(update={"objective": objective, "objective_eps_given": given})

    def stages_before(self, where: str = "configuration") -> list[TrainConfig]:
        """Return the configurations of the stages before the last, which is this one itself."""
        rest = {"data": self.data.model_dump(mode="json")}
        return [
            validate(TrainConfig, {**rest, **stage}, f"{where}: stage {number}").resolved(
                f"{where}: stage {number}"
            )
            for number, stage in enumerate(self.stages[:-1], 1)
        ]

    def stage_dict(self) -> dict[str, Any]:
        """Return what a stage may change, as plain values."""
        return self.model_dump(mode="json", include=set(STAGED))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values from which `read_config` makes an equal configuration.

        Of the stages they tell what differs from the rest.
        """
        content = self.model_dump(mode="json")
        rest = {key: content[key] for key in STAGED}
        stages = [difference({k: rest[k] for k in s if k in rest}, s) for s in self.stages]
        both = zip(stages, self.stages, strict=True)
        return {**content, "stages": [whole if part is None else part for part, whole in both]}


def read_config(
    source: Path | Mapping[str, Any], overrides: Iterable[str] = (), where: str = ""
) -> TrainConfig:
    """Return the resolved configuration in a YAML file (or a mapping), with `overrides` applied.

    A file may lie on another one, its `base` (relative to it). An override is written
    `training.epochs=3`, and holds in every stage; `base=FILE` gives the file another base. The
    `config.yaml` of a run folder is read too. Raises `UserError`, one line, for the first mistake.
    """
    overrides = list(overrides)
    bases = [text for text in overrides if text.startswith("base=")]
    overrides = [text for text in overrides if text not in bases]
    if isinstance(source, Path):
        where = where or str(source)
        base = Path(bases[-1].removeprefix("base=")).expanduser() if bases else None
        content = read_layers(source, base)
    else:
        where, content = where or "configuration", dict(source)
    return _spelled(content, overrides, where).resolved(where)


def _spelled(content: Mapping[str, Any], overrides: Iterable[str], where: str) -> TrainConfig:
    """Return the configuration with the overrides, and every stage complete."""
    config = validate(TrainConfig, spell_out(content, overrides, where), where)
    stages = [stage.stage_dict() for stage in config.stages_before(where)]
    return config.model_copy(update={"stages": [*stages, {}] if config.stages else []})


def _leaves(grid: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each dotted key of a nested mapping, and its value."""
    for key, value in grid.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
