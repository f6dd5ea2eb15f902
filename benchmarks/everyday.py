"""Everyday corruptions as a picture and in milliseconds, and how often the checks cry wolf.

    python -m benchmarks.everyday grid --out corruptions.png [--data DATA] [--size 224]
    python -m benchmarks.everyday speed [--images 32] [--size 224]
    python -m benchmarks.everyday alarms [--trials 200]

`grid` shows one image of DATA (a phantom by default) under every corruption at every severity.
`speed` prints the milliseconds of processor time an image takes, the median of five goes over
severities 1, 3 and 5.
`alarms` draws models that have no fault, and prints how often `groups` accuses one, what expected
calibration error a perfect model has by chance, and how often its interval holds that error.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from diascope.data import load_pixels, open_data
from diascope.evaluation import bootstrap_statistics
from diascope.evaluation.calibration import (
    calibration_error_by_chance,
    calibration_interval,
)
from diascope.evaluation.corruptions import SEVERITIES, corruptions
from diascope.report.grid import Cell, save
from diascope.report.grid import grid as drawn


def grid(data: str, size: int, row: int, seed: int) -> Figure:
    """Return a figure: corruptions down, severities across, the image itself first."""
    x = load_pixels(open_data(data), size=size).x([row])
    ids = torch.tensor([seed])

    def picture(image: torch.Tensor) -> np.ndarray:
        return (image[0].permute(1, 2, 0) * 255).round().byte().numpy()

    cells = [
        [Cell(picture(x)), *(Cell(picture(corrupt(x, s, ids))) for s in SEVERITIES)]
        for corrupt in corruptions().values()
    ]
    return drawn(
        cells,
        rows=[name.replace("_", " ") for name in corruptions()],
        columns=["as it is", *(f"severity {s}" for s in SEVERITIES)],
        side=0.62,
    )


def speed(count: int, size: int) -> dict[str, float]:
    """Return the milliseconds that each corruption takes an image of `size` on one thread."""
    x = load_pixels(open_data(f"phantom:images={count},size={size}"), size=size).x()
    found = {}
    for name, corrupt in corruptions().items():
        corrupt(x[:2], 3)
        goes = []
        for _ in range(5):
            began = time.process_time()
            for severity in (1, 3, 5):
                corrupt(x, severity)
            goes.append((time.process_time() - began) / (3 * count) * 1000)
        found[name] = statistics.median(goes)
    return found


def accused(trials: int, images: int, values: int, level: float, seed: int = 0) -> float:
    """Return how often a value is accused where all are alike, right in 80 of 100 images."""
    rng, found = np.random.default_rng(seed), 0
    for _ in range(trials):
        right = (rng.random(images) < 0.8).astype(np.float64)
        part = (rng.integers(0, values, images)[:, None] == np.arange(values)).astype(np.float64)

        def gaps(w: np.ndarray, part: np.ndarray = part, right: np.ndarray = right) -> np.ndarray:
            inside = (w @ (part * right[:, None])) / (w @ part)
            return inside - (w @ ((1 - part) * right[:, None])) / (w @ (1 - part))

        replicates = max(1000, int(20 / (1 - level)))
        intervals = bootstrap_statistics(
            gaps, np.arange(images), replicates=replicates, level=level
        )
        found += any(i.high < 0 for i in intervals)
    return found / trials


def calibrated(trials: int, images: int, seed: int = 0) -> tuple[float, float, float]:
    """Return of perfect models of three classes: mean error, that by chance, coverage of it."""
    rng, errors, chances, held = np.random.default_rng(seed), [], [], 0
    for _ in range(trials):
        logits = 2 * rng.standard_normal((images, 3))
        sure = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).max(1)
        right = rng.random(images) < sure
        interval = calibration_interval(sure, right, np.arange(images), replicates=500)
        errors.append(interval.value)
        chances.append(calibration_error_by_chance(sure, draws=200))
        held += interval.low <= chances[-1] <= interval.high
    return float(np.mean(errors)), float(np.mean(chances)), held / trials


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("grid", "speed", "alarms"))
    parser.add_argument("--data", default="phantom:images=8,size=224,seed=3")
    parser.add_argument("--row", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("corruptions.png"))
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    if args.what == "grid":
        save(grid(args.data, args.size, args.row, args.seed), args.out)
        with Image.open(args.out) as picture:
            lighter = picture.convert("RGB").quantize(192, dither=Image.Dither.NONE)
        lighter.save(args.out)
        print(args.out)
    elif args.what == "speed":
        for name, value in speed(args.images, args.size).items():
            print(f"{name:12} {value:5.1f} ms")
    else:
        for values in (2, 10):
            for label, level in (("95%", 0.95), ("corrected", 1 - 0.05 / values)):
                share = accused(args.trials, 500, values, level)
                print(f"groups: {values} values alike, 500 images, {label}: {share:.3f} accused")
        for images in (48, 250, 1000):
            error, chance, held = calibrated(args.trials, images)
            print(
                f"calibration: a perfect model, {images} images: error {error:.3f}, by chance "
                f"{chance:.3f}, which {held:.3f} of the intervals hold"
            )


if __name__ == "__main__":
    main()
