"""Closing a connection whose peer has not read everything yet."""

from __future__ import annotations

__all__ = ["CLOSE_TIMEOUT", "Closing"]

from collections.abc import Hashable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from reverseproxy.transport.backlog import backlog_of

CLOSE_TIMEOUT: Final = 5.0
"""Seconds within which the peer must acknowledge some of the unsent bytes of a closing connection."""


class Closing:
    """
    Closes a connection, and aborts it if its peer stops reading.

    @ivar begun: whether closing has begun.
    """

    __slots__ = ("_clock", "_timer", "_transport", "begun")

    def __init__(self, clock: IReactorTime) -> None:
        self.begun = False
        self._clock = clock
        self._transport: Any = None
        self._timer: IDelayedCall | None = None

    def begin(self, transport: Any) -> None:
        """Close a connection behind what was written."""
        self.begun = True
        self._transport = transport
        self._wait(backlog_of(transport).mark)
        transport.unregisterProducer()  # TLS transports don't close while they have a producer
        transport.loseConnection()

    def _wait(self, mark: Hashable) -> None:
        self._timer = self._clock.callLater(CLOSE_TIMEOUT, self._look, mark)

    def _look(self, before: Hashable) -> None:
        """Check whether the peer still reads, and abort the connection if it doesn't."""
        waits = backlog_of(self._transport)
        if waits.size and waits.mark != before:
            self._wait(waits.mark)
        else:
            self._transport.abortConnection()

    def done(self) -> None:
        """Stop checking, as the connection is lost."""
        self._transport = None
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
