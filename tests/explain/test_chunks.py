from __future__ import annotations

import gc
import weakref

import pytest
import torch
from tests.nets import images, small_net
from torch import Tensor, nn

from diascope.explain import chunks as module
from diascope.explain.chunks import chunks, row_bytes, rows_within
from diascope.models.frozen import frozen


class Counted(nn.Module):
    """Makes known tensors: y = x * x (kept for its gradient), then the mean of 2 * y + 1."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y = x * x
        return (2 * y + 1).flatten(1).mean(1, keepdim=True)


def test_the_bytes_of_a_row_are_those_of_its_live_tensors():
    x = images(2, side=32)
    size = x[0].numel() * 4
    # y, 2 * y, 2 * y + 1 live at once on the way forward; y is not needed for a gradient of x * x
    forward = row_bytes(Counted(), x, gradient=False)
    assert 2 * size <= forward <= 3 * size + 64
    both = row_bytes(Counted(), x, gradient=True)
    assert 2 * size <= both <= 4 * size + 64
    assert row_bytes(Counted(), x.double()) == pytest.approx(2 * both, rel=0.01)


def test_a_deeper_net_keeps_more_for_its_gradient():
    def deep(layers: int) -> nn.Module:
        return nn.Sequential(
            *(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Sigmoid()) for _ in range(layers)),
            nn.Flatten(),
        )

    x, size = images(1, side=32), 3 * 32 * 32 * 4
    kept = [row_bytes(deep(layers), x) for layers in (4, 8)]
    assert kept[1] - kept[0] >= 4 * size  # each layer keeps at least its output
    flat = [row_bytes(deep(layers), x, gradient=False) for layers in (4, 8)]
    assert flat[0] == flat[1]  # without a gradient they are let go


def test_the_rows_grow_with_the_budget_and_are_never_fewer_than_one(monkeypatch):
    monkeypatch.setattr(module, "CPU_BYTES", 2**40)
    model, x = small_net(), images(2)
    with frozen(model, x) as net:
        each = row_bytes(net, x)
        assert rows_within(net, x, 0) == rows_within(net, x, 1) == 1
        assert rows_within(net, x, 100 * each) == int(100 / module.MARGIN)
        assert rows_within(net, x, 100 * each, gradient=False) > int(100 / module.MARGIN)
        assert rows_within(net, x[:0], 100 * each) == 1


def test_on_a_cpu_more_rows_than_its_caches_gain_from_are_not_taken():
    model, x = small_net(), images(2)
    with frozen(model, x) as net:
        each = module.MARGIN * row_bytes(net, x)
        assert rows_within(net, x, 2**60) == int(module.CPU_BYTES / each)
        large = images(1, side=512).repeat(1, 1, 8, 1)
        assert rows_within(net, large, 2**60) == module.CPU_ROWS
        assert rows_within(net, large, int(2.5 * module.MARGIN * row_bytes(net, large))) == 2


def test_the_look_is_remembered_and_does_not_keep_the_model():
    model = Counted()
    for _ in range(3):
        rows_within(model, images(4), 2**20)
    assert model.calls == 1
    rows_within(model, images(4, side=8), 2**20)
    assert model.calls == 2
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


def test_the_look_leaves_no_trace():
    model, x = small_net().train(), images(2).requires_grad_(True)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    rows_within(model, x, 2**20)
    assert all(m.training for m in model.modules())
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    assert x.grad is None
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("rows", [1, 3, 7, 35, 100])
@pytest.mark.parametrize(("count", "steps"), [(7, 5), (1, 35), (35, 1), (0, 5)])
def test_chunks_hold_every_pair_once_and_are_full(count, steps, rows):
    cut = list(chunks(count, steps, rows))
    pairs = [pair for c in cut for pair in zip(c.image.tolist(), c.step.tolist(), strict=True)]
    assert pairs == [(i, s) for i in range(count) for s in range(steps)]
    assert all(len(c.image) == rows for c in cut[:-1])
    for c in cut:
        of_span = {row: i for i, span in c.spans for row in range(span.start, span.stop)}
        assert of_span == dict(enumerate(c.image.tolist()))


@pytest.mark.parametrize("rows", [1, 4, 100])
def test_values_of_pairs_add_up_by_image(rows):
    values = torch.arange(5 * 6 * 2.0).view(5, 6, 2)
    total = torch.zeros(5, 2)
    for chunk in chunks(5, 6, rows):
        chunk.add_to(total, values[chunk.image, chunk.step])
    assert torch.equal(total, values.sum(1))
