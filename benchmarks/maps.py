"""Time all measures of localisation, sharpness and agreement on 500 maps of 224: row x-d.

The maps are gradients of a ResNet-18's scores for images of the phantom, whose lesions' outlines
are the masks; the maps that they are held against for agreement are those of the same images under
noise. A quarter is computed, the rest are those upside down and mirrored. The row is the time of
`maps_table`, which gives all of them beside chance and the centre prior and sorts a map once;
below stands what each measure takes by itself. No peer has these measures: seconds are asked for.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.inputs import entry, parser, untrained
from benchmarks.record import append, circumstances, cost_lines, setting_lines
from benchmarks.timing import Contender, rounds, spread
from diascope.data.phantom import generate
from diascope.evaluation.maps import maps_table
from diascope.evaluation.measures import members
from diascope.explain import Gradient, rectify
from diascope.models.heads import predictions

SIZE, MAPS = 224, 500
QUICK_SIZE, QUICK_MAPS = 48, 4
NOISE = 0.05  # standard deviation of the noise on the other maps' images
CHUNK = 25  # images explained at once
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
    whole = "all in one table"
    second = {"localisation": (masks,), "sharpness": (), "agreement": (other,)}
    contenders: dict[str, Contender] = {
        whole: lambda _: maps_table(heat, masks=masks, others={"noise": other})
    }
    contenders |= {
        f"{family}: {name}": lambda _, measure=each, beside=second[family]: measure(heat, *beside)
        for family in FAMILIES
        for name, each in members(family).items()
    }
    seconds = rounds(contenders, args.pairs, device)
    together = seconds.pop(whole)
    return {
        "row": "x-d",
        "title": f"{len(seconds)} measures of {len(heat)} maps of {size}",
        **circumstances(device),
        "notes": ["gradients of an untrained ResNet-18 on the phantom: only times have a meaning"],
        "quick": args.quick,
        "settings": {"maps": len(heat), "size": size, "noise": NOISE},
        "seconds": {"diascope": together},
        "spread": {"diascope": spread(together)},
        "images_per_second": {"diascope": len(heat) / spread(together)["median"]},
        "ratio": {},
        "costs": seconds,
    }


def maps(
    count: int, size: int, seed: int, device: torch.device, tiny: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return heat maps, those of the images under noise, and masks: (N, H, W) each."""
    model = untrained(seed, tiny=tiny).eval().to(device)
    drawn = generate(images=-(-count // 4), size=size, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    found: list[tuple[Tensor, Tensor]] = []
    for images in torch.from_numpy(drawn.images).split(CHUNK):
        x = (images.permute(0, 3, 1, 2).float() / 255).contiguous()
        noise = NOISE * torch.randn(x.shape, generator=generator)
        x, under_noise = x.to(device), (x + noise).clamp(0, 1).to(device)
        with torch.no_grad():
            y = predictions(model(x))
        heat, other = (rectify(Gradient()(model, z, y)) for z in (x, under_noise))
        found.append((heat, other))
    heat, other = (torch.cat(parts) for parts in zip(*found, strict=True))
    masks = torch.from_numpy(drawn.masks).bool().to(device)
    turned = [
        torch.cat([each.flip(sides) for sides in ((), (1,), (2,), (1, 2))])[:count]
        for each in (heat, other, masks)
    ]
    return turned[0], turned[1], turned[2]


if __name__ == "__main__":
    entry(main)
