"""
How often connections are asked that carry nothing.

Whether a machine or the network is gone, the kernel finds out by itself
(L{reverseproxy.net.dead_peers}), for a hundredth of what a question takes here.  A
question finds out whether the I{process} at the other end is there.  Nobody
waits for that on a connection without streams, so that, with more than L{MANY}
connections in this process, two things are given to it there:

  - Time.  A process that has as many to do with, or waits for a processor, answers
    late, by many seconds if its machine has other work; if connections are ended
    for that, it has more to do.  As long as its kernel takes what it is asked, it
    may be silent for L{PATIENCE} times as long; meanwhile it is picked last
    (L{reverseproxy.cluster.health.stalls}).
  - Rest.  Each is asked more rarely, so that all together are asked as often as
    L{MANY} would be.
"""

from __future__ import annotations

__all__ = ["MANY", "PATIENCE", "SESSIONS", "Sessions", "has_taken_all"]

from typing import Any, Final

from reverseproxy.net.tcp_info import tcp_info
from reverseproxy.transport.backlog import backlog_of

PATIENCE: Final = 30.0
"""How long a process may be silent whose kernel is there, as a multiple of C{mux_ping_timeout}."""

MANY: Final = 1000
"""Connections with streams in this process, up to which all are asked equally often, and soon given up."""


class Sessions:
    """
    How many connections with streams a process has.

    @ivar count: how many.
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    @property
    def many(self) -> bool:
        """Whether these are so many that some may be late."""
        return self.count > MANY

    def stretch(self, pause: float) -> float:
        """Say how long the pause between questions is on a connection that carries nothing."""
        return pause * self.count / MANY if self.many else pause


SESSIONS: Final = Sessions()
"""Those of this process."""


def has_taken_all(transport: Any) -> bool:
    """
    Whether a peer's kernel has acknowledged all that was written, questions included.

    @param transport: of a connection, over TLS or not; false for anything but TCP on Linux.
    """
    return tcp_info(transport) is not None and not backlog_of(transport).size
