"""The decision at a threshold as a model: the same verdicts, fast when frozen, and broken first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.nets import Linear, balanced_net, images, small_net
from torch import nn

from diascope.attacks import PGD, Square, robustness_curve
from diascope.attacks.base import verdict
from diascope.models import heads
from diascope.models.frozen import frozen
from diascope.models.threshold import AtThreshold, positive_log_odds

X = images(64)


@pytest.mark.parametrize("positive", [[0], [1], [0, 2], [1, 2, 3]])
@pytest.mark.parametrize("threshold", [0.01, 0.3, 0.5, 0.97])
def test_the_verdicts_are_those_of_the_probabilities(positive, threshold):
    net = balanced_net(4)
    p = heads.probabilities(net(X))[:, positive].sum(1)
    decision = AtThreshold(net, positive, 4, threshold=threshold)
    logit = decision(X)
    assert logit.shape == (64, 1)
    expected = torch.logit(p.double()) - np.log(threshold / (1 - threshold))
    torch.testing.assert_close(logit[:, 0].double(), expected.detach(), atol=1e-4, rtol=1e-4)
    called = heads.predictions(logit) == 1
    assert torch.equal(called, p >= threshold)
    truth = torch.arange(64) % 2
    assert torch.equal(verdict(decision, X, truth), called.long() != truth)


@pytest.mark.parametrize("positive", [0, 1])
def test_a_single_logit_is_one_of_two_classes(positive):
    net = small_net(1)
    p = heads.probabilities(net(X))[:, positive]
    decision = AtThreshold(net, [positive], 2, threshold=0.4)
    assert torch.equal(heads.predictions(decision(X)) == 1, p >= 0.4)


def test_an_image_that_stands_on_the_threshold_is_positive():
    net = balanced_net(3)
    odds = positive_log_odds(net(X), [1], 3)
    for value in odds[:8].tolist():
        called = AtThreshold(net, [1], 3, log_odds=value)(X)[:, 0] > 0
        assert torch.equal(called, odds >= value)
    assert (odds >= odds[0]).sum() > (odds > odds[0]).sum()


def test_a_saturated_head_keeps_its_gradient():
    weight = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    net = Linear(1e4 * weight)
    p = heads.probabilities(net(X))
    assert ((p == 0) | (p == 1)).all(1).float().mean() > 0.9  # nothing to climb in probabilities
    x = X.clone().requires_grad_(True)
    logit = AtThreshold(net, [0], 3, threshold=0.2)(x)
    assert logit.isfinite().all()
    (gradient,) = torch.autograd.grad(logit.sum(), x)
    assert gradient.isfinite().all()
    assert (gradient.flatten(1).norm(dim=1) > 1e3).all()


def test_it_is_frozen_as_fast_as_its_model():
    net = small_net(3)
    decision = AtThreshold(net, [0], 3, threshold=0.3)
    with (
        frozen(net, X, precision="float32") as plain,
        frozen(decision, X, precision="float32") as fast,
    ):
        kinds = [[type(m).__name__ for m in n.body.modules()] for n in (plain, fast)]
        assert "BatchNorm2d" not in kinds[1]
        assert kinds[1] == ["AtThreshold", *kinds[0]]
        assert fast.outputs == 1
        torch.testing.assert_close(fast(X), decision(X), atol=1e-4, rtol=1e-4)
        for mine, its in zip(decision.parameters(), net.parameters(), strict=True):
            assert mine is its
    with frozen(decision, X, precision="bf16") as rough:
        torch.testing.assert_close(rough(X), decision(X), atol=0.05, rtol=0.05)


class Pull(nn.Module):
    """Three classes: the two benign ones share what is not malignant, so that the most probable
    class may be malignant where P is far below a half, and the other way round."""

    def forward(self, x):
        z = 40 * (x[:, 0].mean((1, 2)) - 0.5)
        return torch.stack([z, torch.zeros_like(z), torch.zeros_like(z)], 1)


def grey(levels):
    return torch.tensor(levels)[:, None, None, None].expand(-1, 3, 8, 8).contiguous()


def test_the_attack_at_the_threshold_is_stronger_than_that_on_the_most_probable_class():
    """Of images whose decision stands at t = 0.1, ever smaller changes turn it."""
    net, t = Pull(), 0.1
    x = grey([0.50, 0.52, 0.54, 0.56, 0.58, 0.60])  # malignant, P from 0.33 up
    decision = AtThreshold(net, [0], 3, threshold=t)
    y = torch.ones(6, dtype=torch.long)
    assert not verdict(decision, x, y).any()
    options = {"norm": "linf", "steps": 10, "random_start": False, "loss": "margin"}
    eps = [0.01, 0.03, 0.05, 0.08, 0.12, 0.16]
    curve = robustness_curve(decision, x, y, attack=PGD(**options), epsilons=eps)
    # P = t where z = log(2 t / (1 - t)): the decision's own distance, no more and no less
    need = x[:, 0, 0, 0].double() - (0.5 + np.log(2 * t / (1 - t)) / 40)
    expected = [min((e for e in eps if e >= d), default=np.inf) for d in need.tolist()]
    assert curve.minimal_epsilon.tolist() == expected
    # stopped where the most probable class is another, the decision still stands
    label = torch.zeros(6, dtype=torch.long)
    attack = PGD(eps=0.12, stop_early=True, **options)
    turned = attack(net, x, label)
    assert verdict(net, turned, label).all()
    ours = attack(decision, x, y)
    assert verdict(decision, ours, y).sum() > verdict(decision, turned, y).sum()


def test_the_attack_at_the_threshold_beats_the_other_on_a_net():
    """A net whose head says little of the sum: eight classes, three of them positive."""
    net = balanced_net(8, seed=3)
    positive, x = [0, 1, 2], images(128, seed=5)
    p = heads.probabilities(net(x))[:, positive].sum(1)
    t = float(p.detach().quantile(0.2))
    label = heads.predictions(net(x))
    called = p >= t
    rows = called & torch.isin(label, torch.tensor(positive))  # positive, and rightly called so
    x, label, y = x[rows], label[rows], torch.ones(int(rows.sum()), dtype=torch.long)
    decision = AtThreshold(net, positive, 8, threshold=t)
    options = {"norm": "linf", "eps": 0.03, "steps": 10, "random_start": False}
    at_threshold = verdict(decision, PGD(**options, loss="margin")(decision, x, y), y)
    at_argmax = verdict(decision, PGD(**options)(net, x, label), y)
    assert at_threshold.sum() > at_argmax.sum() + 5
    assert not (at_argmax & ~at_threshold).any()


def test_forward_passes_alone_break_it_too():
    net, x = Pull(), grey([0.5, 0.55])
    decision = AtThreshold(net, [0], 3, threshold=0.2)
    y = torch.ones(2, dtype=torch.long)
    with torch.no_grad():
        found = Square(norm="linf", eps=0.2, queries=100).run(decision, x, y)
    assert found.broken.all()


def test_what_is_no_decision_is_refused():
    net = small_net(3)
    for positive in ([], [0, 1, 2], [3]):
        with pytest.raises(ValueError, match="positive"):
            AtThreshold(net, positive, 3)
    for threshold in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="threshold"):
            AtThreshold(net, [0], 3, threshold=threshold)
    with pytest.raises(ValueError, match="log_odds"):
        AtThreshold(net, [0], 3, log_odds=float("inf"))
