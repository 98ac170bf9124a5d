"""Interfaces between the exchanges, the clients' connections and the hosts' connections of RPC protocols."""

from __future__ import annotations

__all__ = ["Batch", "IFlushed", "IRpcDownstream", "IRpcExchange", "IRpcOwner"]

from typing import TYPE_CHECKING, Protocol

from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.wire.rpc.xprotocol import Frame, XProtocol

if TYPE_CHECKING:
    from reverseproxy.proxy.rpc.answers import Answers
    from reverseproxy.proxy.rpc.deadlines import Deadlines
    from reverseproxy.proxy.rpc.exchange import RpcExchange
    from reverseproxy.proxy.rpc.outgoing import Outgoing
    from reverseproxy.proxy.rpc.settings import RpcSettings
    from reverseproxy.proxy.rpc.timed import RpcTimed


class IFlushed(Protocol):
    """An output buffer that is flushed at the end of a read."""

    def flush(self) -> None:
        """Write what is buffered to the transport."""


Batch = list[IFlushed]
"""Output buffers to flush when a read has been handled."""


class IRpcExchange(Protocol):
    """The part of an exchange that a connection to a host uses."""

    def upstream_response(self, frame: Frame, batch: Batch) -> None:
        """Handle the response; the connection has forgotten the exchange."""

    def upstream_lost(self, reason: str, flags: int, unsent: bool = False) -> None:
        """
        Handle the loss of the connection before the response.

        @param flags: the reason as codes; see L{reverseproxy.proxy.flags}.
        @param unsent: whether the agent has passed on nothing of the request.
        """


class IRpcDownstream(Protocol):
    """The part of a client's connection that a connection to a host uses."""

    def upstream_taken(self, outgoing: Outgoing) -> None:
        """Handle that the output buffer of a host's connection is not full any more, or is gone."""


class IRpcOwner(IRpcDownstream, Protocol):
    """
    The part of a client's connection that its exchanges use.

    @ivar settings: the filter's.
    @ivar info: the client's addresses and identity.
    @ivar protocol: the protocol of the connection.
    @ivar batch: collects output buffers to flush, while a read is handled; L{None} otherwise.
    @ivar answers: the output buffer of the connection.
    @ivar believed: whether headers about the client and about timeouts are trusted.
    @ivar deadlines: the deadlines of exchanges.
    @ivar try_deadlines: the deadlines of their attempts.
    """

    settings: RpcSettings
    info: ConnectionInfo
    protocol: XProtocol
    batch: Batch | None
    answers: Answers
    believed: bool
    deadlines: Deadlines[RpcTimed]
    try_deadlines: Deadlines[RpcTimed]

    def block(self, outgoing: Outgoing) -> None:
        """Pause reading until this output buffer is not full any more."""

    def exchange_done(self, exchange: RpcExchange) -> None:
        """Remove an exchange that has ended."""
