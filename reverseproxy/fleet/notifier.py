"""Events for the listeners of a directory, and log lines about bad records."""

from __future__ import annotations

__all__ = ["BadRecordLog", "DirectoryNotifier"]

from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from reverseproxy.fleet.interfaces import IDirectoryListener
from reverseproxy.fleet.view import Notice
from reverseproxy.fleet.work_queue import WorkQueue
from reverseproxy.logs import Throttle

log = Logger()


class DirectoryNotifier:
    """
    Calls the listeners of a directory, all of them in the same order.

    Many events at once are delivered in slices, so that requests are served in between.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._listeners: list[IDirectoryListener] = []
        self._turns = WorkQueue(clock)

    def add(self, listener: IDirectoryListener, known: Iterable[Notice]) -> None:
        """
        Add a listener.

        @param known: the events that bring it up to date.
        """
        # Events that wait are contained in C{known}: deliver them to the other listeners first.
        self._turns.finish()
        self._listeners.append(listener)
        for notice in known:
            self._tell(listener, notice)

    def remove(self, listener: IDirectoryListener) -> None:
        """Remove a listener; it gets no further events."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def tell(self, notices: Iterable[Notice]) -> None:
        """Deliver events to all listeners."""
        self._turns.add(self._tell_all, notices)

    def _tell_all(self, notice: Notice) -> None:
        for listener in list(self._listeners):
            self._tell(listener, notice)

    def _tell(self, listener: IDirectoryListener, notice: Notice) -> None:
        try:
            getattr(listener, notice.method)(*notice.arguments)
        except Exception:
            log.failure("fleet: {listener!r} failed when it was told", listener=listener)


class BadRecordLog:
    """
    Logs records of the store that can't be decoded, at a limited rate.

    @ivar count: how many there have been.
    """

    def __init__(self, clock: Any) -> None:
        self.count = 0
        self._throttle = Throttle(clock, 1.0, 5)

    def note(self, path: str, problem: str) -> None:
        """
        Count and log one.

        @param path: its key without the fleet's prefix.
        @param problem: what is wrong with it.
        """
        self.count += 1
        if self._throttle.allow():
            log.warn(
                "fleet: a bad record is left alone: {path}: {problem}{suppressed}",
                path="".join(each if each.isprintable() else "?" for each in path[:200]),
                problem=problem,
                suppressed=self._throttle.suppressed,
            )
