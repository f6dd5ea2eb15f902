"""Every ambiguity of the papers: where its values differ, and where they must not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.nets import Linear, images, small_net
from tests.objectives.members import Brighter, build, problem, seeded
from tests.objectives.test_formulas import cross_entropy, fgsm, kl, mask
from torch import Tensor, nn

from diascope.attacks import FGSM, PGD, BoundaryAttack, Square
from diascope.errors import UserError
from diascope.models.frozen import frozen
from diascope.objectives import ASGT, SGA, TRADES, Adversarial, SaliencyGuided, Standard
from diascope.randomness import Noise

GUIDED = ["saliency-guided", "sga", "asgt"]


def masked_by(model: nn.Module, x: Tensor, y: Tensor, **options) -> Tensor:
    """Where an objective with these options masks, (B, C, H, W) bool; -1 is no pixel's value."""
    objective = SaliencyGuided(**{"k": 0.25, "fill": 0.0, "precision": "float32", **options})
    x = x.clamp_min(1e-3)
    with frozen(model, x, precision="float32") as net:
        return objective._masked(net, x, y, Noise(0, torch.arange(len(x)))) == 0


def linear(classes: int = 3, channels: int = 3, side: int = 6, seed: int = 0) -> Linear:
    return Linear(torch.randn(classes, channels, side, side, generator=seeded(seed)).double())


def lowest(gradient: Tensor, k: float = 0.25) -> Tensor:
    flat = gradient.flatten(1)
    order = flat.argsort(1)[:, : round(k * flat.shape[1])]
    return torch.zeros_like(flat, dtype=torch.bool).scatter(1, order, True).view(gradient.shape)


def test_ranking_signed_takes_the_most_negative_and_absolute_the_nearest_to_zero():
    model, x, y = linear(), images(6, 6).double(), torch.arange(6) % 3
    w = model.weight.detach()[y]
    assert torch.equal(masked_by(model, x, y), lowest(w))
    assert torch.equal(masked_by(model, x, y, ranking="absolute"), lowest(w.abs()))
    positive = Linear(model.weight.detach().abs())
    signed, absolute = (masked_by(positive, x, y, ranking=r) for r in ("signed", "absolute"))
    assert torch.equal(signed, absolute)
    assert not torch.equal(signed, masked_by(model, x, y))


def test_a_random_ranking_masks_as_many_features_whatever_the_gradient():
    model, x, y = linear(), images(6, 6).double(), torch.arange(6) % 3
    for channels, count in (("each", 27), ("mean", 9)):
        mask = masked_by(model, x, y, ranking="random", channels=channels)
        of_each = mask if channels == "each" else mask[:, :1]
        assert torch.equal(of_each.expand(mask.shape), mask)
        assert (of_each.flatten(1).sum(1) == count).all()
        assert len({tuple(each.flatten().tolist()) for each in mask}) == len(x)
        other = masked_by(Linear(-model.weight.detach()), x, y, ranking="random", channels=channels)
        assert torch.equal(other, mask)
    gradients = []
    model.weight.register_hook(gradients.append)
    x = images(40, 6).double()
    often = masked_by(model, x, torch.arange(40) % 3, ranking="random").double().mean((0, 1))
    assert gradients == []
    assert 0.1 < often.min() < often.max() < 0.45  # every place, at the mean 1/4


def test_what_is_masked_at_random_does_not_go_with_what_it_is_filled_with():
    x = torch.linspace(0, 1, 1024).expand(1, 1, -1).reshape(1, 1, 32, 32).double()
    found = SaliencyGuided(k=0.5, ranking="random", precision="float32")._masked(
        linear(channels=1, side=32), x, torch.zeros(1, dtype=torch.int64), Noise(0, torch.arange(1))
    )
    fill = found[found != x]
    assert len(fill) == 512
    assert abs(fill.mean() - 0.5) < 0.05
    assert fill.min() < 0.05
    assert fill.max() > 0.95


def test_the_output_that_is_differentiated():
    model, x, y = linear(), images(6, 6).double(), torch.arange(6) % 3
    w, p = model.weight.detach(), model(x).detach().softmax(1)
    log_softmax = w[y] - torch.einsum("bk,kchw->bchw", p, w)
    gradients = {
        "logit": w[y],
        "log_softmax": log_softmax,
        "probability": log_softmax,  # times the probability, which ranks the same
        "loss": -log_softmax,
    }
    masks = {score: masked_by(model, x, y, score=score) for score in gradients}
    for score, gradient in gradients.items():
        assert torch.equal(masks[score], lowest(gradient)), score
    assert len({tuple(m.flatten().tolist()) for m in masks.values()}) == 3
    absolute = [masked_by(model, x, y, score=s, ranking="absolute") for s in gradients]
    assert torch.equal(absolute[1], absolute[3])
    assert not torch.equal(absolute[0], absolute[1])


