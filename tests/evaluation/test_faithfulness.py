"""Insertion, deletion, ROAD and infidelity, on models whose answer is known."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from tests.nets import Linear, images, small_net
from torch import nn

from diascope.evaluation.measures import MEASURES, members
from diascope.evaluation.measures.faithfulness import content_ids, noise_of, ranks
from diascope.evaluation.measures.infidelity import Infidelity
from diascope.evaluation.measures.insertion import Deletion, Insertion, filled_in
from diascope.evaluation.measures.road import ROAD
from diascope.models.modes import evaluating
from diascope.registry import to_settings

FAMILY = members("faithfulness")
each = pytest.mark.parametrize("measure", FAMILY.values(), ids=FAMILY)
ordered = pytest.mark.parametrize("name", ["insertion", "deletion", "road"])


def window(side=16, top=3, left=8, size=5):
    """Where the pixels are that the model `looks_at` looks at, (H, W) bool."""
    inside = torch.zeros(side, side, dtype=torch.bool)
    inside[top : top + size, left : left + size] = True
    return inside


def looks_at(inside, gain=40.0, channels=3):
    """A model whose class 1 is likelier the brighter the pixels inside, and that sees no other."""
    weight = torch.zeros(2, channels, *inside.shape)
    weight[1, :, inside] = gain / (channels * inside.sum())
    return Linear(weight, torch.tensor([gain / 2, 0.0]))


def bright(count=4, inside=None):
    """Images that are brighter inside."""
    inside = window() if inside is None else inside
    return 0.4 * images(count) + 0.5 * inside


def truth(count=4):
    """A map that falls within the window, and is nothing outside."""
    g = torch.Generator().manual_seed(5)
    return window().float() * (0.5 + 0.5 * torch.rand(count, 16, 16, generator=g))


@each
def test_a_true_map_is_better_than_a_random_one_than_a_false_one(measure):
    x, model = bright(), looks_at(window())
    chance = torch.rand(4, 16, 16, generator=torch.Generator().manual_seed(1))
    maps = (truth(), chance, (~window()).float() * (0.1 + chance))
    values = torch.stack([measure(model, x, 1, heat) for heat in maps])
    if not measure.higher_is_better:
        values = -values
    assert (values[0] > values[1]).all()
    assert (values[1] > values[2]).all()


@each
def test_values_lie_within_the_limits_and_are_one_an_image(measure):
    low, high = measure.limits
    heat = torch.rand(5, 16, 16, generator=torch.Generator().manual_seed(2))
    values = measure(small_net(), images(5), torch.tensor([0, 1, 2, 0, 1]), heat)
    assert values.dtype == torch.float32
    assert values.shape == (5,)
    assert ((values >= low) & (values <= high)).all()


@each
def test_an_image_is_measured_by_itself(measure):
    heat = torch.rand(5, 16, 16, generator=torch.Generator().manual_seed(2)).round(decimals=1)
    net, x, target = small_net(), images(5), torch.tensor([0, 1, 2, 0, 1])
    whole = measure(net, x, target, heat)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(measure(net, x[order], target[order], heat[order]), whole[order])
    alone = torch.cat(
        [measure(net, x[i : i + 1], target[i : i + 1], heat[i : i + 1]) for i in order]
    )
    torch.testing.assert_close(alone, whole[order])
    small = replace(measure, memory=1)
    torch.testing.assert_close(small(net, x, target, heat), whole)


@each
def test_random_numbers_belong_to_the_id_and_the_seed(measure):
    heat, net, x = torch.rand(1, 16, 16).round(decimals=1).repeat(3, 1, 1), small_net(), images(1)
    x = x.repeat(3, 1, 1, 1)
    values = measure(net, x, 0, heat, ids=torch.tensor([7, 8, 7]))
    assert values[0] == values[2]
    assert values[0] != values[1]
    again = replace(measure, seed=1)(net, x, 0, heat, ids=torch.tensor([7, 8, 7]))
    assert (again != values).all()
    without = measure(net, x, 0, heat)
    assert without.unique().numel() == 1  # the same pixels have the same numbers


@each
def test_what_is_not_defined(measure):
    heat = torch.rand(5, 16, 16, generator=torch.Generator().manual_seed(2))
    heat[1, 2, 2], heat[2, 3, 3] = torch.nan, torch.inf
    x = images(5)
    x[3, 0, 0, 0] = torch.nan
    values = measure(small_net(), x, 1, heat)
    assert values.isnan().tolist() == [False, True, True, True, False]
    assert measure(small_net(), x[:0], 1, heat[:0]).shape == (0,)


@ordered
def test_a_map_that_is_the_same_everywhere_has_no_order(name):
    heat = torch.rand(3, 16, 16)
    heat[0], heat[1] = 0.0, 0.7
    values = FAMILY[name](small_net(), images(3), 1, heat)
    assert values.isnan().tolist() == [True, True, False]


@each
def test_wrong_input_is_refused(measure):
    x, heat = images(2), torch.rand(2, 16, 16)
    with pytest.raises(ValueError, match="expected"):
        measure(small_net(), x, 1, heat[:, :8])
    with pytest.raises(ValueError, match="classes 0 to 2"):
        measure(small_net(), x, 3, heat)
    if not isinstance(measure, Infidelity):
        with pytest.raises(ValueError, match="negative"):
            measure(small_net(), x, 1, heat - 0.5)


@each
def test_the_model_and_the_input_are_left_alone(measure):
    net, x, heat = small_net(dropout=0.5).train(), images(2), torch.rand(2, 16, 16)
    before, shown, state = (
        x.clone(),
        heat.clone(),
        {k: v.clone() for k, v in net.state_dict().items()},
    )
    first = measure(net, x.requires_grad_(), 1, heat.requires_grad_())
    assert not first.requires_grad
    assert net.training
    assert torch.equal(x, before)
    assert torch.equal(heat, shown)
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    with evaluating(net):
        torch.testing.assert_close(measure(net, x, 1, heat), first)


@each
def test_models_and_images_in_double_precision(measure):
    net, x, heat = small_net(), images(2), torch.rand(2, 16, 16)
    expected = measure(net, x, 1, heat)
    found = measure(net.double(), x.double(), 1, heat.double())
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@each
def test_single_logit_models_count_against_class_0(measure):
    x, heat = bright(2), truth(2)
    two = looks_at(window())
    one = Linear(two.weight[1:] - two.weight[:1], two.bias[1:] - two.bias[:1])
    for target in (0, 1):
        found = measure(one, x, target, heat)
        if isinstance(measure, Infidelity):
            measure = replace(measure, of="log_softmax")
            found = measure(one, x, target, heat)
        torch.testing.assert_close(found, measure(two, x, target, heat), rtol=1e-4, atol=1e-5)


def test_mistakes_in_the_settings():
    for settings, words in (
        ({"name": "insertion", "steps": 0}, "steps"),
        ({"name": "deletion", "fill": "white"}, "fill"),
        ({"name": "insertion", "blur": 0.0}, "blur"),
        ({"name": "road", "shares": [0.5, 0.2]}, "rise"),
        ({"name": "road", "shares": [0.5, 1.0]}, "rise"),
        ({"name": "road", "of": "logit"}, "of"),
        ({"name": "road", "noise": -1.0}, "noise"),
        ({"name": "infidelity", "samples": 0}, "samples"),
        ({"name": "infidelity", "size": 0.0}, "size"),
    ):
        with pytest.raises(Exception, match=words):
            MEASURES.build(settings)
    measure = ROAD(shares=(0.1, 0.5), of="accuracy")
    assert MEASURES.build(to_settings(measure)) == measure


def test_ranks_fall_with_the_heat_and_ties_are_random_and_each_images_own():
    g = torch.Generator().manual_seed(0)
    heat = torch.randint(0, 4, (3, 9, 7), generator=g) / 3
    heat[:, 0, 0] = -0.0 + heat[:, 0, 0]
    heat[1], x = heat[0], images(3)
    found = ranks(heat, noise_of(x, 0, "test"))
    for one, rank in zip(heat, found, strict=True):
        assert rank.flatten().sort().values.tolist() == list(range(63))
        falling = one.flatten()[rank.flatten().argsort()]
        assert (falling.diff() <= 0).all()
    assert not torch.equal(found[0], found[1])
    zero = torch.zeros(1, 60, 60)
    place = ranks(zero, noise_of(x[:1], 0, "test"))[0].double()
    raster = torch.arange(3600.0).view(60, 60).double()
    shuffled = torch.corrcoef(torch.stack([place.flatten(), raster.flatten()]))[0, 1]
    assert abs(shuffled) < 0.1  # the raster order would be 1


def test_ids_of_the_content_tell_images_apart():
    x = images(50, side=4)
    assert content_ids(x).unique().numel() == 50
    changed = x.clone()
    changed[:, 1, 2, 3] += 1e-6
    assert (content_ids(changed) != content_ids(x)).all()
    assert torch.equal(content_ids(x[:, :, ::2].contiguous()), content_ids(x[:, :, ::2]))


class Count(nn.Module):
    """Class 1 has the share of white pixels as its probability."""

    def forward(self, x):
        share = (x > 0.5).float().mean((1, 2, 3)).clamp(1e-6, 1 - 1e-6)
        return torch.stack([torch.zeros_like(share), (share / (1 - share)).log()], 1)


def test_curves_by_hand():
    """All white: each pixel that goes takes the same; so the curve is a straight line."""
    x, heat = torch.ones(2, 3, 8, 8), torch.rand(2, 8, 8)
    curve = Deletion(steps=8, fill="black").curve(Count(), x, 1, heat)
    torch.testing.assert_close(curve, torch.linspace(1, 0, 9).expand(2, -1), atol=1e-5, rtol=0)
    area = Deletion(steps=8, fill="black")(Count(), x, 1, heat)
    torch.testing.assert_close(area, torch.full((2,), 0.5), atol=1e-5, rtol=0)
    half = torch.ones(1, 3, 8, 8)
    half[:, :, :4] = 0
    hot = torch.ones(1, 8, 8)
    hot[:, 4:] = 2
    falls = Deletion(steps=4, fill="black").curve(Count(), half, 1, hot)
    torch.testing.assert_close(falls, torch.tensor([[0.5, 0.25, 0, 0, 0]]), atol=1e-5, rtol=0)
    rises = Insertion(steps=4, fill="black")
    torch.testing.assert_close(
        rises.curve(Count(), half, 1, hot),
        torch.tensor([[0, 0.25, 0.5, 0.5, 0.5]]),
        atol=1e-5,
        rtol=0,
    )
    expected = (0.125 + 0.375 + 0.5 + 0.5) / 4
    assert rises(Count(), half, 1, hot).item() == pytest.approx(expected, abs=1e-5)


def test_shares_are_those_of_the_pixels_when_they_do_not_divide():
    measure = Deletion(steps=7, fill="black")
    x, heat = torch.ones(1, 1, 5, 5), torch.rand(1, 5, 5)
    curve = measure.curve(Count(), x, 1, heat)[0]
    torch.testing.assert_close(curve, 1 - measure.shares(25), atol=1e-5, rtol=0)
    assert measure.shares(25)[0] == 0
    assert measure.shares(25)[-1] == 1


def test_ends_of_the_curves_are_the_image_and_the_fill():
    net, x, heat = small_net(), images(3), torch.rand(3, 16, 16)
    for fill in ("mean", "black", "blurred"):
        empty = net(filled_in(x, fill, 3.0)).softmax(1)[:, 2]
        image = net(x).softmax(1)[:, 2]
        gone = Deletion(fill=fill, blur=3.0, steps=3).curve(net, x, 2, heat)
        come = Insertion(fill=fill, blur=3.0, steps=3).curve(net, x, 2, heat)
        for curve in (gone, come.flip(1)):
            torch.testing.assert_close(curve[:, 0], image, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(curve[:, -1], empty, atol=1e-5, rtol=1e-4)


def test_fills():
    x = images(2)
    assert filled_in(x, "black", 1.0).abs().max() == 0
    mean = filled_in(x, "mean", 1.0)
    torch.testing.assert_close(mean[1, 2], x[1, 2].mean().expand(16, 16))
    soft = filled_in(x, "blurred", 2.0)
    assert soft.std() < 0.5 * x.std()


def test_road_by_hand():
    """A window of ones on black: without it the model sees the black around it, else all."""
    inside = window()
    x = inside.float().expand(1, 3, 16, 16).clone()
    model, heat = looks_at(inside), inside[None].float() + 0.01
    share = inside.float().mean().item()  # the window and nothing else
    curve = ROAD(shares=(share,), noise=0.0).curve(model, x, 1, heat)[0]
    low, high = (1 / (1 + math.exp(-logit)) for logit in (-20.0, 20.0))
    assert curve[0, 0].item() == pytest.approx(low, abs=1e-3)
    assert curve[1, 0].item() == pytest.approx(high, abs=1e-3)
    assert ROAD(shares=(share,), noise=0.0)(model, x, 1, heat).item() == pytest.approx(1, abs=1e-3)
    assert ROAD(shares=(share,), of="accuracy")(model, x, 1, heat).item() == 1.0
    assert ROAD(shares=(share,), of="accuracy")(model, x, 1, heat.max() - heat).item() <= 0.0


def test_road_turns_its_sign_with_the_order_of_the_map():
    g = torch.Generator().manual_seed(3)
    heat, net, x = torch.rand(4, 16, 16, generator=g), small_net(), images(4)
    measure = ROAD(noise=0.0, tolerance=1e-7)
    there, back = measure(net, x, 0, heat), measure(net, x, 0, 1 - heat)
    torch.testing.assert_close(there, -back, atol=2e-4, rtol=0)


class Keeps(nn.Module):
    """Remembers what it was shown, and its copies too."""

    seen: ClassVar[list] = []

    def forward(self, x):
        self.seen.append(x.clone())
        return torch.zeros(len(x), 2) + x.mean((1, 2, 3))[:, None]


def test_road_adds_noise_of_its_size_to_the_removed_pixels_alone():
    x, heat, model = torch.full((2, 3, 32, 32), 0.5), torch.rand(2, 32, 32), Keeps()
    x[1] = 0.25
    model.seen.clear()
    ROAD(shares=(0.5,), noise=0.02)(model, x, 1, heat)
    shown = [seen for seen in model.seen if len(seen) == 2 and not torch.equal(seen, x)]
    hottest, coldest = shown[-2:]
    for seen, hot in ((hottest, True), (coldest, False)):
        change = seen - x
        cut = heat.flatten(1).median(1).values[:, None, None]
        removed = heat > cut if hot else heat <= cut
        kept = ~removed[:, None].expand_as(change)
        assert (change[kept] != 0).float().mean() < 0.01
        assert change[~kept].std().item() == pytest.approx(0.02, rel=0.1)
        assert abs(change[~kept].mean().item()) < 0.002
    noise = (hottest - x)[:, :, heat[0] > heat[0].median()]
    assert abs(torch.corrcoef(noise[0])[0, 1]) < 0.2  # channels have their own


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_road_equals_grad_cams():
    road = pytest.importorskip("pytorch_grad_cam.metrics.road")
    net, x, heat = small_net(), images(2, side=24), torch.rand(2, 24, 24)
    ours = ROAD(shares=(0.2, 0.5, 0.8), noise=0.0, tolerance=1e-7).curve(net, x, 1, heat)
    for number, share in enumerate((0.2, 0.5, 0.8)):
        for i in range(2):
            cut = heat[i].flatten().sort(descending=True).values[round(share * 576) - 1]
            low = heat[i].flatten().sort().values[round(share * 576) - 1]
            for side, removed in enumerate((heat[i] >= cut, heat[i] <= low)):
                filled = road.NoisyLinearImputer(noise=0.0)(x[i], (~removed).float())
                expected = net(filled[None]).softmax(1)[0, 1]
                torch.testing.assert_close(ours[i, side, number], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("perturbation", ["square", "gaussian"])
@pytest.mark.parametrize("scaled", [True, False])
def test_infidelity_equals_captums(perturbation, scaled):
    metrics = pytest.importorskip("captum.metrics")
    net, x = small_net(), images(3)
    target = torch.tensor([0, 2, 1])
    signed = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    measure = Infidelity(samples=6, perturbation=perturbation, scaled=scaled)
    ours = measure(net, x, target, signed)
    noise = noise_of(x, 0, "infidelity")
    draws = [
        measure.perturbations(x, replace(noise, ids=noise.ids * 7 + step)) for step in range(6)
    ]
    changes = torch.stack(draws, 1).flatten(0, 1)  # captum repeats image by image

    def perturb(inputs):
        return changes, inputs - changes

    theirs = metrics.infidelity(
        net, perturb, x, signed, target=target, n_perturb_samples=6, normalize=scaled
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("perturbation", ["square", "gaussian"])
def test_infidelity_of_the_gradient_of_a_linear_model_is_zero(perturbation):
    model, x = looks_at(window()), images(3)
    exact = model.weight[1].detach().expand(3, -1, -1, -1)
    measure = Infidelity(perturbation=perturbation, scaled=False)
    assert measure(model, x, 1, exact).max() < 1e-8
    assert measure(model, x, 1, 2 * exact).min() > 1e-3
    scaled = replace(measure, scaled=True)
    assert scaled(model, x, 1, -7 * exact).max() < 1e-8
    grey = window().float().expand(3, -1, -1)  # one value for all channels
    assert scaled(model, x, 1, grey).max() < 1e-8
    torch.testing.assert_close(scaled(model, x, 1, grey), scaled(model, x, 1, grey[:, None]))


def test_relative_infidelity_of_a_map_of_zeros_is_one():
    measure = Infidelity(relative=True)
    zero = torch.zeros(3, 16, 16)
    torch.testing.assert_close(measure(small_net(), images(3), 1, zero), torch.ones(3))
    assert measure(small_net(), torch.full((1, 3, 16, 16), 0.5), 1, zero[:1]).isnan().all()
    some = measure(small_net(), images(3), 1, torch.rand(3, 16, 16))
    assert ((some > 0) & (some <= 1)).all()


def test_squares_lie_everywhere_and_replace_by_the_mean():
    x = images(1).repeat(2000, 1, 1, 1)
    measure = Infidelity(size=0.25)
    change = measure.perturbations(x, noise_of(x, 0, "test", torch.arange(2000)))
    inside = (change != 0).any(1)
    assert (inside.flatten(1).sum(1) == 16).all()
    assert inside.any(0).all()
    left = x - change
    mean = x.mean((2, 3))[:, :, None, None].expand_as(x)
    mask = inside[:, None].expand_as(x)
    torch.testing.assert_close(left[mask], mean[mask])
    wide = Infidelity(size=1.0).perturbations(images(2, side=8), noise_of(images(2), 0, "test"))
    assert (wide != 0).all()
