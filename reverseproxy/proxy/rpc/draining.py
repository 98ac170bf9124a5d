"""
When the connection of an RPC client may be closed that is to be closed.

    SERVING: it is not to be
    LEAVING: as soon as nothing is under way, and the client is about to ask for nothing more
    REFUSING: the same, and requests that still come are refused
    CLOSING: nothing that comes counts any more
    LOST: it is gone

A request that is on its way when the connection is closed fails for no reason
that its client knows of.  So a client that has been told to go away is left when
nothing has come for a moment, as it has heard of that by then.  One that can't be
told is left when neither a request nor an answer has come for a moment: one that
asks for one thing after the other does so right behind an answer.  If it had been
silent for longer before, there is nothing to wait for; nor is there once requests
are refused, but for those that follow the last answers.
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
"""Seconds in which a connection that is left still takes requests, if it is not idle for a moment."""


class DrainStage(IntEnum):
    """How near its end a connection is; see the module's text."""

    SERVING = 0
    LEAVING = 1
    REFUSING = 2
    CLOSING = 3
    LOST = 4


SERVING, LEAVING, REFUSING, CLOSING, LOST = DrainStage


class ConnectionDrain:
    """
    What is known of that, for one connection.

    @ivar stage: how near its end it is.
    @ivar eof: whether the client sends no more.
    """

    __slots__ = ("_clock", "_look", "_quiet_since", "_quiet_timer", "_refuse_timer", "_told", "eof", "stage")

    def __init__(self, clock: IReactorTime, look: Callable[[], object]) -> None:
        """
        @param look: called when it may be time to close the connection; to ask L{is_due}.
        """
        self.stage = SERVING
        self.eof = False
        self._clock = clock
        self._look = look
        self._told = False  # the client knows
        self._quiet_since = -inf  # as far as answers say
        self._quiet_timer: IDelayedCall | None = None
        self._refuse_timer: IDelayedCall | None = None

    @property
    def over(self) -> bool:
        """Whether nothing that comes counts any more."""
        return self.stage >= CLOSING

    @property
    def wanted(self) -> bool:
        """Whether the connection is to be closed as soon as it may be."""
        return self.eof or self.stage > SERVING

    def begin(self, told: bool, bounded: bool, heard_at: float) -> None:
        """
        The connection is to be closed.

        @param told: whether the client knows.
        @param heard_at: when something has come the last time.
        @param bounded: whether requests are refused that come in more than L{DRAIN_GRACE} seconds.
        """
        self.stage = LEAVING
        self._told = told
        now = self._clock.seconds()
        if told or now - heard_at < FRESH:
            self._quiet_since = now
        if bounded:
            self._refuse_timer = self._clock.callLater(DRAIN_GRACE, self._grace_is_over)

    def hurry(self) -> None:
        """The connection is to be closed at once, when nothing is under way."""
        self.stage = max(self.stage, REFUSING)
        self._quiet_since = -inf

    def answered(self) -> None:
        """The last answer that was under way is given: a client that is not told may ask for more now."""
        if not self._told:
            self._quiet_since = self._clock.seconds()

    def is_due(self, heard_at: float) -> bool:
        """
        Say whether the connection is to be closed now that nothing is under way.

        If a request may still come, this is asked again when it has not.

        @param heard_at: when something has come the last time.
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
        The connection is being closed, or is lost.

        @param stage: which of these.
        """
        self.stage = max(self.stage, stage)
        for timer in (self._quiet_timer, self._refuse_timer):
            if timer is not None:
                timer.cancel()
        self._quiet_timer = self._refuse_timer = None
