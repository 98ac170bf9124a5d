"""The configuration as JSON, without its secrets, made in short steps, as it may be large."""

from __future__ import annotations

__all__ = ["dump", "encode"]

import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from reverseproxy.admin.redaction import REDACTED, is_secret, redact
from reverseproxy.admin.slices import Steps

CHUNKS: Final = 50
"""How many pieces of JSON are encoded in one step; see L{reverseproxy.admin.slices}."""


def dump(value: Any) -> Steps[Any]:
    """
    Convert a model to JSON values, without defaults and secrets.

    @param value: a model, or a mapping or sequence that contains models.
    """
    if isinstance(value, BaseModel):
        return (yield from _of_model(value))
    if isinstance(value, Mapping):
        found = {}
        for name, item in value.items():
            found[name] = REDACTED if is_secret(str(name)) else (yield from dump(item))
        return found
    if isinstance(value, list | tuple):
        items: list[Any] = []
        for item in value:
            made = yield from dump(item)
            items.append(made)
        return items
    return redact(value)


def _of_model(model: BaseModel) -> Steps[dict[str, Any]]:
    fields = type(model).model_fields
    inner = {name: value for name in fields if _has_models(value := getattr(model, name))}
    own = redact(model.model_dump(mode="json", exclude_defaults=True, exclude=set(inner), warnings=False))
    yield
    made: dict[str, Any] = {}
    for name in fields:
        if name in own:
            made[name] = own.pop(name)
        elif name in inner and inner[name] != fields[name].default:
            secret = is_secret(name)
            made[name] = REDACTED if secret else (yield from dump(inner[name]))
    return {**made, **own}


def _has_models(value: Any) -> bool:
    """Whether a value is or contains a model."""
    if isinstance(value, Mapping):
        return any(map(_has_models, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_models, value))
    return isinstance(value, BaseModel)


def encode(value: Any) -> Steps[bytes]:
    """Encode JSON values as indented text."""
    parts = []
    for number, part in enumerate(json.JSONEncoder(indent=1, allow_nan=False).iterencode(value), 1):
        parts.append(part)
        if number % CHUNKS == 0:
            yield
    return "".join(parts).encode("ascii")
