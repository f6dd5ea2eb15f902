from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from tests.nets import Linear, images, small_net

from diascope.attacks import PGD
from diascope.evaluation.measures.agreement import Spearman, Ssim
from diascope.evaluation.stability import (
    agreement_table,
    attack_stability,
    max_sensitivity,
    model_stability,
    noise_stability,
)
from diascope.explain import Gradient, SmoothGrad


@dataclass(frozen=True, kw_only=True)
class Itself:
    """The image as its own map, of either sign."""

    rectification: ClassVar[str] = "absolute"

    def __call__(self, model, x, target, *, generator=None, ids=None):
        return x.clone()


@dataclass(frozen=True, kw_only=True)
class Dice(Itself):
    """A map of random numbers, which belong to (generator, ids)."""

    def __call__(self, model, x, target, *, generator=None, ids=None):
        return torch.rand(x.shape, generator=generator)


def linear():
    weight = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return Linear(weight)


def test_a_map_that_does_not_move_is_stable():
    """The gradient of a linear model is the same everywhere."""
    x = images(4)
    table = noise_stability(Gradient(precision="float32"), linear(), x, 1)
    assert set(table) >= {"ssim", "ssim_worst", "spearman", "spearman_worst"}
    for column in table.values():
        np.testing.assert_allclose(column, 1.0, atol=1e-5)
    sensitivity = max_sensitivity(Gradient(precision="float32"), linear(), x, 1)
    torch.testing.assert_close(sensitivity, torch.zeros(4), atol=1e-6, rtol=0)


def test_more_noise_less_stable_and_the_worst_is_below_the_mean():
    x = images(4)
    little, much = (noise_stability(Itself(), linear(), x, 1, noise=n) for n in (0.02, 0.5))
    for name in ("ssim", "spearman"):
        assert (little[name] > much[name]).all()
        assert (much[name + "_worst"] < much[name]).all()


def test_noise_is_normal_of_its_size_and_stays_in_the_image():
    seen = []

    @dataclass(frozen=True, kw_only=True)
    class Watch(Itself):
        def __call__(self, model, x, target, *, generator=None, ids=None):
            seen.append(x.clone())
            return x.clone()

    x = torch.full((2, 3, 32, 32), 0.5)
    x[:, :, :4] = 1.0
    noise_stability(Watch(), linear(), x, 1, noise=0.05, draws=3)
    first, *noisy = seen
    assert torch.equal(first, x)
    assert len(noisy) == 3
    for each in noisy:
        assert each.max() <= 1
        assert (each - x)[:, :, 4:].std().item() == pytest.approx(0.05, rel=0.1)
    assert not torch.equal(noisy[0], noisy[1])


@pytest.mark.parametrize("measure", [noise_stability, max_sensitivity])
def test_an_image_is_measured_by_itself(measure):
    net, x = small_net(), images(4)
    explainer = Gradient(precision="float32")

    def values(rows, ids=None):
        found = measure(explainer, net, x[rows], 1, ids=ids)
        return found.numpy() if isinstance(found, torch.Tensor) else found["spearman"]

    whole = values([0, 1, 2, 3])
    np.testing.assert_allclose(values([2, 0]), whole[[2, 0]], rtol=1e-4)
    named = values([0, 0, 0], torch.tensor([5, 6, 5]))
    assert named[0] == pytest.approx(named[2], rel=1e-5)
    assert named[0] != named[1]


def test_the_explainers_own_noise_is_the_same_in_all_maps():
    x = images(3)
    for table in (
        noise_stability(Dice(), linear(), x, 1),
        model_stability(Dice(), {"a": linear(), "b": small_net(2)}, x, 1),
        attack_stability(Dice(), linear(), x, 1, x + 0.1),
    ):
        for column in table.values():
            np.testing.assert_allclose(column, 1.0, atol=1e-5)
    assert max_sensitivity(Dice(), linear(), x, 1).max() == 0
    smooth = SmoothGrad(samples=3, noise=0.5, precision="float32")
    assert max_sensitivity(smooth, linear(), x, 1).max() < 1e-5


