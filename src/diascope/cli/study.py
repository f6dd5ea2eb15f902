"""`diascope study`: run studies, see how far they are, and report what they found."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from diascope.studies.engines import Engine
    from diascope.studies.jobs import Job
    from diascope.studies.planning import Plan
    from diascope.studies.run import Done

app = typer.Typer(
    help="Run studies: trainings, examinations, and the claims about them.", no_args_is_help=True
)
_ASSIGNMENT = re.compile(r"[A-Za-z_][\w.+@-]*=.*", re.DOTALL)
STORE = Path("runs/studies")
TIME_OVER = 3  # the exit code where --max-hours left jobs

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
DataAt = Annotated[
    Path | None,
    typer.Option(envvar="DIASCOPE_DATA", help="The folder of all data, {data} in a study."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="The folder for the report; STORE/reports/NAME-SCALE if not given, with a mark of "
        "what differs from the file."
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(help="A run, an evaluation or a claim: do what it needs; may be given again."),
]


@app.command("run")
def run(
    words: Words,
    scale: Scale = "small",
    data: DataAt = None,
    store: StoreAt = STORE,
    out: Out = None,
    engine: Annotated[
        str, typer.Option(help="inprocess or ray; engine.KEY=VALUE for its settings.")
    ] = "inprocess",
    workers: Annotated[
        int | None, typer.Option(help="In how many processes of this machine; 1 if not given.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the plan and what it costs; do nothing but keep what was timed in "
            "STORE/probes.",
        ),
    ] = False,
    only: Only = None,
    max_hours: Annotated[
        float | None,
        typer.Option(
            help="Interrupt what runs after so many hours, to go on from there another time; exit "
            "code 3 where jobs are left."
        ),
    ] = None,
    gpus: Annotated[
        str | None, typer.Option(help="Tell, too, the hours of all jobs on so many GPUs: 1,8,64.")
    ] = None,
) -> None:
    """Train and examine what is missing, decide the claims, write the report.

    The same command goes on where an interrupted one stopped. Exit code 1: a job failed; 3: the
    time was over before all was done.
    """
    from diascope.cli.console import say
    from diascope.errors import UserError
    from diascope.hardware import keep_memory
    from diascope.studies.planning import joined
    from diascope.studies.plans import remember
    from diascope.studies.run import carry_out, expectation

    asked = _asked(words, scale, only, store)
    chosen = _engine(engine, workers, asked.of_engine)
    if max_hours is not None and not max_hours > 0:
        raise UserError(f"--max-hours {max_hours}: give a number of hours above 0")
    if data is not None and not data.is_dir():
        raise UserError(f"--data {data}: there is no such folder")
    counts = _counts(gpus)
    keep_memory()
    plans = asked.plans()
    jobs = joined(plans)
    asked.check_jobs(plans, data, dry_run)
    asked.say_plans(plans)
    expected = expectation(jobs, store, data, say)
    if counts:
        asked.say_gpus(jobs, data, counts)
    if dry_run:
        return
    for plan in plans:
        remember(plan.jobs, store, asked.about, plan.file)
    done = carry_out(plans, store, data, chosen, max_hours=max_hours, expected=expected, say=say)
    try:
        asked.report(plans, out, done)
    except KeyboardInterrupt:
        done.interrupted = True
    if done.interrupted:
        raise KeyboardInterrupt("interrupted; all that was done is kept, the same command goes on")
    failed = sum(outcome.state == "failed" for outcome in done.outcomes.values())
    if failed:
        say(f"{failed} jobs failed; why is in {store / 'errors'}")
        raise typer.Exit(1)
    left = sum(outcome.state == "left" for outcome in done.outcomes.values())
    if left:
        say(f"--max-hours {max_hours:g}: {left} jobs are left; the same command goes on with them")
        raise typer.Exit(TIME_OVER)


@app.command("status")
def status(words: Words, scale: Scale = "small", store: StoreAt = STORE, only: Only = None) -> None:
    """Tell the state of each job, and about how long the rest takes."""
    from diascope.studies.plans import remember, remembered
    from diascope.studies.store import Store
    from diascope.studies.telling import status_lines

    asked = _asked(words, scale, only, store)
    for file in asked.files:
        jobs = remembered(store, asked.about, file)
        if jobs is None:
            jobs = list(asked.plan(file).jobs)
            asked.check_store()
            remember(jobs, store, asked.about, file)
        for line in status_lines(file.stem, scale, jobs, Store(store)):
            typer.echo(line)


@app.command("report")
def report(
    words: Words,
    scale: Scale = "small",
    data: DataAt = None,
    store: StoreAt = STORE,
    out: Out = None,
    figure: Annotated[
        str | None, typer.Option(help="Write this figure of the study alone.")
    ] = None,
) -> None:
    """Decide the claims on what is there, and write the report; nothing is trained.

    With --data it is checked that the images are still those of the finished jobs.
    """
    from diascope.cli.console import say
    from diascope.studies.store import Store
    from diascope.studies.unchanged import check_unchanged

    asked = _asked(words, scale, None, store)
    plans = asked.plans()
    asked.check_store()
    for plan in plans:
        for line in check_unchanged(plan.every, Store(store), data):
            say(line)
    asked.report(plans, out, None, figure)


@dataclass(frozen=True)
class _Asked:
    """What the command line asks for."""

    files: list[Path]
    settings: list[str]
    of_engine: list[str]
    scale: str
    only: list[str]
    store: Path

    @property
    def about(self) -> list[Any]:
        """What a plan depends on beside the files."""
        return [self.scale, self.settings, self.only]

    def plan(self, file: Path) -> Plan:
        """Return the plan of a study file."""
        from diascope.report.study.figures import check_figures
        from diascope.studies.planning import plan_study
        from diascope.studies.study import read_study

        study = read_study(file, self.scale, self.settings)
        check_figures(study, str(file))
        return plan_study(study, file, self.only)

    def plans(self) -> list[Plan]:
        """Return the plan of each study file."""
        return [self.plan(file) for file in self.files]

    def say_plans(self, plans: Sequence[Plan]) -> None:
        """Say what is to be done."""
        from diascope.cli.console import say
        from diascope.studies.planning import joined
        from diascope.studies.stated import undecidable
        from diascope.studies.store import Store
        from diascope.studies.telling import plan_line

        place = Store(self.store)
        for plan in plans:
            say(plan_line(plan.study.name, plan.study.scale, plan.jobs, place))
            for line in undecidable(plan.study):
                say(f"{plan.study.name}, {plan.study.scale}: {line}")
        if len(plans) > 1:
            say(plan_line("together, each once", self.scale, joined(plans), place))

    def say_gpus(self, jobs: Sequence[Job], data: Path | None, counts: Sequence[int]) -> None:
        """Print the table of hours on several numbers of GPUs."""
        from diascope.studies.cost import cost_table

        for line in cost_table(jobs, self.store, data, counts):
            typer.echo(line)

    def check_store(self) -> None:
        """Raise `UserError` where no store is."""
        from diascope.errors import UserError

        if not self.store.is_dir():
            raise UserError(
                f"--store {self.store}: no store is there; run the study first, or name its store"
            )

    def check_jobs(self, plans: Sequence[Plan], data: Path | None, dry_run: bool) -> None:
        """Raise `UserError` where jobs cannot be done, or finished ones are of other images.

        In a dry run it is said what would make jobs fail.
        """
        from diascope.cli.console import say
        from diascope.studies.beforehand import check_jobs, faults
        from diascope.studies.planning import joined
        from diascope.studies.store import Store
        from diascope.studies.unchanged import check_unchanged

        store = Store(self.store)
        if dry_run:
            for line in faults(joined(plans), store, data):
                say(f"would fail: {line}")
        else:
            check_jobs(joined(plans), store, data)
        every = {job.key: job for plan in plans for job in plan.every}
        for line in check_unchanged(list(every.values()), store, data):
            say(line)

    def report(
        self, plans: Sequence[Plan], out: Path | None, done: Done | None, figure: str | None = None
    ) -> None:
        """Write what each study came to."""
        from diascope.cli.console import say
        from diascope.files import write_text
        from diascope.report.study import write_study_figure, write_study_report, write_summary
        from diascope.studies.results import claim_line
        from diascope.studies.run import collect
        from diascope.studies.store import Store

        found = []
        for plan in plans:
            name = f"{plan.study.name}-{plan.study.scale}{self.mark}"
            folder = self.store / "reports" / name if out is None else out
            if out is not None and len(plans) > 1:
                folder = out / name
            results = collect(plan, Store(self.store), done, self._command(plan))
            if figure is not None:
                for file in write_study_figure(results, self.store, folder, figure):
                    say(f"{file}: written")
                continue
            found.append(results)
            for claim in results.claims:
                say(f"{plan.study.name}: {claim_line(claim)}")
            say(f"{write_study_report(results, self.store, folder)}: written")
        if len(found) > 1:
            summary = (out or self.store / "reports") / "summary.md"
            write_text(summary, write_summary(found, self.store))
            say(f"{summary}: written")

    @property
    def mark(self) -> str:
        """What tells the report of a changed study from that of the file: "" without changes."""
        from diascope.studies.jobs import digest

        return f"-{digest(self.settings)[:6]}" if self.settings else ""

    def _command(self, plan: Plan) -> str:
        """Return the command that makes the results of a study anew."""
        from diascope.studies.study import strings

        words = ["diascope", "study", "run", str(plan.file), *self.settings, "--scale", self.scale]
        if any("{data}" in text for job in plan.every for text in strings(job.content)):
            words += ["--data", "DATA"]
        return shlex.join(words if self.store == STORE else [*words, "--store", str(self.store)])


def _asked(words: Sequence[str], scale: str, only: Sequence[str] | None, store: Path) -> _Asked:
    from diascope.errors import UserError

    settings = [w for w in words if _ASSIGNMENT.fullmatch(w) and not Path(w).exists()]
    files = [Path(w) for w in words if w not in settings]
    if not files:
        raise UserError("no study file is given; name one or more, such as studies/p4a.yaml")
    if store.exists() and not store.is_dir():
        raise UserError(f"--store {store}: is a file; name a folder")
    names = [name.strip() for each in only or () for name in each.split(",") if name.strip()]
    of_engine = [text for text in settings if text.startswith("engine.")]
    rest = [text for text in settings if text not in of_engine]
    return _Asked(files, rest, of_engine, scale, names, store)


def _engine(name: str, workers: int | None, settings: Sequence[str]) -> Engine:
    from diascope.settings import override
    from diascope.studies.engines import ENGINES

    given = override({"engine": {"name": name}}, settings)["engine"]
    if workers is not None:
        given["workers"] = workers
    chosen: Engine = ENGINES.build(given, "--engine")
    return chosen


def _counts(gpus: str | None) -> list[int]:
    from diascope.errors import UserError

    counts = [part.strip() for part in (gpus or "").split(",") if part.strip()]
    if any(not count.isdecimal() or int(count) < 1 for count in counts):
        raise UserError(f"--gpus {gpus}: give numbers with commas between, such as 1,8,64")
    return [int(count) for count in counts]
