"""AutoAttack: its stages, what it returns, and torchattacks as an oracle."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from tests.attacks.digits import digits
from tests.nets import images, small_net
from torch import nn

from diascope.attacks import APGD, FAB, AutoAttack, Square, Threat
from diascope.attacks.base import NotFiniteWarning, verdict
from diascope.attacks.losses import margin


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_standard_version_is_that_of_the_paper(norm):
    first, second, third, last = AutoAttack(norm=norm, eps=0.3).stages
    assert first == APGD(norm=norm, eps=0.3, loss="ce", steps=100, restarts=1)
    assert second == replace(first, loss="dlr-targeted", targets=9)
    assert third == FAB(norm=norm, eps=0.3, steps=100, restarts=1, targets=9)
    assert last == Square(norm=norm, eps=0.3, queries=5000)


def test_the_version_for_l1_is_that_of_its_paper():
    first, second, third, last = AutoAttack(norm="l1", eps=12).stages
    assert (first.restarts, second.restarts, second.targets) == (5, 1, 5)
    assert (third.targets, last.queries) == (9, 5000)


COUNT = {"linf": 200, "l2": 200, "l1": 100}  # digits; the authors' version for L1 is slow


@cache
def ours(norm: str, eps: float) -> torch.Tensor:
    """Whether each of some digits is broken."""
    net, x, y = digits()
    x, y = x[: COUNT[norm]], y[: COUNT[norm]]
    attack = AutoAttack(norm=norm, eps=eps, steps=20, queries=100)
    return verdict(net, attack(net, x, y, generator=seeded()), y)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.15), ("l2", 0.7)])
def test_gives_the_verdicts_of_torchattacks(norm, eps):
    torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is not installed")
    net, x, y = digits()
    x, y = x[: COUNT[norm]], y[: COUNT[norm]]
    shared = {"norm": {"linf": "Linf", "l2": "L2"}[norm], "eps": eps}
    peer = torchattacks.MultiAttack(
        [
            torchattacks.APGD(net, steps=20, loss="ce", **shared),
            torchattacks.APGDT(net, steps=20, n_classes=10, **shared),
            torchattacks.FAB(net, steps=20, multi_targeted=True, n_classes=10, **shared),
            torchattacks.Square(net, n_queries=100, **shared),
        ]
    )
    theirs = verdict(net, peer(x, y), y)
    assert 0.2 < theirs.double().mean() < 0.8
    assert (ours(norm, eps) == theirs).double().mean() >= 0.99


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.15), ("l2", 0.7), ("l1", 1.5)])
def test_gives_the_verdicts_of_its_authors(norm, eps):
    pyautoattack = pytest.importorskip("pyautoattack", reason="pyautoattack is not installed")
    net, x, y = digits()
    x, y = x[: COUNT[norm]], y[: COUNT[norm]]
    name = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    peer = pyautoattack.AutoAttack(net, norm=name, eps=eps, seed=0)
    peer.apgd.n_iter = peer.apgd_targeted.n_iter = peer.fab.n_iter = 20
    peer.square.n_queries = 100
    theirs = verdict(net, peer.run_standard_evaluation(x, y)[0], y)
    assert 0.2 < theirs.double().mean() < 0.8
    assert (ours(norm, eps) == theirs).double().mean() >= 0.99


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_breaks_an_undefended_net_of_few_classes(norm, classes):
    net, x, y = digits(classes, robust=False)
    x, y = x[:40], y[:40]
    assert verdict(net, x, y).double().mean() < 0.1
    eps = {"linf": 0.5, "l2": 3.0, "l1": 12.0}[norm]
    attack = AutoAttack(norm=norm, eps=eps, steps=10, queries=50)
    x_adv = attack(net, x, y, generator=seeded())
    assert verdict(net, x_adv, y).double().mean() > 0.95
    tiny = replace(attack, eps=1e-5, steps=3, queries=3)  # every stage sees survivors
    assert torch.equal(verdict(net, tiny(net, x, y, generator=seeded()), y), verdict(net, x, y))


def test_each_stage_attacks_what_those_before_left_standing(monkeypatch):
    net, x, y = digits()
    x, y, asked, standing = x[:60], y[:60], [], []
    for family in (APGD, FAB, Square):

        def spied(self, model, xs, ys, _original=family.__call__, **options):
            found = _original(self, model, xs, ys, **options)
            asked.append(len(xs))
            standing.append(int((~verdict(net, found, ys)).sum()))
            return found

        monkeypatch.setattr(family, "__call__", spied)
    AutoAttack(eps=0.12, steps=5, queries=5)(net, x, y, generator=seeded())
    assert asked[0] == int((~verdict(net, x, y)).sum())
    assert asked[1:] == standing[:-1]
    assert 0 < asked[-1] < asked[0]


def test_returns_the_best_points_of_what_withstands_it():
    net, x, y = digits()
    x, y = x[:60], y[:60]
    x_adv = AutoAttack(eps=0.12, steps=10, queries=20)(net, x, y, generator=seeded())
    stands = ~verdict(net, x_adv, y)
    assert stands.any()
    assert (Threat("linf", 0.12).size(x_adv - x) <= 0.12 + 1e-6).all()
    pgd = APGD(eps=0.12, loss="margin", steps=10)(net, x, y, generator=seeded())
    gained = margin(net(x_adv), y) - margin(net(x), y)
    ample = margin(net(pgd), y) - margin(net(x), y)
    assert (gained[stands] > 0).all()
    assert gained[stands].mean() > 0.9 * ample[stands].mean()
    wrong = verdict(net, x, y)
    assert torch.equal(x_adv[wrong], x[wrong])


def test_logits_that_are_not_finite_are_reported_and_not_attacked():
    class Broken(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] * torch.nan

    x = images(3)
    with pytest.warns(NotFiniteWarning, match="3 of 3"):
        x_adv = AutoAttack()(Broken(), x, torch.zeros(3).long(), generator=seeded())
    assert torch.equal(x_adv, x)


def test_targeted_runs_reach_the_class_wanted():
    model, x = small_net(4, seed=2), images(12)
    target = (model(x).argmax(1) + 1) % 4
    attack = AutoAttack(norm="linf", eps=0.5, targeted=True, steps=20, queries=50)
    x_adv = attack(model, x, target, generator=seeded())
    assert (model(x_adv).argmax(1) == target).double().mean() > 0.9


def test_knows_its_versions():
    with pytest.raises(ValueError, match="only 'standard'"):
        AutoAttack(version="rand")
    with pytest.raises(ValueError, match="steps=0"):
        AutoAttack(steps=0)
