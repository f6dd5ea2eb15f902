"""Changes of a net's logits, followed through its operations in bfloat16."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.nets import images, small_net
from torch import Tensor, nn

from diascope.audit.masking.meter import Meter, Metered
from diascope.models import create_model
from diascope.models.changes import Changes, Points, changes_of, trial
from diascope.models.changes.trial import TRIAL
from diascope.models.frozen import frozen
from diascope.models.stem import WORTH, stem_apart

X = images(4, side=24)
ENOUGH = WORTH + 4 * TRIAL


class Between(nn.Module):
    """A net of two convolutions with something between them, and between the maps and the head."""

    def __init__(self, between=lambda z: z.relu(), after=lambda z: z):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 3)
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.5, 2)
        self.between, self.after = between, after

    def forward(self, x: Tensor) -> Tensor:
        z = self.second(self.between(self.first(x)))
        return self.head(self.after(z).mean((2, 3)))


class Halved(nn.Module):
    """Sides of the maps by themselves, the one squeezed by the other's mean."""

    def forward(self, z: Tensor) -> Tensor:
        a, b = z.chunk(1, 0)[0].chunk(2, 1)
        gate = torch.sigmoid(F.adaptive_avg_pool2d(b, 1))
        return torch.cat([a * gate, b / (1 + gate)], 1)


def residual(z: Tensor) -> Tensor:
    kept = z
    z = F.relu(z, inplace=False) * 0.5
    z += kept + 1
    return F.relu_(z)


def over(z: Tensor) -> Tensor:
    F.hardtanh(z, -0.2, 0.3, True)  # what it gives is not looked at
    return z


def attended(z: Tensor) -> Tensor:
    scores = z[:, :2].relu()
    return z * scores.flatten(2).softmax(2).view_as(scores).sum(1, keepdim=True)


def tokens(z: Tensor) -> Tensor:
    t = F.layer_norm(z.flatten(2).transpose(1, 2), (8,))
    t = t + F.scaled_dot_product_attention(t, t, t)
    return (t @ t.transpose(1, 2) @ t).transpose(1, 2).reshape(z.shape)


def scaled(z: Tensor) -> Tensor:
    z = F.pad(z * torch.linspace(1, 2, 8).view(1, 8, 1, 1), (1, 1, 1, 1))
    return F.interpolate(1.0 - torch.stack([z, -z * 0.5]).sum(0), scale_factor=2)


def pools(z: Tensor) -> Tensor:
    return F.dropout(F.avg_pool2d(F.max_pool2d(z.relu(), 3, 2, 1, ceil_mode=True), 2), 0.5, False)


BETWEEN = {
    "relu": lambda z: z.relu(),
    "relu in place": lambda z: z.relu_(),
    "pooled at once": lambda z: F.max_pool2d(z.relu(), 3, 2, 1),
    "pooled, not rectified": lambda z: F.max_pool2d(z, 2).tanh(),
    "silu": lambda z: F.silu(z, inplace=True),
    "residual": residual,
    "written over": over,
    "gates": Halved(),
    "attention": attended,
    "tokens": tokens,
    "constants": scaled,
    "pools": pools,
}


def patches(x: Tensor, size: float) -> Tensor:
    """Return images with a patch of another brightness, each elsewhere."""
    moved = x.clone()
    for n, image in enumerate(moved):
        image[:, 3 * n : 3 * n + 4, 8 : 8 + 2 * (n + 1)] += size
    return moved


def amiss(found: Tensor, true: Tensor) -> float:
    return float(((found - true.detach()).norm(dim=1) / true.detach().norm(dim=1)).max())


def followed(model: nn.Module, x: Tensor = X) -> tuple[Changes, Points, nn.Module]:
    with frozen(model, x, precision="float32") as net:
        changes = changes_of(net, x, ENOUGH, gain=False)
        assert changes is not None
        return changes, changes.known(x), net


@pytest.mark.parametrize("name", BETWEEN)
@pytest.mark.parametrize("size", [0.2, 1e-4])
def test_changes_go_through_what_nets_do(name, size):
    net = Between(BETWEEN[name]).eval().double()
    truth = lambda x: net(x.double())
    moved = patches(X, size)
    true = truth(moved) - truth(X)
    changes, near, _ = followed(Between(BETWEEN[name]).eval())
    torch.testing.assert_close(near.logits.double(), truth(X), atol=1e-5, rtol=1e-4)
    near.logits.zero_()  # what is added to them is looked at alone
    assert amiss(changes(moved, near), true) < 0.03


def test_a_batch_norm_that_is_not_folded():
    def model():
        net = Between()
        net.between = lambda z: net.norm(z.relu() * 2)
        return net.eval()

    net, moved = model().double(), patches(X, 1e-3)
    true = net(moved.double()) - net(X.double())
    changes, near, _ = followed(model())
    assert amiss(changes(moved, near) - near.logits, true) < 0.03


def test_a_change_that_bfloat16_does_not_see_is_seen():
    model, moved = small_net(7), patches(X, 2e-5)
    double = small_net(7).double()
    true = double(moved.double()) - double(X.double())
    with frozen(model, X, precision="bf16") as low:
        plain = low(moved) - low(X)
    changes, near, _ = followed(model)
    near.logits.zero_()
    assert amiss(changes(moved, near), true) < 0.03
    assert amiss(plain, true) > 0.3


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenetv2_100"])
def test_backbones(name):
    torch.manual_seed(0)
    options = {"zero_init_last": False} if name == "resnet18" else {}
    model, x = create_model(name, num_classes=4, **options).eval(), images(2, side=64)
    changes, near, net = followed(model, x)
    moved = patches(x, 0.05)
    assert amiss(changes(moved, near) - near.logits, net(moved) - net(x)) < 0.03


