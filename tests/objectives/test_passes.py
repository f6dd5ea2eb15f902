"""What a step costs, counted; and the mode of each of its passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.nets import images, small_net
from tests.objectives.members import ATTACKED, NAMES, Brighter, build, seeded
from torch import Tensor, nn

from diascope.models import frozen
from diascope.objectives import SGA, Adversarial, SaliencyGuided
from diascope.randomness import Noise

PGD3 = {"name": "pgd", "steps": 3, "eps": 0.05}
IMAGES = 6


class Record(list[int]):
    """A list that a copy of the model writes to as well."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Record:
        return self


class Tally(nn.Module):
    """Passes images through, and counts them on the way forward and back."""

    def __init__(self) -> None:
        super().__init__()
        self.forwards, self.backwards, self.modes = Record(), Record(), Record()

    def forward(self, x: Tensor) -> Tensor:
        self.forwards.append(len(x))
        self.modes.append(self.training)
        return _Count.apply(x, self.backwards)  # type: ignore[no-untyped-call]


class _Count(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.counts.append(len(gradient))
        return gradient, None


def counted() -> tuple[nn.Module, Tally, Tally]:
    """A net in train mode with one tally at the image and one behind the first weights."""
    at_image, behind = Tally(), Tally()
    first, *rest = small_net()
    model = nn.Sequential(at_image, first, behind, *rest).train()
    SaliencyGuided()(model, images(2), torch.arange(2))  # a look at how the model runs, once
    for tally in (at_image, behind):
        for counts in (tally.forwards, tally.backwards, tally.modes):
            counts.clear()
    return model, at_image, behind


def units(objective: Any) -> float:
    """The cost of a step an image: forward 1, backward to the input 1, to the weights 2."""
    model, at_image, behind = counted()
    objective(model, images(IMAGES), torch.arange(IMAGES) % 3, generator=seeded()).backward()
    forwards, all_backwards = sum(behind.forwards), sum(behind.backwards)
    to_input = sum(at_image.backwards)
    return (forwards + to_input + 2 * (all_backwards - to_input)) / IMAGES


COSTS = [
    ("standard", "", {}, 3),
    ("adversarial", "fgsm", {}, 5),
    ("adversarial", "fgsm", {"mix": 1.0}, 8),
    ("adversarial", PGD3, {}, 9),
    ("saliency-guided", "", {}, 8),
    ("saliency-guided", "", {"lam": 0.0}, 3),
    ("sga", "fgsm", {}, 10),
    ("sga", PGD3, {}, 14),
    ("sga", "fgsm", {"k": 0.0}, 8),
    ("sga", "fgsm", {"k": 1.0}, 8),
    ("sga", "fgsm", {"lam": 0.0}, 3),
    ("asgt", "fgsm", {}, 13),
    ("asgt", PGD3, {}, 17),
    ("asgt", "fgsm", {"lam": 0.0}, 8),
    ("trades", PGD3, {}, 13),
    ("trades", PGD3, {"inner": "attack"}, 12),
    ("trades", PGD3, {"beta": 0.0}, 3),
]


@pytest.mark.parametrize(("name", "attack", "options", "cost"), COSTS)
def test_a_step_costs_what_its_docstring_says(name, attack, options, cost):
    assert units(build(name, attack, **options)) == cost
    if name != "standard":
        assert units(build(name, attack, **options, joint=False)) == cost


def test_every_objectives_cost_is_counted():
    assert {name for name, *_ in COSTS} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_search_is_in_eval_mode_and_the_loss_in_the_models_own(name):
    model, at_image, behind = counted()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    build(name)(model, images(IMAGES), torch.arange(IMAGES) % 3, generator=seeded())
    assert at_image.modes == behind.modes
    assert at_image.modes[-1] is True
    assert not any(at_image.modes[:-1])
    assert (len(at_image.modes) == 1) == (name == "standard")
    tracked = [key for key in before if key.endswith("num_batches_tracked")]
    assert all(model.state_dict()[key] == before[key] + 1 for key in tracked)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "standard"])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_search_leaves_the_running_statistics(name, mode):
    """After the step they are those of a step whose search was done by hand in advance."""
    model, x, y = small_net().train(), images(IMAGES), torch.arange(IMAGES) % 3
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    before = {key: value.clone() for key, value in model.named_buffers()}
    build(name, search_mode=mode)(model, x, y, generator=seeded())
    again = small_net().train()
    again(seen[-1])
    assert len(seen) > 1
    for key, value in again.named_buffers():
        assert torch.equal(dict(model.named_buffers())[key], value)
        assert not torch.equal(value, before[key])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "standard"])
