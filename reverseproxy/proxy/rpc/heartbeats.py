"""
Heartbeats: finding out whether a connection to a host is alive.

When nothing has been received for a while a heartbeat is sent, and the connection is
closed after several without a reply (docs/mosn.rst 3.4).  With C{keepalive} of a
cluster they are sent at fixed intervals as well.
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
from reverseproxy.proxy.lazy_timer import LazyTimer
from reverseproxy.proxy.rpc.in_flight import InFlight

if TYPE_CHECKING:
    from reverseproxy.proxy.connection_pool import Keepalive

HEARTBEAT_IDLE: Final = 15.0
"""Seconds without any data from the host after which a heartbeat is sent (docs/mosn.rst 3.4)."""

HEARTBEAT_FAILURES: Final = 6
"""Heartbeats in a row without a reply after which the connection is closed (docs/mosn.rst 3.4)."""

MOST_WAITING: Final = 32
"""Heartbeats that may be under way at once on one connection."""


class Heartbeat(Protocol):
    """A heartbeat under way."""

    def answered(self) -> None:
        """Handle the reply."""

    def lost(self) -> None:
        """Stop waiting: the connection is lost."""


class _Beat:
    """A heartbeat with a timeout."""

    __slots__ = ("_timer",)

    def __init__(self, timer: LenientTimeout) -> None:
        self._timer = timer

    def answered(self) -> None:
        """See L{Heartbeat}."""
        self._timer.cancel()

    lost = answered


class _Question:
    """A heartbeat with a L{Deferred} for its reply."""

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
    """The part of a connection that heartbeats use."""

    def send_heartbeat(self, number: int) -> None:
        """Send a heartbeat with this id."""

    @property
    def taken(self) -> Hashable:
        """A value that changes whenever the host has received more of the output; see L{Backlog.mark}."""

    @property
    def unread(self) -> bool:
        """Whether reading is paused on our side."""

    def dead(self, failures: int) -> None:
        """Handle so many heartbeats in a row without a reply."""


class Heartbeats:
    """
    The heartbeats of one connection.

    @ivar failures: the number of heartbeats in a row without a reply.
    """

    __slots__ = (
        "_clock",
        "_connection",
        "_heard_at",
        "_idle_timer",
        "_in_flight",
        "_keepalive",
        "_schedule",
        "_taken",
        "failures",
    )

    def __init__(
        self, clock: IReactorTime, keepalive: Keepalive, in_flight: InFlight, connection: IBeating
    ) -> None:
        """
        @param in_flight: the requests and heartbeats under way, by id.
        """
        self.failures = 0
        self._clock = clock
        self._keepalive = keepalive
        self._in_flight = in_flight
        self._connection = connection
        self._taken: Hashable = None  # the connection's value when the last heartbeat was sent
        self._schedule: IDelayedCall | None = None
        self._heard_at = 0.0
        self._idle_timer = LazyTimer(clock, self._look)

    def begin(self) -> None:
        """Begin to send heartbeats: while the host is silent, and at the cluster's interval."""
        self._heard_at = self._clock.seconds()
        self._look()
        if self._keepalive.interval > 0:
            self._schedule = self._clock.callLater(self._keepalive.interval, self._scheduled)

    def _scheduled(self) -> None:
        self._schedule = self._clock.callLater(self._keepalive.interval, self._scheduled)
        self.send()

    def heard(self) -> None:
        """Note that the host has sent data, whatever it is: the connection is alive."""
        self.failures = 0
        self._heard_at = self._clock.seconds()

    def excuse(self) -> None:
        """Note that reading was paused on our side until now."""
        self._heard_at = self._clock.seconds()

    def _look(self) -> None:
        """Send a heartbeat if the host has been silent for long, and set the timer for the next check."""
        now = self._clock.seconds()
        if self._connection.unread:
            self._heard_at = now
        left = self._heard_at + HEARTBEAT_IDLE - now
        if left <= 0:
            self.send()
            left = HEARTBEAT_IDLE
        self._idle_timer.look_at(now + left)

    def send(self) -> None:
        """Send a heartbeat now, unless L{MOST_WAITING} are under way."""
        if len(self._in_flight.heartbeats) >= MOST_WAITING:
            return
        number = self._in_flight.next_id()
        self._taken = self._connection.taken
        timer = LenientTimeout(self._clock, self._keepalive.timeout, partial(self._too_late, number))
        self._in_flight.heartbeats[number] = _Beat(timer)
        self._connection.send_heartbeat(number)

    def _too_late(self, number: int) -> None:
        """Count a heartbeat without a reply in time."""
        del self._in_flight.heartbeats[number]
        if self._connection.unread or self._connection.taken != self._taken:
            return  # it may be stuck behind responses that we do not read, or requests that are being sent
        self.failures += 1
        if self.failures >= HEARTBEAT_FAILURES:
            self._connection.dead(self.failures)

    def ask(self) -> Deferred[None]:
        """
        Send a heartbeat, and wait for the reply.

        @return: fires with the reply, and fails when the connection is lost.  May be
            cancelled: if reading is paused on our side, it then fires with success.
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
        """Stop: the connection is closed."""
        self._idle_timer.stop()
        schedule, self._schedule = self._schedule, None
        if schedule is not None:
            schedule.cancel()
        waiting = list(self._in_flight.heartbeats.values())
        self._in_flight.heartbeats.clear()
        for each in waiting:
            each.lost()
