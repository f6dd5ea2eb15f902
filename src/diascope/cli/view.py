"""`diascope view`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer


def view(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="What `diascope audit` takes: run folders, .safetensors files, "
            "timm-name:weights, package.module:factory.",
        ),
    ],
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 for a free one.", min=0, max=65535)] = 0,
    norm: Annotated[str, typer.Option(help="Of the attack offered first: l2 or linf.")] = "l2",
    eps: Annotated[
        str | None, typer.Option(help="Its epsilons in pixel units, such as 0.25,0.5,1.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps of the attack.", min=1, max=200)] = 20,
    explainer: Annotated[str, typer.Option(help="The explanation shown first.")] = "gradient",
    classes: Annotated[
        str | None,
        typer.Option(help="For a model whose file does not say: its classes, as its outputs go."),
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="For a model whose file does not say: its image size.")
    ] = None,
    max_upload: Annotated[
        int, typer.Option(metavar="MB", help="The largest image file.", min=1, max=512)
    ] = 64,
    data: Annotated[
        str | None, typer.Option(help="Browse these images, too; those trained on are left out.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="AUDIT", help="The folder of an audit to link to.")
    ] = None,
    open_page: Annotated[
        bool | None,
        typer.Option("--open/--no-open", help="Open a browser; by default where there is one."),
    ] = None,
    reachable: Annotated[
        bool,
        typer.Option(
            "--i-know-this-is-reachable", help="Allow a --host that other machines reach."
        ),
    ] = False,
) -> None:
    """Look at images live: drop one, see prediction, maps and attack of the models.

    Everything stays in this machine's memory. The address that is printed holds a secret: who
    does not have it is not served. Ctrl-C stops.
    """
    from diascope.cli.arguments import listed
    from diascope.cli.console import say
    from diascope.settings import validate
    from diascope.viewer.serve import serve
    from diascope.viewer.settings import MEGABYTE, ViewSettings

    content = {
        "norm": norm,
        "epsilons": None if eps is None else _numbers(eps),
        "steps": steps,
        "explainer": explainer,
        "classes": listed(classes),
        "size": size,
        "max_upload": max_upload * MEGABYTE,
    }
    serve(
        models,
        validate(ViewSettings, content, "view"),
        host=host,
        port=port,
        data=data,
        report=report,
        reachable=reachable,
        open_page=_has_browser() if open_page is None else open_page,
        say=say,
    )


def _has_browser() -> bool:
    """Tell whether somebody sits before this machine who would see a window."""
    windows = sys.platform in ("darwin", "win32")
    windows = windows or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return sys.stderr.isatty() and windows and "SSH_CONNECTION" not in os.environ


def _numbers(text: str) -> list[float]:
    from diascope.errors import UserError

    def number(part: str) -> float:
        above, _, below = part.partition("/")
        return float(above) / float(below or 1)

    try:
        return [number(part) for part in text.split(",") if part.strip()]
    except (ValueError, ZeroDivisionError):
        raise UserError(
            f"--eps {text}: give numbers with commas between, such as 0.5,1,2"
        ) from None
