"""JSON Schema: the part of it that specs and the director's steps use, with the first fault in one line.

`object_schema` writes the schema of a frozen dataclass from its fields, so what is sent to a language model
and what is checked afterwards cannot differ from what the classes hold.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from orbit4d.compose.strict_json import printable

Schema = Mapping[str, Any]
NULL: Schema = {"type": "null"}
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def form(schema: Schema) -> dict[str, Schema]:
    """Metadata of a dataclass field whose JSON form is `schema`."""
    return {"schema": schema}


def text(most: int = 200, least: int = 1) -> Schema:
    """A string of `least` to `most` characters."""
    return {"type": "string", **({"minLength": least} if least else {}), "maxLength": most}


def positive(most: float) -> Schema:
    """A number above 0, at most `most`."""
    return {"type": "number", "exclusiveMinimum": 0, "maximum": most}


def optional(schema: Schema) -> Schema:
    """`schema` or null."""
    return {"anyOf": [schema, NULL]}


def list_of(items: Schema, most: int | None = None, least: int | None = None) -> Schema:
    """An array of `items` with `least` to `most` of them."""
    bounds = {"minItems": least, "maxItems": most}
    return {"type": "array", **{key: n for key, n in bounds.items() if n is not None}, "items": items}


def closed_object(properties: Mapping[str, Schema]) -> dict[str, Any]:
    """An object with exactly these keys, every one required."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": dict(properties),
    }


def object_schema(of: type) -> dict[str, Any]:
    """Schema of a dataclass whose fields were given a `form`."""
    return closed_object({field.name: field.metadata["schema"] for field in dataclasses.fields(of)})


def first_fault(value: Any, schema: Schema, root: Schema | None = None, where: str = "") -> str | None:
    """The first way in which `value` breaks `schema`, as `actors[0].count: 0 is below 1`; None where none.

    Knows `type`, `enum`, `const`, `anyOf`, `$ref` into `$defs` of `root`, and the bounds of numbers, strings,
    arrays and objects that this module writes.
    """
    root = schema if root is None else root
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return first_fault(value, root["$defs"][name], root, where)
    here = where or "the reply"
    if "anyOf" in schema:
        return _fault_of_any(value, schema["anyOf"], root, where)
    if "const" in schema and not _same(value, schema["const"]):
        return f"{here}: {_shown(value)} is not {_shown(schema['const'])}"
    if "enum" in schema and not any(_same(value, member) for member in schema["enum"]):
        return f"{here}: {_shown(value)} is none of {', '.join(_shown(m) for m in schema['enum'])}"
    kind = schema.get("type")
    if kind is not None and not _is(value, kind):
        return f"{here}: {_shown(value)} is no {kind}"
    if isinstance(value, str):
        return _fault_of_length(len(value), schema, here, "Length", "characters")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _fault_of_number(value, schema, here)
    if isinstance(value, list):
        fault = _fault_of_length(len(value), schema, here, "Items", "entries")
        items = schema.get("items", {})
        faults = (first_fault(item, items, root, f"{where}[{i}]") for i, item in enumerate(value))
        return fault or next((found for found in faults if found), None)
    if isinstance(value, dict):
        return _fault_of_object(value, schema, root, where)
    return None


def _fault_of_object(value: dict[str, Any], schema: Schema, root: Schema, where: str) -> str | None:
    here, properties = where or "the reply", schema.get("properties", {})
    for key in schema.get("required", ()):
        if key not in value:
            return f"{here}: lacks {key!r}"
    for key, member in value.items():
        if key in properties:
            inner = f"{where}.{key}" if where else key
            if fault := first_fault(member, properties[key], root, inner):
                return fault
        elif schema.get("additionalProperties", True) is False:
            return f"{here}: {_shown(key)} is no key of it; it has {', '.join(properties)}"
    return None


def _fault_of_any(value: Any, branches: list[Schema], root: Schema, where: str) -> str | None:
    """No fault where one branch holds; else that of the branch which was meant, by its type or `kind`."""
    faults = [(branch, first_fault(value, branch, root, where)) for branch in branches]
    if any(fault is None for _, fault in faults):
        return None
    return max(faults, key=lambda pair: _resemblance(value, pair[0], root))[1]


def _resemblance(value: Any, branch: Schema, root: Schema) -> float:
    if "$ref" in branch:
        branch = root["$defs"][str(branch["$ref"]).rpartition("/")[2]]
    if "anyOf" in branch:
        return max(_resemblance(value, inner, root) for inner in branch["anyOf"])
    if "type" not in branch or not _is(value, branch["type"]):
        return 0.0
    kind = branch.get("properties", {}).get("kind", {})
    same_kind = isinstance(value, dict) and "const" in kind and value.get("kind") == kind["const"]
    return 1.0 + same_kind


def _fault_of_length(n: int, schema: Schema, here: str, what: str, unit: str) -> str | None:
    least, most = schema.get(f"min{what}", 0), schema.get(f"max{what}", math.inf)
    if n < least:
        return f"{here}: {n} {unit}, fewer than {least}"
    return f"{here}: {n} {unit}, more than {most}" if n > most else None


def _fault_of_number(value: float, schema: Schema, here: str) -> str | None:
    if not math.isfinite(value):
        return f"{here}: {value} is no number of JSON"
    if "minimum" in schema and value < schema["minimum"]:
        return f"{here}: {_shown(value)} is below {schema['minimum']}"
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        return f"{here}: {_shown(value)} is not above {schema['exclusiveMinimum']}"
    if "maximum" in schema and value > schema["maximum"]:
        return f"{here}: {_shown(value)} is above {schema['maximum']}"
    return None


def _is(value: Any, kind: str) -> bool:
    if kind in ("number", "integer"):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and (kind == "number" or (math.isfinite(value) and float(value).is_integer()))
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    return isinstance(value, kinds[kind])


def _same(value: Any, member: Any) -> bool:
    """Equality of JSON: 1 and 1.0 are one number, true is none."""
    return isinstance(value, bool) == isinstance(member, bool) and value == member


def _shown(value: Any) -> str:
    return printable(value if isinstance(value, (int, float)) else repr(value), 60)
