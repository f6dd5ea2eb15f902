"""Image files under one attack: what became of each, in files and in a row an image."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diascope import __version__, hardware
from diascope.attacks import Attack
from diascope.attacks.base import is_broken
from diascope.attacks.saving import RoundedAwayWarning, save_images, write_png
from diascope.audit.subject import Subject
from diascope.data import Preprocess
from diascope.data.readers import FileReader
from diascope.errors import UserError
from diascope.evaluation.perturbation import perturbation_pictures, perturbation_table
from diascope.files import write_text
from diascope.models import heads
from diascope.models.modes import exactly
from diascope.randomness import stable_id
from diascope.registry import to_settings

SCHEMA = "diascope-attack-1"
ROUNDED, EXACT, PICTURES, RESULTS = "adversarial", "exact", "perturbations", "results.json"
AT_ONCE = 32

Row = dict[str, Any]


@dataclass(frozen=True)
class AttackOnFiles:
    """An attack on images of one model, called with their files; a row for each comes back.

    true: the class of every image, None for what the model makes of each. wanted: the class
    aimed at, for a targeted attack. The random numbers of an image belong to `seed` and its
    pixels. Into `out` go `adversarial/NAME.png` (at 8 bits, see `save_images`),
    `exact/NAME.npy` (float32, as found), `perturbations/NAME.png` (min-max scaled) and, at the
    end, `results.json`.
    """

    subject: Subject
    attack: Attack
    out: Path
    true: int | None = None
    wanted: int | None = None
    seed: int = 0

    def __call__(
        self,
        files: Sequence[str],
        command: str = "",
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Row]:
        """Attack the images; raises `UserError` for unreadable ones and a folder that is taken."""
        levels = prepared(files, self.subject)
        make_room(self.out)
        names, rows = unique_names(files), list[Row]()
        for start in range(0, len(files), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            rows += self._rows(files[part], names[part], levels[part])
            if progress is not None:
                progress(len(rows), len(files))
        content = _plain({**self._described(command), "images": rows})
        write_text(self.out / RESULTS, json.dumps(content, indent=1, allow_nan=False) + "\n")
        return rows

    def _rows(self, files: Sequence[str], names: Sequence[str], levels: Tensor) -> list[Row]:
        """Return the rows of a batch of prepared images (B, C, H, W) uint8; write its files."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = self.subject.model.to(device).to(memory_format=torch.channels_last)
        x = levels.float().div(255).to(device)
        clean, classes = self._logits(x), self.subject.card["classes"]
        if clean.shape[1] != len(classes) and (clean.shape[1], len(classes)) != (1, 2):
            raise UserError(
                f"{self.subject.name}: {clean.shape[1]} outputs do not fit {len(classes)} classes"
            )
        y = heads.predictions(clean)
        y = y if self.true is None else torch.full_like(y, self.true)
        goal = y if self.wanted is None else torch.full_like(y, self.wanted)
        ids = torch.tensor([_image_id(image) for image in levels]).to(device)
        generator = torch.Generator().manual_seed(self.seed)
        x_adv = self.attack(model, x, goal, generator=generator, ids=ids)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RoundedAwayWarning)  # the rows say it
            saved = save_images(self.out / ROUNDED, x_adv, x, names)
        exact = save_images(self.out / EXACT, x_adv, x, names, bits="float")
        for name, picture in zip(names, perturbation_pictures(exact - x), strict=True):
            write_png(self.out / PICTURES / f"{name}.png", picture)
        before = self._seen(clean, goal)
        after = self._seen(self._logits(exact), goal, exact - x)
        rounded = self._seen(self._logits(saved), goal, saved - x)
        return [
            {
                "image": file,
                "label": classes[k],
                "label_given": self.true is not None,
                "target": None if self.wanted is None else classes[self.wanted],
                "before": before[i],
                "after": {**after[i], "file": f"{EXACT}/{names[i]}.npy"},
                "after_8_bits": {**rounded[i], "file": f"{ROUNDED}/{names[i]}.png"},
                "picture": f"{PICTURES}/{names[i]}.png",
            }
            for i, (file, k) in enumerate(zip(files, y.tolist(), strict=True))
        ]

    @torch.no_grad()
    def _logits(self, x: Tensor) -> Tensor:
        """Return the model's own logits in float32, as for a verdict."""
        with exactly(self.subject.model) as inner:
            logits: Tensor = inner(x.contiguous(memory_format=torch.channels_last))
        return logits

    def _seen(self, logits: Tensor, goal: Tensor, delta: Tensor | None = None) -> list[Row]:
        """Return what the model says of each image, and of what kind its perturbation is."""
        classes = self.subject.card["classes"]
        broken = is_broken(logits, goal, targeted=self.wanted is not None).tolist()
        guess, p = heads.predictions(logits).tolist(), heads.probabilities(logits).tolist()
        table = {} if delta is None else perturbation_table(delta)
        return [
            {
                "prediction": classes[k],
                "probability": p[i][k],
                "probabilities": dict(zip(classes, p[i], strict=True)),
                "broken": broken[i],
                **{name: float(column[i]) for name, column in table.items()},
            }
            for i, k in enumerate(guess)
        ]

    def _described(self, command: str) -> Row:
        card = self.subject.card
        return {
            "schema": SCHEMA,
            "version": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command,
            "versions": {"diascope": __version__, "torch": torch.__version__},
            "hardware": hardware.describe(),
            "seed": self.seed,
            "attack": to_settings(self.attack),
            "model": {
                "name": self.subject.name,
                "architecture": self.subject.architecture,
                **{key: card[key] for key in ("classes", "size", "preprocess")},
            },
        }


def prepared(files: Sequence[str], subject: Subject) -> Tensor:
    """Return the images as the model was trained to see them, (N, C, H, W) uint8."""
    preprocess = Preprocess.model_validate(subject.card["preprocess"])
    size, reader = subject.card["size"], FileReader(Path())
    for file in files:
        if Path(file).is_dir():
            raise UserError(f"{file}: is a folder; name its images, such as {file}/*.png")
    images = [preprocess.image(reader.image(file), size) for file in files]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


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


def _image_id(image: Tensor) -> int:
    """Return a number that stands for the pixels of an image, wherever its file lies."""
    return stable_id(blake2b(image.contiguous().numpy().tobytes()).hexdigest())


def _plain(value: Any) -> Any:
    """Return `value` as JSON can hold it: null for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
