"""`diascope data cache`: the pixel caches, seen and removed."""

from __future__ import annotations

from typing import Annotated

import typer


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove them.")] = False,
    unused: Annotated[
        float, typer.Option(min=0, help="Only those that were not used for so many days.")
    ] = 0,
) -> None:
    """List the caches of decoded pixels; with --clear remove them: they are built again."""
    from diascope.data.cache import cache_folder
    from diascope.data.caches import caches, remove

    found = [one for one in caches() if one.days >= unused]
    freed = 0
    for one in found:
        gone = clear and remove(one)
        freed += one.bytes if gone else 0
        note = "  removed" if gone else "  in use: left" if clear else ""
        typer.echo(f"{one}{note}")
    held = sum(one.bytes for one in found) - freed
    freed_text = f", {freed / 1e6:,.1f} MB freed" if clear else ""
    typer.echo(f"{cache_folder()}: {len(found)} caches, {held / 1e6:,.1f} MB{freed_text}")
