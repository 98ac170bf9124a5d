"""What exchanges, clients' connections and hosts' connections of RPC protocols are to each other."""

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
    """A connection that collects what is to be written to it."""

    def flush(self) -> None:
        """Write it."""


Batch = list[IFlushed]
"""Connections to flush once what was read has been handled."""


class IRpcExchange(Protocol):
    """What a connection to a host needs of an exchange."""

    def upstream_response(self, frame: Frame, batch: Batch) -> None:
        """The response has come; the exchange is not known any more."""

    def upstream_lost(self, reason: str, flags: int, unsent: bool = False) -> None:
        """
        The connection is lost; there will be no response.

        @param flags: the reason as codes; see L{reverseproxy.proxy.flags}.
        @param unsent: whether nothing of the request has got anywhere.
        """


class IRpcDownstream(Protocol):
    """What a connection to a host needs of the connections that its requests come from."""

    def upstream_taken(self, outgoing: Outgoing) -> None:
        """A host has caught up that read more slowly than requests came; or there is nothing to wait for."""


class IRpcOwner(IRpcDownstream, Protocol):
    """
    What an exchange needs of the connection that it belongs to.

    @ivar batch: where connections wait to be flushed, while what was read from
        this one is handled.
    @ivar answers: what the client is to receive.
    @ivar believed: whether to believe what requests say of themselves.
    @ivar deadlines: end exchanges after some time.
    @ivar try_deadlines: end their attempts.
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
        """A connection to a host is full: read no more until it is not."""

    def exchange_done(self, exchange: RpcExchange) -> None:
        """The exchange is over."""
