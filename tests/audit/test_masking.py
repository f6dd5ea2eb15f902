"""The checks on masked gradients: each with what is built to fail it, and what passes all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from benchmarks.masked_nets import (
    GRIDS,
    PLANTED,
    Cut,
    InBatch,
    Noisy,
    Planted,
    Probabilities,
    Quantised,
    Turned,
    conv_net,
    linear,
    pictures,
    trained,
)
from torch import nn

from diascope.attacks import APGD, FGSM, PGD, independent_accuracy
from diascope.audit.masking import MASKING, run_masking
from diascope.audit.masking.control import Control
from diascope.audit.masking.question import outdone
from diascope.audit.masking.stand import Stand

ORDER = [
    *("iterative", "black_box", "monotone", "unbounded", "noise", "plateau", "gradients"),
    *("agreement", "stochastic", "logits", "returned", "losses", "contract", "reported"),
]


@cache
def honest(outputs: int = 3) -> nn.Module:
    classes = max(outputs, 2)
    return trained(lambda: conv_net(outputs), classes=classes, steps=120, count=600)


def stand_of(net: nn.Module, norm: str = "linf", classes: int = 3, **changes) -> Stand:
    count = changes.pop("count", 32)
    x, y = pictures(count, classes, seed=7)
    grid, eps = GRIDS[norm]
    options = {"steps": 8, "queries": 30, "replicates": 200, "eps": eps, "epsilons": grid}
    return Stand(net, x, y, torch.arange(count), norm, **{**options, **changes})


def test_fourteen_checks_are_asked_in_order_and_an_honest_net_passes_all():
    stand = stand_of(honest())
    outcomes = run_masking(stand)
    assert [o.number for o in outcomes] == list(range(1, 15))
    assert [o.name for o in outcomes] == ORDER
    assert {o.name: o.evidence for o in outcomes if o.verdict != "passed"} == {}
    assert float(stand.correct.double().mean()) > 0.9
    assert all(o.question.endswith("?") and o.meaning and o.remedy for o in outcomes)


@pytest.mark.parametrize(
    ("planted", "name"),
    [pytest.param(p, n, id=f"{p.name}, {n}") for p in PLANTED for n in p.fails],
)
def test_a_planted_fault_fails_the_checks_built_for_it(planted: Planted, name: str):
    outcome = MASKING[name](_faulty(planted))
    assert outcome.verdict == "failed", outcome.evidence


@cache
def _faulty(planted: Planted) -> Stand:
    net = honest() if planted.layer is None else planted.layer(honest())
    attack = None if planted.attack is None else replace(planted.attack, steps=8)
    torch.manual_seed(0)  # of what the stochastic ones draw
    whole, eps = GRIDS["linf"]
    grid = whole if "monotone" in planted.fails else (eps / 4, eps, 4 * eps)
    many = bool({"black_box", "reported"} & set(planted.fails))
    return stand_of(
        net,
        attack=attack,
        count=48 if many else 32,
        epsilons=grid,
        queries=60 if "black_box" in planted.fails else 10,
    )


def test_every_check_has_a_fault_built_to_fail_it():
    assert {name for planted in PLANTED for name in planted.fails} == set(ORDER)


@pytest.mark.parametrize(("norm", "outputs"), [("l1", 1), ("l2", 1), ("linf", 2), ("l2", 2)])
def test_other_norms_and_heads_pass_where_nothing_is_wrong(norm, outputs):
    net = trained(lambda: linear(outputs), classes=2, steps=40, count=300)
    stand = stand_of(net, norm, 2, queries=20, count=20)
    failed = {o.name: o.evidence for o in run_masking(stand) if o.verdict == "failed"}
    assert failed == {}
    assert 0 < float(stand.by_epsilon.double().mean()) < 1  # the attack had work to do


def test_the_heads_of_one_logit_are_seen_to_return_a_probability():
    net = trained(lambda: linear(1), classes=2, steps=20, count=300)
    assert MASKING["logits"](stand_of(net, classes=2)).verdict == "passed"

    class Odds(nn.Module):  # a probability less a half is decided as a logit is
        def forward(self, x):
            return net(x).sigmoid()

    outcome = MASKING["logits"](stand_of(Odds(), classes=2))
    assert outcome.verdict == "failed"
    assert outcome.numbers["high"] <= 1


def test_verdicts_at_each_epsilon_are_those_of_independent_runs():
    stand = stand_of(honest(), steps=3)
    shares = independent_accuracy(
        honest(),
        stand.x,
        stand.y,
        attack=PGD(steps=3),
        epsilons=stand.epsilons,
        generator=stand.generator("attack"),
        ids=stand.ids,
    )
    ours = (~stand.by_epsilon).sum(1) / len(stand.x)
    assert torch.allclose(ours.double(), shares, atol=1e-9)
    assert shares[0] > shares[-1]


def test_what_cannot_be_decided_is_said_and_not_passed():
    few = run_masking(stand_of(honest(), count=6))
    word = {o.name: o for o in few}
    for name in set(ORDER) - {"stochastic", "logits"}:
        assert word[name].verdict == "undecided", name
        assert "only 6 of 6" in word[name].evidence
    without = {o.name: o for o in run_masking(stand_of(honest(), eps=0.0, epsilons=(0.0,)))}
    assert {n for n, o in without.items() if o.verdict == "passed"} == {
        "gradients",
        "agreement",
        "stochastic",
        "logits",
    }
    assert all("epsilon" in o.evidence for o in without.values() if o.verdict == "undecided")


def test_nothing_is_won_where_nothing_is_left():
    stand = stand_of(honest(), epsilons=(0.25, 0.5), eps=0.25)
    for name in ("black_box", "noise", "plateau", "losses", "monotone", "iterative"):
        outcome = MASKING[name](stand)
        assert outcome.verdict == "undecided", name
        assert "every image" in outcome.evidence


def test_a_few_images_of_noise_do_not_flag_fgsm():
    assert outdone(3, 0) > 0.01  # three images alone may be chance
    assert outdone(10, 1) < 0.01
    assert outdone(0, 0) == 1


def test_transfer_from_another_model_counts_as_a_black_box():
    other = trained(conv_net, steps=60, count=300, seed=1)
    stand = stand_of(Cut(honest()), others={"other": other}, queries=2)
    outcome = MASKING["black_box"](stand)
    assert outcome.verdict == "failed"
    assert int(stand.black_box["transfer from other"].sum()) > 0
    blind = stand_of(Cut(honest()), others={"blind": Quantised(other)}, queries=2)
    assert int(blind.black_box["transfer from blind"].sum()) <= int(
        stand.black_box["transfer from other"].sum()
    )


def test_kinks_on_plain_black_are_not_taken_for_masked_gradients():
    """A max-pooling over black has equal inputs: at the very image it has a kink and no slope."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten()),
        nn.Linear(16 * 16, 3),
    )
    stand = stand_of(net)
    stand.x = nn.functional.pad(stand.x[..., 6:10, 6:10], (6, 6, 6, 6))
    stand.y = stand.logits.argmax(1)
    agreed = MASKING["agreement"](stand)
    assert agreed.verdict == "passed", agreed.evidence  # at the image itself all disagree


