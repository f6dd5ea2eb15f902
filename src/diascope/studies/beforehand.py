"""What would make jobs fail, as far as it can be seen before the first of them begins."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diascope.errors import UserError
from diascope.settings import validate
from diascope.studies.costs.probe import blank_model
from diascope.studies.costs.stages import stages_of
from diascope.studies.images import candidates, opened
from diascope.studies.jobs import Job
from diascope.studies.planning import expanded
from diascope.studies.store import Store
from diascope.studies.study import TestSpec
from diascope.training.config import read_config


def check_jobs(jobs: Sequence[Job], store: Store, data: Path | None) -> None:
    """Raise `UserError` for the first job that is to be done and cannot be: see `faults`."""
    for fault in faults(jobs, store, data):
        raise UserError(fault)


def faults(jobs: Sequence[Job], store: Store, data: Path | None) -> Iterator[str]:
    """Yield why jobs that are to be done would fail, each reason once, with the first job.

    Seen are data that are not here, splits, models, files of weights, and tests whose images or
    classes do not fit; pixels are not read.
    """
    look, told = _Look(store, data), set[str]()
    configs = {job.key: job.content for job in jobs if job.kind == "train"}
    for job in jobs:
        if store.record(job) is not None:
            continue
        try:
            if job.kind == "train":
                look.training(job.content)
            else:
                run = job.content["run"]
                look.test(job.content, configs.get(run) or store.trained(run)["content"])
        except UserError as error:
            if str(error) not in told:
                told.add(str(error))
                yield f"{job.label}: {error}"


class _Look:
    """Looks at what jobs name, at each thing once."""

    def __init__(self, store: Store, data: Path | None) -> None:
        self.store, self.data = store, data
        self._classes: dict[str, tuple[str, ...]] = {}
        self._models = set[str]()

    def training(self, content: Mapping[str, Any]) -> None:
        """Raise `UserError` where a training cannot begin."""
        classes = self.classes(content)
        given = expanded(content["config"], self.store.folder, self.data)
        config = read_config(given, where="configuration")
        weights = config.model.weights
        started = "{run:" in str(content["config"]["model"]["weights"])
        if weights is not None and not started and not weights.expanduser().exists():
            raise UserError(f"model.weights: {weights}: there is no such file")
        for stage in stages_of(config, 2, 2, len(classes)):
            model = stage.config.model.model_dump(mode="json", exclude={"weights"})
            key = json.dumps([model, len(classes), config.data.channels], sort_keys=True)
            if key not in self._models:
                blank_model(stage)
                self._models.add(key)

    def test(self, content: Mapping[str, Any], trained: Mapping[str, Any]) -> None:
        """Raise `UserError` where a run cannot be examined on a test."""
        test = validate(TestSpec, content["test"], "test")
        candidates(test, trained, self.classes(trained), self.store, self.data)

    def classes(self, content: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the classes of a training's data, whose split is tried."""
        key = json.dumps(content["config"]["data"], sort_keys=True)
        if key not in self._classes:
            given = expanded(content["config"], self.store.folder, self.data)
            config = read_config(given, where="configuration").data
            dataset = opened(config.name, config.classes, config.options)
            config.split.of(dataset)
            self._classes[key] = dataset.classes
        return self._classes[key]
