"""Jobs: the pieces of work of a study, each known by the digest of all that it depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

FORMAT = "diascope-study-1"
Kind = Literal["train", "examine"]


@dataclass(frozen=True)
class Job:
    """One piece of work, whose result is a folder of the store named by its key.

    kind: "train" makes a run of content["config"] (a resolved configuration, "{data}" and
    "{run:KEY}" still in it); "examine" measures the run content["run"] (a key) on content["test"]
    by content["measure"], beside the runs content["beside"] (name -> key). label: for people, and
    no part of the key. needs: keys of jobs that come first. free: settings of a training, in dotted
    keys, on which its result does not depend, such as how often its state is saved; no part of the
    key.
    """

    kind: Kind
    label: str
    content: Mapping[str, Any]
    needs: tuple[str, ...] = ()
    free: Mapping[str, Any] = field(default_factory=dict)
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", digest([FORMAT, self.kind, self.content]))


def digest(content: Any) -> str:
    """Return the digest of plain values, 20 letters; the order of keys does not matter."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


class Stopped(KeyboardInterrupt):
    """The job was interrupted because the time is over; it goes on from there another time.

    No `Exception`, so that nothing that isolates failures takes it for one.
    """


class Busy(Exception):
    """Another process is at work on the job."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job: "done", "there" (it was done before), "failed" or "left"."""

    job: Job
    state: Literal["done", "there", "failed", "left"]
    seconds: float = 0.0
    reason: str = ""
