"""Write access logs."""

from __future__ import annotations

__all__ = ["MAX_PENDING", "AccessLog"]

from collections.abc import Callable
from functools import partial
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from reverseproxy.clock import wall_time
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.errors import ConfigError
from reverseproxy.logs import LogFile, Throttle
from reverseproxy.problems import PART, Problem
from reverseproxy.proxy.access.formats import Formatter, formatter_of
from reverseproxy.proxy.access.record import AccessRecord

log = Logger()

MAX_PENDING: Final = 1 << 20
"""Characters of lines that may wait for the next write; later lines are lost."""

RETRY_DELAY: Final = 0.1
"""Seconds until a pipe that was full is tried again."""


class AccessLog:
    """
    The access log of one listener.

    Lines are collected and written once per turn of the reactor.  A write never
    raises: what can't be written, or does not fit in the bounded buffer, is
    counted in L{lost} and reported in the log now and then.

    @ivar path: the file, C{"stdout"} or C{"stderr"}.
    @ivar warnings: variables that are not known; the caller logs them.
    @ivar lost: lines that were not written since the start.
    """

    def __init__(
        self,
        path: str,
        fmt: str,
        clock: IReactorTime,
        listener: str = "",
        dry: bool = False,
        worker: int = 0,
        wall: Callable[[], float] = wall_time,
    ) -> None:
        """
        Open the log.

        @param path: C{"stdout"}, C{"stderr"}, or a file; empty for
            C{<listener>_access.log} in the current directory.
        @param fmt: the format, or a word for one; see L{reverseproxy.proxy.access.formats}.
        @param clock: the reactor: schedules writes.
        @param listener: the listener's name.
        @param dry: only look whether it could be opened.
        @param worker: the number of this worker, from 1; 0 for a process that is none.
        @param wall: seconds since 1970: tells the time of records that do not.
        @raise ConfigError: if the file can't be opened or the format is none.
        """
        self.path = path or f"{listener.replace('/', '_')}_access.log"
        self.lost = 0
        findings = Diagnostics()
        form = findings.attempt(PART / "log_format", partial(_formatter, fmt, listener, worker))
        file = findings.attempt(PART, partial(LogFile, self.path, PART / "log_path", dry or form is None))
        if form is None or file is None:
            raise ConfigError(*findings.errors)
        self._format, unknown = form
        self.warnings = tuple(
            Problem.at(PART / "log_format", f'the variable "%{name}%" is not known and gives "-"')
            for name in unknown
        )
        self._clock = clock
        self._wall = wall
        self._file = file
        self._lines: list[str] = []
        self._size = 0
        self._call: IDelayedCall | None = None
        self._throttle = Throttle(clock, 1 / 60)
        self._reported = 0
        self._closed = False

    @property
    def file(self) -> LogFile:
        """The file that the lines are written to."""
        return self._file

    def write(self, record: AccessRecord) -> None:
        """Log a request or session; the line is written in the next turn of the reactor."""
        if self._closed or self._size >= MAX_PENDING:
            self.lost += 1
            LogFile.dropped += 1
            return
        if not record.start:
            record.start = self._wall() - record.duration
        line = self._format(record)
        self._lines.append(line)
        self._size += len(line)
        if self._call is None:
            self._call = self._clock.callLater(0, self._run)

    def _run(self) -> None:
        """Write what is pending."""
        self._call = None
        self.flush()
        if self._file.backlog:
            self._call = self._clock.callLater(RETRY_DELAY, self._run)

    def flush(self) -> None:
        """Write now what is pending."""
        data = "".join(self._lines).encode("utf-8", "backslashreplace")
        self._lines.clear()
        self._size = 0
        self._file.write(data)
        self.lost, self._file.lost = self.lost + self._file.lost, 0
        if self.lost > self._reported and self._throttle.allow():
            log.error(
                "{lost} lines of the access log {path} could not be written: {reason}",
                lost=self.lost - self._reported,
                path=self.path,
                reason=self._file.reason or "too many at once",
            )
            self._reported = self.lost

    def reopen(self) -> None:
        """
        Write what is pending, then open the path anew, for log rotation.

        @raise ConfigError: if it can't be opened; the old file stays in use.
        """
        if not self._closed:
            self.flush()
            self._file.reopen()

    def close(self) -> None:
        """Write what is pending and close the file; later records are lost."""
        if self._closed:
            return
        self._closed = True
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self.flush()
        self._file.close()


def _formatter(fmt: str, listener: str, worker: int) -> tuple[Formatter, list[str]]:
    """
    Compile a format.

    @raise ValueError: naming it, if it is none.
    """
    try:
        return formatter_of(fmt, listener, worker)
    except ValueError as error:
        raise ValueError(f"{fmt!r}: {error}") from None
