"""
Go's duration syntax, as MOSN's configuration uses it.

A duration is a signed sum of decimal numbers, each with a unit: C{"8s"},
C{"1h30m"}, C{"1.5s"}, C{"-300ms"}.  The only duration that may go without a
unit is C{"0"}.  The syntax is that of Go's C{time.ParseDuration}; its values
are counted in whole nanoseconds, and so they are here until the very end, when
they become float seconds.
"""

from __future__ import annotations

__all__ = ["WRITE", "format_duration", "parse_duration", "without_unit"]

import re
from decimal import Decimal
from typing import Final

from reverseproxy.problems import quote

_NANOSECONDS: Final = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,  # micro sign
    "\u03bcs": 1_000,  # Greek letter mu
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}

_UNITS: Final = "ns, us, ms, s, m or h"
WRITE: Final = 'write a Go duration such as "8s" or "300ms"'
"""The advice for a value that is not a duration."""

_MILLISECONDS_FROM: Final = 1000
_NANOSECONDS_FROM: Final = 10_000_000

_ITEM: Final = re.compile(r"(?P<number>[0-9]*(?:\.[0-9]*)?)(?P<unit>[^0-9.]*)")

_TOO_LONG: Final = "is too long; the longest duration is about 292 years"

_DIGITS: Final = 19
"""The most digits of a fraction that are used; fewer if they exceed 64 bits."""

_LARGEST: Final = 2**63 - 1
"""The most nanoseconds that Go's 64-bit duration can hold: about 292 years."""


def parse_duration(text: str) -> float:
    """
    Parse a Go duration.

    @param text: such as C{"1m30s"}.
    @return: the duration in seconds.
    @raise ValueError: if it is not one, with the reason and how to write it.
    """
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0.0
    if not rest:
        raise ValueError(f"{quote(text)} is not a duration; {WRITE}")
    total = 0
    while rest:
        item = _ITEM.match(rest)
        assert item is not None
        number, unit = item["number"], item["unit"]
        if number in ("", "."):
            raise ValueError(f"{quote(text)} is not a duration; {WRITE}")
        if not unit:
            alone = number == text and len(number) < _DIGITS
            hint = without_unit(float(number)) if alone else f"has a number without a unit; {WRITE}"
            raise ValueError(f"{quote(text)} {hint}")
        if unit not in _NANOSECONDS:
            raise ValueError(f"{quote(text)} has the unknown unit {quote(unit)}; the units are {_UNITS}")
        whole, _, fraction = number.partition(".")
        if len(whole.lstrip("0")) > _DIGITS:
            raise ValueError(f"{quote(text)} {_TOO_LONG}")
        scale = _NANOSECONDS[unit]
        total += int(whole[-_DIGITS:] or "0") * scale
        if fraction:
            # In floating point, as Go does it: a third of an hour is 20 minutes in the end.
            digits = fraction[:_DIGITS] if int(fraction[:_DIGITS]) <= _LARGEST else fraction[: _DIGITS - 1]
            total += int(float(digits) * (scale / 10 ** len(digits)))
        if total > _LARGEST + text.startswith("-"):
            raise ValueError(f"{quote(text)} {_TOO_LONG}")
        rest = rest[item.end() :]
    return (-total if text.startswith("-") else total) / 1_000_000_000


def without_unit(number: float) -> str:
    """
    Return the message for a duration without a unit, with the unit that is probably meant.

    Thousands are probably milliseconds rather than seconds, and ten millions and more
    nanoseconds, as in Go.
    """
    if not 0 < number < _LARGEST:
        return f"has no unit; {WRITE}"
    shown = f"{number:.15g}"
    if number >= _NANOSECONDS_FROM:
        meant = format_duration(number / 1_000_000_000)
        return f'has no unit; if it counts nanoseconds, write "{meant}"'
    if number >= _MILLISECONDS_FROM:
        return f'has no unit; if it counts milliseconds, write "{shown}ms"'
    return f'has no unit; write "{shown}s" if it counts seconds, "{shown}ms" if milliseconds'


def format_duration(seconds: float) -> str:
    """
    Format a duration as Go does: C{"1h30m0s"}, C{"1.5s"}, C{"300ms"}.

    @param seconds: the duration; it is rounded to whole nanoseconds.
    @return: text that L{parse_duration} reads as the same duration.
    """
    total = round(Decimal(repr(float(seconds))) * 1_000_000_000)
    sign = "-" if total < 0 else ""
    total = abs(total)
    if total < 1_000_000_000:
        if not total:
            return "0s"
        unit = next(name for name in ("ms", "us", "ns") if total >= _NANOSECONDS[name])
        return f"{sign}{_decimal(total, _NANOSECONDS[unit])}{unit}"
    minutes, rest = divmod(total, _NANOSECONDS["m"])
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, _NANOSECONDS['s'])}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    if hours:
        text = f"{hours}h{text}"
    return sign + text


def _decimal(value: int, scale: int) -> str:
    """Format C{value / scale} exactly, without trailing zeros."""
    whole, fraction = divmod(value, scale)
    if not fraction:
        return str(whole)
    digits = str(fraction).rjust(len(str(scale)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}"
