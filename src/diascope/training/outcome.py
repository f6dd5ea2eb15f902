"""What a training comes to: the model, and a table with a row an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from torch import nn

Row = dict[str, float]
COLUMNS = (
    "epoch",
    "lr",
    "train_loss",
    "val_loss",
    "val_accuracy",
    "val_balanced_accuracy",
    "val_adversarial_accuracy",
    "val_check_accuracy",
    "alarm",
    "seconds",
    "seconds_data",
    "seconds_update",
    "seconds_attack",
    "seconds_validation",
    "images_per_second",
)


@dataclass(frozen=True)
class Fit:
    """A finished training: the model with the chosen weights, in eval mode, on its device.

    `epoch` (from 1) is the one whose weights were chosen; `metrics` has a row an epoch; `alarms`
    say what went wrong on the way, a line a kind.
    """

    model: nn.Module
    epoch: int
    metrics: pd.DataFrame
    alarms: tuple[str, ...] = ()


def metrics_table(
    rows: list[Row], alarms: Mapping[str, tuple[int, str]] | None = None
) -> pd.DataFrame:
    """Return the table of `metrics.csv`, a row an epoch; alarms stand where they began."""
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"epoch": int})
    table["alarm"] = ""
    for kind, (epoch, _) in (alarms or {}).items():
        others = table.loc[table.epoch == epoch, "alarm"]
        table.loc[table.epoch == epoch, "alarm"] = others.where(others == "", others + "; ") + kind
    return table
