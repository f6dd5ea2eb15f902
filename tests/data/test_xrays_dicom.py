"""Chest X-rays in DICOM: SIIM-FISABIO-RSNA COVID-19 and RSNA pneumonia, as they are unpacked."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.data import trees, xrays

from diascope.data import Dataset, open_data, open_dataset, verify
from diascope.data.verify import read_row
from diascope.errors import UserError

pydicom = pytest.importorskip("pydicom", reason="pydicom, which writes these images, is absent")

SIIM_STUDY = (
    "id,Negative for Pneumonia,Typical Appearance,Indeterminate Appearance,Atypical Appearance"
)
SIIM_STUDIES = {  # Negative, Typical, Indeterminate, Atypical
    "00086460a852": (0, 1, 0, 0),
    "00292f8c37bd": (1, 0, 0, 0),
    "005057b3f880": (0, 0, 1, 0),
    "0051d9b12e72": (0, 0, 0, 1),
}
SIIM_IMAGES = (  # image, study, boxes
    ("65761e66de9f", "00086460a852", ((3.5, 4.25, 10.0, 12.0), (20.0, 6.0, 8.0, 9.5))),
    ("51759b5579bc", "00086460a852", ()),
    ("2cd8c5d4a5b1", "00292f8c37bd", ()),
    ("f6293b1c49e2", "005057b3f880", ((1.0, 2.0, 3.0, 4.0),)),
    ("3019399c31f4", "0051d9b12e72", ()),
)
RSNA = "patientId,x,y,width,height,Target"
RSNA_BOXES = (
    ("0004cfab-14fd", "", "", "", "", 0),
    ("00436515-870c", 26.0, 15.0, 10.0, 20.0, 1),
    ("00436515-870c", 5.0, 15.0, 12.5, 20.0, 1),
    ("003d8fa0-6bf1", "", "", "", "", 0),
)
RSNA_CLASSES = (
    ("0004cfab-14fd", "No Lung Opacity / Not Normal"),
    ("00436515-870c", "Lung Opacity"),
    ("00436515-870c", "Lung Opacity"),
    ("003d8fa0-6bf1", "Normal"),
)
RSNA_MAPPING = [
    {"subset_img_id": "0004cfab-14fd", "img_id": "00000013_004.png", "orig_labels": ["Mass"]},
    {"subset_img_id": "00436515-870c", "img_id": "00000013_005.png", "orig_labels": ["Pneumonia"]},
    {"subset_img_id": "003d8fa0-6bf1", "img_id": "00000002_000.png", "orig_labels": []},
]


def dicom(pixels: np.ndarray) -> bytes:
    """A grey image (H, W) of 8 bits as an uncompressed DICOM file."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID = meta.MediaStorageSOPClassUID
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    image.Modality = "CR"
    image.Rows, image.Columns = pixels.shape
    image.PhotometricInterpretation = "MONOCHROME2"
    image.SamplesPerPixel, image.PixelRepresentation = 1, 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
    image.PixelData = pixels.tobytes()
    buffer = io.BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def siim(root: Path) -> Path:
    """`train/<study>/<series>/<image>.dcm` beside both tables."""
    studies = [(f"{study}_study", *marks) for study, marks in SIIM_STUDIES.items()]
    xrays.table(root / "train_study_level.csv", SIIM_STUDY, studies)
    rows = []
    for k, (image, study, boxes) in enumerate(SIIM_IMAGES):
        found = [dict(zip(("x", "y", "width", "height"), box, strict=True)) for box in boxes]
        labels = [f"opacity 1 {x} {y} {x + w} {y + h}" for x, y, w, h in boxes]
        text = str(found) if found else ""
        rows.append((f"{image}_image", text, " ".join(labels) or "none 1 0 0 1 1", study))
        place = root / "train" / study / f"{k:012x}" / f"{image}.dcm"
        trees.write(place, dicom(xrays.grey(k)))
    xrays.table(root / "train_image_level.csv", "id,boxes,label,StudyInstanceUID", rows)
    trees.write(root / "test" / "aa" / "bb" / "cc.dcm", b"not read")
    return root


def rsna(root: Path, packed: bool = False, mapping: bool = False) -> Path:
    """Both tables and `stage_2_train_images`, as a folder or as the ZIP file of that name."""
    xrays.table(root / "stage_2_train_labels.csv", RSNA, RSNA_BOXES)
    xrays.table(root / "stage_2_detailed_class_info.csv", "patientId,class", RSNA_CLASSES)
    names = list(dict(RSNA_CLASSES))
    images = {f"{name}.dcm": dicom(xrays.grey(k)) for k, name in enumerate(names)}
    if packed:
        trees.archive(root / "stage_2_train_images.zip", images)
    else:
        for name, content in images.items():
            trees.write(root / "stage_2_train_images" / name, content)
    trees.write(root / "stage_2_test_images" / "0000a175.dcm", b"not read")
    if mapping:
        file = root / "pneumonia-challenge-dataset-mappings_2018.json"
        trees.write(file, json.dumps(RSNA_MAPPING))
    return root


