"""The command `diascope`: verbs, exit codes, and what a mistake looks like."""

from __future__ import annotations

import logging
import sys

import typer

from diascope import __version__
from diascope.cli import attack, audit, data, demo, explain, study, train, view
from diascope.cli.console import say
from diascope.cli.stopping import Termination
from diascope.errors import UserError

app = typer.Typer(
    name="diascope",
    help="Press on a medical image classifier and look through it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"diascope {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("audit")(audit.audit)
app.command("attack")(attack.attack)
app.command("explain")(explain.explain)
app.command("view")(view.view)
app.add_typer(study.app, name="study")
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the command line: exit code 2 and one line for a mistake, 130 for an interrupt.

    Being terminated is an interrupt, with exit code 143.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of a home it cannot write
    with Termination() as ended:
        try:
            app()
        except UserError as error:
            say(f"error: {error}")
            sys.exit(2)
        except KeyboardInterrupt as stopped:
            say(str(stopped) or "interrupted")
            sys.exit(143 if ended.requested else 130)
        except SystemExit as left:
            if left.code == 130:
                say(_interrupt(left) or "interrupted")
                sys.exit(143 if ended.requested else 130)
            raise
        except BrokenPipeError:
            sys.exit(0)
        except OSError as error:
            if error.errno is None:  # of a library, in its own words
                raise
            where = "" if error.filename is None else f"{error.filename}: "
            say(f"error: {where}{error.strerror}")
            sys.exit(2)


def _interrupt(error: BaseException | None) -> str:
    """Return what an interrupt said that typer turned into an exit; empty where it said nothing."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return str(error or "")
