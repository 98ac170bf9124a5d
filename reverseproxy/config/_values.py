"""
The types of single values.

Values are not converted, as by Go's decoder: a text is not a number, and 1 is not a
boolean.  Messages of errors raised here have the value and what is allowed; the loader adds
the place.
"""

from __future__ import annotations

__all__ = [
    "Address",
    "Bool",
    "Duration",
    "FinalStatus",
    "Free",
    "HostPort",
    "Int",
    "Interval",
    "Limit",
    "Nanoseconds",
    "Number",
    "Regex",
    "Span",
    "Text",
    "UInt",
    "ValueKind",
    "between",
    "compile_regex",
    "describe",
    "is_host",
    "number",
    "or_default",
    "quote",
    "socket_path",
    "split_address",
]

import re
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, Strict, StrictBool, StrictStr, ValidationInfo

from reverseproxy.addresses import is_ip
from reverseproxy.config.durations import WRITE, format_duration, parse_duration, without_unit
from reverseproxy.problems import quote


@dataclass(frozen=True, slots=True)
class ValueKind:
    """
    What the reference calls a type that is not one of Go's.

    @ivar name: such as C{"duration"}.
    """

    name: str


def between(lowest: int, highest: int) -> AfterValidator:
    """Require a number in a range, both ends included."""

    def check(value: int) -> int:
        if not lowest <= value <= highest:
            raise ValueError(f"{number(value)} is out of range; write a number from {lowest} to {highest}")
        return value

    return AfterValidator(check)


