"""Time the way from files to batches: rows i-a, i-b, i-c, i-d and i-e.

From image files to normalised float batches of 64 at 224 in a shuffled epoch. The files (--files):
JPEG of 600x450, either no more than the reduced images enlarged ("reduced"), or with noise until
they are as heavy as the official ones ("ham10000"); or grey PNG of 1024x1024, as heavy as the
official ones ("chestxray14"). Ours comes from the pixel cache, the peers are torch's DataLoader
with torchvision's transforms on Pillow images and on tensors, with the numbers of workers asked
for. a: left-right and up-down flips for both. b: ours with all of P1's augmentation (flips,
rotation, shear, colours), theirs with flips alone. c: all of it for both. d: ours without any
augmentation, beside decoding alone, by Pillow, by its draft mode, by torchvision, in one thread and
in as many as there are cores. e: building the cache, beside the same decoders. All files are in the
memory of the system.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.data_inputs import (
    KINDS,
    MEAN,
    STD,
    Files,
    by_pillow,
    by_torchvision,
    drafted,
    each,
    loader,
    transforms,
    write_files,
)
from benchmarks.inputs import entry, parser
from benchmarks.record import append, circumstances, setting_lines, speed_lines
from benchmarks.timing import Contender, Seconds, compared, rounds
from diascope import hardware
from diascope.data import Augment, Pixels, load_pixels, open_data
from diascope.models.normalise import Normalise
from diascope.training.batches import Batches

FLIPS = Augment(colour=0.0, affine=0.0, rotation=0.0)
ROWS: Mapping[str, tuple[str, Augment | None]] = {
    "a": ("flips", FLIPS),
    "b": ("ours with all augmentation", Augment()),
    "c": ("all augmentation", Augment()),
    "d": ("the cache beside decoding alone", None),
    "e": ("building beside decoding alone", None),
}


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Time the rows asked for, append them to the results and print them."""
    options = parser(__doc__ or "", pairs=6, models=False)
    add = options.add_argument
    add("--rows", nargs="+", choices=tuple(ROWS), default=list(ROWS))
    add("--workers", nargs="+", type=int, default=[0, 1, 2], help="of the DataLoader, each once")
    add("--images", type=int, default=512, help="files of an epoch")
    add("--files", choices=tuple(KINDS), default="reduced", help="what the files are")
    add("--batch-size", type=int, default=64)
    add("--size", type=int, default=224, help="height and width of the batches")
    add(
        "--cpu-time",
        action="store_true",
        help="count a core's seconds, not the clock's: for a machine that others use as well",
    )
    add("--keep", type=Path, metavar="DIR", help="folder where the files and the cache stay")
    args = options.parse_args(argv)
    if args.quick:
        args.pairs, args.images, args.batch_size, args.size = min(args.pairs, 2), 8, 4, 32
    if args.cpu_time:
        args.workers = [0]
        torch.set_num_threads(1)
    hardware.keep_memory()
    folder = args.keep or Path(tempfile.mkdtemp(prefix="diascope-bench-"))
    try:
        files = sorted((folder / args.files).rglob("*.*"))  # none without --keep
        if len(files) != args.images:
            about = (args.data, args.images, args.seed, args.quick)
            files = write_files(folder / args.files, *about, args.files)
        records = []
        for row in args.rows:
            records.append(measure(row, args, folder, files))
            append(args.results, Path(__file__).stem, records[-1])
    finally:
        if not args.keep:
            shutil.rmtree(folder)
    print("\n".join([*setting_lines(records[-1]), *speed_lines(records)]))
    return records


def measure(
    row: str, args: argparse.Namespace, folder: Path, files: Sequence[Path]
) -> dict[str, Any]:
    """Return the record of one row."""
    title, augment = ROWS[row]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    contenders: dict[str, Contender] = {}
    if row == "e":
        contenders["diascope"] = _building(folder, args)
    else:
        pixels = load_pixels(open_data(folder / args.files), args.size, cache=folder / "cache")
        contenders["diascope"] = _ours(pixels, augment, args)
    if row in "abc":
        contenders |= _loaders(files, args, full=row == "c")
    else:
        contenders |= _decoders(files, args.size, sorted({1, 1 if args.cpu_time else cores or 1}))
    if args.cpu_time:
        contenders = {name: _on_a_core(contender) for name, contender in contenders.items()}
    device = torch.device(args.device)
    seconds = rounds(contenders, args.pairs, device)
    with Image.open(files[0]) as first:
        shape = "{}x{}".format(*first.size)
    size = sum(file.stat().st_size for file in files) / len(files)
    source = "the phantom" if args.data is None else args.data.partition(":")[0]
    return {
        "row": f"i-{row}",
        "title": f"{title}, {args.size}",
        "quick": args.quick,
        "settings": {
            "images": len(files),
            "batch_size": args.batch_size,
            "size": args.size,
            "workers": args.workers,
            "bytes_per_file": size,
        },
        "notes": [
            f"{len(files)} {files[0].suffix[1:].upper()} files of {source}, as {args.files}: "
            f"{shape}, {size / 1000:.0f} kB each",
            *(["seconds are those of one core at work"] if args.cpu_time else []),
        ],
        **circumstances(device),
        **compared(seconds, len(files)),
    }


def _on_a_core(contender: Contender) -> Contender:
    def run(number: int) -> Seconds:
        began = time.process_time()
        contender(number)
        return Seconds(time.process_time() - began)

    return run


def _ours(pixels: Pixels, augment: Augment | None, args: argparse.Namespace) -> Contender:
    """Return an epoch of our batches, on the device and normalised as the model does it."""
    batches = Batches(pixels, args.batch_size, args.seed, augment, device=args.device)
    normalise = Normalise(MEAN, STD).to(args.device)

    def epoch(number: int) -> None:
        with torch.no_grad():
            for rows in batches.rows(number):
                normalise(batches.load(rows, number).x)

    return epoch


def _loaders(
    files: Sequence[Path], args: argparse.Namespace, *, full: bool
) -> dict[str, Contender]:
    """Return an epoch of each DataLoader, its batches brought to the device."""
    ways = {"pillow": by_pillow, "tensor": by_torchvision}
    found: dict[str, Contender] = {}
    for kind, read in ways.items():
        data = Files(files, read, transforms(args.size, kind, full=full))
        for workers in args.workers:
            source = loader(data, args.batch_size, workers)

            def epoch(_: int, source: Any = source) -> None:
                for x, _y in source:
                    x.to(args.device)

            found[f"{kind}, {workers} w."] = epoch
    return found


def _decoders(files: Sequence[Path], size: int, threads: Sequence[int]) -> dict[str, Contender]:
    ways: dict[str, Callable[[Path], object]] = {
        "pillow": by_pillow,
        "draft": drafted(size),
        "tv.io": by_torchvision,
    }
    return {
        f"{name}, {count} t.": lambda _, read=read, count=count: each(read, files, count)
        for name, read in ways.items()
        for count in threads
    }


def _building(folder: Path, args: argparse.Namespace) -> Contender:
    """Return the building of a whole cache."""

    def run(_: int) -> None:
        cache = Path(tempfile.mkdtemp(dir=folder))
        load_pixels(open_data(folder / args.files), args.size, cache=cache)
        shutil.rmtree(cache)

    return run


if __name__ == "__main__":
    entry(main)
