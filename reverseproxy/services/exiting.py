"""How a process ends before, or after, its reactor has run."""

from __future__ import annotations

__all__ = ["end_with", "exit_with", "report_failed_start", "standard_error", "write"]

import atexit
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from os import _exit as exit_now  # documented, in spite of its name
from typing import Any, Final, NoReturn, TextIO

from twisted.logger import LoggingFile

_STATUS_SIZE: Final = 100
"""How many bytes of a result twistd reads from a daemon."""


def write(stream: TextIO, text: str) -> None:
    """Write text to a stream, and flush it; characters that its encoding does not have are escaped."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def standard_error() -> TextIO:
    """
    Return the standard error of the process.

    Once logging has begun, C{sys.stderr} writes to the log, which may be a file.
    """
    if isinstance(sys.stderr, LoggingFile) and sys.__stderr__ is not None:
        return sys.__stderr__
    return sys.stderr


def exit_with(stream: TextIO, text: str, status: int) -> NoReturn:
    """
    Write text to a stream, and end the process.

    @raise SystemExit: always, with this status.
    """
    write(stream, text)
    raise SystemExit(status)


def report_failed_start(runner: Mapping[str, Any], reason: str) -> None:
    """
    Do what twistd does if an application can't be started, before this process exits by itself.

    The process that has started a daemon waits for its result, and would wait forever.  The file with
    the daemon's process id is removed before that.

    @param runner: the options of twistd.
    @param reason: a text for people, which is shortened to a few words.
    """
    pipe, file = runner.get("statusPipe"), runner.get("pidfile")
    with suppress(OSError):
        if file:
            os.unlink(file)
    with suppress(OSError):
        if pipe is not None:
            os.write(pipe, f"1 {reason}".encode("utf-8", "backslashreplace")[:_STATUS_SIZE])
            os.close(pipe)


def end_with(status: int) -> None:
    """Let the process end with this status once the reactor has stopped."""

    def end() -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        exit_now(status)

    # twistd offers no status of its own, except by a signal.
    atexit.register(end)
