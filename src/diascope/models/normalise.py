"""Normalisation as the model's first layer, so that every epsilon is in pixel space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diascope.models.recording import transforming


class Normalise(nn.Module):
    """Map images in [0, 1], (B, C, H, W), to (x - mean) / std, channel by channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or any(s <= 0 for s in std):
            raise ValueError("mean and std need one entry a channel, and every std above zero")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised images, (B, C, H, W), in the memory format of `x`."""
        if not _of_channels_last(x):
            return (x - self.mean) / self.std
        batch, channels, height, width = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(batch * height, width * channels)
        mean, std = (each.flatten().repeat(width) for each in (self.mean, self.std))
        rows = (rows - mean).div_(std)
        return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _of_channels_last(x: Tensor) -> bool:
    """Tell whether images are worth normalising a row of pixels at a time, to the same bits.

    On CPUs values that broadcast to the channels, where these are the last in memory, are taken
    three at a time, which takes several times as long (docs/datasets/scale.md). What records or
    transforms the operations meets the plain ones.
    """
    if type(x) is not Tensor or x.device.type != "cpu" or x.dim() != 4 or transforming():
        return False
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