Text = StrictStr
Bool = StrictBool
Int = Annotated[int, Strict(), between(-(2**63), 2**63 - 1)]
UInt = Annotated[int, Strict(), between(0, 2**32 - 1)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Free = Any
"""Any value, which is kept unchanged."""


_LONGEST_NUMBER: Final = 40


def number(value: float) -> str:
    """Return a number for messages, shortened if it is long."""
    try:
        text = str(value)
    except ValueError:  # a hexadecimal one with more digits than Python converts
        text = hex(int(value))
    return text if len(text) <= _LONGEST_NUMBER else f"{text[:_LONGEST_NUMBER]}\N{HORIZONTAL ELLIPSIS}"


def describe(value: Any) -> str:
    """Return a value of a document with its kind, for messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"the number {number(value)}"
    if isinstance(value, str):
        return f"the text {quote(value)}"
    return "an object" if isinstance(value, dict) else "a list"


def from_document(info: ValidationInfo) -> bool:
    """Return whether a value comes from a document rather than from Python code."""
    return bool(info.context and info.context.get("document"))


def _duration(value: Any, info: ValidationInfo) -> Any:
    """
    Convert a duration to seconds.

    In a document it is Go's text or a bare 0; in Python code float seconds.
    """
    if isinstance(value, str):
        # A lone surrogate, which JSON can have, can't be written in the message.
        return parse_duration(value.encode("utf-8", "backslashreplace").decode())
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{describe(value)} is not a duration; {WRITE}")
    if from_document(info) and (value != 0 or isinstance(value, float)):
        raise ValueError(f"{value} {without_unit(value)}")
    return float(value)


def _nanoseconds(value: Any, info: ValidationInfo) -> Any:
    """Convert a duration to seconds, where a whole number in a document is nanoseconds."""
    if from_document(info) and isinstance(value, int) and not isinstance(value, bool):
        return value / 1_000_000_000
    return _duration(value, info)


_LONGEST_DURATION: Final = 100 * 8766 * 3600.0
"""Seconds of a century: a longer duration has a wrong unit."""

_MINUS_ONE: Final = frozenset(parse_duration(f"-1{unit}") for unit in ("ns", "us", "ms", "s", "m", "h"))


def _not_too_long(seconds: float) -> float:
    if seconds > _LONGEST_DURATION:
        raise ValueError(f"{format_duration(seconds)} is more than a century; write a shorter duration")
    return seconds


def _not_negative(seconds: float) -> float:
    if seconds < 0:
        raise ValueError(f"{format_duration(seconds)} is negative; write 0 or a longer duration")
    return _not_too_long(seconds)


def _above_zero(seconds: float) -> float:
    if seconds <= 0:
        raise ValueError(f"{format_duration(seconds)} is too short; write a duration above 0")
    return _not_too_long(seconds)


def _limit(seconds: float) -> float:
    """Accept a negative duration, no limit in MOSN, only as minus one."""
    if seconds < 0 and seconds not in _MINUS_ONE:
        raise ValueError(
            f'{format_duration(seconds)} is negative; write 0 or a longer duration, or "-1s" for no limit'
        )
    return _not_too_long(seconds)


def or_default(default: float) -> AfterValidator:
    """Replace 0 by the default, as in Go, where an absent key is 0."""
    return AfterValidator(lambda value: value or default)


Duration = Annotated[float, BeforeValidator(_duration), ValueKind("duration")]
"""Float seconds, from Go's duration syntax."""

Span = Annotated[Duration, AfterValidator(_not_negative)]
"""A duration from 0 on."""

Interval = Annotated[Duration, AfterValidator(_above_zero)]
"""A duration above 0."""

Limit = Annotated[Duration, AfterValidator(_limit)]
"""A duration from 0 on, or minus one of any unit, which means no limit."""

Nanoseconds = Annotated[
    float,
    BeforeValidator(_nanoseconds),
    AfterValidator(_not_negative),
    ValueKind("nanoseconds or duration"),
]
"""Float seconds, from a whole number of nanoseconds or Go's duration syntax."""


def split_address(address: str) -> tuple[str, int]:
    """
    Split an address into host and port.

    @param address: C{"host:port"} or C{"[v6]:port"}.
    @return: the host, without brackets, and the port.
    @raise ValueError: if it is neither, with the reason.
    """
    shown = quote(address)
    if "://" in address:
        raise ValueError(f'{shown} is a URL; write "host:port"')
    if address.startswith(("unix:", "/")):
        raise ValueError(f'{shown} is a path, which can\'t be used here; write "host:port"')
    if address.startswith("["):
        host, closing, port = address[1:].partition("]:")
        if not closing or not is_ip(host):
            raise ValueError(f'{shown} is not an address; write an IPv6 address as "[::1]:8080"')
    else:
        host, colon, port = address.rpartition(":")
        if not colon:
            raise ValueError(f'{shown} has no port; write "host:port"')
        if ":" in host:
            raise ValueError(f'{shown} is not an address; write an IPv6 address as "[::1]:8080"')
    if not (port.isascii() and port.isdecimal() and len(port) <= _DIGITS and int(port) <= 65535):
        raise ValueError(f"{shown} has the port {quote(port)}; a port is a number from 0 to 65535")
    if host and not is_host(host):
        raise ValueError(f"{shown} has the host {quote(host)}, which is neither a name nor an IP address")
    return host, int(port)


_DIGITS: Final = 20
"""The most digits of a port; a number may have zeros at its beginning."""

_OF_URLS: Final = frozenset("/\\?#@[]<>\"' ")
_FOUR_NUMBERS: Final = re.compile(r"\d+(?:\.\d+){3}")


def is_host(text: str) -> bool:
    """Return whether a text may be a host name or an IP address, without brackets."""
    if not text.isprintable() or not _OF_URLS.isdisjoint(text):
        return False
    return is_ip(text) or not (
        _FOUR_NUMBERS.fullmatch(text) and any(int(n[:9]) > 255 for n in text.split("."))
    )


_LONGEST_SOCKET: Final = 107 if sys.platform == "linux" else 103
"""The most bytes of the path of a Unix socket."""


def socket_path(path: str) -> str:
    """
    Check the path of a Unix socket.

    @return: the same path.
    @raise ValueError: if there can be no socket of this path.
    """
    if not path:
        raise ValueError('is empty; write "/path/to/socket"')
    if "\0" in path:
        raise ValueError(f"{quote(path)} is not a path: it has a zero byte")
    size = len(path.encode("utf-8", "surrogatepass"))
    if size > _LONGEST_SOCKET:
        raise ValueError(f"{quote(path)} has {size} bytes; a Unix socket's path may have {_LONGEST_SOCKET}")
    return path


def _host_port(text: str) -> str:
    """Require a TCP address that can be dialled."""
    host, port = split_address(text)
    if not host:
        raise ValueError(f'{quote(text)} has no host; write "host:port"')
    if not port:
        raise ValueError(f"{quote(text)} has the port 0, which can't be dialled")
    return text


def _address(text: str) -> str:
    """Require an address of TCP or of a Unix socket; C{unix:} is added to a path."""
    if text.startswith("/"):
        text = f"unix:{text}"
    if not text.startswith("unix:"):
        return _host_port(text)
    if text == "unix:":
        raise ValueError('"unix:" has no path; write "unix:/path/to/socket"')
    socket_path(text.removeprefix("unix:"))
    return text


HostPort = Annotated[str, Strict(), AfterValidator(_host_port)]
"""An address to dial: C{host:port} or C{[v6]:port}."""

Address = Annotated[str, Strict(), AfterValidator(_address)]
"""An address to dial: C{host:port}, C{[v6]:port}, C{unix:/path} or C{/path}."""


def compile_regex(text: str) -> str:
    """
    Check a regular expression by compiling it.

    @return: the same text.
    @raise ValueError: if RE2 refuses it, with the reason.
    """
    # A large library, which only configurations with patterns need.
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(text.encode("utf-8", "replace"), options)
    except re2.error as error:
        reason = error.args[0]
        reason = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"{quote(text)} is not a regular expression that RE2 takes: {reason}") from None
    return text


Regex = Annotated[str, Strict(), AfterValidator(compile_regex)]
"""A regular expression of RE2, compiled when the configuration is loaded."""


def _final_status(code: int) -> int:
    if code and not 200 <= code <= 599:
        raise ValueError(f"{code} is not a final HTTP status; write a number from 200 to 599")
    return code


FinalStatus = Annotated[Int, AfterValidator(_final_status)]
"""A status of HTTP that ends a response."""
