"""Asking a model that nobody knows yet: whatever it raises becomes one line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diascope.errors import UserError
from diascope.hardware import out_of_memory
from diascope.models.black_box import BlackBox
from diascope.models.inputs import Head, Scaling, as_logits, unwrap

AT_ONCE = 16

Problem = Literal[
    "probabilities", "saturated", "twice", "other-input", "guessed-input", "guessed-size", "nan"
]


class Failed(Exception):
    """The model raised; the text says what, in one line. memory: whether it ran out of it."""

    def __init__(self, text: str, memory: bool = False) -> None:
        super().__init__(text)
        self.memory = memory


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
    writes: whether it changes the images that it is given. pairs: whether it fails on one image
    alone, which is then asked twice. at_once: the images of one question, fewer once memory ran
    out.
    """

    model: nn.Module
    where: str
    layout: str = "nchw"
    wrapped: str = ""
    writes: bool = False
    pairs: bool = False
    at_once: int = AT_ONCE
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
        """Return the outputs of images (B, C, H, W) in [0, 1], on the CPU.

        Raises `Failed` where the model does, `UserError` where it returns no row an image.
        """
        if self.pairs and len(x) == 1:
            return self.forward(torch.cat([x, x]), scaling)[:1]
        device = next((p.device for p in self.model.parameters()), x.device)
        given = self.turned(scaling(x)).to(device)
        lent = given.clone()  # a model may write into it
        try:
            out = self.tensor(self.model(lent)).cpu()
        except UserError as error:
            raise UserError(f"{self.where}: {error}") from None
        except (Exception, SystemExit) as error:  # whatever a foreign module raises
            told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise Failed(told, out_of_memory(error)) from None
        self.writes |= not torch.equal(lent, given)
        if out.ndim == 0 or len(out) != len(x):
            raise UserError(
                f"{self.where}: returns {tuple(out.shape)} for {len(x)} images, not logits of "
                "shape (B, K)"
            )
        return out

    def alone(self, x: Tensor, scaling: Scaling) -> None:
        """Ask for one image (1, C, H, W); from now on twice at a time where that fails.

        Such as where a `squeeze` takes the axis of the batch with it. Not of a black box.
        """
        try:
            if not isinstance(self.model, BlackBox):
                self.forward(x, scaling)
        except (Failed, UserError):
            self.pairs = True
            self.statements.append("fails on one image alone: it is given such an image twice")

    def outputs(self, x: Tensor, scaling: Scaling) -> Tensor:
        """Return the outputs of many images; raises `UserError` where the model fails."""
        while True:
            try:
                parts = [self.forward(part, scaling) for part in torch.split(x, self.at_once)]
                return torch.cat(parts)
            except (Failed, RuntimeError) as error:
                if not getattr(error, "memory", False) or self.at_once == 1:
                    raise UserError(
                        f"{self.where}: fails on images of shape {tuple(x[: self.at_once].shape)}: "
                        f"{error}"
                    ) from None
                self.at_once //= 2

    def logits(self, x: Tensor, scaling: Scaling, head: Head) -> Tensor | None:
        """Return the logits (N, K), K at least 2; None where the model fails on such images."""
        try:
            out = as_logits(self.outputs(x, scaling), head).float()
        except UserError:
            return None
        return torch.cat([torch.zeros_like(out), out], 1) if out.shape[1] == 1 else out
