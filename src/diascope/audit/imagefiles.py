"""Image files that a verb works on: as the model sees them, their names, the folder they go to."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diascope.audit.subject import Subject
from diascope.data import Preprocess, ReadError
from diascope.data.hidden import alias
from diascope.data.readers import FileReader, is_dicom_file
from diascope.errors import UserError
from diascope.models.modes import exactly
from diascope.randomness import stable_id


def prepared(files: Sequence[str], subject: Subject) -> Tensor:
    """Return the images as the model was trained to see them, (N, C, H, W) uint8.

    Raises `ReadError`; of a DICOM file it tells the number among `files`, not the path.
    """
    preprocess = Preprocess.model_validate(subject.card["preprocess"])
    size, reader = subject.card["size"], reader_of(subject)
    for file in files:
        if Path(file).is_dir():
            raise UserError(f"{file}: is a folder; name its images, such as {file}/*.png")
    images, told = [], shown(files)
    for number, (file, name) in enumerate(zip(files, told, strict=True), 1):
        try:
            images.append(preprocess.image(reader.image(file), size))
        except ReadError as error:
            where = file if name == file else f"{name}, image {number} of {len(files)}"
            raise ReadError(where, error.reason) from None
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def reader_of(subject: Subject) -> FileReader:
    """Return the reader of single files, which makes grey of 16 bits what it was in training."""
    return FileReader(Path(), depth=subject.card.get("data", {}).get("depth", 16))


def shown(files: Sequence[str]) -> list[str]:
    """Return what stands for each file in all that is written: its path, a pseudonym of DICOM."""
    return [alias(file) if file and is_dicom_file(Path(), file) else file for file in files]


def veiled(command: str, files: Sequence[str]) -> str:
    """Return a command line with pseudonyms in place of the paths of DICOM files."""
    names = dict(zip(files, shown(files), strict=True))
    words = shlex.split(command)
    return shlex.join([names.get(word, word) for word in words]) if command else command


@torch.no_grad()
def logits_of(subject: Subject, x: Tensor) -> Tensor:
    """Return the model's own logits (B, K) of images (B, C, H, W), in float32, as for a verdict.

    Raises `UserError` where they do not fit the classes.
    """
    with exactly(subject.model) as inner:
        logits: Tensor = inner(x.contiguous(memory_format=torch.channels_last))
    count, classes = logits.shape[1], subject.card["classes"]
    if (count, len(classes)) != (1, 2) and count != len(classes):
        raise UserError(f"{subject.name}: {count} outputs do not fit {len(classes)} classes")
    return logits


def make_room(out: Path) -> None:
    """Make the folder; a `UserError` where it holds anything, or cannot be made."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        taken = any(out.iterdir())
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror})") from None
    if taken:
        raise UserError(f"--out {out}: holds other files; name another folder, or empty it")


def unique_names(files: Sequence[str]) -> list[str]:
    """Return a file name without suffix for each image: its own, numbered where it is taken."""
    names: list[str] = []
    taken: set[str] = set()
    for file in files:
        own = Path(file.partition("!")[2] or file).stem.replace("\\", "-").lstrip(".") or "image"
        name, count = own, 1
        while name.casefold() in taken:
            count += 1
            name = f"{own}-{count}"
        taken.add(name.casefold())
        names.append(name)
    return names


def image_id(image: Tensor) -> int:
    """Return a number that stands for the pixels of an image, wherever its file lies."""
    return stable_id(blake2b(image.contiguous().numpy().tobytes()).hexdigest())
