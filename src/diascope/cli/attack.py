"""`diascope attack`."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diascope.cli.arguments import (
    class_index,
    files_and_settings,
    input_apart,
    listed,
    say_doubts,
)

if TYPE_CHECKING:
    from diascope.attacks import Attack

FRACTION = re.compile(r"\s*([\d.]+)\s*/\s*([\d.]+)\s*")


def attack(
    model: Annotated[
        str,
        typer.Argument(
            help="A run folder, .safetensors file, timm-name:weights, or package.module:factory."
        ),
    ],
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE... [KEY=VALUE]...",
            help="Image files; then settings of the attack, such as restarts=3, and of the input "
            "of a model that was not trained here, such as input.range=0-255",
        ),
    ],
    name: Annotated[str, typer.Option("--attack", metavar="NAME", help="Such as pgd.")] = "pgd",
    norm: Annotated[str | None, typer.Option(help="linf, l2 or l1.")] = None,
    eps: Annotated[
        str | None, typer.Option(help="The size of the ball in pixel units: 0.5 or 8/255.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="The number of steps.")] = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="The true class; else the model's own prediction."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="CLASS", help="The class to be predicted instead.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="For a model whose file does not say: its classes, as its outputs go."),
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="For a model whose file does not say: its image size.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder to write, new or empty.")] = Path("attack"),
    seed: Annotated[int, typer.Option(help="The seed of the attack.", min=0, max=2**62)] = 0,
) -> None:
    """Attack images; write adversarial images, pictures of the perturbations and results.json.

    Images are prepared as the model was trained. adversarial/ holds them at 8 bits, rounded
    towards the originals, exact/ as they were found; both are judged.
    """
    from diascope.audit import open_subjects
    from diascope.audit.attacked import AttackOnFiles
    from diascope.cli.console import progress, say
    from diascope.errors import UserError
    from diascope.hardware import keep_memory

    keep_memory()
    given = {"norm": norm, "eps": eps, "steps": steps}
    files, assignments = files_and_settings(images)
    declared, assignments = input_apart(assignments)
    built = _build(name, given, assignments, targeted=target is not None)
    subjects = open_subjects([model], classes=listed(classes), size=size, input=declared)
    say_doubts(subjects)
    subject = subjects[0]
    true, wanted = class_index(label, subject, "--label"), class_index(target, subject, "--target")
    if true is not None and true == wanted:
        raise UserError(f"--target {target}: is the label; name another class")
    work = AttackOnFiles(subject, built, out, true=true, wanted=wanted, seed=seed)
    with progress() as update:
        rows = work(
            files,
            command=shlex.join(["diascope", *sys.argv[1:]]),
            progress=lambda done, total: update("attacking", done, total),
        )
    for row in rows:
        typer.echo(line(row))
    for words in summary(rows, out):
        say(words)


def line(row: Mapping[str, Any]) -> str:
    """Return what became of an image, on one line."""
    before, after, rounded = row["before"], row["after"], row["after_8_bits"]
    word = "target reached" if row["target"] else "broken"
    if not after["broken"]:
        word = "stands"
    elif before["broken"]:
        word += " without an attack"
    elif not rounded["broken"]:
        word += ", but not at 8 bits"
    seen = " -> ".join(f"{s['prediction']} {s['probability']:.3f}" for s in (before, after))
    return f"{row['image']}: {seen}: {word}; linf {after['linf']:.4g}, l2 {after['l2']:.4g}"


def summary(rows: Sequence[Mapping[str, Any]], out: Path) -> list[str]:
    """Return the closing lines: how many are broken, which are lost at 8 bits, where all is."""
    lost = [r["image"] for r in rows if r["after"]["broken"] and not r["after_8_bits"]["broken"]]
    words = []
    if not rows[0]["label_given"]:
        words.append("labels: the model's own predictions, for want of --label CLASS")
    if lost:
        below = all(r["after"]["linf"] < 1 / 255 for r in rows)
        why = " (no change of under one grey level, 1/255, exists there)" if below else ""
        words.append(f"no longer so at 8 bits{why}: {', '.join(lost)}; exact/ has them as found")
    count = sum(r["after"]["broken"] for r in rows)
    already = sum(r["before"]["broken"] for r in rows)
    known = f", {already} of them without an attack" if already else ""
    words.append(f"{out}: {count} of {len(rows)} images broken{known}; all in results.json")
    return words


def _build(
    name: str, given: Mapping[str, Any], assignments: Sequence[str], targeted: bool
) -> Attack:
    """Return the attack of these settings, those that are not given being its own."""
    import dataclasses

    from diascope.attacks.base import attacks
    from diascope.errors import UserError
    from diascope.settings import override

    content = {key: value for key, value in given.items() if value is not None}
    content = override(content, assignments)
    if "eps" in content:
        content["eps"] = _quotient(content["eps"])
    if targeted:
        fields = {field.name for field in dataclasses.fields(attacks[name])}
        if "targeted" not in fields:
            raise UserError(f"--target: the attack '{name}' takes no target")
        content["targeted"] = True
    elif content.get("targeted"):
        raise UserError("targeted: name the class with --target CLASS")
    if "name" in content:
        raise UserError(f"name={content['name']}: choose the attack with --attack")
    built: Attack = attacks.build({**content, "name": name}, f"attack {name}")
    return built


def _quotient(value: object) -> object:
    """Return 8/255 as a number, and anything else as it is."""
    match = FRACTION.fullmatch(value) if isinstance(value, str) else None
    try:
        return float(match[1]) / float(match[2]) if match else value
    except (ValueError, ZeroDivisionError):
        return value
