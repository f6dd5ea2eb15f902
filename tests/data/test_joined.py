"""Several datasets as one: classes from different sources, as P3 built its second dataset."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from diascope.data import load_pixels, open_data
from diascope.errors import UserError

PARTS = {
    "ill": {"data": "phantom:images=40,size=32,hospital=a", "labels": {"melanoma": "disease"}},
    "well": {
        "data": "phantom:images=40,size=32,hospital=b,seed=1",
        "labels": {"nevus": "healthy"},
        "source": "clinic",
        "images": 5,
    },
}


@pytest.fixture
def write(tmp_path):
    def to_file(parts=PARTS, **changes):
        content = {"name": "both", "classes": ["healthy", "disease"], "parts": parts, **changes}
        file = tmp_path / "both.yaml"
        file.write_text(yaml.safe_dump(content))
        return f"joined:{file}"

    return to_file


def test_labels_sources_and_groups_are_those_of_the_parts(write):
    joined = open_data(write())
    ill = open_data(PARTS["ill"]["data"]).restrict(["melanoma"])
    assert joined.name == "both"
    assert joined.classes == ("healthy", "disease")
    assert joined.counts == {"healthy": 5, "disease": len(ill)}
    table = joined.table
    assert set(table.source[table.label == "healthy"]) == {"clinic"}
    assert set(table.source[table.label == "disease"]) == set(ill.table.source)
    assert set(table.path[table.label == "disease"]) == {f"ill::{p}" for p in ill.table.path}
    assert table.group.str.match(r"(ill|well)::.").all()
    assert len(set(joined.ids)) == len(joined)


def test_pixels_and_masks_are_those_of_the_parts(write, tmp_path):
    joined = open_data(write())
    ill = open_data(PARTS["ill"]["data"]).restrict(["melanoma"])
    ours = load_pixels(joined, 32, cache=tmp_path / "cache")
    theirs = load_pixels(ill, 32, cache=tmp_path / "cache")
    rows = np.flatnonzero(joined.labels == 1)
    np.testing.assert_array_equal(ours.x(rows).numpy(), theirs.x().numpy())
    np.testing.assert_array_equal(ours.m(rows).numpy(), theirs.m().numpy())
    assert ours.m(rows).any()


def test_the_draw_is_the_same_every_time_and_at_most_what_there_is(write):
    first, again = open_data(write()), open_data(write())
    assert first.table.equals(again.table)
    many = {**PARTS, "well": {**PARTS["well"], "images": 10_000}}
    assert open_data(write(many)).counts["healthy"] == sum(
        open_data(PARTS["well"]["data"]).table.label == "nevus"
    )


def test_a_relative_path_is_taken_from_the_file(write, tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    rows = open_data("phantom:images=6,size=32").reader
    for k, path in enumerate(open_data("phantom:images=6,size=32").table.path):
        from PIL import Image

        Image.fromarray(rows.image(path)).save(tmp_path / "own" / f"{k}.png")
    table = "path,label\n" + "".join(f"own/{k}.png,normal\n" for k in range(6))
    (tmp_path / "own.csv").write_text(table)
    parts = {"mine": {"data": "own.csv", "labels": {"normal": "healthy"}}, "ill": PARTS["ill"]}
    address = write(parts)
    monkeypatch.chdir("/")
    assert open_data(address).counts["healthy"] == 6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parts": {}}, "'parts' is empty"),
        ({"parts": {"a b": PARTS["ill"]}}, "part 'a b'"),
        ({"parts": {"a": {**PARTS["ill"], "labels": {"melanom": "x"}}}}, "did you mean"),
        ({"parts": {"a": {**PARTS["ill"], "lables": {}}}}, "unknown key"),
        ({"parts": {"a": {"data": PARTS["ill"]["data"]}}}, "is none of the classes"),
        ({"classes": ["healthy"]}, "label 'disease' is none of the classes"),
    ],
)
def test_a_mistake_is_one_sentence(write, changes, words):
    with pytest.raises(UserError, match=words) as caught:
        open_data(write(**changes))
    assert "\n" not in str(caught.value)


def test_parts_may_be_given_without_a_file(write):
    joined = open_data("joined", parts={key: PARTS[key] for key in ("well", "ill")})
    assert joined.classes == ("healthy", "disease")  # in the order in which the labels name them
    assert joined.counts == open_data(write()).counts
    assert set(joined.table.path) == set(open_data(write()).table.path)
    with pytest.raises(UserError, match="not both"):
        open_data(write(), parts=PARTS)


def test_without_a_file_it_asks_for_one():
    with pytest.raises(UserError, match="joined:FILE"):
        open_data("joined")


def test_p3s_second_dataset(shared_data, tmp_path):
    """COVID-19 of Cohen's collection, healthy of NIH: the label is the source."""
    asked = "task=pneumonia,against=no-finding"
    content = {
        "name": "cohen-nih",
        "classes": ["negative", "COVID-19"],
        "parts": {
            "cohen": {
                "data": f"covid_chestxray:{shared_data}/cxr_cohen,against=rest",
                "labels": {"COVID-19": "COVID-19"},
                "source": "cohen",
            },
            "nih": {
                "data": f"chestxray14:{shared_data}/cxr_nih_pneumonia,{asked}",
                "labels": {"No Finding": "negative"},
                "source": "nih",
            },
        },
    }
    (tmp_path / "p3.yaml").write_text(yaml.safe_dump(content))
    joined = open_data(f"joined:{tmp_path}/p3.yaml")
    assert joined.counts == {"negative": 500, "COVID-19": 170}
    assert (joined.table.source == "cohen").eq(joined.table.label == "COVID-19").all()
    assert load_pixels(joined.take(np.arange(0, 670, 67)), 64, cache=tmp_path).size == 64
