"""DICOM files full of identifiers: nothing that any verb writes or says holds one of them."""

from __future__ import annotations

import io
import json
import logging
import os
import warnings
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from tests.data import dicoms

from diascope.data import open_data
from diascope.data.privacy import pseudonym

CONFIG = """
data:
  name: folder:{data}
  options: {{group: "dicom:PatientID"}}
  size: 32
  split: {{fractions: [0.5, 0.25, 0.25]}}
  skip_unreadable: true
model: {{name: resnet18, options: {{layers: [1, 1, 1, 1], channels: [8, 8, 8, 8]}}}}
training: {{epochs: 1, batch_size: 8}}
"""
UID = dicoms.SECRETS["SOPInstanceUID"]
ODD = UID.replace(".", "_")  # no identifier by the standard, of which pydicom warns
PATIENTS = [f"KH-4711-08{k:02d}" for k in range(12)]


def secrets() -> list[bytes]:
    """Everything that must be found nowhere, also in the encodings that files use."""
    found = [*dicoms.words(), *PATIENTS, ODD, "Mustermann", "20240229"]
    return [w for word in found for w in (word.encode(), word.encode("utf-16-le"))]


def written(folder: Path) -> list[tuple[str, bytes]]:
    """The name and the content of every file below a folder; packed ones unpacked, too."""
    found = []
    for file in sorted(folder.rglob("*")):
        content = file.read_bytes() if file.is_file() else b""
        found.append((str(file.relative_to(folder)), content))
        if file.suffix == ".parquet":
            table = pq.read_table(file)
            found.append((file.name, table.to_pandas().to_csv().encode() + repr(table).encode()))
        if file.suffix == ".png" and content:
            unpacked = b"".join(_text_chunks(content))
            found.append((file.name, unpacked))
    return found


def _text_chunks(content: bytes) -> list[bytes]:
    place, found = 8, []
    while place + 8 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        kind, data = content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        if kind in (b"zTXt", b"iTXt") and b"\0\0" in data:
            found.append(zlib.decompressobj().decompress(data.partition(b"\0\0")[2]))
        place += 12 + length
    return found


def clean(named: list[tuple[str, bytes]]) -> None:
    for name, content in named:
        for secret in secrets():
            assert secret not in content, (name, secret)
            assert secret not in name.encode(), (name, secret)


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """Two classes of DICOM files, two a patient, with names and identifiers for file names."""
    root = tmp_path / "clinic"
    draw = np.random.default_rng(0)
    for k, patient in enumerate(PATIENTS):
        for view in range(2):
            label = ("sick", "well")[k % 2]
            pixels = draw.integers(0, 3000, (36, 32)).astype(np.uint16)
            content = dicoms.dicom(pixels + 900 * (k % 2), PatientID=patient)
            place = root / label / f"{patient}_Mustermann"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{UID}.{k}{view}").write_bytes(content)
    broken = dicoms.dicom(np.zeros((8, 8), np.uint8), PatientID=PATIENTS[0], NumberOfFrames=7)
    (root / "sick" / f"{PATIENTS[0]}_Mustermann" / "20240229.dcm").write_bytes(broken)
    odd = dicoms.dicom(np.zeros((8, 8), np.uint8)).replace(UID.encode(), ODD.encode())
    (root / "well" / "Mustermann.dcm").write_bytes(odd[:-30])
    return root


