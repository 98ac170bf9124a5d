"""
Who runs us, and where that makes the log go.

C{twistd} logs with the observer that its application names, which is ours.
C{twist} has options of its own for the log, and an observer of its own, which
can't be taken from it; a file that the configuration names is written beside.
"""

from __future__ import annotations

__all__ = ["LogPlan", "DeduplicatingObserver", "is_foreign", "plan_log"]

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from twisted.logger import ILogObserver, LogEvent, LogLevel
from zope.interface import implementer

from reverseproxy.config.models import ServerConfig
from reverseproxy.logs import LOG_PATH, level_name
from reverseproxy.problems import Place

STANDARD_OUTPUT: Final = ("stdout", "-")


class LogPlan(NamedTuple):
    """
    Where our observer writes, and workers do.

    @ivar path: see L{reverseproxy.logs.make_observer}, as for the next two.
    @ivar where: what names the path: a key of the document, or an option of twistd.
    @ivar beside: whether the runner logs by itself, and our observer writes a
        file beside that.
    @ivar theirs: whether nothing but the runner's own log is written in this
        process, so that our options for it make no difference.
    """

    path: str
    level: str
    format: str
    beside: bool = False
    theirs: bool = False
    where: Place = LOG_PATH


@implementer(ILogObserver)
class DeduplicatingObserver:
    """
    Passes each event on once.

    What is logged before logging has begun, such as which ports are bound, is
    kept by Twisted and published again then, to observers that have seen it too.
    """

    def __init__(self, observer: ILogObserver) -> None:
        self._observer = observer
        self._seen: list[LogEvent] | None = []

    def __call__(self, event: LogEvent) -> None:
        """See L{ILogObserver}."""
        if self._seen is not None:
            if any(each is event for each in self._seen):
                return
            self._seen.append(event)
        self._observer(event)

    def begun(self) -> None:
        """Logging has begun: nothing comes again any more."""
        self._seen = None


def is_foreign(runner: Mapping[str, Any] | None) -> bool:
    """
    Tell whether something else than twistd runs us, which logs by itself.

    @param runner: the options before ours; L{None} if we are alone, as in a
        C{.tac} file, whose application we give our observer to.
    """
    return runner is not None and "nodaemon" not in runner


def plan_log(
    runner: Mapping[str, Any] | None, server: ServerConfig, level: str | None, fmt: str | None
) -> LogPlan:
    """
    Decide where the log goes.

    @param runner: see L{is_foreign}.
    @param level: what our option says, if anything.
    @param fmt: the same.
    """
    level = level or server.default_log_level
    fmt = fmt or "text"
    path = server.default_log_path or "stdout"
    if is_foreign(runner):
        assert runner is not None
        if path not in STANDARD_OUTPUT:
            return LogPlan(path, level, fmt, beside=True)
        # What workers write should look like what is beside it.
        name = getattr(runner.get("logFile"), "name", "<stdout>")
        path = {"<stdout>": "stdout", "<stderr>": "stderr"}.get(name, name)
        level = level_name(runner.get("logLevel", LogLevel.info))
        return LogPlan(path, level, str(runner.get("logFormat", fmt)), theirs=True)
    twistd = runner or {}
    path = twistd.get("logfile") or path
    if path in STANDARD_OUTPUT:
        # A daemon has no standard output to write to; twistd's own default then.
        path = "stdout" if twistd.get("nodaemon", True) else "twistd.log"
    return LogPlan(path, level, fmt, where=Place("--logfile") if twistd.get("logfile") else LOG_PATH)
