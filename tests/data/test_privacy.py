"""Keyed pseudonyms, and that nothing written holds a name."""

from __future__ import annotations

import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from diascope.data import privacy
from diascope.data.privacy import key_file, pseudonym, secret
from diascope.errors import UserError

KEY = b"a key for tests"


def test_a_pseudonym_depends_on_key_and_every_part() -> None:
    one = pseudonym("group", "KH-4711", key=KEY)
    assert one == pseudonym("group", "KH-4711", key=KEY)
    assert len(one) == 16
    int(one, 16)
    others = [("group", "KH-4712"), ("path", "KH-4711"), ("groupK", "H-4711"), ("groupKH-4711",)]
    found = {pseudonym(*parts, key=KEY) for parts in others} | {
        pseudonym("group", "KH-4711", key=b"another key of a hospital"),
        pseudonym("group", "KH-4711", "", key=KEY),
    }
    assert len(found) == 6
    assert one not in found


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("DIASCOPE_KEY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


def test_the_key_is_drawn_once_and_for_the_user_alone(home: Path) -> None:
    key = secret()
    assert len(key) == 32
    assert stat.S_IMODE(key_file().stat().st_mode) == 0o600
    assert os.listdir(key_file().parent) == ["key"]
    privacy._kept.cache_clear()
    assert secret() == key
    key_file().unlink()
    privacy._kept.cache_clear()
    assert secret() != key


def test_the_key_that_is_given(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIASCOPE_KEY", "correct horse battery staple")
    one = pseudonym("group", "x")
    assert not key_file().exists()
    monkeypatch.setenv("DIASCOPE_KEY", "another horse battery staple")
    assert pseudonym("group", "x") != one
    for short in ("", "horse"):
        monkeypatch.setenv("DIASCOPE_KEY", short)
        with pytest.raises(UserError, match="shorter than 16") as error:
            pseudonym("group", "x")
        assert "horse" not in str(error.value)


def test_a_key_that_others_may_read_or_that_is_damaged(home: Path) -> None:
    secret()
    for content, mode, words in (
        (key_file().read_text(), 0o644, "chmod 600"),
        ("12", 0o600, "damaged"),
        ("zz" * 32, 0o600, "damaged"),
    ):
        key_file().write_text(content)
        key_file().chmod(mode)
        privacy._kept.cache_clear()
        with pytest.raises(UserError, match=words) as error:
            secret()
        assert content.strip() not in str(error.value).replace(str(key_file()), "")


def test_a_folder_that_cannot_be_written(home: Path) -> None:
    (home / "diascope").write_text("a file")
    privacy._kept.cache_clear()
    with pytest.raises(UserError, match=r"cannot be kept there .* \$DIASCOPE_KEY"):
        secret()


def _draw(_: int) -> bytes:
    return secret()


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_of_several_processes_the_first_key_stays(home: Path) -> None:
    privacy._kept.cache_clear()
    with multiprocessing.get_context("fork").Pool(4) as pool:
        keys = set(pool.map(_draw, range(16), chunksize=1))
    assert len(keys) == 1
