"""
The configuration is read again, checked, and taken into use, or not.

One reload runs at a time: whoever asks while one does gets another one after it,
which serves all that have asked by then.  So however often it is asked for, the
file is not read more often than that, and each answer is about the file as it was
when it was asked for, or later.
"""

from __future__ import annotations

__all__ = ["Reloader", "Report", "ReloadRefused", "log_report"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from reverseproxy.clock import wall_time
from reverseproxy.config.loader import Loaded
from reverseproxy.errors import ConfigError
from reverseproxy.problems import Place, Problem

log = Logger()

TOLD: Final = 3
"""How many problems an event has; the log has all of them."""

MOST_TOLD: Final = 1000
"""Characters of these."""


@dataclass(frozen=True, slots=True)
class Report:
    """
    What has come of a reload.

    @ivar file: what was read.
    @ivar generation: the number of the configuration that is in use now: 1 is that of the start.
    @ivar problems: why it is not the new one; empty if it is.
    @ivar warnings: what should be known of it.
    @ivar changes: what is different, as JSON has it; empty if nothing is, or that is not known.
    @ivar restart: keys that do not count before a restart, with the reason.
    @ivar summary: what is different, in words.
    """

    file: str
    generation: int
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)
    restart: Mapping[str, str] = field(default_factory=dict)
    summary: str = ""

    @property
    def successful(self) -> bool:
        """Whether what was read is in use."""
        return not self.problems

    @property
    def failure(self) -> dict[str, Any]:
        """Why it is not the new one, as events have it: the first of the reasons."""
        first = "; ".join(str(problem) for problem in self.problems[:TOLD])
        more = len(self.problems) - TOLD
        reason = f"{first}; and {more} more" if more > 0 else first
        return {"file": self.file, "generation": self.generation, "reason": reason[:MOST_TOLD]}

    def to_json(self) -> dict[str, Any]:
        """The same as JSON has it."""
        return {
            "file": self.file,
            "generation": self.generation,
            "successful": self.successful,
            "problems": [_plain(problem) for problem in self.problems],
            "warnings": [_plain(problem) for problem in self.warnings],
            "changes": dict(self.changes),
            "needs_restart": dict(self.restart),
        }


class ReloadRefused(ConfigError):
    """It is too late for another configuration."""

    def __init__(self, file: str) -> None:
        super().__init__(Problem.at(Place(file), "the process is stopping"))


def _plain(problem: Problem) -> dict[str, str]:
    return {"file": problem.file, "path": problem.path, "message": problem.message}


class Reloader:
    """
    Takes configurations into use, one after the other.

    @ivar read: reads the configuration; a L{Loaded}, now or later.
    @ivar generation: the number of the one that is in use; 1 is that of the start.
    @ivar successful: whether the last one that was read is.
    @ivar succeeded: when that was so the last time, in seconds since 1970.
    @ivar attempts: how often it was tried.
    @ivar last: what has come of the last attempt; L{None} before the first one.
    @ivar failed: called with what has come of an attempt that has failed.
    """

    failed: Callable[[Report], object] = staticmethod(lambda report: None)

    def __init__(
        self,
        file: str,
        read: Callable[[], Any],
        take: Callable[[Loaded, int], Any],
        wall: Callable[[], float] = wall_time,
    ) -> None:
        """
        @param read: reads the configuration; a L{Loaded}, now or later.
        @param take: takes one into use that was read; given that, and what its generation
            would be, it gives a L{Report}, now or later, or raises L{ConfigError} if it
            can't, whereupon nothing must have changed.
        @param wall: seconds since 1970.
        """
        self.file = file
        self.generation = 1
        self.successful = True
        self.succeeded = wall()
        self.last: Report | None = None
        self.attempts = 0
        self.read = read
        self._take = take
        self._wall = wall
        self._asked: list[Deferred[Report]] = []
        self._running = False

    def reload(self) -> Deferred[Report]:
        """
        Read the configuration, and take it into use.

        @return: what has come of it; never fails.
        """
        report: Deferred[Report] = Deferred()
        self._asked.append(report)
        if not self._running:
            self._running = True
            Deferred.fromCoroutine(self._run())
        return report

    async def _run(self) -> None:
        try:
            while self._asked:
                asked, self._asked = self._asked, []
                report = await self._once()
                for each in asked:
                    each.callback(report)
        finally:
            self._running = False

    async def _once(self) -> Report:
        try:
            loaded = await maybeDeferred(self.read)
            report: Report = await maybeDeferred(self._take, loaded, self.generation + 1)
        except ReloadRefused as error:
            log.info("the configuration {file} is not reloaded: the process is stopping", file=self.file)
            return Report(self.file, self.generation, error.problems)
        except ConfigError as error:
            report = Report(self.file, self.generation, error.problems, error.warnings)
        except Exception as error:
            log.failure("the configuration {file} could not be reloaded", file=self.file)
            problem = Problem.at(Place(self.file), f"failed on our side, the log has more: {error!r}")
            report = Report(self.file, self.generation, (problem,))
        self.last = report
        self.attempts += 1
        self.generation = report.generation
        self.successful = report.successful
        if report.successful:
            self.succeeded = self._wall()
        log_report(report)
        if not report.successful:
            self.failed(report)
        return report


def log_report(report: Report) -> None:
    """Tell an operator what has come of a reload."""
    for warning in report.warnings:
        log.warn("{problem}", problem=str(warning))
    if not report.successful:
        log.error(
            "the configuration {file} is not taken into use, and that of generation {generation} stays:\n"
            "{problems}",
            file=report.file,
            generation=report.generation,
            problems="\n".join(str(problem) for problem in report.problems),
        )
        return
    for key, why in report.restart.items():
        log.warn("{file}: needs a restart: {key}: {why}", file=report.file, key=key, why=why)
    log.info(
        "the configuration {file} is in use, generation {generation}: {summary}",
        file=report.file,
        generation=report.generation,
        summary=report.summary,
    )
