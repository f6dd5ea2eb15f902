"""A judge of the finds: only what it confirms counts, and the search goes on until it does."""

from __future__ import annotations

import pytest
import torch
from tests.attacks.digits import digits

from diascope.attacks import Attack, Threat, at_eps, attacks, robustness_curve
from diascope.attacks.base import verdict

EPS = {"linf": 0.15, "l2": 0.9, "l1": 3.0}
SETTINGS = {
    "pgd": {"steps": 20, "stop_early": True},
    "mifgsm": {"steps": 20, "stop_early": True},
    "fgsm": {"stop_early": True},
    "apgd": {"steps": 20},
    "fab": {"steps": 20, "targets": 3},
    "square": {"queries": 300},
    "autoattack": {"steps": 10, "targets": 2, "queries": 50},
}
EDGE = [name for name in SETTINGS if name in ("fab", "square", "autoattack")]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def eight_bit_digits(count: int = 60):
    net, x, y = digits(robust=False)
    x = (x * 255).round() / 255
    kept = ~verdict(net, x, y)
    return net, x[kept][:count], y[kept][:count]


def build(name: str, norm: str = "linf") -> Attack:
    return attacks.build({"name": name, "norm": norm, "eps": EPS[norm], **SETTINGS[name]})


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("name", SETTINGS)
def test_only_finds_that_the_judge_confirms_count(name, norm):
    net, x, y = eight_bit_digits(30)
    asked = []

    def at_8_bits(x_adv, x, y):
        asked.append(len(x))
        return verdict(net, Threat(norm, 0.0).round(x_adv, x), y)

    attack = build(name, norm)
    with_judge = at_8_bits(attack(net, x, y, judge=at_8_bits, generator=seeded()), x, y)
    without = at_8_bits(attack(net, x, y, generator=seeded()), x, y)
    assert asked
    if name != "fgsm":  # one step and one point, whoever judges
        assert with_judge.double().mean() > 0.5
    if name in ("fab", "square"):  # whose first finds stand on the edge
        assert with_judge.sum() > without.sum()
    assert with_judge.sum() >= without.sum()


@pytest.mark.parametrize("name", SETTINGS)
def test_what_nothing_confirms_is_not_broken_and_ends(name):
    net, x, y = eight_bit_digits(8)
    never = lambda x_adv, x, y: torch.zeros(len(x), dtype=torch.bool)
    x_adv = build(name)(net, x, y, judge=never, generator=seeded())
    assert (Threat("linf", 0.0).size(x_adv - x) <= EPS["linf"] * (1 + 1e-5)).all()
    if name == "fab":  # it returns finds alone
        assert torch.equal(x_adv, x)


@pytest.mark.parametrize("name", EDGE)
@pytest.mark.parametrize("how", ["rounding", "transfer"])
def test_a_curve_searches_on_until_its_own_verdict_is_met(name, how):
    net, x, y = eight_bit_digits(40)
    other, *_ = digits()
    kept = ~verdict(other, x, y)
    x, y, eps = x[kept], y[kept], EPS["linf"]
    options = {"rounding": True} if how == "rounding" else {"transfer_to": other}
    attack = build(name)
    curve = robustness_curve(
        net, x, y, attack=attack, epsilons=[eps], generator=seeded(), **options, keep_x_adv=True
    )
    judged = other if how == "transfer" else net
    hit = curve.minimal_epsilon.isfinite()
    assert torch.equal(verdict(judged, curve.x_adv, y), hit)
    x_adv = at_eps(attack, eps)(net, x, y, generator=seeded())
    seen = Threat("linf", 0.0).round(x_adv, x) if how == "rounding" else x_adv
    assert hit.sum() > verdict(judged, seen, y).sum()
