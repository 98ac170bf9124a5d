"""Events for the listeners of a directory, and log lines about bad records."""

from __future__ import annotations

__all__ = ["BadRecordLog", "DirectoryNotifier", "RouteNotifier", "log_notice"]

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from reverseproxy.fleet.interfaces import IDirectoryListener
from reverseproxy.fleet.record_table import Notice
from reverseproxy.fleet.records import RouteRecord, ServerRecord
from reverseproxy.fleet.work_queue import WorkQueue
from reverseproxy.logs import Throttle, counted

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


class RouteNotifier:
    """Calls back about the routes of other servers' agents."""

    def __init__(self) -> None:
        self._told: Callable[[str, RouteRecord], object] = lambda event, record: None
        self._lost: Callable[[], object] = lambda: None

    def set(self, told: Callable[[str, RouteRecord], object], lost: Callable[[], object]) -> None:
        """Set the callbacks; see L{IRouteDirectory.follow_routes}."""
        self._told = told
        self._lost = lost

    def notify(self, notice: Notice) -> None:
        """
        Deliver a notice; exceptions are logged.

        @param notice: C{route_came}, C{route_left} or C{route_changed}; the last means that the old
            record has left, and the new one has come.
        """
        record: Any = notice.arguments[0]
        event = notice.method.removeprefix("route_")
        try:
            if event == "changed":
                old: Any = notice.arguments[1]
                self._told("left", old)
                event = "came"
            self._told(event, record)
        except Exception:
            log.failure("fleet: a mistake with routes of cluster {cluster}", cluster=record.cluster)

    def lease_lost(self) -> None:
        """Tell that this server's lease has ended."""
        self._lost()


def log_notice(notice: Notice, servers: int) -> None:
    """
    Log that a server has joined, leaves or has left.

    @param servers: how many other servers there are now.
    """
    server, *rest = notice.arguments
    if not isinstance(server, ServerRecord):
        return
    if notice.method == "server_came":
        log.info(
            "fleet: server {server} at {address} has joined, {servers} now beside this one",
            server=server.id,
            address=server.address,
            servers=counted(servers, "server"),
        )
    elif notice.method == "server_left":
        log.info(
            "fleet: server {server} at {address} has left: {reason}",
            server=server.id,
            address=server.address,
            reason=rest[0],
        )
    elif server.draining:
        log.info("fleet: server {server} is about to leave", server=server.id)
