"""Jobs on a Ray cluster: many workers, on one machine or several, with or without GPUs."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from diascope.errors import UserError
from diascope.studies.engines import ENGINES
from diascope.studies.engines.inprocess import LATE
from diascope.studies.jobs import Busy, Job, Outcome
from diascope.studies.queueing import Queue

POLL = 0.5  # seconds between two looks at the workers
REST = 2.0  # seconds until a job that another process holds is tried again
GRACE = 60.0  # seconds in which workers save their state when the driver ends before them
_STORE_BYTES = 80 * 2**20  # of Ray's own store, through which nothing large goes
_BOXES = "ray"  # folder of the store by which driver and workers speak

Told = tuple[Literal["done", "busy", "stopped", "blind"], Outcome | str]


@ENGINES.register("ray")
@dataclass(frozen=True)
class Ray:
    """Does each job as a Ray task, as many at a time as the cluster has room for.

    The store and the data are on a file system that all machines share, under the same paths:
    results lie there, and a job whose worker or machine died is begun again elsewhere, and goes on
    from what it saved. address: of a running cluster, such as "auto" or "host:6379"; None for
    $RAY_ADDRESS, else for a cluster of this machine alone, which ends with the study. num_cpus,
    num_gpus: what a job takes, fractions allowed; num_gpus None is 1 where the cluster has GPUs. A
    job computes with num_cpus threads. retries: how often a fault that may pass is tried again;
    lost: how often a job is begun again because its worker died.
    """

    address: str | None = None
    num_cpus: float = 1.0
    num_gpus: float | None = None
    retries: int = 1
    lost: int = 3

    def __post_init__(self) -> None:
        if self.num_cpus < 0 or (self.num_gpus or 0) < 0 or min(self.retries, self.lost) < 0:
            raise ValueError("num_cpus, num_gpus, retries and lost must be at least 0")

    def run(
        self,
        jobs: Sequence[Job],
        store: Path,
        data: Path | None,
        stop: Callable[[], bool],
        say: Callable[[str], None],
    ) -> Iterator[Outcome]:
        """Do the jobs; raises `UserError` where Ray, a cluster or the shared store is not there."""
        with _connected(self.address) as ray, _box(store) as box:
            cluster = _Cluster(ray, self, store.resolve(), data and data.resolve(), box)
            yield from _Driver(cluster, Queue(jobs), stop, say).outcomes()


@dataclass
class _Driver:
    """Gives out the jobs, and takes in what becomes of them."""

    cluster: _Cluster
    queue: Queue
    stop: Callable[[], bool]
    say: Callable[[str], None]
    out: dict[Any, Job] = field(default_factory=dict)  # by the task's reference
    resting: list[tuple[float, Job]] = field(default_factory=list)  # until when
    lost: Counter[str] = field(default_factory=Counter)

    def outcomes(self) -> Iterator[Outcome]:
        """Yield the outcomes as they come."""
        try:
            while self._fill() or self.out or self.resting:
                for reference in self.cluster.finished(self.out):
                    yield from self._take_in(reference)
                self._repeat()
                if self.stopped and (not self.out or self.cluster.box.patience < 0):
                    break
            yield from self.queue.leave(LATE)
        finally:
            self._end()

    @property
    def stopped(self) -> bool:
        """Whether it is time to stop; the workers are told."""
        if self.stop():
            self.cluster.box.tell_to_stop()
        return self.cluster.box.stopping

    def _fill(self) -> bool:
        """Give out as many jobs as there is room for; return whether one was."""
        if self.stopped:
            return False
        before = len(self.out)
        room = max(self.cluster.room(), 1) - before  # one waits where all machines are gone
        while room > 0 and (job := self._next()) is not None:
            self.out[self.cluster.begin(job)] = job
            room -= 1
        return len(self.out) > before

    def _next(self) -> Job | None:
        for place, (until, job) in enumerate(self.resting):
            if until <= time.monotonic():
                del self.resting[place]
                return job
        return self.queue.next()

    def _take_in(self, reference: Any) -> Iterator[Outcome]:
        job = self.out.pop(reference)
        try:
            what, found = self.cluster.result(reference)
        except self.cluster.lost_worker as error:
            yield from self._begin_again(job, error)
            return
        if what == "blind":
            raise UserError(str(found))
        if what == "busy":
            if not any(other.key == job.key for _, other in self.resting):
                self.resting.append((time.monotonic() + REST, job))
        elif isinstance(found, Outcome):
            yield from self.queue.settle(found)

    def _begin_again(self, job: Job, error: Exception) -> Iterator[Outcome]:
        """Have a job done by another worker, unless it has cost too many."""
        self.lost[job.key] += 1
        kind = type(error).__name__
        if self.lost[job.key] > self.cluster.engine.lost:
            reason = f"{self.lost[job.key]} workers died of it, the last by {kind}"
            self.cluster.fail(job, f"{error}\n\n{reason}")
            yield from self.queue.settle(Outcome(job, "failed", 0.0, reason))
            return
        self.say(f"{job.label}: its worker died ({kind}); begun again")
        self.resting.insert(0, (0.0, job))

    def _repeat(self) -> None:
        """Say what the workers say."""
        for line in self.cluster.box.heard():
            self.say(line)

    def _end(self) -> None:
        """Have the workers that are left save their state, and end them if they take too long."""
        if not self.out:
            return
        self.cluster.box.tell_to_stop()
        while self.out and self.cluster.box.patience > 0:
            for reference in self.cluster.finished(self.out):
                del self.out[reference]
        for reference in self.out:
            self.cluster.kill(reference)


@dataclass
class _Cluster:
    """The Ray cluster, as far as an engine needs it."""

    ray: Any
    engine: Ray
    store: Path
    data: Path | None
    box: _Box

    def __post_init__(self) -> None:
        gpus = self.engine.num_gpus
        if gpus is None:
            gpus = 1.0 if self.ray.cluster_resources().get("GPU") else 0.0
        self.gpus = gpus
        self._task = self.ray.remote(
            num_cpus=self.engine.num_cpus,
            num_gpus=gpus,
            max_retries=0,
            scheduling_strategy="SPREAD",
        )(_work)
        self._environment = {k: v for k, v in os.environ.items() if k.startswith("DIASCOPE_")}
        errors = self.ray.exceptions
        self.lost_worker = (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.OutOfMemoryError,
            errors.ObjectLostError,
            errors.LocalRayletDiedError,
            errors.TaskUnschedulableError,
        )
        if not self.room():
            raise UserError(
                f"engine ray: no machine of the cluster has {self.engine.num_cpus:g} CPUs and "
                f"{gpus:g} GPUs for a job; set num_cpus and num_gpus"
            )

    def room(self) -> int:
        """Return how many jobs the machines that are there can do at a time."""
        return sum(self._fits(node["Resources"]) for node in self.ray.nodes() if node["Alive"])

    def _fits(self, there: Mapping[str, float]) -> int:
        wants = {"CPU": self.engine.num_cpus, "GPU": self.gpus}
        return min(int(there.get(k, 0.0) / n + 1e-9) for k, n in wants.items() if n > 0)

    def begin(self, job: Job) -> Any:
        """Give a job to a worker; return the reference to what it will tell."""
        threads = max(1, round(self.engine.num_cpus))
        return self._task.remote(
            job,
            str(self.store),
            None if self.data is None else str(self.data),
            str(self.box.folder),
            self._environment,
            threads,
            self.engine.retries,
            POLL,
        )

    def finished(self, references: Mapping[Any, Job]) -> list[Any]:
        """Wait a moment; return the references of which something is known."""
        if not references:
            time.sleep(POLL)
            return []
        done, _ = self.ray.wait(list(references), num_returns=1, timeout=POLL)
        return list(done)

    def result(self, reference: Any) -> Told:
        """Return what a worker tells; raises one of `lost_worker` where it died."""
        try:
            told: Told = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            return (
                "blind",
                f"engine ray: a worker cannot begin: {' '.join(str(error.cause).split())}",
            )
        return told

    def fail(self, job: Job, text: str) -> None:
        """Keep what became of a job that failed."""
        from diascope.studies.store import Store

        Store(self.store).fail(job, text)

    def kill(self, reference: Any) -> None:
        """End the worker of a task."""
        self.ray.cancel(reference, force=True)


@dataclass
class _Box:
    """A folder of the store in which the driver says "stop", and workers say how far they are."""

    folder: Path
    until: float | None = None  # when the workers that were told to stop are ended
    _heard: dict[str, str] = field(default_factory=dict)

    def tell_to_stop(self) -> None:
        """Tell all workers to stop."""
        if not self.stopping:
            (self.folder / "stop").touch()
            self.until = time.monotonic() + GRACE

    @property
    def stopping(self) -> bool:
        """Whether the workers were told to stop."""
        return self.until is not None

    @property
    def patience(self) -> float:
        """The seconds until workers that do not stop are ended."""
        return GRACE if self.until is None else self.until - time.monotonic()

    def heard(self) -> Iterator[str]:
        """Yield what workers have said since the last look, of each its last line."""
        for file in sorted(self.folder.glob("*.line")):
            line = file.read_text().strip()
            if line and self._heard.get(file.name) != line:
                self._heard[file.name] = line
                yield line


@contextlib.contextmanager
def _box(store: Path) -> Iterator[_Box]:
    folder = store.resolve() / _BOXES / uuid4().hex[:12]
    folder.mkdir(parents=True)
    try:
        yield _Box(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _work(
    job: Job,
    store: str,
    data: str | None,
    box: str,
    environment: Mapping[str, str],
    threads: int,
    retries: int,
    every: float,
) -> Told:
    """Do a job, in a worker; every so many seconds it looks whether it is to stop."""
    folder = Path(box)
    if not folder.is_dir():
        return "blind", (
            f"engine ray: {socket.gethostname()} does not see {store}; put the store on a file "
            "system that all machines of the cluster share, under the same path"
        )
    os.environ.update(environment)
    import torch

    from diascope.studies.execute import attempt

    torch.set_num_threads(threads)
    line, looked, seen = folder / f"{job.key}.line", 0.0, False

    def say(text: str) -> None:
        with contextlib.suppress(OSError):
            line.write_text(text)

    def stop() -> bool:
        nonlocal looked, seen
        if not seen and time.monotonic() - looked > every:
            looked, seen = time.monotonic(), (folder / "stop").exists() or not folder.is_dir()
        return seen

    say(f"{job.label}: begun on {socket.gethostname()}, process {os.getpid()}")
    place = None if data is None else Path(data)
    # Ray begins its processes with SIGINT blocked, by which a training is told to save its state
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        return "done", attempt(job, Path(store), place, say, stop, retries)
    except Busy:
        return "busy", job.label
    except KeyboardInterrupt:  # `Stopped` is one
        return "stopped", job.label
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Give Ray, connected to a cluster; one that was begun here ends here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise UserError("engine ray: Ray is not installed: pip install 'diascope[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    address = address or os.environ.get("RAY_ADDRESS")
    if address is None:
        options |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        options["object_store_memory"] = _STORE_BYTES
    try:
        ray.init(address=address or "local", **options)
    except Exception as error:  # of many kinds, and some of none
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"engine ray: no cluster at {address or 'this machine'}: {reason}"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()
