from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from tests.nets import Linear, images, small_net
from torch import nn

from diascope.attacks import FGSM, PGD, Threat, at_eps, minimal_search
from diascope.attacks.base import NotFiniteWarning, verdict


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def linear():
    """A linear model of two classes, images well inside the bounds, labels, and the difference."""
    weight = torch.randn(2, 3, 4, 4, generator=seeded()).double() / 8
    model, x = Linear(weight), images(30, side=4).double() * 0.2 + 0.4
    return model, x, model(x).argmax(1), weight[1] - weight[0]


@pytest.mark.parametrize(("norm", "high"), [("linf", 0.05), ("l2", 0.4)])
def test_finds_the_margin_of_a_linear_model(norm, high):
    model, x, y, w = linear()
    dual = w.abs().sum() if norm == "linf" else w.norm()
    exact = (model(x)[:, 0] - model(x)[:, 1]).abs() / dual
    attack = PGD(norm=norm, steps=5, random_start=False)
    result = minimal_search(model, x, y, attack=attack, high=high, steps=14)
    found = result.found
    assert 10 < found.sum() < 30
    assert torch.equal(found, exact < high)
    torch.testing.assert_close(result.epsilon[found], exact[found], atol=high / 2**13, rtol=0)
    assert (result.epsilon[found] >= exact[found] - 1e-9).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_what_it_gives_breaks_the_model_within_its_epsilon(norm):
    model, x = small_net(seed=5), images(20)
    y = model(x).argmax(1)
    y[:3] = (y[:3] + 1) % 3
    high = {"linf": 0.06, "l2": 1.1, "l1": 12.0}[norm]
    result = minimal_search(
        model, x, y, attack=PGD(norm=norm, steps=5), high=high, steps=6, generator=seeded()
    )
    found = result.found
    assert (result.epsilon[:3] == 0).all()
    assert torch.equal(
        result.x_adv[~found | (result.epsilon == 0)], x[~found | (result.epsilon == 0)]
    )
    assert verdict(model, result.x_adv, y)[found].all()
    size = Threat(norm, 0.0).size(result.x_adv - x)
    assert (size <= result.epsilon.nan_to_num(posinf=0) * (1 + 1e-5)).all()
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1
    inside = (result.epsilon > 0) & found
    assert inside.sum() > 5
    assert result.epsilon[inside].median() < high * 0.9
    attack = at_eps(PGD(norm=norm, steps=5), high)
    alone = verdict(model, attack(model, x, y, generator=seeded(), ids=torch.arange(20)), y)
    assert (found | ~alone).all()


def test_more_steps_never_find_a_larger_one_and_batches_change_nothing():
    model, x = small_net(seed=5).double(), images(15).double()
    y, attack = model(x).argmax(1), PGD(norm="linf", steps=4)
    results = [
        minimal_search(
            model, x, y, attack=attack, high=0.3, steps=n, generator=seeded(), batch_size=b, chunk=c
        )
        for n, b, c in ((0, 15, 15), (3, 15, 15), (7, 15, 15), (7, 2, 15), (7, 4, 5))
    ]
    none, three, seven, *others = results
    assert (three.epsilon <= none.epsilon).all()
    assert (seven.epsilon <= three.epsilon).all()
    assert (seven.epsilon < none.epsilon).any()
    for other in others:
        torch.testing.assert_close(other.epsilon, seven.epsilon, atol=1e-9, rtol=0)
        torch.testing.assert_close(other.x_adv, seven.x_adv, atol=1e-9, rtol=0)


def test_the_shrunk_point_spares_attacks():
    model, x, y, _ = linear()
    seen = []
    model.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    minimal_search(model, x, y, attack=PGD(norm="linf", steps=20), high=0.2, steps=8)
    assert sum(seen) < 0.85 * 30 * 9 * 20


def test_a_point_below_what_seemed_withstood_lowers_that_again():
    class Lopsided(nn.Module):
        """Wrong for images brighter by 0.15 or darker by 0.02."""

        def forward(self, x):
            far = (x - 0.5).flatten(1).mean(1, keepdim=True)
            far = torch.maximum(far - 0.15, -far - 0.02)
            return torch.cat([-far, far], 1)

    @dataclass(frozen=True, kw_only=True)
    class Fitful:
        """Brightens above 0.18, darkens by 0.03 above 0.1, does nothing above 0.05."""

        norm: str = "linf"
        eps: float | torch.Tensor = 0.1

        def __call__(self, model, x, y, *, generator=None, ids=None):
            eps = torch.as_tensor(self.eps, dtype=x.dtype).expand(len(x))
            size = torch.where(eps > 0.05, 0.0, -eps)
            size = torch.where(eps > 0.1, -0.03, size)
            size = torch.where(eps > 0.18, eps, size)
            return x + size.view(-1, 1, 1, 1)

    x, y = torch.full((3, 1, 2, 2), 0.5).double(), torch.zeros(3).long()
    found = minimal_search(Lopsided(), x, y, attack=Fitful(), high=0.19, steps=12).epsilon
    torch.testing.assert_close(found, torch.full_like(found, 0.02), atol=1e-3, rtol=0)


def test_low_is_a_floor_and_the_rest_is_refused():
    model, x, y, w = linear()
    exact = (model(x)[:, 0] - model(x)[:, 1]).abs() / w.abs().sum()
    result = minimal_search(model, x, y, attack=FGSM(norm="linf"), high=0.2, low=0.1, steps=12)
    below = exact < 0.1
    assert below.any()
    torch.testing.assert_close(
        result.epsilon[below], torch.full_like(result.epsilon[below], 0.1), atol=1e-4, rtol=0
    )
    assert (result.epsilon >= 0.1).all()
    for low, high in ((0.2, 0.2), (-0.1, 0.2), (0.3, 0.2)):
        with pytest.raises(ValueError, match="low"):
            minimal_search(model, x, y, attack=FGSM(), high=high, low=low)


def test_tells_its_progress_takes_no_images_and_reports_nan():
    model, x, y, _ = linear()
    told = []
    minimal_search(model, x, y, attack=FGSM(), high=0.2, steps=3, chunk=7, progress=told.append)
    assert sum(told) == 30 * 4
    empty = minimal_search(model, x[:0], y[:0], attack=FGSM(), high=0.2)
    assert empty.epsilon.shape == (0,)
    with torch.no_grad():
        model.bias.fill_(torch.nan)
    with pytest.warns(NotFiniteWarning, match="30 of 30"):
        result = minimal_search(model, x, y, attack=FGSM(), high=0.2)
    assert (result.epsilon == 0).all()
    assert result.not_finite.all()


def test_transfer_and_rounding_are_options_here_too():
    target = small_net(seed=5).double()
    source = nn.Sequential(nn.AvgPool2d(4, stride=1), target)
    x = (images(16).double() * 255).round() / 255
    y = target(x).argmax(1)
    result = minimal_search(
        source, x, y, attack=PGD(norm="linf"), high=0.3, transfer_to=target, rounding=True, steps=4
    )
    grey = result.x_adv * 255
    torch.testing.assert_close(grey, grey.round(), atol=1e-4, rtol=0)
    assert result.found.any()
    assert torch.equal(target(result.x_adv).argmax(1) != y, result.found)
