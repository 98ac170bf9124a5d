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
    Return a function that schedules a call for when a batch of events has been handled.

    @param clock: what L{with_streams} returns, whose events are handled in batches.
    @return: L{None} for any other clock.
    """
    at_turn_end: Callable[[Callable[[], object]], object] | None = getattr(clock, "call_at_turn_end", None)
    return at_turn_end


def with_bounds(reactor: Any) -> Any:
    """Limit how many connections ports of a reactor accept in one turn, if it is one of Twisted's."""
    if not isinstance(reactor, PosixReactorBase):
        return reactor
    # It can't be imported where there are no Unix sockets.
    from reverseproxy.transport.ports import BoundedReactor

    return BoundedReactor(reactor)


def turn_end_of(clock: Any) -> Callable[[Callable[[], object]], object]:
    """
    Return a function that schedules a call for the end of the reactor's turn.

    @param clock: see L{batching_of}; without batches, calls are made in the next turn,
        by C{callLater}.
    """
    return batching_of(clock) or partial(clock.callLater, 0)


def splice_to(source: Any, target: Any, size: int, on_spliced: Callable[[int], object]) -> bool:
    """
    Forward what one connection receives to another, without the protocol, if both are sockets of ours.

    @param source: a transport, as is C{target}.
    @param size: how many bytes; the protocol receives what comes behind them.
    @param on_spliced: called with the size of each part that was forwarded.
    @return: whether that is done from now on; if not, the protocol receives
        everything as usual.  L{stop_splice} ends it.
    """
    if sys.platform != "linux":
        return False
    from reverseproxy.transport.stream import StreamTransport

    if not isinstance(source, StreamTransport) or not isinstance(target, StreamTransport):
        return False
    source.splice_to(target, size, on_spliced)
    return True


def stop_splice(source: Any) -> None:
    """Forward nothing more of what a connection receives for which L{splice_to} has returned true."""
    source.stop_splice()
