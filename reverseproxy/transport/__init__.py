"""Sockets behind Twisted's interfaces, at about half of the price of Twisted's own."""

from __future__ import annotations

__all__ = ["is_supported", "with_streams"]

import sys
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
