"""Study files on top of one another: `base` files, scales, and assignments of the command line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from diascope.errors import UserError, nearest
from diascope.settings import load_yaml

CAVEATS = "caveats"
NAMED = ("runs", "tests", "evaluations", "claims", "untestable", "figures")  # entries by name
_WHOLE = {  # what a further entry has, all of it
    "evaluations": ("measure", "on"),
    "claims": ("says", "test"),
    "untestable": ("says", "reason"),
    "figures": ("kind",),
}
_OWN = ("base", "objective", "model", "data", "stages")  # of a further run, one of them


def lay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a study file with that of another laid over it.

    Entries of `runs`, `tests`, ... are laid over those of the same name, and null takes one away.
    The settings of a run, and `every_run`, become dotted keys in the order in which they hold. In
    other entries a mapping is laid over a mapping, unless it has a `name`: such a one is complete.
    `caveats` add up. Names may hold dots. A dotted key of a study, such as
    `every_run.training.epochs`, sets one value.
    """
    result = dict(below)
    for key, value in above.items():
        for first, inner in _spread(str(key), value, result).items():
            result[first] = _section(first, result.get(first), inner)
    return result


def lay_known(
    below: Mapping[str, Any], above: Iterable[Mapping[str, Any]], where: str
) -> dict[str, Any]:
    """Return the content of a study with layers laid over it that change it.

    Raises `UserError`, beginning with `where`, for a name that `below` does not have: it is written
    wrongly, unless the entry is complete, or a run of its own (one with a base, an objective, ...),
    or a test that an evaluation is on.
    """
    result, fresh = dict(below), dict[tuple[str, str], bool]()
    for key, value in ((str(key), value) for layer in above for key, value in layer.items()):
        for section, inner in _spread(key, value, result).items():
            if section in NAMED and isinstance(inner, Mapping):
                known = below.get(section) or {}
                for name, entry in inner.items():
                    if str(name) not in known:
                        partly = entry is None or len(key) > len(f"{section}.{name}")
                        fresh.setdefault((section, str(name)), partly)
        result = lay(result, {key: value})
    for (section, name), partly in fresh.items():
        if not _whole(result, section, name, partly):
            noun = section if section == "untestable" else section.removesuffix("s")
            known = map(str, below.get(section) or {})
            raise UserError(f"{where}: no {noun} '{name}': {nearest(name, known)}")
    return result


def _whole(content: Mapping[str, Any], section: str, name: str, partly: bool) -> bool:
    """Tell whether an entry is meant as a further one; partly: only a key within it was given."""
    entry = content[section].get(name)
    if not isinstance(entry, Mapping):
        return False
    if section == "runs":
        own = any(key.partition(".")[0] in _OWN for key in entry)
        return "base" in entry or (not partly and (own or not entry))
    if section == "tests":
        evaluations = content.get("evaluations")
        of = evaluations.values() if isinstance(evaluations, Mapping) else ()
        return not partly or any(isinstance(e, Mapping) and e.get("on") == name for e in of)
    return all(key in entry for key in _WHOLE[section])


def assigned(
    content: Mapping[str, Any], assignments: Iterable[str], where: str = "overrides"
) -> dict[str, Any]:
    """Return `content` with assignments such as `runs.at-eps4.training.epochs=3` laid over it.

    Raises `UserError` as `lay_known` does.
    """
    above: list[dict[str, Any]] = []
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"'{text}': an override is written key=value, such as seeds=[0,1]")
        try:
            word = value.startswith(("{data}", "{run:"))
            above.append({key: value if word else load_yaml(value)})
        except yaml.YAMLError:
            raise UserError(f"'{text}': the value is not YAML") from None
    return lay_known(content, above, where)


def based(content: Mapping[str, Any], folder: Path, top: Path) -> dict[str, Any]:
    """Return the content of a study file in `folder` with the bases of its runs relative to `top`.

    Where both are the same folder nothing changes.
    """
    if folder.resolve() == top.resolve():
        return dict(content)

    def moved(key: str, value: Any) -> Any:
        section, _, rest = key.partition(".")
        if section not in ("runs", "every_run"):
            return value
        if (rest == "base" or rest.endswith(".base")) and isinstance(value, str):
            return os.path.relpath((folder / value).resolve(), top.resolve())
        if isinstance(value, Mapping) and rest.count(".") < 2:
            return {name: moved(f"{key}.{name}", each) for name, each in value.items()}
        return value

    return {key: moved(str(key), value) for key, value in content.items()}


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the settings of a run in dotted keys; a mapping with a `name` stays whole."""
    result: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value and "name" not in value and key != "record":
            result = _after(result, flat(value, f"{prefix}{key}."))
        else:
            result = _after(result, {f"{prefix}{key}": value})
    return result


def _section(key: str, below: Any, above: Any) -> Any:
    if key == "every_run":
        return _run(below, above)
    if key == CAVEATS and isinstance(below, list) and isinstance(above, list):
        return [*below, *above]
    if key not in NAMED or not isinstance(above, Mapping):
        return above
    entries = dict(below) if isinstance(below, Mapping) else {}
    for name, value in above.items():
        name = str(name)
        if value is None and name in entries:
            del entries[name]
        elif key == "runs":
            entries[name] = _run(entries.get(name), {} if value is None else value)
        else:
            entries[name] = _laid(entries.get(name), _with_on(value))
    return entries


def _with_on(entry: Any) -> Any:
    """Return an entry in which the key `on`, which YAML 1.1 reads as true, is a word again."""
    if not isinstance(entry, Mapping):
        return entry
    return {"on" if key is True else key: value for key, value in entry.items()}


def _run(below: Any, above: Any) -> Any:
    """Return the settings of a run with others laid over them, in the order they are to hold."""
    if not isinstance(above, Mapping):
        return above
    return _after(flat(below) if isinstance(below, Mapping) else {}, flat(above))


def _after(first: Mapping[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    return {**{key: value for key, value in first.items() if key not in then}, **then}


def _laid(below: Any, above: Any) -> Any:
    if not isinstance(above, Mapping):
        return above
    start: dict[str, Any] = {}
    if "name" not in above:
        start = {"name": below} if isinstance(below, str) else dict(below or {})
    return {**start, **{key: _laid(start.get(key), value) for key, value in above.items()}}


def _spread(key: str, value: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return `{key: value}` with the dots of the key made mappings, save those within names."""
    first, _, rest = key.partition(".")
    if not rest:
        return {key: value}
    if first not in NAMED:
        return {first: {rest: value} if first == "every_run" else _nested(rest, value)}
    names = [str(name) for name in known.get(first) or {}]
    fitting = [name for name in names if rest == name or rest.startswith(f"{name}.")]
    name = max(fitting, key=len, default=rest.partition(".")[0])
    rest = rest[len(name) + 1 :]
    if first == "runs" and rest:
        return {first: {name: {rest: value}}}
    return {first: {name: _nested(rest, value) if rest else value}}


def _nested(dotted: str, value: Any) -> Any:
    for part in reversed(dotted.split(".")):
        value = {part: value}
    return value
