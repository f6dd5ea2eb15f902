"""Training from Python: a model, an objective and pixels in, a trained model out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from diascope.attacks import Attack, attacks
from diascope.data.pixels import Pixels
from diascope.errors import UserError
from diascope.models import unwrapped
from diascope.objectives import Objective
from diascope.training.batches import Batches, class_weight
from diascope.training.compare import as_before, refuse_changes
from diascope.training.config import TrainingConfig
from diascope.training.epsilon import check_epsilon
from diascope.training.loop import Loop
from diascope.training.machine import make_fabric, on_this_machine, synchronised
from diascope.training.offline import Offline
from diascope.training.outcome import Fit
from diascope.training.overfitting import check_attack
from diascope.training.progress import Progress
from diascope.training.state import FolderStore, MemoryStore, Store
from diascope.training.team import Team
from diascope.training.validation import Validation

if TYPE_CHECKING:
    from lightning.fabric import Fabric

_DEFAULT = TrainingConfig()


def fit(
    model: nn.Module,
    objective: Objective,
    train: Pixels,
    val: Pixels,
    config: TrainingConfig = _DEFAULT,
    *,
    folder: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    fabric: Fabric | None = None,
) -> Fit:
    """Train `model` by `objective` on the images of `train`, and choose an epoch on `val`.

    With a `folder` the state is kept there, and `resume` goes on from it, to the same weights bit
    for bit on a CPU. `model` is changed in place; its given weights are where training starts.
    `fabric` is one that is launched already; without it one is made of the configuration.
    Raises `UserError` for a mistake in the configuration, a state that is there without `resume`,
    and a loss that is no longer finite.
    """
    store: Store = MemoryStore() if folder is None else FolderStore(folder)
    config = _going_on(store, config, objective, resume)
    check_images(train, val, config)
    fabric = fabric or make_fabric(config)
    team = Team(fabric)
    store = store if team.first else MemoryStore()
    batches = Batches(
        train,
        config.batch_size,
        config.seed,
        config.augment.build() if config.augment else None,
        config.epoch_share,
        fabric.device,
    )
    team.check(batches)
    if not team.alone and not getattr(objective, "joint", True):
        raise UserError("objective.joint = false: several processes need one joint forward a step")
    validation = Validation(
        val,
        validation_attack(config, objective),
        config.validation.images,
        max(64, config.batch_size),
        config.seed,
        fabric.device,
        fabric.autocast,
        team,
        check_attack(objective.attack) if config.validation.attack is None else None,
    )
    offline = Offline(config.offline, config.seed, folder, team) if config.offline else None
    model = synchronised(unwrapped(model), fabric).to(memory_format=torch.channels_last)
    weight = _weight(config, train, fabric.device)
    progress = progress or Progress()
    return Loop(
        fabric,
        team,
        model,
        objective,
        batches,
        validation,
        config,
        weight,
        store,
        progress,
        offline,
    ).run()


def settled(config: TrainingConfig, objective: Objective) -> TrainingConfig:
    """Return the configuration with every `auto` replaced, for this machine and objective."""
    attacked = validation_attack(config, objective) is not None
    if config.metric == "auto":
        metric = "accuracy" if objective.attack is None else "adversarial_accuracy"
        config = config.model_copy(update={"metric": metric})
    if config.metric == "adversarial_accuracy" and not attacked:
        raise UserError(
            "training.metric = 'adversarial_accuracy': the objective has no attack; "
            "give training.validation.attack"
        )
    check_epsilon(config.epsilon, objective)
    return on_this_machine(config)


def validation_attack(config: TrainingConfig, objective: Objective) -> Attack | None:
    """Return the attack under which epochs are judged: its own, else the objective's."""
    if config.validation.attack is None:
        return objective.attack
    attack: Attack = attacks.build(config.validation.attack, "training.validation.attack")
    return attack


def check_images(train: Pixels, val: Pixels, config: TrainingConfig) -> None:
    """Raise `UserError` where there are no images to train on, or none to judge by."""
    if len(train.dataset.classes) < 2:
        only = ", ".join(train.dataset.classes)
        raise UserError(f"{train.dataset.name}: one class ({only}): a classifier needs two")
    if not len(train):
        raise UserError(f"{train.dataset.name}: there are no training images")
    needs = {
        "training.select = 'best'": config.select == "best",
        "training.patience": config.patience is not None,
        "training.schedule 'plateau'": config.schedule.name == "plateau",
    }
    for what, needed in needs.items():
        if needed and not len(val):
            raise UserError(
                f"{train.dataset.name}: {what} needs validation images, and there are none; "
                "give data.split.fractions a second share, or take the last epoch"
            )


def _going_on(
    store: Store, config: TrainingConfig, objective: Objective, resume: bool
) -> TrainingConfig:
    """Return the settled configuration; raises `UserError` where it does not fit the state."""
    state = store.load()
    if state is None:
        return settled(config, objective)
    if not resume:
        raise UserError(f"{store}: holds an unfinished run; resume it, or name another folder")
    began = state["config"]
    config = settled(as_before(config, TrainingConfig.model_validate(began)), objective)
    refuse_changes(began, config.model_dump(mode="json"), str(store), "training.")
    return config


def _weight(config: TrainingConfig, train: Pixels, device: torch.device) -> Tensor | None:
    if config.class_weights == "none":
        return None
    return class_weight(train.dataset.labels, train.dataset.classes).to(device)
