"""What the papers' studies cost in full: P1, P2, and ChestX-ray14 at 1024, on 1, 8 and 64 GPUs.

Of each study: a line a kind of training, with how many there are, the seconds of a step on one
device and the hours of all of them there; then the hours on several devices, by sharing each run
(data-parallel), by runs side by side, and by the division that is over first. The speed of a device
is one of three: assumed (operations counted, at a stated rate: `--tflops`, `--launch`), measured
(`--device cpu` or `cuda`: some steps of each kind are timed here), or given for a kind, as the
table names it (`--step-seconds "PGD, batch 16=0.05"`).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.inputs import entry
from benchmarks.record import RESULTS, append, circumstances
from diascope.errors import UserError, nearest
from diascope.studies.costs.devices import Room
from diascope.studies.costs.flops import model_flops, step_flops
from diascope.studies.costs.probe import probed
from diascope.studies.costs.sharing import Task, ways
from diascope.studies.costs.speed import Speed
from diascope.studies.costs.stages import Stage, stages_of
from diascope.studies.costs.telling import hours, table_lines
from diascope.training.config import read_config
from diascope.training.fit import settled

CONFIGS = Path(__file__).parents[1] / "configs"
EPSILONS = (0.5, 1, 1.5, 2, 3, 4, 4.5, 5, 7, 8, 9)  # P1's figures
SEEDS = range(5)
LARGEST = 2e12  # operations of two images of a step; larger kinds are not timed on a CPU


@dataclass(frozen=True)
class Piece:
    """A job: its stages, each under the name of its kind, and the forward passes measured of it."""

    name: str
    stages: tuple[tuple[str, Stage], ...]
    passes: float = 0.0
    needs: tuple[str, ...] = ()


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Print the tables of the studies asked for, and append their records."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--studies", nargs="+", choices=tuple(STUDIES), default=list(STUDIES))
    add("--gpus", type=int, nargs="+", default=[1, 8, 64])
    add("--device", choices=("assumed", "cpu", "cuda"), default="assumed")
    add("--tflops", type=float, default=Room.flops / 1e12, help="assumed of a GPU in training")
    add("--launch", type=float, default=Room.launch * 1e6, help="least us of a layer and pass")
    add("--step-seconds", nargs="+", default=[], metavar="KIND=SECONDS", help="instead of these")
    add("--results", type=Path, default=RESULTS, metavar="DIR", help="folder of the JSON lines")
    args = parser.parse_args(argv)
    if min(args.gpus) < 1 or args.tflops <= 0 or args.launch < 0:
        raise UserError("--gpus, --tflops and --launch: give numbers above 0")
    room = Room(flops=args.tflops * 1e12, launch=args.launch * 1e-6)
    given, used = _given(args.step_seconds), set[str]()
    records = []
    for name in args.studies:
        pieces = list(STUDIES[name]())
        kinds = {kind: stage for piece in pieces for kind, stage in piece.stages}
        speeds = _speeds(kinds, args.device, room)
        for kind in kinds.keys() & given.keys():
            speeds[kind] = Speed(given[kind] / kinds[kind].batch, speeds[kind].forward, "given")
        used |= kinds.keys()
        record = {"study": name, **circumstances(_device(args.device)), "room": asdict(room)}
        record |= {"kinds": _kinds(pieces, speeds, room), "ways": _ways(pieces, speeds, room, args)}
        append(args.results, Path(__file__).stem, record)
        records.append(record)
        print("\n".join([f"## {name}", "", *_lines(pieces, speeds, room, args), ""]))
    if unknown := given.keys() - used:
        raise UserError(f"--step-seconds: no kind '{min(unknown)}': {nearest(min(unknown), used)}")
    return records


def p1() -> Iterator[Piece]:
    """Yield P1 in full: the search, then standard and robust nets, fine-tuned, five seeds each."""
    folds = [f"search {trial}, fold {fold}" for trial in range(9) for fold in range(5)]
    trials = stages_of(read_config(CONFIGS / "p1/search.yaml"), 2400, 0, 3)[:-2]
    for number, name in enumerate(folds):
        yield Piece(name, _named(trials[2 * number : 2 * number + 2], "standard"))
    standard, robust = (
        stages_of(read_config(CONFIGS / f"p1/{name}.yaml"), 2400, 0, 3)
        for name in ("standard", "adversarial")
    )
    maps = 897 * 500.0  # Gradient, IG of 50 steps from 3 baselines, Occlusion, Grad-CAM: about 500
    for seed in SEEDS:
        found = tuple(folds)
        yield Piece(f"standard {seed}", _named(standard, "standard"), maps, found)
        for eps in EPSILONS:
            yield Piece(f"eps {eps} {seed}", _named(robust, "PGD-7"), maps, found)
        for groups in range(1, 6):
            config = read_config(CONFIGS / "p1/fine-tune.yaml", [f"model.trainable={groups}"])
            stages = stages_of(config, 2400, 149, 3)
            kinds = _named(stages, f"fine-tuned, {groups} of 5 groups")
            yield Piece(f"tuned {groups} {seed}", kinds, maps, (f"eps 3 {seed}",))


def p2() -> Iterator[Piece]:
    """Yield P2 in full: three tasks, two nets, with and without attention, one seed each."""
    tasks = {  # images, classes, the share of the training images that an epoch sees
        "skin": (10_015, 7, 0.1),
        "retinopathy": (35_126, 2, 1.0),
        "pneumothorax": (112_120, 2, 1.0),
    }
    for task, (images, classes, share) in tasks.items():
        for net in ("resnet50", "resnet50-soft", "inception-resnet-v2", "inception-resnet-v2-soft"):
            config = read_config(CONFIGS / f"p2/{net}.yaml", [f"training.epoch_share={share}"])
            train, val = round(0.7 * images), round(0.15 * images)
            attacks = 9 * 40 * 2 * (images - train - val)  # PGD of 40 steps at nine epsilons
            stages = stages_of(config, train, val, classes)
            yield Piece(f"{task} {net}", _named(stages, net), float(attacks))


def chestxray14() -> Iterator[Piece]:
    """Yield ChestX-ray14 at 1024: its official 86,524 images to train, a tenth of them to judge.

    ResNet-50, P3's 30 epochs in batches of 32, by three schemes, one seed each.
    """
    own = ["model.name=resnet50", "data.size=1024", "training.batch_size=32", "data.channels=1"]
    pgd = "{name: pgd, norm: linf, eps: 0.004, steps: 7, rel_step_size: 0.25}"
    schemes = {
        "standard": ("p3/standard", []),
        "SGA": ("p3/sga", []),
        "PGD-7": (
            "p3/adversarial",
            [f"objective.attack={pgd}", "training.epsilon={name: fixed}"],
        ),
    }
    for name, (file, settings) in schemes.items():
        more = [*own, *settings, "training.validation.images=1000"]
        config = read_config(CONFIGS / f"{file}.yaml", more)
        passes = 25_596 * (1.0 if name == "standard" else 80.0)  # the official test images
        yield Piece(name, _named(stages_of(config, 77_872, 8_652, 14), name), passes)


STUDIES: dict[str, Callable[[], Iterator[Piece]]] = {
    "P1 in full": p1,
    "P2 in full": p2,
    "ChestX-ray14 at 1024": chestxray14,
}


def _named(stages: Sequence[Stage], name: str) -> tuple[tuple[str, Stage], ...]:
    """Return stages, each with the name of its kind."""
    head = {True: ", head", False: ""}
    return tuple(
        (
            f"{name}{head[stage.config.model.trainable == 1 and len(stages) > 1]}, "
            f"batch {stage.config.training.batch_size}",
            stage,
        )
        for stage in stages
    )


def _speeds(kinds: dict[str, Stage], device: str, room: Room) -> dict[str, Speed]:
    """Return the speed of each kind on one device."""
    if device == "assumed":
        return {kind: room.speed(stage) for kind, stage in kinds.items()}
    speeds, rates = dict[str, Speed](), dict[str, float]()
    with tempfile.TemporaryDirectory() as store:
        for kind, stage in sorted(kinds.items(), key=lambda item: step_flops(item[1])):
            net = f"{stage.config.model.name} at {stage.config.data.size}"
            if device == "cpu" and 2 * step_flops(stage) > LARGEST and net in rates:
                forward = model_flops(stage).forward / rates[net]
                source = f"derived from {net}, {rates[net] / 1e9:.0f} GFLOP/s here"
                speeds[kind] = Speed(step_flops(stage) / rates[net], forward, source)
                continue
            speeds[kind] = probed(_settled(stage, device), Path(store))
            rates[net] = step_flops(stage) / speeds[kind].image
    return speeds


def _settled(stage: Stage, device: str) -> Stage:
    training = stage.config.training.model_copy(update={"device": device})
    training = settled(training, stage.objective)
    return replace(stage, config=stage.config.model_copy(update={"training": training}))


def _device(name: str) -> torch.device:
    return torch.device("cuda" if name == "cuda" else "cpu")


def _tasks(pieces: Sequence[Piece], speeds: dict[str, Speed]) -> list[Task]:
    tasks = []
    for piece in pieces:
        stages = tuple(stage for _, stage in piece.stages)
        found = tuple(speeds[kind] for kind, _ in piece.stages)
        seconds = piece.passes * found[-1].forward
        tasks.append(Task(piece.name, stages, found, seconds, piece.needs))
    return tasks


def _kinds(
    pieces: Sequence[Piece], speeds: dict[str, Speed], room: Room
) -> dict[str, dict[str, Any]]:
    """Return of each kind: how many, seconds of a step on one device, and of all of them."""
    found: dict[str, dict[str, Any]] = {}
    for piece in pieces:
        for kind, stage in piece.stages:
            speed = speeds[kind]
            row = found.setdefault(
                kind,
                {
                    "count": 0,
                    "gflop": step_flops(stage) / 1e9,
                    "step": room.step(stage, speed, 1),
                    "least": speed.least > stage.batch * speed.image,
                    "seconds": 0.0,
                    "source": speed.source,
                },
            )
            row["count"] += 1
            row["seconds"] += room.seconds(stage, speed)
    return found


def _ways(
    pieces: Sequence[Piece], speeds: dict[str, Speed], room: Room, args: argparse.Namespace
) -> list[dict[str, float]]:
    tasks = _tasks(pieces, speeds)
    return [asdict(way) for gpus in args.gpus for way in ways(tasks, gpus, room)]


def _lines(
    pieces: Sequence[Piece], speeds: dict[str, Speed], room: Room, args: argparse.Namespace
) -> list[str]:
    lines = [
        "| training | how many | GFLOP an image | s a step | all, one device | by |",
        "|---|---|---|---|---|---|",
    ]
    for kind, row in _kinds(pieces, speeds, room).items():
        bound = " (launches)" if row["least"] else ""
        lines.append(
            f"| {kind} | {row['count']} | {row['gflop']:.3g} | {row['step']:.3g}{bound} | "
            f"{hours(row['seconds'])} | {row['source']} |"
        )
    measured = sum(piece.passes * speeds[piece.stages[-1][0]].forward for piece in pieces)
    tasks = _tasks(pieces, speeds)
    found = [ways(tasks, gpus, room) for gpus in args.gpus]
    return [
        *lines,
        f"| what is measured of them | {len(pieces)} | | | {hours(measured)} | passes |",
        "",
        *table_lines(found),
        "",
        *(room.lines() if args.device == "assumed" else room.lines()[1:]),
    ]


def _given(texts: Sequence[str]) -> dict[str, float]:
    found = {}
    for text in texts:
        kind, _, seconds = text.rpartition("=")
        try:
            found[kind] = float(seconds)
        except ValueError:
            raise UserError(f"--step-seconds {text}: write KIND=SECONDS") from None
    return found


if __name__ == "__main__":
    entry(main)
