"""The brief climb that goes ahead of the attack in a robustness curve, and the proof after it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from tests.attacks.curves import GRID, counted, independently_broken, robust, seeded, standard
from tests.nets import images, small_net
from torch import nn

from diascope.attacks import APGD, FGSM, MIFGSM, PGD, Square, robustness_curve
from diascope.attacks.base import NoGradientWarning, verdict
from diascope.attacks.threat import Threat


def curve_of(model, x, y, attack, grid=GRID, **options):
    return robustness_curve(
        model, x, y, attack=attack, epsilons=grid, generator=seeded(), **options
    )


@dataclass(frozen=True, kw_only=True)
class Pushing:
    """Adds `size` to every pixel where eps is at least `least`, and notes how it was called."""

    norm: str = "linf"
    eps: float | torch.Tensor = 0.1
    least: float = 0.0
    size: float = 0.0
    ahead: tuple[float, float] | None = None  # least and size of what goes ahead
    calls: list = field(default_factory=list, compare=False)

    def brief(self):
        least, size = self.ahead
        return Pushing(norm=self.norm, least=least, size=size, calls=self.calls)

    def __call__(self, model, x, y, *, start=None, ahead=False, generator=None, ids=None):
        eps = torch.as_tensor(self.eps, dtype=x.dtype).expand(len(x))
        self.calls.append((ahead, start is not None, eps.tolist()))
        size = torch.where(eps >= self.least - 1e-9, self.size, 0.0)
        return x + size.view(-1, 1, 1, 1)


class Bright(nn.Module):
    def forward(self, x):
        beyond = x.mean((1, 2, 3)) - 0.55
        return torch.stack([-beyond, beyond], 1)


def pushed(attack, grid=(0.1, 0.2, 0.3), **options):
    """The curve of images at 0.5, of which the model tells whether they are above 0.55."""
    model = Bright()
    x, y = torch.full((3, 1, 2, 2), 0.5), torch.zeros(3, dtype=torch.long)
    assert not verdict(model, x, y).any()
    return curve_of(model, x, y, attack, list(grid), **options)


def test_what_the_brief_climb_misses_is_found_from_the_largest_epsilon_down():
    attack = Pushing(least=0.2, size=0.1, ahead=(9.0, 0.0))
    curve = pushed(attack, keep_x_adv=True)
    assert torch.allclose(curve.minimal_epsilon, torch.tensor(0.2).double())
    in_full = [eps for ahead, _, eps in attack.calls if not ahead]
    assert [round(e[0], 6) for e in in_full] == [0.3, 0.2, 0.1]
    assert torch.allclose(curve.x_adv, torch.tensor(0.6))
    assert curve.attacked.tolist() == [3, 3, 3]


def test_what_the_brief_climb_breaks_is_attacked_in_full_below_it_alone():
    attack = Pushing(least=9.0, ahead=(0.2, 0.1))
    curve = pushed(attack)
    assert torch.allclose(curve.minimal_epsilon, torch.tensor(0.2).double())
    assert [(ahead, given) for ahead, given, _ in attack.calls] == [
        (True, True),
        (True, True),
        (False, False),
    ]
    assert attack.calls[-1][2] == pytest.approx([0.1] * 3)


def test_nothing_is_attacked_in_full_that_falls_at_the_smallest():
    attack = Pushing(least=9.0, ahead=(0.0, 0.1))
    assert torch.allclose(pushed(attack).minimal_epsilon, torch.tensor(0.1).double())
    assert all(ahead for ahead, *_ in attack.calls)


def test_progress_adds_up_however_an_image_falls_and_0_needs_no_proof():
    model, x, told, grid = standard(), images(40).double(), [], [0.0, *GRID[:3]]
    y = model(x).argmax(1)
    y[:3] = (y[:3] + 1) % 3  # broken as they are
    weak = Weakly(steps=16)
    curve = curve_of(model, x, y, weak, grid, progress=told.append, chunk=11)
    assert sum(told) == 40 * 4
    assert all(count >= 0 for count in told)
    assert curve.attacked[0] == 0
    assert (curve.minimal_epsilon == 0).sum() == 3
    assert curve.minimal_epsilon.isinf().any()
    ahead = curve_of(model, x, y, weak.brief(), grid, warm="verdict")
    assert (curve.minimal_epsilon < ahead.minimal_epsilon).any()  # which the proof broke


@dataclass(frozen=True, kw_only=True)
class Weakly(PGD):
    """Is led by a climb too short to find most of what there is."""

    def brief(self):
        return PGD(norm=self.norm, steps=1, rel_step_size=0.3)


@pytest.mark.parametrize("build", [standard, robust])
@pytest.mark.parametrize(
    ("attack", "size"),
    [
        (PGD(steps=16), 1),
        (MIFGSM(steps=8), 1),
        (APGD(steps=12), 1),
        (PGD(steps=3, loss="margin"), 1),
        (Weakly(steps=8), 1),
        (PGD(norm="l2", steps=8), 17),
        (PGD(norm="l1", steps=8), 150),
    ],
    ids=["pgd", "mifgsm", "apgd", "short", "weakly led", "l2", "l1"],
)
def test_where_an_image_stands_the_attack_in_full_has_failed(build, attack, size):
    model, x, grid = build(), images(32).double(), [eps * size for eps in GRID]
    y = model(x).argmax(1)
    curve = curve_of(model, x, y, attack, grid, keep_x_adv=True, chunk=9)
    alone = independently_broken(model, x, y, attack, grid)
    last = curve.correct.sum(1) - 1  # the largest epsilon that each withstands
    assert len(last.unique()) > 2
    assert not alone[torch.arange(32), last.clamp_min(0)][last >= 0].any()
    broken = curve.minimal_epsilon.isfinite()
    assert verdict(model, curve.x_adv, y)[broken].all()
    away = Threat(attack.norm, 0.0).size(curve.x_adv - x)
    assert (away <= curve.minimal_epsilon * (1 + 1e-6))[broken].all()
    # and it is no weaker than attacks made alone, on the whole
    assert (curve.accuracy <= 1 - alone.double().mean(0)).all()


def test_it_costs_less_and_breaks_no_less_than_attacks_at_every_epsilon():
    x, attack = images(32).double(), PGD(steps=16)
    counts, curves = {}, {}
    for warm in ("lead", "verdict"):
        model = robust()
        y, seen = model(x).argmax(1), counted(model)
        curves[warm] = curve_of(model, x, y, attack, warm=warm)
        counts[warm] = sum(seen)
    assert counts["lead"] < 0.7 * counts["verdict"]
    assert (curves["lead"].accuracy <= curves["verdict"].accuracy).all()


@dataclass(frozen=True, kw_only=True)
class Own(PGD):
    """A member that takes no start, as `Attack` allows."""

    def __call__(self, model, x, y, *, generator=None, ids=None):
        return super().__call__(model, x, y, generator=generator, ids=ids)


def test_only_attacks_that_know_a_brief_one_and_take_a_start_are_led():
    model, x = standard(), images(8).double()
    y = model(x).argmax(1)
    for attack in (Square(queries=20), FGSM(), Own(steps=8)):
        led, plain = (curve_of(model, x, y, attack, warm=warm) for warm in ("lead", "verdict"))
        assert torch.equal(led.minimal_epsilon, plain.minimal_epsilon)


def test_examples_for_another_model_are_made_in_full_at_every_epsilon():
    model, other, x = standard(), small_net(seed=8).double(), images(24).double()
    y = other(x).argmax(1)
    led, plain = (
        curve_of(model, x, y, PGD(steps=8), warm=warm, transfer_to=other)
        for warm in ("lead", "verdict")
    )
    assert torch.equal(led.minimal_epsilon, plain.minimal_epsilon)


@pytest.mark.parametrize(
    ("attack", "steps", "path"),
    [
        (PGD(steps=40, rel_step_size=1 / 30), 5, 40 / 30),
        (PGD(steps=10, step_size=0.02, eps=0.1), 4, 2.0),
        (PGD(steps=20), 4, 2.5),
        (PGD(steps=3, rel_step_size=0.5), 3, 1.5),
        (MIFGSM(steps=64), 8, 1.0),
    ],
)
def test_a_brief_climb_may_go_as_far(attack, steps, path):
    brief = attack.brief()
    assert type(brief) is type(attack)
    assert brief.steps == steps
    assert brief.steps * brief._step_size() / brief.eps == pytest.approx(path)


@pytest.mark.parametrize("attack", [PGD(steps=5, restarts=3), APGD(steps=5, restarts=2)])
def test_ahead_begins_at_the_given_points_and_nowhere_else(attack):
    model, x = robust(), images(4).double()
    y, seen = model(x).argmax(1), counted(model)
    start = (x + 0.5 * attack.eps).clamp(0, 1)
    found = [
        attack(model, x, y, start=start, ahead=True, generator=seeded(seed)) for seed in (0, 1)
    ]
    assert torch.equal(*found)  # nothing was drawn
    once = sum(seen) / 2
    seen.clear()
    attack(model, x, y, start=start, generator=seeded())
    assert sum(seen) > 1.5 * once


def test_what_goes_ahead_does_not_warn_of_what_the_attack_itself_will_try():
    model = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(3 * 8 * 8, 2)).double()
    x = -torch.ones(4, 3, 8, 8).double() * 0  # at the kink, where there is no gradient
    y = model(x).argmax(1)
    with pytest.warns(NoGradientWarning) as caught:
        PGD(steps=4, stop_early=True, random_start=False)(model, x, y)
    assert len(caught) == 1
    assert PGD(steps=4, stop_early=True)(model, x, y, start=x, ahead=True).shape == x.shape


def test_in_bfloat16_what_goes_ahead_has_no_last_pass_and_the_verdicts_are_the_model_s():
    model, x = small_net(seed=5), images(32)
    y, attack = model(x).argmax(1), PGD(steps=16, precision="bf16")
    curve = curve_of(model, x, y, attack, keep_x_adv=True)
    broken = curve.minimal_epsilon.isfinite()
    assert broken.sum() > 0
    assert verdict(model, curve.x_adv, y)[broken].all()
    plain = curve_of(model, x, y, attack, warm="verdict")
    assert (curve.accuracy <= plain.accuracy + 1 / 32).all()
    for ahead, passes in ((False, 2), (True, 0)):  # a tenth of 16 steps, in float32
        exact = []
        still = PGD(steps=16, eps=1e-6, precision="bf16", stop_early=True)
        net = small_net(seed=5)
        net.register_forward_hook(
            lambda module, given, out, exact=exact: exact.append(given[0].requires_grad)
        )
        still(net, x, y, start=x, ahead=ahead)
        low = 16 * (1 if ahead else 2)  # the given start, and the attack's own
        assert sum(exact) - low == passes