def test_the_logit_of_a_sigmoid_ranks_as_its_log_probability():
    for head in ("one logit", "multi-label"):
        model, x, y = problem(head)
        masks = [masked_by(model, x, y, score=s) for s in ("logit", "log_softmax", "loss")]
        assert torch.equal(masks[0], masks[1]) == (head == "one logit")
        assert not torch.equal(masks[1], masks[2])


def test_the_label_or_the_prediction():
    model, x = linear(), images(6, 6).double()
    predicted = model(x).argmax(1)
    wrong = (predicted + 1) % 3
    by_label, by_prediction = (
        masked_by(model, x, wrong, target=t) for t in ("label", "prediction")
    )
    assert torch.equal(by_label, lowest(model.weight.detach()[wrong]))
    assert torch.equal(by_prediction, lowest(model.weight.detach()[predicted]))
    assert torch.equal(masked_by(model, x, predicted), by_prediction)
    many, x, y = problem("multi-label")
    y = (many(x) > 0).double()
    assert torch.equal(masked_by(many, x, y), masked_by(many, x, 1 - y, target="prediction"))
    assert not torch.equal(masked_by(many, x, y), masked_by(many, x, 1 - y))


def test_channels_are_ranked_each_or_together():
    model, x, y = linear(), images(6, 6).double(), torch.arange(6) % 3
    w = model.weight.detach()[y]
    ranks = {
        ("signed", "each"): w,
        ("signed", "mean"): w.mean(1, keepdim=True),
        ("absolute", "mean"): w.mean(1, keepdim=True).abs(),
        ("absolute", "mean_abs"): w.abs().mean(1, keepdim=True),
    }
    found = {}
    for (ranking, channels), gradient in ranks.items():
        mask = masked_by(model, x, y, ranking=ranking, channels=channels)
        assert torch.equal(mask, lowest(gradient).expand(x.shape))
        found[tuple(mask.flatten().tolist())] = ranking
    assert len(found) == 4
    grey, x = linear(channels=1), images(6, 6, 1).double()
    of = [("each", "absolute"), ("mean", "absolute"), ("mean_abs", "absolute")]
    masks = [masked_by(grey, x, y, channels=c, ranking=r) for c, r in of]
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("name", GUIDED)
def test_the_fill_is_seen(name):
    model, x, y = problem("three classes")
    losses = [
        build(name, k=0.3, fill=fill)(model, x, y, generator=seeded(seed)).item()
        for fill, seed in ((0.0, 0), (0.0, 1), (1.0, 0), ("uniform", 0), ("uniform", 1))
    ]
    assert losses[0] == losses[1]  # a constant draws nothing
    assert len(set(losses)) == 4


@pytest.mark.parametrize("name", [*GUIDED, "trades"])
def test_the_direction_of_the_divergence(name):
    model, x, y = problem("three classes")
    parts = {first: build(name, kl_first=first) for first in ("clean", "changed")}
    found = {f: o(model, x, y, generator=seeded()).item() for f, o in parts.items()}
    assert found["clean"] != pytest.approx(found["changed"], rel=1e-9)
    papers = "clean" if name in ("sga", "trades") else "changed"
    assert build(name).kl_first == papers
    masked = mask(model, x, y, 0.3, 0.5)
    z, z_masked = model(x), model(masked)
    sgt = SaliencyGuided(k=0.3, fill=0.5, kl_first="clean")(model, x, y)
    torch.testing.assert_close(sgt, cross_entropy(z, y) + kl(z, z_masked, y))


@pytest.mark.parametrize("name", [*GUIDED, "trades"])
def test_a_detached_reference_changes_the_gradient_and_not_the_value(name):
    model, x, y = problem("three classes")
    results = []
    for detach in (False, True):
        loss = build(name, detach=detach)(model, x, y, generator=seeded())
        results.append((loss.item(), torch.autograd.grad(loss, model[-1].weight)[0]))
    assert results[0][0] == results[1][0]
    assert not torch.allclose(results[0][1], results[1][1], rtol=1e-4)


def test_a_detached_reference_is_a_constant_of_the_divergence():
    model, x, y = problem("three classes")
    loss = SGA(attack=Brighter(), k=0.0, detach=True)(model, x, y)
    z, z_adv = model(x), model(Brighter()(model, x, y))
    expected = cross_entropy(z, y) + kl(z.detach(), z_adv, y)
    weights = list(model.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights)
    )


