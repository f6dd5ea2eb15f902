"""Asking a model that nobody knows yet: whatever it raises becomes one line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diascope.errors import UserError
from diascope.models.inputs import Head, Scaling, as_logits, unwrap

AT_ONCE = 16

Problem = Literal[
    "probabilities", "saturated", "twice", "other-input", "guessed-input", "guessed-size", "nan"
]


class Failed(Exception):
    """The model raised; the text says what, in one line."""


@dataclass(frozen=True)
class Sample:
    """Images (N, C, H, W) in [0, 1] that are like those to come, and their classes (N,) or None."""

    images: Tensor
    labels: Tensor | None = None

    def at(self, size: int, channels: int) -> Tensor:
        """Return them at another size and number of channels (luma of ITU-R 601)."""
        x = self.images
        if x.shape[1] == 3 and channels == 1:
            x = (x * x.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
        x = x.expand(-1, channels, -1, -1)
        if tuple(x.shape[2:]) != (size, size):
            x = F.interpolate(x, (size, size), mode="bilinear", antialias=True).clamp(0, 1)
        return x.contiguous()


@dataclass
class Asker:
    """A model under the probe, and what was noticed of it.

    layout: of the images it takes. wrapped: what it returned around its tensor, "" for a tensor.
    """

    model: nn.Module
    where: str
    layout: str = "nchw"
    wrapped: str = ""
    statements: list[str] = field(default_factory=list)
    problems: list[tuple[Problem, str]] = field(default_factory=list)

    def turned(self, x: Tensor) -> Tensor:
        """Return images (B, C, H, W) in the model's layout."""
        return x.permute(0, 2, 3, 1).contiguous() if self.layout == "nhwc" else x

    def tensor(self, out: Any) -> Tensor:
        """Return the tensor of scores in what the model returned."""
        if not isinstance(out, Tensor):
            self.wrapped = type(out).__name__
        return unwrap(out)

    @torch.no_grad()
    def forward(self, x: Tensor, scaling: Scaling) -> Tensor:
        """Return the outputs of images (B, C, H, W) in [0, 1], on the CPU; raises `Failed`."""
        device = next((p.device for p in self.model.parameters()), x.device)
        try:
            return self.tensor(self.model(self.turned(scaling(x)).to(device))).cpu()
        except UserError as error:
            raise UserError(f"{self.where}: {error}") from None
        except Exception as error:  # whatever a foreign module raises
            raise Failed(" ".join(str(error).split())[:200] or type(error).__name__) from None

    def outputs(self, x: Tensor, scaling: Scaling) -> Tensor:
        """Return the outputs of many images; raises `UserError` where the model fails."""
        try:
            return torch.cat([self.forward(part, scaling) for part in torch.split(x, AT_ONCE)])
        except (Failed, RuntimeError) as error:
            raise UserError(
                f"{self.where}: fails on images of shape {tuple(x[:AT_ONCE].shape)}: {error}"
            ) from None

    def logits(self, x: Tensor, scaling: Scaling, head: Head) -> Tensor | None:
        """Return the logits (N, K), K at least 2; None where the model fails on such images."""
        try:
            out = as_logits(self.outputs(x, scaling), head).float()
        except UserError:
            return None
        return torch.cat([torch.zeros_like(out), out], 1) if out.shape[1] == 1 else out
