"""The inner loops keep to the device: no look at a result, no tensor brought over.

Run on torch's meta device, which has shapes and no values: there `bool`, `item` and `nonzero` fail,
as they wait on a GPU, and an operation on tensors of both devices is seen.
"""

from __future__ import annotations

import pytest
import torch
from tests.nets import small_net
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diascope.attacks import FAB, FGSM, MIFGSM, PGD, BoundaryAttack, Square, Threat, windows
from diascope.attacks.ascent import Ascent
from diascope.attacks.boundary import _Walk as BoundaryWalk
from diascope.attacks.climb import Climb
from diascope.attacks.fab import _State as FABState
from diascope.attacks.fab import _Walk as FABWalk
from diascope.attacks.losses import dlr_to, loss_of
from diascope.attacks.square import _Search
from diascope.attacks.starting_points import Oracle
from diascope.randomness import Noise

NORMS = ("linf", "l2", "l1")
COUNT = 4


class Net(nn.Module):
    """A frozen model as far as an inner loop sees it."""

    precision = "float32"

    def __init__(self) -> None:
        super().__init__()
        self.inner = small_net().requires_grad_(False).to("meta")

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class OneDevice(TorchDispatchMode):
    """Refuses what brings numbers or tensors from the host to the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
        places = {t.device.type for t in tensors}
        if len(places) > 1 or ("lift_fresh" in str(func) and "meta" in places):
            raise AssertionError(f"{func} brings something from the host")
        return out


def problem() -> tuple[Net, Tensor, Tensor, Noise]:
    x = torch.empty(COUNT, 3, 16, 16, device="meta")
    y = torch.empty(COUNT, dtype=torch.long, device="meta")
    return Net(), x, y, Noise(7, torch.empty(COUNT, dtype=torch.long, device="meta"))


def eps_of(each: bool) -> float | Tensor:
    return torch.empty(COUNT, device="meta") if each else 0.1


def threat_of(norm: str, each: bool) -> Threat:
    return Threat(norm, 0.1)._with(eps_of(each))  # a tensor without values cannot be checked


def test_the_watch_sees_what_it_should():
    x = torch.empty(3, device="meta")
    with OneDevice():
        _ = x * 2.0
    for offence in (
        lambda: torch.as_tensor(0.3, device="meta"),
        lambda: x[torch.tensor([0, 1])],
        lambda: x * torch.tensor(2.0),
        lambda: torch.ones(3).to("meta"),
    ):
        with OneDevice(), pytest.raises(AssertionError, match="from the host"):
            offence()
    for look in (lambda: bool((x > 0).any()), lambda: (x > 0).nonzero(), lambda: x.tolist()):
        with OneDevice(), pytest.raises((RuntimeError, NotImplementedError)):
            look()


@pytest.mark.parametrize("returns", ["last", "best"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", [FGSM, PGD, MIFGSM])
def test_gradient_attacks(kind, norm, returns):
    net, x, y, noise = problem()
    attack = kind(norm=norm, eps=0.1, returns=returns)
    with OneDevice():
        start = attack._start(attack.threat, x, noise, 0)
        climb = Climb(attack, net, attack._loss(net, x))
        points, _ = climb(x, y, start, attack.threat)
    assert points.shape == x.shape


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_threats(norm, each):
    _, x, _, noise = problem()
    threat = threat_of(norm, each)
    with OneDevice():
        x_adv = threat.random_start(x, noise)
        threat.project(x_adv + threat.steepest(x_adv - x, x_adv), x)


@pytest.mark.parametrize("norm", NORMS)
def test_apgd(norm):
    net, x, y, _ = problem()
    ascent = Ascent(net, dlr_to, threat_of(norm, False), stop_early=False)
    with OneDevice():
        ascent(x, y, y, x, 20)


@pytest.mark.parametrize("targets", [1, None])
@pytest.mark.parametrize("norm", NORMS)
def test_fab(norm, targets):
    net, x, y, _ = problem()
    far = torch.empty(COUNT, device="meta")
    with OneDevice(), torch.no_grad():
        walk = FABWalk(FAB(norm=norm, targets=targets), net, net, None)
        state = FABState(y, x, y, y if targets else None, x, x, far, far)
        for _ in range(2):
            walk._step(net, state)


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_square(norm, each):
    net, x, y, noise = problem()
    with torch.no_grad():
        moves = windows.moves(x, threat_of(norm, each))
        search = _Search(Square(norm=norm), net, noise, 0, loss_of("margin"))
        u = noise.uniform((moves.count,))
        moves.change(moves.x.clone(), u, 0.3)  # keeps the shape of the window
        with OneDevice():
            state = search._begin(moves, y)
            search._try(state, *moves.change(state.at, u, 0.3), 2)


def test_boundary():
    net, x, y, noise = problem()
    attack = BoundaryAttack(memory=20)
    with OneDevice(), torch.no_grad():
        walk = BoundaryWalk(attack, Oracle(net, y, False), y, x, x, noise)
        for query in range(40):
            walk.step(query)
