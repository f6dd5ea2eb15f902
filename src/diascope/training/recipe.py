"""Training as a configuration says: a search if it has one, then every stage."""

from __future__ import annotations

import os
from pathlib import Path

from diascope.errors import UserError
from diascope.training.config import TrainConfig
from diascope.training.progress import Progress, console_progress
from diascope.training.run import Run, begun, finished
from diascope.training.search import TRIALS, search
from diascope.training.stages import stage_folder, train_stages


def train(
    config: TrainConfig,
    out: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Train as `config` says, into the run folder `out` (or `config.out`).

    With `search` the best values are found first, and the run is the refit with them on all
    training images (see `diascope.training.search`); with `stages` the run is the last of them
    (see `diascope.training.stages`). With `resume` what stopped goes on where it stopped, what has
    nothing to resume begins, and a finished run is returned as it is. Raises `UserError` for
    mistakes in the configuration or the data, for a folder that already holds a run, and for a
    changed configuration on resume.
    """
    folder = out or config.out
    if folder is None:
        raise UserError("out: name a folder for the run")
    config = config.resolved()
    _check_folder(folder, resume)
    silent = Progress() if follows() else None
    with silent or progress or console_progress() as shown:
        if config.search is not None:
            config = search(config, folder, shown)
        return train_stages(config, folder, shown)


def follows() -> bool:
    """Tell whether this process was started beside another one that speaks to the user."""
    ranks = (os.environ.get(key) for key in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return next((rank != "0" for rank in ranks if rank is not None), False)


def _check_folder(folder: Path, resume: bool) -> None:
    """Raise `UserError` where `folder` cannot take the run."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder for the run")
    if resume:
        return
    if finished(folder):
        raise UserError(f"{folder}: holds a finished run; name another folder, or remove it")
    if begun(folder) or stage_folder(folder, 1).exists() or (folder / TRIALS).exists():
        raise UserError(
            f"{folder}: holds an unfinished run; go on with --resume, or name another folder"
        )
