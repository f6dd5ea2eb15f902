"""`diascope audit`."""

from __future__ import annotations

import math
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from diascope.audit import AuditSettings, Results
    from diascope.audit.images import Test
    from diascope.audit.subject import Subject
    from diascope.data import Dataset

Update = Callable[[str, int, int], None]  # of a task: how much is done, of how much

SEVERITIES = ("info", "low", "medium", "high")


def audit(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL... [KEY=VALUE...]",
            help="Run folders, weights as timm-name:file, package.module:factory, TorchScript, "
            "ExportedProgram or ONNX files, package.module:function; and settings, such as "
            "attack.steps=50 effort.masking_images=32 input.range=0-255.",
        ),
    ],
    data: Annotated[
        str, typer.Option(help="A named dataset (ham10000:/path), a folder, or a CSV table.")
    ],
    out: Annotated[Path, typer.Option(help="The folder for the report.")] = Path("audit"),
    budget: Annotated[
        str, typer.Option(help="quick, standard or thorough: minutes, tens of minutes, hours.")
    ] = "standard",
    norm: Annotated[str, typer.Option(help="l2 or linf.")] = "l2",
    eps: Annotated[
        str | None, typer.Option(help="Epsilons in pixel units, such as 0.25,0.5,1 or 2/255.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps of the PGD attack; else as the budget says.")
    ] = None,
    images: Annotated[int | None, typer.Option(help="Audit that many, drawn by lot.")] = None,
    cases: Annotated[
        int | None, typer.Option(help="How many cases to show; else as the budget says.")
    ] = None,
    explainer: Annotated[
        str | None, typer.Option(help="The explanation to show; else as the budget says.")
    ] = None,
    positive: Annotated[
        str | None,
        typer.Option(help="The classes to be detected, for the operating point: mel,bcc."),
    ] = None,
    elsewhere: Annotated[
        list[str] | None, typer.Option(help="Data of another hospital; may be given again.")
    ] = None,
    group_by: Annotated[
        str | None, typer.Option(help="Columns of the table to compare groups by: source,sex.")
    ] = None,
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
    sarif: Annotated[
        Path | None, typer.Option(help="Write the findings to this file in SARIF 2.1.0.")
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(help="Write the findings to this file in JUnit's XML.")
    ] = None,
) -> None:
    """Measure how models break under attack and where they look; write a report.

    Images that a model was trained or validated on are left out, where its run folder says so.
    The same command goes on where an interrupted one stopped.
    """
    _at_home(out)
    from diascope.audit import AuditSettings
    from diascope.cli.arguments import files_and_settings, listed
    from diascope.errors import UserError, nearest
    from diascope.settings import override, validate

    if fail_on is not None and fail_on not in SEVERITIES:
        raise UserError(f"--fail-on {fail_on}: {nearest(fail_on, SEVERITIES)}")
    models, assignments = files_and_settings(words, "model")
    given: dict[str, Any] = {
        "norm": norm,
        "budget": budget,
        "epsilons": _numbers(eps),
        "attack": None if steps is None else {"name": "pgd", "steps": steps},
        "explainer": None if explainer is None else {"name": explainer},
        "images": images,
        "cases": cases,
        "positive": listed(positive) or (),
        "seed": seed,
    }
    if group_by is not None:
        given["attributes"] = listed(group_by)
    content = override({k: v for k, v in given.items() if v is not None}, assignments)
    settings = validate(AuditSettings, content, "audit")
    results = run(
        models,
        data,
        settings,
        out,
        skip_unreadable=skip_unreadable,
        classes=listed(classes),
        size=size,
        elsewhere=elsewhere or (),
        exports={"sarif": sarif, "junit": junit},
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
    elsewhere: Sequence[str] = (),
    exports: Mapping[str, Path | None] | None = None,
    title: str = "",
    command: str = "",
) -> Results:
    """Audit models on the images of `data` they have not seen, and write the report.

    Raises `KeyboardInterrupt` after writing the report of what was finished.
    """
    from diascope.audit import audit as run_audit
    from diascope.audit import open_subjects
    from diascope.audit.attackers import check_names
    from diascope.audit.attributes import check_attributes
    from diascope.audit.positive import positive_classes
    from diascope.cli.console import progress, say
    from diascope.data import open_data
    from diascope.hardware import keep_memory
    from diascope.report import write_report

    keep_memory()
    check_names(settings)
    dataset = open_data(data)
    check_attributes(dataset, settings.attributes)
    subjects = open_subjects(
        models, classes=classes, size=size, input=settings.input, sample=dataset
    )
    positive_classes(subjects[0].card["classes"], settings.positive)
    others = [open_data(other) for other in elsewhere]
    files = {kind: file for kind, file in (exports or {}).items() if file is not None}
    _make(out, files)
    with _kept(out), progress() as show:
        update = _until_ended(show)
        options = {"skip_unreadable": skip_unreadable, "spare": out / "pixels"}
        test = _images(dataset, others, subjects, settings, options, update)
        results = run_audit(
            subjects,
            test,
            settings,
            out,
            title=title,
            command=command or shlex.join(["diascope", *sys.argv[1:]]),
            progress=lambda name, stage, made, all_: update(
                f"{name}: {stage}", math.ceil(made), math.ceil(all_)
            ),
            say=say,
        )
    with _kept(out):
        report = write_report(results, out / "report.html")
        _export(results, files)
    if not results.complete:
        raise KeyboardInterrupt(
            f"interrupted; {report} holds what was finished; the same command goes on from there"
        )
    say(f"{report}: written in {results.seconds:.0f} s, beside results.json and tables/")
    return results


