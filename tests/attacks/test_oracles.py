"""FGSM and PGD against their closed form, torchattacks and foolbox."""

from __future__ import annotations

import pytest
import torch
from tests.nets import Linear, images, small_net

from diascope.attacks import FGSM, PGD, Threat

foolbox = pytest.importorskip("foolbox", reason="foolbox is not installed")
torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is not installed")

STEPS, SIZE = 7, 0.2


@pytest.fixture(params=[0, 1, 2])
def problem(request):
    model = small_net(seed=request.param).double()
    x = images(8, seed=request.param).double()
    return model, x, torch.arange(8) % 3


def test_fgsm_and_pgd_reach_the_optimum_of_a_linear_model():
    weight = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    model, x = Linear(weight), torch.full((5, 3, 4, 4), 0.5)
    y = torch.zeros(5).long()
    rise = weight[1] - weight[0]  # the margin's gradient
    best_linf, best_l2 = rise.abs().sum() * 0.1, rise.norm() * 0.1
    margin = lambda x_adv: (model(x_adv) - model(x)) @ torch.tensor([-1.0, 1.0])
    found = margin(FGSM(norm="linf", eps=0.1)(model, x, y))
    torch.testing.assert_close(found, best_linf.expand(5), rtol=1e-4, atol=1e-4)
    for norm, best in (("linf", best_linf), ("l2", best_l2)):
        found = margin(PGD(norm=norm, eps=0.1, steps=20, rel_step_size=1.0)(model, x, y))
        torch.testing.assert_close(found, best.expand(5), rtol=1e-3, atol=1e-4)


def test_fgsm_equals_torchattacks(problem):
    model, x, y = problem
    theirs = torchattacks.FGSM(model, eps=0.03)(x, y)
    torch.testing.assert_close(FGSM(norm="linf", eps=0.03)(model, x, y), theirs, atol=1e-6, rtol=0)


def test_pgd_linf_equals_torchattacks_without_a_random_start(problem):
    model, x, y = problem
    theirs = torchattacks.PGD(model, eps=0.1, alpha=0.02, steps=STEPS, random_start=False)(x, y)
    ours = PGD(norm="linf", eps=0.1, steps=STEPS, step_size=0.02, random_start=False)(model, x, y)
    assert ((ours - theirs).abs() < 1e-6).double().mean() > 0.999


def test_pgd_l2_equals_torchattacks_in_float32():
    model, x, y = small_net(), images(8), torch.arange(8) % 3
    theirs = torchattacks.PGDL2(model, eps=1.0, alpha=SIZE, steps=STEPS, random_start=False)(x, y)
    ours = PGD(norm="l2", eps=1.0, steps=STEPS, step_size=SIZE, random_start=False)(model, x, y)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_equals_foolbox_from_the_same_random_start(norm, problem, monkeypatch):
    model, x, y = problem
    eps, size = (0.1, 0.02) if norm == "linf" else (1.0, SIZE)
    start = Threat(norm, eps)
    attack = PGD(norm=norm, eps=eps, steps=STEPS, step_size=size)
    seen = {}

    def remember(self, x, noise, stream=0):
        seen["start"] = original(self, x, noise, stream)
        return seen["start"]

    original = type(start).random_start
    monkeypatch.setattr(type(start), "random_start", remember)
    ours = attack(model, x, y, generator=torch.Generator().manual_seed(1))
    assert (seen["start"] - x).abs().max() > 0
    family = foolbox.attacks.LinfPGD if norm == "linf" else foolbox.attacks.L2PGD
    theirs = family(abs_stepsize=size, steps=STEPS, random_start=True)
    begin = foolbox.attacks.LinfPGD if norm == "linf" else foolbox.attacks.L2PGD
    monkeypatch.setattr(
        begin,
        "get_random_start",
        lambda self, x0, epsilon: type(x0)(seen["start"].clone()),
    )
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    _, found, _ = theirs(wrapped, x, y, epsilons=eps)
    share = ((ours - found).abs() < 1e-6).double().mean()
    assert share > 0.999


def test_pgd_budget_is_that_of_the_original_image():
    """A PGD clamped to its current iterate would travel steps x step_size = 2.0."""
    model, x, y = small_net(), images(4), torch.arange(4) % 3
    x_adv = PGD(norm="linf", eps=0.1, steps=20, step_size=0.1)(model, x, y)
    assert (x_adv - x).abs().max() <= 0.1 + 1e-6


def test_pgd_step_sizes():
    assert PGD(eps=1.0, steps=5, step_size=0.3)._step_size() == 0.3
    assert PGD(eps=1.0, steps=5, rel_step_size=0.2)._step_size() == 0.2
    assert PGD(eps=1.0, steps=5)._step_size() == 0.5
    with pytest.raises(ValueError, match="not both"):
        PGD(step_size=0.1, rel_step_size=0.1)
    with pytest.raises(ValueError, match="steps"):
        PGD(steps=0)
