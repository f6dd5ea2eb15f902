"""The losses against their formulas, head by head."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.nets import balanced_net, images, small_net

from diascope.attacks import FGSM, MIFGSM, PGD
from diascope.attacks.base import NoGradientWarning, is_broken, verdict
from diascope.attacks.losses import dlr, dlr_to, loss_of, margin, margin_to
from diascope.models.heads import cross_entropy
from diascope.randomness import Noise

LOGITS = torch.tensor([[3.0, 1.0, -1.0, 0.5], [0.0, 2.0, 5.0, 1.0]], dtype=torch.float64)
Y = torch.tensor([0, 1])


def test_margin_and_ratio_by_hand():
    torch.testing.assert_close(margin(LOGITS, Y), torch.tensor([-2.0, 3.0]).double())
    torch.testing.assert_close(dlr(LOGITS, Y), torch.tensor([-2 / 2.5, 3 / 4]).double())
    t = torch.tensor([3, 0])
    torch.testing.assert_close(margin_to(LOGITS, Y, t), torch.tensor([-2.5, -2.0]).double())
    found = dlr_to(LOGITS, Y, t)  # z1 - (z3 + z4) / 2: 3 + 0.25 and 5 - 0.5
    torch.testing.assert_close(found, torch.tensor([-2.5 / 3.25, -2.0 / 4.5]).double())


def test_the_ratio_neither_shifts_nor_scales():
    torch.testing.assert_close(dlr(LOGITS * 7 + 3, Y), dlr(LOGITS, Y))


def test_margin_serves_where_the_ratio_is_undefined():
    two, y = LOGITS[:, :2], torch.tensor([1, 1])
    torch.testing.assert_close(dlr(two, y), margin(two, y))
    torch.testing.assert_close(dlr_to(LOGITS[:, :3], Y, 1 - Y), margin_to(LOGITS[:, :3], Y, 1 - Y))


@pytest.mark.parametrize("head", ["one logit", "classes", "multi-label"])
def test_margin_is_positive_where_the_image_is_misclassified(head):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(200, 1 if head == "one logit" else 4, generator=generator)
    if head == "multi-label":
        y = torch.randint(2, (200, 4), generator=generator).float()
    else:
        y = torch.randint(2 if head == "one logit" else 4, (200,), generator=generator)
    assert torch.equal(margin(logits, y) > 0, is_broken(logits, y))
    assert 10 < is_broken(logits, y).sum() < 199


def test_one_logit_stands_for_two():
    z = torch.tensor([[2.0], [-1.0]])
    both, y = torch.cat([torch.zeros(2, 1), z], 1), torch.tensor([1, 1])
    torch.testing.assert_close(margin(z, y), margin(both, y))
    torch.testing.assert_close(cross_entropy(z, y), cross_entropy(both, y))


def test_targeted_climbs_down_and_unknown_losses_are_refused():
    torch.testing.assert_close(loss_of("margin", targeted=True)(LOGITS, Y), -margin(LOGITS, Y))
    with pytest.raises(ValueError, match="ce, margin, dlr"):
        PGD(loss="hinge")
    assert is_broken(LOGITS, torch.tensor([0, 1]), targeted=True).tolist() == [True, False]


@pytest.mark.parametrize("loss", ["ce", "margin", "dlr"])
def test_every_loss_breaks_what_can_be_broken(loss):
    model, x = balanced_net(4, seed=2), images(32)
    y = model(x).argmax(1)
    x_adv = PGD(norm="l2", eps=2.0, steps=10, loss=loss)(model, x, y)
    assert verdict(model, x_adv, y).float().mean() > 0.9


def test_restarts_never_leave_more_standing():
    model, x = balanced_net(seed=7), images(64)
    y = model(x).argmax(1)
    left = []
    for restarts in (1, 4, 12):
        attack = PGD(
            norm="linf", eps=0.02, steps=1, rel_step_size=0.5, restarts=restarts, stop_early=True
        )
        x_adv = attack(model, x, y, generator=torch.Generator().manual_seed(0))
        left.append(int((~verdict(model, x_adv, y)).sum()))
    assert left[0] >= left[1] >= left[2]
    assert 0 < left[0] < 64
    assert left[2] < left[0]


@pytest.mark.parametrize("member", [FGSM, PGD, MIFGSM])
def test_stopping_early_keeps_what_was_broken_on_the_way(member):
    """Without it the last point counts, with it any on the way: nothing is lost, work is saved."""
    model, x = balanced_net(seed=6), images(48)
    y = model(x).argmax(1)
    seen = []
    model[0].register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    results = {}
    for early in (False, True):
        seen.clear()
        options = {} if member is FGSM else {"steps": 12}
        attack = member(norm="linf", eps=0.2, stop_early=early, **options)
        x_adv = attack(model, x, y, generator=torch.Generator().manual_seed(0))
        results[early] = (verdict(model, x_adv, y), sum(seen))
    assert (results[True][0] >= results[False][0]).all()
    if member is not FGSM:
        assert results[True][1] < 0.8 * results[False][1]


def test_a_start_of_ones_own_is_one_more_run():
    model, x = balanced_net(seed=6), images(16)
    y = model(x).argmax(1)
    attack = PGD(norm="linf", eps=0.05, steps=1, step_size=1e-6, random_start=False)
    strong = PGD(norm="linf", eps=0.05, steps=20)(model, x, y)
    plain = cross_entropy(model(attack(model, x, y)), y)
    begun = cross_entropy(model(attack(model, x, y, start=strong)), y)
    assert (begun > plain).all()
    outside = attack(model, x, y, start=torch.ones_like(x))
    assert (outside - x).abs().max() <= 0.05 + 1e-6


def test_momentum_follows_its_recurrence():
    """Two steps on a small net, computed by hand (Dong et al. 2018, equations 6 and 7)."""
    model, x = small_net().double(), images(3).double()
    y, eps, decay = torch.arange(3), 0.1, 0.7
    point, memory = x, torch.zeros_like(x)
    for _ in range(2):
        leaf = point.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(cross_entropy(model(leaf), y).sum(), leaf)
        memory = decay * memory + gradient / gradient.abs().sum((1, 2, 3), keepdim=True)
        point = (x + (point + eps / 2 * memory.sign() - x).clamp(-eps, eps)).clamp(0, 1)
    found = MIFGSM(norm="linf", eps=eps, steps=2, decay=decay)(model, x, y)
    torch.testing.assert_close(found, point)


def test_what_bfloat16_found_is_confirmed_in_float32():
    model, x = balanced_net(seed=6), images(64)
    y = model(x).argmax(1)
    eps = torch.full((64,), 0.03)
    left = {}
    for precision in ("float32", "bf16"):
        attack = PGD(norm="linf", eps=eps, steps=10, stop_early=True, precision=precision)
        x_adv = attack(model, x, y, generator=torch.Generator().manual_seed(0))
        assert ((x_adv - x).abs().amax((1, 2, 3)) <= eps + 1e-6).all()
        left[precision] = int((~verdict(model, x_adv, y)).sum())
    assert 0 < left["float32"] < 64
    assert left["bf16"] <= left["float32"] + 1


def test_says_where_there_is_no_gradient_to_follow():
    """A head so sure that the cross-entropy is flat in float32; its margin is not."""
    model, x = balanced_net(seed=6), images(8)
    with torch.no_grad():
        model[-1].weight.mul_(1e5)
        model[-1].bias.mul_(1e5)
    y = model(x).argmax(1)
    with pytest.warns(NoGradientWarning, match=r"zero for \d of 8 images"):
        PGD(norm="l2", eps=0.5, steps=3, random_start=False, stop_early=True)(model, x, y)
    sure = PGD(norm="l2", eps=0.5, steps=3, loss="margin", random_start=False, stop_early=True)
    assert verdict(model, sure(model, x, y), y).any()
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode"):
        FGSM()(balanced_net(), x, y)


def test_a_tie_in_bfloat16_costs_no_steps():
    """100.0 and 100.2 are the same in bfloat16: nothing may leave on that."""

    class Tied(torch.nn.Module):
        def forward(self, x):
            z = x.flatten(1).mean(1)
            return torch.stack([100.2 + 0 * z, 100.0 + 4 * (z - 0.5)], 1)

    x = torch.full((4, 3, 8, 8), 0.5)
    y = torch.zeros(4).long()
    attack = PGD(norm="linf", eps=0.1, steps=10, stop_early=True, precision="bf16")
    assert verdict(Tied(), attack(Tied(), x, y), y).all()


def divergence(model, x, x_adv):
    p, q = model(x).log_softmax(1), model(x_adv).log_softmax(1)
    return (p.exp() * (p - q)).sum(1)


def test_the_divergence_is_climbed_from_beside_the_image():
    model, x = small_net().double(), images(4).double()
    seeded = lambda: torch.Generator().manual_seed(1)
    found = FGSM(loss="kl", eps=0.05)(model, x, torch.zeros(4).long(), generator=seeded())
    other = FGSM(loss="kl", eps=0.05)(model, x, torch.ones(4).long(), generator=seeded())
    assert torch.equal(found, other)  # no label is asked
    beside = (x + 1e-3 * Noise.of(x, seeded(), None).normal(x.shape[1:])).clamp(0, 1)
    beside = (x + (beside - x).clamp(-0.05, 0.05)).requires_grad_()
    (gradient,) = torch.autograd.grad(divergence(model, x, beside).sum(), beside)
    by_hand = x + (beside.detach() + 0.05 * gradient.sign() - x).clamp(-0.05, 0.05)
    torch.testing.assert_close(found, by_hand.clamp(0, 1))


@pytest.mark.parametrize("attack", [PGD, MIFGSM])
@pytest.mark.parametrize("start", [True, False])
def test_more_steps_climb_the_divergence_further_than_the_cross_entropy_does(attack, start):
    model, x, y = balanced_net(), images(16), torch.arange(16) % 3
    plan = attack(eps=0.03, steps=10, random_start=start, loss="kl", precision="float32")
    value = lambda plan: divergence(model, x, plan(model, x, y, generator=torch.Generator()))
    climbed = value(plan).mean()
    assert climbed > value(replace(plan, steps=1)).mean()
    assert climbed > value(replace(plan, loss="ce")).mean()


@pytest.mark.parametrize("options", [{"targeted": True}, {"stop_early": True}, {"restarts": 2}])
def test_the_divergence_knows_no_label(options):
    with pytest.raises(ValueError, match="knows no label"):
        PGD(loss="kl", **options)
