"""Results as JSON lines, one a row of the table, and the table in words."""

from __future__ import annotations

import json
import math
import shlex
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from scipy.stats import t as student_t

from diascope import hardware

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "diascope",
    "torch",
    "torchattacks",
    "foolbox",
    "adversarial-robustness-toolbox",
    "captum",
    "grad-cam",
    "quantus",
)


def circumstances(device: torch.device) -> dict[str, Any]:
    """Return when, where, on what and by which command something was measured."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([f"python -m benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "device": device.type,
        "machine": hardware.describe(),
        "versions": {name: version_of(name) for name in PACKAGES},
    }


def version_of(package: str) -> str | None:
    """Return the version of an installed package, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def append(folder: Path, name: str, record: Mapping[str, Any]) -> None:
    """Add one record to `name`.jsonl in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.jsonl").open("a") as lines:
        lines.write(json.dumps(record) + "\n")


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the records of every file in the folder, the oldest first."""
    files = sorted(folder.glob("*.jsonl"))
    records = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return sorted(records, key=lambda record: record.get("date", ""))


def speed_lines(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a table of times: one line a row and peer.

    Times are medians; in brackets stands the interval of `benchmarks.timing.Ratio`.
    """
    head = f"{'row':<4}{'what':<42}{'peer':<14}{'ours, s':>9}{'theirs, s':>11}"
    lines = [f"{head}{'theirs / ours':>22}{'images/s':>18}{'pairs':>7}"]
    for record in records:
        ours = record["spread"]["diascope"]["median"]
        rate = record["images_per_second"]
        for peer, found in record["ratio"].items():
            between = f"{found['median']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
            rates = f"{rate['diascope']:.3g} : {rate[peer]:.3g}"
            theirs = record["spread"][peer]["median"]
            start = f"{record['row']:<4}{record['title']:<42}{peer:<14}"
            lines.append(
                f"{start}{ours:>9.3f}{theirs:>11.3f}{between:>22}{rates:>18}{found['pairs']:>7}"
            )
        if "share" in record:
            found = record["share"]
            between = f"{found['median']:.1%} [{found['low']:.1%}, {found['high']:.1%}]"
            what = f"{record['precision']} conv."
            start = f"{record['row']:<4}{record['title']:<42}{what:<14}"
            lines.append(
                f"{start}{ours:>9.3f}{'':>11}{between:>22}{rate['diascope']:>18.3g}{found['pairs']:>7}"
            )
    return lines


def strength_lines(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a table of robust accuracies: one line an attack, model, eps and peer."""
    lines = [
        f"{'attack':<14}{'model':<14}{'eps':>9}  {'peer':<14}{'images':>7}"
        f"{'ours':>8}{'peer':>8}{'difference':>12}{'alone':>9}{'p':>8}  verdict"
    ]
    for r in records:
        verdict = "no weaker" if r["no_weaker"] else "WEAKER"
        verdict = verdict if r["meaningful"] else "(untrained: no meaning)"
        model = f"{r['model']} {r['size']}"
        alone = f"{r['broken_by_ours_alone']}:{r['broken_by_peer_alone']}"
        lines.append(
            f"{r['attack']:<14}{model:<14}{r['eps']:>9.4g}  {r['peer']:<14}{r['images']:>7}"
            f"{r['accuracy']:>8.2%}{r['peer_accuracy']:>8.2%}{r['points']:>+8.2f} pts"
            f"{alone:>9}{r['p']:>8.2g}  {verdict}"
        )
    return lines


def cost_lines(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a table of what each part of a row costs: a line a part, all at once first.

    Times are medians over the rounds; in brackets stand the quartiles.
    """
    lines = []
    for record in records:
        whole = record["spread"]["diascope"]
        between = f"[{whole['quartile_1']:.3g}, {whole['quartile_3']:.3g}]"
        lines.append(
            f"{record['row']:<4}{record['title']}: {whole['median']:.3g} s {between}, "
            f"{len(record['seconds']['diascope'])} rounds"
        )
        for part, seconds in record["costs"].items():
            lines.append(f"    {part:<40}{statistics.median(seconds):>9.3f} s")
    return lines


def agreement_lines(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a table of how far maps are the same: one line a pair of them.

    `difference` is the largest one of an image's two raw maps, relative to the largest value of
    the second; `rank` the rank correlation of the two heat maps: the median over the images, and
    the least.
    """
    head = f"{'row':<4}{'what':<30}{'beside':<22}{'images':>7}{'difference':>12}"
    lines = [f"{head}{'rank correlation':>22}"]
    for record in records:
        for found in record["agreement"]:
            difference = found.get("difference")
            ranks = found.get("rank")
            far = "" if difference is None else f"{max(difference):.2g}"
            near = "" if ranks is None else f"{statistics.median(ranks):.4f}, {min(ranks):.4f}"
            start = f"{record['row']:<4}{found['what']:<30}{found['beside']:<22}"
            lines.append(f"{start}{found['images']:>7}{far:>12}{near:>22}")
    return lines


def memory_lines(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a line a row that knows the most memory each contender held."""
    return [
        f"{record['row']:<4}{record['title']:<42}peak memory: "
        + ", ".join(f"{name} {held / 2**30:.2f} GiB" for name, held in record["peak_bytes"].items())
        for record in records
        if "peak_bytes" in record
    ]


def accuracy_lines(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a table of accuracies after equal epochs: one line a seed and trainer.

    Below it stands a line an attack and peer: the mean over the seeds of our accuracy less the
    peer's, and its 95% interval by Student's t; one seed has none.
    """
    judges = list(records[0]["accuracies"]["diascope"])
    head = f"{'row':<4}{'what':<42}{'seed':>4}  {'by':<14}{'training, s':>12}"
    lines = [head + "".join(f"{judge:>14}" for judge in judges)]
    for record in records:
        for name, found in record["accuracies"].items():
            start = f"{record['row']:<4}{record['title']:<42}{record['seed']:>4}  {name:<14}"
            values = "".join(f"{found[judge]:>14.1%}" for judge in judges)
            lines.append(f"{start}{record['seconds_training'][name]:>12.1f}{values}")
    for peer in records[0]["accuracies"]:
        if peer != "diascope":
            lines += [_difference(records, peer, judge) for judge in judges]
    return lines


def _difference(records: Sequence[Mapping[str, Any]], peer: str, judge: str) -> str:
    """Return in words how much more accurate ours are than a peer's, over the seeds."""
    found = [record["accuracies"] for record in records]
    points = [100 * (one["diascope"][judge] - one[peer][judge]) for one in found]
    mean, count = statistics.fmean(points), len(points)
    what = f"    {judge}: ours less {peer}: {mean:+.2f} points"
    if count < 2:
        return f"{what}, one seed"
    half = float(student_t.ppf(0.975, count - 1)) * statistics.stdev(points) / math.sqrt(count)
    verdict = "0 within" if abs(mean) <= half else "0 OUTSIDE"
    return f"{what} [{mean - half:+.2f}, {mean + half:+.2f}], {count} seeds: {verdict}"


def run_lines(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a table of whole trainings: one line a configuration."""
    lines = [
        f"{'row':<4}{'what':<42}{'epochs':>7}{'run, s':>9}{'epochs, s':>11}{'data':>8}{'attack':>8}"
        f"{'validation':>12}{'images/s':>10}{'accuracy':>10}{'attacked':>10}"
    ]
    for record in records:
        parts = record["parts"]
        whole = parts["seconds"]
        lines.append(
            f"{record['row']:<4}{record['title']:<42}{record['epochs']:>7}"
            f"{record['seconds_run']:>9.1f}{whole:>11.1f}{record['data_share']:>8.2%}"
            f"{parts['seconds_attack'] / whole:>8.1%}{parts['seconds_validation'] / whole:>12.1%}"
            f"{record['training_images_per_second']:>10.3g}{record['val_accuracy']:>10.1%}"
            f"{record['val_adversarial_accuracy']:>10.1%}"
        )
    return lines


def setting_lines(record: Mapping[str, Any]) -> list[str]:
    """Return what must stand beside every number: machine, threads, versions, date, notes."""
    machine = record["machine"]
    where = ", ".join(machine["gpus"]) if record["device"] == "cuda" else machine["cpu"]
    known = ", ".join(f"{name} {v}" for name, v in record["versions"].items() if v)
    return [
        f"{record['date']} on {where}, {machine['threads']} threads, {record['device']}",
        known,
        *record.get("notes", []),
    ]