def test_sga_without_a_mask_is_what_p3_calls_at_only_and_not_adversarial():
    model, x, y = problem("three classes")
    attack = FGSM(eps=0.05)
    at_only = SGA(attack=attack, k=0.0)(model, x, y)
    z, z_adv = model(x), model(fgsm(model, x, y, 0.05))
    torch.testing.assert_close(at_only, cross_entropy(z, y) + kl(z, z_adv, y))
    adversarial = Adversarial(attack=attack)(model, x, y)
    torch.testing.assert_close(adversarial, cross_entropy(z_adv, y))
    assert at_only.item() != pytest.approx(adversarial.item(), rel=1e-3)


@pytest.mark.parametrize("name", [*GUIDED, "trades"])
def test_without_the_divergence_it_is_the_cross_entropy(name):
    model, x, y = problem("three classes")
    loss = build(name, **{"beta" if name == "trades" else "lam": 0.0})(model.train(), x, y)
    other, x, y = problem("three classes")
    if name == "asgt":
        logits = other.train()(torch.cat([x, fgsm(other, x, y, 0.05)]))
        expected = cross_entropy(logits[:6], y) + cross_entropy(logits[6:], y)
    else:
        expected = Standard()(other.train(), x, y)
    torch.testing.assert_close(loss, expected)


def test_masking_everything_leaves_nothing_of_the_image():
    model, x, y = problem("three classes")
    for channels in ("each", "mean"):
        grey = SaliencyGuided(k=1.0, fill=0.5, channels=channels)(model, x, y)
        z, flat = model(x), model(torch.full_like(x, 0.5))
        torch.testing.assert_close(grey, cross_entropy(z, y) + kl(flat, z, y))


@pytest.mark.parametrize("name", GUIDED)
def test_more_is_masked_with_a_larger_share(name):
    model, x, y = problem("three classes")
    losses = {k: build(name, k=k)(model, x, y, generator=seeded()).item() for k in (0, 0.2, 0.6)}
    assert len(set(losses.values())) == 3


def test_no_gradient_flows_to_the_image_through_the_ranking():
    model, x, y = problem("three classes")
    x.requires_grad_()
    loss = SaliencyGuided(k=0.3, fill=0.5)(model, x, y)
    (found,) = torch.autograd.grad(loss, x)
    z, z_masked = model(x), model(mask(model, x.detach(), y, 0.3, 0.5))
    (expected,) = torch.autograd.grad(cross_entropy(z, y) + kl(z_masked, z, y), x)
    torch.testing.assert_close(found, expected)


def test_trades_climbs_the_divergence_unless_told_otherwise():
    model, x, y = problem("three classes")
    attack = PGD(eps=0.05, steps=5)
    climbed, own, same = (
        TRADES(attack=a, inner=i)(model, x, y, generator=seeded()).item()
        for a, i in (
            (attack, "kl"),
            (attack, "attack"),
            (replace(attack, loss="kl"), "attack"),
        )
    )
    assert climbed == same
    assert climbed > own  # the very divergence that the loss holds is highest there
    assert TRADES(attack=attack).attack == attack  # and the attack itself stays what it is


@pytest.mark.parametrize("attack", [BoundaryAttack(), Square(eps=0.1, queries=3)])
def test_attacks_that_cannot_climb_the_divergence_are_refused(attack):
    with pytest.raises(ValueError, match="loss"):
        TRADES(attack=attack)
    assert TRADES(attack=attack, inner="attack").attack is attack


MISTAKES = [
    ({"k": 1.5}, "k=1.5: a share"),
    ({"k": -0.1}, "k=-0.1: a share"),
    ({"k": float("nan")}, "k=nan: a share"),
    ({"lam": -1.0}, "lam=-1.0"),
    ({"fill": 1.5}, "fill=1.5: 'uniform' or a number"),
    ({"channels": "mean_abs"}, "give ranking='absolute'"),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES)
@pytest.mark.parametrize("name", GUIDED)
def test_a_mistake_is_said(name, options, message):
    with pytest.raises(UserError, match=message):
        build(name, **options)


def test_other_mistakes_are_said():
    with pytest.raises(ValueError, match="fill='noise': 'uniform' or a number"):
        SaliencyGuided(fill="noise")
    with pytest.raises(UserError, match="beta=-1.0"):
        build("trades", beta=-1.0)
    with pytest.raises(UserError, match="mix=nan"):
        build("adversarial", mix=float("nan"))
    with pytest.raises(UserError, match="unknown key 'lamda'.*'lam'"):
        build("sga", lamda=1.0)


def test_the_call_that_the_docs_show():
    model, x, y = small_net(), images(4), torch.arange(4) % 3
    attack = FGSM(norm="linf", eps=0.03)
    loss = SGA(attack=attack, k=0.1, lam=1.0)(model, x, y, generator=seeded())
    assert loss.isfinite()
    assert ASGT(attack=attack)(model, x, y).isfinite()
