"""PGD against ART's, from the same random start."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from tests.nets import images, small_net

from diascope.attacks import PGD, Threat

pytest.importorskip("art", reason="the Adversarial Robustness Toolbox is not installed")

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", module=r"art(\..*)?")
    from art.attacks.evasion import ProjectedGradientDescent
    from art.attacks.evasion.projected_gradient_descent import (
        projected_gradient_descent_pytorch as art_pgd,
    )
    from art.estimators.classification import PyTorchClassifier

STEPS, CLASSES = 7, 3


def inner_images(count, low, high):
    """Images whose pixels keep away from the bounds."""
    return low + (high - low) * images(count)


def both(norm, eps, size, x, y, monkeypatch):
    """Return our images and ART's; both begin at the point that ours drew."""
    model, seen = small_net(classes=CLASSES), {}
    original = Threat.random_start

    def remember(self, x, noise, stream=0):
        seen["start"] = original(self, x, noise, stream)
        return seen["start"]

    monkeypatch.setattr(Threat, "random_start", remember)
    attack = PGD(norm=norm, eps=eps, steps=STEPS, step_size=size)
    ours = attack(model, x, y, generator=torch.Generator().manual_seed(1))
    step = (seen["start"] - x).flatten(1).numpy()
    assert np.abs(step).max() > 0.1 * (eps if norm == "linf" else eps / np.sqrt(step.shape[1]))
    monkeypatch.setattr(art_pgd, "random_sphere", lambda n, m, radius, order: step)
    classifier = PyTorchClassifier(
        model=small_net(classes=CLASSES),
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=CLASSES,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    theirs = ProjectedGradientDescent(
        classifier,
        norm=np.inf if norm == "linf" else 2,
        eps=eps,
        eps_step=size,
        max_iter=STEPS,
        num_random_init=1,
        batch_size=len(x),
        verbose=False,
    ).generate(x.numpy(), y.numpy())
    return ours, torch.from_numpy(theirs)


def test_pgd_l2_equals_art_from_the_same_random_start(monkeypatch):
    """ART clips to the bounds before it projects, we after: equal where nothing is clipped."""
    x, y = inner_images(8, 0.3, 0.7), torch.arange(8) % CLASSES
    ours, theirs = both("l2", 1.0, 0.2, x, y, monkeypatch)
    assert theirs.min() > 0
    assert theirs.max() < 1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert (ours - x).flatten(1).norm(dim=1).min() > 0.8


def test_pgd_linf_equals_art_from_the_same_random_start(monkeypatch):
    """The sign of a gradient near zero differs in float32: so all but a thousandth of pixels."""
    x, y = inner_images(8, 0.0, 1.0), torch.arange(8) % CLASSES
    ours, theirs = both("linf", 0.1, 0.02, x, y, monkeypatch)
    assert ((theirs == 0) | (theirs == 1)).any()
    assert ((ours - theirs).abs() < 1e-6).double().mean() > 0.999
    assert (ours - x).abs().max() > 0.099
