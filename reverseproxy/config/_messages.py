"""Translate pydantic's errors to messages for operators."""

from __future__ import annotations

__all__ = ["explain"]

from collections.abc import Mapping
from typing import Any, Final

from reverseproxy.config._values import describe

_WANTED: Final[Mapping[str, str]] = {
    "string_type": "a text in quotation marks",
    "string_unicode": "a text of valid Unicode",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "mapping_type": "an object",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}


def explain(error: Mapping[str, Any], secret: bool) -> str:
    """
    Return the message for an error.

    @param error: an entry of C{ValidationError.errors()}.
    @param secret: whether the value must not be shown.
    @return: the value, and what is allowed.
    """
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind in _WANTED:
        return f"expected {_WANTED[kind]}, got {_kind_of(value) if secret else describe(value)}"
    if kind == "value_error":
        return "the value can't be used" if secret else str(context["error"])
    if kind == "literal_error":
        choices = context["expected"].replace("'", '"')
        return f"{describe(value)} is not allowed; choose {choices}"
    return f"{_kind_of(value) if secret else describe(value)} can't be used: {error['msg']}"


def _kind_of(value: Any) -> str:
    """Return the kind of a value that must not be shown."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    return "a text" if isinstance(value, str) else describe(value)
