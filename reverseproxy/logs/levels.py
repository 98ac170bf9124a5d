"""Log levels by MOSN's names, and whether this process writes C{DEBUG} lines."""

from __future__ import annotations

__all__ = ["DEBUGGING", "DEFAULT_LEVEL", "Debugging", "is_level", "level_name", "level_of", "parse_level"]

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from twisted.logger import (
    LogEvent,
    LogLevel,
)

if TYPE_CHECKING:
    from constantly import NamedConstant

DEFAULT_LEVEL: Final = "INFO"

# MOSN's level names, upper-case only.  Twisted has neither "trace" nor "fatal".
_LEVELS: Final[Mapping[str, NamedConstant]] = {
    "TRACE": LogLevel.debug,
    "DEBUG": LogLevel.debug,
    "INFO": LogLevel.info,
    "WARN": LogLevel.warn,
    "ERROR": LogLevel.error,
    "FATAL": LogLevel.critical,
}
_LEVEL_NAMES: Final = {
    LogLevel.debug: "DEBUG",
    LogLevel.info: "INFO",
    LogLevel.warn: "WARN",
    LogLevel.error: "ERROR",
    LogLevel.critical: "FATAL",
}


def parse_level(name: str) -> NamedConstant:
    """
    Translate a MOSN log level name.

    @param name: C{TRACE}, C{DEBUG}, C{INFO}, C{WARN}, C{ERROR} or C{FATAL};
        anything else, lower case included, counts as C{INFO}, as in MOSN.
    @return: one of L{LogLevel}; C{TRACE} is the same as C{DEBUG}.
    """
    return _LEVELS.get(name, LogLevel.info)


def level_name(level: NamedConstant) -> str:
    """Translate one of L{LogLevel} to MOSN's name of it."""
    return _LEVEL_NAMES[level]


def is_level(name: str) -> bool:
    """Whether MOSN has a level of this name."""
    return name in _LEVELS


def level_of(event: LogEvent) -> str:
    """Return MOSN's name of the level of an event; C{"-"} if it has none."""
    return _LEVEL_NAMES.get(event.get("log_level"), "-")


class Debugging:
    """
    Whether C{DEBUG} lines are written in this process, for code that would spend time to prepare them.

    @ivar on: whether they are written.
    """

    def __init__(self) -> None:
        self.on = False
        self._watchers: list[Callable[[bool], object]] = []

    def watch(self, changed: Callable[[bool], object]) -> None:
        """Call a function with the value of C{on}, now and after each change."""
        self._watchers.append(changed)
        changed(self.on)

    def set(self, on: bool) -> None:
        """Set C{on}, and notify the watchers if it has changed."""
        if on is not self.on:
            self.on = on
            for changed in self._watchers:
                changed(on)


DEBUGGING: Final = Debugging()
"""The state of this process, which has one log."""
