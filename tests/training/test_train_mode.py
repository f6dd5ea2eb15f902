from __future__ import annotations

from tests.nets import small_net
from torch import nn

from diascope.training.modes import train_mode


def test_frozen_batch_norm_stays_asleep() -> None:
    net = small_net(dropout=0.5)
    frozen, free = (m for m in net if isinstance(m, nn.BatchNorm2d))
    frozen.requires_grad_(False)
    train_mode(net)
    assert not frozen.training
    assert free.training
    assert all(m.training for m in net.modules() if m is not frozen)


def test_half_frozen_batch_norm_trains() -> None:
    net = small_net()
    norm = next(m for m in net if isinstance(m, nn.BatchNorm2d))
    norm.weight.requires_grad_(False)
    train_mode(net)
    assert norm.training
