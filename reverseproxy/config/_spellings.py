"""Whether two names of one key say the same."""

from __future__ import annotations

__all__ = ["same_value"]

from typing import Any

from reverseproxy.config._base import Spelling
from reverseproxy.config.durations import parse_duration


def same_value(one: Any, first: Spelling, other: Any, second: Spelling) -> bool:
    """
    Compare what a document gives under two names of one key.

    @param first: the first name, which says how its value is counted.
    @param second: the other one, of the same key.
    """
    if first.duration:
        return bool(_seconds(one, first) == _seconds(other, second))
    return bool(_plain(one) == _plain(other))


def _seconds(value: Any, spelling: Spelling) -> Any:
    """A duration in seconds; what is none stays as it is, and is refused elsewhere."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return value
    try:
        return parse_duration(f"{value}ms" if spelling.milliseconds else str(value))
    except ValueError:
        return value


def _plain(value: Any) -> Any:
    """A value without what is no difference to Go: the case of keys, and in names of fields underscores."""
    if isinstance(value, dict):
        return {name.lower().replace("_", ""): _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
