"""How the passes of a training step run: the model's mode in each, and what shares a forward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from diascope.models.divergence import kl_divergence
from diascope.models.frozen import FrozenModel
from diascope.models.heads import cross_entropy, is_multilabel
from diascope.models.modes import unwrapped


@dataclass(frozen=True, kw_only=True)
class Passes:
    """The options that every attacked or ranked scheme has.

    search_mode: how batch-norm and dropout stand while an image is attacked or ranked. "eval":
    the statistics are the running ones, and stay as they are. "train": as in the loss's pass,
    over the batch, as in code that never leaves train mode; the running statistics are given
    back, but an image's attack then depends on its batch. What an attack asks for its verdicts,
    and attacks without gradients, stay in eval mode.
    joint: the branches of the loss (clean, attacked, masked) share one forward of the model, and
    so the batch's statistics; else each has its own, one after the other, which moves the running
    statistics once a branch, and which DDP does not allow. Only in train mode does it matter.
    label_smoothing: the share of the target of each cross-entropy spread evenly over the classes.
    """

    search_mode: Literal["eval", "train"] = "eval"
    joint: bool = True
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_choices(self)
        searches = (self, getattr(self, "attack", None))
        if self.search_mode == "train" and any(
            getattr(searcher, "precision", "auto") == "bf16" for searcher in searches
        ):
            raise ValueError("search_mode='train' computes in float32: precision must not be bf16")

    @contextmanager
    def _searched(self, model: nn.Module) -> Iterator[nn.Module]:
        """Give the model that is attacked and ranked."""
        inner = unwrapped(model)
        if self.search_mode == "eval":
            yield inner
            return
        buffers = [(buffer, buffer.clone()) for buffer in inner.buffers()]
        try:
            yield FrozenModel(inner, inner, "float32")
        finally:
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)

    def _logits(self, model: nn.Module, *branches: Tensor) -> list[Tensor]:
        """Return the logits (B, K) of each branch (B, C, H, W)."""
        if self.joint and len(branches) > 1:
            return list(model(torch.cat(branches)).chunk(len(branches)))
        return [model(x) for x in branches]

    def _cross_entropy(self, logits: Tensor, y: Tensor, class_weight: Tensor | None) -> Tensor:
        losses = cross_entropy(logits, y, weight=class_weight, label_smoothing=self.label_smoothing)
        return losses.mean()


@dataclass(frozen=True, kw_only=True)
class Compared(Passes):
    """The options of schemes that hold a changed image's prediction to the clean one's.

    kl_first: whose probabilities p come first in KL(p || q), "clean" or "changed". detach: the
    clean prediction is a constant in the divergence, so that only the changed image's is moved;
    the papers' equations move both. The divergence is averaged over the images, without class
    weights.
    """

    kl_first: Literal["clean", "changed"] = "clean"
    detach: bool = False

    def _divergence(self, clean: Tensor, changed: Tensor, y: Tensor) -> Tensor:
        clean = clean.detach() if self.detach else clean
        pair = (clean, changed) if self.kl_first == "clean" else (changed, clean)
        return kl_divergence(*pair, multilabel=is_multilabel(clean, y)).mean()


def check_choices(member: object) -> None:
    """Raise ValueError where a field holds none of the values it chooses from."""
    cls: Any = type(member)
    for name, choices in _choices(cls).items():
        if getattr(member, name) not in choices:
            known = ", ".join(map(str, choices))
            raise ValueError(f"{name}={getattr(member, name)!r}: one of {known}")


@cache
def _choices(cls: type) -> dict[str, tuple[Any, ...]]:
    hints = get_type_hints(cls)
    return {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}
