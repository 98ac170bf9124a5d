"""
Decide where the log goes, depending on the runner: twistd or twist.

C{twistd} logs with the observer of its application, which is ours.  C{twist} has its own
options and its own observer, which can't be replaced; if the configuration names a file, our
observer writes it in addition.
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
    Where our observer and the workers write.

    @ivar path: see L{reverseproxy.logs.make_observer}, as for the next two.
    @ivar where: what names the path: a key of the document, or an option of twistd.
    @ivar beside: whether the runner writes a log of its own, and our observer a
        file in addition.
    @ivar theirs: whether only the runner writes a log in this process, so that our
        options for it have no effect.
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

    Twisted keeps events from before the beginning of logging, such as bound ports, and
    then publishes them again, also to observers that have seen them.
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
        """Stop comparing, as logging has begun and no event is published twice any more."""
        self._seen = None


def is_foreign(runner: Mapping[str, Any] | None) -> bool:
    """
    Say whether the runner is not twistd, and so writes a log of its own.

    @param runner: the options of the runner; L{None} without one, as in a C{.tac}
        file, whose application gets our observer.
    """
    return runner is not None and "nodaemon" not in runner


def plan_log(
    runner: Mapping[str, Any] | None, server: ServerConfig, level: str | None, fmt: str | None
) -> LogPlan:
    """
    Decide where the log goes.

    @param runner: see L{is_foreign}.
    @param level: our option for the level, if it is given.
    @param fmt: our option for the format, if it is given.
    """
    level = level or server.default_log_level
    fmt = fmt or "text"
    path = server.default_log_path or "stdout"
    if is_foreign(runner):
        assert runner is not None
        if path not in STANDARD_OUTPUT:
            return LogPlan(path, level, fmt, beside=True)
        # Workers write into the same log, in the same format.
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
