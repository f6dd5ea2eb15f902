"""Training in stages: ordinary runs, each from the weights that the one before chose."""

from __future__ import annotations

from pathlib import Path

from diascope.training.config import TrainConfig
from diascope.training.progress import Progress
from diascope.training.run import Change, Run, finished, train_run

STAGE = "stage-"


def train_stages(
    config: TrainConfig, folder: Path, progress: Progress, change: Change | None = None
) -> Run:
    """Train every stage of a resolved configuration; the last is the run in `folder`.

    The others are runs in `folder/stage-1`, `folder/stage-2`, ... A stage that is finished is not
    trained again, one that stopped goes on. Without stages this is `train_run`, which says what
    `change` is.
    """
    before = [] if finished(folder) else config.stages_before()
    for number, stage in enumerate(before, 1):
        part = stage_folder(folder, number)
        progress.note(f"stage {number} of {len(config.stages)}, in {part}")
        train_run(_from_stage(stage, folder, number - 1), part, progress, change)
    if before:
        progress.note(f"stage {len(config.stages)} of {len(config.stages)}, in {folder}")
    return train_run(_from_stage(config, folder, len(config.stages) - 1), folder, progress, change)


def stage_folder(folder: Path, number: int) -> Path:
    """Return where the stage with this number (from 1) is, below the run's folder."""
    return folder / f"{STAGE}{number}"


def _from_stage(config: TrainConfig, folder: Path, number: int) -> TrainConfig:
    """Return the configuration with the weights of a stage to start from; 0 is none."""
    if number < 1:
        return config
    start = {"weights": stage_folder(folder, number), "pretrained": False}
    return config.model_copy(update={"model": config.model.model_copy(update=start)})
