"""
JSON as Go's C{encoding/json} writes and reads it.

Tunnel peers written in Go are strict and lenient in places where Python's
L{json} is not, so both directions are spelled out here: what we write is byte
for byte what Go would write, and what we accept is what Go would accept into a
struct.  The behaviour was checked against Go 1.26.

Two deliberate differences when reading: nesting is bounded by L{MAX_DEPTH}
(Go's bound is 10000), and integers inside free-form objects stay integers (Go
makes every number there a C{float64}).
"""

from __future__ import annotations

__all__ = [
    "INT64_MAX",
    "INT64_MIN",
    "MAX_DEPTH",
    "Integer",
    "Members",
    "Real",
    "as_int64",
    "as_object",
    "as_string",
    "as_strings",
    "dumps",
    "fold",
    "quote",
    "read_members",
]

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

MAX_DEPTH = 64
"""How deeply arrays and objects may be nested, when reading and when writing."""

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1


class Integer(str):
    """The literal of a JSON number without fraction and exponent."""

    __slots__ = ()


class Real(str):
    """The literal of a JSON number with a fraction or an exponent."""

    __slots__ = ()


Members: TypeAlias = tuple[tuple[str, Any], ...]
"""
The members of an object in their order, duplicates included.  A value is
C{None}, C{bool}, C{str}, L{Integer}, L{Real}, a C{list}, or again L{Members}.
"""


# Writing

_SPECIAL = re.compile('[\x00-\x1f"\\\\<>&\u2028\u2029\ud800-\udfff]')

_SHORT_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
}


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    short = _SHORT_ESCAPES.get(character)
    if short is not None:
        return short
    code = ord(character)
    # A surrogate can't be written in UTF-8; Go writes this for what isn't UTF-8.
    return "\\ufffd" if 0xD800 <= code <= 0xDFFF else f"\\u{code:04x}"


def quote(text: str) -> str:
    """Write a string literal, HTML-safe as Go does by default."""
    return '"' + _SPECIAL.sub(_escape, text) + '"'


def _write_float(number: float) -> str:
    """Write a number as Go does, which follows ECMAScript's C{Number.toString}."""
    if not math.isfinite(number):
        raise ValueError(f"JSON has no way to write the number {number!r}")
    sign, text = ("-", repr(-number)) if math.copysign(1.0, number) < 0 else ("", repr(number))
    mantissa, _, exponent = text.partition("e")
    whole, _, fraction = mantissa.partition(".")
    if fraction == "0":
        fraction = ""
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return sign + "0"
    # The value is 0.DIGITS times ten to the power of point.
    point = int(exponent or 0) + len(whole) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if not -5 <= point <= 21:
        rest = "." + digits[1:] if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{rest}e{point - 1:+d}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    if len(digits) <= point:
        return sign + digits.ljust(point, "0")
    return f"{sign}{digits[:point]}.{digits[point:]}"


def _scalar(value: object) -> str | None:
    """Write what is neither an array nor an object; L{None} for these, and for what JSON does not have."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, int):
        return str(int(value))
    return _write_float(value) if isinstance(value, float) else None


def _write(value: object, depth: int) -> Iterator[str]:
    scalar = _scalar(value)
    if scalar is not None:
        yield scalar
    elif depth >= MAX_DEPTH:
        raise ValueError(f"values may be nested {MAX_DEPTH} deep, this one goes deeper")
    elif isinstance(value, Mapping):
        separator = "{"
        for key in sorted(value):
            yield separator + quote(key) + ":"
            yield from _write(value[key], depth + 1)
            separator = ","
        yield "{}" if separator == "{" else "}"
    elif isinstance(value, (list, tuple)):
        separator = "["
        for item in value:
            yield separator
            yield from _write(item, depth + 1)
            separator = ","
        yield "[]" if separator == "[" else "]"
    else:
        raise TypeError(f"a {type(value).__name__} can't be written as JSON")


def dumps(value: object) -> str:
    """
    Write a value compactly, the keys of mappings sorted as Go sorts a map's.

    @raise ValueError: for infinities and NaN, and for nesting over L{MAX_DEPTH}.
    @raise TypeError: for a value of a type that JSON does not have.
    """
    return "".join(_write(value, 0))


# Reading

# An opening quote always matches as far as its string goes, closed or not, so
# that no input makes the search start over within the same string.
_BRACKET_OR_STRING = re.compile(r'[\[{\]}]|"(?:[^"\\]|\\.)*"?', re.DOTALL)

_ESCAPED_SURROGATE = re.compile(r"\\u[dD]")
_SURROGATE = re.compile("[\ud800-\udfff]")

# The field names of Go structs are ASCII; beside the letters' two cases, only
# these two characters fold to ASCII letters in Unicode's simple case folding.
_FOLD = {ord(upper): upper.lower() for upper in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
_FOLD.update({0x17F: "s", 0x212A: "k"})


def fold(name: str) -> str:
    """Bring a key to the form in which Go compares it with a field's name."""
    return name.translate(_FOLD)


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for match in _BRACKET_OR_STRING.finditer(text):
        first = match[0][0]
        if first in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"expected at most {MAX_DEPTH} nested arrays and objects, got more")
        elif first in "]}":
            depth -= 1


