"""What every benchmark takes: models, images, labels, a device."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.record import RESULTS
from diascope.audit import Subject, open_subjects, unseen
from diascope.data import Preprocess, load_pixels, open_data
from diascope.data.phantom import generate
from diascope.errors import UserError
from diascope.models import Classifier, create_model
from diascope.models.heads import predictions
from diascope.models.modes import exactly
from diascope.randomness import derive

CLASSES = 4  # of the untrained nets


def parser(
    description: str, pairs: int | None = None, *, models: bool = True
) -> argparse.ArgumentParser:
    """Return a parser of the options that every benchmark has.

    `pairs` is the default number of timed rounds; None where nothing is timed. `models`: whether
    trained models are taken.
    """
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = options.add_argument
    if models:
        add("--model-standard", type=Path, metavar="RUN", help="run folder of a standard model")
        add("--model-robust", type=Path, metavar="RUN", help="run folder of a robust model")
    add("--data", metavar="DATA", help="such as ham10000:/path; without it the phantom's images")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where everything runs")
    if pairs is not None:
        add("--pairs", type=int, default=pairs, help="timed rounds; each calls everyone once")
    add("--seed", type=int, default=0, help="of untrained nets, drawn images and attacks")
    add("--quick", action="store_true", help="a smoke test of seconds, whose figures mean nothing")
    add("--results", type=Path, default=RESULTS, metavar="DIR", help="folder of the JSON lines")
    return options


def entry(main: Callable[[], object]) -> None:
    """Call `main`; a mistake of the user ends with one line and exit code 2."""
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


@dataclass(frozen=True)
class Net:
    """A classifier in eval mode on its device; `trained` tells it from an untrained stand-in."""

    kind: str
    model: Classifier
    trained: bool

    @property
    def training_attack(self) -> dict[str, Any]:
        """The attack it was trained against, or nothing."""
        return dict(self.model.card.get("objective", {}).get("attack") or {})


@dataclass(frozen=True)
class Bench:
    """The nets and the images of one benchmark: x (N, C, S, S) in [0, 1], y (N,) or none."""

    nets: dict[str, Net]
    x: Tensor
    y: Tensor | None
    notes: tuple[str, ...]

    def labels(self, net: Net) -> Tensor:
        """Return the true labels (N,); without any, or for an untrained net, its own verdicts."""
        if self.y is not None and net.trained:
            return self.y
        with torch.no_grad(), exactly(net.model) as inner:
            return torch.cat([predictions(inner(part)) for part in torch.split(self.x, 32)])


def open_bench(args: argparse.Namespace, kinds: Sequence[str], count: int, size: int) -> Bench:
    """Open the models of `kinds` ("standard", "robust") and `count` images of `size` pixels.

    Images are of the test split that no opened model has seen, drawn by lot; as many as there
    are where there are fewer. Without a model an untrained ResNet-18 stands in, without data
    the phantom; the notes say so.
    """
    device = torch.device(args.device)
    paths = {kind: getattr(args, f"model_{kind}") for kind in kinds}
    subjects = {
        kind: subject
        for (kind, path) in paths.items()
        if path is not None
        for subject in open_subjects([path])
    }
    if subjects:
        open_subjects([path for path in dict.fromkeys(paths.values()) if path is not None])
    notes = [_about(kind, subjects.get(kind), size) for kind in kinds]
    if args.data is None:
        x, y = _phantom(count, size, args.seed), None
        notes.append("images of the phantom, labelled by the nets: strength has no meaning here")
    else:
        x, y = _unseen(args.data, list(subjects.values()), count, size, args.seed)
        notes.append(f"{len(x)} unseen images of {args.data.partition(':')[0]}")
    nets = {}
    for number, kind in enumerate(kinds):
        subject = subjects.get(kind)
        model = subject.model if subject else untrained(args.seed + number, tiny=args.quick)
        model.eval().to(device)
        nets[kind] = Net(kind, model, subject is not None)
    labels = y.to(device) if y is not None else None
    return Bench(nets, x.to(device), labels, tuple(notes))


def untrained(seed: int, tiny: bool = False) -> Classifier:
    """Return a ResNet-18 of random weights, the same for the same seed; `tiny` for smoke tests.

    Every residual branch counts: timm would have all of them begin at zero, so that nine tenths
    of the pixels had no gradient.
    """
    options: dict[str, Any] = {"zero_init_last": False}
    options |= {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]} if tiny else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create_model("resnet18", num_classes=CLASSES, **options)


def _about(kind: str, subject: Subject | None, size: int) -> str:
    if subject is None:
        return f"{kind}: an untrained ResNet-18 stands in: its accuracies have no meaning"
    card, trained = subject.card, subject.card.get("size")
    elsewhere = "" if trained == size else f", attacked at {size}: its accuracies have no meaning"
    return f"{kind}: {card['model']['name']} '{subject.name}', trained at {trained}{elsewhere}"


def _phantom(count: int, size: int, seed: int) -> Tensor:
    images = torch.from_numpy(generate(images=count, size=size, seed=seed).images)
    return (images.permute(0, 3, 1, 2).float() / 255).contiguous()


def _unseen(
    data: str, subjects: Sequence[Subject], count: int, size: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Return images (N, C, S, S) that no subject was trained on, drawn by lot, and labels (N,)."""
    dataset, preprocess = open_data(data), Preprocess()
    if subjects:
        card = subjects[0].card
        dataset = dataset.restrict(card["classes"])
        dataset = dataset.take(unseen(dataset, subjects).rows)
        preprocess = Preprocess.model_validate(card["preprocess"])
    lot = np.array([derive(seed, "image", int(i)) for i in dataset.ids])
    pixels = load_pixels(dataset.take(np.sort(np.argsort(lot)[:count])), size, preprocess)
    return pixels.x().contiguous(memory_format=torch.contiguous_format), pixels.y()
