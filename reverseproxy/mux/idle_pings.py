"""
How often connections without streams are pinged.

Whether a machine or the network has failed, the kernel finds out by itself
(L{reverseproxy.net.dead_peers}), for a hundredth of the cost of a ping.  A ping finds
out whether the peer's I{process} is alive.  No request waits for that on a connection
without streams.  So, with more than L{MANY} connections in this process, two things
are different for those without streams:

  - Longer timeouts.  A process that has as many connections, or waits for a CPU,
    answers late, by many seconds if its machine has other work; if its connections
    were closed for that, it would have more to do.  As long as its kernel acknowledges
    pings, it may be silent for L{PATIENCE} times as long; meanwhile it is chosen last
    (L{reverseproxy.cluster.health.stalls}).
  - Longer intervals.  Each is pinged less often, so that all together are pinged as
    often as L{MANY} connections would be.
"""

from __future__ import annotations

__all__ = ["MANY", "PATIENCE", "SESSIONS", "Sessions", "has_taken_all"]

from typing import Any, Final

from reverseproxy.net.tcp_info import tcp_info
from reverseproxy.transport.backlog import backlog_of

PATIENCE: Final = 30.0
"""How long a process may be silent while its kernel acknowledges, as a multiple of C{mux_ping_timeout}."""

MANY: Final = 1000
"""Multiplexed connections of this process, up to which intervals and timeouts are those configured."""


class Sessions:
    """
    The multiplexed connections of a process.

    @ivar count: how many there are.
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    @property
    def many(self) -> bool:
        """Whether there are so many that answers may be late."""
        return self.count > MANY

    def stretch(self, pause: float) -> float:
        """Return the interval of pings on a connection without streams, in seconds."""
        return pause * self.count / MANY if self.many else pause


SESSIONS: Final = Sessions()
"""The multiplexed connections of this process."""


def has_taken_all(transport: Any) -> bool:
    """
    Return whether a peer's kernel has acknowledged all that was written, pings included.

    @param transport: of a connection, over TLS or not; false for anything but TCP on Linux.
    """
    return tcp_info(transport) is not None and not backlog_of(transport).size
