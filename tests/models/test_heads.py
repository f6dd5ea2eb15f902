from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from diascope.models import heads


def test_one_logit_is_the_same_as_two_whose_difference_it_is():
    z, y = torch.randn(6, 1), torch.tensor([0, 1, 0, 1, 1, 0])
    two = torch.cat([-z / 2, z / 2], 1)
    torch.testing.assert_close(heads.cross_entropy(z, y), heads.cross_entropy(two, y))
    torch.testing.assert_close(heads.probabilities(z), heads.probabilities(two))
    assert torch.equal(heads.predictions(z), heads.predictions(two))
    assert torch.equal(heads.is_correct(z, y), heads.is_correct(two, y))
    for of in ("logit", "log_softmax", "probability", "loss"):
        torch.testing.assert_close(heads.target_score(z, y, of), heads.target_score(two, y, of))


def test_multi_label_heads_are_sigmoids():
    z, y = torch.randn(5, 4), torch.randint(2, (5, 4)).float()
    expected = F.binary_cross_entropy_with_logits(z, y, reduction="none").sum(1)
    torch.testing.assert_close(heads.cross_entropy(z, y), expected)
    right = ((z > 0).float() == y).all(1)
    assert torch.equal(heads.is_correct(z, y), right)


def test_class_weights_and_smoothing_are_torchs():
    z, y, w = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0]), torch.tensor([1.0, 2.0, 0.5])
    expected = F.cross_entropy(z, y, w, reduction="none", label_smoothing=0.1)
    torch.testing.assert_close(heads.cross_entropy(z, y, weight=w, label_smoothing=0.1), expected)
    single = heads.cross_entropy(z[:, :1], y.clamp_max(1), weight=w[:2])
    plain = heads.cross_entropy(z[:, :1], y.clamp_max(1))
    torch.testing.assert_close(single, plain * w[y.clamp_max(1)])


def test_what_is_not_finite_is_never_correct():
    z = torch.tensor([[torch.nan, 1.0], [torch.inf, 0.0], [1.0, 0.0]])
    assert heads.is_correct(z, torch.zeros(3).long()).tolist() == [False, False, True]


def test_scores_of_the_target():
    z, y = torch.randn(3, 4), torch.tensor([2, 0, 3])
    assert torch.equal(heads.target_score(z, y), z[torch.arange(3), y])
    torch.testing.assert_close(heads.target_score(z, y, "probability"), z.softmax(1)[range(3), y])
    torch.testing.assert_close(heads.target_score(z, y, "loss"), heads.cross_entropy(z, y))
    with pytest.raises(ValueError, match="of="):
        heads.target_score(z, y, "margin")
