"""captum and grad-cam as explainers, used as their documentation says: (x, target) -> maps.

Each works in float32 on the model that it is given. What they return is left as it is: captum's
maps are raw and signed, (B, C or 1, H, W); grad-cam's are scaled to [0, 1] image by image,
(B, 1, H, W).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from contextlib import redirect_stdout
from dataclasses import dataclass, fields, replace
from io import StringIO

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from benchmarks import record
from benchmarks.timing import timed
from diascope.explain.layers import find_layer
from diascope.models.frozen import frozen
from diascope.models.heads import probabilities

Explain = Callable[[Tensor, Tensor], Tensor]  # images (B, C, H, W), classes (B,)

TUNED = ("integrated_gradients", "smoothgrad", "occlusion")  # have batching knobs
PACKAGES = {"captum": "captum", "grad-cam": "grad-cam"}


@dataclass(frozen=True)
class Settings:
    """How much is computed, the same for everyone; window and stride in pixels."""

    steps: int = 50
    samples: int = 25
    sigma: float = 0.15
    window: int = 50
    stride: int = 25


@dataclass(frozen=True)
class Knobs:
    """captum's batching knobs at captum's defaults, and `images`: how many a call is given.

    By default captum's integrated gradients and noise tunnel run all steps or samples of all
    images of a call at once: 16 images of 224 with 50 steps take some 20 GB in a ResNet-18.
    """

    internal_batch_size: int | None = None
    nt_samples_batch_size: int | None = None
    perturbations_per_eval: int = 1
    images: int = 1 << 30

    def __str__(self) -> str:
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        known["images"] = None if self.images >= 1 << 30 else self.images
        return ", ".join(f"{name}={value}" for name, value in known.items() if value is not None)


def installed() -> list[str]:
    """Return the peers that are installed."""
    return [name for name, package in PACKAGES.items() if record.version_of(package)]


def target_layer(model: nn.Module, x: Tensor) -> str:
    """Return the name of the layer whose map our Grad-CAM takes, for the peers to take it too."""
    with frozen(model, x[:1]) as net:
        return find_layer(net, x).name


def captum_explainers(
    model: nn.Module, layer: str, settings: Settings, knobs: Knobs
) -> dict[str, Explain]:
    """Return captum's explainers by our names; `layer` is Grad-CAM's.

    Its occlusion looks at the probability, as ours does by default.
    """
    from captum.attr import (
        IntegratedGradients,
        LayerGradCam,
        NoiseTunnel,
        Occlusion,
        Saliency,
    )

    saliency, paths = Saliency(model), IntegratedGradients(model)
    occlusion = Occlusion(lambda x: probabilities(model(x)))
    tunnel, grad_cam = NoiseTunnel(saliency), LayerGradCam(model, model.get_submodule(layer))

    def gradient(x: Tensor, target: Tensor) -> Tensor:
        return saliency.attribute(x, target=target, abs=False)

    def integrated_gradients(x: Tensor, target: Tensor) -> Tensor:
        return paths.attribute(
            x,
            target=target,
            n_steps=settings.steps,
            internal_batch_size=knobs.internal_batch_size,
        )

    def smoothgrad(x: Tensor, target: Tensor) -> Tensor:
        return tunnel.attribute(
            x,
            target=target,
            abs=False,
            nt_type="smoothgrad",
            nt_samples=settings.samples,
            nt_samples_batch_size=knobs.nt_samples_batch_size,
            stdevs=settings.sigma,
        )

    def occluded(x: Tensor, target: Tensor) -> Tensor:
        return occlusion.attribute(
            x,
            target=target,
            sliding_window_shapes=(x.shape[1], settings.window, settings.window),
            strides=(x.shape[1], settings.stride, settings.stride),
            perturbations_per_eval=knobs.perturbations_per_eval,
        )

    def gradcam(x: Tensor, target: Tensor) -> Tensor:
        coarse = grad_cam.attribute(x, target=target)
        return interpolate(coarse.detach(), x.shape[2:], mode="bilinear", align_corners=False)

    return {
        "gradient": _quiet(gradient),
        "integrated_gradients": _quiet(_in_parts(integrated_gradients, knobs.images)),
        "smoothgrad": _quiet(_in_parts(smoothgrad, knobs.images)),
        "occlusion": _quiet(occluded),
        "gradcam": _quiet(gradcam),
    }


def gradcam_explainers(model: nn.Module, layer: str) -> dict[str, Explain]:
    """Return grad-cam's explainers by our names; their hooks live as long as a call."""
    from pytorch_grad_cam import FullGrad, GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def gradcam(x: Tensor, target: Tensor) -> Tensor:
        with GradCAM(model, [model.get_submodule(layer)]) as cam:
            return torch.from_numpy(cam(x, [ClassifierOutputTarget(int(k)) for k in target]))[
                :, None
            ]

    def fullgrad(x: Tensor, target: Tensor) -> Tensor:
        with redirect_stdout(StringIO()), FullGrad(model, []) as cam:
            return torch.from_numpy(cam(x, [ClassifierOutputTarget(int(k)) for k in target]))[
                :, None
            ]

    return {"gradcam": gradcam, "fullgrad": fullgrad}


def tuned(
    model: nn.Module,
    layer: str,
    settings: Settings,
    x: Tensor,
    target: Tensor,
    methods: Collection[str] = TUNED,
) -> tuple[Knobs, dict[str, list[float]]]:
    """Return captum's knobs at their fastest on these images, and all the seconds found.

    Every value is tried twice, after once to warm up, and the shorter time counts; the
    integrated gradients with a fifth of the steps, the noise tunnel with a fifth of the samples,
    the occlusion with twice the stride: what a pass of so many rows costs stays the same.
    """
    shorter = replace(
        settings,
        steps=max(2, settings.steps // 5),
        samples=max(2, settings.samples // 5),
        stride=2 * settings.stride,
    )
    rows = len(x)
    tried: dict[str, tuple[str, list[int]]] = {
        "integrated_gradients": ("internal_batch_size", [rows, 2 * rows, 4 * rows, 8 * rows]),
        "smoothgrad": ("nt_samples_batch_size", sorted({1, 2, shorter.samples})),
        "occlusion": ("perturbations_per_eval", [1, 2, 4, 8]),
    }
    best, found = Knobs(), {}
    for method in [method for method in TUNED if method in methods]:
        name, values = tried[method]
        seconds = []
        for value in values:
            knobs = replace(Knobs(), **{name: value})
            explain = captum_explainers(model, layer, shorter, knobs)[method]
            seconds.append(_fastest(explain, x, target))
        best = replace(best, **{name: values[seconds.index(min(seconds))]})
        found[f"{name} of {', '.join(map(str, values))}"] = seconds
    return best, found


def _fastest(explain: Explain, x: Tensor, target: Tensor) -> float:
    def once(_: int) -> Tensor:
        return explain(x, target)

    once(0)
    return min(timed(once, number, x.device) for number in range(2))


def _in_parts(explain: Explain, images: int) -> Explain:
    def run(x: Tensor, target: Tensor) -> Tensor:
        if len(x) <= images:
            return explain(x, target)
        parts = zip(torch.split(x, images), torch.split(target, images), strict=True)
        return torch.cat([explain(xs, ys) for xs, ys in parts])

    return run


def _quiet(explain: Explain) -> Explain:
    """Leave out captum's remarks: on gradients that it sets to be required, and on knobs."""

    def run(x: Tensor, target: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"captum\..*")
            return explain(x.detach(), target).detach()

    return run
