from __future__ import annotations

import math

import pytest
import torch

from diascope.attacks import Threat, scale_eps
from diascope.randomness import Noise


def test_linf_projection_is_the_nearest_point():
    x = torch.tensor([0.5, 0.05, 0.95]).view(1, 1, 1, 3)
    far = torch.tensor([0.9, -1.0, 2.0]).view(1, 1, 1, 3)
    projected = Threat("linf", 0.1).project(far, x)
    torch.testing.assert_close(projected.flatten(), torch.tensor([0.6, 0.0, 1.0]))


def test_l2_projection_scales_what_is_outside_and_leaves_what_is_inside():
    x = torch.full((2, 1, 2, 2), 0.5)
    delta = torch.zeros_like(x)
    delta[0, 0, 0, 0], delta[1, 0, 0, 1] = 0.4, 0.1
    projected = Threat("l2", 0.2).project(x + delta, x) - x
    torch.testing.assert_close(projected[0, 0, 0, 0], torch.tensor(0.2))
    torch.testing.assert_close(projected[1], delta[1])  # a small step is not blown up


def test_random_start_fills_the_ball():
    x = torch.full((2000, 1, 2, 2), 0.5)
    noise = Noise(3, torch.arange(2000))
    flat = (Threat("linf", 0.25).random_start(x, noise) - x).flatten()
    assert flat.abs().max() <= 0.25
    assert abs(flat.mean()) < 0.01
    assert abs(flat.std() - 0.25 / math.sqrt(3)) < 0.01
    radius = Threat("l2", 0.25).size(Threat("l2", 0.25).random_start(x, noise) - x)
    assert radius.max() <= 0.25 + 1e-6
    for part in (0.25, 0.5, 0.75):  # of the radius, not of the volume: that lies on the sphere
        assert abs((radius < part * 0.25).float().mean() - part) < 0.04


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_a_random_start_on_the_sphere_is_as_far_as_eps_allows(norm):
    x, noise = torch.full((50, 3, 8, 8), 0.5), Noise(3, torch.arange(50))
    eps = torch.linspace(0.1, 0.3, 50)
    threat = Threat(norm, eps)
    torch.testing.assert_close(threat.size(threat.random_start(x, noise, on_sphere=True) - x), eps)


def test_steepest_is_the_direction_of_a_linear_rise():
    gradient = torch.tensor([3.0, -4.0]).view(1, 1, 1, 2)
    linf, l2 = Threat("linf", 1.0).steepest(gradient), Threat("l2", 1.0).steepest(gradient)
    torch.testing.assert_close(linf.flatten(), torch.tensor([1.0, -1.0]))
    torch.testing.assert_close(l2.flatten(), torch.tensor([0.6, -0.8]))
    assert Threat("l2", 1.0).steepest(gradient * 0).isfinite().all()


@pytest.mark.parametrize(("norm", "eps"), [("l3", 1.0), ("l2", -1.0), ("linf", math.nan)])
def test_refuses_what_is_no_threat(norm, eps):
    with pytest.raises(ValueError, match="norm|eps"):
        Threat(norm, eps)


def test_epsilon_is_scaled_as_p1_says():
    assert scale_eps(4.0, 224) == 4.0
    assert scale_eps(4.0, 112) == 1.0  # a quarter of the pixels
    assert scale_eps(4.0, 112, rule="root") == 2.0
    assert scale_eps(4.0, 112, rule="none") == 4.0
    with pytest.raises(ValueError, match="rule"):
        scale_eps(4.0, 112, rule="area")


def test_rounding_is_towards_the_original_image():
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (4, 3, 8, 8), generator=generator) / 255
    for eps in (0.001, 1 / 255, 0.013, 0.2):
        threat = Threat("linf", eps)
        x_adv = (x + (torch.rand(x.shape, generator=generator) * 2 - 1) * eps).clamp(0, 1)
        saved = threat.round(x_adv, x)
        assert (saved * 255 - (saved * 255).round()).abs().max() < 1e-3
        assert ((saved - x).abs() <= (x_adv - x).abs() + 1e-6).all()
    assert torch.equal(Threat("l2", 1.0).round(x, x), x)
    level = x + torch.where(x < 0.5, 1, -1) / 255  # a whole level is not lost
    torch.testing.assert_close(Threat("linf", 1 / 255).round(level, x), level)
    with pytest.raises(ValueError, match="8 bits"):
        Threat("linf", 0.1).round(x + 0.002, x + 0.002)
