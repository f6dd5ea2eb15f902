"""What a job is known by: its settings, so that what is finished stays known when a field is added.

A field that came later, `registry.added` or `settings.added`, is left out while it has its default,
which means what was done before there was the field. Where what an evaluation or an objective does
with the same settings changes, or a default of its own, its class attribute `revision` is raised
(1 where it has none), and all that was done under the former is done anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel

from diascope.objectives.base import objectives
from diascope.registry import Registry, without_added
from diascope.settings import is_added
from diascope.studies.evaluations import EVALUATIONS
from diascope.training.config import TrainConfig


def measure_identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return `settings` of an evaluation as they are part of a key."""
    return without_added(EVALUATIONS, settings)


def config_identity(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a training's configuration as it is part of a key."""
    result = _of_model(TrainConfig, content)
    for part in (result, *result.get("stages", ())):
        if isinstance(part.get("objective"), Mapping):
            part["objective"] = without_added(objectives, part["objective"])
    return result


def revised(registry: Registry, *settings: Any) -> dict[str, Any]:
    """Return the revisions above 1 of members by name, as a part of a key that is else empty."""
    names = {each["name"] for each in settings if isinstance(each, Mapping) and "name" in each}
    found = {name: getattr(registry[name], "revision", 1) for name in sorted(names)}
    above = {name: revision for name, revision in found.items() if revision > 1}
    return {"revision": above} if above else {}


def _of_model(model: type[BaseModel], content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a model, and of those within it, without what was added to them."""
    result = {}
    for key, value in content.items():
        field = model.model_fields.get(key)
        if field is not None and is_added(field) and value == field.default:
            continue
        kinds = () if field is None else (field.annotation, *get_args(field.annotation))
        for inner in kinds:
            if (
                isinstance(value, Mapping)
                and isinstance(inner, type)
                and issubclass(inner, BaseModel)
            ):
                value = _of_model(inner, value)
        result[key] = dict(value) if isinstance(value, Mapping) else value
    if isinstance(result.get("stages"), list):
        result["stages"] = [dict(stage) for stage in result["stages"]]
    return result
