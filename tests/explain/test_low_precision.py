"""Maps in bfloat16 beside float32 ones, of a net that a few seconds of training make good."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import Tensor, nn

from diascope.explain import explainers, rectify
from diascope.explain.base import need_of
from diascope.explain.gradient import input_gradient
from diascope.models.frozen import frozen
from diascope.models.pooled import ExactConv2d, RoundedMaxPool2d

NAMES = [name for name in explainers if need_of(explainers[name]) != "soft attention"]


def block(inputs: int, outputs: int, *, size: int = 3, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


@cache
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """A net of a ResNet's stem and five convolutions, and digits (1, 48, 48) new to it."""
    bunch = load_digits()
    x = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    x = nn.functional.interpolate(x, size=(48, 48), mode="bilinear").clamp(0, 1)
    y = torch.tensor(bunch.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            *block(1, 16, size=7, stride=2),
            nn.MaxPool2d(3, 2, 1),
            *block(16, 32),
            *block(32, 32),
            *block(32, 64, stride=2),
            *block(64, 64),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, 10),
        )
        optimizer = torch.optim.Adam(net.parameters(), 5e-3)
        fading = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.02, total_iters=84)
        for _ in range(3):
            for rows in torch.randperm(1400).split(50):
                loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                fading.step()
    net.eval()
    with torch.no_grad():
        assert (net(x[1400:]).argmax(1) == y[1400:]).float().mean() > 0.85
    return net, x[1400:1408], y[1400:1408]


def agreement(one: Tensor, other: Tensor) -> float:
    """The mean over images of the rank correlation of two maps."""
    pairs = zip(one.flatten(1), other.flatten(1), strict=True)
    return sum(spearmanr(a, b).statistic for a, b in pairs) / len(one)


@pytest.mark.parametrize("name", NAMES)
def test_maps_in_bfloat16_rank_the_pixels_as_float32_ones_do(name):
    model, x, y = trained()
    maps = []
    for precision in ("float32", "bf16"):
        explainer = explainers.build({"name": name, "precision": precision})
        maps.append(explainer(model, x, y, generator=torch.Generator().manual_seed(0)))
    full, low = maps
    assert low.dtype == torch.float32
    assert not torch.equal(full, low)
    print(
        name, agreement(full, low), agreement(*(rectify(m, explainer.rectification) for m in maps))
    )
    assert agreement(full, low) > 0.99
    how = explainer.rectification
    assert agreement(rectify(full, how), rectify(low, how)) > 0.99


def test_it_is_the_pooling_of_the_stem_that_must_be_exact():
    model, x, y = trained()
    gradients = {}
    for key, options in {
        "float32": {"precision": "float32", "exact_pooling": True},
        "rounded": {"precision": "bf16"},
        "exact": {"precision": "bf16", "exact_pooling": True},
    }.items():
        with frozen(model, x, **options) as net:
            kinds = {type(module) for module in net.body.modules()}
            assert ({ExactConv2d, RoundedMaxPool2d} <= kinds) == (key == "exact")
            gradients[key] = input_gradient(net, x, y)
    rounded, exact = (agreement(gradients["float32"], gradients[k]) for k in ("rounded", "exact"))
    assert 1 - exact < 0.5 * (1 - rounded)


def test_an_exact_stem_gives_the_convolution_and_its_gradient():
    conv = nn.Conv2d(3, 8, 7, 2, 3)
    x = torch.rand(2, 3, 21, 18)
    exact = ExactConv2d.of(conv)
    with torch.autocast("cpu", torch.bfloat16):
        out, rounded = exact(x), conv(x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, conv(x))
    assert not torch.allclose(out, rounded.float())
    leaf = x.clone().requires_grad_(True)
    seed = torch.randn_like(out)
    (ours,) = torch.autograd.grad(exact(leaf), leaf, seed)
    (theirs,) = torch.autograd.grad(conv(leaf), leaf, seed)
    torch.testing.assert_close(ours, theirs, atol=0.02 * float(theirs.abs().max()), rtol=0.02)
    torch.testing.assert_close(exact(leaf), conv(leaf))


def test_a_rounded_pooling_compares_before_it_rounds():
    x = torch.tensor([[[[1.0, 1.0 + 2**-12], [0.5, 0.5]]]])  # one value in bfloat16
    pool = RoundedMaxPool2d.of(nn.MaxPool2d(2))
    leaf = x.clone().requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        out = pool(leaf)
    assert out.dtype == torch.bfloat16
    (gradient,) = torch.autograd.grad(out.sum(), leaf)
    assert gradient.tolist() == [[[[0.0, 1.0], [0.0, 0.0]]]]
    assert pool(x).dtype == torch.float32