def _until_ended(show: Update) -> Update:
    """Return `show` as what ends the work where an end was requested and work went on."""
    from diascope.cli.stopping import insist

    def update(what: str, made: int, all_: int) -> None:
        insist()
        show(what, made, all_)

    return update


def _images(
    dataset: Dataset,
    others: Sequence[Dataset],
    subjects: Sequence[Subject],
    settings: AuditSettings,
    options: dict[str, Any],
    update: Update,
) -> Test:
    """Return the images to audit, those to choose thresholds on, and those of elsewhere."""
    from diascope.audit import unseen_pixels
    from diascope.audit.elsewhere import elsewhere_pixels, other_sources
    from diascope.audit.validation import validation_pixels
    from diascope.cli.console import say
    from diascope.data.cache import cache_folder

    def told(done: int, total: int) -> None:
        update("reading images", done, total)

    spare = options["spare"]
    options = {**options, "progress": told}
    test = unseen_pixels(dataset, subjects, settings, **options)
    held_out = {s.name: validation_pixels(dataset, [s], settings, **options) for s in subjects}
    away = {**elsewhere_pixels(others, subjects, settings, **options), **other_sources(test)}
    known = {name: pixels for name, pixels in held_out.items() if pixels is not None}
    test = replace(test, validation=known, elsewhere=away)
    if spare.exists():
        say(f"{cache_folder()}: the pixel cache cannot be written; the pixels are in {spare}")
    reasons = ", ".join(f"{n} {reason}" for reason, n in test.left_out.items()) or "none"
    say(f"auditing {len(test.pixels)} images; left out: {reasons}")
    for subject in subjects:
        if subject.split is None:
            say(f"{subject.name}: nothing says what it was trained on; it may know these images")
    return test


def _at_home(out: Path) -> None:
    """Where no temporary folder can be written, have libraries use the output folder."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.tempdir = str(out)


def _make(out: Path, files: Mapping[str, Path]) -> None:
    """Make the folders of all that will be written, before anything is measured."""
    from diascope.errors import UserError

    folders = {"out": out / "tables", **{kind: file.parent for kind, file in files.items()}}
    for option, folder in folders.items():
        named = files.get(option, out)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            reason = error.strerror
            raise UserError(f"--{option} {named}: cannot be written ({reason})") from None
        if option in files and named.is_dir():
            raise UserError(f"--{option} {named}: is a folder; name a file")


@contextmanager
def _kept(out: Path) -> Iterator[None]:
    """Say of an interrupt, or of a full disk, what is not lost by it."""
    from diascope.errors import UserError

    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "interrupted; what was read and measured is kept; the same command goes on from there"
        ) from None
    except OSError as error:
        if error.errno is None:
            raise
        raise UserError(
            f"{error.filename or out}: cannot be written or read ({error.strerror}); once it can, "
            f"run the same command again: what was measured is kept in {out / 'stages'}"
        ) from error


def _export(results: Results, files: Mapping[str, Path]) -> None:
    from diascope.report.exports import write_junit, write_sarif

    for kind, write in (("sarif", write_sarif), ("junit", write_junit)):
        if kind in files:
            write(results, files[kind])


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
