"""The device, the precision and Fabric's view of them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from diascope.errors import UserError
from diascope.hardware import best_precision
from diascope.training.config import TrainingConfig

if TYPE_CHECKING:
    from lightning.fabric import Fabric


def on_this_machine(config: TrainingConfig) -> TrainingConfig:
    """Return the configuration with `auto` device and precision replaced by the best here.

    Raises `UserError` where the device that is asked for is not there.
    """
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device, True):
        raise UserError(f"training.device = '{device}': this machine has none; use auto or cpu")
    precision = config.precision
    if precision == "auto":
        precision = best_precision(torch.device(device))
    return config.model_copy(update={"device": device, "precision": precision})


def make_fabric(config: TrainingConfig) -> Fabric:
    """Return Fabric for one device and the precision of a configuration without `auto`."""
    from lightning.fabric import Fabric

    assert config.precision != "auto"
    log = logging.getLogger("lightning.fabric.utilities.rank_zero")
    level = log.level
    log.setLevel(logging.WARNING)  # it tells the precision, which config.yaml does
    try:
        fabric = Fabric(accelerator=config.device, devices=1, precision=config.precision)
        fabric.launch()
    finally:
        log.setLevel(level)
    return fabric
