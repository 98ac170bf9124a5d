"""How long a slot waits before it dials again; pure, given the time."""

from __future__ import annotations

__all__ = ["BRIEF", "INSTANT", "REDIAL_BURST", "REDIAL_RATE", "SILENT_BURST", "EndedUnused", "RedialPolicy"]

from typing import Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime

from reverseproxy.logs import Throttle
from reverseproxy.tunnel.agent.backoff import Backoff
from reverseproxy.wire.mosn.frames import Status

_LASTING: Final = frozenset({Status.VALIDATOR_MISSING, Status.CLUSTER_UNKNOWN, Status.ROUTE_FORBIDDEN})
"""Refusals that last until a configuration is changed."""

BRIEF: Final = 1.0
"""Seconds; a connection that was used and did not live longer may be one of a storm."""

REDIAL_BURST: Final = 100
"""Brief connections that are replaced at once after a quiet time."""

REDIAL_RATE: Final = 10.0
"""
Brief connections per second that are replaced at once in the long run.

Short sessions of a plain TCP service look like a storm; each connection of an agent can serve at
least so many of them.
"""

INSTANT: Final = 0.01
"""Seconds; a connection that its server ends sooner was of no use to any client, unless it was used."""

SILENT_BURST: Final = 20
"""
Connections that end unused, but not at once, that are replaced without a delay.

In the long run at most two of them are replaced in each L{BRIEF}.
"""


class EndedUnused(ConnectionDone):
    """
    The server has ended a connection without having sent anything on it.

    A client may have used it nevertheless, and left without sending a byte: a port probe, or a client
    whose protocol lets the server speak first.
    """

    def __str__(self) -> str:
        return "the server has closed it, and had sent nothing"


class RedialPolicy:
    """
    The delays of one slot.

    @ivar backoff: delays after failures.
    @ivar stable: seconds after which a connection counts as a success, so that the backoff is reset.
    @ivar brief: limits how many brief connections are replaced at once.
    @ivar unused: limits how many unused ones are.
    @ivar storming: whether there were more brief connections than that, so that delays grow until a
        connection is not brief.
    """

    def __init__(self, clock: IReactorTime, backoff: Backoff, stable: float) -> None:
        self.backoff = backoff
        self.stable = stable
        self.brief = Throttle(clock, REDIAL_RATE, REDIAL_BURST)
        self.unused = Throttle(clock, 1 / BRIEF, SILENT_BURST)
        self.storming = False

    def adapt(self, backoff: Backoff, stable: float) -> None:
        """Use other settings; failures so far count."""
        self.backoff.adapt(backoff)
        self.stable = stable

    def after_refusal(self, status: int) -> float:
        """Return the delay after the server has refused the handshake."""
        return self.backoff.failed(lasting=status in _LASTING)

    def after_leave(self, seconds: float) -> float:
        """
        Return the delay before another connection is dialled, as the server is about to leave.

        @param seconds: after which the server wants that.
        """
        self.storming = False
        self.backoff.reset()
        return self.backoff.another(seconds)

    def after_loss(self, lived: float, used: bool, ended_unused: bool) -> float:
        """
        Return the delay before a connection is replaced that has served.

        There is none if it lived long or was used: without streams, a single TCP session uses up a
        connection, which must be replaced at once.  In that session the server may have sent nothing;
        then all that shows is that the server has ended the connection, and not at once.  So these are
        replaced at once as well, within a lower limit.  Everything else counts as a failure, as an agent
        would dial in a tight loop otherwise, if the server or the service closes each connection.  For
        the same reason, used connections count as failures above a rate.

        @param lived: seconds for which it has served.
        @param used: whether the server has sent anything on it.
        @param ended_unused: whether the server has ended it without that.
        """
        if lived >= self.stable or (used and lived >= BRIEF):
            self.backoff.reset()
            self.storming = False
            return 0.0
        if used and self.brief.allow():
            if not self.storming:
                self.backoff.reset()
            return 0.0
        if not used and lived >= (INSTANT if ended_unused else BRIEF):
            return 0.0 if self.unused.allow() else max(0.0, BRIEF - lived)
        self.storming = self.storming or used
        return self.backoff.failed()
