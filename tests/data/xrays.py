"""Tiny copies of the downloads of chest X-rays, in exactly the layouts and columns of the real."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tests.data import trees

Rows = Sequence[Sequence[object]]


def table(path: Path, header: str, rows: Rows) -> Path:
    """A CSV file; `header` is written as it stands."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return trees.write(path, f"{header}\n{buffer.getvalue()}")


def grey(seed: int, width: int = 48, height: int = 48) -> np.ndarray:
    """A grey picture (H, W) of the values 0 to 255, unlike those of other seeds."""
    down, across = np.arange(height)[:, None], np.arange(width)
    picture = ((seed + 1) * down + (seed + 2) * across) % 256
    picture[0, :2] = 0, 255
    return picture.astype(np.uint8)


def png(seed: int, width: int = 48, height: int = 48) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(grey(seed, width, height)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


# ChestX-ray14 ----------------------------------------------------------------------------------

NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient {},View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
NIH_IMAGES = (
    ("00000001_000.png", "Cardiomegaly", 0, 1, 57, "M", "PA"),
    ("00000001_001.png", "Cardiomegaly|Pneumothorax", 1, 1, 58, "M", "PA"),
    ("00000002_000.png", "No Finding", 0, 2, 80, "M", "AP"),
    ("00000003_000.png", "No Finding", 0, 3, 74, "F", "PA"),
    ("00000013_004.png", "Infiltration", 4, 13, 56, "M", "AP"),
    ("00000013_005.png", "Pneumothorax", 5, 13, 56, "M", "AP"),
)
NIH_BOXES = (
    ("00000001_001.png", "Cardiomegaly", 256.0, 512.0, 128.5, 64.0),
    ("00000001_001.png", "Pneumothorax", 600.25, 100.0, 200.0, 300.0),
    ("00000013_004.png", "Infiltrate", 100.0, 100.0, 50.0, 50.0),
)


def nih(root: Path, layout: str = "kaggle", side: int = 1024, version: str = "") -> Path:
    """ChestX-ray14: "kaggle" (images_001/images), "nih" (images) or "zip" (images_001.zip)."""
    rows = [[*row, 2682, 2749, 0.143, 0.143, ""] for row in NIH_IMAGES]
    header = NIH_HEADER.format("Sex" if version else "Gender")
    table(root / f"Data_Entry_2017{version}.csv", header, rows)
    boxes = [[*box, "", "", ""] for box in NIH_BOXES]
    table(root / "BBox_List_2017.csv", "Image Index,Finding Label,Bbox [x,y,w,h],,,", boxes)
    names = [row[0] for row in NIH_IMAGES]
    trees.write(root / "train_val_list.txt", "\n".join(names[:4]))
    trees.write(root / "test_list.txt", "\n".join(names[4:]) + "\n")
    images = {name: png(k, side, side) for k, name in enumerate(names)}
    if layout == "zip":
        trees.archive(root / "images_001.zip", {f"images/{n}": b for n, b in images.items()})
    else:
        for k, (name, content) in enumerate(images.items()):
            place = f"images_00{1 + k // 3}/images" if layout == "kaggle" else "images"
            trees.write(root / place / name, content)
    return root


# COVID-19 image data collection ----------------------------------------------------------------

COHEN_COLUMNS = (
    "patientid,offset,sex,age,finding,RT_PCR_positive,survival,intubated,intubation_present,"
    "went_icu,in_icu,needed_supplemental_O2,extubated,temperature,pO2_saturation,leukocyte_count,"
    "neutrophil_count,lymphocyte_count,view,modality,date,location,folder,filename,doi,url,"
    "license,clinical_notes,other_notes,"
)
_PUBMED, _GITHUB = "https://www.eurorad.org/case/1", "https://github.com/ml-workgroup/x"
COHEN_IMAGES = (  # patient, finding, view, modality, folder, file, url
    ("2", "Pneumonia/Viral/COVID-19", "PA", "X-ray", "images", "a-1.jpeg", _PUBMED),
    ("2", "Pneumonia/Viral/COVID-19", "L", "X-ray", "images", "a-2.jpg", _PUBMED),
    ("3", "Pneumonia/Viral/SARS", "AP", "X-ray", "images", "SARS-10.1148rg.jpeg", _PUBMED),
    ("4", "No Finding", "AP Supine", "X-ray", "images", "n.png", _GITHUB),
    ("5", "todo", "PA", "X-ray", "images", "t.png", _GITHUB),
    ("6", "Pneumonia/Viral/COVID-19", "Axial", "CT", "volumes", "v.nii.gz", _PUBMED),
    ("7a", "Pneumonia", "AP", "X-ray", "images", "p.PNG", _GITHUB),
)


def cohen(root: Path) -> Path:
    """The repository as cloned; the SARS image was 96x96 when its boxes were drawn."""
    columns = COHEN_COLUMNS.split(",")
    rows = []
    for patient, finding, view, modality, folder, name, url in COHEN_IMAGES:
        cells = dict.fromkeys(columns, "")
        cells |= {"patientid": patient, "finding": finding, "view": view, "modality": modality}
        cells |= {"folder": folder, "filename": name, "url": url, "location": "Brescia, Italy "}
        rows.append([*cells.values()][: len(columns)])
        if folder == "images":
            kind = "PNG" if name.lower().endswith("png") else "JPEG"
            trees.write(root / folder / name, trees.encoded(grey(len(rows)), kind))
    table(root / "metadata.csv", COHEN_COLUMNS, rows)
    content = {
        "images": [
            {"file_name": "a-1.jpeg", "height": 48, "width": 48, "id": 1},
            {"file_name": "SARS-10.1148rg.jpeg", "height": 96, "width": 96, "id": 2},
            {"file_name": "p.PNG", "height": 48, "width": 48, "id": 3},
        ],
        "annotations": [
            {"image_id": 1, "bbox": [4, 6, 16, 30], "category_id": 1},
            {"image_id": 1, "bbox": [26, 6, 16, 30], "category_id": 2},
            {"image_id": 2, "bbox": [10, 20, 30, 40], "category_id": 1},
            {"image_id": 3, "bbox": [None, None, None, None], "category_id": 1},
        ],
    }
    boxes = root / "annotations" / "imageannotation_ai_lung_bounding_boxes.json"
    trees.write(boxes, json.dumps(content))
    mask = trees.encoded(trees.region(48, 48), "PNG")
    trees.write(root / "annotations" / "lungVAE-masks" / "a-1_mask.png", mask)
    return root


# COVID-19 Radiography Database -----------------------------------------------------------------

RADIOGRAPHY = {
    "COVID": "https://bimcv.cipf.es/bimcv-projects/bimcv-covid19/#1590858128006-9e640421-6711",
    "Lung_Opacity": "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/data",
    "Normal": "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/data",
    "Viral Pneumonia": "https://www.kaggle.com/paultimothymooney/chest-xray-pneumonia",
}


def radiography(root: Path, first: bool = False) -> Path:
    """The folders of Kaggle: images of 299x299 with masks of 256x256; `first` has no masks."""
    for finding, url in RADIOGRAPHY.items():
        if first and finding == "Lung_Opacity":
            continue
        rows = []
        for k in (1, 2):
            name = f"{finding}-{k}.png"
            if first:
                trees.write(root / finding / name, png(k))
                continue
            trees.write(root / finding / "images" / name, png(k, 299, 299))
            mask = trees.encoded(trees.region(256, 256), "PNG")
            trees.write(root / finding / "masks" / name, mask)
            capital = f"{finding.upper() if finding == 'Normal' else finding}-{k}"
            rows.append([capital, "PNG", "256*256", url])
        if not first:
            sheet = [["FILE NAME", "FORMAT", "SIZE", "URL"], *rows]
            trees.write(root / f"{finding}.metadata.xlsx", workbook(sheet))
    return root


def workbook(rows: Sequence[Sequence[str]]) -> bytes:
    """An Excel file with one sheet, its texts shared as Excel writes them."""
    ns = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    texts = sorted({cell for row in rows for cell in row if cell})
    items = "".join(f"<si><t>{text}</t></si>" for text in texts)
    lines = ""
    for r, row in enumerate(rows, 1):
        cells = "".join(
            f'<c r="{chr(65 + c)}{r}" t="s"><v>{texts.index(cell)}</v></c>'
            for c, cell in enumerate(row)
            if cell
        )
        lines += f'<row r="{r}">{cells}</row>'
    head = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as book:
        book.writestr("xl/workbook.xml", f"{head}<workbook {ns}/>")
        book.writestr("xl/sharedStrings.xml", f"{head}<sst {ns}>{items}</sst>")
        sheet = f"{head}<worksheet {ns}><sheetData>{lines}</sheetData></worksheet>"
        book.writestr("xl/worksheets/sheet1.xml", sheet)
    return buffer.getvalue()
