"""
The requests under way of one RPC client, and their limits.

Reading from a client is paused while it has too many requests under way, or too many
bytes of them, or while a host does not read its requests.
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
    The requests under way of one client.

    @ivar exchanges: the requests, in their order.
    @ivar held: the number of their bytes.
    @ivar blocking: the connections to hosts whose output buffers are full of the client's requests.
    """

    __slots__ = ("_budget", "blocking", "exchanges", "held")

    def __init__(self, budget: BufferBudget) -> None:
        """
        @param budget: limits the bytes of all clients together.
        """
        self.exchanges: dict[RpcExchange, None] = {}
        self.held = 0
        self.blocking: set[Outgoing] = set()
        self._budget = budget

    def add(self, exchange: RpcExchange) -> None:
        """Add a request."""
        self.exchanges[exchange] = None
        self.held += exchange.received

    def remove(self, exchange: RpcExchange) -> None:
        """Remove a request."""
        self.exchanges.pop(exchange, None)
        self.held -= exchange.received

    def take_all(self) -> list[RpcExchange]:
        """Remove and return all requests."""
        exchanges = list(self.exchanges)
        self.exchanges.clear()
        self.blocking.clear()
        self.held = 0
        return exchanges

    @property
    def full(self) -> bool:
        """Whether reading should be paused."""
        held = self.held
        return bool(
            self.blocking
            or len(self.exchanges) >= MAX_REQUESTS
            or held >= HELD_LIMIT
            or (held > FREE and self._budget.tight)
        )
