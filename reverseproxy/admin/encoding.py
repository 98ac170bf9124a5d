"""JSON that is encoded in short steps, as a worker's answer to the supervisor may be long."""

from __future__ import annotations

__all__ = ["encode"]

import json
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

from reverseproxy.admin.slices import Steps

PORTION: Final = 6000
"""How many bytes are encoded in one step, about; see L{reverseproxy.admin.slices}."""

LONG: Final = 50
"""The number of items beyond which a list or mapping is encoded in parts."""

LONG_NUMBERS: Final = 1000
"""The number of items beyond which a list of numbers is."""

LONG_TEXT: Final = 2000
"""The number of characters beyond which a text is encoded in a step of its own."""

FIRST: Final = 8
"""How many items of a list are encoded in the first step; it shows how many are as long as L{PORTION}."""


def encode(value: Any) -> Steps[list[bytes]]:
    """
    Encode a value of JSON.

    A list or mapping is encoded in parts if it is long, or contains something long.

    @return: the text without spaces, in pieces.
    """
    pieces: list[bytes] = []
    yield from _encode(value, pieces)
    return pieces


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _encode(value: Any, pieces: list[bytes]) -> Steps[None]:
    """Append the text of a value."""
    if not _is_long(value) or isinstance(value, str):
        pieces.append(_dump(value))
        yield
    elif isinstance(value, Mapping):
        yield from _encode_mapping(value, pieces)
    else:
        yield from _encode_list(value, pieces)


def _encode_mapping(value: Mapping[Any, Any], pieces: list[bytes]) -> Steps[None]:
    start = len(pieces)
    short: dict[Any, Any] = {}
    for name, item in value.items():
        long = _is_long(item)
        if long or len(short) == FIRST:
            yield from _append(short, pieces)
            short = {}
        if long:
            pieces += b",", _dump({name: 0})[1:-2]
            yield from _encode(item, pieces)
        else:
            short[name] = item
    yield from _append(short, pieces)
    pieces[start] = b"{"  # instead of the first comma
    pieces.append(b"}")


def _encode_list(value: Iterable[Any], pieces: list[bytes]) -> Steps[None]:
    start = len(pieces)
    rest = iter(value)
    number = FIRST
    while items := list(islice(rest, number)):
        short: list[Any] = []
        for item in items:
            if _is_long(item):
                yield from _append(short, pieces)
                short = []
                pieces.append(b",")
                yield from _encode(item, pieces)
            else:
                short.append(item)
        yield from _append(short, pieces)
        if short:
            number = max(1, min(4 * number, len(short) * PORTION // len(pieces[-1])))
    pieces[start] = b"["  # instead of the first comma
    pieces.append(b"]")


def _append(items: list[Any] | dict[Any, Any], pieces: list[bytes]) -> Steps[None]:
    """Append the text of items of a list or mapping."""
    if items:
        pieces += b",", _dump(items)[1:-1]
        yield


def _is_long(value: Any) -> bool:
    """Whether a value is encoded in parts, or in a step of its own."""
    if isinstance(value, str):
        return len(value) > LONG_TEXT
    if isinstance(value, list | tuple):
        if value and isinstance(value[0], int | float):
            return len(value) > LONG_NUMBERS
        return len(value) > LONG or any(map(_is_long, value))
    if isinstance(value, Mapping):
        return len(value) > LONG or any(map(_is_long, value.values()))
    return False
