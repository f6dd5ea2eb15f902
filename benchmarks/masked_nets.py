"""Small pictures, honest nets that tell them apart, and nets and attacks with a planted fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diascope.attacks import PGD
from diascope.attacks.base import verdict
from diascope.models import create_model

PLACES = ((2, 2), (2, 9), (9, 2), (9, 9), (6, 6))  # of the square, for side 16


def pictures(
    count: int, classes: int = 3, side: int = 16, channels: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return images (N, C, H, W) at 8 bits in [0, 1] and labels (N,), each class in its turn.

    A brighter square of 5 x 5 stands near the place of its class, on noise about a grey that varies
    from image to image.
    """
    g = torch.Generator().manual_seed(seed)
    y, scale = torch.arange(count) % classes, side / 16
    x = 0.35 + 0.1 * torch.rand(count, 1, 1, 1, generator=g)
    x = x + 0.12 * torch.randn(count, channels, side, side, generator=g)
    for i, kind in enumerate(y.tolist()):
        down, across = (torch.randint(-1, 2, (2,), generator=g) * scale).int().tolist()
        top, left = (int(place * scale) for place in PLACES[kind])
        light = 0.1 + 0.12 * torch.rand(1, generator=g)
        size = int(5 * scale)
        x[i, :, top + down : top + down + size, left + across : left + across + size] += light
    return (x.clamp(0, 1) * 255).round() / 255, y


