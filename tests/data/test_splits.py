from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diascope.data import Dataset, Splits
from diascope.data.readers import FileReader
from diascope.data.splits import folds
from diascope.errors import UserError


def dataset_of(groups: list[str], labels: list[str], **columns: list[str]) -> Dataset:
    paths = [f"{k}.png" for k in range(len(groups))]
    rows = {"path": paths, "label": labels, "group": groups, **columns}
    return Dataset.of("random", rows, sorted(set(labels)), FileReader(Path()))


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    classes = draw(st.integers(1, 4))
    row = st.tuples(st.integers(0, 12), st.integers(0, classes - 1))
    rows = draw(st.lists(row, min_size=1, max_size=80))
    groups = ["" if g == 0 else f"g{g}" for g, _ in rows]
    return dataset_of(groups, [f"c{k}" for _, k in rows])


shares = st.sampled_from([(0.7, 0.15, 0.15), (0.5, 0.25, 0.25), (0.8, 0.0, 0.2), (1.0, 0.0, 0.0)])


@settings(max_examples=60, deadline=None)
@given(datasets(), st.integers(0, 2**40), shares)
def test_no_group_is_divided_and_no_image_lost(dataset: Dataset, seed: int, fractions) -> None:
    splits = dataset.split(seed, fractions)
    groups = [set(part.groups) for part in splits]
    assert sum(map(len, groups)) == len(set.union(*groups))
    paths = [path for part in splits for path in part.table.path]
    assert sorted(paths) == sorted(dataset.table.path)
    for part, share in zip(splits, fractions, strict=True):
        assert share or not len(part)


@settings(max_examples=60, deadline=None)
@given(datasets(), st.integers(0, 2**40), shares)
def test_every_class_is_in_proportion(dataset: Dataset, seed: int, fractions) -> None:
    splits = dataset.split(seed, fractions)
    table = pd.DataFrame({"group": dataset.groups, "label": dataset.labels})
    by_group = table.groupby("group").label
    majority = by_group.agg(lambda labels: np.bincount(labels).argmax())
    sizes = by_group.size()
    for k in range(len(dataset.classes)):
        members = sizes[majority == k]
        if members.empty:
            continue
        for part, share in zip(splits, fractions, strict=True):
            count = members[members.index.isin(part.groups)].sum()
            assert abs(count - share * members.sum()) <= members.max() + 1e-9


@settings(max_examples=30, deadline=None)
@given(datasets(), st.integers(0, 2**40), st.randoms())
def test_the_result_depends_on_rows_and_seed_not_on_order(dataset, seed: int, random) -> None:
    order = list(range(len(dataset)))
    random.shuffle(order)
    for one, two in zip(dataset.split(seed), dataset.take(order).split(seed), strict=True):
        assert set(one.table.path) == set(two.table.path)


@settings(max_examples=60, deadline=None)
@given(datasets(), st.integers(2, 6), st.integers(0, 2**40), st.randoms())
def test_folds_are_whole_groups_in_proportion(dataset: Dataset, k: int, seed: int, random) -> None:
    try:
        fold = folds(dataset, k, seed)
    except UserError:  # too few groups: see below
        return
    table = pd.DataFrame({"group": dataset.groups, "label": dataset.labels, "fold": fold})
    assert set(fold) == set(range(k))
    assert (table.groupby("group").fold.nunique() == 1).all()
    groups = table.groupby("group")
    majority = groups.label.agg(lambda labels: np.bincount(labels).argmax())
    sizes, side = groups.size(), groups.fold.first()
    for label in majority.unique():
        members = sizes[majority == label]
        for j in range(k):
            count = members[side[members.index] == j].sum()
            assert abs(count - members.sum() / k) <= members.max() + 1e-9
    order = list(range(len(dataset)))
    random.shuffle(order)
    assert (folds(dataset.take(order), k, seed) == fold[order]).all()


def test_folds_of_many_images_are_equal_and_drawn_by_the_seed() -> None:
    dataset = dataset_of([""] * 200, ["a", "b"] * 100)
    first, second = folds(dataset, 5, 1), folds(dataset, 5, 2)
    assert np.bincount(first).tolist() == [40] * 5
    assert (first != second).any()
    with pytest.raises(UserError, match="folds = 1: cross-validation takes at least 2"):
        folds(dataset, 1)
    with pytest.raises(UserError, match="3 groups of images in 1 classes do not fill 4 folds"):
        folds(dataset_of(["p", "q", "r", "r"], ["a"] * 4), 4)


