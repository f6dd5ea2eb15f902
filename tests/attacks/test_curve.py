from __future__ import annotations

import warnings
from dataclasses import dataclass

import pytest
import torch
from tests.attacks.curves import (
    GRID,
    Shells,
    counted,
    independently_broken,
    robust,
    seeded,
    standard,
)
from tests.nets import Linear, images, small_net
from torch import nn

from diascope.attacks import (
    APGD,
    FGSM,
    MIFGSM,
    PGD,
    at_eps,
    independent_accuracy,
    robustness_curve,
)
from diascope.attacks.base import NotFiniteWarning, verdict
from diascope.randomness import Noise


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
        model,
        x,
        y,
        attack=PGD(norm="linf", steps=5),
        epsilons=[0.2, 0.0, 0.02, 1.0],
        warm="verdict",
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

    with pytest.warns(NotFiniteWarning, match="3 of 3 images"):
        curve = robustness_curve(
            Nan(), images(3), torch.zeros(3).long(), attack=FGSM(norm="linf"), epsilons=[0.1]
        )
    assert curve.accuracy.tolist() == [0.0]
    assert curve.not_finite.all()


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


@pytest.mark.parametrize("build", [standard, robust])
@pytest.mark.parametrize("warm", ["verdict", "climb", None])
@pytest.mark.parametrize(
    "attack",
    [
        PGD(norm="linf", steps=3),
        PGD(norm="linf", steps=3, restarts=2, loss="margin", stop_early=True),
        MIFGSM(norm="linf", steps=4),
        APGD(norm="linf", steps=4, stop_early=False),
    ],
    ids=["pgd", "restarts", "mifgsm", "apgd"],
)
def test_is_nowhere_weaker_than_attacking_all_images_at_that_epsilon_alone(build, warm, attack):
    model, x = build(), images(24).double()
    y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 3
    alone = independently_broken(model, x, y, attack, GRID)
    curve = robustness_curve(
        model, x, y, attack=attack, epsilons=GRID, warm=warm, generator=seeded(), chunk=7
    )
    assert (~curve.correct | ~alone).all()
    assert 0 < alone.double().mean() < 1
    if warm is None:  # then only the nesting of the balls adds to it
        torch.testing.assert_close(~curve.correct, alone.cummax(1).values)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_is_nowhere_weaker_in_other_norms(norm):
    model, x = standard(), images(16).double()
    y, attack = model(x).argmax(1), PGD(norm=norm, steps=3)
    grid = [e * (17 if norm == "l2" else 150) for e in GRID]
    alone = independently_broken(model, x, y, attack, grid)
    curve = robustness_curve(
        model, x, y, attack=attack, epsilons=grid, warm="verdict", generator=seeded()
    )
    assert (~curve.correct | ~alone).all()
    assert alone.any()


@pytest.mark.parametrize(("build", "share"), [(standard, 0.6), (robust, 0.9)])
def test_needs_fewer_forwards_than_independent_runs(build, share):
    model, x = build(), images(32).double()
    y, attack, seen = model(x).argmax(1), PGD(norm="linf", steps=10), counted(model)
    curve = robustness_curve(model, x, y, attack=attack, epsilons=GRID)
    ours = sum(seen)
    seen.clear()
    for eps in GRID:
        verdict(model, at_eps(attack, eps)(model, x, y), y)
    assert curve.minimal_epsilon.unique().numel() > 2
    assert ours < share * sum(seen)


def test_the_stretched_point_saves_attacks():
    model, x = standard(), images(32).double()
    y, attack = model(x).argmax(1), PGD(norm="linf", steps=10)
    counts, curves = {}, {}
    for warm in ("verdict", None):
        net = standard()
        seen = counted(net)
        curves[warm] = robustness_curve(
            net, x, y, attack=attack, epsilons=GRID, warm=warm, generator=seeded()
        )
        counts[warm] = sum(seen)
    assert counts["verdict"] < counts[None]
    assert curves["verdict"].carried.sum() > 5
    assert curves[None].carried.sum() == 0
    assert (curves["verdict"].carried <= curves["verdict"].attacked).all()
    assert (curves["verdict"].minimal_epsilon <= curves[None].minimal_epsilon).all()


def test_a_start_is_asked_only_of_attacks_that_take_one():
    @dataclass(frozen=True, kw_only=True)
    class Still:
        norm: str = "linf"
        eps: float = 0.1

        def __call__(self, model, x, y, *, generator=None, ids=None):
            return x

    x, y = images(3), torch.zeros(3).long()
    with pytest.raises(ValueError, match="Still takes no start"):
        robustness_curve(small_net(), x, y, attack=Still(), epsilons=[0.1], warm="climb")
    with pytest.raises(ValueError, match="warm='hot'"):
        robustness_curve(small_net(), x, y, attack=Still(), epsilons=[0.1], warm="hot")
    curve = robustness_curve(small_net(), x, y, attack=Still(), epsilons=[0.1])
    assert curve.accuracy == (small_net()(x).argmax(1) == y).double().mean()


