"""What every objective keeps, whichever files the folder holds."""

from __future__ import annotations

import dataclasses
import json
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from tests.nets import images, small_net
from tests.objectives.members import ATTACKED, HEADS, NAMES, build, problem, seeded
from torch import Tensor, nn

from diascope.objectives import Objective, objectives
from diascope.registry import to_settings
from diascope.training.meter import Clock, with_clock


def choices(name: str) -> list[tuple[str, str]]:
    """Return every value of every field that takes one of a few."""
    hints = get_type_hints(objectives[name])
    return [(f, v) for f, h in hints.items() if get_origin(h) is Literal for v in get_args(h)]


CHOICES = [(name, field, value) for name in NAMES for field, value in choices(name)]


@pytest.mark.parametrize("name", NAMES)
def test_descends_and_keeps_the_models_modes(name):
    model = small_net().train()
    model[1].eval()
    flags = [m.training for m in model.modules()]
    frozen = {key: value.clone() for key, value in model[1].named_buffers()}
    x, y, objective = images(12), torch.arange(12) % 3, build(name)
    assert isinstance(objective, Objective)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(15):
        optimiser.zero_grad()
        loss = objective(model, x, y, generator=seeded())
        assert loss.ndim == 0
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert [m.training for m in model.modules()] == flags
    for key, value in model[1].named_buffers():
        assert torch.equal(value, frozen[key])  # frozen batch-norm stays frozen
    assert model[4].num_batches_tracked == 15  # nothing but the loss moves the statistics


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", NAMES)
def test_takes_every_head_and_the_images_do_not_meet(name, head):
    """In eval mode a batch's loss is the mean of its parts', whatever they stood beside."""
    model, x, y = problem(head)
    ids, objective = torch.arange(6) + 40, build(name, {"name": "pgd", "steps": 2, "eps": 0.05})
    weight = torch.linspace(0.5, 2, max(2, HEADS[head])).double()

    def loss(rows: list[int]) -> Tensor:
        return objective(
            model, x[rows], y[rows], generator=seeded(), ids=ids[rows], class_weight=weight
        )

    whole, parts = loss([0, 1, 2, 3, 4, 5]), 2 * loss([4, 1]) + 4 * loss([5, 0, 2, 3])
    assert whole.isfinite()
    torch.testing.assert_close(whole, parts / 6)
    assert loss([0, 1]).item() == loss([0, 1]).item()


@pytest.mark.parametrize("name", NAMES)
def test_only_the_loss_goes_through_the_wrapper_and_once(name):
    class Wrapper(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self._forward_module = inner
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            assert not x.requires_grad
            return self._forward_module(x)

    model, x, y = problem("three classes")
    wrapper = Wrapper(model.train())
    loss = build(name)(wrapper, x, y, generator=seeded())
    again = build(name)(problem("three classes")[0].train(), x, y, generator=seeded())
    assert (wrapper.calls, loss.item()) == (1, again.item())


@pytest.mark.parametrize("name", ATTACKED)
def test_computes_the_same_under_a_clock(name):
    model, x, y = problem("three classes")
    objective, clock = build(name), Clock()
    timed = with_clock(objective, clock)
    assert timed.attack is not objective.attack
    assert timed(model, x, y, generator=seeded()) == objective(model, x, y, generator=seeded())
    assert clock.meter.attack > 0


@pytest.mark.parametrize("name", NAMES)
def test_runs_in_bfloat16_and_on_grey_images(name):
    x, y = images(4, channels=1).contiguous(memory_format=torch.channels_last), torch.arange(4) % 3
    model = small_net(channels=1).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = build(name)(model, x, y, generator=seeded())
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_settings_make_an_equal_member(name):
    for objective in [build(name), build(name, label_smoothing=0.25)]:
        settings = json.loads(json.dumps(to_settings(objective)))
        assert objectives.build(settings) == objective


@pytest.mark.parametrize(("name", "field", "value"), CHOICES)
def test_every_choice_is_taken_and_written_back(name, field, value):
    others = {"ranking": "absolute"} if field == "channels" else {}
    objective = build(name, **{**others, field: value})
    assert getattr(objective, field) == value
    assert objectives.build(to_settings(objective)) == objective
    model, x, y = problem("three classes", double=False)
    assert objective(model.train(), x, y, generator=seeded()).isfinite()


@pytest.mark.parametrize(("name", "field"), dict.fromkeys((n, f) for n, f, _ in CHOICES))
def test_another_choice_is_refused(name, field):
    with pytest.raises(ValueError, match=f"{field}='other': one of"):
        dataclasses.replace(build(name), **{field: "other"})
