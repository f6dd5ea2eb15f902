"""Each objective against its formula, computed by hand in float64, value and gradient."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.objectives.members import HEADS, Brighter, problem, seeded
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical
from torch.distributions import kl_divergence as torch_kl

from diascope.attacks import FGSM, PGD
from diascope.models.divergence import kl_divergence
from diascope.objectives import ASGT, SGA, TRADES, Adversarial, SaliencyGuided, Standard
from diascope.randomness import Noise


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """The mean cross-entropy, by torch's own functions."""
    if y.ndim == 2:
        return F.binary_cross_entropy_with_logits(logits, y, reduction="none").sum(1).mean()
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0], y.double())
    return F.cross_entropy(logits, y)


def kl(first: Tensor, second: Tensor, y: Tensor) -> Tensor:
    """The mean KL(first || second), by torch's own distributions."""
    if y.ndim == 2 or first.shape[1] == 1:
        return torch_kl(Bernoulli(logits=first), Bernoulli(logits=second)).sum(1).mean()
    return torch_kl(Categorical(logits=first), Categorical(logits=second)).mean()


def score(logits: Tensor, y: Tensor) -> Tensor:
    """The sum over the images of what the default ranking differentiates."""
    if y.ndim == 2:
        return ((2 * y - 1) * logits / 2).sum()
    if logits.shape[1] == 1:
        return ((2 * y - 1) * logits[:, 0] / 2).sum()
    return logits[range(len(y)), y].sum()


def gradient(model: nn.Module, x: Tensor, y: Tensor, of=score) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(of(copy.deepcopy(model).eval()(x), y), x)[0]


def mask(model: nn.Module, x: Tensor, y: Tensor, k: float, fill: float, size=lambda g: g) -> Tensor:
    """M_k with a constant fill, image by image."""
    found = x.clone()
    for image, grad in zip(found, gradient(model, x, y), strict=True):
        order = np.argsort(size(grad).flatten().numpy(), kind="stable")
        image.view(-1)[order[: round(k * order.size)]] = fill
    return found


def fgsm(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    return (x + eps * gradient(model, x, y, cross_entropy).sign()).clamp(0, 1)


def agree(model: nn.Module, objective, x: Tensor, y: Tensor, by_hand) -> None:
    """The objective and the formula have one value and one gradient to every parameter."""
    other, parameters = copy.deepcopy(model), list(model.parameters())
    loss, expected = objective(model, x, y, generator=seeded()), by_hand(other)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-9)
    found = torch.autograd.grad(loss, parameters)
    true = torch.autograd.grad(expected, list(other.parameters()))
    torch.testing.assert_close(found, true, rtol=1e-5, atol=1e-9)
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, dict(other.named_buffers())[name])


def joint(model: nn.Module, *branches: Tensor) -> tuple[Tensor, ...]:
    return model(torch.cat(branches)).chunk(len(branches))


modes = pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
heads = pytest.mark.parametrize("head", HEADS)


@heads
@modes
def test_saliency_guided(head, train):
    model, x, y = problem(head)

    def by_hand(net: nn.Module) -> Tensor:
        clean, changed = joint(net, x, mask(net, x, y, 0.3, 0.5))
        return cross_entropy(clean, y) + 0.7 * kl(changed, clean, y)

    agree(model.train(train), SaliencyGuided(k=0.3, lam=0.7, fill=0.5), x, y, by_hand)


@heads
@modes
@pytest.mark.parametrize("attack", [FGSM(eps=0.05), Brighter()], ids=["fgsm", "fixed"])
def test_sga(head, train, attack):
    model, x, y = problem(head)

    def by_hand(net: nn.Module) -> Tensor:
        x_masked = mask(net, x, y, 0.3, 0.5)
        fixed = isinstance(attack, Brighter)
        x_adv = attack(net, x_masked, y) if fixed else fgsm(net, x_masked, y, 0.05)
        clean, changed = joint(net, x, x_adv)
        return cross_entropy(clean, y) + 0.7 * kl(clean, changed, y)

    agree(model.train(train), SGA(attack=attack, k=0.3, lam=0.7, fill=0.5), x, y, by_hand)


@heads
@modes
@pytest.mark.parametrize("attack", [FGSM(eps=0.05), Brighter()], ids=["fgsm", "fixed"])
def test_asgt(head, train, attack):
    model, x, y = problem(head)

    def by_hand(net: nn.Module) -> Tensor:
        x_adv = attack(net, x, y) if isinstance(attack, Brighter) else fgsm(net, x, y, 0.05)
        clean, attacked, changed = joint(net, x, x_adv, mask(net, x_adv, y, 0.3, 0.5))
        loss = cross_entropy(clean, y) + cross_entropy(attacked, y)
        return loss + 0.7 * kl(changed, clean, y)

    agree(model.train(train), ASGT(attack=attack, k=0.3, lam=0.7, fill=0.5), x, y, by_hand)


