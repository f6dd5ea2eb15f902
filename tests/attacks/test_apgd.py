"""APGD: its step rule by hand, its promises, and torchattacks as an oracle."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.attacks.digits import digits
from tests.nets import Linear, images, small_net
from torch import Tensor, nn

from diascope.attacks import APGD, PGD, Threat
from diascope.attacks.ascent import Ascent
from diascope.attacks.ascent_rules import checkpoints
from diascope.attacks.base import verdict
from diascope.attacks.losses import loss_of, margin
from diascope.models.frozen import frozen
from diascope.randomness import Noise

NORMS = ("linf", "l2", "l1")
EPS = {"linf": 0.15, "l2": 0.7, "l1": 2.0}  # about half of the digits withstand these


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_checkpoints_are_those_of_the_paper():
    assert sorted(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert sorted(checkpoints(10)) == [3, 5, 6, 7, 8, 9, 10]


def ascend(model, x, y, norm, eps, steps, start, loss="ce"):
    objective = lambda logits, y, _: loss_of(loss)(logits, y)
    with frozen(model, x, precision="float32") as net:
        climb = Ascent(net, objective, Threat(norm, eps), stop_early=False)
        return climb(x, y, y, start, steps).points


@torch.no_grad()
def by_hand(model, x, y, norm, eps, steps, start):
    """Algorithm 1 of Croce and Hein 2020 for one image, in plain Python."""
    threat, loss = Threat(norm, eps), lambda z: float(loss_of("ce")(model(z), y))

    @torch.enable_grad()
    def gradient(z):
        z = z.clone().requires_grad_(True)
        return torch.autograd.grad(loss_of("ce")(model(z), y).sum(), z)[0]

    size, losses = 2 * eps, [loss(start)]
    best, best_loss, since = start, losses[0], 0
    rises, changed, best_then = 0, True, None
    at, before = start, start
    for step in range(1, steps + 1):
        ahead = threat.project(at + size * threat.steepest(gradient(at)), x)
        if step > 1:
            ahead = threat.project(at + 0.75 * (ahead - at) + 0.25 * (at - before), x)
        before, at = at, ahead
        losses.append(loss(at))
        rises += losses[-1] > losses[-2]
        if losses[-1] > best_loss:
            best, best_loss = at, losses[-1]
        if step in checkpoints(steps):
            first = rises < 0.75 * (step - since)
            second = not changed and best_loss == best_then
            changed, best_then, rises, since = first or second, best_loss, 0, step
            if changed:
                size, at = size / 2, best
    return best


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("steps", [12, 60])
def test_every_image_takes_the_steps_of_algorithm_1(norm, steps):
    model, x = small_net(seed=4).double(), images(5, side=8).double()
    y, eps = model(x).argmax(1), {"linf": 0.1, "l2": 0.8}[norm]
    start = Threat(norm, eps).random_start(x, Noise.of(x, seeded(), None))
    found = ascend(model, x, y, norm, eps, steps, start)
    for i in range(5):
        one = slice(i, i + 1)
        alone = by_hand(model, x[one], y[one], norm, eps, steps, start[one])
        torch.testing.assert_close(found[one], alone, atol=1e-9, rtol=0)


@given(
    norm=st.sampled_from(NORMS),
    loss=st.sampled_from(["ce", "margin", "dlr"]),
    eps=st.floats(0, 2),
    steps=st.integers(1, 25),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_never_ends_below_its_start(norm, loss, eps, steps, seed):
    model, x = small_net(seed=seed % 5).double(), images(3, side=6, seed=seed).double()
    y = torch.arange(3)
    start = Threat(norm, eps).random_start(x, Noise.of(x, seeded(seed), None))
    value = lambda z: loss_of(loss)(model(z), y)
    if norm != "l1":  # its wider balls may lead elsewhere
        found = ascend(model, x, y, norm, eps, steps, start, loss)
        assert (value(found) >= value(start) - 1e-12).all()
    attack = APGD(norm=norm, eps=eps, loss=loss, steps=steps, stop_early=False)
    found = attack(model, x, y, start=start, generator=seeded(seed))
    clean = verdict(model, x, y)
    assert (verdict(model, found, y) >= clean).all()
    same = verdict(model, found, y) == clean
    assert (value(found) >= value(x) - 1e-12)[same].all()


@pytest.mark.parametrize("norm", NORMS)
def test_reaches_the_optimum_of_a_linear_model(norm):
    weight = torch.randn(2, 1, 6, 6, generator=seeded(1)).double()
    model, x = Linear(weight).double(), torch.full((4, 1, 6, 6), 0.5).double()
    y, rise = torch.zeros(4).long(), weight[1] - weight[0]
    found = APGD(norm=norm, eps=0.3, loss="margin", stop_early=False)(model, x, y)
    size = {"linf": rise.abs().sum(), "l2": rise.norm(), "l1": rise.abs().max()}[norm]
    gained = margin(model(found), y) - margin(model(x), y)
    torch.testing.assert_close(gained, (0.3 * size).expand(4), rtol=5e-3, atol=0)


def robust_accuracy(net: nn.Module, x_adv: Tensor, y: Tensor) -> float:
    return 1 - verdict(net, x_adv, y).double().mean().item()


@pytest.mark.parametrize("norm", NORMS)
def test_is_no_weaker_than_pgd_of_as_many_steps(norm):
    net, x, y = digits()
    for seed in range(3):
        ours = APGD(norm=norm, eps=EPS[norm], steps=40)(net, x, y, generator=seeded(seed))
        pgd = PGD(norm=norm, eps=EPS[norm], steps=40, stop_early=True)
        theirs = pgd(net, x, y, generator=seeded(seed))
        assert 0.2 < robust_accuracy(net, theirs, y) < 0.8
        assert robust_accuracy(net, ours, y) <= robust_accuracy(net, theirs, y)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "dlr-targeted"])
def test_gives_the_verdicts_of_torchattacks(norm, loss):
    """On the cross-entropy torchattacks' agrees with itself, at another seed, on 98.5% to 99%."""
    torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is not installed")
    net, x, y = digits()
    common = {"norm": {"linf": "Linf", "l2": "L2"}[norm], "eps": EPS[norm]}
    if loss == "ce":
        least = 0.975
        peer = torchattacks.APGD(net, steps=50, loss="ce", n_restarts=2, **common)
        ours = APGD(norm=norm, eps=EPS[norm], steps=50, restarts=2)
    else:
        least = 0.99
        peer = torchattacks.APGDT(net, steps=20, n_classes=10, **common)
        ours = APGD(norm=norm, eps=EPS[norm], steps=20, loss=loss)
    theirs = verdict(net, peer(x, y), y)
    mine = verdict(net, ours(net, x, y, generator=seeded()), y)
    assert 0.2 < theirs.double().mean() < 0.8
    assert (mine == theirs).double().mean() >= least
    assert mine.double().mean() >= theirs.double().mean() - 0.01


