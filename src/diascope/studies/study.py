"""A study file: what is trained, what is examined, and what is claimed, at one of its scales."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from diascope.errors import UserError, nearest
from diascope.settings import Settings, override, read_yaml, validate
from diascope.training.config import TrainConfig, read_config
from diascope.training.layers import merge

NAME = r"^[A-Za-z0-9][A-Za-z0-9.+-]*$"
RUN = re.compile(r"\{run:([^{}]+)\}")  # in a run's settings: the folder of another of the same seed


class TestSpec(Settings):
    """The images that models are examined on.

    data: as in `diascope.data.open_data`; None for the data that the run itself was split from.
    part: of the run's own split, or of the data's official one; "all" for data that no run has
    seen. classes: in the order of the models' outputs; None for theirs. images: how many, drawn by
    hashed id in the data's mix; None for all. source: of that hospital or device alone.
    """

    data: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    classes: list[str] | None = None
    part: Literal["train", "val", "test", "all"] = "test"
    images: PositiveInt | None = None
    source: str | None = None


class EvaluationSpec(Settings):
    """What is measured of trained models: `measure`, the settings of an evaluation, by its name.

    on: a test. runs: of these runs; None for all. beside: other models that the evaluation looks
    at, "seeds" for the other seeds of the same run, or runs of the same seed.
    """

    measure: dict[str, Any] | str
    on: str
    runs: list[str] | None = None
    beside: list[str] | Literal["seeds"] = Field(default_factory=list)


class ClaimSpec(Settings):
    """A statement about measured quantities.

    says: in words. test: the settings of a claim, by its name. published: what the paper has, as
    numbers by the name of what they speak of, shown beside ours; where: the place in the paper.
    instead_of: what could not be tested here, where this stands in its place.
    """

    says: str
    test: dict[str, Any]
    published: dict[str, float | str] = Field(default_factory=dict)
    where: str = ""
    instead_of: str = ""


class Untestable(Settings):
    """A claim of the paper that cannot be tested here, and why."""

    says: str
    reason: str
    published: dict[str, float | str] = Field(default_factory=dict)
    where: str = ""


class Study(Settings):
    """A study at one scale.

    source: the paper and the place in it. caveats: what differs from the paper, said in the
    report. seeds: every run is trained with each. runs: training configurations by name, each a
    `base` file and what differs from it, in dotted keys; every_run: what holds for all of them.
    "{data}" in a value is the folder of all data, "{run:NAME}" the folder of that run of the same
    seed. tests, evaluations, claims, figures: by name.
    """

    name: str = Field(pattern=NAME)
    title: str
    source: str = ""
    about: str = ""
    scale: str = "small"
    caveats: list[str] = Field(default_factory=list)
    seeds: list[int] = Field(min_length=1)
    runs: dict[str, dict[str, Any]] = Field(min_length=1)
    every_run: dict[str, Any] = Field(default_factory=dict)
    tests: dict[str, TestSpec] = Field(default_factory=dict)
    evaluations: dict[str, EvaluationSpec] = Field(default_factory=dict)
    claims: dict[str, ClaimSpec] = Field(default_factory=dict)
    untestable: dict[str, Untestable] = Field(default_factory=dict)
    figures: dict[str, dict[str, Any]] = Field(default_factory=dict)

    def config(self, run: str, seed: int, file: Path) -> TrainConfig:
        """Return the resolved configuration of a run; its placeholders are still in it.

        file: the study's, to which the `base` of a run is relative.
        """
        content = merge(_below(self.runs[run], file), self.every_run)
        own = {key: value for key, value in self.runs[run].items() if key != "base"}
        content = merge(content, own)
        content = merge(content, {"training.seed": seed})
        return read_config(content, where=f"{file}: runs.{run}")

    def starts(self, run: str) -> list[str]:
        """Return the runs whose folders a run's settings name."""
        found = dict.fromkeys(
            name for text in strings([self.every_run, self.runs[run]]) for name in RUN.findall(text)
        )
        return list(found)


def read_study(file: Path, scale: str = "small", overrides: Iterable[str] = ()) -> Study:
    """Return the study in a YAML file at one of its `scales`, with overrides applied.

    A file may lie on another one, its `base`, relative to it. What a scale says is laid over the
    rest by the rules of configurations (`diascope.training.layers.merge`). Raises `UserError`, one
    line, for the first mistake, names that lead nowhere among them.
    """
    content = _layers(file)
    scales = content.pop("scales", {})
    if scales and scale not in scales:
        raise UserError(f"{file}: no scale '{scale}': {nearest(scale, scales)}")
    content = merge(content, scales.get(scale) or {})
    content = override(content, overrides)
    study = validate(Study, {"name": file.stem, **content, "scale": scale}, str(file))
    _check_names(study, file)
    return study


def scales_of(file: Path) -> list[str]:
    """Return the scales that a study file has."""
    return list(_layers(file).get("scales", {})) or ["small"]


def strings(value: Any) -> Iterator[str]:
    """Yield every string within plain values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from strings(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from strings(each)


def _layers(file: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    if file.resolve() in above:
        raise UserError(f"{file}: is its own base; change 'base' in {above[-1]}")
    content = read_yaml(file)
    base = content.pop("base", None)
    if base is None:
        return merge({}, content)
    return merge(_layers(file.parent / str(base), (*above, file.resolve())), content)


def _below(run: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Return the configuration that a run's `base` names."""
    from diascope.training.layers import read_layers

    base = run.get("base")
    return {} if base is None else read_layers(file.parent / str(base))


def _check_names(study: Study, file: Path) -> None:
    """Raise `UserError` where one part of a study names another that is not there."""

    def there(name: str, known: Iterable[str], where: str, noun: str) -> None:
        known = list(known)
        if name not in known:
            raise UserError(f"{file}: {where}: no {noun} '{name}': {nearest(name, known)}")

    for run in study.runs:
        for other in study.starts(run):
            there(other, study.runs, f"runs.{run}", "run")
    for name, spec in study.evaluations.items():
        where = f"evaluations.{name}"
        there(spec.on, study.tests, f"{where}.on", "test")
        beside = [] if spec.beside == "seeds" else spec.beside
        for run in [*(spec.runs or []), *beside]:
            there(run, study.runs, where, "run")
