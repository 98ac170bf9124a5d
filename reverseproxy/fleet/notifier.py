"""Tells those who listen to a directory what is different; and operators, which records are none."""

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
    Tells listeners, all of them in the same order.

    Much that is different at once is told bit by bit: requests are served meanwhile.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._listeners: list[IDirectoryListener] = []
        self._turns = WorkQueue(clock)

    def add(self, listener: IDirectoryListener, known: Iterable[Notice]) -> None:
        """
        Let somebody listen.

        @param known: what has to be told to somebody who knows nothing.
        """
        # What the others are still to be told, this one is told with all the rest.
        self._turns.finish()
        self._listeners.append(listener)
        for notice in known:
            self._tell(listener, notice)

    def remove(self, listener: IDirectoryListener) -> None:
        """Tell somebody nothing any more."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def tell(self, notices: Iterable[Notice]) -> None:
        """Tell all that are there."""
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
    Says which records are none, not too often.

    @ivar count: how many there have been.
    """

    def __init__(self, clock: Any) -> None:
        self.count = 0
        self._throttle = Throttle(clock, 1.0, 5)

    def note(self, path: str, problem: str) -> None:
        """There is one."""
        self.count += 1
        if self._throttle.allow():
            log.warn(
                "fleet: a bad record is left alone: {path}: {problem}{suppressed}",
                path="".join(each if each.isprintable() else "?" for each in path[:200]),
                problem=problem,
                suppressed=self._throttle.suppressed,
            )
