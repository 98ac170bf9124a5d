"""
What is under way of one client of RPC, and when it is too much for more to be read.

No more is read from a client that has too many requests under way, or too many
bytes of them, or whose requests a host does not take.
"""

from __future__ import annotations

__all__ = ["HELD_LIMIT", "MAX_REQUESTS", "UnderWay"]

from typing import TYPE_CHECKING, Final

from reverseproxy.limits.buffered_bytes import FREE, BufferBudget

if TYPE_CHECKING:
    from reverseproxy.proxy.rpc.exchange import RpcExchange
    from reverseproxy.proxy.rpc.outgoing import Outgoing

MAX_REQUESTS: Final = 32768
"""Requests of one connection that may be under way."""

HELD_LIMIT: Final = 32 * 1024 * 1024
"""Bytes of requests under way of one connection."""


class UnderWay:
    """
    See the module's text.

    @ivar exchanges: the requests, in their order.
    @ivar held: bytes of them.
    @ivar blocking: the connections to hosts that take none of the client's requests for now.
    """

    __slots__ = ("_books", "blocking", "exchanges", "held")

    def __init__(self, books: BufferBudget) -> None:
        """
        @param books: bound what is kept of all clients together.
        """
        self.exchanges: dict[RpcExchange, None] = {}
        self.held = 0
        self.blocking: set[Outgoing] = set()
        self._books = books

    def add(self, exchange: RpcExchange) -> None:
        """A request has come."""
        self.exchanges[exchange] = None
        self.held += exchange.received

    def remove(self, exchange: RpcExchange) -> None:
        """A request is over."""
        self.exchanges.pop(exchange, None)
        self.held -= exchange.received

    def take_all(self) -> list[RpcExchange]:
        """Forget all requests, as the client is gone."""
        exchanges = list(self.exchanges)
        self.exchanges.clear()
        self.blocking.clear()
        self.held = 0
        return exchanges

    @property
    def full(self) -> bool:
        """Whether no more should be read."""
        held = self.held
        return bool(
            self.blocking
            or len(self.exchanges) >= MAX_REQUESTS
            or held >= HELD_LIMIT
            or (held > FREE and self._books.tight)
        )
