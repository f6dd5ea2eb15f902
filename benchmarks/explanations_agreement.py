"""How far our maps are the peers', and the fast ones those in float32.

The largest difference of two raw maps, relative to the largest value of the peer's, where both
compute the same: gradient, integrated gradients, occlusion and Grad-CAM beside captum's, ours in
float32. The rank correlation of the heat maps everywhere, which is all that can be said where
definitions differ (grad-cam stretches every channel of every layer of FullGrad to [0, 1] before
it adds them, and its Grad-CAM is stretched before it is upsampled), and where noise does
(SmoothGrad: beside stands ours with other noise).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.explanations_peers import (
    Knobs,
    Settings,
    captum_explainers,
    gradcam_explainers,
    installed,
    target_layer,
)
from diascope.explain import Explainer, rectify

SAME = ("gradient", "integrated_gradients", "occlusion", "gradcam")  # as captum defines them
ROWS = 64  # images that captum may run at once here, where nothing is timed


def agreements(
    model: nn.Module,
    ours: Callable[..., dict[str, Explainer]],
    settings: Settings,
    x: Tensor,
    y: Tensor,
) -> list[dict[str, Any]]:
    """Return an entry a pair of maps of images x (B, C, H, W) and classes y (B,).

    `ours` is called with options of all explainers, such as precision="float32".
    """
    own, found = peers.own_copy(model), []
    in_float32 = ours(precision="float32")
    exact = {name: (each, _run(each, own, x, y)) for name, each in in_float32.items()}
    for what, (explainer, attribution) in exact.items():
        heat = rectify(attribution, explainer.rectification)
        fast = rectify(_run(ours()[what], own, x, y), explainer.rectification)
        found.append(_entry(what, "ours in float32", _ranks(fast, heat)))
        if what == "smoothgrad":
            other = rectify(_run(explainer, own, x, y, seed=1), explainer.rectification)
            found.append(_entry(what, "ours, other noise", _ranks(heat, other)))
    for peer, what, theirs in _their_maps(model, settings, x, y):
        explainer, attribution = exact[what]
        same = peer == "captum" and what in SAME
        found.append(
            _entry(
                what,
                peer,
                _ranks(
                    rectify(attribution, explainer.rectification),
                    rectify(theirs, explainer.rectification),
                ),
                difference(attribution, theirs) if same else None,
            )
        )
    return found


def difference(attribution: Tensor, theirs: Tensor) -> list[float]:
    """Return each image's largest difference, relative to the largest value of `theirs`."""
    far = (attribution.double() - theirs.double()).flatten(1).abs().amax(1)
    relative: list[float] = (far / theirs.double().flatten(1).abs().amax(1)).tolist()
    return relative


def _their_maps(
    model: nn.Module, settings: Settings, x: Tensor, y: Tensor
) -> list[tuple[str, str, Tensor]]:
    """Return (peer, method, maps); SmoothGrad's noise relative to each image's range, as ours."""
    found = []
    layer = target_layer(model, x)
    if "captum" in installed():
        copy, knobs = peers.own_copy(model), Knobs(internal_batch_size=ROWS, images=1)
        torch.manual_seed(0)
        for what, explain in captum_explainers(copy, layer, settings, knobs).items():
            if what != "smoothgrad":
                found.append(("captum", what, explain(x, y)))
                continue
            maps = []
            for image, target in zip(x.split(1), y.split(1), strict=True):
                sigma = settings.sigma * float(image.amax() - image.amin())
                relative = replace(settings, sigma=sigma)
                explain = captum_explainers(copy, layer, relative, knobs)[what]
                maps.append(explain(image, target))
            found.append(("captum", what, torch.cat(maps)))
    if "grad-cam" in installed():
        for what, explain in gradcam_explainers(peers.own_copy(model), layer).items():
            found.append(("grad-cam", what, explain(x, y).to(x.device)))
    return found


def _run(explainer: Explainer, model: nn.Module, x: Tensor, y: Tensor, seed: int = 0) -> Tensor:
    return explainer(model, x, y, generator=torch.Generator().manual_seed(seed))


def _entry(
    what: str, beside: str, ranks: list[float], difference: list[float] | None = None
) -> dict[str, Any]:
    found: dict[str, Any] = {"what": what, "beside": beside, "images": len(ranks), "rank": ranks}
    return found if difference is None else {**found, "difference": difference}


def _ranks(heat: Tensor, other: Tensor) -> list[float]:
    """Return the rank correlation of each image's maps (B, H, W), where neither is constant."""
    pairs = zip(heat.cpu().flatten(1).numpy(), other.cpu().flatten(1).numpy(), strict=True)
    return [float(spearmanr(a, b).statistic) for a, b in pairs if np.ptp(a) > 0 and np.ptp(b) > 0]