def test_models_are_compared_in_pairs():
    x, explainer = images(4), Gradient(precision="float32")
    models = {"a": small_net(seed=0), "b": small_net(seed=1), "twin": small_net(seed=0)}
    measures = {"spearman": Spearman(), "ssim": Ssim()}
    table = model_stability(explainer, models, x, 1, measures=measures)
    pairs = ["a_b", "a_twin", "b_twin"]
    assert list(table) == [
        f"{name}{pair}" for name in ("spearman", "ssim") for pair in ("", *("_" + p for p in pairs))
    ]
    np.testing.assert_allclose(table["spearman_a_twin"], 1.0, atol=1e-5)
    assert (table["spearman_a_b"] < 0.9).all()
    np.testing.assert_allclose(table["spearman_a_b"], table["spearman_b_twin"], atol=1e-5)
    mean = sum(table[f"spearman_{pair}"] for pair in pairs) / 3
    np.testing.assert_allclose(table["spearman"], mean, atol=1e-6)
    with pytest.raises(ValueError, match="at least two"):
        model_stability(explainer, {"a": models["a"]}, x, 1)


def test_clean_against_attacked():
    net, x = small_net(), images(4)
    y = net(x).argmax(1)
    explainer = Gradient(precision="float32")
    same = attack_stability(explainer, net, x, y, x.clone())
    np.testing.assert_allclose(same["spearman"], 1.0, atol=1e-5)
    attack = PGD(norm="linf", eps=0.1, steps=3, precision="float32")
    by_attack = attack_stability(explainer, net, x, y, attack)
    assert (by_attack["spearman"] < 0.999).all()
    again = attack_stability(explainer, net, x, y, attack, y=y)
    np.testing.assert_array_equal(by_attack["ssim"], again["ssim"])
    other = attack_stability(explainer, net, x, (y + 1) % 3, attack, y=y)
    assert not np.array_equal(other["ssim"], again["ssim"])
    with pytest.raises(ValueError, match="do not pair"):
        attack_stability(explainer, net, x, y, x[:2])


def test_a_map_that_turns_over_has_a_negative_agreement():
    x = images(2)
    table = attack_stability(Itself(), linear(), x, 1, 1 - x)
    np.testing.assert_allclose(table["spearman"], -1.0, atol=0.3)


def test_undefined_maps():
    x = images(3)
    x[1] = 0.5
    table = agreement_table(x.sum(1), images(3, seed=1).sum(1))
    for column in table.values():
        assert np.isnan(column).tolist() == [False, True, False]
    zero = torch.zeros(2, 3, 16, 16)
    assert max_sensitivity(Itself(), linear(), zero, 1).isnan().all()


def test_max_sensitivity_by_hand():
    """Of the image itself: the largest length of the noise over that of the image."""
    x = torch.full((1, 1, 40, 40), 0.5)
    model = Linear(torch.ones(2, 1, 40, 40))
    found = max_sensitivity(Itself(), model, x, 1, radius=0.1)
    assert found.item() == pytest.approx(0.1 / 3**0.5 / 0.5, rel=0.05)
    more = max_sensitivity(Itself(), model, x, 1, radius=0.1, draws=60)
    assert found.item() <= more.item() < 0.12


def test_max_sensitivity_equals_captums():
    metrics = pytest.importorskip("captum.metrics")
    from diascope.evaluation.measures.faithfulness import noise_of

    net, x, target = small_net(), images(3), torch.tensor([0, 1, 2])
    explainer = Gradient(precision="float32")
    ours = max_sensitivity(explainer, net, x, target, draws=4)
    noise = noise_of(x, 0, "max_sensitivity")
    moves = torch.stack([noise.uniform(x.shape[1:], k) for k in range(4)], 1) * 0.04 - 0.02

    def explained(inputs, target):
        inputs = inputs[0] if isinstance(inputs, tuple) else inputs
        return (explainer(net, inputs, target),)

    theirs = metrics.sensitivity_max(
        explained,
        x,
        perturb_func=lambda inputs: inputs + moves.flatten(0, 1),
        n_perturb_samples=4,
        target=target,
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_settings_are_checked():
    for options in ({"draws": 0}, {"noise": 0.0}):
        with pytest.raises(ValueError, match="draws"):
            noise_stability(Itself(), linear(), images(1), 1, **options)
    with pytest.raises(ValueError, match="radius"):
        max_sensitivity(Itself(), linear(), images(1), 1, radius=0.0)
