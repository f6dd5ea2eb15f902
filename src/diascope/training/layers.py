"""Configurations on top of one another: `base:` files, stages, and overrides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from diascope.errors import UserError
from diascope.settings import override, read_yaml

STAGED = ("model", "objective", "objective_eps_given", "training")


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` with what `above` says.

    A dotted key (`training.optimizer.lr`) sets one value; so do the keys of a mapping, unless it
    has a `name` among them: such a mapping is complete, and replaces the whole one below it.
    """
    result = dict(below)
    for key, value in above.items():
        first, _, rest = str(key).partition(".")
        if rest:
            value = merge(_mapping(result.get(first)), {rest: value})
        elif isinstance(value, Mapping) and first != "record":
            value = merge({} if "name" in value else _mapping(result.get(first)), value)
        result[first] = value
    return result


def difference(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what `merge` must lay over `below` to give `above`, in dotted keys.

    None where no keys can: one of `below` is missing in `above`, and only a mapping with a `name`
    takes keys away.
    """
    if below.keys() - above.keys():
        return None
    result: dict[str, Any] = {}
    for key, value in above.items():
        old = below.get(key)
        if key in below and old == value:
            continue
        named = isinstance(value, Mapping) and "name" in value
        inner = None
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            same = old.get("name") == value.get("name")
            inner = difference(old, value) if same else None
            if inner is None and not named:
                return None
        if inner is None:
            result[key] = value
        else:
            result.update({f"{key}.{rest}": leaf for rest, leaf in inner.items()})
    return result


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `merge` of two configurations: an epsilon's record goes with its objective."""
    objective = above.get("objective")
    if isinstance(objective, str) or (isinstance(objective, Mapping) and "name" in objective):
        below = {key: value for key, value in below.items() if key != "objective_eps_given"}
    return merge(below, above)


def read_layers(
    file: Path, base: Path | None = None, above: tuple[Path, ...] = ()
) -> dict[str, Any]:
    """Return the configuration in a YAML file, on top of the one that its `base` names.

    `base` in the file is relative to it; the argument takes its place. What a base tells of its
    own run (`record`, `out`) is left behind. Raises `UserError` for a file that is its own base;
    `above` are the files that lie on this one.
    """
    if file.resolve() in above:
        raise UserError(f"{file}: is its own base; change 'base' in {above[-1]}")
    content = read_yaml(file)
    given = content.pop("base", None)
    if given is not None and not isinstance(given, str):
        raise UserError(f"{file}: 'base' = {given!r}: name one YAML file")
    if base is None and given:
        base = file.parent / Path(given).expanduser()
    if base is None:
        return merge({}, content)
    below = read_layers(base, above=(*above, file.resolve()))
    return overlay({k: v for k, v in below.items() if k not in ("record", "out")}, content)


def spell_out(content: Mapping[str, Any], overrides: Iterable[str], where: str) -> dict[str, Any]:
    """Return `content` with the overrides, and with every stage complete.

    An entry of `stages` is laid over the rest of the configuration, then the overrides over both,
    so that they hold in every stage. The last stage becomes the rest of the configuration, and
    its entry is empty.
    """
    overrides = list(overrides)
    content = override(merge({}, content), overrides)
    stages = content.get("stages") or []
    if not isinstance(stages, list) or not all(isinstance(stage, Mapping) for stage in stages):
        raise UserError(f"{where}: 'stages': write a list, each entry with keys and values")
    if not stages:
        return content
    common = {key: content[key] for key in STAGED if key in content}
    again = [text for text in overrides if text.split("=")[0].split(".")[0] in STAGED]
    complete = [override(overlay(common, stage), again) for stage in stages]
    for number, stage in enumerate(complete, 1):
        if strange := stage.keys() - set(STAGED):
            raise UserError(
                f"{where}: stage {number}: '{min(strange)}' is the same in all stages; a stage "
                "may change model, objective and training"
            )
    rest = {key: value for key, value in content.items() if key not in STAGED}
    return {**rest, **complete[-1], "stages": [*complete[:-1], {}]}


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return what stands below as a mapping; a word is short for a name."""
    if isinstance(value, str):
        return {"name": value}
    return value if isinstance(value, Mapping) else {}
