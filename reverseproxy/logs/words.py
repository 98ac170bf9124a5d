"""What lines of the log are made of: numbers, times, reasons, and text that is safe to write."""

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
"""Characters of a name that a peer has given itself."""

_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def format_time(seconds: float | None) -> str:
    """
    Write a point in time as RFC 3339 in UTC with milliseconds.

    @param seconds: since the epoch; L{None} (or what no calendar has) gives
        C{"-"}.
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
    Say how often each of some things is there, the most frequent ones first: C{3 WebSocket, 1 request}.

    @param most: how many kinds are named.
    """
    kinds = Counter(things).most_common()
    named = [f"{number} {kind}" for kind, number in kinds[:most]]
    rest = sum(number for _, number in kinds[most:])
    return ", ".join([*named, f"{rest} more"] if rest else named)


def counted(number: int, what: str) -> str:
    """
    Write a number of things: C{1 host}, C{2 hosts}.

    @param what: one of them, whose plural has an C{s} behind it.
    """
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def said(text: bytes | str) -> str:
    """Write what a peer has said, if anything, behind something else."""
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
"""What some errors of Twisted's mean, whose own words repeat themselves."""


def loss(reason: Failure) -> str:
    """Say why a connection is lost, or could not be made, in words for an operator, not in Twisted's."""
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
        return error.strerror  # rather than with its number before it
    return reason.getErrorMessage().rstrip(".")


def escape(text: str) -> str:
    """
    Make text safe for a line of a log.

    Everything that is not printable (control characters, line breaks of every
    kind, direction marks) becomes a backslash sequence; a byte that could not
    be decoded (C{surrogateescape}) becomes C{\\xNN}.  The rest stays as it is.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape_one(character) for character in text)


def _escape_one(character: str) -> str:
    """The backslash sequence for one character."""
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    if character in _ESCAPES:
        return _ESCAPES[character]
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def cut(text: str, limit: int) -> str:
    """Bound the length of text and say so."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}... ({len(text) - limit} more characters)"


def shorten(name: str) -> str:
    """Cut a name that a peer has given itself, if it is longer than names are."""
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 3]}..."
