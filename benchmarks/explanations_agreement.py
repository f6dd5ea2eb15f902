"""How far our maps are the peers', and the fast ones those in float32.

The largest difference of two raw maps, relative to the largest value of the peer's, where both
compute the same: gradient, integrated gradients, occlusion and Grad-CAM beside captum's, ours in
float32. Beside captum's in float64 stands how far both are from it: a ReLU so near to zero that
rounding decides it changes a gradient by itself, by some 0.001 of a map's maximum, and on a way of
50 steps of a ResNet-18 there are such. The rank correlation of the heat maps stands everywhere; it
is all that can be said where definitions differ (grad-cam leaves the input normalisation's offset
out of FullGrad, and stretches Grad-CAM before it upsamples), and where noise does (SmoothGrad:
beside it stands ours with other noise).
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
        ranks = _ranks(*(rectify(each, explainer.rectification) for each in (attribution, theirs)))
        if peer != "captum" or what not in SAME:
            found.append(_entry(what, peer, ranks))
            continue
        found.append(_entry(what, peer, ranks, difference(attribution, theirs)))
        double = _captum(model, settings, x, y, what, torch.float64)
        for who, each in ((what, attribution), (f"captum's {what}", theirs)):
            found.append(_entry(who, "captum in float64", None, difference(each, double)))
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
    if "captum" in installed():
        found += [("captum", what, _captum(model, settings, x, y, what)) for what in SAME]
        torch.manual_seed(0)
        parts = []
        for image, target in zip(x.split(1), y.split(1), strict=True):
            relative = settings.sigma * float(image.amax() - image.amin())
            own = replace(settings, sigma=relative)
            parts.append(_captum(model, own, image, target, "smoothgrad"))
        found.append(("captum", "smoothgrad", torch.cat(parts)))
    if "grad-cam" in installed():
        copy = peers.own_copy(model)
        for what, explain in gradcam_explainers(copy, target_layer(model, x)).items():
            found.append(("grad-cam", what, explain(x, y).to(x.device)))
    return found


def _captum(
    model: nn.Module,
    settings: Settings,
    x: Tensor,
    y: Tensor,
    what: str,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    knobs = Knobs(internal_batch_size=ROWS, nt_samples_batch_size=ROWS)
    copy, layer = peers.own_copy(model).to(dtype), target_layer(model, x)
    return captum_explainers(copy, layer, settings, knobs)[what](x.to(dtype), y)


def _run(explainer: Explainer, model: nn.Module, x: Tensor, y: Tensor, seed: int = 0) -> Tensor:
    return explainer(model, x, y, generator=torch.Generator().manual_seed(seed))


def _entry(
    what: str,
    beside: str,
    ranks: list[float] | None,
    difference: list[float] | None = None,
) -> dict[str, Any]:
    values = {"rank": ranks, "difference": difference}
    images = len(difference or ranks or ())
    known = {name: each for name, each in values.items() if each}
    return {"what": what, "beside": beside, "images": images, **known}


def _ranks(heat: Tensor, other: Tensor) -> list[float]:
    """Return the rank correlation of each image's maps (B, H, W), where neither is constant."""
    pairs = zip(heat.cpu().flatten(1).numpy(), other.cpu().flatten(1).numpy(), strict=True)
    return [float(spearmanr(a, b).statistic) for a, b in pairs if np.ptp(a) > 0 and np.ptp(b) > 0]
