"""
Generate a JSON Schema of the configuration from the models.

It is for editors, and checks less than the loader: values of the right type may be out
of range, and names may refer to nothing.  It accepts keys only in the case of the
reference, and refuses what the loader only warns of, such as unknown keys.
"""

from __future__ import annotations

__all__ = ["make_schema"]

import re
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from reverseproxy.config._base import IGNORE_UNSUPPORTED, KeyInfo, Model, keys_of, shape_of
from reverseproxy.config._proxies import ProtocolOptions
from reverseproxy.config._values import ValueKind
from reverseproxy.config.models import Config

_DURATION: Final = {
    "type": ["string", "integer"],
    "pattern": r"^[-+]?(0|([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h))+$",
    "maximum": 0,
    "minimum": 0,
}
_KINDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "duration": _DURATION,
    "nanoseconds or duration": {"type": ["string", "integer"], "pattern": _DURATION["pattern"]},
    "number or text": {"type": ["integer", "string"]},
    "list of lists of texts": {
        "type": "array",
        "items": {"type": "array", "items": {"type": "string"}},
    },
}
_TYPES: Final[Mapping[Any, str]] = {str: "string", bool: "boolean", int: "integer", float: "number"}


def make_schema() -> dict[str, Any]:
    """Return the schema, of draft 2020-12."""
    definitions: dict[str, Any] = {}
    top = _object(Config, definitions)
    top["properties"]["$schema"] = {"type": "string", "description": "Where this schema is, for editors."}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of reverseproxy",
        **top,
        "$defs": dict(sorted(definitions.items())),
    }


def _reference(model: type[Model], definitions: dict[str, Any]) -> dict[str, Any]:
    name = model.__name__.removesuffix("Config")
    if name not in definitions:
        definitions[name] = {}  # ends the recursion of a model that contains itself
        definitions[name] = _object(model, definitions)
    return {"$ref": f"#/$defs/{name}"}


def _object(model: type[Model], definitions: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {
        IGNORE_UNSUPPORTED: {
            "type": ["boolean", "null"],
            "description": "Whether what may protect something, but is not supported, is only warned of.",
        }
    }
    demands: list[Any] = []
    for _, field, info in keys_of(model):
        described = {"description": _description(field, info)}
        names = (info.name, *info.spellings, *info.milliseconds)
        for name in names:
            value = (
                {"type": "integer"} if name in info.milliseconds else _value(model, field, info, definitions)
            )
            properties[name] = {**described, **(_or_null(value) if info.nullable else value)}
        if info.required:
            demands.append(
                {"anyOf": [{"required": [name]} for name in names]}
                if names[1:]
                else {"required": [info.name]}
            )
    result: dict[str, Any] = {
        # A choice of a reference and null would make editors' messages useless.
        "type": "object" if model is Config else ["object", "null"],
        "properties": properties,
        "additionalProperties": model is ProtocolOptions,
    }
    for kind, nested in model.config_by_type.items():
        demands.append(
            {
                "if": {"properties": {"type": {"const": kind}}, "required": ["type"]},
                "then": {"properties": {"config": _reference(nested, definitions)}},
            }
        )
    return {**result, "allOf": demands} if demands else result


def _description(field: FieldInfo, info: KeyInfo) -> str:
    text = re.sub(r"``(.*?)``", r"\1", field.description or "")
    return text if info.acted else f"{text} {info.why[:1].upper()}{info.why[1:]}."


def _value(
    model: type[Model], field: FieldInfo, info: KeyInfo, definitions: dict[str, Any]
) -> dict[str, Any]:
    if not info.acted or (info.name == "config" and model.config_by_type):
        return {}
    if info.choices and not info.any_case:
        return {
            "enum": list(
                dict.fromkeys([*info.choices, *info.later, *info.skipped, *[""] * bool(info.fallback)])
            )
        }
    kinds = [entry.name for entry in field.metadata if isinstance(entry, ValueKind)]
    if kinds:
        return _kind(kinds[0])
    shape = shape_of(field.annotation)
    if shape.model is ProtocolOptions:
        return {"type": "object"}  # options of the only protocol may be here without its name
    if shape.model is not None:
        found = _reference(shape.model, definitions)
        return {"type": "array", "items": found} if shape.many else found
    return _annotation(field.annotation)


def _kind(name: str) -> dict[str, Any]:
    if name == "text":
        return {"type": ["string", "array"]}
    return dict(_KINDS.get(name, {}))


def _annotation(annotation: Any) -> dict[str, Any]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        kinds = [entry.name for entry in arguments[1:] if isinstance(entry, ValueKind)]
        return _kind(kinds[0]) if kinds else _annotation(arguments[0])
    if origin in (Union, UnionType):
        parts = [_annotation(part) for part in arguments if part is not type(None)]
        return parts[0] if len(parts) == 1 else {"anyOf": parts}
    if origin is Literal:
        return {"type": "string"}  # mostly in any case
    if origin is tuple:
        return {"type": "array", "items": _annotation(arguments[0])}
    if annotation in _TYPES:
        return {"type": _TYPES[annotation]}
    return {"type": "object"} if origin is not None else {}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that allows C{null}, too, which is like an absent key."""
    if not schema or "$ref" in schema:
        return schema
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    if isinstance(schema.get("type"), list):
        return {**schema, "type": [*schema["type"], "null"]}
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None]}
    return {"anyOf": [schema, {"type": "null"}]}
