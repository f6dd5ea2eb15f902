"""Stages that say how often they were run, and a bench to run them on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from tests.audit.squares import Eyes, squares

from diascope.audit import AuditSettings, Subject
from diascope.audit.bench import Bench
from diascope.audit.parts import CorruptionScore
from diascope.audit.plan import Plan, Step
from diascope.audit.stages import Measured, Stage
from diascope.data import load_pixels
from diascope.data.preprocess import Preprocess

NAN = float("nan")
SCORE = CorruptionScore("blur", 3, 60, (0.5, 0.25, float("inf")), (NAN, NAN, NAN))


def make(pixels, model, name="eyes", **settings):
    chosen = AuditSettings(replicates=200, **settings)
    subject = Subject(name, model, None, model.card)
    return Bench(subject, model, pixels, chosen, chosen.build_effort(), torch.device("cpu"))


def cached(folder):
    """Return the pixels of the squares, cached in a folder."""
    return load_pixels(squares(), 16, Preprocess(crop="none", channels=3), cache=folder / "cache")


def with_scratch(pixels, folder):
    """Return a bench of these pixels that keeps its checkpoints in a folder."""
    made = make(pixels, Eyes(1.0))
    made.scratch = folder / "scratch"
    return made


@dataclass
class Counted:
    """A stage that says how often it was run, and does what it is told."""

    kind: object = list[CorruptionScore]
    result: object = field(default_factory=lambda: [SCORE])
    calls: list[int] = field(default_factory=list)
    act: object = None

    def stage(self, **options):
        def measure(bench):
            self.calls.append(bench.batch_size)
            if self.act is not None:
                self.act(bench)
            bench.tell(3)
            return Measured(self.result, {"column": np.arange(len(bench.pixels)) / 3}, 60)

        return Stage(kind=self.kind, passes=lambda bench: 10, measure=measure, **options)


def steps(bench, **stages):
    return Plan([Step(bench, name, stage, 10, 1.0) for name, stage in stages.items()])


def raising(error):
    def act(bench):
        raise error

    return act
