"""What a model takes and returns, and the adapter that makes it a classifier of [0, 1] images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from diascope.errors import UserError
from diascope.settings import Settings

Head = Literal["logits", "softmax", "sigmoid"]

_RANGES = {"0-1": (0.0, 1.0), "0-255": (0.0, 255.0), "-1-1": (-1.0, 1.0)}
_TINY = float(torch.finfo(torch.float32).tiny)
_EPS = float(torch.finfo(torch.float32).eps)


class InputSettings(Settings):
    """What is declared of a model that was not trained here; None is to be found by the probe.

    channels, size: of its images, in pixels a side. layout: (B, C, H, W) or (B, H, W, C). range:
    of its pixels; low and high: of another range, such as -1024 and 1024. mean, std: of its
    normalisation, in the units of the range, one number or one a channel; only for a model that
    does not normalise inside. outputs: what it returns.
    """

    channels: Literal[1, 3] | None = None
    size: int | None = Field(default=None, ge=1, le=8192)
    layout: Literal["nchw", "nhwc"] | None = None
    range: Literal["0-1", "0-255", "-1-1"] | None = None
    low: float | None = None
    high: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    outputs: Literal["logits", "probabilities", "labels", "auto"] = "auto"

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part for part in value.split(",") if part.strip())
        return (value,) if isinstance(value, int | float) else value

    @field_validator("std")
    @classmethod
    def _positive(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and not all(v > 0 for v in value):
            raise ValueError("every std must be above zero")
        return value

    @model_validator(mode="after")
    def _fits(self) -> InputSettings:
        if (self.low is None) != (self.high is None):
            raise ValueError("low and high are given together")
        if self.low is not None and self.range is not None:
            raise ValueError("range, or low and high, not both")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError("low must be below high")
        for values in (self.mean, self.std):
            if values is not None and len(values) not in {1, self.channels or len(values)}:
                raise ValueError(
                    f"mean and std have one number, or one a channel ({self.channels})"
                )
        return self

    @property
    def scaling(self) -> Scaling | None:
        """The scaling that is declared, None where nothing of it is."""
        given = (self.range, self.low, self.mean, self.std)
        if all(value is None for value in given):
            return None
        low, high = _RANGES[self.range or "0-1"]
        if self.low is not None and self.high is not None:
            low, high = self.low, self.high
        return Scaling(low, high, self.mean or (0.0,), self.std or (1.0,))


@dataclass(frozen=True)
class Scaling:
    """From pixels in [0, 1] to what a model takes: low + x (high - low), less mean, over std."""

    low: float = 0.0
    high: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @property
    def plain(self) -> bool:
        """Whether pixels stay as they are."""
        return self == Scaling()

    @property
    def normalises(self) -> bool:
        """Whether a mean or std is taken."""
        return (set(self.mean), set(self.std)) != ({0.0}, {1.0})

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return factor and shift, (1, C or 1, 1, 1)."""
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return (self.high - self.low) / std, (self.low - mean) / std

    def __call__(self, x: Tensor) -> Tensor:
        """Return the scaled images (B, C, H, W)."""
        if self.plain:
            return x
        factor, shift = self.affine()
        return x * factor.to(x) + shift.to(x)

    def __str__(self) -> str:
        text = f"[{self.low:g}, {self.high:g}]"
        if self.normalises:
            mean, std = (", ".join(f"{v:g}" for v in values) for values in (self.mean, self.std))
            text += f", less mean {mean}, over std {std}"
        return text


class Adapter(nn.Module):
    """A model behind its scaling, whose outputs are unwrapped and made logits.

    head: "softmax" takes the logarithm of probabilities that sum to 1, "sigmoid" the log-odds of
    each of K probabilities; "logits" leaves them. Logarithms are of numbers no smaller than
    float32 has. copies: whether the model writes into the images that it is given, so that it is
    given copies. pairs: whether it fails on one image alone, so that it is given it twice.
    Gradients pass.
    """

    factor: Tensor
    shift: Tensor

    def __init__(
        self,
        inner: nn.Module,
        scaling: Scaling,
        layout: str = "nchw",
        head: Head = "logits",
        *,
        copies: bool = False,
        pairs: bool = False,
    ) -> None:
        super().__init__()
        factor, shift = scaling.affine()
        self.register_buffer("factor", factor)
        self.register_buffer("shift", shift)
        self.inner = inner
        self.scaling, self.layout, self.head = scaling, layout, head
        self.copies, self.pairs = copies, pairs

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of images (B, C, H, W) in [0, 1]."""
        count = len(x)
        if self.pairs and count == 1:
            x = torch.cat([x, x])
        if not self.scaling.plain:
            x = x * self.factor + self.shift
        if self.layout == "nhwc":
            x = x.permute(0, 2, 3, 1).contiguous()
            # a black box and a module alike read it as (B, H, W, C)
        out = unwrap(self.inner(x.clone() if self.copies else x))[:count]
        return as_logits(out, self.head)


def as_logits(out: Tensor, head: Head) -> Tensor:
    """Return outputs (B, K) as logits."""
    if head == "softmax":
        return out.float().clamp_min(_TINY).log()
    if head == "sigmoid":
        p = out.float().clamp(_TINY, 1 - _EPS)
        return p.log() - (1 - p).log()
    return out


def unwrap(out: Any) -> Tensor:
    """Return the tensor of scores in what a model returned.

    A tensor; the `logits` of an object or mapping, as Hugging Face's models return them; the only
    tensor of a mapping; the first of a tuple or list. Raises `UserError` for anything else.
    """
    if isinstance(out, Tensor):
        return out
    if isinstance(logits := getattr(out, "logits", None), Tensor):
        return logits
    if isinstance(out, Mapping):
        named = [out[key] for key in ("logits", "out", "output", "pred") if key in out]
        tensors = named or [value for value in out.values() if isinstance(value, Tensor)]
        if tensors and isinstance(tensors[0], Tensor) and (named or len(tensors) == 1):
            return tensors[0]
        raise UserError(f"returns a mapping of {', '.join(map(str, out))}: no 'logits' among them")
    if isinstance(out, tuple | list) and out:
        return unwrap(out[0])
    raise UserError(f"returns a {type(out).__name__}, not a tensor of logits")
