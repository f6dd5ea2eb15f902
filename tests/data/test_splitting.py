"""Sources in proportion, hospitals held out, balanced draws, official lists, recorded splits."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diascope.data import Dataset, Splits, open_dataset
from diascope.data.lists import with_lists
from diascope.data.readers import FileReader
from diascope.data.splits import folds
from diascope.data.splitting import SplitSettings
from diascope.errors import UserError
from diascope.settings import validate


def dataset_of(groups: list[str], labels: list[str], **columns: list[str]) -> Dataset:
    paths = [f"{k:03d}.png" for k in range(len(groups))]
    rows = {"path": paths, "label": labels, "group": groups, **columns}
    return Dataset.of("random", rows, sorted(set(labels)), FileReader(Path()))


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    """Random tables: groups of any size, of several classes and of several hospitals."""
    classes, sources = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    row = st.tuples(st.integers(0, 14), st.integers(0, classes - 1), st.integers(0, sources - 1))
    rows = draw(st.lists(row, min_size=1, max_size=80))
    groups = ["" if g == 0 else f"g{g}" for g, _, _ in rows]
    return dataset_of(groups, [f"c{k}" for _, k, _ in rows], source=[f"s{s}" for _, _, s in rows])


shares = st.sampled_from([(0.7, 0.15, 0.15), (0.5, 0.25, 0.25), (0.8, 0.0, 0.2), (1.0, 0.0, 0.0)])
seeds = st.integers(0, 2**40)


def shuffled(dataset: Dataset, random) -> tuple[Dataset, list[int]]:
    order = list(range(len(dataset)))
    random.shuffle(order)
    return dataset.take(order), order


def paths_of(splits: Splits) -> list[set[str]]:
    parts = [*splits, *([splits.left_out] if splits.left_out is not None else [])]
    return [set(part.table.path) for part in parts]


def by_group(dataset: Dataset) -> tuple[np.ndarray, ...]:
    """Number of each image's group; size, most frequent class and source of each group."""
    names, group = np.unique(dataset.groups.astype(str), return_inverse=True)
    source = np.unique(dataset.table.source.to_numpy(str), return_inverse=True)[1]
    labels = dataset.labels
    most = [
        [np.bincount(values[group == g]).argmax() for g in range(len(names))]
        for values in (labels, source)
    ]
    return group, np.bincount(group), np.array(most[0]), np.array(most[1])


def in_proportion(dataset: Dataset, side: np.ndarray, shares) -> None:
    """Groups are whole; classes in proportion to within a group, their sources to within two."""
    group, size, label, source = by_group(dataset)
    for number in range(len(size)):
        assert len(set(side[group == number])) == 1
    of_group = np.array([side[group == number][0] for number in range(len(size))])
    for k in set(label):
        largest = size[label == k].max()
        for part, share in enumerate(shares):
            here = (label == k) & (of_group == part)
            assert share or not here.any()
            assert abs(size[here].sum() - share * size[label == k].sum()) <= largest + 1e-6
            for s in set(source[label == k]):
                away = size[here & (source == s)].sum()
                away = away - share * size[(label == k) & (source == s)].sum()
                assert abs(away) <= 2 * largest + 1e-6


@settings(max_examples=50, deadline=None)
@given(datasets(), seeds, shares)
def test_classes_and_their_sources_are_in_proportion(dataset: Dataset, seed: int, fractions):
    splits = dataset.split(seed, fractions, stratify="class+source")
    place = {path: k for k, part in enumerate(splits) for path in part.table.path}
    side = np.array([place[path] for path in dataset.table.path])
    assert sum(map(len, splits)) == len(dataset)
    in_proportion(dataset, side, fractions)


@settings(max_examples=50, deadline=None)
@given(datasets(), seeds, st.integers(2, 5), st.randoms())
def test_folds_keep_sources_in_proportion(dataset: Dataset, seed: int, k: int, random) -> None:
    try:
        fold = folds(dataset, k, seed, "class+source")
    except UserError:  # too few groups
        return
    in_proportion(dataset, fold, [1 / k] * k)
    other, order = shuffled(dataset, random)
    assert (folds(other, k, seed, "class+source") == fold[order]).all()


