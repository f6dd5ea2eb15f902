"""What a stage found, on disk: read back by an audit of the same model, images and settings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import TypeAdapter
from torch import Tensor

from diascope import __version__
from diascope.attacks.resume import digest
from diascope.audit.bench import Bench
from diascope.audit.stages import Measured, Stage
from diascope.data import Pixels
from diascope.errors import UserError
from diascope.evaluation import read_table, write_table
from diascope.files import write_text
from diascope.models.modes import exactly

FORMAT = "diascope-stage-4"
ASKED = 16  # images by whose answers a black box is known again
ASKED_AT_ONCE = 2  # few, for memory is not counted yet
_NO_MATTER = ("batch_size", "cases", "shown_epsilons", "images", "data_checks", "budget", "effort")
_OF_FEW = {  # settings that few stages ask for
    "positive": ("operating", "confusion"),
    "threshold": ("operating",),
    "sensitivity": ("operating",),
    "prevalence": ("operating",),
    "attributes": ("group_scores",),
}
_OWN = ("run", "timm")  # kinds whose code is Diascope's, and cannot change beneath their weights


@dataclass(frozen=True)
class Shelf:
    """The folder of one audit in which its stages lie, a folder a model."""

    folder: Path

    def place(self, model: str, stage: str) -> Path:
        """Return the JSON file of a stage; its table and its checkpoints lie beside it."""
        return self.folder / model / f"{stage}.json"

    def scratch(self, model: str, stage: str, key: str) -> Path:
        """Return the folder of a stage's checkpoints, which no other key shares."""
        return self.folder / model / f"{stage}-{key[:12]}"

    def save(self, model: str, stage: str, key: str, measured: Measured, seconds: float) -> None:
        """Write what a stage found, complete or not at all, and drop its checkpoints."""
        place = self.place(model, stage)
        if measured.columns:
            table = pd.DataFrame({name: np.asarray(c) for name, c in measured.columns.items()})
            write_table(table, place.with_suffix(".parquet"), {"key": key})
        content = {
            "format": FORMAT,
            "key": key,
            "seconds": seconds,
            "images": measured.images,
            "queries": measured.queries,
            "table": bool(measured.columns),
            "result": _plain(measured.result),
        }
        write_text(place, json.dumps(content) + "\n")
        for old in place.parent.glob(f"{stage}-*"):
            shutil.rmtree(old, ignore_errors=True)

    def load(self, model: str, name: str, stage: Stage, key: str) -> tuple[Measured, float] | None:
        """Return what a stage found under `key`, and in how many seconds; None if it is not there.

        What cannot be read counts as not there.
        """
        place = self.place(model, name)
        try:
            content = json.loads(place.read_text("utf-8"))
            if content.get("format") != FORMAT or content["key"] != key:
                return None
            columns: dict[str, Any] = {}
            if content["table"]:
                table, told = read_table(place.with_suffix(".parquet"))
                if told.get("key") != key:
                    return None
                columns = {str(c): table[c].to_numpy() for c in table}
            result = content["result"]
            if stage.kind is not None:
                result = TypeAdapter(stage.kind).validate_python(result)
            found = Measured(result, columns, content["images"], content.get("queries", 0))
            return found, float(content["seconds"])
        except (OSError, ValueError, KeyError, TypeError, UserError):
            return None


def key_of(bench: Bench, name: str, stage: Stage) -> str:
    """Return the digest of everything that what a stage finds depends on."""
    settings = bench.settings.model_dump(mode="json")
    effort = bench.effort.model_dump(mode="json")
    effort = {k: effort[k] for k in stage.effort} if stage.effort else effort
    others = [[other, digest(model)] for other, model in sorted(bench.others.items())]
    return digest(
        [
            FORMAT,
            __version__,
            name,
            bench.identity or identity(bench),
            others if stage.beside else [],
            {
                k: v
                for k, v in settings.items()
                if k not in _NO_MATTER and name in _OF_FEW.get(k, (name,))
            },
            effort,
        ]
    )


def identity(bench: Bench) -> str:
    """Return the digest of a model and of all images it may meet.

    A model whose code is not Diascope's counts by its answers to some of the images, too.
    """
    card = sorted((str(k), repr(v)) for k, v in bench.subject.card.items() if k != "created")
    face = bench.subject.interface
    answers = [] if face is None or face.kind in _OWN else [_answers(bench)]
    held_out = [] if bench.validation is None else [_images(bench.validation)]
    away = [[name, _images(pixels)] for name, pixels in sorted(bench.elsewhere.items())]
    return digest([bench.model, card, answers, _images(bench.pixels), held_out, away])


@torch.no_grad()
def _answers(bench: Bench) -> Tensor:
    rows = bench.drawn(min(ASKED, len(bench.pixels)))
    with exactly(bench.model) as inner, torch.random.fork_rng():
        torch.manual_seed(0)  # of a model that draws lots
        parts = torch.split(bench.pixels.x(rows, bench.device), ASKED_AT_ONCE)
        answers = torch.cat([inner(part) for part in parts])
    return answers.float().cpu()


def _images(pixels: Pixels) -> str:
    """Return the digest of images, their order and their table."""
    table = pixels.dataset.table
    return digest([pixels.fingerprints(), table.to_csv(index=False), list(pixels.dataset.classes)])


def _plain(value: Any) -> Any:
    """Return a result as JSON values; NaN and infinity stay, for Python reads them back."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return value
