"""Settings: strict pydantic models, YAML files, and dotted overrides from the command line."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from diascope.errors import UserError, nearest


class Settings(BaseModel):
    """The base of every configuration model: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Settings)


class _Loader(yaml.SafeLoader):
    """Reads YAML as `yaml.safe_load` does, and takes no key of a mapping twice."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set[tuple[str, str]]()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            if name in seen:
                what = f"the key '{key.value}' stands twice"
                raise yaml.composer.ComposerError(None, None, what, key.start_mark)
            seen.add(name)
        return node


def load_yaml(text: str) -> Any:
    """Return the content of YAML; raises `yaml.YAMLError`, for a key that stands twice too."""
    return yaml.load(text, _Loader)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; a `UserError` says where it cannot be read."""
    try:
        content = load_yaml(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys and values, found {type(content).__name__}")
    return content


def added(default: Any) -> Any:
    """Return a field of `Settings` that came later, whose default means what was done before.

    What was done without the field stays known as it was (see `diascope.studies.identity`).
    """
    return Field(default=default, json_schema_extra={"added": True})


def is_added(field: FieldInfo) -> bool:
    """Tell whether a field is an `added` one."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("added"))


def override(content: dict[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """Return `content` with assignments such as `objective.eps=2` applied; values are YAML."""
    result = _copied(content)
    for assignment in assignments:
        dotted, equals, text = assignment.partition("=")
        if not equals or not dotted:
            raise UserError(f"'{assignment}': an override is written key=value, such as epochs=5")
        *parents, leaf = dotted.split(".")
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise UserError(f"'{assignment}': '{parent}' is a value and has no keys under it")
        try:
            place[leaf] = load_yaml(text)
        except yaml.YAMLError:
            raise UserError(f"'{assignment}': the value is not YAML") from None
    return result


def validate(model: type[S], content: Mapping[str, Any], where: str) -> S:
    """Return `content` as a `model`; the first mistake becomes a one-line `UserError`.

    An unknown key comes before all others: what is missing may only be written wrongly.
    """
    try:
        return model.model_validate(dict(content))
    except ValidationError as error:
        raise UserError(_one_line(model, error, where)) from None


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as YAML in the order of its keys."""
    path.write_text(yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True))


def _one_line(model: type[Settings], error: ValidationError, where: str) -> str:
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    path = [str(part) for part in first["loc"]]
    dotted = ".".join(path)
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key '{dotted}': {nearest(path[-1], _keys_at(model, path[:-1]))}"
    if first["type"] == "missing":
        return f"{where}: '{dotted}' is missing"
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: '{dotted}' = {first.get('input')!r}: {message[:1].lower()}{message[1:]}"


def _keys_at(model: Any, path: list[str]) -> list[str]:
    for part in path:
        if hasattr(model, "model_fields"):
            model = model.model_fields[part].annotation if part in model.model_fields else model
        elif args := typing.get_args(model):  # a mapping: whatever the key, the value's keys
            model = args[-1]
        if isinstance(model, types.UnionType) or typing.get_origin(model) is typing.Union:
            options = [a for a in typing.get_args(model) if hasattr(a, "model_fields")]
            model = options[0] if options else model
    return list(model.model_fields)


def _copied(content: dict[str, Any]) -> dict[str, Any]:
    return {k: _copied(v) if isinstance(v, dict) else v for k, v in content.items()}
