from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from diascope.errors import UserError
from diascope.evaluation.tables import read_table, write_table


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "id": np.array([2**62, 5], dtype=np.int64),
            "path": ["a b.jpg", "ü.jpg"],
            "prob_mel": np.array([0.25, np.nan], dtype=np.float32),
            "correct": [True, False],
        }
    )


def test_tables_and_metadata_come_back(tmp_path, table):
    path = tmp_path / "deep" / "test.parquet"
    metadata = {"seed": 3, "config": "ab12", "epsilons": [0.0, 0.5], "nested": {"x": None}}
    write_table(table, path, metadata)
    found, kept = read_table(path)
    pd.testing.assert_frame_equal(found, table)
    assert kept == metadata
    write_table(table[::-1], path)
    found, kept = read_table(path)
    assert found["correct"].tolist() == [False, True]
    assert list(found.index) == [0, 1]
    assert kept == {}
    assert [file.name for file in path.parent.iterdir()] == ["test.parquet"]


def test_a_failed_write_leaves_the_old_table(tmp_path, table):
    path = tmp_path / "test.parquet"
    write_table(table, path, {"seed": 1})
    with pytest.raises(TypeError):
        write_table(table, path, {"seed": object()})
    with pytest.raises(ValueError, match="JSON"):
        write_table(table, path, {"value": float("nan")})
    assert read_table(path)[1] == {"seed": 1}


def test_tables_of_others_have_no_metadata(tmp_path, table):
    table.to_parquet(tmp_path / "theirs.parquet")
    found, metadata = read_table(tmp_path / "theirs.parquet")
    pd.testing.assert_frame_equal(found, table)
    assert metadata == {}


def test_names_of_folders_do_not_become_columns(tmp_path, table):
    path = tmp_path / "seed=3" / "eps=0.5" / "test.parquet"
    write_table(table, path)
    pd.testing.assert_frame_equal(read_table(path)[0], table)


@pytest.mark.parametrize("content", [None, b"", b"PAR1 not a table PAR1"])
def test_what_cannot_be_read_is_said_in_one_line(tmp_path, content):
    path = tmp_path / "x.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.parquet") as error:
        read_table(path)
    assert "\n" not in str(error.value)


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(UserError):
        read_table(tmp_path)
