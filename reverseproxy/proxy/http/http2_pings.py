"""Find out by PING whether a host that speaks HTTP/2 is alive."""

from __future__ import annotations

__all__ = ["Pings"]

from collections.abc import Hashable
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reverseproxy.proxy.connection_pool import Keepalive


class Pings:
    """Finds out whether the host at the other end of a connection is alive."""

    __slots__ = ("_ask_at", "_asked_at", "_by", "_interval", "_mark", "_timeout")

    def __init__(self, keepalive: Keepalive) -> None:
        self._interval = keepalive.interval
        self._timeout = keepalive.timeout
        self._ask_at = self._by = inf
        self._asked_at = 0.0
        self._mark: Hashable = None

    @property
    def due(self) -> float:
        """When to check next; infinity for never."""
        return min(self._by, self._ask_at)

    def start(self, now: float) -> None:
        """Begin, as the connection is made."""
        if self._interval > 0:
            self._ask_at = now + self._interval

    def answered(self) -> None:
        """Note that the host has answered a PING."""
        self._by = inf

    def is_dead(self, now: float, mark: Hashable, heard: float) -> bool:
        """
        Return whether a host that has not answered is dead, rather than slow.

        The PING waits behind what else is on its way there, and the answer behind
        what is on its way here.  If the timer of this check was late, the host had more time
        (L{reverseproxy.proxy.lazy_timer}).

        @param mark: of what the host has taken; see L{Backlog}.
        @param heard: when something has come the last time.
        """
        if self._by > now:
            return False
        if mark == self._mark and heard < self._asked_at:
            return True
        self._asked_at, self._mark = now, mark
        self._by = now + self._timeout
        return False

    def asks(self, now: float, mark: Hashable) -> bool:
        """Return whether it is time for a PING, which the caller sends."""
        if self._ask_at > now:
            return False
        self._ask_at = now + self._interval
        if self._by < inf:
            return False
        self._by = now + self._timeout
        self._asked_at, self._mark = now, mark
        return True
