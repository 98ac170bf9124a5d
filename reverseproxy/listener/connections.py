"""The connections that a listener has accepted: how many there may be, and how they end."""

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
Seconds that connections have which are ended at the limit of a drain: to send what is left, and for a
close frame to be answered.  What is open then is aborted.
"""


class Connections:
    """
    The open connections of one listener.

    @ivar clock: tells the time.
    @ivar ending: why what outlives the time for it is ended.
    @ivar abort_silent: closes those that have shown nothing yet, and are not among these.
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
        @param limiter: decides about connections.
        @param pause: makes the listener accept nothing, until what it gives is called.
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

    # who may stay

    def limit(self, most: int, of_one: int) -> None:
        """
        Have as many connections at the most, beginning with those that there are.

        @param most: all of them together; 0 for any number.
        @param of_one: those of one address; 0 for any number.
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
        """Decide about a new connection; one that was accepted earlier may have to go."""
        self._limiter.relieve(connection, self._listener, self._pause)
        if not self._limiter.enter(self._listener, connection.address, connection, self._limits):
            return False
        self._open.add(connection)
        return True

    def add(self, connection: AcceptedConnection) -> None:
        """Take in a connection that somebody else has decided about."""
        self._open.add(connection)

    def vouch(self, connection: AcceptedConnection) -> None:
        """Somebody else limits this connection from now on."""
        self._limiter.leave(connection.address, connection, self._limits)

    def forget(self, connection: AcceptedConnection) -> None:
        """A connection is closed."""
        self._open.discard(connection)
        self._limiter.leave(connection.address, connection, self._limits)
        if not self._open:
            waiting, self._waiting = self._waiting, []
            for emptied in waiting:
                emptied.callback(None)

    # how they end

    def part(self) -> int:
        """
        Close each of them when nothing of it is lost.

        @return: how many there are.
        """
        connections = list(self._open)
        for connection in connections:
            connection.part()
        return len(connections)

    def drain(self, seconds: float) -> Deferred[None]:
        """
        Let all of them finish.

        @param seconds: after this time, what is still open is ended as its protocol has it, and aborted
            L{END_TIME} later.
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
        """The time for what is under way is over."""
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
        """What is under way on all connections, for the log: how many of what."""
        return how_many(connection.doing or "idle connection" for connection in self._open)

    def emptied(self) -> Deferred[None]:
        """Wait until no connection is open."""
        if not self._open:
            return succeed(None)
        emptied: Deferred[None] = Deferred()
        self._waiting.append(emptied)
        return emptied

    def abort(self) -> None:
        """Close all connections now, and warn of it, as something may be under way on them."""
        self._abort(log.warn, "aborts")

    def close(self) -> None:
        """Close all connections now, as the listener stops."""
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
