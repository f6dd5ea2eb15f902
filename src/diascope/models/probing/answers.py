"""What a model returns: logits, probabilities or labels, with gradients or without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from diascope.errors import UserError
from diascope.models.black_box import LABEL, BlackBox
from diascope.models.inputs import Head, Scaling, unwrap
from diascope.models.probing.asking import AT_ONCE, Asker, Failed

Outputs = Literal["logits", "probabilities", "labels"]
Asked = Literal["logits", "probabilities", "labels", "auto"]


def labels_apart(asker: Asker, raw: Tensor, classes: Sequence[str], asked: Asked) -> None:
    """Ask a module as a black box from now on, if it returns labels (N,); else raise `UserError`.

    raw: its outputs, of whatever shape.
    """
    if raw.ndim != 1 or isinstance(asker.model, BlackBox):
        raise UserError(
            f"{asker.where}: returns {tuple(raw.shape)} for {len(raw)} images, not logits of "
            "shape (B, K)"
        )
    module = asker.model
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    asker.model = BlackBox(
        lambda images: unwrap(module(torch.from_numpy(images).to(device))).cpu(),
        asker.where,
        classes,
        asked,
    )


def check_outputs(asker: Asker, raw: Tensor, classes: Sequence[str]) -> None:
    """Raise `UserError` unless outputs (N, K) are finite for some, and as many as the classes."""
    known, given = raw.shape[1], len(classes)
    if given and known != given and not (known == 1 and given == 2):
        raise UserError(
            f"{asker.where}: has {known} outputs, and {given} classes are declared "
            f"({', '.join(classes)}); give --classes in the order of its outputs"
        )
    finite = raw.isfinite().all(1)
    if not finite.any():
        raise UserError(
            f"{asker.where}: returns {'NaN' if raw.isnan().any() else 'infinity'} for every one of "
            f"{len(raw)} images; check its weights, and the range of its input (input.range)"
        )
    if not finite.all():
        told = f"its outputs are not finite for {int((~finite).sum())} of {len(raw)} images"
        asker.problems.append(("nan", told))


def head_of(
    asker: Asker, x: Tensor, raw: Tensor, scaling: Scaling, asked: Asked, wild: bool
) -> tuple[Head, Outputs]:
    """Return how outputs become logits, and what they are; say so where they are no logits.

    raw: the outputs of images x. asked: what is declared of them. wild: whether the model may be
    fed numbers far outside of images.
    """
    labels = isinstance(asker.model, BlackBox) and bool(asker.model.labels)
    if asked == "labels" and not labels:
        raise UserError(f"{asker.where}: outputs=labels, but it returns scores; leave it out")
    if isinstance(asker.model, BlackBox):
        asker.model.outputs = "labels" if labels else "logits"
    if labels:
        asker.statements.append(
            f"returns labels alone: they become logits, {LABEL:g} for the class named and 0 for "
            "the others, so that only decisions can be attacked and measured"
        )
        return "logits", "labels"
    head = "logits" if asked == "logits" else _likely(asker, x, raw, scaling, asked, wild)
    if head == "logits" and asked == "probabilities":
        low, high = raw.min().item(), raw.max().item()
        raise UserError(
            f"{asker.where}: outputs=probabilities, but they run from {low:.3g} to {high:.3g}"
        )
    if head == "logits":
        return "logits", "logits"
    told = (
        "returns probabilities that sum to 1: their logarithms are the logits"
        if head == "softmax"
        else "returns numbers in [0, 1], taken for sigmoid probabilities: their log-odds are the "
        "logits"
    )
    asker.statements.append(told)
    asker.problems.append(("probabilities", told))
    return head, "probabilities"


def _likely(
    asker: Asker, x: Tensor, raw: Tensor, scaling: Scaling, asked: Asked, wild: bool
) -> Head:
    """Tell probabilities from logits, on images, on noise and, where allowed, on wild numbers."""
    noise = torch.rand(4, *x.shape[1:], generator=torch.Generator().manual_seed(1))
    outputs = [raw, asker.outputs(noise, scaling)]
    if wild and asked == "auto":
        try:
            outputs.append(asker.forward(noise * 40 - 20, scaling))
        except (Failed, UserError):
            wild = False
    out = torch.cat(outputs).double()
    out = out[out.isfinite().all(1)]
    if out.min() < 0 or out.max() > 1 + 1e-6 or (out == out[:1]).all():
        return "logits"
    whole = out.shape[1] > 1 and bool(((out.sum(1) - 1).abs() < 2e-3).all())
    return "softmax" if whole else "sigmoid"


def gives_gradient(asker: Asker, x: Tensor, scaling: Scaling) -> bool:
    """Tell whether the outputs can be differentiated by images (B, C, H, W)."""
    if isinstance(asker.model, BlackBox):
        return False
    device = next((p.device for p in asker.model.parameters()), x.device)
    with torch.enable_grad():
        x = x.to(device).requires_grad_(True)
        try:
            out = unwrap(asker.model(asker.turned(scaling(x)).clone()))
            torch.autograd.grad(out.sum(), x)
        except RuntimeError:
            asker.statements.append("gives no gradient to its input: it is asked as a black box")
            return False
    return True


def say_saturation(asker: Asker, x: Tensor, scaling: Scaling, head: Head) -> None:
    """Say for how many images a probability is exactly 0 or 1, which leaves no gradient."""
    if head == "logits":
        return
    p = asker.outputs(x[:AT_ONCE], scaling)
    full = (p.amax(1) >= 1) | ((p.amax(1) <= 0) & (head == "sigmoid"))
    if full.any():
        told = f"a probability is exactly 1 for {int(full.sum())} of {len(p)} images"
        asker.problems.append(("saturated", told))
