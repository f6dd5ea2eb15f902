"""ROAR, remove and retrain: what a method calls important is taken from every image, and a new
model is trained on what is left. How much worse is it?
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from diascope.data import Pixels, load_pixels
from diascope.data.pixels import Rows
from diascope.errors import UserError
from diascope.evaluation import predict, read_table, write_table
from diascope.evaluation.measures.faithfulness import ranks
from diascope.explain import Explainer, rectify
from diascope.files import replacing, write_text
from diascope.models import heads
from diascope.models.modes import exactly
from diascope.randomness import Noise, derive
from diascope.registry import to_settings
from diascope.training.config import TrainConfig, read_config
from diascope.training.progress import Progress, console_progress
from diascope.training.record import content_of, fingerprint
from diascope.training.run import Run, open_parts
from diascope.training.stages import train_stages

BASE, RANDOM = "base", "random"
TABLE, ABOUT, PREDICTIONS = "roar.csv", "about.json", "test.parquet"
_BATCH = 64
Order = Literal["most", "least"]


@dataclass(frozen=True, eq=False)
class Roar:
    """The accuracies of the models that were retrained, in `folder`.

    `rows`: one a model, `method`, `share` of the pixels removed, `seed`, `accuracy` on the test
    images, from which as much was removed, and how many `images` these are. The method "base" is
    the model of whole images, "random" the control, from whose images random pixels were removed.
    """

    folder: Path
    rows: pd.DataFrame
    order: Order

    @property
    def curves(self) -> pd.DataFrame:
        """The mean accuracy over seeds: a row a share, from 0 (the base), a column a method."""
        mean = self.rows.groupby(["method", "share"], sort=False).accuracy.mean()
        curves = mean.drop(BASE).unstack("method").sort_index()
        start = pd.DataFrame(mean[BASE].iloc[0], index=[0.0], columns=curves.columns)
        whole = pd.concat([start, curves])[
            list(dict.fromkeys(mean.drop(BASE).index.get_level_values(0)))
        ]
        return whole.rename_axis(index="share", columns="method")

    @property
    def areas(self) -> pd.DataFrame:
        """What each curve comes to: a row a method.

        `area`: the mean accuracy under its curve, from 0 to the largest share, by trapezoids.
        `gain`: by how much it lies below the control's where the most relevant pixels were
        removed, and above it where the least relevant were: above 0 the method knows more about
        what the model needs than chance does, at 0 or below it does not.
        """
        curves = self.curves
        shares = curves.index.to_numpy()
        area = {
            name: float(np.trapezoid(curves[name], shares) / shares[-1]) for name in curves.columns
        }
        sign = 1 if self.order == "most" else -1
        rows = [(name, value, sign * (area[RANDOM] - value)) for name, value in area.items()]
        return pd.DataFrame(rows, columns=["method", "area", "gain"])


def roar(
    config: TrainConfig,
    out: Path,
    methods: Mapping[str, Explainer],
    *,
    shares: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    order: Order = "most",
    repeats: int = 1,
    progress: Progress | None = None,
) -> Roar:
    """Retrain without the pixels that each of `methods` calls important, and say what is lost.

    ROAR (Hooker et al. 2019, A benchmark for interpretability methods, arXiv 1806.10758, section
    3): a base model is trained as `config` says and explained on every train, validation and test
    image, for the class that it predicts, so that what is removed does not give the label away.
    Then, for each method and share, the share of the pixels that are most relevant is replaced by
    the mean colour of the training images, everywhere, and a model is trained on these images by
    the same configuration. `order` "least" removes the least relevant instead (KAR, keep and
    retrain: the most relevant share 1 - s is kept). Random pixels are the control. Maps without an
    order, being the same everywhere, are removed at random. `repeats` trains each with as many
    seeds, from `training.seed` on; the maps are those of the first base model.

    Every model is a run folder, `out/<method>/<share>/seed-<seed>`, and `out/roar.csv` has the
    accuracies so far: called again, what is finished is not repeated, and what stopped goes on.
    No image file is written: which pixels go is kept, one byte a pixel, in `out/<method>`.
    Raises `UserError` for mistakes in the configuration, for data without test images, and for a
    folder that holds the runs of other methods, shares, images or weights under the same names.

    The removal itself says something of the image (its shape), and a retrained model may use
    features that the first did not: a good area is evidence of the pixels' information, and not
    of what the first model looks at. (1 + (methods + 1) * shares) * repeats trainings.
    """
    config = config.resolved().model_copy(update={"out": None})
    levels_at = _checked(config, methods, shares, order, repeats)
    with progress or console_progress() as shown:
        job = _Job(config, out, tuple(levels_at), order, repeats, shown)
        base = job.base()
        for name, explainer in {**methods, RANDOM: None}.items():
            job.remove(name, explainer, base)
        return Roar(out, pd.DataFrame(job.rows), order)


class _Job:
    """The runs of one call, and what they have come to so far."""

    def __init__(
        self,
        config: TrainConfig,
        out: Path,
        shares: tuple[float, ...],
        order: Order,
        repeats: int,
        progress: Progress,
    ) -> None:
        self.config, self.out, self.shares, self.order = config, out, shares, order
        self.progress, self.rows = progress, list[dict[str, Any]]()
        first = config.training.seed
        self.seeds = range(first, first + repeats)
        splits, train, val = open_parts(config, progress)
        data = config.data
        if not len(splits.test):
            raise UserError(f"{data.name}: ROAR needs test images; data.split leaves none")
        test = load_pixels(
            splits.test,
            data.size,
            data.preprocess,
            progress=progress.load,
            skip_unreadable=data.skip_unreadable,
        )
        self.parts = {"train": train, "val": val, "test": test}
        self.data = fingerprint(self.parts)
        self.colour = _mean_colour(train)

    def base(self) -> Run:
        """Train the models of whole images, and return the first."""
        runs = [self._run(BASE, 0.0, seed, None) for seed in self.seeds]
        return runs[0]

    def remove(self, name: str, explainer: Explainer | None, base: Run) -> None:
        """Train the models of one method; None is the control."""
        levels = self._levels(name, explainer, base)
        for number, share in enumerate(self.shares):
            changed = {
                part: _without(pixels, levels[part], number, self.colour)
                for part, pixels in self.parts.items()
            }
            for seed in self.seeds:
                self._run(name, share, seed, changed)

    def _run(self, name: str, share: float, seed: int, parts: dict[str, Pixels] | None) -> Run:
        """Train and test one model, if that is not done yet."""
        folder = self.out / name / (f"{share:g}" if parts else "") / f"seed-{seed}"
        self.progress.note(f"{name}, {share:.0%} of the pixels removed, seed {seed}, in {folder}")
        config = read_config(self.config.to_dict(), [f"training.seed={seed}"])
        shown = parts or self.parts
        run = train_stages(config, folder, self.progress, lambda part, _: shown[part])
        if not (folder / PREDICTIONS).exists():
            device = run.config.training.device
            table = predict(run.model().to(device), shown["test"], device=device)
            write_table(table, folder / PREDICTIONS, {"seed": seed, "share": share})
        correct = read_table(folder / PREDICTIONS)[0].correct
        row = {"method": name, "share": share, "seed": seed, "accuracy": float(correct.mean())}
        self.rows.append({**row, "images": len(correct)})
        self._write()
        return run

    def _write(self) -> None:
        """Write the accuracies so far, and keep those of before: this call may end early."""
        table, path, key = pd.DataFrame(self.rows), self.out / TABLE, ["method", "share", "seed"]
        if path.exists():
            table = pd.concat([table, pd.read_csv(path)]).drop_duplicates(key)
        write_text(path, table.to_csv(index=False, lineterminator="\n"))

    def _levels(
        self, name: str, explainer: Explainer | None, base: Run
    ) -> dict[str, NDArray[np.uint8]]:
        """Return for each part (N, H, W) the number of the first share that removes a pixel."""
        folder = self.out / name
        about = {
            "method": _described(explainer),
            "order": self.order,
            "shares": list(self.shares),
            "seed": self.config.training.seed,
            "explained": content_of(base.folder),
            "data": self.data,
        }
        noted = folder / ABOUT
        if noted.exists() and (before := json.loads(noted.read_text())) != about:
            key = next(key for key in about if before.get(key) != about[key])
            raise UserError(
                f"{folder}: holds the runs of another {key} ({before.get(key)}, and now "
                f"{about[key]}); name another folder"
            )
        write_text(noted, json.dumps(about, indent=2) + "\n")
        return {
            part: self._levels_of(folder / f"{part}.npy", part, explainer, base)
            for part in self.parts
        }

    def _levels_of(
        self, file: Path, part: str, explainer: Explainer | None, base: Run
    ) -> NDArray[np.uint8]:
        if not file.exists():
            self.progress.note(f"{file}: which pixels of the {part} images go")
            made = _levels(self.parts[part], explainer, base, self.shares, self.order)
            with replacing(file) as temporary, temporary.open("wb") as opened:
                np.save(opened, made)
        return cast("NDArray[np.uint8]", np.load(file, mmap_mode="r"))


class _Without:
    """Images (N, H, W, C) whose pixels of a level up to `last` are of one colour."""

    def __init__(
        self,
        images: NDArray[np.uint8] | Rows,
        levels: NDArray[np.uint8],
        last: int,
        colour: NDArray[np.uint8],
    ) -> None:
        self.images, self.levels, self.last, self.colour = images, levels, last, colour
        self.shape, self.dtype = images.shape, images.dtype

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:
        """Return the changed images of some rows."""
        gone = self.levels[rows] <= self.last
        return np.where(gone[..., None], self.colour, self.images[rows])


def _without(
    pixels: Pixels, levels: NDArray[np.uint8], last: int, colour: NDArray[np.uint8]
) -> Pixels:
    """Return pixels of the same images, ids and labels, without those of a level up to `last`."""
    changed = cast("NDArray[np.uint8]", _Without(pixels.images, levels, last, colour))
    return replace(pixels, images=Rows(changed, np.arange(len(pixels))))


def _levels(
    pixels: Pixels,
    explainer: Explainer | None,
    base: Run,
    shares: Sequence[float],
    order: Order,
) -> NDArray[np.uint8]:
    """Return the number of the first of `shares` that removes each pixel, (N, H, W)."""
    count, height, width = pixels.images.shape[:3]
    levels = np.empty((count, height, width), np.uint8)
    device, seed = base.config.training.device, base.config.training.seed
    ends = torch.tensor([round(share * height * width) for share in shares], device=device)
    model = base.model().to(device)
    for start in range(0, count, _BATCH):
        rows = np.arange(start, min(start + _BATCH, count))
        x, ids = pixels.x(rows, device), pixels.ids(rows, device)
        heat = torch.zeros(len(rows), height, width, device=device)
        if explainer is not None:
            with exactly(model) as inner, torch.no_grad():
                target = heads.predictions(inner(x))
            generator = torch.Generator().manual_seed(derive(seed, "roar"))
            found = explainer(model, x, target, generator=generator, ids=ids)
            heat = rectify(found, explainer.rectification).nan_to_num(posinf=0.0)
        place = ranks(heat, Noise(derive(seed, "roar ties"), ids))
        if order == "least":
            place = height * width - 1 - place
        levels[rows] = torch.bucketize(place, ends, right=True).to(torch.uint8).cpu().numpy()
    return levels


def _mean_colour(pixels: Pixels) -> NDArray[np.uint8]:
    """Return the mean of each channel over all images, (C,), to the nearest grey level."""
    total = np.zeros(pixels.channels)
    for start in range(0, len(pixels), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(pixels)))
        total += np.asarray(pixels.images[rows]).mean((1, 2), dtype=np.float64).sum(0)
    return (total / max(1, len(pixels))).round().astype(np.uint8)


def _described(explainer: Explainer | None) -> Any:
    if explainer is None:
        return RANDOM
    try:
        return json.loads(json.dumps(to_settings(explainer)))
    except (KeyError, StopIteration, TypeError):  # one of the user's own
        return repr(explainer)


def _checked(
    config: TrainConfig,
    methods: Mapping[str, Explainer],
    shares: Sequence[float],
    order: Order,
    repeats: int,
) -> list[float]:
    """Return the shares; raises `UserError` for what would only be found later."""
    rising = [float(share) for share in shares]
    if not rising or rising != sorted(set(rising)) or not 0 < rising[0] <= rising[-1] <= 1:
        raise UserError(f"shares = {rising}: give shares that rise within (0, 1]")
    if len(rising) > 254:
        raise UserError(f"shares: {len(rising)} are too many; give at most 254")
    if order not in ("most", "least"):
        raise UserError(f"order = '{order}': most or least")
    if repeats < 1:
        raise UserError(f"repeats = {repeats}: train each at least once")
    for name in methods:
        if name in (BASE, RANDOM) or not name or Path(name).name != name:
            raise UserError(f"methods: '{name}' cannot be a method's name here; give another")
    if config.search is not None:
        raise UserError("search: ROAR trains one configuration; give the best one, without search")
    several = config.training.devices not in ("auto", 1) or config.training.nodes not in ("auto", 1)
    if several or os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError("ROAR runs in one process; set training.devices and training.nodes to 1")
    return rising
