"""
Draining the connection of an RPC client: when it may be closed.

    SERVING: the connection is not draining
    LEAVING: it is closed as soon as no request is under way, and none is likely to be on its way
    REFUSING: the same, and further requests are refused
    CLOSING: the connection is being closed; what is received is dropped
    LOST: the connection is lost

A request that is on its way when the connection is closed fails, and its client
does not know why.  So if the client has been sent GOAWAY, the connection is closed
when nothing has been received for L{QUIET} seconds: the client has heard of it by
then.  If the protocol has no GOAWAY, it is closed when neither a request has been
received nor a response been sent for so long, as a client that sends one request
after the other sends the next one right after a response.  If the client had been
silent for longer before, the connection is closed at once; so it is when requests
are refused, except right after the last response.
"""

from __future__ import annotations

__all__ = [
    "CLOSING",
    "DRAIN_GRACE",
    "LEAVING",
    "LOST",
    "REFUSING",
    "SERVING",
    "ConnectionDrain",
    "DrainStage",
]

from collections.abc import Callable
from enum import IntEnum
from math import inf
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from reverseproxy.proxy.closing import FRESH, QUIET

DRAIN_GRACE: Final = 5.0
"""Seconds in which a draining connection still takes requests; after that they are refused."""


class DrainStage(IntEnum):
    """The state of a connection, in its order; see the module's text."""

    SERVING = 0
    LEAVING = 1
    REFUSING = 2
    CLOSING = 3
    LOST = 4


SERVING, LEAVING, REFUSING, CLOSING, LOST = DrainStage


class ConnectionDrain:
    """
    The draining of one connection.

    @ivar stage: the state of the connection.
    @ivar eof: whether the client has closed its half of the connection.
    """

    __slots__ = ("_clock", "_look", "_quiet_since", "_quiet_timer", "_refuse_timer", "_told", "eof", "stage")

    def __init__(self, clock: IReactorTime, look: Callable[[], object]) -> None:
        """
        @param look: called when it may be time to close the connection: L{is_due} says so.
        """
        self.stage = SERVING
        self.eof = False
        self._clock = clock
        self._look = look
        self._told = False  # the client was sent GOAWAY
        self._quiet_since = -inf  # when the last response was sent, if that counts
        self._quiet_timer: IDelayedCall | None = None
        self._refuse_timer: IDelayedCall | None = None

    @property
    def over(self) -> bool:
        """Whether the connection is being closed, or is lost."""
        return self.stage >= CLOSING

    @property
    def wanted(self) -> bool:
        """Whether the connection is to be closed as soon as possible."""
        return self.eof or self.stage > SERVING

    def begin(self, told: bool, bounded: bool, heard_at: float) -> None:
        """
        Begin to drain.

        @param told: whether the client was sent GOAWAY.
        @param bounded: whether requests are refused after L{DRAIN_GRACE} seconds.
        @param heard_at: when something was received the last time.
        """
        self.stage = LEAVING
        self._told = told
        now = self._clock.seconds()
        if told or now - heard_at < FRESH:
            self._quiet_since = now
        if bounded:
            self._refuse_timer = self._clock.callLater(DRAIN_GRACE, self._grace_is_over)

    def hurry(self) -> None:
        """Refuse further requests, and do not wait for any."""
        self.stage = max(self.stage, REFUSING)
        self._quiet_since = -inf

    def answered(self) -> None:
        """Note that the last response under way was sent: without GOAWAY, another request may follow it."""
        if not self._told:
            self._quiet_since = self._clock.seconds()

    def is_due(self, heard_at: float) -> bool:
        """
        Return whether the connection is to be closed now, while no request is under way.

        If not, but soon, C{look} is called again then.

        @param heard_at: when something was received the last time.
        """
        if self.over or not self.wanted:
            return False
        if self.eof:
            return True
        since = self._quiet_since
        if self.stage is LEAVING:
            since = max(since, heard_at)
        left = since + QUIET - self._clock.seconds()
        if left > 0 and self._quiet_timer is None:
            self._quiet_timer = self._clock.callLater(left, self._quiet)
        return left <= 0

    def _quiet(self) -> None:
        self._quiet_timer = None
        self._look()

    def _grace_is_over(self) -> None:
        self._refuse_timer = None
        self.stage = max(self.stage, REFUSING)
        self._look()

    def end(self, stage: DrainStage) -> None:
        """
        Stop all timers: the connection is being closed, or is lost.

        @param stage: which of these.
        """
        self.stage = max(self.stage, stage)
        for timer in (self._quiet_timer, self._refuse_timer):
            if timer is not None:
                timer.cancel()
        self._quiet_timer = self._refuse_timer = None
