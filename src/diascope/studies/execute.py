"""Do one job, anywhere: train a run, or examine one."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from diascope import __version__, hardware
from diascope.audit.subject import Subject, open_subjects
from diascope.data import Preprocess
from diascope.errors import UserError, gathered
from diascope.evaluation.predictions import predict_logits, prediction_table
from diascope.explain.chunks import at_most
from diascope.settings import read_yaml, validate, write_yaml
from diascope.studies.evaluations import EVALUATIONS, Evaluation
from diascope.studies.exam import Exam, Measured
from diascope.studies.images import Tested, tested, trained_on
from diascope.studies.jobs import Busy, Job, Outcome, Stopped
from diascope.studies.planning import expanded, started_from
from diascope.studies.store import Store
from diascope.studies.study import TestSpec
from diascope.studies.unchanged import made_with
from diascope.training.config import TrainConfig, read_config
from diascope.training.layers import merge
from diascope.training.progress import Progress, epoch_line
from diascope.training.recipe import train
from diascope.training.record import commit
from diascope.training.run import CONFIG
from diascope.training.state import METRICS

Say = Callable[[str], None]
Stop = Callable[[], bool]
BATCH = 64  # images at a time in an examination, half of it where memory runs out
_EVERY = 30.0  # seconds between two lines of a job's progress


@lru_cache(maxsize=1)
def _commit() -> str | None:
    """Return the commit of the code that runs here."""
    return commit()


def _never() -> bool:
    return False


def _nobody(line: str) -> None:
    pass


def execute(
    job: Job, store: Path, data: Path | None, say: Say = _nobody, stop: Stop = _never
) -> Outcome:
    """Do a job and keep its result in the store; one that is finished is "there".

    What a process that was killed left is gone on from. `say` hears how far it is; when `stop`
    says so, the job is interrupted so that it can be resumed, and raises `Stopped`. Raises `Busy`
    where another process is at work on it, `UserError` for mistakes, and whatever goes wrong else.
    """
    place = Store(store)
    if (there := place.record(job)) is not None:
        return Outcome(job, "there", float(there["seconds"]))
    with place.locked(job.key) as mine:
        if not mine:
            raise Busy(job.label)
        if (there := place.record(job)) is not None:
            return Outcome(job, "there", float(there["seconds"]))
        if stop():
            raise Stopped
        began = time.perf_counter()
        work = _train if job.kind == "train" else _examine
        made = made_with(job, place, data)
        with gathered() as doubts:
            if job.kind == "examine":
                place.keep_scratch(job.key, [made, __version__, _commit(), _run(job, place)])
            found = work(job, place, data, _Speaker(job, say), stop)
        seconds = max(time.perf_counter() - began, found.pop("spent", 0.0))
        place.finish(
            job,
            seconds=round(seconds, 3),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            hardware=hardware.describe(),
            diascope=__version__,
            commit=_commit(),
            doubts=doubts,
            **made,
            **found,
        )
    return Outcome(job, "done", seconds)


def attempt(
    job: Job,
    store: Path,
    data: Path | None,
    say: Say = _nobody,
    stop: Stop = _never,
    retries: int = 1,
) -> Outcome:
    """Do a job; a failure is kept in the store, and told as an outcome that has "failed".

    A fault that may pass is tried again `retries` times; a `UserError` will not pass. Raises
    `Busy`, `Stopped` and `KeyboardInterrupt` as `execute` does.
    """
    began = time.perf_counter()
    for left in range(retries, -1, -1):
        try:
            return execute(job, store, data, say, stop)
        except Busy:
            raise
        except Exception as error:  # whatever a job raises
            reason = _reason(error)
            if left and not isinstance(error, UserError):
                say(f"{job.label}: {reason}; once more")
                continue
            trace = "" if isinstance(error, UserError) else traceback.format_exc()
            Store(store).fail(job, f"{trace}\n{reason}")
            return Outcome(job, "failed", time.perf_counter() - began, reason)
    raise AssertionError("unreachable")


def _reason(error: Exception) -> str:
    told = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return " ".join(told.split())[:400]


class _Speaker:
    """Says of a job how far it is, now and then."""

    def __init__(self, job: Job, say: Say) -> None:
        self.job, self._say, self._said = job, say, time.monotonic()

    def now(self, text: str) -> None:
        """Say a line."""
        self._said = time.monotonic()
        self._say(f"{self.job.label}: {text}")

    def seldom(self, text: str) -> None:
        """Say a line where the last is some time ago."""
        if time.monotonic() - self._said > _EVERY:
            self.now(text)


class _Watched(Progress):
    """Says a line now and then, and interrupts the training when it is to stop."""

    def __init__(self, speaker: _Speaker, stop: Stop) -> None:
        self.speaker, self.stop, self.stopped = speaker, stop, False

    def note(self, text: str) -> None:
        """Say what is rare."""
        self.speaker.seldom(text)

    def load(self, done: int, total: int) -> None:
        """Say how many images are decoded."""
        self.speaker.seldom(f"decoded {done} of {total} images")
        if self.stop():
            raise Stopped

    def step(self, done: int, total: int, where: str, speed: float, left: float) -> None:
        """Say where the epoch stands."""
        self.speaker.seldom(
            f"{where}, step {done}/{total}, {speed:.0f} images/s, {left:.0f} s left"
        )
        self._look()

    def copies(self, done: int, total: int, where: str, speed: float, left: float) -> None:
        """Say how many adversarial copies are made."""
        self.speaker.seldom(f"{where}: {done} of {total}, {left:.0f} s left")
        self._look()

    def epoch(self, row: Mapping[str, float], epochs: int, best: bool, left: float) -> None:
        """Say what an epoch came to."""
        self.speaker.seldom(epoch_line(row, epochs, best, left))

    def _look(self) -> None:
        """Interrupt as Ctrl-C does, which saves the state first; once."""
        if self.stopped or not self.stop():
            return
        self.stopped = True
        if threading.current_thread() is threading.main_thread():
            signal.raise_signal(signal.SIGINT)
        else:
            raise Stopped


def _train(
    job: Job, store: Store, data: Path | None, speaker: _Speaker, stop: Stop
) -> dict[str, Any]:
    trained_on(job.content, store, data)
    folder = store.run(job.key)
    content = merge(job.content["config"], job.free)
    config = read_config(expanded(content, store.folder, data), where=job.label)
    _follow_data(folder, config)
    watched = _Watched(speaker, stop)
    try:
        run = train(config, folder, resume=True, progress=watched)
    except KeyboardInterrupt:
        if watched.stopped:
            raise Stopped from None
        raise
    record = run.config.record or {}
    return {
        "data": {key: record["data"][key] for key in ("name", "fingerprint", "images")},
        "epoch": run.epoch,
        "spent": _spent(folder),
    }


def _follow_data(folder: Path, config: TrainConfig) -> None:
    """Have an unfinished run go on with its data where they lie now; what they are is compared."""
    now = config.to_dict()["data"]
    for file in folder.rglob(CONFIG):
        content = read_yaml(file)
        data = {**content["data"], "name": now["name"], "options": now["options"]}
        if data != content["data"]:
            write_yaml(file, {**content, "data": data})


def _spent(folder: Path) -> float:
    """Return the seconds of all epochs of a run, of those before an interrupt too."""
    return float(sum(pd.read_csv(file).seconds.sum() for file in folder.rglob(METRICS)))


def _examine(
    job: Job, store: Store, data: Path | None, speaker: _Speaker, stop: Stop
) -> dict[str, Any]:
    content = job.content
    trained = store.trained(content["run"])["content"]
    subject = _opened(store, content["run"])
    before = [_opened(store, key) for key in _ancestors(trained, store)]
    test = validate(TestSpec, content["test"], f"{job.label}: test")
    images = tested(test, trained, subject, before, store, data)
    evaluation: Evaluation = EVALUATIONS.build(content["measure"], job.label)
    exam = _exam(job, store, subject, images)
    foreseen = evaluation.passes(len(images.pixels), len(exam.classes), len(exam.beside))
    made = 0.0

    def tell(passes: float) -> None:
        nonlocal made
        made += passes
        speaker.seldom(f"{min(1.0, made / max(foreseen, 1.0)):.0%}")
        if stop():
            raise Stopped

    exam.tell = tell
    logits = predict_logits(exam.model, images.pixels, exam.batch_size, exam.device)
    table = prediction_table(images.pixels.dataset, logits)
    measured = _measured(evaluation, exam, speaker)
    table = _with_columns(table, measured)
    store.keep_table(job, table)
    return {
        "images": len(table),
        "left_out": images.left_out,
        "columns": list(measured.columns),
        "about": measured.about,
        "masking": measured.masking,
        "passes": foreseen,
        "trained_on": subject.card["data"]["fingerprint"],
    }


def _run(job: Job, store: Store) -> list[Any]:
    """Return what tells the trainings of a run that is examined, and of those beside it, apart."""
    keys = [job.content["run"], *job.content["beside"].values()]
    return [store.trained(key).get("finished") for key in keys]


def _exam(job: Job, store: Store, subject: Subject, images: Tested) -> Exam:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    others = {name: _opened(store, key) for name, key in job.content["beside"].items()}
    for name, other in others.items():
        for key in ("classes", "size", "preprocess"):
            if other.card[key] != subject.card[key]:
                raise UserError(
                    f"{job.label}: {name} has another {key} ({other.card[key]}) than the run "
                    f"({subject.card[key]}), so they cannot look at the same images"
                )
    models = {name: other.model.to(device) for name, other in others.items()}
    return Exam(
        model=subject.model.to(device),
        pixels=images.pixels,
        classes=tuple(subject.card["classes"]),
        device=device,
        scratch=store.scratch(job.key),
        beside=models,
        batch_size=BATCH,
        preprocess=Preprocess.model_validate(subject.card["preprocess"]),
    )


def _measured(evaluation: Evaluation, exam: Exam, speaker: _Speaker) -> Measured:
    """Measure; where memory runs out, anew in smaller batches."""
    short: int | None = None
    while True:
        try:
            with at_most(short):
                return evaluation(exam)
        except (RuntimeError, MemoryError) as error:
            if not hardware.out_of_memory(error) or exam.batch_size == 1:
                raise
        exam.batch_size = short = exam.batch_size // 2
        if exam.device.type == "cuda":
            torch.cuda.empty_cache()
        speaker.now(f"out of memory; on with batches of {short}")


def _with_columns(table: pd.DataFrame, measured: Measured) -> pd.DataFrame:
    """Return the table of predictions with the columns of an evaluation beside them."""
    for name, column in measured.columns.items():
        if len(column) != len(table):
            raise ValueError(f"column '{name}' has {len(column)} rows of {len(table)} images")
    fresh = {name: np.asarray(column) for name, column in measured.columns.items()}
    kept = table[[name for name in table if name not in fresh]]
    return pd.concat([kept, pd.DataFrame(fresh, index=table.index)], axis=1)


def _opened(store: Store, key: str) -> Subject:
    store.trained(key)
    return open_subjects([store.run(key)])[0]


def _ancestors(content: Mapping[str, Any], store: Store) -> list[str]:
    """Return the keys of the runs from which a training, and those before it, started."""
    found: list[str] = []
    for key in started_from(content):
        below = _ancestors(store.trained(key)["content"], store)
        found += [each for each in (key, *below) if each not in found]
    return found
