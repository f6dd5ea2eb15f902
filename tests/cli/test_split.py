"""`diascope data split`: its options say what `data.split` of a configuration says."""

from __future__ import annotations

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from diascope.cli.data import app
from diascope.data import open_data
from diascope.errors import UserError
from diascope.training import read_config


@pytest.fixture
def table(tmp_path):
    """60 images of two classes from three hospitals; patient p0 is known to two of them."""
    rows = {
        "path": [f"images/{k:03d}.png" for k in range(60)],
        "label": ["a", "b"] * 30,
        "group": [f"p{k // 2}" for k in range(60)],
        "source": [("wien", "basel", "bern")[k // 20] for k in range(60)],
    }
    rows["group"][59] = "p0"
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


def split(table, *words: object) -> tuple[Result, dict[str, str]]:
    out = table.parent / "split.csv"
    command = ["split", str(table), "--out", str(out), *map(str, words)]
    done = CliRunner().invoke(app, command)
    if done.exit_code:
        return done, {}
    written = pd.read_csv(out)
    return done, dict(zip(written.path, written.split, strict=True))


def configured(table, *overrides: str) -> dict[str, str]:
    config = read_config({"data": {"name": str(table)}}, overrides)
    splits = config.data.split.of(open_data(config.data.name))
    parts = dict(zip(("train", "val", "test"), splits, strict=True))
    if splits.left_out is not None:
        parts["left-out"] = splits.left_out
    return {path: name for name, part in parts.items() for path in part.table.path}


def test_options_and_configuration_split_alike(table):
    (table.parent / "test.txt").write_text("\n".join(f"{k:03d}" for k in [0, 1, *range(40, 60)]))
    cases = [
        ((), ()),
        (("--stratify", "class+source", "--seed", 3), ("stratify=class+source", "seed=3")),
        (
            ("--hold-out", "bern", "--spanning", "leave-out", "--fold", "1/3"),
            ("hold_out=bern", "spanning=leave-out", "fold=1/3"),
        ),
        (("--per-class", "9,2,7"), ("per_class=[9,2,7]",)),
        (
            ("--test-list", table.parent / "test.txt", "--fractions", 0.5, 0.5, 0),
            (f"lists.test={table.parent / 'test.txt'}", "fractions=[0.5,0.5,0.0]"),
        ),
    ]
    found = []
    for words, overrides in cases:
        done, sides = split(table, *words)
        assert done.exit_code == 0, done.exception
        assert sides == configured(table, *(f"data.split.{text}" for text in overrides))
        found.append(sides)
    assert len({tuple(sorted(sides.items())) for sides in found}) == len(cases)
    held = found[2]
    assert {path for path, side in held.items() if side == "test"} == {
        f"images/{k:03d}.png" for k in range(40, 60)
    }
    assert [path for path, side in held.items() if side == "left-out"] == [
        "images/000.png",
        "images/001.png",
    ]
    balanced = pd.Series(found[3]).value_counts().to_dict()
    assert balanced == {"train": 18, "val": 4, "test": 14, "left-out": 24}
    assert "left out 24 images" in split(table, "--per-class", "9,2,7")[0].output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--hold-out", "bern"), "1 groups, such as 'p0', have images in 'bern' and elsewhere"),
        (("--hold-out", "brn"), "did you mean 'bern'"),
        (("--stratify", "hospital"), "'stratify' = 'hospital'"),
        (("--per-class", "9,2"), "per_class"),
        (("--test-list", "absent.txt"), "cannot be read as a list"),
        (("--fold", "6/5"), "write all, or 2/5"),
    ],
)
def test_mistakes_are_one_line(table, words, message):
    done, _ = split(table, *words)
    assert isinstance(done.exception, UserError)
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)


def test_classes_may_be_named_with_the_data(table):
    assert open_data(f"table:{table},classes=[b]").counts == {"b": 30}
    assert open_data(f"table:{table},classes=[b, a]", ["a"]).counts == {"a": 30}
