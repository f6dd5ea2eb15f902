"""Print the newest result of every row from the JSON lines of all benchmarks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, read, setting_lines, speed_lines, strength_lines


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables of speed and of strength."""
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
    speed = _newest([r for r in records if "spread" in r], "row")
    strength = _newest(
        [r for r in records if "attack" in r], "size", "attack", "model", "eps", "peer"
    )
    for rows, lines in ((speed, speed_lines), (strength, strength_lines)):
        if rows:
            print("\n".join([*setting_lines(rows[-1] | {"notes": []}), *lines(rows), ""]))
    if not speed and not strength:
        print(f"{args.results}: no results for {args.device}")


def _newest(records: Sequence[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    """Return the last of the records that agree in `keys`, sorted by them."""
    last = {tuple(record.get(key) for key in keys): record for record in records}
    return [last[key] for key in sorted(last)]


if __name__ == "__main__":
    main()