@settings(max_examples=50, deadline=None)
@given(datasets(), seeds, shares, st.randoms(), st.sampled_from(["class", "class+source"]))
def test_a_held_out_hospital_is_test_and_nothing_else(
    dataset: Dataset, seed: int, fractions, random, stratify: str
) -> None:
    source = dataset.table.source.iloc[0]
    held = (dataset.table.source == source).to_numpy()
    abroad = np.isin(dataset.groups.astype(str), dataset.groups[held].astype(str)) & ~held
    options = {"stratify": stratify, "hold_out": source}
    if abroad.any():
        with pytest.raises(UserError, match=f"have images in '{source}' and elsewhere"):
            dataset.split(seed, fractions, **options)
    options["spanning"] = "leave-out"
    if (held | abroad).all():
        with pytest.raises(UserError, match="no image is left to train on"):
            dataset.split(seed, fractions, **options)
        return
    splits = dataset.split(seed, fractions, **options)
    assert set(splits.test.table.path) == set(dataset.table.path[held])
    rest = [*splits.train.table.source, *splits.val.table.source]
    assert source not in rest
    assert not {*splits.train.groups, *splits.val.groups} & set(splits.test.groups)
    out = set() if splits.left_out is None else set(splits.left_out.table.path)
    assert out == set(dataset.table.path[abroad])
    assert sum(map(len, paths_of(splits))) == len(dataset)
    assert paths_of(splits) == paths_of(
        shuffled(dataset, random)[0].split(seed, fractions, **options)
    )
    assert paths_of(splits.refolded("all", seed))[2] == set(splits.test.table.path)


@settings(max_examples=50, deadline=None)
@given(datasets(), seeds, st.tuples(*[st.integers(0, 4)] * 3), st.randoms())
def test_a_balanced_draw_is_exact_and_divides_no_group(
    dataset: Dataset, seed: int, counts, random
) -> None:
    try:
        splits = dataset.split(seed, per_class=counts)
    except UserError:
        mixed = pd.Series(dataset.labels).groupby(dataset.groups).nunique().max() > 1
        few = min(dataset.counts.values()) < sum(counts) + 3 * by_group(dataset)[1].max()
        assert mixed or few or not sum(counts)
        return
    for part, count in zip(splits, counts, strict=True):
        assert set(part.counts.values()) == {count}
    whole = [path for part in paths_of(splits) for path in part]
    assert sorted(whole) == list(dataset.table.path)
    assert paths_of(splits) == paths_of(shuffled(dataset, random)[0].split(seed, per_class=counts))


