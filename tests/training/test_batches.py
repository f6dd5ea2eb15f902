from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.training.toy import toy_pixels

from diascope.data.augment import Augment
from diascope.errors import UserError
from diascope.training.batches import Batches, class_weight


def test_an_epoch_sees_each_image_once_in_even_batches() -> None:
    batches = Batches(toy_pixels(49), 16, seed=3)
    rows = batches.rows(0)
    assert len(rows) == len(batches) == 4
    assert sorted(np.concatenate(rows).tolist()) == list(range(49))
    assert {len(r) for r in rows} == {12, 13}


def test_the_order_belongs_to_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(Batches(toy_pixels(48), 16, seed).rows(epoch)).tolist()

    assert order(0, 5) == order(0, 5) != order(0, 6)
    assert order(0, 5) != order(1, 5)
    assert order(0, 0) != list(range(48))


def test_a_share_of_the_images_changes_from_epoch_to_epoch() -> None:
    batches = Batches(toy_pixels(50), 4, seed=0, share=0.2)
    drawn = [set(np.concatenate(batches.rows(epoch)).tolist()) for epoch in range(8)]
    assert {len(d) for d in drawn} == {10}
    assert len(set.union(*drawn)) > 30


def test_an_images_augmentation_does_not_depend_on_its_batch() -> None:
    batches = Batches(toy_pixels(20), 5, seed=1, augment=Augment())
    whole, part = batches.load(np.arange(20), 2), batches.load(np.array([7]), 2)
    assert torch.equal(whole.x[7:8], part.x)
    assert not torch.equal(whole.x, batches.load(np.arange(20), 3).x)
    assert not torch.equal(whole.x, batches.pixels.x(np.arange(20)))
    assert torch.equal(whole.y, batches.pixels.y(np.arange(20)))
    assert whole.x.is_contiguous(memory_format=torch.channels_last)


def test_class_weights_are_inverse_frequencies_with_mean_one() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [2])
    weight = class_weight(labels, ("a", "b", "c"))
    assert weight.tolist() == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    assert weight[torch.from_numpy(labels)].mean().item() == pytest.approx(1)
    with pytest.raises(UserError, match="no training image is of class 'd'"):
        class_weight(labels, ("a", "b", "c", "d"))
