"""A model in two parts, the stem and the rest, and models that have no such parts."""

from __future__ import annotations

import pytest
import torch
from tests.nets import images, small_net
from torch import Tensor, nn

from diascope.models import create_model
from diascope.models.frozen import frozen
from diascope.models.stem import stem_apart

X = images(3, side=24)


class Around(nn.Module):
    """A net with something of its own before it, and beside it."""

    def __init__(self, before=lambda x: x, beside=lambda x: 0.0, net: nn.Module | None = None):
        super().__init__()
        self.net = small_net() if net is None else net
        self.before, self.beside = before, beside

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.before(x)) + self.beside(x)


class Counting(nn.Module):
    """A net that takes the number of images from what it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).reshape(len(x), 4, -1).mean(2))


def halves(x: Tensor) -> Tensor:
    return (x - 0.25) / 0.5


NETS = {
    "small": small_net,
    "normalised": lambda: Around(halves),
    "resnet18": lambda: create_model("resnet18", num_classes=3).eval(),
    "patches": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 8, stride=8), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(54, 3)
    ).eval(),
}


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", NETS)
def test_the_two_parts_are_the_model(name, precision, exact):
    torch.manual_seed(0)
    net = NETS[name]()
    near = {"atol": 1e-5, "rtol": 1e-4} if precision == "float32" else {"atol": 0.03, "rtol": 0.03}
    with frozen(net, X, precision=precision, exact_pooling=exact) as ready:
        stem = stem_apart(ready, X)
        assert stem is not None
        parts, whole, maps = list(ready.body.modules()), ready(X), stem.maps(X)
        torch.testing.assert_close(stem.rest(maps.clone()), whole, **near)
        assert all(a is b for a, b in zip(parts, ready.body.modules(), strict=True))
    with frozen(net, X, precision="float32") as ready:
        heard = []
        conv = ready.body.get_submodule(stem.name)
        conv.register_forward_hook(lambda module, inputs, output: heard.append(output.clone()))
        ready(X)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps, heard[0], **near)


@pytest.mark.parametrize("name", NETS)
def test_the_gradient_to_maps_is_that_of_autograd_through_the_model(name):
    torch.manual_seed(0)
    net = NETS[name]()
    with frozen(net, X, precision="float32") as ready:
        stem = stem_apart(ready, X)
        maps = stem.maps(X).requires_grad_()
        (seed,) = torch.autograd.grad(stem.rest(maps)[:, 1].sum(), maps)
        found = stem.to_images(seed, X)
    x = X.clone().requires_grad_()
    (true,) = torch.autograd.grad(net(x)[:, 1].sum(), x)
    torch.testing.assert_close(found, true, atol=1e-5 * float(true.abs().max()), rtol=1e-3)


@pytest.mark.parametrize(
    "net",
    [
        Around(beside=lambda x: x.mean()),
        Around(beside=lambda x: x[:, :, 0, 0] * 1e-3),
        Around(torch.square),
        Around(lambda x: x - x.amin((1, 2, 3), keepdim=True)),
        Around(lambda x: x / x.std()),
        Counting().eval(),
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 3)).eval(),
        nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.Flatten(), nn.Linear(4 * 576, 3)),
    ],
    ids=["brightness", "corner", "square", "least", "contrast", "counting", "linear", "same"],
)
def test_a_model_without_such_parts_is_told(net):
    with frozen(net.eval(), X, precision="float32") as ready:
        assert stem_apart(ready, X) is None
        torch.testing.assert_close(ready(X), net(X), atol=1e-5, rtol=1e-4)


def test_only_what_is_frozen_in_float32_is_taken_apart():
    net = small_net()
    assert stem_apart(net, X) is None
    with frozen(net, X, precision="float32") as ready:
        assert stem_apart(ready, X.double()) is None
    double = small_net().double()
    with frozen(double, X.double()) as ready:
        assert stem_apart(ready, X.double()) is None
    with frozen(net, X, precision="float32", compile=True) as ready:
        assert stem_apart(ready, X) is None


def test_a_hook_on_the_stem_is_not_passed_by():
    net, heard = small_net(), []
    net[0].register_forward_hook(lambda module, inputs, output: heard.append(len(output)))
    with frozen(net, X, precision="float32") as ready:
        assert stem_apart(ready, X) is None


def test_the_model_is_whole_again_after_an_error():
    def fails_for_three(x: Tensor) -> Tensor:
        if len(x) == 3:
            raise ValueError("three")
        return x

    net = Around()
    with frozen(net, X, precision="float32") as ready:
        stem = stem_apart(ready, X[:1])
        ready.body.before = fails_for_three
        with pytest.raises(ValueError, match="three"):
            stem.maps(X)
        torch.testing.assert_close(ready(X[:2]), net(X[:2]), atol=1e-5, rtol=1e-4)
