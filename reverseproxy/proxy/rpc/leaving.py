"""
When the connection of an RPC client may be closed that is to be closed.

    SERVING: it is not to be
    LEAVING: as soon as nothing is under way, and the client is about to ask for nothing more
    REFUSING: the same, and requests that still come are refused
    CLOSING: nothing that comes counts any more
    LOST: it is gone

A client that has been told to go away goes on until it has heard of that.  One
that can't be told is left when it has asked for nothing for a moment, as a
request that is on its way when the connection is closed would fail for no
reason that its client knows of: a client that asks for one thing after the
other would, each time, if its connection was closed behind an answer.
"""

from __future__ import annotations

__all__ = ["CLOSING", "DRAIN_GRACE", "LEAVING", "LOST", "REFUSING", "SERVING", "Leaving", "Stage"]

from collections.abc import Callable
from enum import IntEnum
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from reverseproxy.proxy.farewell import QUIET

DRAIN_GRACE: Final = 5.0
"""Seconds in which a connection that is left still takes requests, if it is not idle for a moment."""


class Stage(IntEnum):
    """How near its end a connection is; see the module's text."""

    SERVING = 0
    LEAVING = 1
    REFUSING = 2
    CLOSING = 3
    LOST = 4


SERVING, LEAVING, REFUSING, CLOSING, LOST = Stage


class Leaving:
    """
    What is known of that, for one connection.

    @ivar stage: how near its end it is.
    @ivar eof: whether the client sends no more.
    """

    __slots__ = ("_clock", "_look", "_quiet_timer", "_refuse_timer", "_until_quiet", "eof", "stage")

    def __init__(self, clock: IReactorTime, look: Callable[[], object]) -> None:
        """
        @param look: called when it may be time to close the connection; to ask L{is_due}.
        """
        self.stage = SERVING
        self.eof = False
        self._clock = clock
        self._look = look
        self._until_quiet = False  # a request may be on its way
        self._quiet_timer: IDelayedCall | None = None
        self._refuse_timer: IDelayedCall | None = None

    @property
    def refuses(self) -> bool:
        """Whether requests that come are refused."""
        return self.stage >= REFUSING

    @property
    def over(self) -> bool:
        """Whether nothing that comes counts any more."""
        return self.stage >= CLOSING

    @property
    def wanted(self) -> bool:
        """Whether the connection is to be closed as soon as it may be."""
        return self.eof or self.stage > SERVING

    def begin(self, told: bool, bounded: bool) -> None:
        """
        The connection is to be closed.

        @param told: whether the client knows.
        @param bounded: whether requests are refused that come in more than L{DRAIN_GRACE} seconds.
        """
        self.stage = LEAVING
        self._until_quiet = told
        if bounded:
            self._refuse_timer = self._clock.callLater(DRAIN_GRACE, self._grace_is_over)

    def refuse(self) -> None:
        """Requests that still come are refused."""
        self.stage = max(self.stage, REFUSING)

    def is_due(self, heard_at: float) -> bool:
        """
        Say whether the connection is to be closed now that nothing is under way.

        If a request may still come, this is asked again when it has not.

        @param heard_at: when something has come the last time.
        """
        if self.over or not self.wanted:
            return False
        if self.eof or self.refuses or not self._until_quiet:
            return True
        left = heard_at + QUIET - self._clock.seconds()
        if left > 0 and self._quiet_timer is None:
            self._quiet_timer = self._clock.callLater(left, self._quiet)
        return left <= 0

    def _quiet(self) -> None:
        self._quiet_timer = None
        self._look()

    def _grace_is_over(self) -> None:
        self._refuse_timer = None
        self.refuse()
        self._look()

    def end(self, stage: Stage) -> None:
        """
        The connection is being closed, or is lost.

        @param stage: which of these.
        """
        self.stage = max(self.stage, stage)
        for timer in (self._quiet_timer, self._refuse_timer):
            if timer is not None:
                timer.cancel()
        self._quiet_timer = self._refuse_timer = None
