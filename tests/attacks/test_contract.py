"""What every attack promises, over the whole registry."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.nets import balanced_net, images, small_net
from torch import nn

from diascope.attacks import Attack, Threat, at_eps, attacks
from diascope.attacks.base import verdict
from diascope.errors import UserError
from diascope.models.heads import cross_entropy, predictions
from diascope.registry import to_settings

NORMS = ("linf", "l2", "l1")
MEMBERS = [(name, norm) for name in attacks.names() for norm in NORMS]
SMALL = {  # settings of the members whose defaults are too slow here
    "fab": {"steps": 10, "targets": 2},
    "square": {"queries": 60, "loss": "ce"},
    "apgd": {"steps": 20},
    "boundary": {"queries": 60},
    "autoattack": {"steps": 5, "targets": 2, "queries": 20},
}
NEAREST = ("boundary", "fab")  # minimum-norm attacks: nothing within eps, nothing changed
STOPPING = ("square", "autoattack")  # which always stop early
LABELS_ONLY = ("boundary",)  # must meet another class by chance to begin


def net_for(name: str, classes: int = 3) -> nn.Sequential:
    """Return a net on which the member has something to find: one that is not constant."""
    net = small_net(classes)
    if name in LABELS_ONLY:
        with torch.no_grad():
            net[-1].bias -= net(images(64)).mean(0)
    return net


def reach(name: str, eps: float) -> float:
    """Return an epsilon within which the member has something to find."""
    return 1e4 if name in NEAREST else eps


def build(name: str, norm: str, eps: float = 0.1, **settings: bool) -> Attack:
    return attacks.build(
        {"name": name, "norm": norm, "eps": eps, **SMALL.get(name, {}), **settings}
    )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(
    name=st.sampled_from(attacks.names()),
    norm=st.sampled_from(NORMS),
    eps=st.floats(0, 3),
    shape=st.tuples(
        st.integers(1, 4), st.sampled_from([1, 3]), st.integers(4, 9), st.integers(4, 9)
    ),
    seed=st.integers(0, 10_000),
    extreme=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_stays_in_ball_and_bounds(name, norm, eps, shape, seed, extreme):
    x = torch.rand(shape, generator=seeded(seed))
    x = x.round() if extreme else x  # black and white pixels stand on the bounds
    y = torch.randint(3, (shape[0],), generator=seeded(seed + 1))
    model = small_net(channels=shape[1], seed=seed % 7)
    x_adv = build(name, norm, eps)(model, x, y, generator=seeded(seed))
    assert x_adv.shape == x.shape
    assert x_adv.dtype == x.dtype
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert (Threat(norm, eps).size(x_adv - x) <= eps * (1 + 1e-5) + 1e-6).all()


@pytest.mark.parametrize(("name", "norm"), MEMBERS)
def test_raises_the_loss(name, norm):
    model, x = net_for(name), images(16)
    y = model(x).argmax(1)
    attack = build(name, norm, reach(name, 0.05 if norm == "linf" else 1.0))
    x_adv = attack(model, x, y, generator=seeded())
    before, after = cross_entropy(model(x), y), cross_entropy(model(x_adv), y)
    assert (after > before).float().mean() > 0.95


@pytest.mark.parametrize(("name", "norm"), MEMBERS)
def test_targeted_reaches_for_its_target(name, norm):
    model, x = net_for(name), images(16)
    target = (model(x).argmax(1) + 1) % 3
    attack = build(name, norm, reach(name, 0.5), targeted=True)
    after = cross_entropy(model(attack(model, x, target, generator=seeded())), target)
    assert (after < cross_entropy(model(x), target)).float().mean() > 0.95


@pytest.mark.parametrize(("name", "norm"), MEMBERS)
def test_does_not_depend_on_the_batch(name, norm):
    model, x, ids = small_net().double(), images(7).double(), torch.arange(7) * 10**12 + 3
    y = torch.arange(7) % 3
    attack = build(name, norm, 0.3)
    whole = attack(model, x, y, generator=seeded(), ids=ids)
    one_by_one = torch.cat(
        [
            attack(model, x[i : i + 1], y[i : i + 1], generator=seeded(), ids=ids[i : i + 1])
            for i in range(7)
        ]
    )
    order = torch.tensor([3, 1, 6, 0, 5, 2, 4])
    shuffled = attack(model, x[order], y[order], generator=seeded(), ids=ids[order])
    torch.testing.assert_close(one_by_one, whole, atol=1e-9, rtol=0)
    torch.testing.assert_close(shuffled, whole[order], atol=1e-9, rtol=0)


@pytest.mark.parametrize(("name", "norm"), MEMBERS)
def test_is_deterministic_in_the_generator(name, norm):
    model, x, y = small_net(), images(3), torch.arange(3)
    attack = build(name, norm)
    first = attack(model, x, y, generator=seeded(5))
    torch.testing.assert_close(attack(model, x, y, generator=seeded(5)), first, atol=0, rtol=0)
    torch.manual_seed(9)
    implicit = attack(model, x, y)
    torch.manual_seed(9)
    torch.testing.assert_close(attack(model, x, y), implicit, atol=0, rtol=0)


@pytest.mark.parametrize(("name", "norm"), MEMBERS)
def test_leaves_the_model_as_it_was(name, norm):
    model = small_net(dropout=0.5).train()
    model[1].eval()  # frozen for fine-tuning
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [m.training for m in model.modules()]
    build(name, norm)(model, images(4), torch.arange(4) % 3, generator=seeded())
    assert [m.training for m in model.modules()] == flags
    assert all((p.grad == 1).all() for p in model.parameters())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


HEADS = {"one logit": 1, "two": 2, "three": 3, "seven": 7, "ten": 10, "multi-label": 4}
GENEROUS = {"linf": 0.3, "l2": 5.0, "l1": 60.0}


@pytest.mark.parametrize(("name", "norm"), MEMBERS)
@pytest.mark.parametrize("head", HEADS)
def test_breaks_every_head(name, norm, head):
    model, x = balanced_net(HEADS[head]), images(12)
    logits = model(x).detach()
    y = (logits > 0).float() if head == "multi-label" else predictions(logits)
    assert not verdict(model, x, y).any()
    settings = {} if name in (*NEAREST, *STOPPING) else {"stop_early": True}
    eps = reach(name, GENEROUS[norm])
    x_adv = build(name, norm, eps, **settings)(model, x, y, generator=seeded())
    least = (
        0.8 if name in ("fgsm", "square") else 1.0
    )  # one step, 60 queries; all else: every image
    assert verdict(model, x_adv, y).float().mean() >= least


@pytest.mark.parametrize("classes", [1, 2, 3, 10])
def test_boundary_attack_needs_no_logits_about_zero(classes):
    model, x = balanced_net(classes), images(12)
    y = predictions(model(x))
    attack = build("boundary", "l2", 1e4)
    with torch.no_grad():
        before = attack(model, x, y, generator=seeded())
        if classes > 1:
            model[-1].bias += 50  # of all classes: the decisions stay
    after = attack(model, x, y, generator=seeded())
    assert verdict(model, after, y).float().mean() >= 0.9
    torch.testing.assert_close(after, before, atol=0.05, rtol=0)


@pytest.mark.parametrize(("name", "norm"), MEMBERS)
def test_survives_gradients_that_are_not_finite(name, norm):
    class Broken(nn.Module):
        def forward(self, x):
            total = x.flatten(1).sum(1, keepdim=True)
            return torch.cat([torch.sqrt(total - total), -total], 1)  # gradient 0 * inf

    x = images(3)
    x_adv = build(name, norm)(Broken(), x, torch.zeros(3).long(), generator=seeded())
    assert x_adv.isfinite().all()


@pytest.mark.parametrize(("name", "norm"), MEMBERS)
def test_refuses_images_outside_0_1(name, norm):
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        build(name, norm)(small_net(), images(2) * 255, torch.zeros(2).long())
    with pytest.raises(ValueError, match="float"):
        build(name, norm)(small_net(), torch.zeros(2, 3, 8, 8).byte(), torch.zeros(2).long())


@pytest.mark.parametrize("name", attacks.names())
@pytest.mark.parametrize(
    ("classes", "y", "match"),
    [
        (3, [0, 3], "run from 0 to 3; for this model of 3 outputs they must be from 0 to 2"),
        (3, [-1, 0], "from -1 to 0"),
        (1, [0, 2], "of 1 output they must be from 0 to 1"),
        (3, [0, 1, 2], "labels of shape .3,. for 2 images"),
        (3, [[0.0, 1.0], [1.0, 0.0]], r"must be \(B, 3\) from 0 to 1"),
        (2, [[0.0, 2.0], [1.0, 0.0]], "run from 0 to 2"),
        (2, 1, "labels of shape"),
    ],
)
def test_refuses_labels_that_the_model_does_not_have(name, classes, y, match):
    with pytest.raises(ValueError, match=match):
        build(name, "linf")(small_net(classes), images(2), torch.tensor(y), generator=seeded())


def test_labels_are_held_against_the_head_that_the_model_has_now():
    model, x = small_net(3), images(2)
    attack = build("pgd", "linf")
    attack(model, x, torch.tensor([0, 2]))
    model[-1] = nn.Linear(32, 7)
    attack(model, x, torch.tensor([0, 6]))
    with pytest.raises(ValueError, match="of 7 outputs"):
        attack(model, x, torch.tensor([0, 7]))


@pytest.mark.parametrize("name", attacks.names())
def test_refuses_images_of_a_kind_that_the_model_cannot_take(name):
    class Casting(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_net()

        def forward(self, x):
            return self.net(x.float())

    y = torch.arange(2)
    for model, x in ((small_net(), images(2).double()), (small_net().double(), images(2))):
        with pytest.raises(ValueError, match=r"the images are .* and the model's weights"):
            build(name, "linf")(model, x, y)
    build(name, "linf")(Casting(), images(2).double(), y, generator=seeded())


@pytest.mark.parametrize(("name", "norm"), MEMBERS)
def test_is_written_down_and_read_back(name, norm):
    attack = build(name, norm)
    assert attacks.build(to_settings(attack)) == attack
    assert hash(attacks.build(to_settings(attack))) == hash(attack)
    assert at_eps(attack, 0.7).eps == 0.7
    with pytest.raises(UserError, match="did you mean 'eps'"):
        attacks.build({"name": name, "epz": 1})


@pytest.mark.parametrize("name", attacks.names())
def test_a_precision_that_there_is_not_is_refused(name):
    if "precision" not in attacks[name].__dataclass_fields__:
        pytest.skip("it has none")
    with pytest.raises(ValueError, match="precision='fp16': one of auto, float32, bf16"):
        attacks[name](precision="fp16")


@pytest.mark.parametrize(("name", "norm"), MEMBERS)
def test_takes_an_epsilon_for_each_image(name, norm):
    model, x, ids = small_net().double(), images(3).double(), torch.arange(3)
    y, eps = torch.arange(3), torch.tensor([0.0, 0.1, 0.5], dtype=torch.float64)
    together = at_eps(build(name, norm), eps)(model, x, y, generator=seeded(), ids=ids)
    for i in range(3):
        alone = build(name, norm, float(eps[i]))(
            model, x[i : i + 1], y[i : i + 1], generator=seeded(), ids=ids[i : i + 1]
        )
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-9, rtol=0)
