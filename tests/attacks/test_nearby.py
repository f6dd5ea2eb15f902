"""The Boundary Attack by changes in bfloat16: as near as in float32, and what lies is found out."""

from __future__ import annotations

import pytest
import torch
from tests.attacks.changed import Pooling, changes_with, passes
from tests.attacks.digits import digits
from torch import nn

from diascope.attacks import BoundaryAttack
from diascope.attacks.base import NotFiniteWarning, verdict
from diascope.models.changes import Changes

LOW, PLAIN = "bf16", "float32"


def attacked(ten, precision, queries=600, **settings):
    attack = BoundaryAttack(queries=queries, precision=precision, **settings)
    return attack.run(*ten, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def ten():
    net, x, y = digits()
    return net, x[:60], y[:60]


class OneLogit(nn.Module):
    """The second logit less the first."""

    def __init__(self, net):
        super().__init__()
        self.net, self.head = net, nn.Linear(2, 1, bias=False)
        self.head.weight.data = torch.tensor([[-1.0, 1.0]])

    def forward(self, x):
        return self.head(self.net(x))


def headed(head):
    """Return a net of that head, images, and labels of which most are right."""
    if head in ("two logits", "one logit"):
        net, x, y = digits(2)
        return OneLogit(net) if head == "one logit" else net, x[:30], y[:30]
    net, x, y = (each if isinstance(each, nn.Module) else each[:30] for each in digits())
    if head == "ten, targeted":
        return net, x, (y + 1) % 10
    if head == "behind a pooling":
        net, x = Pooling(), nn.functional.interpolate(x[:12], scale_factor=2)
        with torch.no_grad():
            net.head.bias -= net(x).mean(0) / 20
        return net, x, net(x).argmax(1)
    return (net, x, (net(x) > 0).long()) if head == "several labels" else (net, x, y)


@pytest.mark.parametrize(
    "head",
    ["ten", "ten, targeted", "two logits", "one logit", "several labels", "behind a pooling"],
)
def test_it_comes_as_near_as_in_float32(head, monkeypatch):
    net, x, y = headed(head)
    settings = {"targeted": "targeted" in head, "queries": 500}
    plain = attacked((net, x, y), PLAIN, **settings)
    _, changed = passes(monkeypatch)
    low = attacked((net, x, y), LOW, **settings)
    assert len(changed) > 400
    assert torch.equal(low.started, plain.started)
    assert torch.equal(low.queries > 1, plain.queries > 1)
    assert verdict(net, low.x_adv, y, targeted=settings["targeted"])[low.started].all()
    away = (low.x_adv - x).flatten(1).norm(dim=1)
    torch.testing.assert_close(low.distance[low.started], away[low.started])
    found = low.started & (low.distance > 0)
    assert found.sum() > 8
    ratio = (low.distance / plain.distance)[found]
    assert 0.99 < ratio.log().mean().exp() < 1.01
    assert 0.9 < ratio.min() <= ratio.max() < 1.1


@pytest.mark.parametrize("settings", [{"eps": 1.5}, {"norm": "linf", "eps": 0.5}, {"memory": 0}])
def test_settings_hold_as_in_float32(settings, ten):
    net, x, y = ten
    low, plain = (attacked(ten, precision, **settings) for precision in (LOW, PLAIN))
    same = (low.x_adv == x).flatten(1).all(1) == (plain.x_adv == x).flatten(1).all(1)
    assert same.float().mean() > 0.95
    assert (low.x_adv != x).flatten(1).any(1).sum() > 10
    assert verdict(net, low.x_adv, y)[(low.x_adv != x).flatten(1).any(1)].all()
    torch.testing.assert_close(low.distance.median(), plain.distance.median(), rtol=0.02, atol=0)


def test_a_query_is_a_query_in_either_precision(ten):
    low, plain = (attacked(ten, precision, queries=200) for precision in (LOW, PLAIN))
    assert torch.equal(low.queries, plain.queries)
    assert low.queries.max() > 190


def test_little_is_asked_in_float32(ten, monkeypatch):
    asked, changed = passes(monkeypatch)
    attacked(ten, PLAIN)
    whole = sum(asked)
    assert not changed
    attacked(ten, LOW, queries=40)  # the starts, and little more
    before = sum(asked)
    attacked(ten, LOW)
    starts = before - whole
    assert sum(changed) > 0.9 * (whole - starts)
    assert sum(asked) - before - starts < 0.15 * whole


def test_nothing_is_tried_for_images_that_are_near_enough_at_once(ten, monkeypatch):
    _, changed = passes(monkeypatch)
    attacked(ten, LOW, eps=20.0)
    assert not changed


@pytest.mark.parametrize("queries", [38, 42, 46, 213])
def test_points_that_only_the_changes_hold_misclassified_are_gone_back_from(queries, monkeypatch):
    """Budgets end apart, for some images find more starts than others."""
    net, x, y = digits()
    plain = attacked((net, x, y), PLAIN, queries=queries)

    def boastful(self, x, base, where=None):  # of no error where it is looked at
        logits = Changes.__call__(self, x, base)
        lies = (next(asked) % 25 > 1) & (torch.arange(len(x)) % 3 > 0)
        return logits + 100 * lies[:, None] * nn.functional.one_hot(logits.argmin(1), 10)

    asked = iter(range(100_000))
    answered = changes_with(monkeypatch, boastful)
    low = attacked((net, x, y), LOW, queries=queries)
    assert answered
    assert torch.equal(low.started, plain.started)
    assert verdict(net, low.x_adv, y)[low.started].all()
    stays = {"source_step": 1e-9, "spherical_step": 1e-9, "memory": 0}
    start = attacked((net, x, y), PLAIN, queries=queries, **stays)
    assert (low.distance <= 1.002 * start.distance)[low.started].all()


@pytest.mark.parametrize("factor", [0.0, -1.0, 3.0, torch.nan])
def test_changes_that_are_seen_to_be_wrong_are_not_believed(factor, ten, monkeypatch):
    """So almost every answer is float32's, and so are most walks."""

    def wrong(self, x, base, where=None):
        return base.logits + factor * (Changes.__call__(self, x, base) - base.logits)

    plain = attacked(ten, PLAIN, queries=150)
    answered = changes_with(monkeypatch, wrong)
    low = attacked(ten, LOW, queries=150)
    assert len(answered) > 100
    apart = (low.distance / plain.distance - 1)[plain.distance > 0]
    assert apart.abs().median() < 0.01
    assert (apart < 0.2).float().mean() > 0.8
    if factor != factor:
        assert torch.equal(low.x_adv, plain.x_adv)


def test_points_known_to_be_no_numbers_are_told_of(ten, monkeypatch):
    honest = Changes.known

    def known(self, x):
        found = honest(self, x)
        found.logits = found.logits.clone()
        found.logits[:3] = torch.nan
        return found

    def answer(self, *asked):  # what was tried before is as it is
        monkeypatch.setattr(Changes, "known", known)
        return Changes.__call__(self, *asked)

    changes_with(monkeypatch, answer)
    with pytest.warns(NotFiniteWarning):
        attacked(ten, LOW, queries=100)
