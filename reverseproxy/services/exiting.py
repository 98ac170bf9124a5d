"""How a process ends before, or after, its reactor has run."""

from __future__ import annotations

__all__ = ["end_with", "exit_with", "write"]

import atexit
import sys
from os import _exit as exit_now  # documented, in spite of its name
from typing import NoReturn, TextIO


def write(stream: TextIO, text: str) -> None:
    """Write text to a stream, and flush it; characters that its encoding does not have are escaped."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def exit_with(stream: TextIO, text: str, status: int) -> NoReturn:
    """
    Write text to a stream, and end the process.

    @raise SystemExit: always, with this status.
    """
    write(stream, text)
    raise SystemExit(status)


def end_with(status: int) -> None:
    """Let the process end with this status once the reactor has stopped."""

    def end() -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        exit_now(status)

    # twistd offers no status of its own, except by a signal.
    atexit.register(end)
