"""The reactor as the services want it: its clock, its connections, and the process around it."""

from __future__ import annotations

__all__ = ["prepare_reactor"]

from typing import Any

from twisted.internet.selectreactor import SelectReactor

from reverseproxy.clock import use_monotonic_time
from reverseproxy.limits.connection_limit import Descriptors
from reverseproxy.transport import is_supported, with_bounds, with_streams
from reverseproxy.transport.allocator import keep_memory
from reverseproxy.transport.garbage import leave_alone


def prepare_reactor(reactor: Any, transport: str | None) -> Any:
    """
    Prepare a process for many connections.

    The reactor measures monotonic time, the soft limit of descriptors is raised, and
    the garbage collector ignores what was made at the start.

    @param transport: C{fast} or C{stock}; L{None} for the fast one where it works.
    @return: the reactor with the connections that were asked for.
    """
    if not isinstance(reactor, SelectReactor):  # which can't watch more than the usual 1024
        Descriptors.raise_limit()
    use_monotonic_time(reactor)
    # In the first turn: it takes a while, during which SIGTERM would still be the reactor's.
    reactor.callWhenRunning(reactor.callLater, 0, leave_alone)
    if transport == "stock" or not is_supported(reactor):
        return with_bounds(reactor)
    keep_memory()
    return with_streams(reactor)
