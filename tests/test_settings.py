from __future__ import annotations

import pytest

from diascope.errors import UserError
from diascope.settings import Settings, override, read_yaml, validate, write_yaml


class Inner(Settings):
    epochs: int = 3
    rate: float = 0.1


class Outer(Settings):
    training: Inner = Inner()
    extra: Inner | None = None
    name: str


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"name": "a", "training": {"epohcs": 1}},
            "file: unknown key 'training.epohcs': did you mean 'epochs'?",
        ),
        (
            {"name": "a", "extra": {"rte": 1}},
            "file: unknown key 'extra.rte': did you mean 'rate'?",
        ),
        ({"nmae": "a"}, "file: unknown key 'nmae': did you mean 'name'?"),
        ({"training": {}}, "file: 'name' is missing"),
        (
            {"name": "a", "training": {"epochs": "many"}},
            "file: 'training.epochs' = 'many': input should be a valid integer",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_the_nearest_key(content, message):
    with pytest.raises(UserError) as caught:
        validate(Outer, content, "file")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_overrides_are_typed_and_leave_the_original_alone():
    content = {"training": {"epochs": 3}}
    changed = override(
        content, ["training.epochs=5", "training.rate=1e-3", "a.b.c=[1, 2]", "n=null"]
    )
    assert changed == {
        "training": {"epochs": 5, "rate": "1e-3"},
        "a": {"b": {"c": [1, 2]}},
        "n": None,
    }
    assert validate(Inner, changed["training"], "x").rate == 0.001
    assert content == {"training": {"epochs": 3}}


@pytest.mark.parametrize("bad", ["epochs", "=5", "training.epochs.deep=1", "a=[1"])
def test_bad_overrides_are_refused(bad):
    with pytest.raises(UserError):
        override({"training": {"epochs": 3}}, [bad])


def test_yaml_is_read_and_written_or_refused_in_one_line(tmp_path):
    path = tmp_path / "a.yaml"
    write_yaml(path, {"b": 1, "a": [0.5, "é"]})
    assert read_yaml(path) == {"b": 1, "a": [0.5, "é"]}
    for text in ("- 1", "a: [", "\x00"):
        path.write_text(text)
        with pytest.raises(UserError) as caught:
            read_yaml(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        read_yaml(tmp_path)


@pytest.mark.parametrize(
    "text", ["a: 1\nb: 2\na: 3", "c:\n  a: {b: 1}\n  a: {}", "c: [{a: 1, a: 1}]"]
)
def test_a_key_that_stands_twice_is_refused(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"a.yaml: not YAML: the key 'a' stands twice .*line [23]?"):
        read_yaml(path)


def test_merged_keys_may_be_given_anew(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("x: &x {k: 1}\ny: &y\n  <<: *x\n  k: 2\nz:\n  <<: *y\n  k: 3\n")
    assert read_yaml(path) == {"x": {"k": 1}, "y": {"k": 2}, "z": {"k": 3}}


def test_a_key_twice_in_an_override_is_refused():
    with pytest.raises(UserError, match="not YAML"):
        override({}, ["a={b: 1, b: 2}"])
