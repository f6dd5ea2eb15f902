"""Where a model with soft attention attends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diascope.explain.base import Need, Rectification, checked_targets, explainers
from diascope.explain.chunks import rows_within
from diascope.explain.layers import running
from diascope.models.attention import attention_of
from diascope.models.frozen import Arithmetic, frozen


@explainers.register("soft_attention")
@dataclass(frozen=True, kw_only=True)
class SoftAttentionMap:
    """The attention map of a model with soft attention, as an explanation (P2, section 3.3).

    The sum of the heads' softmaxes over places (Datta et al. 2021, section 3), at least 0,
    upsampled to the image (bilinear, corners not aligned). It is the same for every class: the
    target is not used. precision: of the layers before the attention, which itself is at least in
    float32. memory: the bytes that activations may take. Cost: one forward. Raises `UserError` for
    a model without soft attention.
    """

    rectification: ClassVar[Rectification] = "absolute"
    needs: ClassVar[Need] = "soft attention"

    precision: Arithmetic = "auto"
    memory: int = 2**30

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor | int,
        *,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return the maps (B, 1, H, W) of images (B, C, H, W) in [0, 1]."""
        attention = attention_of(model)
        if not len(x):
            return x.new_zeros(0, 1, *x.shape[2:])
        taken: list[Tensor] = []

        def take(_: nn.Module, inputs: Any) -> None:
            features = inputs[0]
            taken.append(features.to(torch.promote_types(features.dtype, torch.float32)))

        x = x.detach()
        with frozen(model, x[:1], precision=self.precision) as net, torch.no_grad():
            checked_targets(net, x, target)
            rows = rows_within(net, x, self.memory, gradient=False)
            inner = attention_of(running(net))
            handle = inner.register_forward_pre_hook(take)
            try:
                for part in torch.split(x, rows):
                    net(part)
            finally:
                handle.remove()
            maps = torch.cat([attention.map(features) for features in taken])
        return F.interpolate(maps, x.shape[2:], mode="bilinear", align_corners=False).to(x.dtype)

    def passes(self, side: int) -> float:
        """Return the cost of an image, see `passes_of`."""
        return 1
