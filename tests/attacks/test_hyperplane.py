"""The projection onto a hyperplane within the box, against scipy's solvers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, linprog, minimize

from diascope.attacks.hyperplane import Hyperplane
from diascope.attacks.threat import Threat

NORMS = ("linf", "l2", "l1")


def step_to_hyperplane(norm, x, gradient, value):
    """The step from where the function is linearised, and from elsewhere: the same plane."""
    step = Hyperplane(norm, x, value, gradient).step_from(x)
    elsewhere = x.flip(0) * 0.5
    there = value + (gradient * (elsewhere - x)).sum((1, 2, 3))
    again = Hyperplane(norm, elsewhere, there, gradient).step_from(x)
    if x.dtype == torch.float64:
        torch.testing.assert_close(again, step, atol=1e-7, rtol=1e-5)
    return step


def problem(seed, n, count=1, spread=1.0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 1, 1, n, generator=rng, dtype=torch.float64)
    gradient = torch.randn(count, 1, 1, n, generator=rng, dtype=torch.float64)
    value = torch.randn(count, generator=rng, dtype=torch.float64) * spread
    return x, gradient, value


def reachable(x, gradient, value):
    """Return whether value + <gradient, d> can be zero within the box, (B,)."""
    way = -value.sign().view(-1, 1, 1, 1) * gradient.sign()
    room = torch.where(way > 0, 1 - x, x)
    return (gradient.abs() * room).sum((1, 2, 3)) >= value.abs()


def smallest(norm, x, gradient, value):
    """Return the norm of the smallest feasible step by linprog or SLSQP, None if there is none."""
    n = len(x)
    if norm == "l2":
        begin = linprog(
            np.zeros(n),
            A_eq=gradient[None],
            b_eq=[-value],
            bounds=list(zip(-x, 1 - x, strict=True)),
        )
        if begin.status != 0:
            return None
        found = minimize(
            lambda d: d @ d,
            begin.x,
            jac=lambda d: 2 * d,
            method="SLSQP",
            bounds=list(zip(-x, 1 - x, strict=True)),
            constraints=LinearConstraint(gradient[None], -value, -value),
            options={"ftol": 1e-14, "maxiter": 500},
        )
        return np.sqrt(found.fun)
    # d = up - down; L1: the sum of both; L-inf: the largest, as one more variable t
    cost = np.r_[np.ones(2 * n), 0] if norm == "l1" else np.r_[np.zeros(2 * n), 1]
    below = np.c_[np.eye(n), np.eye(n), -np.ones(n)]
    found = linprog(
        cost,
        A_ub=None if norm == "l1" else below,
        b_ub=None if norm == "l1" else np.zeros(n),
        A_eq=np.r_[gradient, -gradient, 0][None],
        b_eq=[-value],
        bounds=[(0, b) for b in 1 - x] + [(0, b) for b in x] + [(0, None)],
    )
    return found.fun if found.status == 0 else None


@pytest.mark.parametrize("norm", NORMS)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 12), spread=st.sampled_from([0.1, 1.0, 3.0]))
@settings(max_examples=40, deadline=None)
def test_is_as_short_as_the_solver_s(norm, seed, n, spread):
    x, gradient, value = problem(seed, n, spread=spread)
    step = step_to_hyperplane(norm, x, gradient, value)
    best = smallest(norm, x.flatten().numpy(), gradient.flatten().numpy(), value.item())
    assert (best is not None) == bool(reachable(x, gradient, value))
    if best is not None:
        assert Threat(norm, 0.0).size(step).item() == pytest.approx(best, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("norm", NORMS)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 200),
    spread=st.sampled_from([1e-6, 0.1, 3.0, 50.0]),
    black=st.booleans(),
    sparse=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_lands_on_the_hyperplane_or_in_the_nearest_corner(norm, seed, n, spread, black, sparse):
    x, gradient, value = problem(seed, n, count=5, spread=spread)
    x = x.round() if black else x
    gradient = gradient * (gradient > 0.5) if sparse else gradient
    step = step_to_hyperplane(norm, x, gradient, value)
    assert (x + step).min() >= -1e-12
    assert (x + step).max() <= 1 + 1e-12
    assert (step[gradient == 0] == 0).all()
    left = value + (gradient * step).sum((1, 2, 3))
    hit = reachable(x, gradient, value)
    assert (left[hit].abs() <= 1e-9 * (1 + value[hit].abs())).all()
    way = -value.sign().view(-1, 1, 1, 1) * gradient.sign()
    corner = torch.where(way > 0, 1 - x, torch.where(way < 0, -x, 0))
    torch.testing.assert_close(step[~hit], corner[~hit], atol=1e-9, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_each_image_has_its_own_solution(norm):
    x, gradient, value = problem(3, 50, count=20)
    together = step_to_hyperplane(norm, x, gradient, value)
    for i in range(20):
        alone = step_to_hyperplane(norm, x[i : i + 1], gradient[i : i + 1], value[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_does_not_depend_on_the_scale_of_the_function(norm, scale):
    x, gradient, value = (t.float() for t in problem(4, 5000, count=3, spread=30.0))
    step = step_to_hyperplane(norm, x, gradient * scale, value * scale)
    torch.testing.assert_close(
        step, step_to_hyperplane(norm, x, gradient, value), atol=1e-6, rtol=1e-4
    )
    left = value + (gradient * step).sum((1, 2, 3))
    assert (left.abs() < 1e-3 * value.abs()).all()


@pytest.mark.parametrize("norm", NORMS)
def test_stays_where_there_is_no_gradient_or_nothing_to_do(norm):
    x, gradient, value = problem(5, 9, count=2)
    assert (step_to_hyperplane(norm, x, gradient * 0, value) == 0).all()
    assert (step_to_hyperplane(norm, x, gradient, value * 0) == 0).all()
