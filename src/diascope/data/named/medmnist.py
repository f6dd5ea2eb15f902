"""MedMNIST v2: small biomedical images of many kinds, one `.npz` file a dataset.

Yang et al. 2023, Scientific Data 10:41 (doi:10.1038/s41597-022-01721-8). A file `pathmnist.npz`
(28x28) or `pathmnist_224.npz` (64, 128 or 224) has the arrays train_images, train_labels,
val_images, val_labels, test_images and test_labels; the splits are official. The meaning of the
labels is that of `INFO` in the authors' package (medmnist 2.1 and 3.0); a file of another name has
its labels' numbers as classes. Images of two dimensions are read, grey or RGB; volumes are not.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diascope.data.arrays import array_dataset
from diascope.data.dataset import Dataset
from diascope.data.named import DATASETS
from diascope.data.npz import read_npz
from diascope.errors import UserError, nearest

SPLITS = ("train", "val", "test")
_ORGANS = (
    *("bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right"),
    *("liver", "lung-left", "lung-right", "pancreas", "spleen"),
)
_CHEST = (
    *("atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia"),
    *("pneumothorax", "consolidation", "edema", "emphysema", "fibrosis", "pleural", "hernia"),
)
CLASSES: dict[str, tuple[str, ...]] = {
    "bloodmnist": (
        "basophil",
        "eosinophil",
        "erythroblast",
        "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)",
        "lymphocyte",
        "monocyte",
        "neutrophil",
        "platelet",
    ),
    "breastmnist": ("malignant", "normal, benign"),
    "chestmnist": _CHEST,
    "dermamnist": (
        "actinic keratoses and intraepithelial carcinoma",
        "basal cell carcinoma",
        "benign keratosis-like lesions",
        "dermatofibroma",
        "melanoma",
        "melanocytic nevi",
        "vascular lesions",
    ),
    "octmnist": ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    "organamnist": _ORGANS,
    "organcmnist": _ORGANS,
    "organsmnist": _ORGANS,
    "pathmnist": (
        "adipose",
        "background",
        "debris",
        "lymphocytes",
        "mucus",
        "smooth muscle",
        "normal colon mucosa",
        "cancer-associated stroma",
        "colorectal adenocarcinoma epithelium",
    ),
    "pneumoniamnist": ("normal", "pneumonia"),
    "retinamnist": ("0", "1", "2", "3", "4"),
    "tissuemnist": (
        "Collecting Duct, Connecting Tubule",
        "Distal Convoluted Tubule",
        "Glomerular endothelial cells",
        "Interstitial endothelial cells",
        "Leukocytes",
        "Podocytes",
        "Proximal Tubule Segments",
        "Thick Ascending Limb",
    ),
}
_LARGEST = 1024  # pixels a side


@DATASETS.register("medmnist")
def open_medmnist(
    root: Path | None, *, dataset: str = "", size: int = 0, task: str | int = ""
) -> Dataset:
    """Return the dataset in a `.npz` file of MedMNIST, with its official splits.

    `root` is the file, or a folder of such files, of which `dataset` ("pathmnist") and `size` (28,
    64, 128 or 224) choose one. Images with several labels (chestmnist) need a `task`: one of the
    findings, such as "pneumothorax", against all else, or "any" of them against none. The dataset
    bears its own name (pathmnist), so that its images are known again at another size. Patients
    are not named: every image is a group of its own. Raises `UserError` where no file or several
    fit, for volumes, and for a `task` that is missing or unknown.
    """
    file = _file(root, dataset, size)
    title = re.sub(r"_\d+$", "", file.stem)
    keys = [f"{split}_{kind}" for kind in ("images", "labels") for split in SPLITS]
    arrays = read_npz(file, keys, "a file of MedMNIST")
    images, labels = arrays[:3], [_labels(array.values, file) for array in arrays[3:]]
    if len({column.shape[1] for column in labels}) > 1:
        raise UserError(f"{file}: its splits have different numbers of labels")
    numbers, classes = _classes(title, labels, str(task))
    parts = {
        split: (_images(array.values, file), column)
        for split, array, column in zip(SPLITS, images, numbers, strict=True)
    }
    stamps = {split: array.stamp for split, array in zip(SPLITS, images, strict=True)}
    return array_dataset(title, parts, classes, file, stamps)


def _file(root: Path | None, name: str, size: int) -> Path:
    """Return the one file at `root` of that name and size."""
    if root is None or not root.exists():
        what = "no file is given" if root is None else f"there is no {root}"
        raise UserError(f"medmnist: {what}: write medmnist:PATH of a .npz file, or of a folder")
    if root.is_file():
        return root
    files = sorted(root.glob("*.npz"))
    ending = {0: r"(_\d+)?", 28: "(_28)?"}.get(size, f"_{size}")
    fit = [f for f in files if re.fullmatch((re.escape(name) or r".*?") + ending, f.stem)]
    if len(fit) != 1:
        found = ", ".join(f.name for f in files[:20]) or "none"
        what = "several files fit" if fit else "no file fits"
        raise UserError(f"{root}: {what}: choose by dataset=pathmnist and size=28 among: {found}")
    return fit[0]


def _images(images: NDArray[Any], file: Path) -> NDArray[np.uint8]:
    """Return images (N, H, W, 1 or 3) as they lie in the file; raises for what is none."""
    grey = images.ndim == 3
    colour = images.ndim == 4 and images.shape[3] == 3
    if images.ndim >= 4 and not colour:
        raise UserError(f"{file}: holds volumes, {images.shape}: only images of two dimensions")
    if not (grey or colour) or images.dtype != np.uint8 or max(images.shape[1:3]) > _LARGEST:
        raise UserError(
            f"{file}: images are {images.dtype} {images.shape}, expected 8 bits, (N, H, W) or "
            f"(N, H, W, 3), at most {_LARGEST} pixels a side"
        )
    return images[..., None] if grey else images


def _labels(labels: NDArray[Any], file: Path) -> NDArray[np.uint8]:
    """Return labels (N, L), of one or more a image."""
    columns = labels[:, None] if labels.ndim == 1 else labels
    whole = columns.dtype.kind in "iu" and columns.ndim == 2 and columns.shape[1] > 0
    if not whole or (columns.size and not 0 <= int(columns.min()) <= int(columns.max()) < 256):
        raise UserError(f"{file}: labels are {labels.dtype} {labels.shape}, expected class numbers")
    return columns.astype(np.uint8)


def _classes(
    title: str, labels: list[NDArray[np.uint8]], task: str
) -> tuple[list[NDArray[np.uint8]], tuple[str, ...]]:
    """Return the class number of each image, (N,) a split, and the classes."""
    several = labels[0].shape[1]
    top = max((int(column.max()) for column in labels if column.size), default=0)
    if several == 1:
        if task:
            raise UserError(f"{title}: task='{task}': an image has one label here: leave it out")
        return [column[:, 0] for column in labels], CLASSES.get(title) or _numbers(top + 1)
    if top > 1:
        raise UserError(
            f"{title}: has {several} labels an image, of which one is {top}, not 0 or 1"
        )
    findings = CLASSES.get(title) or _numbers(several)
    if len(findings) != several:
        raise UserError(f"{title}: has {several} labels an image, expected {len(findings)}")
    if task == "any":
        return [(column.max(axis=1) > 0).astype(np.uint8) for column in labels], (
            "no finding",
            "finding",
        )
    if task not in findings:
        known = nearest(task, ["any", *findings])
        said = f"task='{task}': no such finding"
        what = said if task else f"{several} labels an image: give task"
        raise UserError(f"{title}: {what}: {known}")
    place = findings.index(task)
    return [column[:, place] for column in labels], (f"no {task}", task)


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(str(k) for k in range(count))
