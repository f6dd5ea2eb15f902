"""A bench for one stage: pictures in memory, a net, and the predictions that come first."""

from __future__ import annotations

import numpy as np
import torch

from diascope.audit.bench import Bench
from diascope.audit.results import ModelResult, Results
from diascope.audit.settings import AuditSettings
from diascope.audit.subject import Subject
from diascope.data import Dataset, Pixels
from diascope.evaluation import predict


class Nothing:
    """A reader that is never asked."""

    def image(self, path):
        raise AssertionError(path)

    mask = image

    def stamp(self, path):
        return path


def pixels_of(images, labels, classes, name="pictures", **columns):
    """Return pixels of images (N, H, W, C) uint8 with labels (N,), a group each by default."""
    count = len(images)
    columns = {"group": [f"g{i}" for i in range(count)], **columns}
    columns = {
        "path": [f"{i}.png" for i in range(count)],
        "label": [classes[k] for k in labels],
        **columns,
    }
    dataset = Dataset.of(name, columns, classes, Nothing())
    return Pixels(dataset, np.asarray(images), None, np.zeros(count, dtype=bool))


def subject_of(net, pixels, name="net"):
    card = {
        "classes": list(pixels.dataset.classes),
        "size": pixels.size,
        "preprocess": {"crop": "none", "channels": pixels.channels},
    }
    return Subject(name, net, None, card)


def bench_of(net, pixels, elsewhere=None, minimal=None, **settings):
    """Return a bench on which the predictions were made, and the minimal epsilons if given."""
    chosen = AuditSettings(**{"norm": "linf", "replicates": 300, **settings})
    bench = Bench(
        subject=subject_of(net, pixels),
        model=net.eval(),
        pixels=pixels,
        settings=chosen,
        effort=chosen.build_effort(),
        device=torch.device("cpu"),
        elsewhere=elsewhere or {},
    )
    bench.table = predict(net, pixels)
    bench.table["group"] = bench.groups
    if minimal is not None:
        bench.table["minimal_epsilon"] = minimal
    return bench


def told(bench, stage):
    """Return what a stage measures, and check that it told of the passes that it foresaw."""
    made = []
    bench.tell = made.append
    foreseen = stage.passes(bench)
    measured = stage.measure(bench)
    assert 0 < sum(made) <= foreseen * (1 + 1e-9)
    return measured


def results_of(bench, **parts):
    """Return the results of one model of which only some parts were measured."""
    share = bench.table.correct.mean()
    model = ModelResult(
        name="net",
        architecture="net",
        parameters=1,
        objective={},
        scores={"accuracy": (share, share, share)},
        recall={},
        curve=parts.pop("curve", []),
        median_epsilon=float("nan"),
        localisation={},
        localisation_correct={},
        **parts,
    )
    classes = list(bench.pixels.dataset.classes)
    return Results(
        title="t",
        version="0",
        created="",
        command="",
        seed=0,
        hardware={},
        seconds=0.0,
        data={"classes": classes, "chance": 1 / len(classes), "majority": 0.5, "size": 16},
        norm=bench.settings.norm,
        attack={},
        explainer={},
        epsilons=list(bench.epsilons),
        models=[model],
        comparisons=[],
        findings=[],
        tables={},
        cases_rule="",
        reference_eps=bench.reference,
    )
