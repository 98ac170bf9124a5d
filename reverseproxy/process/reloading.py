"""
Reload the configuration: read it, check it, and apply it or reject it.

One reload runs at a time.  Requests during a reload share one more reload after it.  So the
file is read only as often as needed, and each answer is about the file as it was at the
request, or later.
"""

from __future__ import annotations

__all__ = ["Reloader", "Report", "ReloadRefused", "log_report"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from reverseproxy.clock import wall_time
from reverseproxy.config.loader import Loaded, loads
from reverseproxy.errors import ConfigError
from reverseproxy.problems import Place, Problem

log = Logger()

TOLD: Final = 3
"""Problems in an event; the log has all of them."""

MOST_TOLD: Final = 1000
"""Characters of these."""


@dataclass(frozen=True, slots=True)
class Report:
    """
    The result of a reload.

    @ivar file: the file that was read.
    @ivar generation: the number of the configuration in use; 1 is that of the start.
    @ivar problems: why the new configuration was rejected; empty if it is in use.
    @ivar warnings: warnings about it.
    @ivar changes: the differences, as JSON; empty if there are none, or they are unknown.
    @ivar restart: keys that need a restart, with reasons.
    @ivar summary: the differences in words.
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
        """Whether the new configuration is in use."""
        return not self.problems

    @property
    def failure(self) -> dict[str, Any]:
        """The data of an event about the failure, with the first problems."""
        first = "; ".join(str(problem) for problem in self.problems[:TOLD])
        more = len(self.problems) - TOLD
        reason = f"{first}; and {more} more" if more > 0 else first
        return {"file": self.file, "generation": self.generation, "reason": reason[:MOST_TOLD]}

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON."""
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
    """The process is stopping, so it applies no other configuration."""

    def __init__(self, file: str) -> None:
        super().__init__(Problem.at(Place(file), "the process is stopping"))


def _plain(problem: Problem) -> dict[str, str]:
    return {"file": problem.file, "path": problem.path, "message": problem.message}


class Reloader:
    """
    Reloads the configuration, one time after the other.

    @ivar read: reads the configuration; returns a L{Loaded} or a Deferred of it.
    @ivar generation: the number of the configuration in use; 1 is that of the start.
    @ivar successful: whether the last reload was successful.
    @ivar succeeded: the time of the last success, in seconds since 1970.
    @ivar attempts: the number of reloads.
    @ivar last: the result of the last reload; L{None} before the first one.
    @ivar failed: called with the result of each failed reload.
    @ivar parse: parses another configuration, given the text, its name in messages, and whether it is YAML;
        returns a L{Loaded} or a Deferred of it.
    @ivar examine: called with why a configuration can't be read; returns that with all else that is wrong.
    """

    failed: Callable[[Report], object] = staticmethod(lambda report: None)
    parse: Callable[[str, str, bool], Any] = staticmethod(loads)
    examine: Callable[[ConfigError], ConfigError] = staticmethod(lambda error: error)

    def __init__(
        self,
        file: str,
        read: Callable[[], Any],
        take: Callable[[Loaded, int], Any],
        wall: Callable[[], float] = wall_time,
    ) -> None:
        """
        @param read: see the attribute.
        @param take: applies a configuration, given that and its generation; returns a
            L{Report} or a Deferred of it, or raises L{ConfigError} without having
            changed anything.
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
        Read the configuration, and apply it.

        @return: fires with the result; never fails.
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
            refused = self.examine(error)
            report = Report(self.file, self.generation, refused.problems, refused.warnings)
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
    """Log the result of a reload."""
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
