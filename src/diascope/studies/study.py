"""A study file: what is trained, what is examined, and what is claimed, at one of its scales."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from diascope.errors import UserError, nearest
from diascope.settings import Settings, read_yaml, validate
from diascope.studies.layering import assigned, based, lay, lay_known
from diascope.training.config import TrainConfig, read_config
from diascope.training.layers import overlay, read_layers

NAME = r"^[A-Za-z0-9][A-Za-z0-9.+-]*$"
NEXT = "@next"  # behind a run that an evaluation looks at beside: that of the next seed
RUN = re.compile(r"\{run:([^{}]+)\}")  # in a run's settings: the folder of another of the same seed

_PATTERNS = {"runs": re.compile(NAME), "evaluations": re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")}
_LETTERS = {"runs": "letters, digits, '.', '+' and '-'", "evaluations": "letters, digits and '-'"}


class TestSpec(Settings):
    """The images that models are examined on.

    data: as in `diascope.data.open_data`; None for the data that the run itself was split from.
    part: of the run's own split, or of the data's official one; "all" for data that no run has
    seen. classes: in the order of the models' outputs; None for theirs. images: how many, drawn by
    hashed id in the data's mix; None for all. source: of that hospital or device alone.
    skip_unreadable: leave out images that cannot be read, or have no such label, of `data`.
    """

    data: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    classes: list[str] | None = None
    part: Literal["train", "val", "test", "all"] = "test"
    images: PositiveInt | None = None
    source: str | None = None
    skip_unreadable: bool = False


class EvaluationSpec(Settings):
    """What is measured of trained models: `measure`, the settings of an evaluation, by its name.

    on: a test. runs: of these runs; None for all. beside: other models that the evaluation looks
    at, "seeds" for the other seeds of the same run, or runs of the same seed, "RUN@next" of the
    seed after it (of the first after the last).
    """

    measure: dict[str, Any] | str
    on: str
    runs: list[str] | None = None
    beside: list[str] | Literal["seeds"] = Field(default_factory=list)


class ClaimSpec(Settings):
    """A statement about measured quantities.

    says: in words. test: the settings of a claim, by its name. above: what it presupposes,
    quantities and the level, a number or a quantity, that each must lie above. published: what the
    paper has, as numbers by the name of what they speak of, shown beside ours; where: the place in
    the paper. instead_of: what could not be tested here, where this stands in its place.
    """

    says: str
    test: dict[str, Any]
    above: dict[str, Any] = Field(default_factory=dict)
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
        settings = {**self.every_run, **self.runs[run]}
        base = settings.get("base")
        if base is not None and not isinstance(base, str):
            raise UserError(f"{file}: runs.{run}: 'base' = {base!r}: name one YAML file")
        content = {} if base is None else read_layers(file.parent / base)
        for above in (self.every_run, self.runs[run], {"training.seed": seed}):
            content = overlay(content, {k: v for k, v in above.items() if k != "base"})
        content = {k: v for k, v in content.items() if k not in ("record", "out")}
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
    rest, and the overrides over both, by the rules of `layering.lay`. `keep` lists the runs that
    the study has of those in the file and its base; without it all. Raises `UserError`, one line,
    for the first mistake, names that lead nowhere among them.
    """
    if file.name.startswith("_"):
        raise UserError(f"{file}: is a base for studies, by its name; run a study that lies on it")
    content, scales = _layers(file)
    if scale not in (known := list(scales) or ["small"]):
        raise UserError(f"{file}: no scale '{scale}': {nearest(scale, known)}")
    content = lay_known(content, scales.get(scale, []), f"{file}: scales.{scale}")
    content = _kept(assigned(content, overrides, str(file)), file)
    study = validate(Study, {"name": file.stem, **content, "scale": scale}, str(file))
    _check_names(study, file)
    return study


def _kept(content: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Return the content of a study with the runs alone that its `keep` lists."""
    runs, keep = content.get("runs"), content.get("keep")
    result = {key: value for key, value in content.items() if key != "keep"}
    if keep is None or not isinstance(runs, Mapping):
        return result
    if not isinstance(keep, list):
        raise UserError(f"{file}: 'keep' = {keep!r}: write a list of runs")
    for name in map(str, keep):
        if name not in runs:
            raise UserError(f"{file}: keep: no run '{name}': {nearest(name, runs)}")
    return {**result, "runs": {name: runs[name] for name in runs if name in map(str, keep)}}


def scales_of(file: Path) -> list[str]:
    """Return the scales that a study file has."""
    return list(_layers(file)[1]) or ["small"]


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


def _layers(
    file: Path, above: tuple[Path, ...] = (), top: Path | None = None
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Return the content of a study file on top of its `base`, and the layers of each scale.

    top: the file that lies on all others; the bases of runs become relative to it.
    """
    if file.resolve() in above:
        raise UserError(f"{file}: is its own base; change 'base' in {above[-1]}")
    content = read_yaml(file)
    base, scales = content.pop("base", None), content.pop("scales", None) or {}
    if base is not None and not isinstance(base, str):
        raise UserError(f"{file}: 'base' = {base!r}: name one study file")
    if not isinstance(scales, Mapping):
        raise UserError(f"{file}: 'scales' = {scales!r}: write keys and values under each scale")
    top = top or file
    below: dict[str, Any] = {}
    layers: dict[str, list[dict[str, Any]]] = {}
    if base is not None:
        below, layers = _layers(file.parent / base, (*above, file.resolve()), top)
    for name, layer in scales.items():
        if not isinstance(layer or {}, Mapping):
            raise UserError(f"{file}: 'scales.{name}' = {layer!r}: write keys and values")
        moved = based(layer or {}, file.parent, top.parent)
        layers[str(name)] = [*layers.get(str(name), []), moved]
    return lay(below, based(content, file.parent, top.parent)), layers


def _check_names(study: Study, file: Path) -> None:
    """Raise `UserError` where one part of a study names another that is not there."""

    def there(name: str, known: Iterable[str], where: str, noun: str) -> None:
        known = list(known)
        if name not in known:
            raise UserError(f"{file}: {where}: no {noun} '{name}': {nearest(name, known)}")

    for section, pattern in _PATTERNS.items():
        for name in getattr(study, section):
            if not pattern.fullmatch(name):
                raise UserError(f"{file}: {section}: '{name}': a name is of {_LETTERS[section]}")
    if len(set(study.seeds)) < len(study.seeds):
        raise UserError(f"{file}: seeds {study.seeds}: give each seed once")
    for run in study.runs:
        for other in study.starts(run):
            there(other, study.runs, f"runs.{run}", "run")
    for name, test in study.tests.items():
        if test.data is None and test.part == "all":
            raise UserError(
                f"{file}: tests.{name}: part 'all' is for data that no run has seen; give 'data', "
                "or the part 'test'"
            )
    for name, spec in study.evaluations.items():
        where = f"evaluations.{name}"
        there(spec.on, study.tests, f"{where}.on", "test")
        beside = [] if spec.beside == "seeds" else spec.beside
        for run in [*(spec.runs or []), *(name.removesuffix(NEXT) for name in beside)]:
            there(run, study.runs, where, "run")
        if len(study.seeds) < 2 and any(name.endswith(NEXT) for name in beside):
            raise UserError(f"{file}: {where}.beside: '{NEXT}' needs two seeds at least")
