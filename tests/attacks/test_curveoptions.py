"""Options of the robustness curve: refined, in chunks, transferred, rounded, targeted."""

from __future__ import annotations

import pytest
import torch
from tests.attacks.curves import (
    GRID,
    Pushing,
    Shells,
    independently_broken,
    robust,
    seeded,
    standard,
)
from tests.nets import Linear, images, small_net

from diascope.attacks import (
    FGSM,
    PGD,
    Threat,
    at_eps,
    robustness_curve,
)


def test_refining_comes_nearer_to_the_margin_and_leaves_the_grid():
    weight = torch.randn(2, 3, 4, 4, generator=seeded()).double() / 8
    model, x = Linear(weight), images(30, side=4).double() * 0.2 + 0.4
    y = model(x).argmax(1)
    exact = (model(x)[:, 0] - model(x)[:, 1]).abs() / (weight[1] - weight[0]).abs().sum()
    attack, grid = PGD(norm="linf", steps=4, random_start=False), [0.0, 0.05, 0.1, 0.2]
    coarse, fine = (
        robustness_curve(
            model, x, y, attack=attack, epsilons=grid, refine=n, keep_x_adv=True, chunk=7
        )
        for n in (0, 9)
    )
    broken = coarse.minimal_epsilon.isfinite()
    assert broken.sum() > 10
    assert torch.equal(fine.accuracy, coarse.accuracy)
    assert torch.equal(fine.correct, coarse.correct)
    assert torch.equal(fine.minimal_epsilon.isfinite(), broken)
    assert (fine.minimal_epsilon[broken] >= exact[broken] - 1e-9).all()
    assert (fine.minimal_epsilon[broken] <= exact[broken] + 0.1 / 2**9 + 1e-9).all()
    size = Threat("linf", 0.0).size(fine.x_adv - x)
    assert (size[broken] <= fine.minimal_epsilon[broken] + 1e-12).all()
    assert (model(fine.x_adv).argmax(1) != y)[broken].all()
    assert torch.equal(fine.x_adv[~broken], x[~broken])
    assert coarse.minimal_epsilon.unique().numel() < 5 < fine.minimal_epsilon.unique().numel()


def test_refining_stays_above_what_an_image_withstood():
    x, y = torch.full((2, 1, 2, 2), 0.5).double(), torch.zeros(2).long()
    curve = robustness_curve(
        Shells(), x + 1e-6, y, attack=FGSM(norm="linf"), epsilons=[0.2, 0.3], refine=12
    )
    assert curve.accuracy.tolist() == [1, 0]
    torch.testing.assert_close(curve.minimal_epsilon, x.new_full((2,), 0.25), atol=1e-4, rtol=0)


def test_refining_a_small_point_that_was_found_late_leaves_the_grid():
    attack = Pushing(sizes=((0.0, 0.0), (0.15, 0.1)))  # at 0.2 it finds what it missed at 0.1
    x, y = torch.full((2, 1, 2, 2), 0.5).double(), torch.zeros(2).long()
    curve = robustness_curve(
        Shells(), x, y, attack=attack, epsilons=[0.12, 0.2], refine=5, keep_x_adv=True
    )
    assert curve.accuracy.tolist() == [1, 0]
    assert (curve.minimal_epsilon > 0.12).all()
    assert (curve.minimal_epsilon < 0.13).all()


@pytest.mark.parametrize("refine", [0, 3])
def test_chunks_change_nothing(refine):
    model, x = standard(), images(20).double()
    y = model(x).argmax(1)
    curves = [
        robustness_curve(
            model,
            x,
            y,
            attack=PGD(norm="linf", steps=3),
            epsilons=GRID,
            refine=refine,
            keep_x_adv=True,
            batch_size=batch,
            chunk=chunk,
            generator=seeded(),
        )
        for batch, chunk in ((20, 20), (3, 20), (4, 7), (20, 1))
    ]
    for other in curves[1:]:
        torch.testing.assert_close(
            other.minimal_epsilon, curves[0].minimal_epsilon, atol=1e-9, rtol=0
        )
        torch.testing.assert_close(other.x_adv, curves[0].x_adv, atol=1e-9, rtol=0)
        assert torch.equal(other.attacked, curves[0].attacked)
        assert torch.equal(other.carried, curves[0].carried)
    with pytest.raises(ValueError, match="chunk=-1"):
        robustness_curve(model, x, y, attack=FGSM(), epsilons=[0.1], chunk=-1)


