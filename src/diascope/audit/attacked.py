"""Image files under one attack: what became of each, in files and in a row an image."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diascope import __version__, hardware
from diascope.attacks import Attack
from diascope.attacks.base import is_broken
from diascope.attacks.saving import RoundedAwayWarning, save_images, write_png
from diascope.audit.imagefiles import (
    image_id,
    logits_of,
    make_room,
    prepared,
    shown,
    unique_names,
    veiled,
)
from diascope.audit.results import plain
from diascope.audit.subject import Subject
from diascope.evaluation.perturbation import perturbation_pictures, perturbation_table
from diascope.files import write_text
from diascope.models import heads
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
        told = shown(files)
        names, rows = unique_names(told), list[Row]()
        for start in range(0, len(files), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            rows += self._rows(told[part], names[part], levels[part])
            if progress is not None:
                progress(len(rows), len(files))
        content = plain({**self._described(veiled(command, files)), "images": rows})
        write_text(self.out / RESULTS, json.dumps(content, indent=1, allow_nan=False) + "\n")
        return rows

    def _rows(self, files: Sequence[str], names: Sequence[str], levels: Tensor) -> list[Row]:
        """Return the rows of a batch of prepared images (B, C, H, W) uint8; write its files."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = self.subject.model.to(device).to(memory_format=torch.channels_last)
        x = levels.float().div(255).to(device)
        clean, classes = logits_of(self.subject, x), self.subject.card["classes"]
        y = heads.predictions(clean)
        y = y if self.true is None else torch.full_like(y, self.true)
        goal = y if self.wanted is None else torch.full_like(y, self.wanted)
        ids = torch.tensor([image_id(image) for image in levels]).to(device)
        generator = torch.Generator().manual_seed(self.seed)
        x_adv = self.attack(model, x, goal, generator=generator, ids=ids)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RoundedAwayWarning)  # the rows say it
            saved = save_images(self.out / ROUNDED, x_adv, x, names)
        exact = save_images(self.out / EXACT, x_adv, x, names, bits="float")
        for name, picture in zip(names, perturbation_pictures(exact - x), strict=True):
            write_png(self.out / PICTURES / f"{name}.png", picture)
        before = self._seen(clean, goal)
        after = self._seen(logits_of(self.subject, exact), goal, exact - x)
        rounded = self._seen(logits_of(self.subject, saved), goal, saved - x)
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
