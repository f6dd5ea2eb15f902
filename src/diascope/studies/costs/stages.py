"""The work in a training: its stages, folds and trials, each so many images so many times."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from diascope.objectives import Objective
from diascope.studies.costs.passes import attack_passes
from diascope.studies.jobs import digest
from diascope.training.config import TrainConfig
from diascope.training.fit import validation_attack
from diascope.training.overfitting import CHECK_IMAGES, check_attack
from diascope.training.search import trials_of

_SAME_COST = ("eps", "seed")  # of an attack: they change what is found, not how long it takes


@dataclass(frozen=True, eq=False)
class Stage:
    """One training from one set of weights: `train` images in batches, judged on `val` images.

    config: that of this stage alone. classes: how many the model tells apart. Where training may
    stop before its last epoch (`training.patience`), the work is the most it can be.
    """

    config: TrainConfig
    train: int
    val: int
    classes: int

    @cached_property
    def objective(self) -> Objective:
        """The objective that is descended."""
        return self.config.build_objective()

    @property
    def epochs(self) -> int:
        """How many epochs there are, at most."""
        return self.config.training.epochs

    @property
    def images(self) -> int:
        """How many images an epoch trains on, adversarial copies made beforehand among them."""
        training = self.config.training
        return max(1, round(training.epoch_share * (self.train + self._copies)))

    @property
    def steps(self) -> int:
        """How many steps an epoch has."""
        return math.ceil(self.images / self.config.training.batch_size)

    @property
    def batch(self) -> float:
        """How many images a step has: batches are as nearly equal as can be."""
        return self.images / self.steps

    @cached_property
    def judging(self) -> float:
        """Forward passes (an image each) after an epoch; a backward pass to the input counts one.

        All that are attacked are taken to be classified correctly, so it is the most it can be.
        """
        if not self.val:
            return 0.0
        training = self.config.training
        attack = validation_attack(training, self.objective)
        attacked = min(training.validation.images or self.val, self.val)
        own = training.validation.attack is None
        check = check_attack(self.objective.attack) if own else None
        passes = self.val + attacked * attack_passes(attack, self.classes)
        return passes + min(attacked, CHECK_IMAGES) * attack_passes(check, self.classes)

    @cached_property
    def preparing(self) -> float:
        """Forward passes for adversarial copies that are added to the training images."""
        offline = self.config.training.offline
        if offline is None:
            return 0.0
        rounds = 1 if offline.every is None else math.ceil(self.epochs / offline.every)
        each = sum(attack_passes(attack, self.classes) for attack in offline.build())
        return rounds * offline.share * self.train * each

    @property
    def _copies(self) -> int:
        offline = self.config.training.offline
        return 0 if offline is None else round(offline.share * self.train) * len(offline.attack)

    @cached_property
    def kind(self) -> str:
        """The digest of all that decides how long a step takes; epsilons and rates are not."""
        config = self.config
        training = config.training
        return digest(
            {
                "model": [
                    config.model.name,
                    config.model.trainable,
                    config.model.attention,
                    config.model.options,
                ],
                "objective": _without(config.objective),
                "input": [config.data.size, config.data.channels, self.classes],
                "step": [training.batch_size, training.accumulate, training.precision],
                "rest": [training.optimizer.name, training.averaging.name, bool(training.augment)],
            }
        )


def stages_of(config: TrainConfig, train: int, val: int, classes: int) -> list[Stage]:
    """Return the stages of a whole training, in their order, one after the other.

    train, val: how many images the split has. A search trains every trial on each of its folds
    of train and val together, and then once on all of them.
    """
    if config.search is None:
        return list(_in_turn(config.resolved(), train, val, classes))
    both, folds = train + val, config.search.folds
    held = round(both / folds)
    trials = trials_of(config.resolved())
    found = [
        stage
        for trial in trials
        for stage in _in_turn(trial.config, both - held, held, classes)
        for _ in range(folds)
    ]
    return [*found, *_in_turn(trials[0].refit(), both, 0, classes)]


def _in_turn(config: TrainConfig, train: int, val: int, classes: int) -> Iterator[Stage]:
    for stage in (*config.stages_before(), config):
        alone = stage.model_copy(update={"stages": [], "search": None})
        yield Stage(alone, train, val, classes)


def settled_as(stage: Stage, training: Mapping[str, Any]) -> Stage:
    """Return the stage with some of its training settings replaced."""
    new = stage.config.training.model_copy(update=dict(training))
    return replace(stage, config=stage.config.model_copy(update={"training": new}))


def _without(value: Any) -> Any:
    """Return plain values without the settings that cost nothing."""
    if isinstance(value, Mapping):
        return {k: _without(v) for k, v in value.items() if k not in _SAME_COST}
    return value
