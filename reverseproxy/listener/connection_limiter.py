"""Apply the limits of connections: close an idle connection for a new one, or refuse the new one."""

from __future__ import annotations

__all__ = ["ConnectionLimiter", "ILimitedConnection"]

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from reverseproxy.limits.connection_limit import ConnectionLimit, Descriptors
from reverseproxy.limits.refusals import REFUSALS
from reverseproxy.logs import Throttle

log = Logger()

LOG_RATE: Final = 0.1
"""Log lines a second about closed and refused connections."""

PAUSE: Final = 0.5
"""Seconds without accepting when descriptors are about to run out."""


class ILimitedConnection(Protocol):
    """An accepted, unauthenticated connection."""

    @property
    def expendable(self) -> bool:
        """See L{reverseproxy.limits.connection_limit.IEvictable}."""

    @property
    def descriptor(self) -> int:
        """Its file descriptor; negative if it has none."""

    def make_room(self) -> None:
        """Close, as another connection needs the place."""


class ConnectionLimiter:
    """
    Decides about each connection that a process accepts.

    @ivar everyone: the limit of all unauthenticated connections.
    @ivar closed: how many were closed for others.
    @ivar refused: how many were refused.
    """

    def __init__(self, clock: IReactorTime, descriptors: Descriptors | None = None) -> None:
        """
        @param descriptors: the descriptors of the process; read from the system if not given.
        """
        self._descriptors = descriptors or Descriptors.current()
        self._clock = clock
        self._throttle = Throttle(clock, LOG_RATE)
        self._exhausted = Throttle(clock, LOG_RATE)
        self.everyone: ConnectionLimit[Any] = ConnectionLimit(self._descriptors.for_strangers)
        self.closed = 0
        self.refused = 0

    def enter(
        self, listener: str, address: str, member: ILimitedConnection, limits: Sequence[ConnectionLimit[Any]]
    ) -> bool:
        """
        Decide about a new connection.

        @param address: the key of the peer's address.
        @param limits: the limits of its listener.
        @return: whether it is accepted; then it counts in all limits until L{leave}.
        """
        limits = (self.everyone, *limits)
        scarce = self._descriptors.is_scarce(member.descriptor)
        for limit in limits:
            if not limit.is_full(address) and not (scarce and limit is self.everyone):
                continue
            found = limit.victim(address)
            if found is None:
                self.refused += 1
                REFUSALS["connection_refused"] += 1
                self._tell(listener, address, limit, "its connection was not taken")
                return False
            loser, victim = found
            self.closed += 1
            REFUSALS["connection_closed"] += 1
            self._tell(listener, loser, limit, "one of these was closed")
            victim.make_room()
            self.leave(loser, victim, limits)
        for limit in limits:
            limit.add(address, member)
        return True

    def leave(self, address: str, member: ILimitedConnection, limits: Sequence[ConnectionLimit[Any]]) -> None:
        """Count a connection no more, as it is closed or authenticated; unknown ones are ignored."""
        self.everyone.discard(address, member)
        for limit in limits:
            limit.discard(address, member)

    def relieve(
        self, member: ILimitedConnection, listener: str, pause: Callable[[], Callable[[], object]]
    ) -> None:
        """
        Pause a listener for a while if descriptors are about to run out.

        @param pause: pauses it, and returns a function that resumes it.
        """
        if not self._descriptors.is_exhausted(member.descriptor):
            return
        if self._exhausted.allow():
            log.error(
                "listener {listener}: {descriptor} of {limit} descriptors are in use, so that nothing is "
                "accepted for {pause:g} s; raise the hard limit of open files "
                "(ulimit -n, or LimitNOFILE= of a unit)",
                listener=listener,
                descriptor=member.descriptor,
                limit=self._descriptors.limit,
                pause=PAUSE,
            )
        self._clock.callLater(PAUSE, pause())

    def _tell(self, listener: str, address: str, limit: ConnectionLimit[Any], what: str) -> None:
        if not self._throttle.allow():
            return
        log.warn(
            "listener {listener}: too many connections, {count} of them from {address}: {what}; "
            "{bound}{suppressed}",
            listener=listener,
            count=limit.count(address),
            address=address or "Unix sockets",
            what=what,
            bound=f"there may be {limit.most}"
            + (f", and {limit.most_per_address} of an address" if limit.most_per_address else ""),
            suppressed=self._throttle.suppressed,
        )
