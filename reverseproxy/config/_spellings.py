"""Compare the values of two names of one key."""

from __future__ import annotations

__all__ = ["same_value"]

from typing import Any

from reverseproxy.config._base import Spelling
from reverseproxy.config.durations import parse_duration


def same_value(one: Any, first: Spelling, other: Any, second: Spelling) -> bool:
    """
    Return whether two names of one key have the same value.

    @param first: the spelling of the first name, which has the unit of its value.
    @param second: the spelling of the other one.
    """
    if first.duration:
        return bool(_seconds(one, first) == _seconds(other, second))
    return bool(_plain(one) == _plain(other))


def _seconds(value: Any, spelling: Spelling) -> Any:
    """Return a duration in seconds; other values are returned unchanged, and refused elsewhere."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return value
    try:
        return parse_duration(f"{value}ms" if spelling.milliseconds else str(value))
    except ValueError:
        return value


def _plain(value: Any) -> Any:
    """Return a value with keys in lower case and without underscores, which Go does not tell apart."""
    if isinstance(value, dict):
        return {name.lower().replace("_", ""): _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
