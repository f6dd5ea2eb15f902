"""The L1 ball: its projection, against a solver, and its steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from tests.nets import balanced_net, images

from diascope.attacks import PGD, Threat
from diascope.attacks.base import verdict
from diascope.randomness import Noise


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(6))
def test_projection_is_the_nearest_point_of_ball_and_box(seed):
    x = torch.rand(1, 1, 2, 3, generator=seeded(seed)).double()
    far = x + 2 * torch.randn(1, 1, 2, 3, generator=seeded(seed + 50)).double()
    eps = 0.3 + 0.2 * seed
    found = Threat("l1", eps).project(far, x)
    start, goal = x.flatten().numpy(), far.flatten().numpy()
    # x + up - down with up, down >= 0: the ball is then linear
    best = minimize(
        lambda v: ((start + v[:6] - v[6:] - goal) ** 2).sum(),
        np.zeros(12),
        method="SLSQP",
        bounds=[(0, 1 - s) for s in start] + [(0, s) for s in start],
        constraints=[{"type": "ineq", "fun": lambda v: eps - v.sum()}],
        options={"ftol": 1e-14, "maxiter": 500},
    )
    solved = start + best.x[:6] - best.x[6:]
    np.testing.assert_allclose(found.flatten().numpy(), solved, atol=2e-5)


@given(eps=st.floats(0, 20), seed=st.integers(0, 999), spread=st.floats(0.01, 5))
@settings(max_examples=80, deadline=None)
def test_projection_stays_inside_and_leaves_what_is_inside(eps, seed, spread):
    x = torch.rand(3, 3, 5, 5, generator=seeded(seed)).round(decimals=1)
    far = x + spread * torch.randn(x.shape, generator=seeded(seed + 1))
    threat = Threat("l1", eps)
    found = threat.project(far, x)
    assert (threat.size(found - x) <= eps * (1 + 1e-5) + 1e-5).all()
    assert found.min() >= 0
    assert found.max() <= 1
    torch.testing.assert_close(threat.project(found, x), found, atol=1e-5, rtol=0)
    if eps > 0.1:  # the ball is filled, or the box stops it
        room = threat.size(far.clamp(0, 1) - x).clamp_max(eps)
        torch.testing.assert_close(threat.size(found - x), room, atol=1e-3, rtol=1e-3)


def test_random_start_fills_the_ball():
    x = torch.full((2000, 1, 2, 2), 0.5)
    size = Threat("l1", 0.25).size(
        Threat("l1", 0.25).random_start(x, Noise(3, torch.arange(2000))) - x
    )
    assert size.max() <= 0.25 + 1e-6
    assert abs((size < 0.125).float().mean() - 0.5) < 0.04


def test_steepest_moves_the_largest_that_can_move():
    gradient = torch.zeros(1, 1, 10, 20)
    gradient[0, 0, 0, :4] = torch.tensor([5.0, -4.0, 3.0, 1.0])
    step = Threat("l1", 1.0).steepest(gradient)  # a hundredth of 200 coordinates
    torch.testing.assert_close(step[0, 0, 0, :4], torch.tensor([0.5, -0.5, 0.0, 0.0]))
    at_bound = torch.full_like(gradient, 0.5)
    at_bound[0, 0, 0, 0] = 1.0
    step = Threat("l1", 1.0).steepest(gradient, at_bound)
    torch.testing.assert_close(step[0, 0, 0, :4], torch.tensor([0.0, -0.5, 0.5, 0.0]))
    assert not Threat("l1", 1.0).steepest(gradient * 0).any()


def test_larger_balls_break_more():
    model, x = balanced_net(seed=3), images(48)
    y = model(x).argmax(1)
    standing = [
        int((~verdict(model, PGD(norm="l1", eps=e, steps=20)(model, x, y), y)).sum())
        for e in (0.5, 2.0, 8.0)
    ]
    assert standing[0] > standing[1] > standing[2]


def test_the_start_is_finite_whatever_is_drawn():
    """Image 680 of seed 7 draws an exact zero, whose Laplacian quantile is infinite."""
    x = torch.full((1, 3, 64, 64), 0.5)
    noise = Noise(7, torch.tensor([680]))
    assert (noise.uniform(x.shape[1:]) == 0).any()
    start = Threat("l1", 4.0).random_start(x, noise)
    assert start.isfinite().all()
    assert Threat("l1", 4.0).size(start - x) <= 4.0 + 1e-4


def test_a_point_that_is_not_finite_breaks_nothing():
    model, x = balanced_net(), images(4)
    y = model(x).argmax(1)
    assert not verdict(model, x.masked_fill(x > 0.5, torch.nan), y).any()
