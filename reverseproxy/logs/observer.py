"""A log observer that writes events of at least a level to a L{LogFile}."""

from __future__ import annotations

__all__ = ["LogObserver", "make_observer"]

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    PredicateResult,
)
from zope.interface import implementer

from reverseproxy.errors import ConfigError
from reverseproxy.logs.bounds import LogBounds
from reverseproxy.logs.file import LogFile
from reverseproxy.logs.levels import DEBUGGING, DEFAULT_LEVEL, is_level, parse_level
from reverseproxy.logs.rendering import render_json, render_text
from reverseproxy.problems import DOCUMENT, PART, Place, Problem

if TYPE_CHECKING:
    from constantly import NamedConstant

_ECHO: Final = re.compile(r"listener .* starting on .*|\((?:TCP|UNIX) Port .* Closed\)", re.DOTALL)

_RUNNERS: Final = frozenset({"twisted.scripts._twistd_unix.UnixAppLogger", "twisted.internet.base"})
"""Namespaces of Twisted's runners, whose lines about a normal start and end repeat our own."""

_LOST: Final = "{lost} lines of this log could not be written: {reason}"
_LEFT_OUT: Final = "{count} lines like the next one were left out, as a log has its bounds"


@implementer(ILogObserver)
class LogObserver:
    """
    Writes events of at least a level, each at once.

    @ivar file: the output.
    """

    def __init__(
        self,
        file: LogFile,
        level: str,
        render: Callable[[LogEvent, int], str],
        worker: int = 0,
        bounds: LogBounds | None = None,
    ) -> None:
        """
        @param render: formats an event, given the number of the worker.
        @param worker: the number of this worker, from 1; 0 if the process is not a worker.
        @param bounds: the rate limit of lines of C{INFO} and above; L{None} for none.
        """
        self.file = file
        self._render = render
        self._worker = worker
        self._bounds = bounds
        self.level = level

    @property
    def level(self) -> str:
        """MOSN's name of the lowest level that is written; may be set at any time."""
        return self._level

    @level.setter
    def level(self, name: str) -> None:
        self._level = name if is_level(name) else DEFAULT_LEVEL
        self._predicate = LogLevelFilterPredicate(parse_level(name))
        debug = parse_level(name) is LogLevel.debug
        self._leaves_out_echoes = not debug
        DEBUGGING.set(debug)

    def __call__(self, event: LogEvent) -> None:
        """Write an event; see L{ILogObserver}."""
        if self._predicate(event) is PredicateResult.no or (self._leaves_out_echoes and _is_echo(event)):
            return
        bounds = None if event.get("log_level") is LogLevel.debug else self._bounds
        left_out = 0
        if bounds is not None:
            # Before the line is formatted, which is most of the work.
            left_out = bounds.ask((event.get("log_namespace"), event.get("log_format")))
            if left_out < 0:
                return
        lines = self._render(event, self._worker)
        if left_out:
            lines = self._notice(event, LogLevel.warn, _LEFT_OUT, count=left_out) + lines
        before, self.file.lost = self.file.lost, 0
        if before:
            lines = self._notice(event, LogLevel.error, _LOST, lost=before, reason=self.file.reason) + lines
        data = lines.encode("utf-8", "backslashreplace")
        if bounds is not None:
            bounds.wrote(len(data))
        self.file.write(data)
        if before and self.file.lost:
            # The notice itself, which was lost too, is not counted.
            self.file.lost = before + 1

    def _notice(self, event: LogEvent, level: NamedConstant, text: str, **fields: object) -> str:
        """Format a line about left out or lost lines, to stand before the line of an event."""
        return self._render(
            {
                "log_time": event.get("log_time"),
                "log_level": level,
                "log_namespace": "reverseproxy.logs",
                "log_format": text,
                **fields,
            },
            self._worker,
        )

    def reopen(self) -> None:
        """
        Open the file again, for log rotation.

        @raise ConfigError: if it can't be opened; the old file stays in use.
        """
        self.file.reopen()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


LOG_PATH: Final = DOCUMENT / "servers" / 0 / "default_log_path"
"""The place of the log's path in the configuration document."""


def make_observer(
    path: str,
    level: str = DEFAULT_LEVEL,
    fmt: str = "text",
    worker: int = 0,
    per_hour: float = 0,
    where: Place = LOG_PATH,
) -> LogObserver:
    """
    Return the observer for the configured log.

    @param path: a file name, C{"stdout"}, or C{"stderr"} (also C{""}).
    @param level: a MOSN level name, see L{parse_level}.
    @param fmt: C{"text"} or C{"json"}.
    @param worker: the number of this worker, from 1; 0 if the process is not a worker.
    @param per_hour: the maximum number of bytes in an hour; 0 for no limit.
    @param where: the place of C{path} in the document, for the error.
    @raise ConfigError: if the file can't be opened or the format is unknown.
    """
    renderers = {"text": render_text, "json": render_json}
    if fmt not in renderers:
        raise ConfigError(Problem.at(PART, f"{fmt!r} is not a log format; use 'text' or 'json'"))
    bounds = LogBounds(per_hour) if per_hour else None
    return LogObserver(LogFile(path, where), level, renderers[fmt], worker, bounds)


def _is_echo(event: LogEvent) -> bool:
    """Whether an event of Twisted about a port or the process repeats a more detailed one of our own."""
    if event.get("log_namespace") in _RUNNERS:
        return event.get("log_level") is LogLevel.info
    if event.get("log_namespace") != "log_legacy" or event.get("isError"):
        return False
    message = event.get("message")
    return isinstance(message, tuple) and len(message) == 1 and _ECHO.fullmatch(str(message[0])) is not None
