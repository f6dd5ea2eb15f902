"""A model in two parts, the stem and the rest, and models that have no such parts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from tests.nets import images, small_net
from torch import Tensor, nn

from diascope.explain import IntegratedGradients
from diascope.models import create_model
from diascope.models import stem as parting
from diascope.models.frozen import frozen
from diascope.models.inputs import Adapter, Scaling
from diascope.models.stem import TRIAL, WORTH, stem_apart

X = images(3, side=24)


class Around(nn.Module):
    """A net with something of its own before it, and beside it."""

    def __init__(self, before=lambda x: x, beside=lambda x: 0.0, channels: int = 3):
        super().__init__()
        self.net, self.gate = small_net(channels=channels), nn.Parameter(torch.zeros(()))
        self.before, self.beside = before, beside

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.before(x)) + self.beside(x)


class Halves(nn.Module):
    """A scaling with a name, on which hooks may hang."""

    def forward(self, x: Tensor) -> Tensor:
        return halves(x)


class Doubled(Around):
    """A net that tells its logits in float64."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).double()


class Wary(Around):
    """A net that takes pixels in [0, 1] alone, as they come."""

    def forward(self, x: Tensor) -> Tensor:
        if x.min() < 0 or x.max() > 1:
            raise ValueError("these are no pixels")
        return super().forward(x)


class Gated(Around):
    """A net whose gate to the image beside it is closed as yet."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + self.gate * x.mean((2, 3))


class Opening(Around):
    """A net that looks at the image beside it once its gate is open."""

    def forward(self, x: Tensor) -> Tensor:
        beside = x.mean((2, 3)) if self.gate > 0 else 0.0
        return self.net(x) + beside


class Checkpointed(Around):
    """A net that runs again in the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.utils.checkpoint.checkpoint(self.net, x, use_reentrant=False)


class Twice(Around):
    """A net that is asked about two images at a time."""

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(torch.cat([x, x[:1]]), 2)
        return torch.cat([self.net(part) for part in parts])[: len(x)]


def without_gradient(x: Tensor) -> Tensor:
    with torch.no_grad():
        return x * 2


def halves(x: Tensor) -> Tensor:
    return (x - 0.25) / 0.5


NETS = {
    "small": small_net,
    "normalised": lambda: Around(halves),
    "adapted": lambda: Adapter(small_net(), Scaling(0, 255, (127.0,) * 3, (60.0, 70.0, 80.0))),
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
        conv = ready.body.get_submodule(ready.stem)
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
        found = stem.to_images(seed)
    x = X.clone().requires_grad_()
    (true,) = torch.autograd.grad(net(x)[:, 1].sum(), x)
    torch.testing.assert_close(found, true, atol=1e-5 * float(true.abs().max()), rtol=1e-3)


PARTLESS = {
    "brightness": Around(beside=lambda x: x.mean()),
    "corner": Around(beside=lambda x: x[:, :, 0, 0] * 1e-3),
    "mask": Around(beside=lambda x: (x[:, :, 0, 0] > 0.5).float()),
    "gate": Gated(),
    "square": Around(torch.square),
    "clamp": Around(lambda x: x.clamp(0, 1)),
    "least": Around(lambda x: x - x.amin((1, 2, 3), keepdim=True)),
    "contrast": Around(lambda x: x / x.std()),
    "blur": Around(lambda x: F.avg_pool2d(x, 3, 1, 1)),
    "turned": Around(lambda x: x.transpose(2, 3)),
    "mirrored": Around(lambda x: x.flip(3)),
    "smaller": Around(lambda x: F.avg_pool2d(x, 2)),
    "padded": Around(lambda x: F.pad(x, (0, 1, 0, 1), mode="replicate")),
    "other channels": Around(lambda x: x.flip(1)),
    "detached": Around(lambda x: x.detach()),
    "without gradient": Around(without_gradient),
    "checkpointed": Checkpointed(),
    "twice": Twice(),
    "wary": Wary(),
    "linear": nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 3)),
    "same": nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.Flatten(), nn.Linear(2304, 3)),
}


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", PARTLESS)
def test_a_model_without_such_parts_is_told(name, precision):
    with frozen(PARTLESS[name].eval(), X, precision=precision) as ready:
        assert stem_apart(ready, X) is None


def test_a_grey_image_repeated_for_the_net_is_not_scaled():
    net, x = Around(lambda x: x.repeat(1, 3, 1, 1)).eval(), X[:, :1]
    with frozen(net, x, precision="float32") as ready:
        assert stem_apart(ready, x) is None
    with frozen(small_net(channels=1), x, precision="float32") as ready:
        assert stem_apart(ready, x) is not None


