"""The Boundary Attack by changes in bfloat16: as near as in float32, and what lies is found out."""

from __future__ import annotations

import pytest
import torch
from tests.attacks.changed import changes_with, passes
from tests.attacks.digits import digits
from torch import nn

from diascope.attacks import BoundaryAttack
from diascope.attacks.base import verdict


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def ten():
    net, x, y = digits()
    return net, x[:60], y[:60]


def attacked(ten, precision, queries=600, **settings):
    attack = BoundaryAttack(queries=queries, precision=precision, **settings)
    return attack.run(*ten, generator=seeded())


@pytest.mark.parametrize("memory", [0, 1000])
def test_it_comes_as_near_as_in_float32(memory, ten):
    net, x, y = ten
    low, plain = (attacked(ten, precision, memory=memory) for precision in ("bf16", "float32"))
    assert torch.equal(low.started, plain.started)
    assert verdict(net, low.x_adv, y).all()
    away = (low.x_adv - x).flatten(1).norm(dim=1)
    torch.testing.assert_close(low.distance, away, rtol=1e-5, atol=1e-6)
    found = low.distance > 0
    ratio = (low.distance / plain.distance)[found]
    assert 0.97 < ratio.median() < 1.03
    assert 0.97 < ratio.log().mean().exp() < 1.03


@pytest.mark.parametrize(
    "settings", [{"targeted": True}, {"eps": 1.5}, {"norm": "linf", "eps": 0.5}]
)
def test_what_it_returns_fools_the_model_itself(settings, ten):
    net, x, y = ten
    y = (y + 1) % 10 if "targeted" in settings else y
    low, plain = (attacked((net, x, y), precision, **settings) for precision in ("bf16", "float32"))
    changed = (low.x_adv != x).flatten(1).any(1)
    assert changed.sum() > 10
    assert verdict(net, low.x_adv, y, targeted="targeted" in settings)[changed].all()
    assert abs(int(changed.sum()) - int((plain.x_adv != x).flatten(1).any(1).sum())) <= 2


def test_a_query_is_a_query_in_either_precision(ten):
    low, plain = (attacked(ten, precision, queries=200) for precision in ("bf16", "float32"))
    assert torch.equal(low.queries, plain.queries)
    assert low.queries.max() > 190


def test_almost_nothing_is_asked_in_float32(ten, monkeypatch):
    asked, changed = passes(monkeypatch)
    attacked(ten, "float32")
    whole = sum(asked)
    assert not changed
    asked.clear()
    attacked(ten, "bf16")
    starts = sum(asked)
    assert sum(changed) > 0.9 * (whole - starts)
    assert starts < 0.15 * whole


def test_it_is_not_tried_in_float32(ten, monkeypatch):
    _, changed = passes(monkeypatch, 0)
    attacked(ten, "float32", queries=100)
    assert not changed


@pytest.mark.parametrize("queries", [200, 213, 1000])
def test_points_that_only_the_changes_hold_misclassified_are_gone_back_from(
    queries, ten, monkeypatch
):
    net, x, y = (each if isinstance(each, nn.Module) else each[ten[2] == 8] for each in ten)
    start = BoundaryAttack(queries=60).run(net, x, y, generator=seeded())

    def boastful(self, x, base, where=None):
        return base.logits + 100 * nn.functional.one_hot(torch.full((len(x),), 1), 10)

    answered = changes_with(monkeypatch, boastful)
    attack = BoundaryAttack(queries=queries, precision="bf16")
    found = attack.run(net, x, y, start=start.x_adv, generator=seeded())
    assert 0 < len(answered) < 100  # they are given up
    assert verdict(net, found.x_adv, y).all()
    assert (found.distance <= 1.002 * start.distance).all()
