"""The JSON Schema of `results.json`, made from the dataclasses of the audit.

`results-2.json` beside this file is its written form, for those who read results without
Diascope. `python -m diascope.audit.schema` prints it, with `--table` the tables of its fields.
"""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from diascope.audit import parts, results
from diascope.audit.schema.descriptions import FIELDS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
LEFT_OUT = ("cases", "rows")  # these go into the page and the tables, not into the file
UNWRITTEN = ("Case", "View", "Attacked", "Row", "RowView")


class _Nullable(GenerateJsonSchema):
    """Lets every number with a fraction be null, as it is written where it is not finite."""

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return {**super().float_schema(schema), "type": ["number", "null"]}


def types() -> list[type]:
    """Return the dataclasses whose values stand in the file, `Results` first."""
    found: dict[str, type] = {"Results": results.Results}
    for module in (results, parts):
        for name, kind in vars(module).items():
            if not isinstance(kind, type) or kind.__module__ != module.__name__:
                continue
            if hasattr(kind, "__dataclass_fields__"):
                found[name] = kind
    return [found[name] for name in found if name not in UNWRITTEN]


def fields(kind: type) -> list[str]:
    """Return the fields of a dataclass that are written."""
    names = [f.name for f in dataclasses.fields(kind)]
    return [n for n in names if not (kind is results.Results and n in LEFT_OUT)]


def json_schema() -> dict[str, Any]:
    """Return the schema: every field is there, none is unknown, numbers may be null."""
    hints = get_type_hints(results.Results)
    written = dataclasses.make_dataclass(
        "Results", [(name, hints[name]) for name in fields(results.Results)], frozen=True
    )
    found = TypeAdapter(written).json_schema(mode="serialization", schema_generator=_Nullable)
    definitions = found.pop("$defs")
    for name, part in {"Results": found, **definitions}.items():
        _described(name, part)
    found["properties"]["schema"]["const"] = results.SCHEMA
    first = {"$schema": DIALECT, "$id": f"{results.SCHEMA}.json", "title": "Results of an audit"}
    return {**first, **{k: v for k, v in found.items() if k != "title"}, "$defs": definitions}


def _described(name: str, part: dict[str, Any]) -> None:
    known = FIELDS.get(name, {})
    part["description"] = known.get("", "")
    part["additionalProperties"] = False
    part["required"] = list(part["properties"])
    for key, value in part["properties"].items():
        for unneeded in ("title", "default"):
            value.pop(unneeded, None)
        value["description"] = known.get(key, "")


def tables() -> str:
    """Return the fields of every type as tables of Markdown."""
    blocks = []
    for kind in types():
        known = FIELDS.get(kind.__name__, {})
        lines = [
            f"### {kind.__name__}",
            "",
            known.get("", ""),
            "",
            "| field | meaning |",
            "|---|---|",
        ]
        lines += [f"| `{name}` | {known.get(name, '')} |" for name in fields(kind)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)
