"""Formatting for log lines: numbers, times, reasons, and escaping of text from peers."""

from __future__ import annotations

__all__ = ["MAX_NAME", "counted", "cut", "escape", "format_time", "how_many", "loss", "said", "shorten"]

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from twisted.internet import error as errors
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

MAX_NAME: Final = 64
"""The maximum length of a name that a peer chose, in characters."""

_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def format_time(seconds: float | None) -> str:
    """
    Format a point in time by RFC 3339, in UTC with milliseconds.

    @param seconds: seconds since the epoch.
    @return: the text; C{"-"} if C{seconds} is L{None} or out of range.
    """
    if seconds is None:
        return "-"
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return "-"
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"


def how_many(things: Iterable[str], most: int = 8) -> str:
    """
    Format how often each kind occurs, the most frequent first: C{3 WebSocket, 1 request}.

    @param things: the kinds, one for each occurrence.
    @param most: the maximum number of kinds that are named.
    """
    kinds = Counter(things).most_common()
    named = [f"{number} {kind}" for kind, number in kinds[:most]]
    rest = sum(number for _, number in kinds[most:])
    return ", ".join([*named, f"{rest} more"] if rest else named)


def counted(number: int, what: str) -> str:
    """
    Format a number of things: C{1 host}, C{2 hosts}.

    @param what: a singular noun whose plural ends in C{s}.
    """
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def said(text: bytes | str) -> str:
    """Format a message from a peer as the end of a line; empty without a message."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return f", {text}" if text else ""


_FAILURES: Final[Mapping[type[BaseException], str]] = {
    errors.ConnectionAborted: "we have cut it off",
    errors.ConnectionRefusedError: "nothing listens there (connection refused)",
    errors.TCPTimedOutError: "no answer (the connection timed out)",
    errors.TimeoutError: "no answer in time",
    errors.NoRouteError: "there is no route to it",
    errors.DNSLookupError: "its name can't be looked up",
    CancelledError: "given up",
}
"""Texts for errors of Twisted whose own texts are repetitive."""


def loss(reason: Failure) -> str:
    """Return why a connection was lost, or could not be established, in words for an operator."""
    error = reason.value
    args = getattr(error, "args", ())
    own = args[0] if args and isinstance(args[0], str) else ""
    if type(error) is ConnectionDone:
        return own if own not in ("", "Connection done") else "the other end closed the connection"
    if type(error) is ConnectionLost:
        return own if own not in ("", "Connection lost") else "the connection broke off"
    plain = None if error is None else _FAILURES.get(type(error))
    if plain is not None:
        return plain
    number = getattr(error, "osError", None)
    if isinstance(error, ConnectError) and isinstance(number, int):
        return os.strerror(number)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the errno that str() adds
    return reason.getErrorMessage().rstrip(".")


def escape(text: str) -> str:
    """
    Escape text for a log line.

    Characters that are not printable (control characters, line breaks of every
    kind, direction marks) become backslash sequences; a byte that could not
    be decoded (C{surrogateescape}) becomes C{\\xNN}.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape_one(character) for character in text)


def _escape_one(character: str) -> str:
    """Return the backslash sequence for one character."""
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    if character in _ESCAPES:
        return _ESCAPES[character]
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def cut(text: str, limit: int) -> str:
    """Cut text to a maximum length, and append the number of characters that were cut."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}... ({len(text) - limit} more characters)"


def shorten(name: str) -> str:
    """Cut a name that a peer chose to L{MAX_NAME} characters."""
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 3]}..."
