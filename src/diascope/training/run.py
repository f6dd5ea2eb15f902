"""A run: a folder with a configuration, a split, a model, its metrics and its predictions.

`model.safetensors` is written last: where it stands, the run is finished.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from diascope.data import Pixels, Splits, load_pixels, open_data
from diascope.errors import UserError
from diascope.evaluation import predict, write_table
from diascope.files import replacing
from diascope.models import Classifier, create_model, load_model, read_card, save_model
from diascope.models.checkpoint import WEIGHTS
from diascope.models.modes import evaluating
from diascope.objectives import Objective
from diascope.randomness import derive
from diascope.settings import write_yaml
from diascope.training.compare import as_before, refuse_changes
from diascope.training.config import TrainConfig, read_config
from diascope.training.fit import check_images, fit, settled
from diascope.training.groups import freeze
from diascope.training.machine import make_fabric
from diascope.training.outcome import Fit
from diascope.training.progress import Progress
from diascope.training.record import content_of, describe_run
from diascope.training.state import METRICS, FolderStore
from diascope.training.team import Team

Change = Callable[[str, Pixels], Pixels]  # of the part "train" or "val"
CONFIG, SPLIT, PREDICTIONS = "config.yaml", "split.csv", "validation.parquet"


@dataclass(frozen=True)
class Run:
    """A finished run: its `folder`, its resolved `config`, and the `epoch` (from 1) chosen."""

    folder: Path
    config: TrainConfig
    epoch: int

    @property
    def metrics(self) -> pd.DataFrame:
        """The metrics, a row an epoch."""
        return pd.read_csv(self.folder / METRICS)

    def model(self) -> Classifier:
        """Return the trained classifier, in eval mode."""
        return load_model(self.folder)


def train_run(
    config: TrainConfig, folder: Path, progress: Progress, change: Change | None = None
) -> Run:
    """Train one run, in `folder`, from the weights that the model's settings name.

    A run that stopped goes on, and one that is finished is returned as it is. `config` is
    resolved, and its stages and search are left to others. `change` is what is made of the images
    before they are used; it is not part of the configuration, and a finished run is not trained
    again for another one. Raises `UserError` for mistakes in the data or the model, and for a
    changed configuration, changed start weights or changed data.
    """
    objective = config.build_objective()
    config = _prepared(config, objective, folder)
    if finished(folder):
        FolderStore(folder).clear()
        progress.note(f"{folder}: is finished; nothing to resume")
        return open_run(folder)
    return _train(config, objective, folder, progress, change)


def finished(folder: Path) -> bool:
    """Tell whether the run in `folder` is finished."""
    return (folder / WEIGHTS).exists()


def begun(folder: Path) -> bool:
    """Tell whether the run in `folder` has a state to go on from."""
    return FolderStore(folder).path.exists()


def open_run(folder: Path) -> Run:
    """Return the finished run in `folder`; raises `UserError` where there is none."""
    card = read_card(folder)
    return Run(folder, read_config(folder / CONFIG), int(card["epoch"]))


def _prepared(config: TrainConfig, objective: Objective, folder: Path) -> TrainConfig:
    """Return the configuration without `auto`, having made sure that `folder` goes on with it."""
    written = folder / CONFIG
    if not (finished(folder) or begun(folder)) or not written.exists():
        return config.model_copy(update={"training": settled(config.training, objective)})
    old = read_config(written)
    training = settled(as_before(config.training, old.training), objective)
    config = config.model_copy(update={"training": training})
    start = ((old.record or {}).get("weights") or {}).get("content")
    now = (content_of(config.model.weights) or start) if config.model.weights else None
    refuse_changes(
        _compared(old, start), _compared(config, now), str(folder), grows=not finished(folder)
    )
    return config


def _compared(config: TrainConfig, start: str | None) -> dict[str, Any]:
    """Return what must not change on resume; `start` is the content of the start weights."""
    content = config.to_dict()
    weights = f"content {start}" if start else None
    model = {**content["model"], "weights": weights}
    return {**content, "model": model, "out": None, "stages": [], "search": None}


def _train(
    config: TrainConfig,
    objective: Objective,
    folder: Path,
    progress: Progress,
    change: Change | None = None,
) -> Run:
    fabric = make_fabric(config.training)
    team = Team(fabric)
    progress = progress if team.first else Progress()
    with team.first_goes_first():
        splits, train, val = open_parts(config, progress)
    if change is not None:
        train, val = change("train", train), change("val", val)
    check_images(train, val, config.training)
    record = describe_run({"train": train, "val": val}, splits.test, config.model.weights)
    _same_data(folder, record)
    model = _model(config, train.dataset.classes)
    if config.model.weights and model.fresh:
        progress.note(f"{config.model.weights}: left as drawn: {', '.join(model.fresh)}")
    if team.first:
        folder.mkdir(parents=True, exist_ok=True)
        if not begun(folder) or not (folder / CONFIG).exists():
            splits.save(folder / SPLIT, {**_contents(train), **_contents(val)})
        _write_config(folder, config, record)
    fitted = fit(
        model,
        objective,
        train,
        val,
        config.training,
        folder=folder,
        resume=True,
        progress=progress,
        fabric=fabric,
    )
    if team.first:
        _finish(folder, config, fitted, val, record)
    team.wait()
    progress.note(f"{folder}: finished, with the weights of epoch {fitted.epoch}")
    return open_run(folder)


def _model(config: TrainConfig, classes: tuple[str, ...]) -> Classifier:
    """Return the classifier at the start of training, drawn by the seed."""
    spec = config.model
    with torch.random.fork_rng():
        torch.manual_seed(derive(config.training.seed, "model"))
        model = create_model(
            spec.name,
            len(classes),
            spec.pretrained,
            spec.attention,
            config.data.channels,
            spec.weights,
            **spec.options,
        )
        _try_out(model, config)
    if spec.weights and spec.weights.expanduser().is_dir():
        _same_classes(spec.weights, classes)
    freeze(model, spec.trainable)
    return model


def _same_classes(weights: Path, classes: tuple[str, ...]) -> None:
    """Raise `UserError` where a run to start from has the classes in another order."""
    before = read_card(weights.expanduser()).get("classes", classes)
    if set(before) == set(classes) and tuple(before) != classes:
        raise UserError(
            f"{weights}: was trained with the classes in the order {', '.join(before)}; "
            "give data.classes in that order"
        )


def _try_out(model: Classifier, config: TrainConfig) -> None:
    """Raise `UserError` where the model cannot take images of this size."""
    data = config.data
    try:
        with evaluating(model) as inner, torch.no_grad():
            inner(torch.zeros(2, data.channels, data.size, data.size))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"model '{config.model.name}': cannot take {data.size}x{data.size} images ({reason}); "
            "set data.size, or model.options such as img_size"
        ) from None


def open_parts(config: TrainConfig, progress: Progress) -> tuple[Splits, Pixels, Pixels]:
    """Return the splits, and the pixels of train and val; those of test are never opened."""
    data = config.data
    dataset = open_data(data.name, data.classes, **data.options)
    splits = data.split.of(dataset)
    train, val = (
        load_pixels(
            part,
            data.size,
            data.preprocess,
            progress=progress.load,
            skip_unreadable=data.skip_unreadable,
        )
        for part in (splits.train, splits.val)
    )
    if skipped := len(train.skipped) + len(val.skipped):
        progress.note(f"{dataset.name}: {skipped} unusable images are left out of train and val")
    return splits, train, val


def _contents(pixels: Pixels) -> dict[str, str]:
    return dict(zip(pixels.dataset.table.path, pixels.fingerprints(), strict=True))


def _finish(
    folder: Path, config: TrainConfig, fitted: Fit, val: Pixels, record: dict[str, Any]
) -> None:
    store = FolderStore(folder)
    store.write_metrics(fitted.metrics)
    model, seed = fitted.model, config.training.seed
    if len(val):
        device = next(model.parameters()).device
        table = predict(model, val, batch_size=64, device=device)
        about = {"seed": seed, "epoch": fitted.epoch, "data": record["data"]["fingerprint"]}
        write_table(table, folder / PREDICTIONS, about)
    row = fitted.metrics.iloc[fitted.epoch - 1].drop("epoch")
    save_model(
        model,
        folder / WEIGHTS,
        classes=list(val.dataset.classes),
        size=config.data.size,
        preprocess=config.data.preprocess.model_dump(),
        objective=config.objective,
        objective_eps_given=config.objective_eps_given,
        seed=seed,
        epoch=fitted.epoch,
        metrics={str(k): float(v) for k, v in row.drop("alarm").items() if pd.notna(v)},
        alarms=list(fitted.alarms),
        data=record["data"],
    )
    store.clear()


def _write_config(folder: Path, config: TrainConfig, record: dict[str, Any]) -> None:
    with replacing(folder / CONFIG) as temporary:
        write_yaml(temporary, {**config.to_dict(), "record": record})


def _same_data(folder: Path, record: dict[str, Any]) -> None:
    """Raise `UserError` where the run in `folder` began with other images or labels."""
    if not begun(folder) or not (folder / CONFIG).exists():
        return
    before = (read_config(folder / CONFIG).record or {}).get("data", {})
    if before.get("fingerprint") != record["data"]["fingerprint"]:
        raise UserError(
            f"{folder}: the images, labels or splits of {record['data']['name']} have changed "
            "since the run began; restore them, or begin a run in another folder"
        )
