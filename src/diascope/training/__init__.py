"""Training: the loop, its configuration, and runs that survive being killed."""

from diascope.training.config import (
    DataConfig,
    ModelConfig,
    SplitConfig,
    TrainConfig,
    TrainingConfig,
    ValidationConfig,
    read_config,
)
from diascope.training.fit import fit
from diascope.training.loop import Fit
from diascope.training.progress import Progress, console_progress
from diascope.training.run import Run, open_run, train

__all__ = [
    "DataConfig",
    "Fit",
    "ModelConfig",
    "Progress",
    "Run",
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
