"""A grid search over settings, by cross-validation whose folds never divide a group."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from diascope.errors import UserError
from diascope.files import write_text
from diascope.settings import validate
from diascope.training.compare import FREE
from diascope.training.config import SearchConfig, TrainConfig
from diascope.training.fit import validation_attack
from diascope.training.layers import merge, overlay
from diascope.training.loop import NotFiniteError
from diascope.training.progress import Progress
from diascope.training.run import Run
from diascope.training.stages import train_stages

TRIALS, TABLE, BEST = "trials", "search.csv", "best.yaml"


@dataclass(frozen=True)
class Trial:
    """One combination of `values`, by dotted key, and the resolved `config` that has them."""

    values: dict[str, Any]
    config: TrainConfig
    folds: int

    @property
    def key(self) -> str:
        """A hash of all that decides what the trial's runs come to: the name of its folder."""
        content = self.config.model_dump(mode="json")
        for dotted in FREE:
            part, _, leaf = dotted.partition(".")
            for stage in (content, *content["stages"]):
                stage.get(part, {}).pop(leaf, None)
        text = json.dumps([content, self.folds], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    def on(self, fold: str) -> TrainConfig:
        """Return the configuration on one fold, such as "2/5", or on "all" images."""
        split = self.config.data.split.model_copy(update={"fold": fold})
        data = self.config.data.model_copy(update={"split": split})
        return self.config.model_copy(update={"data": data})

    def refit(self) -> TrainConfig:
        """Return the configuration on all training images: without validation, to the end."""
        last = {"training": {"select": "last"}}
        content = merge(self.on("all").model_dump(mode="json"), last)
        content["stages"] = [merge(stage, last) if stage else {} for stage in content["stages"]]
        return validate(TrainConfig, content, "search: refit").resolved("search: refit")

    def __str__(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.values.items())


def search(config: TrainConfig, folder: Path, progress: Progress) -> TrainConfig:
    """Try every combination of the grid, and return the configuration of the refit with the best.

    Each trial is judged by its mean over the folds of train and val; of equal ones the first is
    taken. Its runs are in `folder/trials/<hash>/fold-<j>`: one that is finished is not trained
    again, one that stopped goes on. `search.csv` has a row a trial, with mean, standard deviation
    and each fold's value (empty where the loss was no longer finite). `best.yaml` is the
    configuration of the refit: on train and val together, to the last epoch; other configurations
    can take it as their `base`. Raises `UserError` for mistakes, before anything is trained.
    """
    assert config.search is not None
    trials = trials_of(config)
    _check(config, trials)
    rows: list[dict[str, Any]] = []
    for number, trial in enumerate(trials, 1):
        progress.note(f"trial {number} of {len(trials)}: {trial}")
        values = _on_folds(trial, folder / TRIALS / trial.key, config.search, progress)
        rows.append(_row(trial, values))
        write_text(folder / TABLE, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
    means = [row["mean"] for row in rows]
    best = chosen(means, config.search.metric)
    head = (
        f"# The best of {len(trials)} trials by {config.search.metric}, {means[best]:.4f} on "
        f"average over {config.search.folds} folds:\n# {trials[best]}\n"
    )
    refit = trials[best].refit()
    content = {key: value for key, value in refit.to_dict().items() if key != "search"}
    write_text(folder / BEST, head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    progress.note(f"{head.splitlines()[0][2:]} {trials[best]}")
    return refit


def trials_of(config: TrainConfig) -> list[Trial]:
    """Return a trial for each combination of the grid, the last key's values changing fastest."""
    assert config.search is not None
    grid = config.search.grid
    content = {**config.model_dump(mode="json"), "search": None, "out": None}
    trials = []
    for combination in itertools.product(*grid.values()):
        values = dict(zip(grid, combination, strict=True))
        tried = validate(TrainConfig, overlay(content, values), "search.grid")
        trials.append(Trial(values, tried.resolved("search.grid"), config.search.folds))
    return trials


def chosen(means: list[float], metric: str) -> int:
    """Return the first of the best means; NaN never is. Raises `UserError` where all are NaN."""
    scores = np.array(means) * (-1 if metric == "loss" else 1)
    if np.isnan(scores).all():
        raise UserError(
            "search: no trial kept a finite loss on every fold; try lower learning rates, "
            "or training.clip_gradient=1, in a new run folder"
        )
    return int(np.nanargmax(scores))


def _on_folds(trial: Trial, folder: Path, search: SearchConfig, progress: Progress) -> list[float]:
    """Train on every fold, and return what each comes to.

    A fold whose loss is no longer finite comes to NaN, and so do those after it: the trial has
    lost, and they are not trained.
    """
    values: list[float] = []
    for fold in range(1, trial.folds + 1):
        part = folder / f"fold-{fold}"
        progress.note(f"fold {fold} of {trial.folds}, in {part}")
        try:
            run = train_stages(trial.on(f"{fold}/{trial.folds}"), part, progress)
        except NotFiniteError as error:
            progress.note(f"{part}: {error}")
            return [*values, *[math.nan] * (trial.folds - len(values))]
        values.append(judged(run, search))
    return values


def judged(run: Run, search: SearchConfig) -> float:
    """Return the run's metric on its fold, at the epoch that it selected."""
    table = run.metrics
    return float(table[f"val_{search.metric}"][table.epoch == run.epoch].iloc[0])


def _row(trial: Trial, values: list[float]) -> dict[str, Any]:
    row = {"trial": trial.key, **trial.values, "mean": float(np.mean(values))}
    row["spread"] = float(np.std(values, ddof=1))
    return {**row, **{f"fold_{j}": value for j, value in enumerate(values, 1)}}


def _check(config: TrainConfig, trials: list[Trial]) -> None:
    """Raise `UserError` for what would only be found when the trials are done."""
    assert config.search is not None
    if config.data.split.fold is not None:
        raise UserError("search: makes its own folds; set data.split.fold to null")
    for trial in trials:
        for stage in (*trial.config.stages_before(), trial.refit()):
            if stage.training.patience or stage.training.schedule.name == "plateau":
                raise UserError(
                    "search: the refit has no validation images, so training.patience and the "
                    "schedule 'plateau' cannot be used; set patience to null, schedule to another"
                )
        attack = validation_attack(trial.config.training, trial.config.build_objective())
        if config.search.metric == "adversarial_accuracy" and attack is None:
            raise UserError(
                "search.metric = 'adversarial_accuracy': the objective has no attack; "
                "give training.validation.attack"
            )
