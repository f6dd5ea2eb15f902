"""`diascope data`: list, verify, names, split, phantom."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diascope.cli.cache import cache

app = typer.Typer(
    help="List, verify and split datasets; make the phantom.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command()(cache)

Data = Annotated[str, typer.Argument(metavar="DATA", help="ham10000:/path, a folder, or a table.")]


@app.command("list")
def list_() -> None:
    """List the named datasets."""
    from diascope.data import DATASETS

    for name in DATASETS:
        summary = (DATASETS[name].__doc__ or "").strip().splitlines()[0]
        typer.echo(f"{name:12} {summary}")


@app.command()
def verify(
    data: Data,
    beside: Annotated[
        list[str] | None,
        typer.Option(metavar="DATA", help="Another dataset that should share no image with it."),
    ] = None,
    splits: Annotated[
        Path | None, typer.Option(help="A CSV file path,split to check for leakage.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write the findings with all files they concern.")
    ] = None,
    fail_on: Annotated[
        str | None, typer.Option(help="Exit with 1 on a finding of this severity or above.")
    ] = None,
) -> None:
    """Name every image that cannot be used; find duplicates, leakage, shortcuts, imbalance.

    Exits with 1 where an image cannot be used.
    """
    from diascope.cli.data_checks import checked, lines, reach, write_json

    reach([], fail_on)
    evidence, findings = checked(data, beside or (), splits)
    for line in lines(evidence, findings):
        typer.echo(line)
    if json is not None:
        write_json(json, evidence, findings)
    if evidence.looked.problems or reach(findings, fail_on):
        raise typer.Exit(1)


@app.command()
def table(
    data: Annotated[list[str], typer.Argument(metavar="DATA...", help="As for verify.")],
) -> None:
    """Print one Markdown table of datasets: sizes, classes, sources, splits, findings."""
    from diascope.cli.data_checks import checked, markdown, table_row

    typer.echo(markdown([table_row(*checked(each)) for each in data]))


@app.command()
def names(
    data: Data,
    wanted: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Pseudonyms; else all.")
    ] = None,
) -> None:
    """Show on the screen which files the pseudonyms of a dataset stand for."""
    from diascope.data import open_data
    from diascope.data.hidden import HiddenReader
    from diascope.errors import UserError

    reader = open_data(data).reader
    if not isinstance(reader, HiddenReader):
        raise UserError(f"{data}: its files go by their own names")
    for name in wanted or reader.places:
        if name not in reader.places:
            raise UserError(f"{name}: stands for no file of {data}; is it of another key?")
        typer.echo(f"{name} {reader.places[name]}")


@app.command()
def split(
    data: Data,
    out: Annotated[Path, typer.Option(help="The CSV file to write.")] = Path("split.csv"),
    seed: Annotated[int, typer.Option(help="The seed of the draw.")] = 0,
    fractions: Annotated[
        tuple[float, float, float], typer.Option(help="Shares of train, val and test.")
    ] = (0.7, 0.15, 0.15),
    stratify: Annotated[
        str, typer.Option(help="What stays in proportion: class, or class+source.")
    ] = "class",
    hold_out: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="The hospital that is test, all of it.")
    ] = None,
    spanning: Annotated[
        str,
        typer.Option(help="Groups in that hospital and another: refuse, or leave-out the latter."),
    ] = "refuse",
    per_class: Annotated[
        str | None,
        typer.Option(
            metavar="TRAIN,VAL,TEST", help="So many images a class, such as 800,0,299 (P1)."
        ),
    ] = None,
    train_list: Annotated[
        Path | None, typer.Option(help="An official list, an image a line; so the next two.")
    ] = None,
    val_list: Annotated[Path | None, typer.Option()] = None,
    test_list: Annotated[Path | None, typer.Option()] = None,
    fold: Annotated[
        str | None, typer.Option(metavar="J/K", help="Validate on part J of K of train and val.")
    ] = None,
) -> None:
    """Split by patient or lesion, stratified by class, into a file that training reads.

    Official splits of the data are kept. The options are the keys of data.split in a
    configuration.
    """
    from diascope.cli.arguments import listed
    from diascope.data import open_data
    from diascope.data.splitting import SplitSettings
    from diascope.settings import validate

    lists = {"train": train_list, "val": val_list, "test": test_list}
    content = {
        "seed": seed,
        "fractions": fractions,
        "stratify": stratify,
        "hold_out": hold_out,
        "spanning": spanning,
        "per_class": listed(per_class),
        "lists": {part: file for part, file in lists.items() if file is not None},
        "fold": fold,
    }
    splits = validate(SplitSettings, content, "data split").of(open_data(data))
    splits.save(out)
    parts = dict(zip(("train", "val", "test"), splits, strict=True))
    if splits.left_out is not None:
        parts["left out"] = splits.left_out
    for name, part in parts.items():
        counts = ", ".join(f"{label} {n}" for label, n in part.counts.items())
        typer.echo(f"{name:5} {len(part)} images of {len(set(part.groups))} groups: {counts}")
    typer.echo(f"{out}: written")


@app.command()
def phantom(
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    images: Annotated[int, typer.Option(help="How many.")] = 300,
    size: Annotated[int, typer.Option(help="Pixels a side.")] = 128,
    seed: Annotated[int, typer.Option(help="The seed.")] = 0,
    hospital: Annotated[str, typer.Option(help="a, b or both.")] = "both",
    agreement: Annotated[
        float | None, typer.Option(help="How often the planted shortcut tells the class.")
    ] = None,
) -> None:
    """Write phantom images, their masks and a table."""
    from diascope.data.phantom import write_phantom

    table = write_phantom(
        out, images=images, size=size, seed=seed, hospital=hospital, agreement=agreement
    )
    typer.echo(f"{table}: {images} images of {size}x{size}")
