from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.training.toy import same_weights, toy_net, toy_pixels
from torch import nn

from diascope.attacks import FGSM, PGD
from diascope.errors import UserError
from diascope.objectives import Adversarial, Standard
from diascope.randomness import derive
from diascope.training import Fit, TrainingConfig, fit
from diascope.training.batches import Batches, class_weight

TRAIN, VAL = toy_pixels(48), toy_pixels(30, seed=1)
FGSM_TRAINING = Adversarial(attack=FGSM(norm="linf", eps=0.1))


def config(**changes: Any) -> TrainingConfig:
    plain = {
        "epochs": 2,
        "batch_size": 16,
        "seed": 5,
        "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
        "augment": None,
        "device": "cpu",
        "precision": "32-true",
    }
    return TrainingConfig.model_validate({**plain, **changes})


def trained(objective: Any = Standard(), net: nn.Module | None = None, **changes: Any) -> Fit:  # noqa: B008
    return fit(net or toy_net(), objective, TRAIN, VAL, config(**changes))


def by_hand(
    loss: Any, epochs: int = 2, lr: float = 0.05, weight: torch.Tensor | None = None
) -> nn.Module:
    """The same training as a plain loop: `loss(net, x, y, epoch, ids)`."""
    net = toy_net().to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(net.parameters(), lr, momentum=0.9)
    batches = Batches(TRAIN, 16, 5)
    for epoch in range(epochs):
        for step, rows in enumerate(batches.rows(epoch)):
            torch.manual_seed(derive(5, "step", epoch, step))
            optimizer.zero_grad()
            loss(net, TRAIN.x(rows), TRAIN.y(rows), epoch, TRAIN.ids(rows)).backward()
            optimizer.step()
    return net


def test_standard_training_is_the_plain_loop_bit_for_bit() -> None:
    expected = by_hand(lambda net, x, y, *_: F.cross_entropy(net(x), y))
    assert same_weights(trained(select="last").model, expected)


def test_adversarial_training_attacks_in_eval_mode_by_epoch_and_image() -> None:
    attack = PGD(norm="l2", eps=0.5, steps=2)

    def loss(net: nn.Module, x: Any, y: Any, epoch: int, ids: Any) -> torch.Tensor:
        generator = torch.Generator().manual_seed(derive(5, "attack", epoch))
        net.eval()
        x_adv = attack(net, x, y, generator=generator, ids=ids)
        return F.cross_entropy(net.train()(x_adv), y)

    assert same_weights(trained(Adversarial(attack=attack), select="last").model, by_hand(loss))


def test_class_weights_reach_the_loss() -> None:
    weight = class_weight(TRAIN.dataset.labels, TRAIN.dataset.classes)
    assert weight.min() < 0.99

    def loss(net: nn.Module, x: Any, y: Any, *_: Any) -> torch.Tensor:
        return (F.cross_entropy(net(x), y, reduction="none") * weight[y]).mean()

    found = trained(select="last", class_weights="inverse-frequency").model
    for a, b in zip(found.parameters(), by_hand(loss).parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert not same_weights(found, trained(select="last").model)


def test_a_small_problem_is_learnt() -> None:
    result = trained(epochs=12, augment={"rotation": 20, "colour": 0.05})
    losses = result.metrics.train_loss
    assert losses.iloc[-3:].mean() < 0.75 * losses.iloc[0]
    assert result.metrics.val_accuracy.max() > 0.75  # 0.9 at best, since every tenth is mislabelled


def test_a_seed_gives_a_run_and_another_seed_another() -> None:
    first, again = trained(augment={}), trained(augment={})
    assert same_weights(first.model, again.model)
    assert not same_weights(first.model, trained(augment={}, seed=6).model)


def test_the_users_random_numbers_are_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    trained(epochs=1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "loss"])
def test_the_best_epochs_weights_are_returned(metric: str) -> None:
    result = trained(epochs=5, metric=metric, optimizer={"name": "adam", "lr": 0.1})
    table = result.metrics
    values = table[f"val_{metric}"] * (-1 if metric == "loss" else 1)
    chosen = table[table.epoch == result.epoch].iloc[0]
    assert values[result.epoch - 1] == values.max()
    assert values.iloc[-1] < values.max(), "the last epoch is the best, so nothing is tested"
    logits = result.model(VAL.x())
    assert not result.model.training
    assert F.cross_entropy(logits, VAL.y()).item() == pytest.approx(chosen.val_loss, abs=1e-5)
    assert (logits.argmax(1) == VAL.y()).float().mean().item() == pytest.approx(chosen.val_accuracy)


def test_an_attacked_objective_is_selected_under_attack() -> None:
    result = trained(FGSM_TRAINING, epochs=6, optimizer={"name": "adam", "lr": 0.03})
    table = result.metrics
    best = table.sort_values(
        ["val_adversarial_accuracy", "val_loss", "epoch"], ascending=[False, True, True]
    ).iloc[0]
    assert result.epoch == best.epoch
    x_adv = FGSM_TRAINING.attack(result.model, VAL.x(), VAL.y())
    stands = result.model(x_adv).argmax(1) == VAL.y()
    stands &= result.model(VAL.x()).argmax(1) == VAL.y()
    assert stands.float().mean().item() == pytest.approx(best.val_adversarial_accuracy)
    assert best.val_adversarial_accuracy < best.val_accuracy


