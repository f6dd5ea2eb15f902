"""Settings of the optimizer, the learning-rate schedule and the augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from diascope.data.augment import Augment
from diascope.settings import Settings

Metric = Literal["auto", "accuracy", "adversarial_accuracy", "balanced_accuracy", "loss"]
Defaults = Mapping[str, Mapping[str, Any]]


class Choice(Settings):
    """Settings whose `name` decides which of the other options there are.

    `options` has the defaults of those that belong to each name; one that belongs to another
    name must be null.
    """

    options: ClassVar[Defaults] = {}

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, content: Any) -> Any:
        content = {"name": content} if isinstance(content, str) else content
        if not isinstance(content, Mapping):
            return content
        given = {key: value for key, value in content.items() if value is not None}
        name = given.get("name", cls.model_fields["name"].default)
        return {**cls.options.get(str(name), {}), **given}

    @model_validator(mode="after")
    def _belongs(self) -> Choice:
        name = self.__dict__["name"]
        others = {key for options in self.options.values() for key in options}
        for key in sorted(others - set(self.options[name])):
            if self.__dict__[key] is not None:
                raise ValueError(f"'{name}' has no '{key}'; remove it")
        return self

    @model_serializer(mode="wrap")
    def _own(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the options of other names."""
        others = {key for options in self.options.values() for key in options}
        others -= set(self.options[self.__dict__["name"]])
        return {key: value for key, value in write(self).items() if key not in others}


class OptimizerConfig(Choice):
    """The optimizer: `momentum` and `nesterov` are SGD's, `eps` is Adam's and AdamW's.

    `weight_decay` is L2 for sgd and adam, decoupled for adamw. Biases and normalisation layers
    decay too, as in torch.
    """

    options: ClassVar[Defaults] = {
        "sgd": {"momentum": 0.9, "nesterov": False},
        "adam": {"eps": 1e-8},
        "adamw": {"eps": 1e-8},
    }
    name: Literal["sgd", "adam", "adamw"] = "adam"
    lr: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.0
    momentum: float | None = Field(default=None, ge=0, lt=1)
    nesterov: bool | None = None
    eps: PositiveFloat | None = None


class ScheduleConfig(Choice):
    """The learning rate over time; every schedule starts with `warmup_epochs` of linear rise.

    step: times `factor` after each `every` epochs. cosine: to `final` of the learning rate at
    the last step, step by step. plateau: times `factor` after `patience` epochs in which the
    validation loss did not fall.
    """

    options: ClassVar[Defaults] = {
        "constant": {},
        "step": {"every": 10, "factor": 0.1},
        "cosine": {"final": 0.0},
        "plateau": {"patience": 5, "factor": 0.1},
    }
    name: Literal["constant", "step", "cosine", "plateau"] = "constant"
    warmup_epochs: NonNegativeFloat = 0.0
    every: PositiveInt | None = None
    factor: float | None = Field(default=None, gt=0, lt=1)
    final: float | None = Field(default=None, ge=0, le=1)
    patience: PositiveInt | None = None


class AveragingConfig(Choice):
    """Which average of the weights is judged and kept: see `diascope.training.averaging`.

    `start` is the first epoch (from 1) that counts.
    """

    options: ClassVar[Defaults] = {
        "none": {},
        "ema": {"decay": 0.999, "start": 1},
        "swa": {"start": 1},
    }
    name: Literal["none", "ema", "swa"] = "none"
    decay: float | None = Field(default=None, gt=0, lt=1)
    start: PositiveInt | None = None


class EpsilonConfig(Choice):
    """How the epsilon of training moves; that of validation is the attack's own.

    uniform: drawn from [`low`, `high`] for each batch, in pixel units. linear: from `start` times
    the attack's own to the whole of it, within `epochs`. A step size that is given in pixel units
    stays; one relative to epsilon follows it.
    """

    options: ClassVar[Defaults] = {
        "fixed": {},
        "uniform": {"low": None, "high": None},
        "linear": {"start": 0.0, "epochs": 5},
    }
    name: Literal["fixed", "uniform", "linear"] = "fixed"
    low: NonNegativeFloat | None = None
    high: NonNegativeFloat | None = None
    start: float | None = Field(default=None, ge=0, le=1)
    epochs: PositiveInt | None = None

    @model_validator(mode="after")
    def _ordered(self) -> EpsilonConfig:
        if self.name == "uniform" and (self.low is None or self.high is None):
            raise ValueError("'uniform' needs low and high")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low = {self.low} is above high = {self.high}")
        return self


class AugmentConfig(Settings):
    """What is done to training images: see `diascope.data.augment.Augment`."""

    flips: bool = True
    colour: float = Field(default=0.2, ge=0, le=1)
    affine: float = Field(default=10.0, ge=0, le=60)
    rotation: float = Field(default=50.0, ge=0, le=180)
    affine_as: Literal["shear", "rotation"] = "shear"

    def build(self) -> Augment:
        """Return the augmentation."""
        return Augment(**self.model_dump())
