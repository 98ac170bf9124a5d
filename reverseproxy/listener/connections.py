"""The open connections of a listener: their limits, draining and aborting."""

from __future__ import annotations

__all__ = ["END_TIME", "Connections"]

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorTime,
)
from twisted.logger import Logger

from reverseproxy.limits.connection_limit import ConnectionLimit
from reverseproxy.listener.connection_limiter import ConnectionLimiter
from reverseproxy.logs import counted, how_many

if TYPE_CHECKING:
    from reverseproxy.listener.accepted import AcceptedConnection

log = Logger(__package__)

END_TIME: Final = 2.0
"""
Seconds for connections whose sessions were ended at the time limit of a drain: to send what is buffered,
and for the reply to a close frame.  Connections that are still open then are aborted.
"""


class Connections:
    """
    The open connections of one listener.

    @ivar clock: the time.
    @ivar ending: the reason given to sessions that are ended at the time limit of a drain.
    @ivar abort_silent: aborts connections without any data yet, which are not among these.
    """

    def __init__(
        self,
        listener: str,
        limiter: ConnectionLimiter,
        clock: IReactorTime,
        pause: Callable[[], Callable[[], object]],
    ) -> None:
        """
        @param listener: the listener's name.
        @param limiter: limits the connections of the process.
        @param clock: see the attribute.
        @param pause: pauses accepting, and returns a function that resumes it.
        """
        self._listener = listener
        self._limiter = limiter
        self._pause = pause
        self.clock = clock
        self.ending = "the server stops"
        self.abort_silent: Callable[[], None] = lambda: None
        self._open: set[AcceptedConnection] = set()
        self._limits: list[ConnectionLimit[Any]] = []
        self._waiting: list[Deferred[None]] = []
        self._aborting: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._open)

    # limits

    def limit(self, most: int, of_one: int) -> None:
        """
        Set the limits, which count open connections, too.

        @param most: the number of all connections; 0 for any number.
        @param of_one: the number of one address's; 0 for any number.
        """
        if self._limits:
            [limit] = self._limits
            limit.most, limit.most_per_address = most or sys.maxsize, of_one
        elif most or of_one:
            limit = ConnectionLimit(most or sys.maxsize, of_one)
            self._limits.append(limit)
            for connection in self._open:
                if not connection.vouched_for:
                    limit.add(connection.address, connection)

    def admit(self, connection: AcceptedConnection) -> bool:
        """Return whether a new connection is within the limits; an older one may be closed for it."""
        self._limiter.relieve(connection, self._listener, self._pause)
        if not self._limiter.enter(self._listener, connection.address, connection, self._limits):
            return False
        self._open.add(connection)
        return True

    def add(self, connection: AcceptedConnection) -> None:
        """Add a connection without checking limits."""
        self._open.add(connection)

    def vouch(self, connection: AcceptedConnection) -> None:
        """Count a connection in no limit any more, as others apply to it."""
        self._limiter.leave(connection.address, connection, self._limits)

    def forget(self, connection: AcceptedConnection) -> None:
        """Remove a connection that is lost."""
        self._open.discard(connection)
        self._limiter.leave(connection.address, connection, self._limits)
        if not self._open:
            waiting, self._waiting = self._waiting, []
            for emptied in waiting:
                emptied.callback(None)

    # closing

    def part(self) -> int:
        """
        Close each connection at a moment when nothing is lost.

        @return: the number of connections.
        """
        connections = list(self._open)
        for connection in connections:
            connection.part()
        return len(connections)

    def drain(self, seconds: float) -> Deferred[None]:
        """
        Let all connections finish.

        @param seconds: after which their sessions are ended, in their protocol's way; connections that
            are still open L{END_TIME} later are aborted.
        @return: fires when none is open.
        """
        for connection in list(self._open):
            connection.drain()
        self.abort_silent()
        if not self._open:
            return succeed(None)
        log.info(
            "listener {listener} waits for {connections} to finish, at most {seconds:g} s",
            listener=self._listener,
            connections=counted(len(self._open), "connection"),
            count=len(self._open),
            seconds=seconds,
        )
        deadline = self.clock.callLater(seconds, self._end, seconds)

        def done(_: None) -> None:
            for call in (deadline, self._aborting):
                if call is not None and call.active():
                    call.cancel()

        return self.emptied().addCallback(done)

    def _end(self, seconds: float) -> None:
        """End all sessions: the time limit has passed."""
        log.warn(
            "listener {listener}: {connections} outlived the {seconds:g} s for what is under way, ended now:"
            " {doing}",
            listener=self._listener,
            connections=counted(len(self._open), "connection"),
            count=len(self._open),
            seconds=seconds,
            doing=self.doing,
        )
        self._aborting = self.clock.callLater(END_TIME, self.abort)
        for connection in list(self._open):
            connection.end(self.ending)
        self.abort_silent()

    @property
    def doing(self) -> str:
        """What is under way on all connections, with numbers, for the log."""
        return how_many(connection.doing or "idle connection" for connection in self._open)

    def emptied(self) -> Deferred[None]:
        """Wait until no connection is open."""
        if not self._open:
            return succeed(None)
        emptied: Deferred[None] = Deferred()
        self._waiting.append(emptied)
        return emptied

    def abort(self) -> None:
        """Abort all connections, and log a warning, as something may be under way on them."""
        self._abort(log.warn, "aborts")

    def close(self) -> None:
        """Abort all connections, as the listener stops."""
        self._abort(log.info, "closes")

    def _abort(self, write: Callable[..., None], what: str) -> None:
        if self._open:
            write(
                "listener {listener} {what} {connections}",
                what=what,
                listener=self._listener,
                connections=counted(len(self._open), "connection"),
                count=len(self._open),
            )
        for connection in list(self._open):
            connection.transport.abortConnection()
        self.abort_silent()
