"""`diascope study`: run studies, see how far they are, and report what they found."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from diascope.studies.planning import Plan
    from diascope.studies.run import Done

app = typer.Typer(
    help="Run studies: trainings, examinations, and the claims about them.", no_args_is_help=True
)
_ASSIGNMENT = re.compile(r"[A-Za-z_][\w.+@-]*=.*", re.DOTALL)

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE... [KEY=VALUE...]",
        help="Study files, see studies/; and what is to differ from them, such as seeds=[0] or "
        "runs.standard.training.epochs=2",
    ),
]
Scale = Annotated[str, typer.Option(help="One of the file's scales, such as small or paper.")]
StoreAt = Annotated[Path, typer.Option("--store", help="The folder of all runs and tables.")]
Out = Annotated[
    Path | None, typer.Option(help="The folder for the report; STORE/reports/NAME-SCALE if not.")
]
Only = Annotated[
    list[str] | None,
    typer.Option(help="A run, an evaluation or a claim: do what it needs; may be given again."),
]
STORE = Path("runs/studies")


@app.command("run")
def run(
    words: Words,
    scale: Scale = "small",
    data: Annotated[
        Path | None,
        typer.Option(envvar="DIASCOPE_DATA", help="The folder of all data, {data} in a study."),
    ] = None,
    store: StoreAt = STORE,
    out: Out = None,
    engine: Annotated[str, typer.Option(help="inprocess or ray.")] = "inprocess",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, do nothing.")] = False,
    only: Only = None,
    max_hours: Annotated[
        float | None, typer.Option(help="Begin nothing after so many hours; what runs is kept.")
    ] = None,
) -> None:
    """Train and examine what is missing, decide the claims, write the report.

    The same command goes on where an interrupted one stopped.
    """
    from diascope.cli.console import say
    from diascope.errors import UserError
    from diascope.studies.engines import ENGINES
    from diascope.studies.run import carry_out, plan_lines
    from diascope.studies.store import Store

    if max_hours is not None and not max_hours > 0:
        raise UserError(f"--max-hours {max_hours}: give a number of hours above 0")
    if data is not None and not data.is_dir():
        raise UserError(f"--data {data}: there is no such folder")
    chosen = ENGINES.build(engine, "--engine")
    plans = _plans(words, scale, only)
    for line in plan_lines(plans, Store(store)):
        say(line)
    if dry_run:
        return
    done = carry_out(plans, store, data, chosen, max_hours=max_hours, say=say)
    _report(plans, store, out, done)
    failed = [o for o in done.outcomes.values() if o.state == "failed"]
    if done.interrupted:
        raise KeyboardInterrupt("interrupted; all that was done is kept, the same command goes on")
    if failed:
        say(f"{len(failed)} jobs failed; why is in {store / 'errors'}")
        raise typer.Exit(1)


def _plans(words: list[str], scale: str, only: list[str] | None) -> list[Plan]:
    """Return the plans of the study files among the words, with the assignments applied."""
    from diascope.errors import UserError
    from diascope.studies.planning import plan_study
    from diascope.studies.study import read_study

    settings = [w for w in words if _ASSIGNMENT.fullmatch(w) and not Path(w).exists()]
    files = [Path(w) for w in words if w not in settings]
    if not files:
        raise UserError("no study file is given; name one or more, such as studies/p4a.yaml")
    names = [name.strip() for each in only or () for name in each.split(",") if name.strip()]
    return [plan_study(read_study(file, scale, settings), file, names) for file in files]


def _report(plans: list[Plan], store: Path, out: Path | None, done: Done | None) -> None:
    """Write what each study came to."""
    import json
    from dataclasses import asdict

    from diascope.cli.console import say
    from diascope.files import write_text
    from diascope.studies.run import collect
    from diascope.studies.store import Store

    for plan in plans:
        name = f"{plan.study.name}-{plan.study.scale}"
        folder = out if out is not None and len(plans) == 1 else (out or store / "reports") / name
        results = collect(plan, Store(store), done)
        write_text(folder / "results.json", json.dumps(asdict(results), indent=1))
        say(f"{folder / 'results.json'}: written")