def _decode(payload: bytes) -> str:
    try:
        return payload.decode("utf-8")
    except UnicodeDecodeError:
        # Go replaces each undecodable byte, where Python's "replace" would
        # replace a run of them by one character.
        return _SURROGATE.sub("\ufffd", payload.decode("utf-8", "surrogateescape"))


def _replace_surrogates(value: Any) -> Any:
    if type(value) is str:
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_replace_surrogates(item) for item in value]
    if isinstance(value, tuple):
        return tuple((_replace_surrogates(key), _replace_surrogates(item)) for key, item in value)
    return value


def _refuse_constant(literal: str) -> Any:
    raise ValueError(f"expected JSON, got the literal {literal}, which JSON does not have")


def read_members(payload: bytes) -> Members:
    """
    Read a payload that has to be one object, or C{null}, which Go takes for an
    object without members.

    @raise ValueError: with what was expected and where it went wrong.  Of the
        payload itself at most one byte is quoted: it may hold a secret.
    """
    text = _decode(payload)
    _check_depth(text)
    try:
        value = json.loads(
            text,
            object_pairs_hook=tuple,
            parse_int=Integer,
            parse_float=Real,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as error:
        offset = len(text[: error.pos].encode("utf-8"))
        found = f"{text[error.pos].encode('utf-8')[:1].hex()} (hex)" if error.pos < len(text) else "its end"
        reason = error.msg[:1].lower() + error.msg[1:]
        raise ValueError(f"expected JSON, got at byte {offset} {found}: {reason}") from None
    if value is None:
        return ()
    if not isinstance(value, tuple):
        raise ValueError(f"expected a JSON object, got {_kind(value)}")
    if _ESCAPED_SURROGATE.search(text):
        value = _replace_surrogates(value)
    members: Members = value
    return members


def _kind(value: object) -> str:
    """Say what a value is without quoting it: it may be a secret."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (Integer, Real)):
        return f"the number {value[:24]}{'...' if len(value) > 24 else ''}"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"


def as_int64(value: object) -> int:
    """
    Take a value for a Go C{int64}.

    @raise ValueError: for anything but an integer literal within 64 bits.
    """
    # A literal of 64 bits has at most 20 characters: longer ones need no conversion.
    if isinstance(value, Integer) and len(value) <= 20 and INT64_MIN <= int(value) <= INT64_MAX:
        return int(value)
    raise ValueError(f"expected an integer of 64 bits, got {_kind(value)}")


def as_string(value: object) -> str:
    """
    Take a value for a Go C{string}.

    @raise ValueError: for anything but a string.
    """
    if type(value) is str:
        return value
    raise ValueError(f"expected a string, got {_kind(value)}")


def as_strings(value: object) -> tuple[str, ...]:
    """
    Take a value for a Go C{[]string}, in which C{null} is an empty string.

    @raise ValueError: for anything but an array of strings and nulls.
    """
    if not isinstance(value, list):
        raise ValueError(f"expected an array of strings, got {_kind(value)}")
    return tuple("" if item is None else as_string(item) for item in value)


def as_object(value: object) -> dict[str, Any]:
    """
    Take a value for a Go C{map[string]interface{}}; of duplicates, the last wins.

    @raise ValueError: for anything but an object, and for numbers within it
        that a C{float64} can't hold.
    """
    if not isinstance(value, tuple):
        raise ValueError(f"expected an object, got {_kind(value)}")
    return {key: _as_any(item) for key, item in value}


def _as_any(value: Any) -> Any:
    if isinstance(value, (Integer, Real)):
        number = float(value)
        if math.isinf(number):
            raise ValueError(f"expected a number of 64 bits, got {_kind(value)}")
        return int(value) if isinstance(value, Integer) else number
    if isinstance(value, list):
        return [_as_any(item) for item in value]
    return as_object(value) if isinstance(value, tuple) else value
