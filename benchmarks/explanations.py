"""Time our six explainers beside captum's and grad-cam's: rows x-a, x-b, x-c and x1 to x6.

16 images of 224, ResNet-18: integrated gradients of 50 steps from black, SmoothGrad of 25
samples, occlusion with patches of 50 every 25 pixels, Grad-CAM, FullGrad, and the gradient. Ours
as they are by default, in the precision that the hardware gains from, freezing the model included;
theirs in float32. Row x-a: the six together, theirs with their defaults; x-b: captum with its
batching knobs at their best, searched for first; x-c: FullGrad, which captum has not; x1 to x6:
each method by itself. Where two peers have a method, the sums take the faster one's.

The same run says whether the same thing was computed (`benchmarks.explanations_agreement`).
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.explanations_agreement import agreements
from benchmarks.explanations_peers import (
    TUNED,
    Explain,
    Knobs,
    Settings,
    captum_explainers,
    gradcam_explainers,
    installed,
    target_layer,
    tuned,
)
from benchmarks.inputs import Bench, Net, entry, open_bench, parser
from benchmarks.record import agreement_lines, append, circumstances, setting_lines, speed_lines
from benchmarks.timing import Contender, compared, rounds
from diascope.errors import UserError
from diascope.explain import (
    Explainer,
    FullGrad,
    GradCAM,
    Gradient,
    IntegratedGradients,
    Occlusion,
    SmoothGrad,
)
from diascope.hardware import gains_from_bf16

SIZE, IMAGES = 224, 16
QUICK_SIZE, QUICK_IMAGES = 48, 2
QUICK = Settings(steps=4, samples=2, window=16, stride=8)
METHODS = {
    "gradient": "gradient",
    "integrated_gradients": "integrated gradients",
    "smoothgrad": "SmoothGrad",
    "occlusion": "occlusion",
    "gradcam": "Grad-CAM",
    "fullgrad": "FullGrad",
}
OURS, BEST = "diascope", "captum, best"
AGREEING = 4  # images whose maps are compared

Seconds = dict[str, list[float]]  # contender -> one a round


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Time the methods asked for, append their rows to the results and print them."""
    args = _options(argv)
    bench = open_bench(args, ["standard"], args.images, QUICK_SIZE if args.quick else SIZE)
    records = []
    for record in measure(bench, args):
        append(args.results, Path(__file__).stem, record)
        records.append(record)
    timed = [record for record in records if "spread" in record]
    agreeing = [record for record in records if "agreement" in record]
    lines = [*setting_lines(records[0]), *speed_lines(timed), *agreement_lines(agreeing)]
    print("\n".join(lines))
    return records


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__ or "", pairs=6)
    add = options.add_argument
    add("--images", type=int, default=IMAGES, help="images that are explained")
    add("--methods", nargs="+", choices=tuple(METHODS), default=list(METHODS))
    add(
        "--images-a-call",
        type=int,
        help="images that captum's integrated gradients and noise tunnel are given at once by "
        "default: for all their steps or samples, too (4 on a CPU, all on a GPU)",
    )
    args = options.parse_args(argv)
    if not installed():
        raise UserError("neither captum nor grad-cam is installed: nothing to compare with")
    if args.quick:
        args.pairs, args.images = min(args.pairs, 2), QUICK_IMAGES
    if args.images_a_call is None:
        args.images_a_call = args.images if args.device == "cuda" else min(4, args.images)
    return args