def test_seeds_differ() -> None:
    dataset = dataset_of([""] * 200, ["a", "b"] * 100)
    one, two = dataset.split(seed=1), dataset.split(seed=2)
    assert set(one.test.table.path) != set(two.test.table.path)
    assert [len(part) for part in one] == [140, 30, 30]
    assert one.test.counts == {"a": 15, "b": 15}


def test_a_group_on_two_sides_cannot_be_constructed() -> None:
    dataset = dataset_of(["p1", "p2", "p2", ""], ["a"] * 4)
    with pytest.raises(UserError, match=r"group 'p2' stands in train and test \(1 such\)"):
        Splits(dataset.take([0, 1]), dataset.take([3]), dataset.take([2]))
    with pytest.raises(UserError, match=r"path '3.png' stands in train and val"):
        Splits(dataset.take([0, 3]), dataset.take([3]), dataset.take([1, 2]))
    assert [len(part) for part in Splits(*map(dataset.take, ([0], [3], [1, 2])))] == [1, 1, 2]


def test_a_group_named_like_a_path_is_no_path() -> None:
    dataset = dataset_of(["1.png", ""], ["a", "a"])
    assert len(set(dataset.groups)) == 2


def test_splits_are_written_and_read_back(tmp_path: Path) -> None:
    dataset = dataset_of([f"p{k // 3}" for k in range(60)], ["a", "b", "NA"] * 20)
    splits = dataset.split(seed=4)
    splits.save(tmp_path / "deep" / "split.csv")
    head = (tmp_path / "deep" / "split.csv").read_text().splitlines()[0]
    assert head == "path,group,split"
    back = Splits.load(tmp_path / "deep" / "split.csv", dataset.take(np.arange(60)[::-1]))
    for one, two in zip(splits, back, strict=True):
        assert set(one.table.path) == set(two.table.path)
    part = Splits.load(tmp_path / "deep" / "split.csv", dataset.take(range(10)))
    assert sum(map(len, part)) == 10


def test_a_wrong_split_file_is_one_line(tmp_path: Path) -> None:
    dataset = dataset_of(["p", "p"], ["a", "a"])
    file = tmp_path / "split.csv"
    wrong = {
        "path,group\n": "no column 'split'",
        "": "cannot be read",
        "path,split\n0.png,train\n": "1 images of random are not in it",
        "path,split\n0.png,train\n1.png,tset\n": "not train, val or test, such as 'tset'",
        "path,split\n0.png,train\n1.png,test\n": "group 'p' stands in train and test",
        "path,split\n0.png,train\n0.png,test\n": "'0.png' stands in two rows",
    }
    for text, words in wrong.items():
        file.write_text(text)
        with pytest.raises(UserError, match=words) as error:
            Splits.load(file, dataset)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="No such file"):
        Splits.load(tmp_path / "absent.csv", dataset)


def test_official_splits_are_kept() -> None:
    names = ["train"] * 60 + ["test"] * 20
    dataset = dataset_of([f"p{k}" for k in range(80)], ["a", "b"] * 40, split=names)
    train, val, test = dataset.split(seed=1, fractions=(0.72, 0.08, 0.2))
    assert set(test.table.path) == set(dataset.table.path[60:])
    assert (len(train), len(val)) == (54, 6)
    assert not dataset.split(seed=1, fractions=(0.8, 0.0, 0.2)).val.counts["a"]
    half = dataset_of(["", ""], ["a", "a"], split=["train", ""])
    with pytest.raises(UserError, match="1 images have a split that is not train, val or test"):
        half.split()


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (1.2, -0.2, 0.0), (0.5, 0.5)])
def test_fractions_that_are_none_are_refused(fractions) -> None:
    with pytest.raises(UserError, match="sum to 1"):
        dataset_of([""], ["a"]).split(0, fractions)


def test_a_hundred_thousand_rows_take_seconds() -> None:
    count = 100_000
    groups = [f"p{k // 3}" for k in range(count)]
    dataset = dataset_of(groups, [f"c{k % 7}" for k in range(count)])
    start = time.perf_counter()
    dataset.split(seed=0)
    assert time.perf_counter() - start < 10
