"""Compare AutoAttack's verdicts with its authors', image by image, on ten classes of MNIST.

A small convolutional net is trained here, once as usual and once on PGD images, and both attacks
are run on the same images with the settings of the paper: APGD-CE and APGD-T with 100 steps, FAB-T
with 100 steps, Square with 5,000 queries. "reference" is the authors' code as the package
pyautoattack has it. "torchattacks" puts its members together with 100 steps
(`torchattacks.AutoAttack` itself runs its gradient attacks for 10). Every returned image is judged
by the net itself in float32. `--again` runs the peer a second time with another seed, for how far
it agrees with itself.

    python -m benchmarks.agreement_autoattack MNIST_FOLDER [--norm l2] [--peer torchattacks]

MNIST_FOLDER holds mnist.npz with x_train, y_train, x_test, y_test (uint8).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.record import circumstances
from diascope.attacks import PGD, AutoAttack
from diascope.attacks.base import verdict

EPS = {"linf": {"standard": 0.08, "robust": 0.25}, "l2": {"standard": 1.0, "robust": 2.0}}
SHAPE = (1, 28, 28)


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Train, attack, print agreement and robust accuracies; return the records."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("data", type=Path, help="folder with mnist.npz")
    options.add_argument("--norm", choices=("linf", "l2"), default="linf")
    options.add_argument("--kinds", nargs="+", choices=("standard", "robust"), default=None)
    options.add_argument("--eps", type=float, help="instead of the net's own epsilon")
    options.add_argument("--images", type=int, default=1000, help="the first so many of the test")
    options.add_argument("--steps", type=int, default=100)
    options.add_argument("--queries", type=int, default=5000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--precision", choices=("auto", "float32", "bf16"), default="auto")
    options.add_argument("--peer", choices=tuple(PEERS), default="reference")
    options.add_argument("--again", action="store_true", help="the peer's twice, two seeds")
    args = options.parse_args(argv)
    torch.set_num_threads(1)
    arrays = np.load(args.data / "mnist.npz")
    x, y = pixels(arrays["x_test"][: args.images]), labels(arrays["y_test"][: args.images])
    print(json.dumps(circumstances(torch.device("cpu"))))
    records = []
    for kind in args.kinds or ("standard", "robust"):
        net = trained(arrays, args.norm, kind == "robust", args.seed)
        record = compared(net, x, y, kind, args.eps or EPS[args.norm][kind], args)
        print(json.dumps(record), flush=True)
        records.append(record)
    return records


def compared(
    net: nn.Module, x: Tensor, y: Tensor, kind: str, eps: float, args: argparse.Namespace
) -> dict[str, Any]:
    """Return accuracies, agreement and seconds of both attacks on one net."""
    ours = AutoAttack(
        norm=args.norm, eps=eps, steps=args.steps, queries=args.queries, precision=args.precision
    )
    runs: dict[str, Callable[[], Tensor]] = {
        "diascope": lambda: ours(net, x, y, generator=torch.Generator().manual_seed(args.seed)),
        args.peer: lambda: PEERS[args.peer](net, eps, args, args.seed)(x, y),
    }
    if args.again:
        runs["again"] = lambda: PEERS[args.peer](net, eps, args, args.seed + 1)(x, y)
    broken, seconds = {}, {}
    for name, run in runs.items():
        begin = time.perf_counter()
        x_adv = run()
        seconds[name] = round(time.perf_counter() - begin, 1)
        broken[name] = verdict(net, x_adv, y)
    theirs = broken[args.peer]
    ours_only, theirs_only = broken["diascope"] & ~theirs, theirs & ~broken["diascope"]
    record: dict[str, Any] = {
        "net": kind,
        "norm": args.norm,
        "eps": eps,
        "images": len(x),
        "clean_accuracy": share(~verdict(net, x, y)),
        "robust_accuracy": {name: share(~values) for name, values in broken.items()},
        "agreement": share(broken["diascope"] == theirs),
        "broken_by_diascope_alone": int(ours_only.sum()),
        "broken_by_peer_alone": int(theirs_only.sum()),
        "seconds": seconds,
    }
    if args.again:
        record["agreement_of_peer_with_itself"] = share(theirs == broken["again"])
    return record


def reference(
    net: nn.Module, eps: float, args: argparse.Namespace, seed: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the authors' standard AutoAttack (pyautoattack), whose settings are the paper's."""
    from pyautoattack import AutoAttack as Reference

    norm = {"linf": "Linf", "l2": "L2"}[args.norm]
    attack = Reference(net, norm=norm, eps=eps, seed=seed, version="standard")
    attack.apgd.n_iter = attack.apgd_targeted.n_iter = attack.fab.n_iter = args.steps
    attack.square.n_queries = args.queries
    return lambda x, y: attack.run_standard_evaluation(x, y, batch_size=250)[0]


def torchattacks_members(
    net: nn.Module, eps: float, args: argparse.Namespace, seed: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return torchattacks' members of the standard AutoAttack, with the paper's steps."""
    import torchattacks

    shared = {"norm": {"linf": "Linf", "l2": "L2"}[args.norm], "eps": eps, "seed": seed}
    steps = args.steps
    return torchattacks.MultiAttack(
        [
            torchattacks.APGD(net, loss="ce", steps=steps, **shared),
            torchattacks.APGDT(net, steps=steps, n_classes=10, **shared),
            torchattacks.FAB(net, steps=steps, multi_targeted=True, n_classes=10, **shared),
            torchattacks.Square(net, n_queries=args.queries, **shared),
        ]
    )


PEERS = {"reference": reference, "torchattacks": torchattacks_members}


def trained(arrays: Any, norm: str, robust: bool, seed: int) -> nn.Module:
    """Return a net trained on 10,000 images; if `robust`, on PGD's within 0.8 of its epsilon."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 7 * 7, 10),
    )
    x, y = pixels(arrays["x_train"][:10_000]), labels(arrays["y_train"][:10_000])
    attack = PGD(norm=norm, eps=0.8 * EPS[norm]["robust"], steps=5)
    optimizer, epochs = torch.optim.Adam(net.parameters(), 3e-3), 4 if robust else 3
    for epoch in range(epochs):
        for rows in torch.randperm(len(x)).split(100):
            # the ball grows over the first epochs: at its full size at once nothing is learnt
            grown = PGD(norm=norm, eps=attack.eps * min(1, (epoch + 1) / 2), steps=attack.steps)
            batch = grown(net, x[rows], y[rows]) if robust else x[rows]
            loss = nn.functional.cross_entropy(net(batch), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval().requires_grad_(False)


def pixels(images: Any) -> Tensor:
    """Return uint8 images (N, 28, 28) as float (N, 1, 28, 28) in [0, 1]."""
    return torch.from_numpy(images).float().div(255).reshape(-1, *SHAPE)


def labels(values: Any) -> Tensor:
    """Return labels as int64 (N,)."""
    return torch.from_numpy(values).long()


def share(values: Tensor) -> float:
    """Return the share of true values."""
    return values.double().mean().item()


if __name__ == "__main__":
    main()