def test_targeted_dlr_finds_what_one_loss_does_not():
    net, x, y = digits()
    plain = APGD(norm="linf", eps=0.15, loss="dlr", steps=20)(net, x, y, generator=seeded())
    every = APGD(norm="linf", eps=0.15, loss="dlr-targeted", steps=20)(
        net, x, y, generator=seeded()
    )
    assert robust_accuracy(net, every, y) < robust_accuracy(net, plain, y) - 0.01


def test_targets_are_clamped_to_the_classes_there_are(monkeypatch):
    seen = []
    original = Ascent.__call__

    def counted(self, x, y, target, start, steps):
        seen.append(target)
        return original(self, x, y, target, start, steps)

    monkeypatch.setattr(Ascent, "__call__", counted)
    for classes, runs in ((1, 1), (2, 1), (3, 2), (7, 6), (12, 9)):
        seen.clear()
        model, x = small_net(classes, seed=1), images(4)
        y = (model(x)[:, 0] > 0).long() if classes == 1 else model(x).argmax(1)
        attack = APGD(eps=1e-4, loss="dlr-targeted", steps=2, precision="float32")
        attack(model, x, y, generator=seeded())
        assert len(seen) == runs
        if classes > 2:
            tried = torch.stack(seen, 1)
            assert (tried != y[:, None]).all()
            assert all(len(set(row.tolist())) == runs for row in tried)


def test_images_that_are_broken_cost_nothing_more():
    model, x = small_net(), images(6)
    calls = []
    model.register_forward_hook(lambda module, inputs, _: calls.append(len(inputs[0])))
    wrong = (model(x).argmax(1) + 1) % 3
    calls.clear()
    x_adv = APGD(eps=0.1)(model, x, wrong, generator=seeded())
    assert torch.equal(x_adv, x)
    assert sum(calls) <= 4 * len(x)


@pytest.mark.parametrize("norm", NORMS)
def test_bfloat16_gradients_break_as_much(norm):
    net, x, y = digits()
    x, y = x[:200], y[:200]
    exact, rough = (
        APGD(norm=norm, eps=EPS[norm], steps=40, precision=precision)(net, x, y, generator=seeded())
        for precision in ("float32", "bf16")
    )
    assert robust_accuracy(net, rough, y) <= robust_accuracy(net, exact, y) + 0.01


def test_refuses_settings_that_mean_nothing():
    with pytest.raises(ValueError, match="targets=0"):
        APGD(targets=0)
    with pytest.raises(ValueError, match="finds its own targets"):
        APGD(loss="dlr-targeted", targeted=True)
    with pytest.raises(ValueError, match="rho=2"):
        APGD(rho=2)
    with pytest.raises(ValueError, match="loss='cw'"):
        APGD(loss="cw")
