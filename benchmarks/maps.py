"""Time all measures of localisation, sharpness and agreement on 500 maps of 224: row x-d.

The maps are gradients of a ResNet-18's scores for images of the phantom, whose lesions' outlines
are the masks; the maps that they are held against for agreement are those of the same images under
noise. The families' members with their default settings, each by turns within a round; the whole
is the sum of a round. Nobody else offers the same measures, so that here seconds are asked for.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.inputs import entry, parser, untrained
from benchmarks.record import append, circumstances, cost_lines, setting_lines
from benchmarks.timing import rounds, spread
from diascope.data.phantom import generate
from diascope.evaluation.measures import members
from diascope.explain import Gradient, rectify
from diascope.models.heads import predictions

SIZE, MAPS = 224, 500
QUICK_SIZE, QUICK_MAPS = 48, 4
NOISE = 0.05  # standard deviation of the noise on the other maps' images
CHUNK = 50  # images generated and explained at once
FAMILIES = ("localisation", "sharpness", "agreement")


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Time the row, append it to the results and print it."""
    options = parser(__doc__ or "", pairs=5, models=False)
    options.add_argument("--maps", type=int, default=MAPS, help="how many maps are measured")
    args = options.parse_args(argv)
    if args.data is not None:
        options.error("--data: the masks of this row are the phantom's")
    if args.quick:
        args.pairs, args.maps = min(args.pairs, 2), QUICK_MAPS
    record = measure(args)
    append(args.results, Path(__file__).stem, record)
    print("\n".join([*setting_lines(record), *cost_lines([record])]))
    return [record]


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return the record of the row."""
    device, size = torch.device(args.device), QUICK_SIZE if args.quick else SIZE
    heat, other, masks = maps(args.maps, size, args.seed, device, tiny=args.quick)
    second = {"localisation": (masks,), "sharpness": (), "agreement": (other,)}
    contenders: dict[str, Callable[[int], object]] = {
        f"{family}: {name}": lambda _, measure=each, beside=second[family]: measure(heat, *beside)
        for family in FAMILIES
        for name, each in members(family).items()
    }
    seconds = rounds(contenders, args.pairs, device)
    whole = [sum(times) for times in zip(*seconds.values(), strict=True)]
    return {
        "row": "x-d",
        "title": f"{len(seconds)} measures of {len(heat)} maps of {size}",
        **circumstances(device),
        "notes": ["gradients of an untrained ResNet-18 on the phantom: only times have a meaning"],
        "quick": args.quick,
        "settings": {"maps": len(heat), "size": size, "noise": NOISE},
        "seconds": {"diascope": whole},
        "spread": {"diascope": spread(whole)},
        "images_per_second": {"diascope": len(heat) / spread(whole)["median"]},
        "ratio": {},
        "costs": seconds,
    }


def maps(
    count: int, size: int, seed: int, device: torch.device, tiny: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return heat maps, those of the images under noise, and masks: (N, H, W) each."""
    model = untrained(seed, tiny=tiny).eval().to(device)
    drawn = generate(images=count, size=size, seed=seed)
    masks = torch.from_numpy(drawn.masks).bool()
    generator = torch.Generator().manual_seed(seed)
    found: list[tuple[Tensor, Tensor]] = []
    for start in range(0, count, CHUNK):
        images = torch.from_numpy(drawn.images[start : start + CHUNK])
        x = (images.permute(0, 3, 1, 2).float() / 255).contiguous()
        noise = NOISE * torch.randn(x.shape, generator=generator)
        x, under_noise = x.to(device), (x + noise).clamp(0, 1).to(device)
        with torch.no_grad():
            y = predictions(model(x))
        found.append(tuple(rectify(Gradient()(model, z, y)) for z in (x, under_noise)))
    heat, other = (torch.cat(parts) for parts in zip(*found, strict=True))
    return heat, other, masks.to(device)


if __name__ == "__main__":
    entry(main)
