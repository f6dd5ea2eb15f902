from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.data import trees

from diascope.data import DATASETS, Dataset, Reader, open_data, open_dataset, verify
from diascope.data.readers import FileReader
from diascope.errors import UserError


def table_of(root: Path, text: str) -> Path:
    for k in range(4):
        trees.write(root / f"{k}.png", trees.encoded(trees.pixels(k), "PNG"))
    return trees.write(root / "table.csv", text)


TABLE = "path,label,group\n0.png,a,p1\n1.png,b,p1\n2.png,a,\n3.png,b,p3\n"


def test_class_folders(tmp_path: Path) -> None:
    dataset = open_data(trees.folders(tmp_path))
    trees.write(tmp_path / "cat" / ".hidden.png", b"")
    trees.write(tmp_path / "cat" / "notes.txt", "x")
    assert dataset.classes == ("cat", "dog")
    assert dataset.counts == {"cat": 3, "dog": 3}
    assert set(open_data(tmp_path).table.path) == set(dataset.table.path)
    assert isinstance(dataset.reader, Reader)


def test_official_folders_masks_and_patients_in_names(tmp_path: Path) -> None:
    for side in ("train", "valid"):
        for name in ("7_left.png", "8_right.png"):
            trees.write(tmp_path / side / "cat" / name, trees.encoded(trees.pixels(1), "PNG"))
    region = trees.encoded(trees.region(), "PNG")
    trees.write(tmp_path / "masks" / "train" / "cat" / "7_left.gif", region)
    with_masks = open_data(f"folder:{tmp_path},masks=masks,group=(\\d+)_")
    assert list(with_masks.table.split) == ["train", "train", "val", "val"]
    assert set(with_masks.table.label) == {"cat"}
    assert list(with_masks.table.group) == ["7", "8", "7", "8"]
    assert list(with_masks.table["mask"]) == ["masks/train/cat/7_left.gif", "", "", ""]
    assert verify(with_masks) == []


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_a_table(tmp_path: Path, kind: str) -> None:
    file = table_of(tmp_path, TABLE)
    if kind == "tsv":
        file.write_text(TABLE.replace(",", "\t"))
    elif kind == "parquet":
        table = pd.read_csv(file)
        file = tmp_path / "table.parquet"
        table.assign(grade=[1, 2, 3, 4]).to_parquet(file)
    dataset = open_data(file)
    assert dataset.labels.tolist() == [0, 1, 0, 1]
    assert list(dataset.table.group) == ["p1", "p1", "", "p3"]
    assert verify(dataset) == []
    if kind == "parquet":
        assert list(dataset.table.grade) == ["1", "2", "3", "4"]


def test_a_table_with_columns_of_other_names(tmp_path: Path) -> None:
    text = "image_id,dx,lesion_id,age\n0,nv,L1,80\n1,mel,L1,NA\n"
    trees.write(tmp_path / "index.csv", text)
    entries = {f"{k}.png": trees.encoded(trees.pixels(k), "PNG") for k in range(2)}
    trees.archive(tmp_path / "images.zip", entries)
    masks = {f"{k}.png": trees.encoded(trees.region(), "PNG") for k in range(2)}
    trees.archive(tmp_path / "masks.zip", masks)
    dataset = open_data(
        f"table:{tmp_path}/index.csv,path=images.zip!{{image_id}}.png,"
        "mask=masks.zip!{image_id}.png,label=dx,group=lesion_id,labels=[nv, mel]"
    )
    assert list(dataset.table.path) == ["images.zip!0.png", "images.zip!1.png"]
    assert dataset.classes == ("nv", "mel")
    assert set(dataset.table.group) == {"L1"}
    assert list(dataset.table.age) == ["80", "NA"]
    assert verify(dataset) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read as a table"),
        ("path,label\n", "has no images"),
        ("file,label\n0.png,a\n", "no column 'path': known: file, label. \\(path=NAME"),
        ("path,lable\n0.png,a\n", "no column 'label': did you mean 'lable'"),
        ("path,label\n0.png,a\n0.png,b\n", "'0.png': keep one row an image"),
        ("path,label\n0.png,\n", "holds no label"),
        ("path,label\n0.png,a,b,c\n1.png,a\n2,3,4,5,6\n", "cannot be read as a table"),
        ("\udcff", "cannot be read as a table"),
    ],
)
def test_a_wrong_table_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    file = table_of(tmp_path, "")
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=words) as error:
        open_data(file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}/empty", "no images in it"),
        ("{}/flat", "lie in no class folders"),
        ("{}/absent", "not found"),
        ("{}/absent.csv", "no such file"),
        ("{}/notes.md", "expected a folder of class folders"),
        ("{}/ham", "write ham10000:"),
        ("ham1000", "did you mean 'ham10000'"),
        ("folder:{}/good,maskz=m", "unknown option 'maskz': did you mean 'masks'"),
        ("folder:{}/good,masks=m", "no such folder"),
        ("folder:{}/good,group=(", "not a regular expression"),
        ("folder:{}/good,group=x", "parentheses"),
        ("folder:{}/good,image_size=big", "write WIDTHxHEIGHT"),
        ("folder:{}/good,nonsense", "written key=value"),
        ("folder:{}/good,masks=[1, 2]", "string"),
        ("folder", "no folder is given"),
        ("table", "no file is given"),
        ("table:{}/table.csv,path=no{{}}brace{{", "not a template"),
    ],
)
def test_what_is_no_dataset_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    trees.write(tmp_path / "flat" / "a.png", b"")
    trees.write(tmp_path / "notes.md", "x")
    trees.write(tmp_path / "table.csv", TABLE)
    trees.reduced(tmp_path / "ham")
    trees.folders(tmp_path / "good", 1)
    with pytest.raises(UserError, match=words) as error:
        open_data(text.format(tmp_path))
    assert "\n" not in str(error.value)


def test_classes_and_balance(tmp_path: Path) -> None:
    root = trees.folders(tmp_path, 6)
    with pytest.raises(UserError, match="no class 'cart': did you mean 'cat'"):
        open_data(root, classes=["cart"])
    with pytest.raises(UserError, match="each class once"):
        open_data(root, classes=["cat", "cat"])
    with pytest.raises(UserError, match="cannot draw 7 images a class: cat has 6, dog has 6"):
        open_data(root, per_class=7)
    one = open_data(root, per_class=3)
    assert one.counts == {"cat": 3, "dog": 3}
    assert list(one.table.path) == list(open_data(root, per_class=3).table.path)
    seeds = [set(open_data(root, per_class=3, per_class_seed=k).table.path) for k in range(5)]
    assert len({frozenset(paths) for paths in seeds}) > 1
    whole = open_dataset("folder", root)
    reverse = whole.take(np.arange(12)[::-1]).balanced(3)
    assert set(reverse.table.path) == set(one.table.path)


def test_ids_follow_the_image_not_the_row(tmp_path: Path) -> None:
    dataset = open_data(trees.folders(tmp_path, 4))
    order = np.array([3, 0, 7])
    assert (dataset.take(order).ids == dataset.ids[order]).all()
    assert len(set(dataset.ids)) == 8
    assert dataset.ids.dtype == np.int64


def test_a_dataset_needs_rows() -> None:
    with pytest.raises(UserError, match="has no images"):
        Dataset.of("none", {"path": []}, (), FileReader(Path()))


def test_every_named_dataset_declares_typed_options() -> None:
    import typing

    for name in DATASETS:
        hints = typing.get_type_hints(DATASETS[name])
        assert hints["return"] is Dataset
        assert "root" in hints
