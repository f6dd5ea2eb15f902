"""Timing in pairs: all contenders by turns within one run, and the ratios of their times."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

Contender = Callable[[int], object]  # called with the number of the round


class Seconds(float):
    """What a contender returns that took its own time, since not all it did counts."""


@dataclass(frozen=True)
class Ratio:
    """The median of the pairs' ratios, and the order statistics that enclose it.

    `coverage` is the probability with which `low` and `high` enclose the median of such ratios,
    were the pairs independent (Conover 1999, section 3.2): 0.95 or more from six pairs on, less
    for fewer, where they are the smallest and the largest ratio.
    """

    median: float
    low: float
    high: float
    coverage: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


def rounds(
    contenders: Mapping[str, Contender],
    count: int,
    device: torch.device,
    *,
    warm_up: Callable[[], object] | None = None,
) -> dict[str, list[float]]:
    """Return the seconds of each contender in each of `count` rounds.

    Every round calls each of them once; odd rounds in reversed order, so that a machine that
    slows down favours nobody (A B B A). Before the first, `warm_up` is called, or each contender.
    """
    if warm_up is not None:
        warm_up()
    else:
        for contender in contenders.values():
            contender(0)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(count):
        order = list(contenders) if number % 2 == 0 else list(contenders)[::-1]
        for name in order:
            seconds[name].append(timed(contenders[name], number, device))
    return seconds


def timed(contender: Contender, number: int, device: torch.device) -> float:
    """Return the seconds that one call takes, the device's own work included."""
    wait(device)
    began = time.perf_counter()
    found = contender(number)
    wait(device)
    return float(found) if isinstance(found, Seconds) else time.perf_counter() - began


def wait(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ratio(theirs: Sequence[float], ours: Sequence[float], level: float = 0.95) -> Ratio:
    """Return `theirs` over `ours`, round by round."""
    if len(theirs) != len(ours) or not ours:
        raise ValueError(f"{len(theirs)} against {len(ours)} times: give pairs, one at least")
    each = np.sort(np.asarray(theirs) / np.asarray(ours))
    cut, coverage = _order_statistics(len(each), level)
    low, high = float(each[cut]), float(each[-1 - cut])
    return Ratio(float(np.median(each)), low, high, coverage, len(each))


def _order_statistics(count: int, level: float) -> tuple[int, float]:
    """Return how many values to cut off at each end, and the coverage of those that are left."""
    best = (0, _coverage(count, 0))
    for cut in range(1, (count - 1) // 2 + 1):
        if (coverage := _coverage(count, cut)) < level:
            break
        best = (cut, coverage)
    return best


def _coverage(count: int, cut: int) -> float:
    outside: float = sum(math.comb(count, k) for k in range(cut + 1)) / 2**count
    return max(0.0, 1 - 2 * outside)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the quartiles."""
    low, median, high = np.percentile(values, [25, 50, 75]).tolist()
    return {"median": median, "quartile_1": low, "quartile_3": high}


def compared(
    seconds: Mapping[str, Sequence[float]], images: int, ours: str = "diascope"
) -> dict[str, Any]:
    """Return the fields of a record: seconds, images a second, and every peer's time over ours."""
    peers = [name for name in seconds if name != ours]
    return {
        "seconds": {name: list(values) for name, values in seconds.items()},
        "spread": {name: spread(values) for name, values in seconds.items()},
        "images_per_second": {
            name: images / spread(values)["median"] for name, values in seconds.items()
        },
        "ratio": {name: asdict(ratio(seconds[name], seconds[ours])) for name in peers},
    }