def test_gradients_say_what_is_wrong_with_them():
    numbers = MASKING["gradients"](stand_of(Cut(honest()))).numbers
    assert numbers["zero_margin"] == 1
    agreed = MASKING["agreement"](stand_of(Turned(honest())))
    assert agreed.numbers["disagree"] == 1
    assert agreed.numbers["cosine"] > 0.9  # turned round, they still agree with themselves


def test_averaging_over_draws_breaks_more():
    torch.manual_seed(0)
    outcome = MASKING["stochastic"](stand_of(Noisy(honest()), count=48))
    assert outcome.numbers["averaged"] < outcome.numbers["single"] - 0.02
    assert outcome.severity == "high"


def test_the_promises_broken_are_named():
    whole = MASKING["contract"](stand_of(InBatch(honest())))
    assert "alone and in a batch" in whole.evidence
    leaving = next(p for p in PLANTED if p.name == "attack leaves its ball")
    outcome = MASKING["contract"](_faulty(leaving))
    assert outcome.numbers["size"] == pytest.approx(2 * GRIDS["linf"][1], rel=1e-3)
    assert "perturbations reach" in outcome.evidence
    assert "alone" not in outcome.evidence  # only what is broken is told


def test_images_that_are_not_at_8_bits_are_no_fault():
    stand = stand_of(honest())
    stand.x = stand.x * 0.997
    assert MASKING["contract"](stand).verdict == "passed"
    whole = MASKING["contract"](stand_of(honest()))
    assert "rounded towards the image to 8 bits" in whole.evidence


def test_any_attack_of_ours_returns_what_it_broke():
    blind = MASKING["returned"](stand_of(honest(), attack=FGSM()))
    assert blind.verdict == "undecided"  # it asks of no point but the image itself
    for attack in (PGD(steps=8, restarts=2), PGD(steps=8, returns="best"), APGD(steps=8)):
        outcome = MASKING["returned"](stand_of(honest(), attack=attack))
        assert outcome.verdict == "passed", outcome.evidence
        assert outcome.numbers["met"] > 3


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("classes", [2, 3])
def test_what_breaks_the_control_is_known_exactly(norm, classes):
    x, y = pictures(24, classes)
    control = Control.fit(x, y)
    assert bool((control(x).argmax(1) == y).all())
    least = control.least(x, y, norm)
    for factor in (0.99, 1.05 if classes == 2 and norm != "l1" else 2.0):  # where PGD is exact
        attack = PGD(norm=norm, eps=(factor * least).float(), steps=40, loss="margin")
        share = float((control(attack(control, x, y)).argmax(1) != y).double().mean())
        assert share == (0 if factor < 1 else 1)


def test_a_class_apart_is_named():
    planted = next(p for p in PLANTED if p.name == "leans to a class")
    outcome = MASKING["reported"](_faulty(planted))
    assert "class 0" in outcome.evidence
    assert outcome.severity == "low"
    plain = MASKING["reported"](stand_of(honest(), classes=3))
    assert "PGD (" in plain.evidence
    assert "steps 8" in plain.evidence
    assert "linf eps 0.03137" in plain.evidence


@dataclass(frozen=True, kw_only=True)
class Still:
    """An attack that is no attack."""

    norm: str = "linf"
    eps: float = 0.1

    def __call__(self, model, x, y, *, generator=None, ids=None):
        return x.clone()


def test_an_attack_that_does_nothing_is_found_out():
    stand = stand_of(honest(), attack=Still())
    for name in ("iterative", "plateau", "losses", "contract"):
        assert MASKING[name](stand).verdict == "failed", name


def test_nothing_is_run_twice_and_the_model_is_given_back(monkeypatch):
    net = honest()
    net.train()
    stand = stand_of(net, steps=3, queries=10)
    run_masking(stand)
    assert net.training
    net.eval()
    passes = stand.meter.passes
    for name in ("iterative", "monotone", "black_box", "plateau", "losses", "reported"):
        MASKING[name](stand)
    assert stand.meter.passes == passes


def test_probabilities_fail_whatever_the_attack_finds():
    outcome = MASKING["logits"](stand_of(Probabilities(honest())))
    assert outcome.verdict == "failed"
    assert "sum to 1" in outcome.evidence
