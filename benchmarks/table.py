"""Print the newest result of every row from the JSON lines of all benchmarks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import (
    RESULTS,
    accuracy_lines,
    agreement_lines,
    cost_lines,
    memory_lines,
    read,
    run_lines,
    setting_lines,
    speed_lines,
    strength_lines,
)

STRENGTH = ("size", "attack", "model", "eps", "peer")


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables of speed, memory, maps' agreement, strength, and trainings."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    options.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    options.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options.add_argument("--quick", action="store_true", help="the smoke tests' figures, too")
    args = options.parse_args(argv)
    records = [r for r in read(args.results) if r.get("device") == args.device]
    if not args.quick:
        records = [r for r in records if not r.get("quick")]
    tables = (
        (speed_lines, [r for r in records if r.get("ratio") or "share" in r], ("row",)),
        (cost_lines, [r for r in records if "costs" in r], ("row",)),
        (memory_lines, [r for r in records if "peak_bytes" in r], ("row", "title")),
        (agreement_lines, [r for r in records if "agreement" in r], ("row",)),
        (strength_lines, [r for r in records if "attack" in r], STRENGTH),
        (accuracy_lines, _like_the_last([r for r in records if "accuracies" in r]), ("seed",)),
        (run_lines, [r for r in records if "parts" in r], ("row", "title")),
    )
    for lines, found, keys in tables:
        if rows := _newest(found, *keys):
            print("\n".join([*setting_lines(rows[-1] | {"notes": []}), *lines(rows), ""]))
    if not any(found for _, found, _ in tables):
        print(f"{args.results}: no results for {args.device}")


def _like_the_last(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records of the last one's settings: seeds that can be averaged."""
    return [r for r in records if r["settings"] == records[-1]["settings"]]


def _newest(records: Sequence[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    """Return the last of the records that agree in `keys`, sorted by them."""
    last = {tuple(record.get(key) for key in keys): record for record in records}
    return [last[key] for key in sorted(last)]


if __name__ == "__main__":
    main()
