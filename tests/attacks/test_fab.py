"""FAB against the closed form of linear models, a solver, and torchattacks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from tests.attacks.digits import digits
from tests.nets import Linear, images, small_net
from torch import nn

from diascope.attacks import FAB, Threat
from diascope.attacks.base import NotFiniteWarning, verdict

NORMS = ("linf", "l2", "l1")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def linear(classes, spread, side=4, count=30):
    """A linear model and images around grey; `spread` near 1 puts pixels at the bounds."""
    weight = torch.randn(classes, 3, side, side, generator=seeded(1)) / 8
    model = Linear(weight, -0.5 * weight.sum((1, 2, 3))).requires_grad_(False)  # zero at grey
    x = (images(count, side=side) - 0.5) * spread + 0.5
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize("targets", [9, None])
@pytest.mark.parametrize("norm", NORMS)
def test_reaches_the_exact_distance_of_a_linear_model(norm, targets):
    model, x, y = linear(4, 0.3)
    dual = {"linf": 1.0, "l2": 2.0, "l1": torch.inf}[norm]
    logits = model(x)
    exact = torch.full((len(x),), torch.inf)
    for k in range(4):
        length = torch.linalg.vector_norm((model.weight[k] - model.weight[y]).flatten(1), dual, 1)
        gap = logits.gather(1, y[:, None])[:, 0] - logits[:, k]
        exact = torch.where(y == k, exact, torch.minimum(exact, gap / length))
    inside = exact < 0.4  # the box is not in the way, even of a single pixel
    assert inside.sum() > 15
    attack = FAB(norm=norm, eps=None, steps=20, targets=targets)
    x_adv, distance = attack.minimal(model, x, y, generator=seeded())
    assert verdict(model, x_adv, y).all()
    torch.testing.assert_close(Threat(norm, 1.0).size(x_adv - x), distance)
    assert (distance >= exact - 1e-6).all()
    assert (distance[inside] <= exact[inside] * 1.01).all()


def test_reaches_the_exact_distance_when_the_box_is_in_the_way():
    model, x, y = linear(2, 1.0)
    x = (x * 2 - 0.5).clamp(0, 1)  # half of the pixels at a bound
    y = model(x).argmax(1)
    x_adv, distance = FAB(norm="linf", eps=None, steps=30).minimal(model, x, y, generator=seeded())
    free = 0
    for i in range(len(x)):
        way = (model.weight[1 - y[i]] - model.weight[y[i]]).flatten().double().numpy()
        logits, point = model(x[i : i + 1])[0], x[i].flatten().double().numpy()
        gap = (logits[y[i]] - logits[1 - y[i]]).item()
        n = len(way)
        below = np.c_[np.eye(n), -np.ones(n)]
        above = np.c_[-np.eye(n), -np.ones(n)]
        bounds = [*zip(-point, 1 - point, strict=True), (0, None)]
        best = linprog(
            np.r_[np.zeros(n), 1],
            A_ub=np.r_[below, above],
            b_ub=np.zeros(2 * n),
            A_eq=np.r_[way, 0][None],
            b_eq=[gap],
            bounds=bounds,
        )
        assert best.fun * (1 - 1e-4) <= distance[i] <= best.fun * 1.01
        free += best.fun > 1.05 * gap / np.abs(way).sum()
    assert free > 10  # the box did matter
    assert verdict(model, x_adv, y).all()


@pytest.fixture(scope="module")
def ten():
    net, x, y = digits()
    x, y = x[:120], y[:120]
    standing = net(x).argmax(1) == y
    return net, x[standing], y[standing]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_comes_no_less_near_than_torchattacks(norm, ten):
    torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is not installed")
    net, x, y = ten
    name, order = {"linf": ("Linf", torch.inf), "l2": ("L2", 2)}[norm]
    peer = torchattacks.FAB(net, norm=name, eps=10.0, steps=20, multi_targeted=True, n_classes=10)
    nearest = torch.full((len(x),), torch.inf)
    for rank in (2, 3, 4):
        peer.target_class = rank
        found = peer.attack_single_run_targeted(x, y)
        length = torch.linalg.vector_norm((found - x).flatten(1), order, dim=1)
        nearest = torch.where(net(found).argmax(1) == y, nearest, torch.minimum(nearest, length))
    attack = FAB(norm=norm, eps=None, steps=20, targets=3, precision="float32")
    _, distance = attack.minimal(net, x, y, generator=seeded())
    assert distance.isfinite().all()
    assert distance.median() <= 1.005 * nearest.median()
    assert (distance / nearest).median() <= 1.0
    assert (distance <= 1.02 * nearest).float().mean() > 0.95


@pytest.mark.parametrize("norm", NORMS)
def test_low_precision_costs_little_distance(norm, ten):
    net, x, y = (t[:40] if isinstance(t, torch.Tensor) else t for t in ten)
    found = {}
    for precision in ("float32", "bf16"):
        attack = FAB(norm=norm, eps=None, steps=30, targets=2, precision=precision)
        x_adv, found[precision] = attack.minimal(net, x, y, generator=seeded())
        assert verdict(net, x_adv, y).all()
    assert found["bf16"].median() <= 1.02 * found["float32"].median()


def test_the_nearest_boundary_serves_as_well_as_all_targets(ten):
    net, x, y = (t[:40] if isinstance(t, torch.Tensor) else t for t in ten)
    median = {}
    for targets in (1, 9, None):
        attack = FAB(norm="l2", eps=None, steps=20, targets=targets)
        median[targets] = attack.minimal(net, x, y, generator=seeded())[1].median()
    assert median[9] <= median[1]
    assert median[None] <= 1.03 * median[9]


def test_restarts_never_lose(ten):
    net, x, y = (t[:40] if isinstance(t, torch.Tensor) else t for t in ten)
    distance = [
        FAB(norm="linf", eps=None, steps=8, targets=1, restarts=r).minimal(
            net, x, y, generator=seeded()
        )[1]
        for r in (1, 3)
    ]
    assert (distance[1] <= distance[0] * 1.001).all()
    assert (distance[1] < distance[0] * 0.999).any()


@pytest.mark.parametrize("stop", [True, False])
def test_within_eps_or_unchanged(stop, ten):
    net, x, y = ten
    attack = FAB(norm="linf", eps=0.1, steps=15, targets=3, stop_below_eps=stop)
    _, distance = attack.minimal(net, x, y, generator=seeded())
    x_adv = attack(net, x, y, generator=seeded())
    broken = verdict(net, x_adv, y)
    assert 0.1 < broken.float().mean() < 0.9
    assert ((x_adv - x).abs().amax((1, 2, 3)) <= 0.1).all()
    assert torch.equal(x_adv[~broken], x[~broken])
    assert (distance[~broken] > 0.1 * 0.99).all()
    assert broken[distance <= 0.1 * 0.99].all()


def test_stopping_below_eps_saves_passes(ten):
    net, x, y = ten
    seen = []
    handle = net.register_forward_hook(lambda module, inputs, out: seen.append(len(inputs[0])))
    cost = {}
    for stop in (True, False):
        seen.clear()
        attack = FAB(norm="linf", eps=0.3, steps=10, targets=2, stop_below_eps=stop)
        attack(net, x, y, generator=seeded())
        cost[stop] = sum(seen)
    handle.remove()
    assert cost[True] < 0.7 * cost[False]


def test_one_forward_and_backward_a_step_whatever_the_classes(ten):
    net, x, y = ten

    class Counting(nn.Module):
        forwards = backwards = 0

        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            Counting.forwards += 1
            if x.requires_grad:
                x = x * 1
                x.register_hook(self.count)
            return self.net(x)

        def count(self, gradient):
            Counting.backwards += 1

    attack = FAB(norm="l2", eps=None, steps=20, targets=2, precision="float32")
    attack.minimal(Counting(), x[:8], y[:8], generator=seeded())
    assert Counting.backwards == 2 * 20
    assert Counting.forwards <= 2 * 21 + 20


def test_misclassified_images_and_those_never_broken_are_unchanged():
    weight = torch.zeros(2, 3, 4, 4)
    weight[1] = 0.01
    model = Linear(weight, torch.tensor([1.0, 0.0])).requires_grad_(False)  # class 0 everywhere
    x, y = images(4, side=4), torch.tensor([0, 1, 0, 1])
    x_adv, distance = FAB(norm="l2", eps=None, steps=5).minimal(model, x, y, generator=seeded())
    assert torch.equal(x_adv, x)
    assert distance.tolist() == [torch.inf, 0.0, torch.inf, 0.0]


def test_without_eps_the_nearest_is_returned_however_far():
    model, x = small_net(classes=7), images(5)
    y = model(x).argmax(1)
    for eps in (None, torch.inf):
        attack = FAB(norm="l1", eps=eps, steps=10, targets=2)
        x_adv = attack(model, x, y, generator=seeded())
        assert verdict(model, x_adv, y).all()
        nearest, _ = attack.minimal(model, x, y, generator=seeded())
        torch.testing.assert_close(x_adv, nearest)


def test_logits_that_are_not_finite_are_told():
    class Nan(nn.Module):
        def forward(self, x):
            return torch.log(x.flatten(1)[:, :3] - 2)

    with pytest.warns(NotFiniteWarning):
        x_adv, distance = FAB(steps=3).minimal(Nan(), images(3), torch.zeros(3).long())
    assert torch.equal(x_adv, images(3))
    assert (distance == 0).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"norm": "l3"},
        {"eps": -1.0},
        {"steps": 0},
        {"targets": 0},
        {"restarts": 0},
        {"alpha_max": 2.0},
        {"eta": 0.5},
        {"beta": 0.0},
    ],
)
def test_refuses_nonsense(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        FAB(**settings)


@pytest.mark.parametrize("norm", NORMS)
def test_is_not_held_on_the_boundary_by_rounding(norm):
    weight = torch.zeros(2, 1, 2, 2)
    weight[1] = 0.1
    model = Linear(weight, torch.tensor([1000.0, 999.7999]))  # logits of 1000, 6e-5 apart at least
    x, y = torch.full((3, 1, 2, 2), 0.5), torch.zeros(3).long()
    assert not verdict(model, x, y).any()
    x_adv = FAB(norm=norm, eps=None, steps=10)(model, x, y)
    assert verdict(model, x_adv, y).all()
    assert Threat(norm, 0.0).size(x_adv - x).max() < 0.2