def test_the_trial_costs_what_is_said_of_it():
    passes = []

    class Counted(Around):
        def forward(self, x: Tensor) -> Tensor:
            passes.append(len(x) * (3 if torch.is_grad_enabled() else 1))
            return super().forward(x)

    with frozen(Counted().eval(), X, precision="float32") as ready:
        passes.clear()
        assert stem_apart(ready, X) is not None
        assert sum(passes) == TRIAL
        assert stem_apart(ready, X) is not None
        assert sum(passes) == TRIAL


def test_what_was_tried_is_not_remembered_when_weights_change():
    net = Opening().eval()
    for gate, apart in ((0.0, True), (1.0, False), (0.0, True)):
        with torch.no_grad():
            net.gate.fill_(gate)
        with frozen(net, X, precision="float32") as ready:
            assert (stem_apart(ready, X) is not None) == apart


def test_only_what_is_frozen_in_float32_is_taken_apart():
    net = small_net()
    assert stem_apart(net, X) is None
    with frozen(net, X, precision="float32") as ready:
        assert stem_apart(ready, X.double()) is None
        assert stem_apart(ready, X, passes=WORTH - 1) is None
        assert stem_apart(ready, X, passes=WORTH) is not None
    double = small_net().double()
    with frozen(double, X.double()) as ready:
        assert stem_apart(ready, X.double()) is None
    with frozen(net, X, precision="float32", compile=True) as ready:
        assert stem_apart(ready, X) is None


def test_a_model_that_refuses_the_trial_is_explained_plainly():
    method = IntegratedGradients(steps=WORTH, baseline="black")
    found, expected = (method(net.eval(), X, 0) for net in _alike(Wary(), Around()))
    torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


def test_memory_that_runs_out_in_the_trial_is_told(monkeypatch):
    def full(*_):
        raise MemoryError

    with frozen(small_net(), X, precision="float32") as ready:
        monkeypatch.setattr(parting, "_tried", full)
        with pytest.raises(MemoryError):
            stem_apart(ready, X)


def test_logits_in_float64_are_no_hindrance():
    net = Doubled().eval()
    with frozen(net, X, precision="float32") as ready:
        assert ready(X).dtype == torch.float64
        assert stem_apart(ready, X) is not None


def _alike(*nets: nn.Module) -> tuple[nn.Module, ...]:
    for net in nets[1:]:
        net.load_state_dict(nets[0].state_dict())
    return nets


@pytest.mark.parametrize("where", ["conv", "before", "root", "everywhere"])
def test_hooks_hear_of_the_images(where):
    net, heard = nn.Sequential(Halves(), Around()).eval(), []

    def hear(module, inputs, *_):
        heard.extend(inputs[0].detach().flatten(1).norm(dim=1).tolist())

    module = {"conv": net[1].net[0], "before": net[0], "root": net}.get(where)
    every = torch.nn.modules.module.register_module_forward_hook
    handle = every(hear) if module is None else module.register_forward_hook(hear)
    try:
        with frozen(net, X, precision="float32") as ready:
            heard.clear()
            assert stem_apart(ready, X) is None
            IntegratedGradients(steps=40, baseline="white")(ready, X, 0)
    finally:
        handle.remove()
    assert len(heard) >= 3 * 40
    assert all(heard)


@pytest.mark.parametrize("low", [False, True])
def test_the_callers_autocast_changes_nothing(low):
    with frozen(small_net(), X, precision="bf16" if low else "float32") as ready:
        stem = stem_apart(ready, X)
        maps = stem.maps(X)
        gradient = stem.to_images(maps)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(stem.maps(X), maps)
            assert torch.equal(stem.to_images(maps), gradient)


def test_the_model_itself_is_whole_all_the_while():
    net = Around(halves).eval()
    with frozen(net, X, precision="float32") as ready:
        stem, whole = stem_apart(ready, X), ready(X)
        parts = list(ready.body.modules())
        broken = stem.maps(X)[:, :3]
        with pytest.raises(RuntimeError):
            stem.rest(broken)
        assert all(a is b for a, b in zip(parts, ready.body.modules(), strict=True))
        assert torch.equal(ready(X), whole)
        torch.testing.assert_close(stem.rest(stem.maps(X)), whole, atol=1e-5, rtol=1e-4)
