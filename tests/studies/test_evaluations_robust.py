"""Robustness: against linear nets, whose smallest perturbations are known by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.studies.exams import exam_of, line, pixels_of

from diascope.attacks import APGD
from diascope.errors import UserError
from diascope.studies.evaluations import EVALUATIONS
from diascope.studies.evaluations.besieging import Siege, strong

CHEAP = {"steps": 10, "queries": 20, "masking_images": 0}
TWICE = {"fgsm": "fgsm", "climb": {"name": "pgd", "steps": 5}}


def robust(**settings):
    return EVALUATIONS.build({"name": "robust", **CHEAP, **settings})


def smallest(net, pixels, norm):
    """Return the smallest perturbation that breaks each image of a linear net of two classes."""
    x, y = pixels.x(), pixels.y()
    with torch.no_grad():
        logits = net(x)
        margin = logits.gather(1, y[:, None]) - logits.gather(1, 1 - y[:, None])
    slope = (net.weight[0] - net.weight[1]).detach().flatten()
    size = margin[:, 0] / slope.norm(1 if norm == "linf" else 2)
    return size.clamp_min(0).double().numpy()


def between(sizes, shares=(0.3, 0.6, 0.85)):
    """Return epsilons in the middle of gaps between sizes, and one that is beyond them all."""
    known = np.unique(sizes[sizes > 0])
    places = [int(share * len(known)) for share in shares]
    return [round(float(known[k - 1 : k + 1].mean()), 6) for k in places] + [float(known[-1] * 2)]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_strongest_finds_the_smallest_epsilon_of_a_linear_net(norm):
    pixels, net = pixels_of(), line(seed=1)
    sizes = smallest(net, pixels, norm)
    grid = between(sizes)
    found = robust(norm=norm, epsilons=grid, attacks=TWICE)(exam_of(net, pixels)).columns
    for eps in grid:
        assert (found[f"strongest@{eps:g}"] == (sizes > eps)).all()
        for name in TWICE:
            assert (found[f"{name}@{eps:g}"] >= found[f"strongest@{eps:g}"]).all()
    edges = np.array([0.0, *grid])
    assert (found["minimal_epsilon"] == edges[np.searchsorted(edges, sizes)]).all()
    assert (sizes == 0).any()
    assert 0 < found[f"strongest@{grid[0]:g}"].mean() < 1


def test_fgsm_breaks_a_linear_net_where_it_must_and_an_attack_that_cannot_move_does_not():
    pixels, net = pixels_of(), line(seed=1)
    sizes = smallest(net, pixels, "linf")
    grid = between(sizes)
    tiny = {"name": "pgd", "steps": 1, "rel_step_size": 1e-4, "random_start": False}
    found = robust(epsilons=grid, attacks={"fgsm": "fgsm", "still": tiny})(exam_of(net, pixels))
    for eps in grid:
        assert (found.columns[f"fgsm@{eps:g}"] == (sizes > eps)).all()
        assert (found.columns[f"still@{eps:g}"] == (sizes > 0)).all()
    known, rest = "the attacks above", found.about["broke_first"]
    assert rest.pop(known) == (sizes > 0).sum()
    assert set(rest.values()) == {0}


def test_a_masked_gradient_is_seen_and_broken():
    """A loss that is exactly zero stops PGD; others find the same net as weak as it is."""
    pixels, net = pixels_of(), line(1e5, seed=1)
    sizes = smallest(net, pixels, "linf")
    eps = between(sizes)[-1]
    pgd = {"pgd": {"name": "pgd", "steps": 5}}
    quick = {"masking_images": 16, "masking_steps": 3, "masking_queries": 10}
    found = robust(epsilons=[eps], attacks=pgd, **quick)(exam_of(net, pixels))
    right = sizes > 0
    assert (found.columns[f"pgd@{eps:g}"] == right).all()
    assert (found.columns[f"strongest@{eps:g}"] == 0).all()
    assert any("gradient is zero" in doubt for doubt in found.about["doubts"])
    said = {each["name"]: each for each in found.masking}
    assert len(said) == 14
    assert said["gradients"]["verdict"] == "failed"
    assert "exactly 0 for 100%" in said["gradients"]["evidence"]
    assert {each["verdict"] for each in found.masking} <= {"passed", "failed", "not applicable"}


def test_attacks_of_the_paper_are_independent_and_the_strongest_counts_all_of_them(monkeypatch):
    """What an attack broke at a small epsilon and lost at a larger is broken in the worst case."""
    pixels, net = pixels_of(), line(seed=1)
    right = ~exam_wrong(net, pixels)

    def alone(self, name, attack, some, clean):
        broken = clean.repeat(len(self.grid), 1)
        broken[0] |= torch.from_numpy(some.rows % 3 == 0).to(clean.device)
        return broken

    monkeypatch.setattr(Siege, "alone", alone)
    none = {"still": {"name": "square", "queries": 1}}
    eps = [1e-7, 2e-7]
    found = robust(epsilons=eps, attacks={"fgsm": "fgsm"}, strongest=none)(exam_of(net, pixels))
    third = np.arange(len(pixels)) % 3 == 0
    small, large = (f"@{e:g}" for e in eps)
    assert (found.columns["fgsm" + small] == right & ~third).all()
    assert (found.columns["fgsm" + large] == right).all()
    assert (found.columns["strongest" + large] == right & ~third).all()
    assert (found.columns["minimal_epsilon"][right & third] == eps[0]).all()
    assert np.isinf(found.columns["minimal_epsilon"][right & ~third]).all()


def exam_wrong(net, pixels):
    with torch.no_grad():
        return (net(pixels.x()).argmax(1) != pixels.y()).numpy()


def test_draws_are_parts_of_one_another_and_the_rest_is_not_attacked():
    pixels, net = pixels_of(), line(seed=1)
    part = robust(epsilons=[0, 0.005], attacks=TWICE, images=9, strongest_images=4)
    found = part(exam_of(net, pixels)).columns
    attacked = ~np.isnan(found["fgsm@0.005"])
    strongly = ~np.isnan(found["minimal_epsilon"])
    assert (attacked.sum(), strongly.sum(), (strongly & ~attacked).sum()) == (9, 4, 0)
    assert (found["fgsm@0"][attacked] == ~exam_wrong(net, pixels)[attacked]).all()
    whole = robust(epsilons=[0, 0.005], attacks=TWICE)(exam_of(net, pixels)).columns
    for name, column in found.items():
        here = ~np.isnan(column)
        assert (column[here] == whole[name][here]).all(), name


def test_minimum_norm_attacks_are_run_once_for_all_epsilons():
    pixels, net = pixels_of(6), line(seed=0)
    sizes = smallest(net, pixels, "l2")
    grid = [*between(sizes, (0.5,)), 20.0]
    attacks = {"fab": {"steps": 10}, "boundary": {"name": "boundary", "queries": 30}}
    exam = exam_of(net, pixels)
    found = robust(norm="l2", epsilons=grid, attacks=attacks, strongest={"fab": "fab"})(exam)
    for eps in grid:
        assert (found.columns[f"fab@{eps:g}"] == (sizes > eps)).all()
        boundary = found.columns[f"boundary@{eps:g}"]
        assert (boundary >= found.columns[f"strongest@{eps:g}"]).all()
    assert boundary.mean() == 0  # no two images are further apart
    once = 30 + 3 * 10 + 3 * 100  # passes of an image by the three attacks
    assert sum(exam.heard) < 1.5 * once * len(pixels)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_strongest_fit_the_number_of_classes(classes):
    attacks = strong("linf", classes, 10, 20, 3)
    losses = {getattr(attack, "loss", "") for attack in attacks.values()}
    assert ("margin" in losses, "dlr-targeted" in losses) == (True, classes > 2)


@pytest.mark.parametrize("classes", [2, 5])
def test_restarts_are_those_of_both_climbs(classes):
    fields = {"steps": 10, "queries": 20, "targets": 3}
    for restarts, given in ((1, {}), (4, {"restarts": 4})):
        attacks = strong("linf", classes, *fields.values(), **given).values()
        assert [a.restarts for a in attacks if isinstance(a, APGD)] == [restarts] * 2
    told = robust(epsilons=[0.001], **fields, restarts=2)(exam_of(line(), pixels_of(4))).about
    assert told["strongest"]["apgd-ce"]["restarts"] == 2
    assert told["strongest"]["apgd-margin"]["restarts"] == 2


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"epsilons": []}, "epsilons must be finite"),
        ({"epsilons": [0.1, 0.1000000001]}, "the same to six digits"),
        ({"epsilons": [0.1], "attacks": {}}, "name one at least"),
        ({"epsilons": [0.1], "attacks": {"fgms": {}}}, "did you mean 'fgsm'"),
        ({"epsilons": [0.1], "attacks": {"strongest": "fgsm"}}, "no name of a column of its own"),
        ({"epsilons": [0.1], "attacks": {"pgd": {"norm": "l2"}}}, "evaluation's is linf"),
        ({"epsilons": [0.1], "strongest": {"apgd": {"step": 3}}}, "did you mean 'steps'"),
        ({"epsilons": [0.1], "images": 0}, "images=0"),
        ({"epsilons": [0.1], "restarts": 0}, "restarts=0: at least 1"),
        ({"epsilons": [0.1], "masking_attack": {"name": "pgd", "norm": "l1"}}, "masking_attack"),
    ],
)
def test_mistakes_are_one_line(settings, says):
    with pytest.raises(UserError, match=says):
        robust(**settings)
