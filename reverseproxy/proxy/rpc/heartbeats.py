"""
Whether a connection to a host is alive: heartbeats, and who waits for their answers.

When nothing has come for a while a heartbeat is sent, and the connection is closed
after several that nobody has answered (docs/mosn.rst 3.4).  A cluster may want them
at other times, too (C{keepalive}).
"""

from __future__ import annotations

__all__ = ["HEARTBEAT_FAILURES", "HEARTBEAT_IDLE", "Heartbeat", "Heartbeats"]

from collections.abc import Hashable
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from reverseproxy.errors import HostGone
from reverseproxy.net.lenient_timeouts import LenientTimeout
from reverseproxy.proxy.rpc.in_flight import InFlight

if TYPE_CHECKING:
    from reverseproxy.proxy.connection_pool import Keepalive

HEARTBEAT_IDLE: Final = 15.0
"""Seconds in which nothing has come, after which a heartbeat is sent (docs/mosn.rst 3.4)."""

HEARTBEAT_FAILURES: Final = 6
"""Heartbeats in a row without an answer, after which a connection is closed (docs/mosn.rst 3.4)."""

MOST_WAITING: Final = 32
"""Heartbeats that may wait for an answer; more of them would find out nothing else."""


class Heartbeat(Protocol):
    """A heartbeat that waits for its answer."""

    def answered(self) -> None:
        """The connection is alive."""

    def lost(self) -> None:
        """There is nothing to wait for any more."""


class _Beat:
    """One that has a time for its answer."""

    __slots__ = ("_timer",)

    def __init__(self, timer: LenientTimeout) -> None:
        self._timer = timer

    def answered(self) -> None:
        """See L{Heartbeat}."""
        self._timer.cancel()

    lost = answered


class _Question:
    """One whose answer somebody waits for."""

    __slots__ = ("_verdict",)

    def __init__(self, verdict: Deferred[None]) -> None:
        self._verdict = verdict

    def answered(self) -> None:
        """See L{Heartbeat}."""
        self._verdict.callback(None)

    def lost(self) -> None:
        """See L{Heartbeat}."""
        self._verdict.errback(HostGone("the connection is closed"))


class IBeating(Protocol):
    """What heartbeats need of their connection."""

    def send_heartbeat(self, number: int) -> None:
        """Send one with this id."""

    @property
    def taken(self) -> Hashable:
        """What the host has taken of what was sent: different if that was more; see L{Backlog.mark}."""

    @property
    def unread(self) -> bool:
        """Whether it is us who do not read."""

    def dead(self, failures: int) -> None:
        """So many heartbeats in a row were not answered."""


class Heartbeats:
    """
    The heartbeats of one connection.

    @ivar failures: how many in a row were not answered.
    """

    __slots__ = ("_clock", "_connection", "_in_flight", "_keepalive", "_schedule", "_taken", "failures")

    def __init__(
        self, clock: IReactorTime, keepalive: Keepalive, in_flight: InFlight, connection: IBeating
    ) -> None:
        """
        @param in_flight: has their ids.
        """
        self.failures = 0
        self._clock = clock
        self._keepalive = keepalive
        self._in_flight = in_flight
        self._connection = connection
        self._taken: Hashable = None  # when the last one was sent
        self._schedule: IDelayedCall | None = None

    def begin(self) -> None:
        """Send them now and then, if the cluster wants that."""
        if self._keepalive.interval > 0:
            self._schedule = self._clock.callLater(self._keepalive.interval, self._scheduled)

    def _scheduled(self) -> None:
        self._schedule = self._clock.callLater(self._keepalive.interval, self._scheduled)
        self.send()

    def send(self) -> None:
        """Send one now, unless very many have no answer yet."""
        if len(self._in_flight.heartbeats) >= MOST_WAITING:
            return
        number = self._in_flight.next_id()
        self._taken = self._connection.taken
        timer = LenientTimeout(self._clock, self._keepalive.timeout, partial(self._too_late, number))
        self._in_flight.heartbeats[number] = _Beat(timer)
        self._connection.send_heartbeat(number)

    def _too_late(self, number: int) -> None:
        """Nobody has answered it in time."""
        del self._in_flight.heartbeats[number]
        if self._connection.unread or self._connection.taken != self._taken:
            return  # it waits behind answers that we do not read, or requests that are on their way
        self.failures += 1
        if self.failures >= HEARTBEAT_FAILURES:
            self._connection.dead(self.failures)

    def ask(self) -> Deferred[None]:
        """
        Ask whether the host is well, whatever else is under way.

        @return: fires when the host has answered, and fails when the connection
            is lost.  May be cancelled; if it is us who do not read, that is no
            failure.
        """
        number = self._in_flight.next_id()
        verdict: Deferred[None] = Deferred(partial(self._not_asking, number))
        self._in_flight.heartbeats[number] = _Question(verdict)
        self._connection.send_heartbeat(number)
        return verdict

    def _not_asking(self, number: int, verdict: Deferred[None]) -> None:
        self._in_flight.heartbeats.pop(number, None)
        if self._connection.unread:
            verdict.callback(None)

    def stop(self) -> None:
        """The connection ends: nobody waits for answers any more."""
        schedule, self._schedule = self._schedule, None
        if schedule is not None:
            schedule.cancel()
        waiting = list(self._in_flight.heartbeats.values())
        self._in_flight.heartbeats.clear()
        for each in waiting:
            each.lost()
