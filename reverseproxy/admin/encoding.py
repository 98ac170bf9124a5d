"""JSON that is encoded in short steps, as a worker's answer to the supervisor may be long."""

from __future__ import annotations

__all__ = ["encode"]

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from reverseproxy.admin.slices import Steps

PORTION: Final = 500
"""How many values are encoded in one step, about; see L{reverseproxy.admin.slices}."""

TEXT: Final = 64
"""Characters of a text that count as one value."""


def encode(value: Any) -> Steps[list[bytes]]:
    """
    Encode a value of JSON.

    @return: the text without spaces, in pieces.
    """
    pieces: list[bytes] = []
    yield from _encode(value, pieces)
    return pieces


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _encode(value: Any, pieces: list[bytes]) -> Steps[None]:
    """Append a value: at once if it is short, otherwise its parts one after the other."""
    if _size(value, PORTION) <= PORTION or isinstance(value, str):
        pieces.append(_dump(value))
        yield
    elif isinstance(value, Mapping):
        yield from _encode_mapping(value, pieces)
    else:
        yield from _encode_list(value, pieces)


def _encode_mapping(value: Mapping[Any, Any], pieces: list[bytes]) -> Steps[None]:
    separator = b"{"
    portion: dict[Any, Any] = {}
    size = 0
    for name, item in value.items():
        more = _size(item, PORTION)
        if portion and size + more > PORTION:
            pieces += separator, _dump(portion)[1:-1]
            separator, portion, size = b",", {}, 0
            yield
        if more > PORTION:
            pieces += separator, _dump({name: 0})[1:-2]
            separator = b","
            yield from _encode(item, pieces)
        else:
            portion[name] = item
            size += more
    if portion:
        pieces += separator, _dump(portion)[1:-1]
        yield
    pieces.append(b"}")


def _encode_list(value: Iterable[Any], pieces: list[bytes]) -> Steps[None]:
    separator = b"["
    portion: list[Any] = []
    size = 0
    for item in value:
        more = _size(item, PORTION)
        if portion and size + more > PORTION:
            pieces += separator, _dump(portion)[1:-1]
            separator, portion, size = b",", [], 0
            yield
        if more > PORTION:
            pieces.append(separator)
            separator = b","
            yield from _encode(item, pieces)
        else:
            portion.append(item)
            size += more
    if portion:
        pieces += separator, _dump(portion)[1:-1]
        yield
    pieces.append(b"]")


def _size(value: Any, most: int) -> int:
    """Return how many values a value consists of, about; counting stops beyond a number."""
    if isinstance(value, str):
        return 1 + len(value) // TEXT
    if isinstance(value, Mapping):
        size = 1 + len(value)
        items: Iterable[Any] = value.values()
    elif isinstance(value, list | tuple):
        size = 1 + len(value)
        if not value or not isinstance(value[0], str | Mapping | list | tuple):
            return size  # of numbers alone
        items = value
    else:
        return 1
    for item in items:
        if size > most:
            break
        if isinstance(item, str | Mapping | list | tuple):
            size += _size(item, most - size)
    return size
