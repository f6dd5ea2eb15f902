from __future__ import annotations

import pytest
import torch
from tests.nets import Linear, images, small_net
from torch import nn

from diascope.attacks import FGSM, PGD, robustness_curve


def test_minimal_epsilon_of_a_linear_model_is_its_margin_over_the_dual_norm():
    weight = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) / 8
    model, x = Linear(weight), images(40, side=4) * 0.2 + 0.4
    y = model(x).argmax(1)
    margin = (model(x)[:, 0] - model(x)[:, 1]).abs()
    grid = torch.linspace(0, 0.2, 81)
    exact = margin / (weight[1] - weight[0]).abs().sum()
    curve = robustness_curve(model, x, y, attack=FGSM(norm="linf"), epsilons=grid.tolist())
    found = curve.minimal_epsilon
    step = 0.2 / 80
    assert found.isfinite().sum() > 20
    broken = found.isfinite()
    assert (found[broken] >= exact[broken] - 1e-6).all()
    assert (found[broken] <= exact[broken] + step + 1e-6).all()
    assert (exact[~broken] > 0.2 - step).all()
    assert (curve.accuracy[1:] <= curve.accuracy[:-1]).all()
    assert curve.accuracy[0] == 1


def test_attacks_survivors_only_and_counts_them():
    model, x = small_net(), images(20)
    y = model(x).argmax(1)
    y[:5] = (y[:5] + 1) % 3  # misclassified without an attack
    curve = robustness_curve(
        model, x, y, attack=PGD(norm="linf", steps=5), epsilons=[0.2, 0.0, 0.02, 1.0]
    )
    assert curve.epsilons.tolist() == [0.0, 0.02, 0.2, 1.0]
    assert (curve.minimal_epsilon[:5] == 0).all()
    assert curve.accuracy[0] == 0.75
    standing = (curve.accuracy * 20).round().int()
    assert curve.attacked.tolist() == [0, 15, standing[1], standing[2]]


def test_does_not_depend_on_batch_size():
    model, x = small_net(seed=4).double(), images(30).double()
    y = model(x).argmax(1)
    curves = [
        robustness_curve(
            model,
            x,
            y,
            attack=PGD(norm="linf", steps=4),
            epsilons=[0.05, 0.1, 0.15, 0.2, 0.3, 0.5],
            batch_size=size,
            generator=torch.Generator().manual_seed(0),
            ids=torch.arange(30),
        ).minimal_epsilon
        for size in (1, 7, 30)
    ]
    assert torch.equal(curves[0], curves[1])
    assert torch.equal(curves[0], curves[2])
    assert curves[0].unique().numel() > 2


def test_verdicts_are_in_float32_under_autocast():
    class Watching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(48, 3)
            self.verdicts = []

        def forward(self, x):
            logits = self.layer(x.flatten(1))
            if not torch.is_grad_enabled():
                self.verdicts.append(logits.dtype)
            return logits

    model, x = Watching(), images(4, side=4)
    with torch.autocast("cpu", torch.bfloat16):
        robustness_curve(
            model, x, torch.zeros(4).long(), attack=FGSM(norm="linf"), epsilons=[0.1, 0.5]
        )
    assert len(model.verdicts) >= 1
    assert set(model.verdicts) == {torch.float32}


def test_a_model_that_returns_nan_is_never_correct():
    class Nan(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] * torch.nan

    curve = robustness_curve(
        Nan(), images(3), torch.zeros(3).long(), attack=FGSM(norm="linf"), epsilons=[0.1]
    )
    assert curve.accuracy.tolist() == [0.0]


def test_tells_its_progress_and_refuses_nonsense():
    model, x, told = small_net(), images(9), []
    y = model(x).argmax(1)
    epsilons = [0, 0.1, 0.2]
    robustness_curve(
        model, x, y, attack=FGSM(norm="linf"), epsilons=epsilons, progress=told.append, batch_size=2
    )
    assert sum(told) == 9 * len(epsilons)
    with pytest.raises(ValueError, match="epsilons"):
        robustness_curve(model, x, y, attack=FGSM(norm="linf"), epsilons=[])
    with pytest.raises(ValueError, match="epsilons"):
        robustness_curve(model, x, y, attack=FGSM(norm="linf"), epsilons=[-0.1])
