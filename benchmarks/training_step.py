"""Time one training step of ResNet-18 beside the peers': rows t-a, t-b, t-d, t-f and t-g.

a: a PGD-7 adversarial step (L2, 7 steps of eps / 5), 32 images of 128; b: 64 images of 64. The
peers: a plain float32 loop built on torchattacks, and ART's AdversarialTrainer. d: a saliency-
guided step, 32 of 128, beside its public reference's arrangement. f: our SGA and ASGT steps beside
our FGSM adversarial step (there "theirs" are SGA and ASGT, "ours" is FGSM). g: as a, 128 images of
224, for a GPU, with peak memory. Ours is a step of `diascope.training.fit` in the precision that
it takes by itself, the loading of 8-bit images included; the peers are given float images.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import peers
from benchmarks.inputs import entry, parser, untrained
from benchmarks.record import append, circumstances, memory_lines, setting_lines, speed_lines
from benchmarks.timing import Contender, compared, rounds
from benchmarks.training_inputs import NUM_CLASSES, note, training_pixels
from benchmarks.training_loops import (
    ATTACK_STEPS,
    REL_STEP_SIZE,
    ArtTrainer,
    OurStep,
    in_turn,
    saliency_guided_reference,
    torchattacks_pgd,
)
from diascope.attacks import FGSM, PGD, scale_eps
from diascope.data import Pixels
from diascope.hardware import best_precision
from diascope.models import Classifier
from diascope.objectives import Adversarial, Objective

Build = Callable[[], Contender]

SIZES = {"a": (128, 32), "b": (64, 64), "d": (128, 32), "f": (128, 32), "g": (224, 128)}
TITLES = {"a": "PGD-7", "b": "PGD-7", "d": "saliency-guided", "f": "FGSM (SGA, ASGT)", "g": "PGD-7"}
QUICK = (32, 2)
EPS = 4.0  # in L2 at 224, as P1; elsewhere in proportion to the number of pixels
FGSM_EPS, MASKED, LAM = 0.03, 0.1, 1.0  # P3: eps of U[0.01, 0.05], k, lambda


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Time the rows asked for, append them to the results and print them."""
    options = parser(__doc__ or "", pairs=8, models=False)
    add = options.add_argument
    add("--rows", nargs="+", choices=tuple(SIZES), default=["a", "b", "d", "f"])
    add("--size", type=int, help="pixels instead of the row's own")
    add("--batch-size", type=int, help="images instead of the row's own number")
    args = options.parse_args(argv)
    if args.quick:
        args.pairs = min(args.pairs, 2)
    records = []
    for row in args.rows:
        records.append(measure(row, args))
        append(args.results, Path(__file__).stem, records[-1])
    lines = [*setting_lines(records[-1]), *speed_lines(records), *memory_lines(records)]
    print("\n".join(lines))
    return records


def measure(row: str, args: argparse.Namespace) -> dict[str, Any]:
    """Return the record of one row."""
    size, images = QUICK if args.quick else SIZES[row]
    size, images = args.size or size, args.batch_size or images
    device = torch.device(args.device)
    pixels = training_pixels(args.data, 2 * images, size, args.seed)
    model = untrained(args.seed, tiny=args.quick).to(device)
    build = {"d": _saliency_guided, "f": _guided_and_attacked}.get(row, _adversarial)
    builders = build(model, pixels, device, args.seed)
    record = {
        "row": f"t-{row}",
        "title": f"{TITLES[row]} step, {images} of {size}",
        **circumstances(device),
        "notes": [note(args.data), f"ours in {best_precision(device)}, the peers in 32-true"],
        "quick": args.quick,
        "settings": {"images": images, "size": size, "eps": scale_eps(EPS, size)},
    }
    if device.type == "cuda":
        record["peak_bytes"] = {name: _peak(make, device) for name, make in builders.items()}
    contenders = {name: make() for name, make in builders.items()}
    return {**record, **compared(rounds(contenders, args.pairs, device), images)}


def _adversarial(
    model: Classifier, pixels: Pixels, device: torch.device, seed: int
) -> dict[str, Build]:
    """Return adversarial training, ours and the peers'."""
    eps, there = scale_eps(EPS, pixels.size), peers.installed()
    x, y = pixels.x().contiguous(memory_format=torch.contiguous_format), pixels.y()
    attack = PGD(norm="l2", eps=eps, steps=ATTACK_STEPS, rel_step_size=REL_STEP_SIZE)
    ours = Adversarial(attack=attack)
    builders: dict[str, Build] = {"diascope": lambda: OurStep(model, ours, pixels, device)}
    if "torchattacks" in there:
        builders["torchattacks"] = lambda: in_turn(
            torchattacks_pgd(model, eps), x.to(device), y.to(device)
        )
    if "art" in there:
        builders["art"] = lambda: in_turn(ArtTrainer(model, eps, NUM_CLASSES), x, y)
    return builders


def _saliency_guided(
    model: Classifier, pixels: Pixels, device: torch.device, seed: int
) -> dict[str, Build]:
    """Return saliency-guided training, ours and the public reference's arrangement."""
    from diascope.objectives import SaliencyGuided

    x = pixels.x(device=device).contiguous(memory_format=torch.contiguous_format)
    y, ours = pixels.y(device=device), SaliencyGuided(k=MASKED, lam=LAM)
    return {
        "diascope": lambda: OurStep(model, ours, pixels, device),
        "reference": lambda: in_turn(saliency_guided_reference(model, MASKED, LAM, seed), x, y),
    }


def _guided_and_attacked(
    model: Classifier, pixels: Pixels, device: torch.device, seed: int
) -> dict[str, Build]:
    """Return our FGSM adversarial training, and SGA and ASGT beside it."""
    from diascope.objectives import ASGT, SGA

    attack = FGSM(norm="linf", eps=FGSM_EPS)
    objectives: dict[str, Objective] = {
        "diascope": Adversarial(attack=attack),
        "sga": SGA(attack=attack, k=MASKED, lam=LAM),
        "asgt": ASGT(attack=attack, k=MASKED, lam=LAM),
    }
    return {
        name: lambda objective=objective: OurStep(model, objective, pixels, device)  # type: ignore[misc]
        for name, objective in objectives.items()
    }


def _peak(make: Build, device: torch.device) -> int:
    """Return the most bytes that a contender alone holds beyond what was there before it."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    contender = make()
    for number in range(2):
        contender(number)
    return int(np.subtract(torch.cuda.max_memory_allocated(device), before))


if __name__ == "__main__":
    entry(main)
