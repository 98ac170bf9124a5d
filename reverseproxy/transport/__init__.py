"""Sockets behind Twisted's interfaces, at about half of the price of Twisted's own."""

from __future__ import annotations

__all__ = [
    "batching_of",
    "is_supported",
    "stop_splice",
    "splice_to",
    "turn_end_of",
    "with_bounds",
    "with_streams",
]

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.posixbase import PosixReactorBase


def is_supported(reactor: Any) -> bool:
    """Whether L{with_streams} works: on Linux, with a reactor that has real sockets."""
    return sys.platform == "linux" and isinstance(reactor, PosixReactorBase)


def with_streams(reactor: Any) -> Any:
    """Give a reactor connections of ours; see L{reverseproxy.transport.reactor.StreamReactor}."""
    # There is no epoll to import elsewhere.
    from reverseproxy.transport.reactor import StreamReactor

    return StreamReactor(reactor)


def batching_of(clock: Any) -> Callable[[Callable[[], object]], object] | None:
    """
    Find out how to have something called once a batch of events has been handled.

    @param clock: what L{with_streams} gives, which tells connections of their
        events in one go; anything else has no batches, and L{None} says so.
    """
    at_turn_end: Callable[[Callable[[], object]], object] | None = getattr(clock, "call_at_turn_end", None)
    return at_turn_end


def with_bounds(reactor: Any) -> Any:
    """Bound how many connections ports of a reactor accept in one turn, if it is known how."""
    if not isinstance(reactor, PosixReactorBase):
        return reactor
    # Importing it is of no use elsewhere: there are no Unix sockets.
    from reverseproxy.transport.ports import BoundedReactor

    return BoundedReactor(reactor)


def turn_end_of(clock: Any) -> Callable[[Callable[[], object]], object]:
    """
    Find out how to have something called at the end of the reactor's turn.

    @param clock: see L{batching_of}; where there are no batches, it is a call of
        C{callLater} for the next turn.
    """
    return batching_of(clock) or partial(clock.callLater, 0)


def splice_to(source: Any, target: Any, size: int, told: Callable[[int], object]) -> bool:
    """
    Let what comes on one connection go to another without a look at it, if these are sockets of ours.

    @param source: a transport, as is C{target}.
    @param size: how many bytes; what comes behind them is the protocol's again.
    @param told: called with the size of each part that has gone on.
    @return: whether that is so from now on; else the protocol hears of
        everything, as ever.  L{stop_splice} ends it.
    """
    if sys.platform != "linux":
        return False
    from reverseproxy.transport.stream import StreamTransport

    if not isinstance(source, StreamTransport) or not isinstance(target, StreamTransport):
        return False
    source.splice_to(target, size, told)
    return True


def stop_splice(source: Any) -> None:
    """Pass on nothing more of what comes on a connection for which L{splice_to} was true."""
    source.stop_splice()
