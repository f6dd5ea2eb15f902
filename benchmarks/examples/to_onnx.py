"""Export a run as an ONNX file, with its normalisation inside and its weights in the same file.

    python -m benchmarks.examples.to_onnx RUN OUT.onnx

The file takes float32 images in [0, 1], (B, 3, size, size) of any B, and returns logits (B, K).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from diascope.models import load_model
from diascope.models.checkpoint import read_card
from diascope.models.opening import open_classifier


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("run", type=Path)
    options.add_argument("out", type=Path)
    args = options.parse_args(arguments)
    export(args.run, args.out)
    print(f"{args.out}: logits of the run within {difference(args.run, args.out):.2g}")


def export(run: Path, out: Path) -> None:
    """Write the model of a run to `out`."""
    torch.onnx.export(
        load_model(run),
        (_noise(run),),
        str(out),
        input_names=["images"],
        output_names=["logits"],
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )


def difference(run: Path, out: Path) -> float:
    """Return how far the exported logits of two images of noise are from the run's, at most."""
    images = _noise(run)
    with torch.no_grad():
        ours = load_model(run)(images)
        theirs = open_classifier(str(out)).model(images)
    return (ours - theirs).abs().max().item()


def _noise(run: Path) -> torch.Tensor:
    size = read_card(run)["size"]
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


if __name__ == "__main__":
    main()