@pytest.fixture
def heard() -> io.StringIO:
    """All that is logged, of any level."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger, level = logging.getLogger(), logging.getLogger().level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_no_verb_writes_or_says_an_identifier(clinic, tmp_path, diascope, heard, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setenv("DIASCOPE_CACHE", str(out / "cache"))
    monkeypatch.chdir(out)
    data = f"folder:{clinic},group=dicom:PatientID"
    (tmp_path / "tiny.yaml").write_text(CONFIG.format(data=clinic))
    image = next(iter(sorted(clinic.rglob("*00"))))
    broken = next(clinic.rglob("20240229.dcm"))
    verbs = [
        (1, ("data", "verify", data)),
        (0, ("data", "split", data, "--out", out / "split.csv")),
        (0, ("train", tmp_path / "tiny.yaml", "--out", out / "run")),
        (0, ("audit", out / "run", "--data", data, "--out", out / "audit", "--steps", 1,
             "--eps", "0.5", "--cases", 2, "--skip-unreadable")),
        (0, ("explain", out / "run", image, "--out", out / "maps")),
        (0, ("attack", out / "run", image, "--out", out / "attacked", "--steps", 1, "--eps", 1)),
        (2, ("explain", out / "run", broken, "--out", out / "none")),
    ]  # fmt: skip
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        said = [diascope(*words) for _, words in verbs]
    for (code, words), done in zip(verbs, said, strict=True):
        assert done.returncode == code, (words[0], done.stdout, done.stderr)
        clean([(str(words[0]), (done.stdout + done.stderr).encode())])
    clean([("warnings", " ".join(str(each.message) for each in warned).encode())])
    clean([("logs", heard.getvalue().encode())])
    everything = written(out)
    names = {name for name, _ in everything}
    assert {"split.csv", "run/split.csv", "run/metrics.csv", "audit/results.json"} <= names
    assert {"audit/report.html", "maps/results.json", "attacked/results.json"} <= names
    assert any(name.startswith("cache") for name in names)
    clean(everything)
    split = pd.read_csv(out / "split.csv")
    assert split.groupby("group").split.nunique().max() == 1  # the two views of a patient
    assert split.group.nunique() == len(PATIENTS) + 1  # and that of the file that names another
    assert "holds 7 frames" in said[0].stdout
    assert "holds 7 frames" in said[-1].stderr
    found = json.loads((out / "maps" / "results.json").read_text())["images"][0]["image"]
    assert found.startswith("file-")


def test_groups_of_a_table_are_those_of_the_files(clinic: Path, tmp_path: Path) -> None:
    files = [file for file in sorted(clinic.rglob("*")) if file.name.startswith(UID)]
    rows = [f"{f.relative_to(tmp_path)},{f.parts[-3]},{f.parts[-2][:12]}" for f in files]
    table = tmp_path / "list.csv"
    table.write_text("\n".join(["path,label,patient", *rows]) + "\n")
    by_tag = open_data(table, group="dicom:PatientID")
    by_column = open_data(table, group="patient")
    assert (by_tag.table.group == by_column.table.group).all()
    assert set(by_tag.table.group) == {pseudonym("group", patient) for patient in PATIENTS}
    assert list(by_tag.table.columns) == list(open_data(clinic).table.columns)  # none further
    assert by_tag.reader.image(by_tag.table.path[0]).shape == (36, 32, 1)
    plain = open_data(table, private=False, group="patient")
    assert set(plain.table.group) == set(PATIENTS)
    assert "patient" in plain.table


def test_paths_of_other_formats_are_hidden_on_demand(tmp_path: Path) -> None:
    from tests.data import trees

    trees.folders(tmp_path / "set")
    open_plain, hidden = open_data(tmp_path / "set"), open_data(tmp_path / "set", private=True)
    assert open_plain.table.path[0] == "cat/cat0.png"
    assert hidden.table.path.str.fullmatch("file-[0-9a-f]{16}").all()
    for plain, short in zip(open_plain.table.path, hidden.table.path, strict=True):
        assert hidden.reader.places[short] == plain
        assert (hidden.reader.image(short) == open_plain.reader.image(plain)).all()
        assert hidden.reader.stamp(short) == open_plain.reader.stamp(plain)
    os.remove(tmp_path / "set" / open_plain.table.path[0])
    with pytest.raises(Exception, match=f"{hidden.table.path[0]}: there is no such file"):
        hidden.reader.image(hidden.table.path[0])


def test_names_of_pseudonyms_are_shown_on_demand(clinic: Path, diascope) -> None:
    shown = diascope("data", "names", clinic).stdout.splitlines()
    assert len(shown) == 2 * len(PATIENTS) + 2
    name, _, path = shown[0].partition(" ")
    assert (clinic / path).is_file()
    assert diascope("data", "names", clinic, name).stdout == f"{shown[0]}\n"
    unknown = diascope("data", "names", clinic, "file-0")
    assert unknown.returncode == 2
    assert "stands for no file" in unknown.stderr
