"""Offline adversarial training: adversarial copies added to the training set (P0)."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, field_validator, model_validator
from torch import Tensor, nn

from diascope.attacks import Attack, attacks
from diascope.attacks.resume import digest
from diascope.data.joined import with_copies
from diascope.data.pixels import Pixels
from diascope.errors import UserError
from diascope.files import replacing, write_text
from diascope.models import load_model, unwrapped
from diascope.models.frozen import Arithmetic, frozen
from diascope.randomness import derive, stable_id
from diascope.registry import to_settings
from diascope.settings import Settings, added
from diascope.training.copies import COUNTS, Copies, adversarial_copies
from diascope.training.progress import Progress
from diascope.training.team import Team

FOLDER, TABLE = "offline", "offline.csv"
_OTHERS = 64  # training images among which a decision-based attack may start


class OfflineConfig(Settings):
    """Which adversarial copies are added to the training set, and when (P0).

    attack: one attack or a list; each makes a copy of a `share` of the training images, drawn anew
    each time. model: the run folder or `.safetensors` file of the classifier that is attacked; the
    copies are then made once, before training. Without it the model in training is attacked: at the
    start of epochs 0, every, 2 every, ..., as it then is, copies replacing those before; with
    `every` null once, at the start, which is sensible only for a model that is trained already.
    astray: each copy is its image with random noise in the place of the attack's, as far away in
    L2: the control that tells what the attack's direction does from what more images and noise do.
    batch_size: how many images are attacked, and kept on disk, at once.

    The copies are made of the images as they are, and augmented like them afterwards. An eps is
    that of the size at hand: the shorthands of the objective's do not apply.
    """

    attack: list[dict[str, Any]]
    every: PositiveInt | None = None
    model: Path | None = None
    share: float = Field(default=1.0, gt=0, le=1)
    astray: bool = added(False)
    batch_size: PositiveInt = 64

    @field_validator("attack", mode="before")
    @classmethod
    def _spelled_out(cls, given: Any) -> list[dict[str, Any]]:
        given = list(given) if isinstance(given, list | tuple) else [given]
        if not given:
            raise ValueError("name at least one attack")
        return [to_settings(_built(each, place)) for place, each in enumerate(given)]

    @model_validator(mode="after")
    def _one_source(self) -> OfflineConfig:
        if self.model is not None and self.every is not None:
            raise ValueError(
                "'every' is for attacks on the model in training; remove it or 'model'"
            )
        return self

    def build(self) -> list[Attack]:
        """Return the attacks."""
        return [_built(each, place) for place, each in enumerate(self.attack)]


@dataclass(frozen=True)
class _Chunk:
    """The images `rows` (n,) that one attack makes copies of at once."""

    name: str
    attack: int
    rows: NDArray[np.int64]
    inputs: str


class Offline:
    """Makes the adversarial copies of a run and keeps them in its folder (in memory without one).

    All that is made is a function of (seed, epoch, image id) and of the attacked weights. What is
    on disk stays, chunk by chunk, when the process ends; weights that have moved on cannot make it
    again, so it has to be there until the next copies are made.
    """

    def __init__(
        self, config: OfflineConfig, seed: int, folder: Path | None = None, team: Team | None = None
    ) -> None:
        self.config, self.seed, self.team = config, seed, team or Team()
        self.attacks = config.build()
        self.table = None if folder is None else folder / TABLE
        self.shelf = _Shelf(None if folder is None else folder / FOLDER)
        self._last: tuple[int, Pixels, Pixels] | None = None

    def round_of(self, epoch: int) -> int:
        """Return the epoch at whose start the copies of `epoch` are made (both from 0)."""
        return 0 if self.config.every is None else epoch - epoch % self.config.every

    def pixels_at(
        self,
        epoch: int,
        step: int,
        model: nn.Module,
        train: Pixels,
        progress: Progress | None = None,
        tick: Callable[[], None] = lambda: None,
    ) -> Pixels:
        """Return what `epoch` trains on: the images of `train`, and after them the copies.

        At step 0 of an epoch in which copies are due they are made, less those on disk that were
        made of the same weights; `tick` is called after each chunk. Every process of the team calls
        this; each makes its share where they have a folder, else all. Raises `UserError` where
        copies that were made earlier are gone.
        """
        start = self.round_of(epoch)
        if self._last is not None and self._last[0] == start and self._last[1] is train:
            return self._last[2]
        progress = progress or Progress()
        plan = self._plan(start, train)
        due = epoch == start and step == 0
        if due:
            self._make(start, plan, model, train, progress, tick)
            self.team.wait()
        pixels = self._read(start, plan, train, progress if due else Progress())
        self._last = start, train, pixels
        return pixels

    def clear(self) -> None:
        """Remove the copies; the table of what became of them stays."""
        self.shelf.clear()

    def _plan(self, start: int, train: Pixels) -> list[_Chunk]:
        """Return the chunks of the copies that are made at the start of epoch `start`."""
        chunks, size = [], self.config.batch_size
        ids = train.dataset.ids
        for number, attack in enumerate(self.attacks):
            draw = [stable_id(f"offline/{self.seed}/{start}/{number}/{i}") for i in ids.tolist()]
            count = max(1, round(self.config.share * len(train)))
            rows = np.sort(np.argsort(draw, kind="stable")[:count])
            made_by = [self.seed, start, attack, *(["astray"] if self.config.astray else [])]
            for place in range(0, len(rows), size):
                some = rows[place : place + size]
                inputs = digest([*made_by, torch.from_numpy(ids[some]), train.size])
                name = f"{start:04d}-{number}-{place // size:05d}"
                chunks.append(_Chunk(name, number, some, inputs))
        return chunks

    def _make(
        self,
        start: int,
        plan: list[_Chunk],
        model: nn.Module,
        train: Pixels,
        progress: Progress,
        tick: Callable[[], None],
    ) -> None:
        if self.team.first:
            self.shelf.keep_only(f"{start:04d}-", halves=not self.team.alone)
        source = self._source(model, train)
        shared = self.shelf.folder is not None
        mine = plan[self.team.rank :: self.team.world] if shared else plan
        weights = digest(source)
        todo = [c for c in mine if not self.shelf.holds(c.name, c.inputs, weights)]
        total, done = sum(len(c.rows) for c in mine), sum(len(c.rows) for c in mine)
        done -= sum(len(c.rows) for c in todo)
        began, before = time.monotonic(), done
        for chunk in todo:
            copies = self._attack(chunk, start, source, train)
            self.shelf.put(chunk.name, chunk.inputs, weights, copies)
            done += len(chunk.rows)
            speed = (done - before) / max(1e-9, time.monotonic() - began)
            name = self.config.attack[chunk.attack]["name"]
            where = f"{name} copies for epoch {start + 1}"
            progress.copies(done, total, where, speed, (total - done) / speed)
            tick()

    def _attack(self, chunk: _Chunk, start: int, source: nn.Module, train: Pixels) -> Copies:
        attack = self.attacks[chunk.attack]
        device = next((p.device for p in source.parameters()), torch.device("cpu"))
        x, y = train.x(chunk.rows, device), train.y(chunk.rows, device)
        precision: Arithmetic = getattr(attack, "precision", "float32")
        with frozen(source, x[:1], precision=precision) as net:
            return adversarial_copies(
                net,
                attack,
                x,
                y,
                train.ids(chunk.rows),
                seed=derive(self.seed, "offline", start, chunk.attack),
                others=self._others(train, device),
                astray=self.config.astray,
            )

    def _others(self, train: Pixels, device: torch.device) -> Tensor:
        draw = np.random.default_rng(derive(self.seed, "offline", "others"))
        return train.x(np.sort(draw.permutation(len(train))[:_OTHERS]), device)

    def _source(self, model: nn.Module, train: Pixels) -> nn.Module:
        """Return the classifier that is attacked; raises `UserError` where it does not fit."""
        inner = unwrapped(model)
        if self.config.model is None:
            return inner
        device = next((p.device for p in inner.parameters()), torch.device("cpu"))
        source = load_model(self.config.model).to(device)
        knows, wanted = source.card.get("classes"), list(train.dataset.classes)
        where = f"training.offline.model = {self.config.model}"
        if knows is not None and list(knows) != wanted:
            raise UserError(
                f"{where}: tells {', '.join(map(str, knows))} apart, yet the training images are "
                f"of {', '.join(wanted)}, in this order; give a model of the same classes"
            )
        if source.spec.in_chans != train.channels:
            raise UserError(
                f"{where}: takes {source.spec.in_chans} channels, yet data.channels is "
                f"{train.channels}"
            )
        return source

    def _read(self, start: int, plan: list[_Chunk], train: Pixels, progress: Progress) -> Pixels:
        """Return `train` and all copies of the plan, and say what became of them."""
        arrays, of, names = [], [], list[str]()
        totals = [dict.fromkeys(COUNTS, 0) for _ in self.attacks]
        for chunk in plan:
            copies = self.shelf.get(chunk.name, chunk.inputs)
            if copies is None:
                raise UserError(
                    f"{self.shelf}: the adversarial copies of epoch {start + 1} are not here, and "
                    "the weights they were made of have changed; begin the run anew"
                )
            arrays.append(copies.images)
            of.append(chunk.rows[copies.of])
            names += [f"~{self._label(chunk.attack)}"] * len(copies.of)
            for key, value in copies.counts.items():
                totals[chunk.attack][key] += value
        if self.team.first:
            self._report(start, totals, progress)
        return with_copies(train, arrays, np.concatenate(of), names)

    def _label(self, number: int) -> str:
        """Return the name of an attack, with a number where another before it has the same."""
        ending = "-astray" if self.config.astray else ""
        names = [str(each["name"]) + ending for each in self.config.attack]
        before = names[:number].count(names[number])
        return f"{names[number]}-{before + 1}" if before else names[number]

    def _report(self, start: int, totals: list[dict[str, int]], progress: Progress) -> None:
        """Say what became of the images, and write it into the table."""
        for number, count in enumerate(totals):
            left_out = [f"{count[key]} {key}" for key in ("unstarted", "unchanged") if count[key]]
            left = f", left out: {' and '.join(left_out)}" if left_out else ""
            progress.note(
                f"{self._label(number)}: {count['added']} copies of {count['images']} images "
                f"({count['wrong']} misclassified before){left}; {count['fooled']} fool the model, "
                f"{count['fooled_8bit']} of the copies at 8 bits"
            )
        if self.table is None:
            return
        rows = [
            {"epoch": start + 1, "attack": self._label(number), **count}
            for number, count in enumerate(totals)
        ]
        table = pd.DataFrame(rows)
        if self.table.exists():
            before = pd.read_csv(self.table)
            table = pd.concat([before[before.epoch < start + 1], table])
        write_text(self.table, table.to_csv(index=False, lineterminator="\n"))


class _Shelf:
    """Chunks by name, in a folder or in memory: a `.npy` of images, then a `.json` of the rest."""

    def __init__(self, folder: Path | None) -> None:
        self.folder, self._kept = folder, dict[str, tuple[NDArray[np.uint8], str]]()

    def __str__(self) -> str:
        return str(self.folder or "memory")

    def put(self, name: str, inputs: str, weights: str, copies: Copies) -> None:
        """Keep a chunk, made of `inputs` and `weights`."""
        note = {"inputs": inputs, "weights": weights, "of": copies.of.tolist()}
        text = json.dumps({**note, "counts": copies.counts})
        if self.folder is None:
            self._kept[name] = copies.images, text
            return
        with replacing(self.folder / f"{name}.npy") as temporary:
            np.save(temporary, copies.images)
        write_text(self.folder / f"{name}.json", text)

    def holds(self, name: str, inputs: str, weights: str) -> bool:
        """Return whether there is a chunk of these inputs and weights."""
        note = self._note(name)
        return note.get("inputs") == inputs and note.get("weights") == weights

    def get(self, name: str, inputs: str) -> Copies | None:
        """Return a chunk of these inputs, whose images stay on disk; None if there is none."""
        note = self._note(name)
        if note.get("inputs") != inputs:
            return None
        if self.folder is None:
            images = self._kept[name][0]
        else:
            file = self.folder / f"{name}.npy"
            images = np.load(file, mmap_mode="r" if note["of"] else None)
        return Copies(images, np.array(note["of"], np.int64), note["counts"])

    def keep_only(self, prefix: str, halves: bool = False) -> None:
        """Remove the chunks whose name begins otherwise, and what is not finished.

        halves: leave what is not finished of the others, which another process may be writing.
        """
        self._kept = {k: v for k, v in self._kept.items() if k.startswith(prefix)}
        for file in () if self.folder is None else self.folder.glob("*"):
            name = file.name.lstrip(".") if halves else file.name
            if not name.startswith(prefix):
                file.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove everything."""
        self._kept = {}
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _note(self, name: str) -> dict[str, Any]:
        try:
            if self.folder is None:
                text = self._kept[name][1]
            else:
                text = (self.folder / f"{name}.json").read_text()
            note: dict[str, Any] = json.loads(text)
            return note
        except (OSError, KeyError, ValueError):
            return {}


def _built(settings: Any, place: int) -> Attack:
    """Return the attack that `settings` describe; raises `UserError` for a mistake."""
    where = f"training.offline.attack[{place}]"
    attack = cast(Attack, attacks.build(settings, where))
    if getattr(attack, "targeted", False):
        raise UserError(f"{where}: targeted attacks want a class; leave out 'targeted'")
    return attack
