from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.nets import images, small_net

from diascope.attacks import FGSM, PGD
from diascope.objectives import Adversarial, Objective, Standard, objectives

ATTACK = PGD(norm="l2", eps=0.5, steps=2)


def build(name: str) -> Objective:
    settings = {"name": name}
    if name == "adversarial":
        settings["attack"] = {"name": "fgsm", "eps": 0.05}
    return objectives.build(settings)


@pytest.mark.parametrize("name", objectives.names())
def test_every_objective_descends_and_keeps_the_models_modes(name):
    model = small_net().train()
    model[1].eval()
    flags = [m.training for m in model.modules()]
    x, y, objective = images(12), torch.arange(12) % 3, build(name)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(15):
        optimiser.zero_grad()
        loss = objective(model, x, y, generator=torch.Generator().manual_seed(0))
        assert loss.ndim == 0
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert [m.training for m in model.modules()] == flags
    assert (objective.attack is None) == (name == "standard")


def test_standard_is_the_cross_entropy():
    model, x, y, w = small_net(), images(6), torch.arange(6) % 3, torch.tensor([1.0, 2.0, 3.0])
    losses = F.cross_entropy(model(x), y, reduction="none")
    torch.testing.assert_close(Standard()(model, x, y), losses.mean())
    torch.testing.assert_close(Standard()(model, x, y, class_weight=w), (losses * w[y]).mean())
    smooth = F.cross_entropy(model(x), y, label_smoothing=0.2)
    torch.testing.assert_close(Standard(label_smoothing=0.2)(model, x, y), smooth)


def test_adversarial_is_the_cross_entropy_of_the_attacked_images():
    model, x, y = small_net(), images(6), torch.arange(6) % 3
    seeded = lambda: torch.Generator().manual_seed(3)
    x_adv = ATTACK(model, x, y, generator=seeded())
    attacked, clean = F.cross_entropy(model(x_adv), y), F.cross_entropy(model(x), y)
    loss = Adversarial(attack=ATTACK)(model, x, y, generator=seeded())
    torch.testing.assert_close(loss, attacked)
    mixed = Adversarial(attack=ATTACK, mix=0.5)(model, x, y, generator=seeded())
    torch.testing.assert_close(mixed, (attacked + 0.5 * clean) / 1.5)
    assert attacked > clean


def test_the_attack_is_in_eval_mode_and_the_loss_in_the_models_own():
    model = small_net().train()
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(module.training))
    before = model[1].running_mean.clone()
    Adversarial(attack=FGSM(eps=0.1))(model, images(6), torch.arange(6) % 3)
    assert seen[-2:] == [False, True]
    assert not any(seen[:-1])  # before them, single images for a look at how the model runs
    assert model[1].num_batches_tracked == 1
    assert not torch.equal(model[1].running_mean, before)


def test_passes_are_counted():
    model, x, y = small_net(), images(6), torch.arange(6) % 3
    counts = []
    ATTACK(model, x, y)  # the first attack on a model takes a look at how it runs, on one image
    model.register_forward_hook(lambda module, args, out: counts.append(len(args[0])))
    Standard()(model, x, y)
    assert counts == [6]
    counts.clear()
    Adversarial(attack=ATTACK)(model, x, y)
    assert counts == [6, 6, 6]
    counts.clear()
    Adversarial(attack=ATTACK, mix=1.0)(model, x, y)
    assert counts == [6, 6, 12]