def test_search_mode_is_seen_in_train_mode_alone(name):
    x, y = images(IMAGES), torch.arange(IMAGES) % 3

    def loss(train: bool, mode: str) -> float:
        # a mean far from the images', so that the batch's statistics are other ones
        model = small_net()
        model[1].running_mean += 0.5
        objective = build(name, search_mode=mode, **precise(name))
        return objective(model.train(train), x, y, generator=seeded()).item()

    assert loss(True, "eval") != loss(True, "train")
    assert loss(False, "eval") == pytest.approx(loss(False, "train"), abs=1e-6)


@pytest.mark.parametrize("name", ["sga", "asgt", "trades", "saliency-guided"])
def test_one_joint_forward_or_several(name):
    x, y = images(IMAGES), torch.arange(IMAGES) % 3
    losses, tracked = {}, {}
    for train in (True, False):
        for joint in (True, False):
            model = small_net().train(train)
            objective = build(name, joint=joint, **precise(name))
            losses[train, joint] = objective(model, x, y, generator=seeded()).item()
            tracked[train, joint] = int(model[1].num_batches_tracked)
    branches = 3 if name == "asgt" else 2
    assert tracked == {
        (True, True): 1,
        (True, False): branches,
        (False, True): 0,
        (False, False): 0,
    }
    assert losses[False, True] == pytest.approx(losses[False, False], abs=1e-6)
    assert losses[True, True] != pytest.approx(losses[True, False], abs=1e-5)


def test_mixed_adversarial_branches_share_a_forward_unless_told_otherwise():
    model, x, y = small_net().train(), images(IMAGES), torch.arange(IMAGES) % 3
    for joint, count in ((True, 1), (False, 3)):
        Adversarial(attack=build("adversarial").attack, mix=1.0, joint=joint)(model, x, y)
        assert model[1].num_batches_tracked == count


def precise(name: str) -> dict[str, Any]:
    """The options with which no gradient is rough, whatever the hardware gains from."""
    options: dict[str, Any] = {"attack": {"name": "fgsm", "eps": 0.05, "precision": "float32"}}
    if "guided" in name or name in ("sga", "asgt"):
        options["precision"] = "float32"
    return options


@pytest.mark.parametrize("where", ["ranking", "attack"])
def test_bfloat16_is_refused_where_it_would_not_be_used(where):
    attack = {"name": "fgsm", "precision": "bf16" if where == "attack" else "auto"}
    options = {"precision": "bf16"} if where == "ranking" else {}
    with pytest.raises(Exception, match="must not be bf16"):
        build("sga", attack, search_mode="train", **options)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_ranking_and_with_it_the_attack_have_the_precision_asked_for(precision):
    seen = []

    class Spy(Brighter):
        def __call__(self, model: nn.Module, *args: Any, **options: Any) -> Tensor:
            seen.append(model.precision)
            return super().__call__(model, *args, **options)

    SGA(attack=Spy(), precision=precision)(small_net(), images(2), torch.arange(2))
    assert seen == [precision]


@pytest.mark.parametrize("name", ATTACKED)
def test_one_frozen_model_serves_ranking_and_attack(name, monkeypatch):
    """Freezing costs as much as a step of a small model: it is done once."""
    model, x, y = small_net().train(), images(IMAGES), torch.arange(IMAGES) % 3
    prepared, made = frozen._prepared, []
    monkeypatch.setattr(frozen, "_prepared", lambda *a: made.append(1) or prepared(*a))
    build(name)(model, x, y, generator=seeded())
    assert len(made) == 1


def test_ranking_and_attack_draw_from_streams_of_their_own(monkeypatch):
    """The fill's seed is drawn before the attack's; both come from the generator given."""
    seeds, original = [], Noise.__init__
    monkeypatch.setattr(
        Noise, "__init__", lambda self, seed, ids: seeds.append(seed) or original(self, seed, ids)
    )
    attack = build("adversarial", {"name": "pgd", "steps": 1, "eps": 0.1}).attack
    for _ in range(2):
        SGA(attack=attack)(small_net(), images(2), torch.arange(2), generator=seeded())
    assert seeds[:2] == seeds[2:]
    assert seeds[0] != seeds[1]
