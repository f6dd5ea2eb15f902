"""The devices, the precision and Fabric's view of them."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from diascope.errors import UserError
from diascope.hardware import best_precision
from diascope.training.config import TrainingConfig

if TYPE_CHECKING:
    from lightning.fabric import Fabric


def on_this_machine(config: TrainingConfig) -> TrainingConfig:
    """Return the configuration with every `auto` of device, number and precision replaced.

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
    launched = _launched()
    devices, nodes = (
        at if asked == "auto" else asked
        for asked, at in zip((config.devices, config.nodes), launched, strict=True)
    )
    if device == "cuda" and devices > torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(f"training.devices = {devices}: this machine has {count}; use auto")
    return config.model_copy(
        update={"device": device, "precision": precision, "devices": devices, "nodes": nodes}
    )


def make_fabric(config: TrainingConfig) -> Fabric:
    """Return Fabric, launched, for a configuration without `auto`.

    Where `devices` is above one and no launcher has started the processes, it starts them: each
    runs the same command again.
    """
    from lightning.fabric import Fabric

    several = int(config.devices) * int(config.nodes) > 1
    settings: dict[str, Any] = {
        "accelerator": config.device,
        "devices": config.devices,
        "num_nodes": config.nodes,
        "strategy": "ddp" if several else "auto",
        "precision": config.precision,
    }
    given = {key for key in settings if os.environ.get(f"LT_{key.upper()}")}  # by `fabric run`
    names = ("lightning", "lightning_utilities")
    logs = [log for name in names for log in _loggers(name)]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.WARNING)  # they tell precision and ranks, which config.yaml does
    try:
        fabric = Fabric(**{key: value for key, value in settings.items() if key not in given})
        if os.environ.get("LT_CLI_USED") != "1":  # `fabric run` has launched it
            fabric.launch()
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
    return fabric


def _loggers(name: str) -> list[logging.Logger]:
    """Return the logger called `name`, and those below it that exist."""
    below = [k for k in logging.root.manager.loggerDict if k.startswith(f"{name}.")]
    return [logging.getLogger(k) for k in (name, *below)]


def synchronised(model: nn.Module, fabric: Fabric) -> nn.Module:
    """Return the model with batch-norm over the images of all processes, where that exists.

    It does on GPUs. On CPUs each process normalises by its own share of the batch.
    """
    if fabric.world_size == 1 or fabric.device.type != "cuda":
        return model
    from timm.layers.norm_act import convert_sync_batchnorm

    converted: nn.Module = convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return converted


def _launched() -> tuple[int, int]:
    """Return the processes of this node and the nodes that a launcher started, else (1, 1)."""
    env = os.environ
    if "LOCAL_WORLD_SIZE" in env:  # torchrun, and `fabric run`, which calls it
        local = int(env["LOCAL_WORLD_SIZE"])
        return local, int(env.get("WORLD_SIZE", local)) // local
    if "SLURM_NTASKS" in env and env.get("SLURM_JOB_NAME") not in ("bash", "interactive", None):
        nodes = int(env.get("SLURM_NNODES", "1"))
        return int(env.get("SLURM_NTASKS_PER_NODE", int(env["SLURM_NTASKS"]) // nodes)), nodes
    return 1, 1