def test_targeted_attacks_count_what_they_want():
    model, x = small_net(seed=2).double(), images(20).double()
    target = 2 - model(x).argmax(1)
    attack = PGD(norm="linf", steps=5, targeted=True)
    curve = robustness_curve(
        model, x, target, attack=attack, epsilons=[0.0, *GRID], generator=seeded(), keep_x_adv=True
    )
    assert curve.accuracy[0] == 1
    assert curve.accuracy[-1] < 0.5
    assert (~curve.correct[:, 1:] | ~independently_broken(model, x, target, attack, GRID)).all()
    hit = curve.minimal_epsilon.isfinite()
    assert torch.equal(model(curve.x_adv).argmax(1) == target, hit)


def test_transfer_is_judged_by_the_other_model_alone():
    source, target, x = robust(), standard(), images(24).double()
    y, attack = target(x).argmax(1), PGD(norm="linf", steps=4, stop_early=True)
    curve, white = (
        robustness_curve(
            model,
            x,
            y,
            attack=attack,
            epsilons=[0.0, *GRID],
            transfer_to=other,
            generator=seeded(),
            keep_x_adv=True,
        )
        for model, other in ((source, target), (target, None))
    )
    assert curve.accuracy[0] == 1
    assert white.accuracy.sum() < curve.accuracy.sum() < 1 + len(GRID)
    hit = curve.minimal_epsilon.isfinite()
    assert torch.equal(target(curve.x_adv).argmax(1) != y, hit)
    full = PGD(norm="linf", steps=4)  # on the source's terms: to the end
    for eps, stands in zip(GRID, curve.correct[:, 1:].T, strict=True):
        x_adv = at_eps(full, eps)(source, x, y, generator=seeded(), ids=torch.arange(24))
        assert (~stands | (target(x_adv).argmax(1) == y)).all()


def test_rounding_counts_what_still_breaks_at_8_bits():
    model, x = standard(), (images(24).double() * 255).round() / 255
    y, attack = model(x).argmax(1), PGD(norm="linf", steps=4, stop_early=True)
    grid = [0.9 / 255, 8.9 / 255, 12.9 / 255, 16.5 / 255]
    plain, rounded = (
        robustness_curve(
            model,
            x,
            y,
            attack=attack,
            epsilons=grid,
            rounding=on,
            generator=seeded(),
            keep_x_adv=True,
            refine=2,
        )
        for on in (False, True)
    )
    assert rounded.accuracy[0] == 1  # less than a grey level does not exist
    assert rounded.accuracy[-1] < 1
    assert plain.accuracy.sum() < rounded.accuracy.sum()
    hit = rounded.minimal_epsilon.isfinite()
    grey = rounded.x_adv * 255
    torch.testing.assert_close(grey, grey.round(), atol=1e-4, rtol=0)
    assert torch.equal(model(rounded.x_adv).argmax(1) != y, hit)
    size = Threat("linf", 0.0).size(rounded.x_adv - x)[hit]
    assert (size <= rounded.minimal_epsilon[hit] + 1e-9).all()
    for eps, stands in zip(grid, rounded.correct.T, strict=True):
        x_adv = PGD(norm="linf", steps=4, eps=eps)(
            model, x, y, generator=seeded(), ids=torch.arange(24)
        )
        after = model(Threat("linf", eps).round(x_adv, x)).argmax(1)
        assert (~stands | (after == y)).all()
    with pytest.raises(ValueError, match="not at 8 bits"):
        robustness_curve(model, x + 0.001 * (x < 0.9), y, attack=attack, epsilons=grid, rounding=1)
