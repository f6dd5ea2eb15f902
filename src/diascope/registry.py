"""Members of a kind, found by name.

Each kind of thing (attack, objective, explainer, dataset, check) is one folder with one
`Registry`. Its members are frozen dataclasses, one file a member; the files of the folder
are imported when a name is first looked up, so that adding a member is adding a file.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from diascope.errors import UserError, nearest

T = TypeVar("T")
_KINDS: dict[str, Registry] = {}


class Registry:
    """The members of one kind, by name.

    `kind` is the noun in messages; `package` the folder whose modules hold the members.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._members: dict[str, Any] = {}
        self._discovered = False
        _KINDS[kind] = self

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files a member under `name`; a name is taken once."""

        def keep(member: T) -> T:
            taken = self._members.setdefault(name, member)
            if taken is not member:
                raise ValueError(f"two members of {self.package} are called {name!r}")
            return member

        return keep

    def names(self) -> list[str]:
        """Return the sorted names of all members."""
        self._discover()
        return sorted(self._members)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __getitem__(self, name: str) -> Any:
        """Return the member called `name`; a `UserError` names the nearest right one."""
        self._discover()
        if name not in self._members:
            raise UserError(f"unknown {self.kind} '{name}': {nearest(name, self._members)}")
        return self._members[name]

    def name_of(self, member: object) -> str:
        """Return the name under which the class of `member` is filed."""
        self._discover()
        for name, cls in self._members.items():
            if type(member) is cls:
                return name
        raise KeyError(f"{type(member).__name__} is not a registered {self.kind}")

    def build(self, settings: Mapping[str, Any] | str, where: str = "") -> Any:
        """Return the dataclass member that `settings` (`{"name": ..., field: value}`) describes.

        A field whose metadata has `kind` holds a member of that kind and is built likewise.
        Raises `UserError` for an unknown name, an unknown field or a value of a wrong type.
        """
        given, where = where, where or self.kind
        settings = {"name": settings} if isinstance(settings, str) else dict(settings)
        if "name" not in settings:
            raise UserError(f"{where}: 'name' is missing; one of {', '.join(self.names())}")
        name = str(settings.pop("name"))
        if given and name not in self.names():
            raise UserError(f"{given}: unknown {self.kind} '{name}': {nearest(name, self)}")
        cls = self[name]
        return _construct(cls, settings, where)

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")


def _construct(cls: Any, settings: dict[str, Any], where: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in fields:
            raise UserError(f"{where}: unknown key '{key}': {nearest(key, fields)}")
        kind = fields[key].metadata.get("kind")
        if kind and isinstance(value, Mapping | str):
            values[key] = _KINDS[kind].build(value, f"{where}.{key}")
        else:
            values[key] = _checked(hints[key], value, f"{where}.{key}")
    missing = [
        name
        for name, f in fields.items()
        if name not in values
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{where}: '{missing[0]}' is missing")
    try:
        return cls(**values)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def _checked(hint: Any, value: Any, where: str) -> Any:
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
        return adapter.validate_python(value)
    except ValidationError as error:
        raise UserError(f"{where}: {value!r} {error.errors()[0]['msg'].lower()}") from None


def to_settings(member: object) -> dict[str, Any]:
    """Return the plain dictionary from which `Registry.build` makes an equal member."""
    registry = next(r for r in _KINDS.values() if type(member).__module__.startswith(r.package))
    settings: dict[str, Any] = {"name": registry.name_of(member)}
    for field in dataclasses.fields(member):  # type: ignore[arg-type]
        value = getattr(member, field.name)
        if field.metadata.get("kind") and value is not None:
            value = to_settings(value)
        settings[field.name] = list(value) if isinstance(value, tuple) else value
    return settings


def nested(kind: str, **options: Any) -> Any:
    """Return a dataclass field that holds a member of another kind."""
    return dataclasses.field(metadata=types.MappingProxyType({"kind": kind}), **options)


def added(default: Any) -> Any:
    """Return a dataclass field that came later, whose default means what was done before.

    What was done without the field stays known as it was (see `diascope.studies.identity`).
    """
    return dataclasses.field(default=default, metadata=types.MappingProxyType({"added": True}))


def without_added(registry: Registry, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a member without the `added` fields that have their default."""
    result = dict(settings)
    for field in dataclasses.fields(registry[str(settings["name"])]):
        value, kind = result.get(field.name), field.metadata.get("kind")
        if field.name in result and field.metadata.get("added") and value == field.default:
            del result[field.name]
        elif kind and isinstance(value, Mapping) and "name" in value:
            result[field.name] = without_added(_KINDS[kind], value)
    return result
