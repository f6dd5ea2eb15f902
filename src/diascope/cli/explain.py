"""`diascope explain`."""

from __future__ import annotations

import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from diascope.cli.arguments import (
    class_index,
    files_and_settings,
    input_apart,
    listed,
    say_doubts,
)

if TYPE_CHECKING:
    from diascope.explain import Explainer

METHODS = "gradient, integrated_gradients, smoothgrad, occlusion, gradcam, fullgrad, soft_attention"
EVERY = "all"
COLOURS = ("magma", "viridis", "cividis", "blue", "grey")
ARITHMETIC = ("auto", "float32", "bf16")
GROUNDS = ("grey", "image")


def explain(
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
            help="Image files; then settings of the methods, such as steps=20, or "
            "smoothgrad.samples=50 for one of several, and of the input of a model that was not "
            "trained here, such as input.range=0-255",
        ),
    ],
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help=f"One of {METHODS}; may be repeated; 'all' for all that fit the model. "
            "Default: gradient.",
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="A further model, of the same classes; repeatable."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="The class to explain; else each model's prediction."),
    ] = None,
    masks: Annotated[
        list[str] | None,
        typer.Option(
            "--mask",
            metavar="FILE",
            help="The pathology's mask: one for each image, in their order, '' for none.",
        ),
    ] = None,
    measures: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Measure more: 'faithfulness' (many forward passes) or one of its measures.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder to write, new or empty.")] = Path("explain"),
    colours: Annotated[
        str, typer.Option(metavar="NAME", help=f"Of the maps: {', '.join(COLOURS)}.")
    ] = "viridis",
    over: Annotated[
        str, typer.Option(help="What overlays lie on: grey (colours stand out) or image.")
    ] = "grey",
    precision: Annotated[
        str | None, typer.Option(help=f"Arithmetic of the methods: {', '.join(ARITHMETIC)}.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="For a model whose file does not say: its classes, as its outputs go."),
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="For a model whose file does not say: its image size.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of random draws.", min=0, max=2**62)] = 0,
) -> None:
    """Explain what models make of images; write maps, overlays, a grid and results.json.

    Images are prepared as the model was trained. maps/ holds the maps alone, overlays/ over the
    images with the outline of the mask, raw/ the signed attributions, float32; grid.png all of
    them. results.json has every map's sharpness, its completeness where the method promises a
    sum, and with masks where it lies, beside chance and the image's centre.
    """
    from diascope.audit import open_subjects
    from diascope.audit.explained import ExplanationOfFiles, fitting
    from diascope.audit.mapmeasures import MapMeasures
    from diascope.cli.console import progress, say
    from diascope.hardware import keep_memory
    from diascope.report.explained import write_grids

    keep_memory()
    files, assignments = files_and_settings(images)
    declared, assignments = input_apart(assignments)
    _one_of(colours, COLOURS, "--colours")
    _one_of(over, GROUNDS, "--over")
    built = _build(methods or ["gradient"], assignments, precision)
    wanted = MapMeasures.of(measures or [])
    addresses = [model, *(also or [])]
    subjects = open_subjects(addresses, classes=listed(classes), size=size, input=declared)
    say_doubts(subjects)
    if EVERY in (methods or []):
        built, left_out = fitting(built, subjects, files[0])
        for name, why in left_out.items():
            say(f"{name} is left out: {why}")
    ground: Literal["grey", "image"] = "grey" if over == "grey" else "image"
    work = ExplanationOfFiles(
        subjects,
        built,
        out,
        target=class_index(target, subjects[0], "--target"),
        seed=seed,
        colours=colours,
        over=ground,
        measures=wanted,
    )
    with progress() as update, _gathered() as doubts:
        found = work(
            files,
            [mask or None for mask in masks or []],
            command=shlex.join(["diascope", *sys.argv[1:]]),
            progress=lambda done, total: update("explaining", done, total),
        )
    title = f"Maps of {target}" if target else ""
    grids = write_grids(found, out, colours=colours, over=ground, title=title)
    for row in found.rows:
        typer.echo(line(row))
    for words in doubts:
        say(f"warning: {words}")
    maps = len(found.rows) * len(subjects) * len(built)
    say(f"{out}: {maps} maps of {len(found.rows)} images, {grids[0].name} and results.json")


def line(row: Mapping[str, Any]) -> str:
    """Return what the models say of an image, and where its maps lie, on one line."""
    told = []
    for name, seen in row["models"].items():
        alone = len(row["models"]) == 1
        words = "" if alone else f"{name}: "
        words += f"{seen['prediction']} {seen['probability']:.3f}"
        if seen["explained"] != seen["prediction"]:
            words += f" (explained: {seen['explained']})"
        inside = {
            method: of["localisation"]["mass_inside"]
            for method, of in seen["maps"].items()
            if "localisation" in of
        }
        if inside:
            shares = ", ".join(f"{method} {share:.2f}" for method, share in inside.items())
            words += f"; inside the mask: {shares}"
        told.append(words)
    return f"{row['image']}: {'; '.join(told)}"


@contextmanager
def _gathered() -> Iterator[list[str]]:
    """Yield a list that holds, at the end, what was warned of, each once."""
    words: list[str] = []
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", UserWarning)
        yield words
    words += dict.fromkeys(" ".join(str(each.message).split()) for each in found)


def _build(
    names: Sequence[str], assignments: Sequence[str], precision: str | None
) -> dict[str, Explainer]:
    """Return the methods by name, with the settings that are theirs.

    `name.key=value` goes to one method; `key=value` to every chosen one that has the key. Raises
    `UserError` for a key that none has.
    """
    import dataclasses

    from diascope.errors import UserError, nearest
    from diascope.explain import explainers
    from diascope.settings import override

    known = [*explainers.names(), EVERY]
    for name in names:
        if name not in known:
            raise UserError(f"unknown method '{name}': {nearest(name, known)}")
    if precision is not None:
        _one_of(precision, ARITHMETIC, "--precision")
    chosen = explainers.names() if EVERY in names else list(dict.fromkeys(names))
    fields = {name: {f.name for f in dataclasses.fields(explainers[name])} for name in chosen}
    content: dict[str, dict[str, Any]] = {name: {} for name in chosen}
    for name in chosen:
        if precision is not None and "precision" in fields[name]:
            content[name]["precision"] = precision
    for assignment in assignments:
        key = assignment.partition("=")[0]
        method, dot, _ = key.partition(".")
        if dot and method not in chosen:
            hint = nearest(method, chosen)
            raise UserError(f"'{assignment}': no method '{method}' is chosen; {hint}")
        takers = [method] if dot else [name for name in chosen if key in fields[name]]
        if not takers:
            hint = nearest(key, {field for name in chosen for field in fields[name]})
            raise UserError(f"'{assignment}': no chosen method has '{key}': {hint}")
        own = assignment.partition(".")[2] if dot else assignment
        for name in takers:
            content[name] = override(content[name], [own])
    return {
        name: explainers.build({**content[name], "name": name}, f"method {name}") for name in chosen
    }


def _one_of(word: str, known: Sequence[str], option: str) -> None:
    from diascope.errors import UserError, nearest

    if word not in known:
        raise UserError(f"{option} {word}: {nearest(word, known)}")
