"""`returns="best"`: the worst point for the model on the way, not the last."""

from __future__ import annotations

import pytest
import torch
from tests.nets import balanced_net, images
from torch import nn

from diascope.attacks import FGSM, MIFGSM, PGD
from diascope.attacks.base import verdict
from diascope.models.heads import cross_entropy


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Ridge(nn.Module):
    """Two classes; class 1 wins on a thin shell around `peak` only, which long steps cross."""

    def __init__(self, peak: float) -> None:
        super().__init__()
        self.peak = nn.Parameter(torch.tensor(peak))

    def forward(self, x):
        away = (x.flatten(1).mean(1) - self.peak).abs()
        return torch.stack([torch.zeros_like(away), 0.05 - away], 1)


@pytest.mark.parametrize("attack", [PGD, MIFGSM])
def test_a_broken_point_on_the_way_is_returned(attack):
    model, x, y = Ridge(0.6), torch.full((3, 1, 4, 4), 0.5), torch.zeros(3).long()
    settings = {"norm": "linf", "eps": 0.3, "steps": 4, "step_size": 0.1, "random_start": False}
    last, best = (
        attack(**settings, returns=returns)(model, x, y, generator=seeded())
        for returns in ("last", "best")
    )
    assert verdict(model, best, y).all()
    assert not verdict(model, last, y).any()


def test_the_last_point_and_the_start_count_too():
    model, y = Ridge(0.6), torch.zeros(1).long()
    at = lambda value: torch.full((1, 1, 4, 4), value)
    onto = FGSM(norm="linf", eps=0.1, returns="best")(model, at(0.5), y)
    torch.testing.assert_close(onto, at(0.6))
    beyond = FGSM(norm="linf", eps=0.3, returns="best")(model, at(0.58), y)
    torch.testing.assert_close(beyond, at(0.58))


@pytest.mark.parametrize("stop_early", [False, True])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_it_is_never_worse_than_the_last(norm, stop_early):
    model, x = balanced_net().double(), images(24).double()
    y = model(x).argmax(1)
    eps = {"linf": 0.005, "l2": 0.08, "l1": 1.0}[norm]
    settings = {"norm": norm, "eps": eps, "steps": 6, "rel_step_size": 1.5}
    found = {}
    for returns in ("last", "best"):
        attack = PGD(**settings, returns=returns, stop_early=stop_early, precision="float32")
        x_adv = attack(model, x, y, generator=seeded())
        found[returns] = verdict(model, x_adv, y), cross_entropy(model(x_adv), y)
    (broken, loss), (broken_best, loss_best) = found["last"], found["best"]
    assert (broken_best >= broken).all()
    standing = ~broken_best
    assert (loss_best >= loss - 1e-12)[standing].all()
    assert (loss_best > loss)[standing].any()


def test_divergence_has_a_best_point_without_labels():
    model, x = balanced_net().double(), images(8).double()
    attack = PGD(norm="linf", eps=0.05, steps=4, rel_step_size=2.0, loss="kl", returns="best")
    results = [attack(model, x, torch.full((8,), k), generator=seeded()) for k in (0, 2)]
    torch.testing.assert_close(*results, atol=0, rtol=0)


def test_costs_one_forward_more():
    calls = []

    class Counting(Ridge):
        def forward(self, x):
            calls.append(len(x))
            return super().forward(x)

    model, x, y = Counting(0.6), torch.full((3, 1, 4, 4), 0.5), torch.zeros(3).long()
    counts = []
    for returns in ("last", "best", "last", "best"):  # the first calls look at the model
        calls.clear()
        PGD(norm="linf", eps=0.3, steps=4, returns=returns)(model, x, y)
        counts.append(len(calls))
    assert counts[3] == counts[2] + 1
    with pytest.raises(ValueError, match="last, best"):
        PGD(returns="first")
