"""The checks of data in an audit, on the command line, and on real images."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.audit.pictures import brighter, dataset_of, texture

from diascope.audit import Subject
from diascope.audit.datachecks.audited import audited_findings, trained_sides
from diascope.audit.datachecks.copies import find_copies
from diascope.audit.datachecks.looking import look
from diascope.cli.data_checks import HEADER, markdown
from diascope.cli.main import main
from diascope.data import Pixels, open_data


def pixels_of(pictures, **columns) -> Pixels:
    dataset = dataset_of(pictures, **columns)
    return Pixels(dataset, np.stack(pictures), None, np.zeros(len(pictures), bool))


def trained_on(name: str, table: pd.DataFrame) -> Subject:
    return Subject("m", None, table, {"data": {"name": name}})


def test_an_audit_compares_its_images_with_those_of_the_training():
    pictures = [texture(k, 48) for k in range(40)]
    pictures[1] = brighter(pictures[30], 1.2)
    whole = pixels_of(pictures)
    paths = whole.dataset.table.path
    split = pd.DataFrame({"path": paths, "split": ["test"] * 20 + ["train"] * 20, "group": ""})
    subject = trained_on("pictures", split)
    sides = trained_sides(whole.dataset, [subject])
    assert sides.tolist() == [""] * 20 + ["train"] * 20
    assert set(trained_sides(whole.dataset, [trained_on("other", split)])) == {""}
    test, train = whole.take(sides == ""), whole.take(sides == "train")
    found = {f.check: f for f in audited_findings(test, train, [subject], {})}
    assert found["split_leakage"].files == ((paths[1], paths[30]),)
    assert found["split_leakage"].severity == "high"
    alone = {f.check for f in audited_findings(test, None, [subject], {})}
    assert "split_leakage" not in alone


def test_an_audit_says_where_a_model_was_trained_on_a_parent_of_the_data():
    whole = pixels_of([texture(k, 48) for k in range(8)], name="rsna_pneumonia")
    subject = trained_on("chestxray14", pd.DataFrame({"path": [], "split": [], "group": []}))
    found = [f for f in audited_findings(whole, None, [subject], {}) if f.check == "parents"]
    assert [f.severity for f in found] == ["high", "info"]


@pytest.fixture
def tables(tmp_path):
    """Two tables of pictures, of which one is shared, one stands twice, and one is damaged."""
    for name, seeds in {"one": range(12), "two": range(11, 20)}.items():
        (tmp_path / name).mkdir()
        rows = []
        for k in seeds:
            Image.fromarray(texture(k, 40)[..., 0]).save(tmp_path / name / f"{k}.png")
            rows.append({"path": f"{k}.png", "label": "ab"[k % 2], "group": f"g{k}"})
        pd.DataFrame(rows).to_csv(tmp_path / name / "table.csv", index=False)
    twice = tmp_path / "one" / "4.png"
    twice.write_bytes((tmp_path / "one" / "3.png").read_bytes())
    return tmp_path


def called(monkeypatch, capsys, *words) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["diascope", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0), capsys.readouterr().out


def test_verify_on_the_command_line(tables, monkeypatch, capsys):
    one, two = (tables / name / "table.csv" for name in ("one", "two"))
    splits, out = tables / "s.csv", tables / "f.json"
    sides = [f"{k}.png,{'test' if k == 4 else 'train'}" for k in range(12)]
    splits.write_text("\n".join(["path,split", *sides]))
    words = ["data", "verify", one, "--beside", two, "--splits", splits, "--json", out]
    code, said = called(monkeypatch, capsys, *words)
    assert code == 0
    assert "3.png = 4.png" in said
    content = json.loads(out.read_text())
    found = {f["check"]: f for f in content["findings"]}
    assert found["shared_images"]["files"] == [["11.png", "table: 11.png"]]
    assert found["split_leakage"]["severity"] == "high"
    assert content["beside"] == ["table"]
    assert called(monkeypatch, capsys, *words, "--fail-on", "high")[0] == 1
    assert called(monkeypatch, capsys, *words, "--fail-on", "hihg")[0] == 2
    (tables / "one" / "5.png").write_bytes(b"no image")
    code, said = called(monkeypatch, capsys, "data", "verify", one)
    assert code == 1
    assert "5.png: " in said


def test_the_table_has_a_row_a_dataset(tables, monkeypatch, capsys):
    one, two = (tables / name / "table.csv" for name in ("one", "two"))
    code, said = called(monkeypatch, capsys, "data", "table", one, two)
    assert code == 0
    rows = said.strip().splitlines()
    assert len(rows) == 4
    assert [row.count("|") for row in rows] == [len(HEADER) + 1] * 4
    assert "a 6, b 6" in rows[2]
    assert "Pictures that occur more than once: 1 (medium)" in rows[2]
    assert "\\|" in markdown([["a|b"] * len(HEADER)])


def test_the_known_duplicates_of_ham10000_are_found(shared_data):
    """Its two pairs among 170 others; the pairs have the lesions that the metadata give them."""
    dataset = open_data(f"ham10000:{shared_data / 'ham10000'}")
    known = [("ISIC_0024366", "ISIC_0029861"), ("ISIC_0024777", "ISIC_0029938")]
    names = dataset.table.path.str.extract(r"(ISIC_\d+)")[0]
    part = dataset.take(names.isin(sum(known, ())).to_numpy() | (np.arange(len(names)) % 60 == 0))
    copies = find_copies([look(part)])
    names = part.table.path.str.extract(r"(ISIC_\d+)")[0].to_numpy()
    assert {frozenset(names[pair]) for pair in copies.pairs[copies.exact]} == set(
        map(frozenset, known)
    )


def test_flagged_overlaps_of_the_x_ray_sets_are_found(shared_data):
    """NIH images that are marked in the Radiography database, and as many that are not."""
    options = {"path": "images_224.zip!{file}", "label": "label"}
    radiography = open_data(f"table:{shared_data / 'cxr_radiography' / 'index.csv'}", **options)
    options["path"] = "images_256.zip!{file}"
    nih = open_data(f"table:{shared_data / 'cxr_nih_pneumonia' / 'index.csv'}", **options)
    marks = nih.table.radiography_normal_match.str.replace(".png", ".jpg")
    there = radiography.table.file.isin(set(marks) - {""})
    flagged = marks.isin(set(radiography.table.file[there])).to_numpy()
    lot = np.arange(len(nih)) % 10 == 0
    parts = (
        radiography.take(there.to_numpy() | (np.arange(len(there)) % 10 == 0)),
        nih.take(flagged | lot),
    )
    copies = find_copies([look(part) for part in parts])
    names = np.concatenate([part.table.file for part in parts])
    pairs = {(names[a], names[b]) for a, b in copies.pairs[~copies.exact]}
    expected = set(zip(marks[flagged], nih.table.file[flagged], strict=True))
    assert len(expected) >= 5
    assert len(expected & pairs) >= 0.9 * len(expected)
