"""Tells those who listen to a directory what is different; and operators, which records are none."""

from __future__ import annotations

__all__ = ["AT_ONCE", "Complaints", "Teller"]

from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from reverseproxy.fleet.interfaces import IDirectoryListener
from reverseproxy.fleet.view import Notice
from reverseproxy.logs import Throttle

log = Logger()

AT_ONCE: Final = 100
"""How many changes listeners are told of in one turn of the reactor."""


class Teller:
    """
    Tells listeners, all of them in the same order.

    Much that is different at once is told bit by bit: requests are served meanwhile.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._listeners: list[IDirectoryListener] = []
        self._untold: deque[Notice] = deque()
        self._telling = False

    def add(self, listener: IDirectoryListener, known: Iterable[Notice]) -> None:
        """
        Let somebody listen.

        @param known: what has to be told to somebody who knows nothing.
        """
        # What the others are still to be told, this one is told with all the rest.
        while self._untold:
            self._tell_next()
        self._listeners.append(listener)
        for notice in known:
            self._tell(listener, notice)

    def remove(self, listener: IDirectoryListener) -> None:
        """Tell somebody nothing any more."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def tell(self, notices: Iterable[Notice]) -> None:
        """Tell all that are there."""
        self._untold.extend(notices)
        if not self._telling:
            self._tell_some()

    def _tell_some(self) -> None:
        for _ in range(min(AT_ONCE, len(self._untold))):
            if self._untold:  # who is told may have let somebody listen
                self._tell_next()
        self._telling = bool(self._untold)
        if self._telling:
            self._clock.callLater(0, self._tell_some)

    def _tell_next(self) -> None:
        notice = self._untold.popleft()
        for listener in list(self._listeners):
            self._tell(listener, notice)

    def _tell(self, listener: IDirectoryListener, notice: Notice) -> None:
        try:
            getattr(listener, notice.method)(*notice.arguments)
        except Exception:
            log.failure("fleet: {listener!r} failed when it was told", listener=listener)


class Complaints:
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
