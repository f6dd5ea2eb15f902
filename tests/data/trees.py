"""Tiny data sets on disk, in exactly the layouts of the real ones."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

DX = ("nv", "mel", "bkl", "nv")
IDS = tuple(f"ISIC_{24306 + k:07d}" for k in range(len(DX)))
LESIONS = ("HAM_0000550", "HAM_0003577", "HAM_0001477", "HAM_0000550")
METADATA = "lesion_id,image_id,dx,dx_type,age,sex,localization"


def pixels(seed: int, width: int = 40, height: int = 30) -> np.ndarray:
    """A smooth picture, unlike those of other seeds."""
    v, u = np.mgrid[:height, :width] / max(width, height)
    waves = [np.sin((seed + 1) * u * 3 + k) * np.cos((seed + 2) * v * 2 - k) for k in range(3)]
    return (127 + 120 * np.stack(waves, -1)).astype(np.uint8)


def region(width: int = 40, height: int = 30) -> np.ndarray:
    """A disc about the centre."""
    v, u = np.mgrid[:height, :width]
    return np.hypot(u - width / 2 + 0.5, v - height / 2 + 0.5) < height / 4


def encoded(image: np.ndarray, kind: str = "JPEG") -> bytes:
    """The bytes of an image file; a bool array becomes black and white."""
    buffer = io.BytesIO()
    array = image.astype(np.uint8) * 255 if image.dtype == bool else image
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def archive(path: Path, entries: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


def rows(separator: str = ",", dataset: str = "") -> str:
    """The lines of HAM10000_metadata, with the Dataverse's column `dataset` if named."""
    header = METADATA + (",dataset" if dataset else "")
    lines = [header.replace(",", separator)]
    for lesion, image, dx in zip(LESIONS, IDS, DX, strict=True):
        cells = [lesion, image, dx, "histo", "80.0", "male", "scalp", *([dataset] * bool(dataset))]
        lines.append(separator.join(cells))
    return "\n".join(lines) + "\n"


def reduced(root: Path) -> Path:
    """`images_WxH.zip` and `masks_WxH.zip`."""
    write(root / "HAM10000_metadata.csv", rows())
    write(root / "index.csv", "image_id,lesion_id\n")
    images = {f"{name}.jpg": encoded(pixels(k)) for k, name in enumerate(IDS)}
    archive(root / "images_40x30.zip", images)
    archive(root / "masks_40x30.zip", {f"{n}.png": encoded(region(), "PNG") for n in IDS})
    return root


def dataverse(root: Path, packed: bool = True) -> Path:
    """Two image archives, one of masks within a folder, tab-separated metadata."""
    write(root / "HAM10000_metadata.tab", rows("\t", "vidir_modern"))
    full = [encoded(pixels(k, 600, 450)) for k in range(len(IDS))]
    mask = encoded(region(600, 450), "PNG")
    inner = "HAM10000_segmentations_lesion_tschandl"
    masks = {f"{inner}/{n}_segmentation.png": mask for n in IDS}
    masks[f"__MACOSX/{inner}/._{IDS[0]}_segmentation.png"] = b"fork"
    parts = [dict(zip([f"{n}.jpg" for n in IDS], full, strict=True))]
    parts = [dict(list(parts[0].items())[:2]), dict(list(parts[0].items())[2:])]
    places = [*(f"HAM10000_images_part_{k}" for k in (1, 2)), inner]
    for place, entries in zip(places, [*parts, masks], strict=True):
        if packed:
            archive(root / f"{place}.zip", entries)
        else:
            for name, content in entries.items():
                write(root / place / name, content)
    write(root / "ISIC2018_Task3_Test_GroundTruth.csv", "lesion_id,image_id,dx\n")
    return root


def kaggle(root: Path, lower: bool = False, both: bool = False) -> Path:
    """Image folders without masks, beside pixel tables of other sizes."""
    write(root / "HAM10000_metadata.csv", rows())
    write(root / "hmnist_28_28_RGB.csv", "pixel0000,label\n")
    names = ["ham10000_images_part_{}"] if lower else ["HAM10000_images_part_{}"]
    for name in names + ["ham10000_images_part_{}"] * both:
        for k, image in enumerate(IDS):
            content = encoded(pixels(k, 600, 450))
            write(root / name.format(1 + k // 2) / f"{image}.jpg", content)
    return root


def folders(root: Path, per_class: int = 3) -> Path:
    """Class folders `cat` and `dog` of 40x30 images."""
    for label in ("cat", "dog"):
        for k in range(per_class):
            content = encoded(pixels(k + 10 * (label == "dog")), "PNG")
            write(root / label / f"{label}{k}.png", content)
    return root