def pixels_are_those(dataset: Dataset) -> None:
    assert verify(dataset) == []
    for row, path in enumerate(dataset.table.path):
        image = dataset.reader.image(path)[..., 0].astype(int)
        assert np.abs(image - xrays.grey(row)).max() <= 1


def test_siim_by_study(tmp_path: Path) -> None:
    dataset = open_data(f"siim_covid19:{siim(tmp_path)}")
    assert dataset.classes == ("negative", "COVID-19")
    assert dataset.labels.tolist() == [1, 1, 0, 1, 1]
    assert list(dataset.table.group) == [row[1] for row in SIIM_IMAGES]
    boxes = [[list(box) for box in row[2]] for row in SIIM_IMAGES]
    assert [json.loads(text) if text else [] for text in dataset.table.boxes] == boxes
    pixels_are_those(dataset)
    mask = read_row(dataset, 3).mask
    assert mask is not None
    assert np.argwhere(mask).min(0).tolist() == [2, 1]
    assert mask.sum() == 12


def test_siim_by_its_other_questions(tmp_path: Path) -> None:
    root = siim(tmp_path)
    four = open_dataset("siim_covid19", root, task="appearance")
    assert four.labels.tolist() == [1, 1, 0, 2, 3]
    assert open_dataset("siim_covid19", root, task="opacity").labels.tolist() == [1, 0, 0, 1, 0]


def test_siim_with_a_study_that_has_no_label(tmp_path: Path) -> None:
    root = siim(tmp_path)
    rows = [("00086460a852_study", 0, 1, 0, 0), ("00292f8c37bd_study", 0, 0, 0, 0)]
    xrays.table(root / "train_study_level.csv", SIIM_STUDY, rows)
    problems = verify(open_dataset("siim_covid19", root))
    assert [problem.reason for problem in problems] == ["has no label"] * 3


@pytest.mark.parametrize("packed", [False, True])
def test_rsna_has_a_row_an_image(tmp_path: Path, packed: bool) -> None:
    dataset = open_data(f"rsna_pneumonia:{rsna(tmp_path, packed)}")
    assert dataset.classes == ("No Lung Opacity", "Lung Opacity")
    assert dataset.labels.tolist() == [0, 1, 0]
    boxes = [[26.0, 15.0, 10.0, 20.0], [5.0, 15.0, 12.5, 20.0]]
    assert [json.loads(text) if text else [] for text in dataset.table.boxes] == [[], boxes, []]
    assert list(dataset.table.group) == list(dict(RSNA_CLASSES))
    assert "not known as a group" in dataset.notes[0]
    pixels_are_those(dataset)


def test_rsna_by_its_other_questions(tmp_path: Path) -> None:
    root = rsna(tmp_path)
    three = open_dataset("rsna_pneumonia", root, task="class")
    assert three.labels.tolist() == [1, 2, 0]
    normal = open_dataset("rsna_pneumonia", root, against="normal")
    assert normal.classes == ("Normal", "Lung Opacity")
    assert normal.labels.tolist() == [1, 0]
    assert normal.notes[0] == "1 image left out: neither normal nor with an opacity"


def test_rsna_knows_the_patients_of_chestxray14_by_the_mapping(tmp_path: Path) -> None:
    dataset = open_dataset("rsna_pneumonia", rsna(tmp_path, mapping=True))
    assert list(dataset.table.group) == ["00000013", "00000013", "00000002"]
    assert list(dataset.table.nih_image) == [entry["img_id"] for entry in RSNA_MAPPING]
    assert dataset.notes == ()


@pytest.mark.parametrize(
    ("name", "build", "spoil", "words"),
    [
        (
            "siim_covid19",
            siim,
            lambda r: (r / "train").rename(r / "x"),
            "no images: expected train",
        ),
        ("siim_covid19", siim, lambda r: (r / "train_image_level.csv").unlink(), "no such file"),
        (
            "siim_covid19",
            siim,
            lambda r: trees.write(
                r / "train_image_level.csv", "id,boxes,StudyInstanceUID\na_image,[{'x': 1}],b\n"
            ),
            "no list of x, y, width, height",
        ),
        (
            "rsna_pneumonia",
            rsna,
            lambda r: trees.write(r / "stage_2_train_labels.csv", "patientId,x,y,Target\n"),
            "no column 'width'",
        ),
        (
            "rsna_pneumonia",
            rsna,
            lambda r: trees.write(r / "stage_2_train_labels.csv", f"{RSNA}\na,1,2,3,,1\n"),
            "not four numbers",
        ),
        (
            "rsna_pneumonia",
            rsna,
            lambda r: trees.write(r / "pneumonia-challenge-dataset-mappings_2018.json", "[1]"),
            "download it again",
        ),
    ],
)
def test_a_wrong_download_is_one_line(
    tmp_path: Path,
    name: str,
    build: Callable[[Path], Path],
    spoil: Callable[[Path], object],
    words: str,
) -> None:
    root = build(tmp_path)
    spoil(root)
    with pytest.raises(UserError, match=words) as error:
        open_dataset(name, root)
    assert "\n" not in str(error.value)
