"""How many are missed, and how many alarms false, at a threshold chosen on validation images?

One table: runs by epsilons, sensitivity and specificity with 95% intervals from a bootstrap over
groups, clean and under the audit's attack on the decision (PGD, or Square for a black box).

    python -m benchmarks.operating --run NAME=RUN ... --data DATA [--images N] [--norm linf]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from diascope.audit import AuditSettings, open_subjects, unseen_pixels
from diascope.audit.bench import Bench
from diascope.audit.parts import Bounds, Operating
from diascope.audit.stages import STAGES
from diascope.audit.subject import Subject
from diascope.audit.validation import validation_pixels
from diascope.data import Dataset, open_data


def main(arguments: Sequence[str] | None = None) -> dict[str, Operating]:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--run", action="append", required=True, metavar="NAME=RUN")
    options.add_argument("--data", required=True)
    options.add_argument("--images", type=int, default=None, help="attack at most so many")
    options.add_argument("--norm", default="linf", choices=["linf", "l2"])
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--positive", nargs="*", default=[])
    args = options.parse_args(arguments)
    settings = AuditSettings(
        norm=args.norm,
        positive=tuple(args.positive),
        effort={"operating_images": args.images, "operating_steps": args.steps},
    )
    found = {}
    for name, _, run in (given.partition("=") for given in args.run):
        (subject,) = open_subjects([run])
        found[name] = measured(subject, open_data(args.data), settings)
        print(f"{name}: {found[name].rule}; {found[name].chosen_on}\n\n{table(found[name])}\n")
    return found


def measured(subject: Subject, dataset: Dataset, settings: AuditSettings) -> Operating:
    """Return the operating point of a model on the images of a dataset that it has not seen."""
    with tempfile.TemporaryDirectory() as folder:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        bench = Bench(
            subject=subject,
            model=subject.model.to(device),
            pixels=unseen_pixels(dataset, [subject], settings).pixels,
            settings=settings,
            effort=settings.build_effort(),
            device=device,
            scratch=Path(folder),
            validation=validation_pixels(dataset, [subject], settings),
        )
        result: Operating = STAGES["operating"].measure(bench).result
    return result


def table(found: Operating) -> str:
    """Return the table of one model in Markdown."""
    lines = ["| | sensitivity | specificity | missed | false alarms |", "|---|---|---|---|---|"]
    told = [] if found.validation is None else [("validation", found.validation)]
    told += [(f"eps {p.eps:.4g}" if p.eps else "clean", p) for p in found.points]
    for name, point in told:
        lines.append(
            f"| {name} | {_interval(point.sensitivity)} | {_interval(point.specificity)} | "
            f"{point.missed} of {point.positives} | {point.false_alarms} of {point.negatives} |"
        )
    return "\n".join([f"threshold {found.threshold:.3f}", "", *lines])


def _interval(value: Bounds) -> str:
    return f"{value[0]:.2f} [{value[1]:.2f}, {value[2]:.2f}]"


if __name__ == "__main__":
    main()
