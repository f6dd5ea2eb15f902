"""Grad-CAM: the last feature map, weighed by the mean gradients of its channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diascope.explain.base import Need, Rectification, checked_targets, explainers
from diascope.explain.chunks import rows_within
from diascope.explain.layers import Layer, branching, find_layer, folded_shift
from diascope.models.frozen import Arithmetic, FrozenModel, frozen
from diascope.models.heads import target_score


@explainers.register("gradcam")
@dataclass(frozen=True, kw_only=True)
class GradCAM:
    """Grad-CAM (Selvaraju et al. 2017, equations 1 and 2), before its ReLU.

    The map sum_k a_k A_k of a layer's channels A_k, where a_k is the mean over places of the
    gradient of the target's score to A_k; upsampled to the image (bilinear, corners not aligned).
    It is signed; positive evidence only is kept by its rectification, "positive" (P1, B.4).

    layer: the layer's name; None finds the last map by itself (`layers.find_layer`), the ReLU
    after the last convolution in most nets; of tokens their grid is taken. of: the score that is
    differentiated: "logit" (the paper's), "log_softmax", "probability" or "loss". Cost: one
    forward, and a backward from the logits to the layer only. Raises `UserError` for an unknown
    layer and for a model without a map.
    """

    rectification: ClassVar[Rectification] = "positive"
    needs: ClassVar[Need] = "convolution"

    layer: str | None = None
    of: Literal["logit", "log_softmax", "probability", "loss"] = "logit"
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
        if torch.is_inference_mode_enabled():
            raise RuntimeError("explanations need gradients: call outside torch.inference_mode()")
        if not len(x):
            return x.new_zeros(0, 1, *x.shape[2:])
        x = x.detach()
        with frozen(model, x[:1], precision=self.precision) as net:
            targets = checked_targets(net, x, target)
            layer = find_layer(net, x, self.layer)
            rows = rows_within(net, x, self.memory, gradient=self.layer is not None)
            parts = zip(torch.split(x, rows), torch.split(targets, rows), strict=True)
            cam = torch.cat([self._maps(net, layer, *part) for part in parts])
        return F.interpolate(cam, x.shape[2:], mode="bilinear", align_corners=False).to(x.dtype)

    def passes(self, side: int) -> float:
        """Return the cost of an image, see `passes_of`: little lies behind the last map."""
        return 1.5 if self.layer is None else 3

    def _maps(self, net: FrozenModel, layer: Layer, x: Tensor, targets: Tensor) -> Tensor:
        """Return the maps at the layer's own size, (B, 1, h, w)."""
        with branching(net, layer) as outputs:
            score = target_score(net(x), targets, self.of).sum()
            (gradient,) = torch.autograd.grad(score, outputs[-1], materialize_grads=True)
        maps, gradient = (layer.places.as_map(t) for t in (outputs[-1].detach(), gradient))
        wide = torch.promote_types(maps.dtype, torch.float32)
        weights, maps = gradient.to(wide).mean((2, 3)), maps.to(wide)  # (B, K'), (B, K', h, w)
        shift = folded_shift(net, layer)
        if shift is not None:  # the convolution's own output; the scale is in the weights already
            maps = maps - shift
        return torch.einsum("bk,bkhw->bhw", weights, maps)[:, None]
