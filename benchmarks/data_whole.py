"""Read a whole ChestX-ray14 once: the table, the cache of 224, an epoch, and the peak of memory.

112,120 grey PNG of 1024x1024 in the official layout, four a patient: a thousand different images,
as heavy as the official ones (`benchmarks.data_inputs`), each under some hundred names, for writing
all takes hours; each name is read by itself. The epoch is shuffled, in batches of 64, with flips,
normalised.
"""

from __future__ import annotations

import random
import resource
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.data import FLIPS
from benchmarks.data_inputs import MEAN, STD, write_files
from benchmarks.inputs import entry, parser
from benchmarks.record import append, circumstances, setting_lines
from diascope import hardware
from diascope.data import load_pixels, open_data
from diascope.models.normalise import Normalise
from diascope.training.batches import Batches

WHOLE, SIZE, BATCH = 112_120, 224, 64
COLUMNS = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
)


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Build the tree, measure, append the record to the results and print it."""
    options = parser(__doc__ or "", models=False)
    add = options.add_argument
    add("--images", type=int, default=WHOLE, help="names in the table")
    add("--different", type=int, default=1000, help="images that are written")
    add("--folder", type=Path, help="where the files go; without it the system's temporary one")
    args = options.parse_args(argv)
    if args.quick:
        args.images, args.different = min(args.images, 200), min(args.different, 12)
    hardware.keep_memory()
    folder = Path(tempfile.mkdtemp(prefix="whole-", dir=args.folder))
    try:
        files = write_files(folder, args.data, args.different, args.seed, args.quick, "chestxray14")
        lay_out(folder / "ChestX-ray14", files, args.images)
        found = measure(folder)
    finally:
        shutil.rmtree(folder)
    record = {
        "row": "i-w",
        "title": f"{args.images:,} images of 1024, read once",
        **circumstances(torch.device("cpu")),
        "notes": [f"{len(files)} different images"],
        "quick": args.quick,
        **found,
    }
    append(args.results, Path(__file__).stem, record)
    print("\n".join([*setting_lines(record), *lines(record)]))
    return [record]


def lay_out(folder: Path, files: Sequence[Path], count: int) -> None:
    """Give the files `count` names in the layout of the official download, with its table."""
    rows, chance = [COLUMNS], random.Random(0)
    for i in range(count):
        name = f"{i // 4 + 1:08d}_{i % 4:03d}.png"
        path = folder / f"images_{i // 10_000 + 1:03d}" / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(files[i % len(files)])
        finding = chance.choice(["No Finding", "Pneumothorax"])
        rows.append(f"{name},{finding},{i % 4},{i // 4 + 1},50,M,PA")
    (folder / "Data_Entry_2017.csv").write_text("\n".join(rows) + "\n")


def measure(folder: Path) -> dict[str, Any]:
    """Return the seconds that each step takes, and the most memory so far, in bytes, after it."""
    begun = time.perf_counter()
    seconds: dict[str, float] = {}
    peak: dict[str, int] = {}

    def done(step: str) -> None:
        seconds[step] = time.perf_counter() - begun - sum(seconds.values())
        peak[step] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    dataset = open_data(f"chestxray14:{folder / 'ChestX-ray14'}")
    done("table")
    pixels = load_pixels(dataset, SIZE, cache=folder / "cache")
    done("cache")
    batches, normalise = Batches(pixels, BATCH, 0, FLIPS), Normalise(MEAN, STD)
    for rows in batches.rows(1):
        normalise(batches.load(rows, 1).x)
    done("epoch")
    return {"images": len(pixels), "seconds": seconds, "peak_bytes": peak}


def lines(record: dict[str, Any]) -> list[str]:
    """Return a line for each step."""
    return [
        f"{step:<8}{took:>10.1f} s{record['images'] / took:>12,.0f} images/s, "
        f"peak of memory {record['peak_bytes'][step] / 2**30:.2f} GiB"
        for step, took in record["seconds"].items()
    ]


if __name__ == "__main__":
    entry(main)