def test_the_balanced_subset_of_the_first_paper() -> None:
    """As HAM10000: the rarest class has just as many images as are asked for."""
    draw = np.random.default_rng(0)
    sizes = {"bkl": 109, "mel": 111, "nv": 670}
    labels, groups = [], []
    for name, count in sizes.items():
        labels += [name] * count
        groups += [f"{name}{lesion}" for lesion in np.sort(draw.integers(0, count * 3 // 4, count))]
    splits = dataset_of(groups, labels).split(1, per_class=(80, 0, 29))
    assert splits.train.counts == dict.fromkeys(sizes, 80)
    assert splits.test.counts == dict.fromkeys(sizes, 29)
    assert splits.left_out is not None
    assert splits.left_out.counts == {"bkl": 0, "mel": 2, "nv": 561}
    other = dataset_of(groups, labels).split(2, per_class=(80, 0, 29))
    assert set(other.test.table.path) != set(splits.test.table.path)
    with pytest.raises(UserError, match=r"'bkl' has 109 images in whole groups, 1 too few"):
        dataset_of(groups, labels).split(1, per_class=(80, 1, 29))


def test_small_strata_reach_every_part() -> None:
    """Three groups a stratum, sixty strata: cut alone, each would give nothing to test."""
    sources = [f"s{k // 3}" for k in range(180)]
    splits = dataset_of([""] * 180, ["a"] * 180, source=sources).split(stratify="class+source")
    assert [len(part) for part in splits] == [126, 27, 27]
    assert len(set(splits.test.table.source)) >= 20


def test_sources_that_are_none_are_refused() -> None:
    dataset = dataset_of([""] * 4, ["a"] * 4)
    with pytest.raises(UserError, match="name no source; stratify by class alone"):
        dataset.split(stratify="class+source")
    with pytest.raises(UserError, match="no such source: it has none"):
        dataset.split(hold_out="vienna")
    named = dataset_of([""] * 4, ["a"] * 4, source=["wien", "wien", "basel", ""])
    with pytest.raises(UserError, match="hold_out 'wein': no such source: did you mean 'wien'"):
        named.split(hold_out="wein")
    with pytest.raises(UserError, match="did you mean .class.source."):
        named.split(stratify="class+sources")
    with pytest.raises(UserError, match="did you mean .leave-out."):
        named.split(hold_out="wien", spanning="leaveout")
    with pytest.raises(UserError, match="none is left to train on"):
        named.split(fractions=(0.0, 0.0, 1.0), hold_out="wien")


def test_official_test_images_are_never_trained_on() -> None:
    official = (["train"] * 8 + ["test"] * 2) * 4
    source = [f"s{k // 10}" for k in range(40)]
    dataset = dataset_of([""] * 40, ["a", "b"] * 20, source=source, split=official)
    splits = dataset.split(fractions=(0.8, 0.2, 0.0), hold_out="s2")
    assert set(splits.test.table.source) == {"s2"}
    assert len(splits.test) == 10
    assert splits.left_out is not None
    assert len(splits.left_out) == 6
    assert {*splits.train.table.split, *splits.val.table.split} == {"train"}
    drawn = dataset.split(fractions=(0.8, 0.2, 0.0), hold_out="s2", per_class=(5, 0, 4))
    assert drawn.train.counts == {"a": 5, "b": 5}
    assert len(drawn.val) == 0
    assert drawn.test.counts == {"a": 4, "b": 4}
    assert sum(map(len, paths_of(drawn))) == 40
    plain = dataset.split(per_class=(5, 0, 4))
    assert set(plain.test.table.split) == {"test"}


def test_left_out_images_are_written_and_read_back(tmp_path: Path) -> None:
    dataset = dataset_of([""] * 30, ["a", "b"] * 15)
    splits = dataset.split(3, per_class=(5, 2, 4))
    splits.save(tmp_path / "split.csv")
    table = pd.read_csv(tmp_path / "split.csv")
    assert table.split.value_counts().to_dict() == {
        "train": 10, "test": 8, "left-out": 8, "val": 4,
    }  # fmt: skip
    back = Splits.load(tmp_path / "split.csv", dataset)
    assert paths_of(back) == paths_of(splits)
    assert paths_of(SplitSettings(file=tmp_path / "split.csv").of(dataset)) == paths_of(splits)
    with pytest.raises(UserError, match=r"split.csv says who stands where; leave out per_class"):
        SplitSettings(file=tmp_path / "split.csv", per_class=(1, 1, 1)).of(dataset)


def lists(folder: Path, **parts: str) -> dict[str, Path]:
    for part, text in parts.items():
        (folder / f"{part}.txt").write_text(text)
    return {part: folder / f"{part}.txt" for part in parts}


def nih() -> Dataset:
    names = [f"images_001.zip!images/0000{k // 3}_00{k % 3}.png" for k in range(12)]
    columns = {"path": names, "label": ["a", "b"] * 6, "group": [f"{k // 3}" for k in range(12)]}
    return Dataset.of("nih", columns, ["a", "b"], FileReader(Path()))


def test_official_lists_are_followed(tmp_path: Path) -> None:
    test = "00001_000.png\r\n00001_001.png\n00001_002.png\n\n99999_000.png\n"
    train_val = "\n".join(f"0000{k}_00{j}" for k in (0, 2, 3) for j in range(3))
    both = lists(tmp_path, train=train_val, test=test)
    for files in (both, {"test": both["test"]}, {"train": both["train"]}):
        splits = SplitSettings(lists=files, fractions=(0.5, 0.5, 0.0)).of(nih())
        assert set(splits.test.table.group) == {"1"}
        assert len(splits.train) + len(splits.val) == 9
        assert len(splits.val) in (3, 6)
    whole = SplitSettings(lists=both, fractions=(1.0, 0.0, 0.0)).of(nih())
    assert len(whole.train) == 9
    full = "images_001.zip!images/00003_000.png\n00003_001\n00003_002.png"
    named = with_lists(nih(), {**both, **lists(tmp_path, val=full, train=train_val[:-30])})
    assert named.table.split.value_counts().to_dict() == {"train": 6, "val": 3, "test": 3}


def test_wrong_lists_are_one_line(tmp_path: Path) -> None:
    names = ["p/00000_000.png", "p/00001_000.png", "p/00001_001.png", "q/00001_001.png"]
    columns = {"path": names, "label": ["a"] * 4}
    dataset = Dataset.of("d", columns, "a", FileReader(Path()))
    wrong = {
        "2 images stand in no list, such as 'p/00001_000.png'": {
            "train": names[0],
            "test": names[3],
        },
        "'p/00000_000.png' stands in .*train.txt too": {"train": names[0], "test": "00000_000"},
        "none of its 1 lines, such as 'nothing.png', is an image of d": {"test": "nothing.png"},
        "none of its 0 lines is an image of d": {"test": ""},
        "'00001_001.png' is the name of 2 images; write paths": {"test": "00001_001.png"},
    }
    for words, parts in wrong.items():
        with pytest.raises(UserError, match=words) as error:
            with_lists(dataset, lists(tmp_path, **parts))
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="cannot be read as a list"):
        with_lists(dataset, {"test": tmp_path / "absent.txt"})
    with pytest.raises(UserError, match="group '1' stands in train and test"):
        SplitSettings(lists=lists(tmp_path, test="00001_001.png")).of(nih())


def test_settings_name_their_mistakes() -> None:
    for content, words in (
        ({"stratify": "source"}, "'stratify' = 'source'"),
        ({"per_class": ["5", "x", "2"]}, "'per_class.1' = 'x'"),
        ({"per_class": [5, -1, 2]}, "'per_class.1' = -1"),
        ({"holdout": "a"}, "did you mean 'hold_out'"),
        ({"lists": {"testing": "a.txt"}}, "'lists.testing"),
    ):
        with pytest.raises(UserError, match=words):
            validate(SplitSettings, content, "data.split")


def digest_of(splits: Splits, file: Path) -> str:
    splits.save(file)
    return hashlib.blake2b(file.read_bytes(), digest_size=12).hexdigest()


def recorded() -> Dataset:
    """A table of 2,000 images, 700 groups of any class, as arithmetic makes it."""
    numbers = [(k * 7919 + k * k * 31) % 1009 for k in range(2000)]
    groups = ["" if n % 11 == 0 else f"p{n % 700}" for n in numbers]
    labels = [("nv", "nv", "nv", "mel", "bkl")[(n // 7) % 5] for n in numbers]
    return dataset_of(groups, labels, source=[f"s{n % 3}" for n in numbers])


def test_splits_of_old_configurations_are_what_they_were(tmp_path: Path) -> None:
    """Recorded before there was anything but class, fractions and seed to split by."""
    dataset, file = recorded(), tmp_path / "split.csv"
    official = np.where(np.arange(2000) % 5 == 0, "test", "train")
    table = dataset.table.assign(group="", split=official)
    listed = Dataset.of("random", dict(table), dataset.classes, dataset.reader)
    phantom = open_dataset("phantom", images=500, size=32, hospital="both")
    found = [
        digest_of(dataset.split(0), file),
        digest_of(dataset.split(7, (0.6, 0.15, 0.25)), file),
        digest_of(dataset.split(3, (0.8, 0.0, 0.2)), file),
        digest_of(listed.split(1, (0.72, 0.08, 0.2)), file),
        digest_of(dataset.split(2).refolded("2/5", 2), file),
        digest_of(phantom.split(0), file),
        hashlib.blake2b(folds(dataset, 5, 4).tobytes(), digest_size=12).hexdigest(),
    ]
    assert found == [
        "4dc1676733f99afa96f531ef",
        "f9832e3cae6a91016ac5f331",
        "91963b1693d57a0e15a6b630",
        "60a5d9c0749b80ea11dcd3ea",
        "3d73b67b5a135e2a5849a77b",
        "fe2a21c25e993524d75f2d32",
        "0ee0fdf63810fe4c9a678554",
    ]


def test_the_split_of_ham10000_is_what_it_was(shared_data: Path, tmp_path: Path) -> None:
    ham = open_dataset("ham10000", shared_data / "ham10000", ["mel", "nv", "bkl"], per_class=800)
    assert (
        digest_of(ham.split(0, (0.7, 0.1, 0.2)), tmp_path / "split.csv")
        == "3f52b13d0c5a300ffa6e5de4"
    )
