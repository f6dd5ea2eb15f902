"""Training: the loop, its configuration, and runs that survive being killed."""

from diascope.training.config import (
    DataConfig,
    ModelConfig,
    SearchConfig,
    SplitConfig,
    TrainConfig,
    TrainingConfig,
    ValidationConfig,
    read_config,
)
from diascope.training.fit import fit
from diascope.training.outcome import Fit
from diascope.training.progress import Progress, console_progress
from diascope.training.recipe import train
from diascope.training.run import Run, open_run

__all__ = [
    "DataConfig",
    "Fit",
    "ModelConfig",
    "Progress",
    "Run",
    "SearchConfig",
    "SplitConfig",
    "TrainConfig",
    "TrainingConfig",
    "ValidationConfig",
    "console_progress",
    "fit",
    "open_run",
    "read_config",
    "train",
]
