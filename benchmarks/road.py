"""Time ROAD on 64 images of 224 beside grad-cam's and quantus': row x-e.

ResNet-18; gradients as maps; a fifth to four fifths of the pixels removed, the most relevant
first and, apart from that, the least relevant first, for everyone. Ours and grad-cam's give the
probability's loss, quantus' whether the class is still predicted. quantus ends with an error on
images of three channels; it is given their mean over the channels, a third of the values to
solve for, a model that repeats them, and, as it has no least relevant first, the maps and then
the same upside down. It looks at the first batch only, which is here all images.

The same run compares how removed pixels are filled in, without noise, and the values of ours and
grad-cam's, whose ROADCombined is half of ours.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.inputs import Bench, entry, open_bench, parser
from benchmarks.record import (
    agreement_lines,
    append,
    circumstances,
    setting_lines,
    speed_lines,
    version_of,
)
from benchmarks.timing import Contender, compared, rounds
from diascope.errors import UserError
from diascope.evaluation.imputation import impute
from diascope.evaluation.measures.road import ROAD
from diascope.explain import Gradient, rectify

SIZE, IMAGES = 224, 64
QUICK_SIZE, QUICK_IMAGES = 48, 2
SHARES = (0.2, 0.4, 0.6, 0.8)
FILLED = 2  # images whose removed pixels are compared
PEERS = ("grad-cam", "quantus")


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Time the row, append it to the results and print it."""
    options = parser(__doc__ or "", pairs=2)
    add = options.add_argument
    add("--images", type=int, default=IMAGES, help="how many images")
    add("--peers", nargs="+", choices=PEERS, default=list(PEERS), help="whom to time beside ours")
    args = options.parse_args(argv)
    args.peers = [name for name in args.peers if version_of(name)]
    if not args.peers:
        raise UserError("neither grad-cam nor quantus is installed: nothing to compare with")
    if args.quick:
        args.images, args.pairs = QUICK_IMAGES, min(args.pairs, 2)
    bench = open_bench(args, ["standard"], args.images, QUICK_SIZE if args.quick else SIZE)
    record = measure(bench, args)
    append(args.results, Path(__file__).stem, record)
    lines = [*setting_lines(record), *speed_lines([record]), *agreement_lines([record])]
    print("\n".join(lines))
    return [record]


def measure(bench: Bench, args: argparse.Namespace) -> dict[str, Any]:
    """Return the record of the row."""
    device, net, x = torch.device(args.device), bench.nets["standard"], bench.x
    y, ours = bench.labels(net), ROAD(shares=SHARES)
    heat = torch.cat([rectify(Gradient()(net.model, *part)) for part in _parts(x, y)])
    own = peers.own_copy(net.model)
    values: dict[str, Any] = {}

    def noted(name: str, run: Contender) -> Contender:
        def once(number: int) -> None:
            values[name] = run(number)

        return once

    contenders = {"diascope": noted("diascope", lambda _: ours(own, x, y, heat))}
    build = {"grad-cam": gradcam_road, "quantus": quantus_road}
    for name in args.peers:
        contenders[name] = noted(name, build[name](peers.own_copy(net.model), x, y, heat))

    def warm_up() -> None:
        ours(own, x[:2], y[:2], heat[:2])
        for name in args.peers:
            build[name](peers.own_copy(net.model), x[:1], y[:1], heat[:1])(0)

    return {
        "row": "x-e",
        "title": f"ROAD, {len(x)} images of {x.shape[-1]}",
        **circumstances(device),
        "notes": [*bench.notes, "quantus on one channel, which it needs"],
        "quick": args.quick,
        "settings": {"images": len(x), "size": x.shape[-1], "shares": SHARES},
        **compared(rounds(contenders, args.pairs, device, warm_up=warm_up), len(x)),
        "agreement": [
            *[_filled(name, x[:FILLED], heat[:FILLED]) for name in args.peers],
            *([_same_values(values)] if "grad-cam" in values else []),
        ],
    }


