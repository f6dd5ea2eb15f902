from __future__ import annotations

import pytest

from diascope.training.selection import Selection


def run(selection: Selection, values: list[tuple[float, float]]) -> list[int]:
    """Feed (metric, loss) by epoch; return the epochs that were the best so far."""
    best = []
    for epoch, (value, loss) in enumerate(values):
        row = {f"val_{selection.metric}": value} | {"val_loss": loss}
        best += [epoch] if selection.update(epoch, row) else []
    return best


def test_the_highest_is_best_then_the_lower_loss_then_the_earlier() -> None:
    selection = Selection("accuracy")
    assert run(selection, [(0.5, 1), (0.4, 0.1), (0.7, 2), (0.7, 1), (0.7, 1), (0.6, 0)]) == [
        0,
        2,
        3,
    ]
    assert (selection.epoch, selection.value, selection.loss) == (3, 0.7, 1)


def test_by_loss_the_lowest_is_best() -> None:
    assert run(Selection("loss"), [(3, 3), (1, 1), (2, 2), (0.5, 0.5)]) == [0, 1, 3]


@pytest.mark.parametrize("metric", ["balanced_accuracy", "adversarial_accuracy"])
def test_other_metrics_are_read_from_their_columns(metric: str) -> None:
    selection = Selection(metric)
    selection.update(0, {f"val_{metric}": 0.2, "val_loss": 1, "val_accuracy": 0.9})
    assert selection.value == 0.2


def test_nan_is_never_better_but_there_is_always_a_best() -> None:
    nan = float("nan")
    assert run(Selection("accuracy"), [(nan, nan), (nan, nan), (0.1, 5), (nan, 1)])[-1] == 2


def test_patience_counts_epochs_without_enough_improvement() -> None:
    selection = Selection("accuracy", patience=3, min_delta=0.1)
    run(selection, [(0.5, 1), (0.55, 1), (0.59, 1)])
    assert selection.waited == 2
    assert not selection.exhausted
    run(selection, [(0.61, 1)])
    assert selection.waited == 0
    run(selection, [(0.62, 1)] * 3)
    assert selection.exhausted
    assert selection.value == 0.62


def test_without_patience_it_never_ends() -> None:
    selection = Selection("accuracy")
    run(selection, [(0.5, 1)] * 1000)
    assert not selection.exhausted
