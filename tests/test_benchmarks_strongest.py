"""What ever stronger attacks leave of a linear net, whose smallest perturbations are known."""

from __future__ import annotations

from argparse import Namespace

import pytest
import torch
from benchmarks import strongest
from tests.studies.exams import line, pixels_of

from diascope.attacks.base import verdict


def test_every_level_names_attacks_that_there_are():
    for norm in ("linf", "l2"):
        for classes in (2, 10):
            names = set(strongest.efforts(norm, classes))
            assert all(set(level) <= names for level in strongest.LEVELS.values())


def test_what_is_left_of_a_linear_net_is_what_lies_beyond_eps(monkeypatch):
    pixels, net = pixels_of(12), line(seed=1)
    x, y = pixels.x(), pixels.y()
    right = ~verdict(net, x, y, batch_size=12)
    x, y = x[right], y[right]
    with torch.no_grad():
        logits = net(x)
        margin = (logits.gather(1, y[:, None]) - logits.gather(1, 1 - y[:, None]))[:, 0]
    sizes = (margin / (net.weight[0] - net.weight[1]).detach().abs().sum()).sort().values
    eps = float(sizes[2:4].mean())  # between the third and the fourth
    few = {name: strongest.efforts("linf", 2)[name] for name in ("ce 20", "ratio 50", "fab 50")}
    monkeypatch.setattr(strongest, "efforts", lambda norm, classes: few)
    monkeypatch.setattr(strongest, "LEVELS", {"both": ("ce 20", "ratio 50")})
    args = Namespace(norm="linf", eps=eps, seed=0)
    found = strongest._left(net, x, y, torch.arange(len(x)), args)
    assert found == pytest.approx(dict.fromkeys([*few, "both", "all"], len(x) - 3))
