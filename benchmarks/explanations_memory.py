"""Measure the most memory that integrated gradients take: 64 images of 224, 50 steps, ResNet-18.

On a CPU each contender runs in a process of its own, whose peak of resident memory is read from
the system: with all that Python, torch and the model take by themselves, which stands beside. On
a GPU it is the most that its tensors held. captum runs with as many rows at once as it has
images, the least that it can (`internal_batch_size`); by default it would hold all 3,200.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.explanations import QUICK, QUICK_IMAGES, QUICK_SIZE, SIZE, ours
from benchmarks.explanations_peers import (
    Knobs,
    Settings,
    captum_explainers,
    installed,
    target_layer,
)
from benchmarks.inputs import entry, parser, untrained
from benchmarks.record import append, circumstances, memory_lines, setting_lines
from diascope.data.phantom import generate
from diascope.models.heads import predictions

IMAGES = 64
METHOD = "integrated_gradients"


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure each contender, append the record to the results and print it."""
    options = parser(__doc__ or "", models=False)
    add = options.add_argument
    add("--images", type=int, default=IMAGES, help="images that are explained")
    add("--alone", choices=("diascope", "captum"), help=argparse.SUPPRESS)
    args = options.parse_args(argv)
    if args.data is not None:
        options.error("--data: memory does not depend on what the images show")
    if args.quick:
        args.images = QUICK_IMAGES
    if args.alone:
        print(json.dumps(_alone(args)))
        return []
    contenders = ["diascope", *({"captum"} & set(installed()))]
    found = {name: _in_a_process(name, args) for name in contenders}
    settings = QUICK if args.quick else Settings()
    size = QUICK_SIZE if args.quick else SIZE
    record = {
        "row": "x-m",
        "title": f"{settings.steps} steps, {args.images} images of {size}",
        **circumstances(torch.device(args.device)),
        "notes": ["before the first map: " + _in_words(found, "before_bytes")],
        "quick": args.quick,
        "settings": {"images": args.images, "size": size, "steps": settings.steps},
        "before_bytes": {name: each["before_bytes"] for name, each in found.items()},
        "peak_bytes": {name: each["peak_bytes"] for name, each in found.items()},
    }
    append(args.results, Path(__file__).stem, record)
    print("\n".join([*setting_lines(record), *memory_lines([record])]))
    return [record]


def _in_words(found: dict[str, dict[str, int]], key: str) -> str:
    return ", ".join(f"{name} {each[key] / 2**30:.2f} GiB" for name, each in found.items())


def _in_a_process(contender: str, args: argparse.Namespace) -> dict[str, int]:
    """Return what a contender held in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.explanations_memory", "--alone", contender]
    words += ["--device", args.device, "--images", str(args.images), "--seed", str(args.seed)]
    words += ["--quick"] if args.quick else []
    done = subprocess.run(
        words, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{contender} ended with code {done.returncode}: {done.stderr}")
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def _alone(args: argparse.Namespace) -> dict[str, int]:
    """Explain in this process, and return the bytes held before and at the most."""
    device, size = torch.device(args.device), QUICK_SIZE if args.quick else SIZE
    settings = QUICK if args.quick else Settings()
    model = untrained(args.seed, tiny=args.quick).eval().to(device)
    images = torch.from_numpy(generate(images=args.images, size=size, seed=args.seed).images)
    x = (images.permute(0, 3, 1, 2).float() / 255).contiguous().to(device)
    with torch.no_grad():
        y = torch.cat([predictions(model(part)) for part in x.split(8)])
    if args.alone == "diascope":
        explain = ours(settings)[METHOD]
    else:
        knobs = Knobs(internal_batch_size=args.images)
        explain = captum_explainers(model, target_layer(model, x), settings, knobs)[METHOD]
    before = _held(device)
    if args.alone == "diascope":
        explain(model, x, y)
    else:
        explain(x, y)
    return {"before_bytes": before, "peak_bytes": _peak(device)}


def _held(device: torch.device) -> int:
    """Return the bytes held now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    return _of_process("VmRSS")


def _peak(device: torch.device) -> int:
    """Return the most bytes held so far; on a GPU since `_held`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _of_process("VmHWM")


def _of_process(field: str) -> int:
    """Return a field of this process's status in bytes.

    Not `getrusage`, whose peak may be that of the process which started this one.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return 1024 * int(kilobytes)


if __name__ == "__main__":
    entry(main)