def test_the_steps_alone_give_the_same_as_the_nets_own_code():
    changes, near, _ = followed(Between(residual).eval())
    moved = patches(X, 0.01)
    first = changes(moved, near)  # through the code: the batch is another than of the trial
    ran = []
    changes.rest = lambda maps: ran.append(maps)
    assert torch.equal(changes(moved, near), first)
    further = changes(patches(X, 0.02), near)
    assert not ran
    assert amiss(further - near.logits, 2 * (first - near.logits)) < 0.1


def test_what_is_known_of_some_images_is_taken_and_put_elsewhere():
    changes, near, net = followed(Between(BETWEEN["pooled at once"]).eval())
    moved, further = patches(X, 0.1), patches(X, 0.2)
    rows = torch.tensor([3, 1])
    part = near.take(rows)
    assert torch.equal(part.x, X[rows])
    true = net(moved[rows]) - net(X[rows])
    assert amiss(changes(moved[rows], part) - part.logits, true) < 0.03
    near.put(rows, changes.known(moved[rows]))
    at = X.clone()
    at[rows] = moved[rows]
    assert torch.equal(near.x, at)
    torch.testing.assert_close(near.logits, net(at))
    assert torch.equal(changes(at, near), near.logits)  # nothing has changed
    assert amiss(changes(further, near) - near.logits, net(further) - net(at)) < 0.03


class Straight(torch.autograd.Function):
    """A rectifier that torch's functions do not tell of."""

    @staticmethod
    def forward(ctx, z):
        return torch.from_numpy(z.detach().as_subclass(Tensor).numpy().clip(0))

    @staticmethod
    def backward(ctx, seed):
        return seed


NO_RULE = {
    "looks at values": lambda z: z.relu() if z.mean() > 0 else z,
    "sorts": lambda z: z.sort(1).values,
    "dropout at work": lambda z: F.dropout(z, 0.5, True),
    "steps": lambda z: (z * 4).round(),
    "of its own": Straight.apply,
    "counts": lambda z: z.relu() * torch.bincount(z.flatten().long().clamp(0)).numel(),
}


@pytest.mark.parametrize("name", NO_RULE)
def test_what_cannot_be_followed_is_not(name):
    net = Between(NO_RULE[name]).eval()
    with frozen(net, X, precision="float32") as body:
        assert stem_apart(body, X) is not None or name == "dropout at work"
        assert changes_of(body, X, ENOUGH, gain=False) is None


TWO_WAYS = {
    "around the pooling": lambda z: F.max_pool2d(z, 2) + F.avg_pool2d(z, 2),
    "around it, after it": lambda z: F.avg_pool2d(z, 2) + F.max_pool2d(z, 2),
    "scaled once rectified": lambda z: F.max_pool2d(z.relu() * -1.0, 2),
}


@pytest.mark.parametrize("name", TWO_WAYS)
def test_what_goes_past_the_pooling_that_a_net_begins_with_is_not_followed(name):
    net = Between(TWO_WAYS[name]).eval()
    with frozen(net, X, precision="float32") as body:
        assert stem_apart(body, X) is not None
        assert changes_of(body, X, ENOUGH, gain=False) is None


def test_where_hooks_may_hear_the_code_is_run():
    net = Between().eval()
    net.head.register_forward_hook(lambda *args: None)
    with frozen(net, X, precision="float32") as body:
        assert stem_apart(body, X) is not None
        assert changes_of(body, X, ENOUGH) is None


def test_modules_that_count_are_told_of_images_that_go_past_their_code():
    meter = Meter()
    with frozen(Metered(Between().eval(), meter), X, precision="float32") as net:
        changes = changes_of(net, X, ENOUGH)
        near = changes.known(X)
        for count in (4, 4, 3, 3, 3):
            before = meter.passes
            changes(X[:count], near.take(torch.arange(count)))
            assert meter.passes == before + count


def test_where_it_is_not_worth_it(monkeypatch):
    rectified, curved = Between().eval(), Between(F.silu).eval()
    with frozen(rectified, X, precision="float32") as net:
        assert changes_of(net, X, ENOUGH) is not None
        assert changes_of(net, X, ENOUGH - 1) is None
        assert changes_of(net, X[:0], ENOUGH) is None
        monkeypatch.setattr(trial, "MOST_MEMORY", 1000)
        assert changes_of(net, X, ENOUGH) is None
        monkeypatch.undo()
    with frozen(curved, X, precision="float32") as net:
        assert changes_of(net, X, ENOUGH) is None
        assert changes_of(net, X, ENOUGH, gain=False) is not None
    with frozen(rectified, X, precision="bf16") as net:
        assert changes_of(net, X, ENOUGH) is None


def in_parts(z, part):
    return torch.cat([part(each) for each in z.split(4)]) if len(z) >= 8 else z.relu()


@pytest.mark.parametrize(
    "part", [lambda z: z.sort(1)[0], lambda z: z.sigmoid(), lambda z: z.relu()]
)
def test_a_net_that_takes_many_images_another_way_is_left_alone(part):
    net, x = Between(lambda z: in_parts(z, part)).eval(), images(8, side=24)
    with frozen(net, x, precision="float32") as body:
        assert changes_of(body, x[:7], 2 * ENOUGH) is not None
        assert changes_of(body, x, 2 * ENOUGH) is None


def test_running_out_of_memory_is_not_taken_for_a_net_that_cannot_be_followed(monkeypatch):
    def full(self, x):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(Changes, "known", full)
    with (
        frozen(Between().eval(), X, precision="float32") as net,
        pytest.raises(torch.OutOfMemoryError),
    ):
        changes_of(net, X, ENOUGH)