def measure(bench: Bench, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the records of all rows, and then the one of how well the maps agree."""
    device, net, x = torch.device(args.device), bench.nets["standard"], bench.x
    settings, y = QUICK if args.quick else Settings(), bench.labels(net)
    default = Knobs(images=args.images_a_call)
    _tell("looking for captum's best knobs")
    best, tried = _best_knobs(net, settings, x, y, args.methods)
    about = {
        **circumstances(device),
        "notes": [
            *bench.notes,
            f"captum by default: {default}",
            f"captum at its best: {best}",
            f"ours in {'bfloat16' if gains_from_bf16(device) else 'float32'}, the peers in float32",
        ],
        "quick": args.quick,
        "settings": {"images": len(x), "size": x.shape[-1], **asdict(settings)},
    }
    seconds: dict[str, Seconds] = {}
    for method in args.methods:
        contenders = _contenders(net, method, settings, (default, best), x, y)
        _tell(f"timing {METHODS[method]}: {', '.join(contenders)}")
        seconds[method] = rounds(contenders, args.pairs, device)
    yield from ({**about, **row} for row in _rows(seconds, x))
    _tell("comparing the maps")
    few = slice(min(AGREEING, len(x)))
    agreement = agreements(net.model, partial(ours, settings), settings, x[few], y[few])
    told = {"row": "x-q", "title": "what was computed", "agreement": agreement}
    yield {**about, **told, "knobs_tried": tried}


def _tell(what: str) -> None:
    print(f"{what} ...", file=sys.stderr, flush=True)


def ours(settings: Settings, **options: Any) -> dict[str, Explainer]:
    """Return our explainers that compute what the peers do; `options`: of all of them."""
    return {
        "gradient": Gradient(**options),
        "integrated_gradients": IntegratedGradients(
            steps=settings.steps, baseline="black", **options
        ),
        "smoothgrad": SmoothGrad(samples=settings.samples, noise=settings.sigma, **options),
        "occlusion": Occlusion(patch=settings.window, stride=settings.stride, **options),
        "gradcam": GradCAM(**options),
        "fullgrad": FullGrad(**options),
    }


def _best_knobs(
    net: Net, settings: Settings, x: Tensor, y: Tensor, methods: Sequence[str]
) -> tuple[Knobs, dict[str, list[float]]]:
    if "captum" not in installed():
        return Knobs(), {}
    model = peers.own_copy(net.model)
    return tuned(model, target_layer(model, x), settings, x, y, methods)


def _contenders(
    net: Net, method: str, settings: Settings, knobs: tuple[Knobs, Knobs], x: Tensor, y: Tensor
) -> dict[str, Contender]:
    """Return everyone who has the method, each with a model of its own."""
    own, explain = peers.own_copy(net.model), ours(settings)[method]
    contenders: dict[str, Contender] = {
        OURS: lambda number: explain(own, x, y, generator=torch.Generator().manual_seed(number))
    }
    for name, each in (("captum", knobs[0]), (BEST, knobs[1])):
        if "captum" in installed() and (name == "captum" or method in TUNED):
            model = peers.own_copy(net.model)
            known = captum_explainers(model, target_layer(model, x), settings, each)
            if method in known:
                contenders[name] = _seeded(known[method], x, y)
    if "grad-cam" in installed():
        model = peers.own_copy(net.model)
        known = gradcam_explainers(model, target_layer(model, x))
        if method in known:
            contenders["grad-cam"] = _seeded(known[method], x, y)
    return contenders


def _seeded(explain: Explain, x: Tensor, y: Tensor) -> Contender:
    def run(number: int) -> Tensor:
        torch.manual_seed(number)
        return explain(x, y)

    return run


def _rows(seconds: Mapping[str, Seconds], x: Tensor) -> list[dict[str, Any]]:
    """Return the timed rows: each method, and the sums where every method was timed."""
    about = f"{len(x)} images of {x.shape[-1]}"
    rows = []
    for method, found in seconds.items():
        if len(found) > 1:
            row, title = f"x{list(METHODS).index(method) + 1}", METHODS[method]
            rows.append({"row": row, "title": f"{title}, {about}", **compared(found, len(x))})
            if method == "fullgrad":
                rows.append({**rows[-1], "row": "x-c"})
    everyone = {name for found in seconds.values() for name in found}
    if list(seconds) == list(METHODS) and {"captum", "grad-cam"} <= everyone:
        for row, known, title in (
            ("x-a", {"captum", "grad-cam"}, "defaults"),
            ("x-b", everyone - {OURS}, "best knobs"),
        ):
            sums = {OURS: _sum(found[OURS] for found in seconds.values())}
            sums[title] = _sum(fastest(found, known) for found in seconds.values())
            rows.append({"row": row, "title": f"all six, {about}", **compared(sums, len(x))})
    return sorted(rows, key=lambda row: row["row"])


def fastest(found: Seconds, known: set[str]) -> list[float]:
    """Return the seconds of the contender among `known` whose median is the least."""
    return min((found[name] for name in known & set(found)), key=statistics.median)


def _sum(seconds: Iterable[Sequence[float]]) -> list[float]:
    """Return the sums of the methods' times, round by round."""
    return [sum(times) for times in zip(*seconds, strict=True)]


if __name__ == "__main__":
    entry(main)
