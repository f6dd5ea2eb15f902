"""`diascope audit`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diascope.audit import AuditSettings, Results

SEVERITIES = ("info", "low", "medium", "high")


def audit(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Run folders, .safetensors files, timm-name:weights, or package.module:factory.",
        ),
    ],
    data: Annotated[
        str, typer.Option(help="A named dataset (ham10000:/path), a folder, or a CSV table.")
    ],
    out: Annotated[Path, typer.Option(help="The folder for the report.")] = Path("audit"),
    norm: Annotated[str, typer.Option(help="l2 or linf.")] = "l2",
    eps: Annotated[
        str | None, typer.Option(help="Epsilons in pixel units, such as 0.25,0.5,1.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of the PGD attack.")] = 20,
    images: Annotated[int | None, typer.Option(help="Audit that many, drawn by lot.")] = None,
    cases: Annotated[int, typer.Option(help="How many cases to show.")] = 12,
    explainer: Annotated[str, typer.Option(help="The explanation to measure.")] = "gradient",
    classes: Annotated[
        str | None,
        typer.Option(help="For a model whose file does not say: its classes, as its outputs go."),
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="For a model whose file does not say: its image size.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of attack, draw and bootstrap.", min=0)] = 0,
    skip_unreadable: Annotated[
        bool, typer.Option(help="Leave out images that cannot be read, and say how many.")
    ] = False,
    fail_on: Annotated[
        str | None, typer.Option(help="Exit with 1 on a finding of this severity or above.")
    ] = None,
) -> None:
    """Measure how models break under attack and where they look; write a report.

    Images that a model was trained or validated on are left out, where its run folder says so.
    """
    from diascope.audit import AuditSettings
    from diascope.errors import UserError, nearest
    from diascope.settings import validate

    if fail_on is not None and fail_on not in SEVERITIES:
        raise UserError(f"--fail-on {fail_on}: {nearest(fail_on, SEVERITIES)}")
    content = {
        "norm": norm,
        "epsilons": _numbers(eps),
        "attack": {"name": "pgd", "steps": steps},
        "explainer": {"name": explainer},
        "images": images,
        "cases": cases,
        "seed": seed,
    }
    settings = validate(AuditSettings, content, "audit")
    names = [part.strip() for part in classes.split(",")] if classes is not None else None
    results = run(
        models, data, settings, out, skip_unreadable=skip_unreadable, classes=names, size=size
    )
    worst = [f for f in results.findings if _rank(f.severity) >= _rank(fail_on or "high")]
    if fail_on is not None and worst:
        raise typer.Exit(1)


def run(
    models: Sequence[Path | str],
    data: str,
    settings: AuditSettings,
    out: Path,
    *,
    skip_unreadable: bool = False,
    classes: list[str] | None = None,
    size: int | None = None,
    title: str = "",
    command: str = "",
) -> Results:
    """Audit models on the images of `data` they have not seen, and write the report."""
    from diascope.audit import audit as run_audit
    from diascope.audit import open_subjects, unseen_pixels
    from diascope.cli.console import progress, say
    from diascope.data import open_data
    from diascope.errors import UserError
    from diascope.hardware import keep_memory
    from diascope.report import write_report

    keep_memory()
    settings.build_attack(), settings.build_explainer()
    subjects = open_subjects(models, classes=classes, size=size)
    dataset = open_data(data)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "tables").mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror})") from None
    with progress() as update:
        test = unseen_pixels(
            dataset,
            subjects,
            settings,
            skip_unreadable=skip_unreadable,
            progress=lambda done, total: update("reading images", done, total),
        )
        reasons = ", ".join(f"{n} {reason}" for reason, n in test.left_out.items()) or "none"
        say(f"auditing {len(test.pixels)} images; left out: {reasons}")
        for subject in subjects:
            if subject.split is None:
                say(
                    f"{subject.name}: nothing says what it was trained on; it may know these images"
                )
        results = run_audit(
            subjects,
            test,
            settings,
            out,
            title=title,
            command=command or shlex.join(["diascope", *sys.argv[1:]]),
            progress=lambda name, stage, done, total: update(name, done, total),
        )
    report = write_report(results, out / "report.html")
    say(f"{report}: written in {results.seconds:.0f} s, beside results.json and tables/")
    return results


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity)


def _numbers(text: str | None) -> list[float] | None:
    from diascope.errors import UserError

    if text is None:
        return None
    try:
        return [_number(part) for part in text.split(",") if part.strip()]
    except (ValueError, ZeroDivisionError):
        raise UserError(
            f"--eps {text}: give numbers with commas between, such as 0.5,1,2"
        ) from None


def _number(text: str) -> float:
    above, _, below = text.partition("/")
    return float(above) / float(below or 1)