def test_every_call_has_the_noise_that_the_attack_alone_would_have():
    @dataclass(frozen=True, kw_only=True)
    class Recording:
        norm: str = "linf"
        eps: float = 0.1

        def __call__(self, model, x, y, *, generator=None, ids=None):
            noise = Noise.of(x, generator, ids)
            seen.extend((noise.seed, i) for i in noise.ids.tolist())
            return x

    x, y = images(5), small_net()(images(5)).argmax(1)
    for generator in (seeded(8), None):
        seen = []
        torch.manual_seed(8)
        robustness_curve(
            small_net(),
            x,
            y,
            attack=Recording(),
            epsilons=[0.1, 0.2],
            generator=generator,
            ids=torch.arange(5) + 70,
            batch_size=2,
        )
        alone = Noise.of(x, seeded(8), None).seed
        assert seen == [(alone, 70 + i) for i in (0, 1, 2, 3, 4) * 2]
    assert int(torch.randint(2**62, (1,))) != alone  # the caller's generator went on


def test_no_images_make_an_empty_curve():
    curve = robustness_curve(
        small_net(), images(3)[:0], torch.zeros(0).long(), attack=FGSM(), epsilons=[0.1, 0.2]
    )
    assert curve.correct.shape == (0, 2)


def test_independent_runs_may_rise_where_the_curve_cannot():
    x, y, attack = torch.full((4, 1, 2, 2), 0.5), torch.zeros(4).long(), FGSM(norm="linf")
    x = x + 1e-3
    arguments = {"attack": attack, "epsilons": [0.2, 0.1, 0.0]}
    assert independent_accuracy(Shells(), x, y, **arguments).tolist() == [1.0, 0.0, 1.0]
    assert robustness_curve(Shells(), x, y, **arguments).accuracy.tolist() == [1.0, 0.0, 0.0]


def test_independent_accuracy_is_that_of_the_attack_alone():
    model, x = standard(), images(20).double()
    y, attack = model(x).argmax(1), PGD(norm="linf", steps=3, stop_early=True)
    found = independent_accuracy(
        model, x, y, attack=attack, epsilons=GRID, generator=seeded(), batch_size=6
    )
    alone = independently_broken(model, x, y, attack, GRID)
    torch.testing.assert_close(found, 1 - alone.double().mean(0))


def test_logits_not_finite_are_told_once_and_attacked_no_more():
    class Sometimes(nn.Module):
        """NaN for dark images, and for those that the attack makes dark."""

        def __init__(self):
            super().__init__()
            self.net = small_net()

        def forward(self, x):
            dark = x.flatten(1).mean(1, keepdim=True) < 0.3
            return self.net(x).masked_fill(dark, torch.nan)

    model, x = Sometimes(), images(12)
    x[:4] *= 0.1
    y = small_net()(x).argmax(1)
    seen = counted(model)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        curve = robustness_curve(
            model, x, y, attack=PGD(norm="linf", steps=3), epsilons=GRID, batch_size=2
        )
    assert [w.category for w in told] == [NotFiniteWarning]
    assert "4 of 12" in str(told[0].message)
    assert curve.not_finite.tolist() == [True] * 4 + [False] * 8
    assert (curve.minimal_epsilon[:4] == 0).all()
    assert curve.attacked[0] == 8
    assert sum(seen) < 12 * 2 + 8 * len(GRID) * 5
    with pytest.warns(NotFiniteWarning, match="4 of 12"):
        wanted = robustness_curve(
            model, x, (y + 1) % 3, attack=PGD(steps=3, targeted=True), epsilons=[0.01]
        )
    assert (wanted.minimal_epsilon[:4] == 0).all()


def test_the_caller_s_fields_stay_and_flags_return():
    model, x = small_net(dropout=0.5).train(), images(6)
    model[1].eval()
    flags = [m.training for m in model.modules()]
    torch.manual_seed(3)
    first = robustness_curve(model, x, torch.zeros(6).long(), attack=PGD(), epsilons=GRID)
    assert [m.training for m in model.modules()] == flags
    torch.manual_seed(3)
    again = robustness_curve(model, x, torch.zeros(6).long(), attack=PGD(), epsilons=GRID)
    assert torch.equal(first.minimal_epsilon, again.minimal_epsilon)