def gradcam_road(model: nn.Module, x: Tensor, y: Tensor, heat: Tensor) -> Contender:
    """Return grad-cam's ROADCombined, (B,): half of LeRF's probability less MoRF's."""
    from pytorch_grad_cam.metrics.road import ROADCombined
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    measure = ROADCombined(percentiles=[100 - round(100 * share) for share in SHARES])
    targets = [ClassifierOutputSoftmaxTarget(int(k)) for k in y]
    maps = (heat / heat.flatten(1).amax(1)[:, None, None]).cpu().numpy()

    def run(number: int) -> Any:
        torch.manual_seed(number)
        with _allowing_old_numpy():
            return measure(x, maps, targets, model)

    return run


def quantus_road(model: nn.Module, x: Tensor, y: Tensor, heat: Tensor) -> Contender:
    """Return quantus' ROAD twice, {percentage: accuracy}: by the maps and upside down."""
    import quantus

    measure = quantus.ROAD(
        percentages=[round(100 * share) for share in SHARES], disable_warnings=True
    )
    grey, targets, maps = (v.cpu().numpy() for v in (_grey(x), y, heat[:, None]))
    repeated = _Repeated(model).eval()
    device = "cuda" if x.is_cuda else "cpu"

    def run(number: int) -> Any:
        np.random.seed(number)  # noqa: NPY002  quantus draws from it
        return [
            measure(
                repeated,
                grey,
                targets,
                ordered,
                channel_first=True,
                batch_size=len(grey),
                device=device,
            )
            for ordered in (maps, maps.max() - maps)
        ]

    return run


class _Repeated(nn.Module):
    """The model of images of one channel, (B, 1, H, W)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.expand(-1, 3, -1, -1))


def _grey(x: Tensor) -> Tensor:
    return x.mean(1, keepdim=True)


def _filled(peer: str, x: Tensor, heat: Tensor) -> dict[str, Any]:
    """Return how far the pixels that a peer fills in, without noise, are from ours."""
    x = _grey(x) if peer == "quantus" else x
    order = heat.flatten(1).argsort(1, descending=True).argsort(1).view_as(heat)
    far = []
    for share in SHARES:
        removed = order < round(share * heat[0].numel())
        ours = impute(x, removed).cpu()
        for image, gone, found in zip(x.cpu(), removed.cpu(), ours, strict=True):
            far.append(float((_fill(peer, image, gone) - found).abs().max()))
    return {"what": "filled pixels", "beside": peer, "images": len(far), "difference": far}


def _fill(peer: str, image: Tensor, removed: Tensor) -> Tensor:
    """Return an image (C, H, W) whose removed pixels (H, W) a peer fills in."""
    if peer == "grad-cam":
        from pytorch_grad_cam.metrics.road import NoisyLinearImputer

        with _allowing_old_numpy():
            found: Tensor = NoisyLinearImputer(noise=0)(image, (~removed).float())
        return found
    from quantus.functions.perturb_func import noisy_linear_imputation

    gone = np.flatnonzero(removed.numpy())
    return torch.from_numpy(noisy_linear_imputation(image.numpy(), gone, noise=0.0)).float()


@contextmanager
def _allowing_old_numpy() -> Iterator[None]:
    """Leave out numpy's warning of how grad-cam hands it tensors."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


def _same_values(values: dict[str, Any]) -> dict[str, Any]:
    """Return each image's difference of ours and twice grad-cam's, and their rank correlation."""
    ours, theirs = values["diascope"].cpu().numpy(), 2 * np.asarray(values["grad-cam"])
    rank = [float(spearmanr(ours, theirs).statistic)] if len(ours) > 2 else None
    found = {"what": "ROAD", "beside": "grad-cam, twice", "images": len(ours), "rank": rank}
    return {**found, "difference": np.abs(ours - theirs).tolist()}


def _parts(x: Tensor, y: Tensor, rows: int = 16) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.split(rows), y.split(rows), strict=True))


if __name__ == "__main__":
    entry(main)