def test_some_validation_images_may_be_attacked_by_another_attack() -> None:
    attack = {"name": "fgsm", "eps": 0.9}
    result = trained(validation={"attack": attack, "images": 10})
    tenths = result.metrics.val_adversarial_accuracy * 10
    assert (tenths == tenths.round()).all()
    assert (result.metrics.val_adversarial_accuracy < result.metrics.val_accuracy).any()
    plain = trained()
    assert plain.metrics.val_adversarial_accuracy.isna().all()
    assert same_weights(plain.model, result.model)


def test_patience_ends_the_training() -> None:
    still = {"name": "sgd", "lr": 1e-12, "momentum": 0.0}
    net = toy_net(dropout=0.0)
    net[1].requires_grad_(False)
    result = trained(net=net, epochs=9, patience=3, optimizer=still)
    assert result.metrics.epoch.tolist() == [1, 2, 3, 4]
    assert result.epoch == 1


def test_a_plateau_lowers_the_rate() -> None:
    still = {"name": "sgd", "lr": 1e-12, "momentum": 0.0}
    net = toy_net(dropout=0.0)
    net[1].requires_grad_(False)
    schedule = {"name": "plateau", "patience": 2, "factor": 0.5}
    rates = trained(net=net, epochs=6, optimizer=still, schedule=schedule).metrics.lr
    assert (rates / 1e-12).tolist() == pytest.approx([1, 1, 1, 0.5, 0.5, 0.25])


def test_frozen_batch_norm_keeps_its_statistics_under_attacks() -> None:
    net = toy_net()
    net[1].requires_grad_(False)
    before = {k: v.clone() for k, v in net[1].state_dict().items()}
    trained(FGSM_TRAINING, net=net)
    assert same_weights(net[1], before)


def test_the_gradient_is_clipped() -> None:
    net = toy_net()
    before = torch.cat([p.detach().flatten().clone() for p in net.parameters()])
    bare = {"name": "sgd", "lr": 1.0, "momentum": 0.0}
    clip = {"epochs": 1, "batch_size": 48, "clip_gradient": 0.01, "select": "last"}
    result = trained(net=net, optimizer=bare, **clip)
    after = torch.cat([p.detach().flatten() for p in result.model.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_metrics_have_a_row_an_epoch_that_adds_up() -> None:
    table = trained(FGSM_TRAINING, epochs=3).metrics
    assert table.epoch.tolist() == [1, 2, 3]
    assert not table.isna().any().any()
    assert (table.seconds_attack > 0).all()
    assert (table.seconds_attack < table.seconds_update).all()
    assert (
        (table.seconds_data + table.seconds_update + table.seconds_validation)
        .le(table.seconds)
        .all()
    )
    trained_seconds = table.seconds - table.seconds_validation
    assert (48 / trained_seconds).tolist() == pytest.approx(table.images_per_second.tolist())


def test_the_loss_of_an_epoch_is_the_mean_over_its_images() -> None:
    net = toy_net(dropout=0.0)
    net[1].requires_grad_(False)
    with torch.no_grad():
        expected = F.cross_entropy(net.eval()(TRAIN.x()), TRAIN.y()).item()
    still = {"name": "sgd", "lr": 1e-12, "momentum": 0.0}
    table = trained(net=net, epochs=1, batch_size=13, optimizer=still).metrics
    assert table.train_loss[0] == pytest.approx(expected, abs=1e-5)


def test_a_loss_that_is_not_finite_stops_and_says_where() -> None:
    words = r"epoch 1, step [23]: the loss is not finite; try a lower training\.optimizer\.lr"
    with pytest.raises(UserError, match=words):
        trained(optimizer={"name": "sgd", "lr": 1e30})


def test_last_needs_no_validation_images_but_best_does() -> None:
    nothing = VAL.take(np.zeros(0, np.int64))
    result = fit(toy_net(), Standard(), TRAIN, nothing, config(select="last"))
    assert result.epoch == 2
    assert math.isnan(result.metrics.val_loss[0])
    with pytest.raises(UserError, match="'best' needs validation images"):
        fit(toy_net(), Standard(), TRAIN, nothing, config())
    with pytest.raises(UserError, match="there are no training images"):
        fit(toy_net(), Standard(), nothing, VAL, config())


def test_adversarial_selection_needs_an_attack() -> None:
    with pytest.raises(UserError, match="the objective has no attack"):
        trained(metric="adversarial_accuracy")


def test_bf16_trains_under_attack() -> None:
    attack = replace(FGSM_TRAINING.attack, eps=0.01)
    result = trained(Adversarial(attack=attack), precision="bf16-mixed", epochs=4)
    assert result.metrics.train_loss.iloc[-1] < result.metrics.train_loss[0]
    assert {p.dtype for p in result.model.parameters()} == {torch.float32}
    assert not same_weights(result.model, trained(Adversarial(attack=attack), epochs=4).model)
