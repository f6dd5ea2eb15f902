from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from diascope.data.dataset import Dataset
from diascope.data.pixels import Pixels
from diascope.errors import UserError
from diascope.evaluation.predictions import predict, prediction_table, score_predictions
from diascope.evaluation.tables import read_table, write_table


class NoReader:
    def image(self, path):
        raise AssertionError("pixels are decoded already")

    mask = stamp = image


def dataset(labels, classes=("mel", "nv", "bkl")):
    count = len(labels)
    columns = {
        "path": [f"{i}.png" for i in range(count)],
        "label": labels,
        "group": [f"lesion {i // 2}" for i in range(count)],
        "source": ["vienna"] * count,
    }
    return Dataset.of("toy", columns, classes, NoReader())


@pytest.fixture
def pixels():
    rng = np.random.default_rng(0)
    labels = rng.choice(["mel", "nv", "bkl"], 23).tolist()
    images = rng.integers(0, 256, (23, 8, 8, 3), dtype=np.uint8)
    return Pixels(dataset(labels), images, None, np.zeros(23, dtype=bool))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def test_rows_are_those_of_a_direct_computation(model, pixels):
    model.eval()
    table = predict(model, pixels, batch_size=64)
    with torch.no_grad():
        logits = model(pixels.x())
    y = pixels.y()
    assert list(table.columns) == [
        "id",
        "path",
        "label",
        "group",
        "source",
        "prob_mel",
        "prob_nv",
        "prob_bkl",
        "prediction",
        "correct",
        "loss",
    ]
    np.testing.assert_array_equal(table["id"], pixels.ids())
    np.testing.assert_array_equal(table["label"], pixels.dataset.table["label"])
    np.testing.assert_allclose(table.filter(like="prob_"), logits.softmax(1), rtol=1e-5)
    np.testing.assert_array_equal(table["correct"], logits.argmax(1) == y)
    np.testing.assert_array_equal(table["correct"], table["prediction"] == table["label"])
    loss = nn.functional.cross_entropy(logits, y, reduction="none")
    np.testing.assert_allclose(table["loss"], loss, rtol=1e-5)
    assert table["loss"].dtype == table["prob_nv"].dtype == np.float32


def test_flags_and_running_statistics_are_given_back(model, pixels):
    model.train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    predict(model, pixels)
    assert [module.training for module in model] == [True, False, True, True, True, True]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("batch_size", [1, 4, 22])
def test_batches_and_modes_do_not_matter(model, pixels, batch_size):
    whole = predict(model.eval(), pixels)
    with torch.autocast("cpu", torch.bfloat16):
        parts = predict(model.train(), pixels, batch_size=batch_size)
    columns = ["prob_mel", "prob_nv", "prob_bkl", "loss"]
    np.testing.assert_allclose(parts[columns], whole[columns], rtol=1e-5)
    assert parts.drop(columns=columns).equals(whole.drop(columns=columns))


def test_some_rows_of_the_pixels(model, pixels):
    rows = np.array([5, 2, 17])
    whole, some = predict(model, pixels), predict(model, pixels.take(rows))
    assert some["path"].tolist() == ["5.png", "2.png", "17.png"]
    np.testing.assert_allclose(some["loss"], whole["loss"].iloc[rows], rtol=1e-5)


def test_a_single_logit_is_two_classes():
    data = dataset(["nv", "mel", "mel"], classes=("nv", "mel"))
    table = prediction_table(data, torch.tensor([[-1.0], [2.0], [-3.0]]))
    assert table["prediction"].tolist() == ["nv", "mel", "nv"]
    assert table["correct"].tolist() == [True, True, False]
    np.testing.assert_allclose(table["prob_mel"], 1 / (1 + np.exp([1.0, -2.0, 3.0])), rtol=1e-6)
    np.testing.assert_allclose(table["prob_nv"] + table["prob_mel"], 1, rtol=1e-6)
    np.testing.assert_allclose(table["loss"], np.log1p(np.exp([-1.0, -2.0, 3.0])), rtol=1e-5)


def test_logits_that_are_not_finite_are_wrong():
    data = dataset(["mel", "nv"])
    table = prediction_table(data, torch.tensor([[torch.nan] * 3, [0.0, 1.0, -torch.inf]]))
    assert table["correct"].tolist() == [False, False]


def test_models_and_labels_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="tells 2 classes apart, the data has 3"):
        prediction_table(dataset(["mel"]), torch.zeros(1, 2))
    with pytest.raises(UserError, match=r"1\.png: label 'unknown' is not a class"):
        prediction_table(dataset(["mel", "unknown"]), torch.zeros(2, 3))


def test_scores_can_be_computed_again_from_the_file(model, pixels, tmp_path):
    table = predict(model, pixels)
    write_table(table, tmp_path / "test.parquet", {"seed": 0})
    read, _ = read_table(tmp_path / "test.parquet")
    scores = score_predictions(read, replicates=100)
    assert scores == score_predictions(table, replicates=100)
    assert scores["accuracy"].value == pytest.approx(table["correct"].mean())
    assert scores["accuracy"].groups == 12
    recall = table["correct"][table["label"] == "bkl"].mean()
    assert scores["recall_bkl"].value == pytest.approx(recall)
