"""Compare what equal epochs of PGD-7 adversarial training come to, ours and the peers': row t-c.

For each seed ours (`diascope.training.fit` with `Adversarial`), a float32 loop built on
torchattacks, and ART's AdversarialTrainer train from the same weights, with the same optimizer, on
the same images, for the same epochs; the last epoch's weights are attacked by PGD-L2 with 40 steps
of 2.5 eps / 40, once by our attack and once by torchattacks'. Printed are the robust accuracies of
each seed, the mean of the differences between ours and a peer's, and its 95% interval over the
seeds (Student's t; nothing from one seed). A record a seed: seeds may be added by further commands.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.inputs import entry, parser
from benchmarks.record import accuracy_lines, append, circumstances, setting_lines
from benchmarks.timing import wait
from benchmarks.training_inputs import note, training_data
from benchmarks.training_loops import (
    ATTACK_STEPS,
    REL_STEP_SIZE,
    ArtTrainer,
    Trainer,
    our_config,
    our_fit,
    torchattacks_pgd,
)
from diascope.attacks import PGD, scale_eps
from diascope.attacks.base import verdict
from diascope.data import Pixels, load_pixels
from diascope.models import create_model
from diascope.objectives import Adversarial
from diascope.randomness import derive

NETS: dict[str, dict[str, Any]] = {
    "small": {"layers": [1, 1, 1, 1], "channels": [32, 64, 128, 256]},
    "resnet18": {},
    "tiny": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]},
}
EPS, JUDGE_STEPS = 4.0, 40  # eps at 224, as P1; elsewhere in proportion to the number of pixels
TEST_SHARE = 0.3


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Train and attack for every seed, append the records and print them."""
    args = _options(argv)
    train, test = _pixels(args)
    records = []
    for seed in args.seeds:
        records.append(measure(train, test, seed, args))
        append(args.results, Path(__file__).stem, records[-1])
        print("\n".join(accuracy_lines(records[-1:])[:-1]), flush=True)
    print("\n".join([*setting_lines(records[-1]), *accuracy_lines(records)]))
    return records


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__ or "", models=False)
    add = options.add_argument
    add("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="of weights and orders")
    add("--epochs", type=int, default=6)
    add("--per-class", type=int, default=200, help="images of each class, 0.3 of them for the test")
    add("--size", type=int, default=64)
    add("--batch-size", type=int, default=64)
    add("--net", choices=tuple(NETS), default="small", help="a ResNet of basic blocks")
    args = options.parse_args(argv)
    if args.quick:
        args.seeds, args.epochs, args.net = args.seeds[:2], 1, "tiny"
        args.per_class, args.size, args.batch_size = 8, 16, 8
    return args


def _pixels(args: argparse.Namespace) -> tuple[Pixels, Pixels]:
    """Return the images to train on and to attack, apart by group; the same for every seed."""
    data = training_data(args.data, 4 * args.per_class, args.size, args.seed)
    if args.data is not None:
        data = data.balanced(args.per_class, args.seed)
    splits = data.split(args.seed, (1 - TEST_SHARE, 0.0, TEST_SHARE))
    return load_pixels(splits.train, args.size), load_pixels(splits.test, args.size)


def measure(train: Pixels, test: Pixels, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Return the record of one seed."""
    import lightning.fabric  # noqa: F401 - seconds that would be counted as ours

    device, eps = torch.device(args.device), scale_eps(EPS, args.size)
    classes = len(train.dataset.classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "model"))
        options = {"zero_init_last": False, **NETS[args.net]}
        model = create_model("resnet18", classes, **options).to(device)
    accuracy, seconds = {}, {}
    for name, trained in _trainings(model, train, eps, seed, args).items():
        wait(device)
        began = time.perf_counter()
        found = trained()
        wait(device)
        seconds[name] = time.perf_counter() - began
        accuracy[name] = judged(found, test, eps, device)
    return {
        "row": "t-c",
        "title": f"PGD-7, {args.epochs} epochs, {len(train)} of {args.size}",
        **circumstances(device),
        "notes": [note(args.data), f"{len(test)} test images, {classes} classes: {args.net} net"],
        "quick": args.quick,
        "seed": seed,
        "settings": {
            **{key: getattr(args, key) for key in ("epochs", "size", "batch_size", "net")},
            "eps": eps,
            "train": len(train),
            "test": len(test),
            "classes": list(train.dataset.classes),
        },
        "seconds_training": seconds,
        "accuracies": accuracy,
    }


def _trainings(
    model: nn.Module, train: Pixels, eps: float, seed: int, args: argparse.Namespace
) -> Mapping[str, Callable[[], nn.Module]]:
    """Return what trains a copy of `model` and gives it back, by name."""
    device, there = torch.device(args.device), peers.installed()
    x, y = train.x().contiguous(memory_format=torch.contiguous_format), train.y()
    attack = PGD(norm="l2", eps=eps, steps=ATTACK_STEPS, rel_step_size=REL_STEP_SIZE)
    config = our_config(
        epochs=args.epochs, batch_size=args.batch_size, seed=seed, device=args.device
    )

    def by(trainer: Trainer, x: Tensor, y: Tensor) -> nn.Module:
        trainer.train(x, y, args.epochs, args.batch_size, seed)
        return trainer.model

    trainings: dict[str, Callable[[], nn.Module]] = {
        "diascope": lambda: our_fit(model, Adversarial(attack=attack), train, config).model
    }
    if "torchattacks" in there:
        trainings["torchattacks"] = lambda: by(
            torchattacks_pgd(model, eps), x.to(device), y.to(device)
        )
    if "art" in there:
        classes = len(train.dataset.classes)
        trainings["art"] = lambda: by(ArtTrainer(model, eps, classes), x, y)
    return trainings


def judged(model: nn.Module, test: Pixels, eps: float, device: torch.device) -> dict[str, float]:
    """Return the accuracy on clean images, and under our PGD-40 and torchattacks'.

    Only images that are right without an attack are attacked; the others are broken already.
    """
    model = peers.own_copy(model)
    step, generator = 2.5 / JUDGE_STEPS, torch.Generator().manual_seed(0)
    ours = PGD(norm="l2", eps=eps, steps=JUDGE_STEPS, rel_step_size=step, stop_early=True)
    attacks: dict[str, Callable[..., Tensor]] = {
        "clean": lambda x, y, ids: x,
        "pgd-40": lambda x, y, ids: ours(model, x, y, generator=generator, ids=ids),
    }
    if "torchattacks" in peers.installed():
        plain = peers.own_copy(model).to(memory_format=torch.contiguous_format)
        theirs = peers.pgd("torchattacks", plain, "l2", eps, JUDGE_STEPS, step * eps)
        attacks["their pgd-40"] = lambda x, y, ids: theirs(x.contiguous(), y)
    standing, right = torch.arange(len(test)), dict[str, float]()
    for name, attack in attacks.items():
        torch.manual_seed(0)
        stood = []
        for some in standing.split(64):
            x, y = test.x(some, device), test.y(some, device)
            x_adv = attack(x, y, test.ids(some))
            stood.append(some[~verdict(model, x_adv, y).cpu()])
        found = torch.cat(stood) if stood else standing
        right[name] = len(found) / len(test)
        standing = found if name == "clean" else standing
    return right


if __name__ == "__main__":
    entry(main)