class Centred(nn.Module):
    """Pixels in [0, 1] to values about 0."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.45) / 0.2


def conv_net(
    outputs: int = 3, act: Callable[[], nn.Module] = nn.ReLU, norm: bool = False, pool: str = "avg"
) -> nn.Sequential:
    """Two convolutions, pooling to 4 x 4, one hidden layer."""
    pooling = nn.AdaptiveAvgPool2d(4) if pool == "avg" else nn.AdaptiveMaxPool2d(4)
    return nn.Sequential(
        Centred(),
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8) if norm else nn.Identity(),
        act(),
        nn.Conv2d(8, 16, 3, padding=1, stride=2),
        nn.BatchNorm2d(16) if norm else nn.Identity(),
        act(),
        pooling,
        nn.Flatten(),
        nn.Linear(256, 32),
        act(),
        nn.Linear(32, outputs),
    )


def trained(
    build: Callable[[], nn.Module],
    *,
    classes: int = 3,
    steps: int = 80,
    side: int = 16,
    eps: float = 0.0,
    norm: str = "linf",
    seed: int = 0,
    count: int = 1500,
) -> nn.Module:
    """Return a net in eval mode, trained on `pictures`; with eps, on PGD's examples of 5 steps."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = build()
        x, y = pictures(count, classes, side, seed=seed + 1000)
        optimiser = torch.optim.Adam(net.parameters(), lr=2e-3, weight_decay=1e-3)
        attack = PGD(norm=norm, eps=eps, steps=5) if eps else None  # type: ignore[arg-type]
        for step in range(steps):
            rows = torch.randperm(count)[:72]
            xs = x[rows]
            if attack is not None and step >= steps // 4:
                xs = attack(net, xs, y[rows])
            net.train()
            logits = net(xs)
            if logits.shape[1] == 1:
                loss = F.binary_cross_entropy_with_logits(logits[:, 0], y[rows].float())
            else:
                loss = F.cross_entropy(logits, y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return net.eval().requires_grad_(False)


def mlp(outputs: int = 3, side: int = 16) -> nn.Sequential:
    size = 3 * side * side
    return nn.Sequential(
        Centred(), nn.Flatten(), nn.Linear(size, 64), nn.ReLU(), nn.Linear(64, outputs)
    )


def linear(outputs: int = 3, side: int = 16) -> nn.Sequential:
    return nn.Sequential(Centred(), nn.Flatten(), nn.Linear(3 * side * side, outputs))


def resnet(outputs: int = 3) -> nn.Module:
    return create_model("resnet18", outputs, layers=[1, 1, 1, 1], channels=[8, 16, 16, 16])


@dataclass(frozen=True)
class Honest:
    """A net without a fault, and how it is audited."""

    name: str
    build: Callable[[], nn.Module]
    options: dict[str, Any]
    norm: str = "linf"

    @property
    def classes(self) -> int:
        """How many classes its task has."""
        return int(self.options.get("classes", 3))

    @property
    def side(self) -> int:
        """The side of its images."""
        return int(self.options.get("side", 16))


HONEST = (
    Honest("conv relu", conv_net, {}),
    Honest("conv relu, other seed", conv_net, {"seed": 1}, "l2"),
    Honest("conv batch-norm", lambda: conv_net(norm=True), {"steps": 120}),
    Honest("conv gelu", lambda: conv_net(act=nn.GELU), {}, "l2"),
    Honest("conv tanh", lambda: conv_net(act=nn.Tanh), {"seed": 2}),
    Honest("conv max-pool", lambda: conv_net(pool="max"), {}, "l1"),
    Honest("conv silu, 32 px", lambda: conv_net(act=nn.SiLU), {"side": 32}, "l2"),
    Honest("mlp", mlp, {}),
    Honest("linear", linear, {}, "l2"),
    Honest("linear, one logit", lambda: linear(1), {"classes": 2}, "l1"),
    Honest("one logit", lambda: conv_net(1), {"classes": 2}),
    Honest("two logits", lambda: conv_net(2), {"classes": 2}, "l2"),
    Honest("five classes", lambda: conv_net(5), {"classes": 5, "steps": 150}),
    Honest("resnet, 32 px", resnet, {"side": 32, "steps": 60}, "l2"),
    Honest("trained long", conv_net, {"steps": 400, "seed": 3}),
    Honest("adversarial linf 8/255", conv_net, {"eps": 8 / 255, "steps": 150, "seed": 4}),
    Honest("adversarial linf 16/255", conv_net, {"eps": 16 / 255, "steps": 200, "seed": 5}),
    Honest("adversarial l2 0.5", conv_net, {"eps": 0.5, "norm": "l2", "steps": 150}, "l2"),
    Honest("adversarial l1 4", conv_net, {"eps": 4.0, "norm": "l1", "steps": 120}, "l1"),
    Honest(
        "adversarial, one logit",
        lambda: conv_net(1),
        {"classes": 2, "eps": 8 / 255, "steps": 150},
    ),
)
GRIDS = {  # epsilons of an audit, and the one at which it reports
    "linf": ((2 / 255, 4 / 255, 8 / 255, 16 / 255, 32 / 255), 8 / 255),
    "l2": ((0.125, 0.25, 0.5, 1.0, 2.0), 0.5),
    "l1": ((1.0, 2.0, 4.0, 8.0, 16.0), 4.0),
}


class Wrapped(nn.Module):
    """A net behind a faulty layer."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


class Quantised(Wrapped):
    """Pixels rounded to nine levels, whose gradient is zero."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(torch.round(x * 8) / 8)


class Stepped(Wrapped):
    """Pixels through a staircase with a faint slope, as of a JPEG: a gradient that tells little."""

    def forward(self, x: Tensor) -> Tensor:
        high = 0.02 * torch.sin(2000 * x + 37 * torch.arange(x.shape[-1]))
        return self.inner(torch.round(x * 10) / 10 + high)


class Noisy(Wrapped):
    """Gaussian noise on the pixels at test time."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + 0.15 * torch.randn_like(x))


class Dropping(Wrapped):
    """Dropout of pixels at test time."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(F.dropout(x, 0.3, training=True))


class Saturated(Wrapped):
    """Logits a thousand times too large."""

    def forward(self, x: Tensor) -> Tensor:
        return 1000 * self.inner(x)


class Probabilities(Wrapped):
    """Probabilities instead of logits."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)


class SharpProbabilities(Wrapped):
    """Probabilities of a head that is always sure."""

    def forward(self, x: Tensor) -> Tensor:
        return (20 * self.inner(x)).softmax(1)


class Cut(Wrapped):
    """A graph that ends before it reaches the image."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.detach()) + 0 * x.sum()


class Rootless(Wrapped):
    """A square root at zero: the values are right and the gradients are not numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + (x - x).sqrt())


class _Turned(torch.autograd.Function):
    """The identity, whose gradient is turned round where `where` holds."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, where: Tensor) -> Tensor:
        ctx.save_for_backward(where)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (where,) = ctx.saved_tensors
        return torch.where(where, -gradient, gradient), None


class TurnedOffGrid(Wrapped):
    """Gradients that are right at images of 8 bits and turned round everywhere else."""

    def forward(self, x: Tensor) -> Tensor:
        off = ((x * 255) - (x * 255).round()).abs().flatten(1).amax(1) > 1e-3
        return self.inner(_Turned.apply(x, off.view(-1, 1, 1, 1)))


class TurnedFarAway(Wrapped):
    """Gradients turned round where the image is rougher than any of the task."""

    def forward(self, x: Tensor) -> Tensor:
        rough = (x[..., 1:] - x[..., :-1]).abs().flatten(1).mean(1) > 0.148
        return self.inner(_Turned.apply(x, rough.view(-1, 1, 1, 1)))


class Turned(Wrapped):
    """Gradients turned round everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        everywhere = torch.ones(len(x), 1, 1, 1, dtype=torch.bool, device=x.device)
        return self.inner(_Turned.apply(x, everywhere))


class Ripples(Wrapped):
    """Ripples finer than a grey level on every logit, too low to change a verdict far away."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        phase = 4000 * x.flatten(1)
        half = phase.shape[1] // 2
        waves = torch.stack([phase[:, :half].sin().mean(1), phase[:, half:].sin().mean(1)], 1)
        return logits + F.pad(waves, (0, logits.shape[1] - 2))


class Distilled(Wrapped):
    """Logits 60 times too large, as defensive distillation leaves them: cross-entropy is blind."""

    def forward(self, x: Tensor) -> Tensor:
        return 60 * self.inner(x)


class InBatch(Wrapped):
    """Logits less their mean over the batch: an image's depend on its neighbours."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        return logits - 0.5 * logits.mean(0, keepdim=True)


@dataclass(frozen=True, kw_only=True)
class Leaving(PGD):
    """PGD that ends twice as far away as it may."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, **options: Any) -> Tensor:
        found = super().__call__(model, x, y, **options)
        return (x + 2 * (found - x)).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class Losing(PGD):
    """PGD that gives back the image itself in place of every other find."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, **options: Any) -> Tensor:
        found = super().__call__(model, x, y, **options)
        lost = verdict(model, found, y) & (torch.arange(len(x), device=x.device) % 2 == 1)
        return torch.where(lost.view(-1, 1, 1, 1), x, found)


@dataclass(frozen=True, kw_only=True)
class Sharing(PGD):
    """PGD from a start that depends on how many images are attacked together."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, **options: Any) -> Tensor:
        options["ids"] = options["ids"] + 1000 * len(x)
        return super().__call__(model, x, y, **options)


@dataclass(frozen=True, kw_only=True)
class Timid(PGD):
    """PGD whose steps are far too short to reach the border."""

    rel_step_size: float | None = 0.02
    random_start: bool = False


class Lopsided(Wrapped):
    """A head that leans to the first class: the others pay for its robustness."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        lean = torch.zeros_like(logits[0])
        lean[0] = 10
        return logits + lean


@dataclass(frozen=True)
class Planted:
    """A fault: a layer around an honest net or an attack, and the checks that must fail for it."""

    name: str
    fails: tuple[str, ...]
    layer: Callable[[nn.Module], nn.Module] | None = None
    attack: PGD | None = None


PLANTED = (
    Planted("rounds its pixels", ("black_box", "unbounded", "gradients"), Quantised),
    Planted("staircase with ripples", ("unbounded", "agreement"), Stepped),
    Planted("noise at test time", ("stochastic",), Noisy),
    Planted("dropout at test time", ("noise", "stochastic"), Dropping),
    Planted("logits times 1000", ("gradients", "losses"), Saturated),
    Planted("distilled", ("gradients", "losses"), Distilled),
    Planted("returns probabilities", ("logits",), Probabilities),
    Planted("probabilities, always sure", ("gradients", "logits"), SharpProbabilities),
    Planted("cut graph", ("gradients", "agreement"), Cut),
    Planted("NaN gradients", ("gradients", "agreement"), Rootless),
    Planted("turned off the grid", ("iterative", "agreement"), TurnedOffGrid),
    Planted("turned far away", ("iterative", "monotone"), TurnedFarAway),
    Planted("turned everywhere", ("unbounded", "agreement"), Turned),
    Planted("ripples on the logits", ("agreement", "losses"), Ripples),
    Planted("logits depend on the batch", ("contract",), InBatch),
    Planted("leans to a class", ("reported",), Lopsided),
    Planted("attack leaves its ball", ("contract",), attack=Leaving()),
    Planted("attack loses what it broke", ("returned",), attack=Losing()),
    Planted("attack depends on the batch", ("contract",), attack=Sharing()),
    Planted("attack of timid steps", ("iterative", "plateau", "contract"), attack=Timid()),
)
