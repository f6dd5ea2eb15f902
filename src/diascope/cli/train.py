"""`diascope train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Argument(help="A YAML file; see configs/.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Such as objective.eps=2 training.epochs=5"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder; runs/<name of CONFIG> if not given.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run stopped.")] = False,
) -> None:
    """Train a classifier by any scheme; write a run folder.

    Where CONFIG has stages, KEY=VALUE holds in each; where it has a search, the best values are
    found first, and the run is the refit. base=FILE gives CONFIG another base.
    """
    from diascope.cli.console import say
    from diascope.hardware import keep_memory
    from diascope.training import read_config
    from diascope.training import train as run_training
    from diascope.training.recipe import follows

    keep_memory()
    settings = read_config(config, overrides or [])
    folder = out or settings.out or Path("runs") / config.stem
    run_training(settings, folder, resume=resume)
    if not follows():
        say(f"{folder}: trained; now: diascope audit {folder} --data DATA")