@heads
@modes
def test_trades(head, train):
    model, x, y = problem(head)
    eps, size, steps = 0.04, 0.01, 3
    attack = PGD(eps=eps, step_size=size, steps=steps, random_start=False)

    def by_hand(net: nn.Module) -> Tensor:
        clean = copy.deepcopy(net).eval()(x).detach()
        x_adv = x + 1e-3 * Noise.of(x, seeded(), None).normal(x.shape[1:]).double()
        for _ in range(steps):
            climbed = gradient(net, x_adv.clamp(0, 1), y, lambda z, y: kl(clean, z, y))
            x_adv = x_adv.clamp(0, 1) + size * climbed.sign()
            x_adv = x + (x_adv - x).clamp(-eps, eps)
        clean, changed = joint(net, x, x_adv.clamp(0, 1))
        return cross_entropy(clean, y) + 4.0 * kl(clean, changed, y)

    agree(model.train(train), TRADES(attack=attack, beta=4.0), x, y, by_hand)


@modes
def test_trades_with_the_attacks_own_loss(train):
    model, x, y = problem("three classes")

    def by_hand(net: nn.Module) -> Tensor:
        clean, changed = joint(net, x, fgsm(net, x, y, 0.05))
        return cross_entropy(clean, y) + 6.0 * kl(clean, changed, y)

    objective = TRADES(attack=FGSM(eps=0.05), inner="attack")
    agree(model.train(train), objective, x, y, by_hand)


@heads
@modes
@pytest.mark.parametrize("mix", [0.0, 0.5])
def test_adversarial(head, train, mix):
    model, x, y = problem(head)

    def by_hand(net: nn.Module) -> Tensor:
        x_adv = fgsm(net, x, y, 0.05)
        if not mix:
            return cross_entropy(net(x_adv), y)
        attacked, clean = joint(net, x_adv, x)
        return (cross_entropy(attacked, y) + mix * cross_entropy(clean, y)) / (1 + mix)

    agree(model.train(train), Adversarial(attack=FGSM(eps=0.05), mix=mix), x, y, by_hand)


@heads
@modes
def test_standard(head, train):
    model, x, y = problem(head)
    agree(model.train(train), Standard(), x, y, lambda net: cross_entropy(net(x), y))


def test_class_weights_and_label_smoothing_are_of_the_cross_entropies_alone():
    model, x, y = problem("three classes")
    weight = torch.tensor([1.0, 2.0, 3.0]).double()
    options = {"class_weight": weight, "generator": None}
    x_adv = Brighter()(model, x, y)
    z, z_adv, z_masked = model(x), model(x_adv), model(mask(model, x_adv, y, 0.3, 0.5))

    def ce(logits: Tensor) -> Tensor:
        soft = 0.8 * F.one_hot(y, 3) + 0.2 / 3
        return -(soft * weight * logits.log_softmax(1)).sum(1).mean()

    smooth = {"label_smoothing": 0.2}
    terms = {
        ce(z): Standard(**smooth),
        ce(z_adv): Adversarial(attack=Brighter(), **smooth),
        (ce(z_adv) + ce(z)) / 2: Adversarial(attack=Brighter(), mix=1.0, **smooth),
        ce(z) + ce(z_adv) + kl(z_masked, z, y): ASGT(attack=Brighter(), k=0.3, fill=0.5, **smooth),
        ce(z) + 6 * kl(z, z_adv, y): TRADES(attack=Brighter(), inner="attack", **smooth),
        ce(z) + kl(z, z_adv, y): SGA(attack=Brighter(), k=0.0, **smooth),
        ce(z): SaliencyGuided(k=0.0, **smooth),
    }
    for expected, objective in terms.items():
        torch.testing.assert_close(objective(model, x, y, **options), expected)


@heads
def test_the_divergence_is_that_of_torch_and_safe(head):
    outputs = HEADS[head]
    y = torch.zeros(5, 4) if head == "multi-label" else torch.zeros(5)
    a, b = torch.randn(2, 5, outputs, generator=seeded(), dtype=torch.float64) * 3
    found = kl_divergence(a, b, multilabel=y.ndim == 2)
    assert found.shape == (5,)
    torch.testing.assert_close(found.mean(), kl(a, b, y))
    far = torch.tensor([[1e4] * outputs], requires_grad=True)
    near = torch.linspace(-1e4, 1e3, outputs).view(1, -1).requires_grad_()
    for first, second in ((far, near), (near, far), (far, -far), (near, near)):
        value = kl_divergence(first, second, multilabel=y.ndim == 2)
        gradients = torch.autograd.grad(value.sum(), {first, second})
        assert value.isfinite().all()
        assert all(g.isfinite().all() for g in gradients)
    assert kl_divergence(near, near, multilabel=y.ndim == 2) == 0


def test_low_precision_logits_are_compared_in_float32():
    a, b = torch.randn(2, 5, 3, generator=seeded()).bfloat16()
    assert torch.equal(kl_divergence(a, b), kl_divergence(a.float(), b.float()))
