"""The factories in front of a listener's connections: PROXY protocol, TLS, plaintext."""

from __future__ import annotations

__all__ = [
    "ListenerEntrance",
    "InspectingFactory",
    "TLS_HANDSHAKE_TIMEOUT",
]

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from twisted.internet.interfaces import (
    IAddress,
    IProtocolFactory,
)
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger

from reverseproxy.addresses import host_of
from reverseproxy.limits.connection_limit import address_key
from reverseproxy.listener.accepted import AcceptedFactory
from reverseproxy.listener.connections import Connections
from reverseproxy.listener.proxy_protocol import proxied_factory, trusting
from reverseproxy.logs import LeftOut
from reverseproxy.logs.folding import Folding
from reverseproxy.net.formatting import format_address
from reverseproxy.tls import inspect_factory, wrap_server
from reverseproxy.transport.delegation import build_protocol

if TYPE_CHECKING:
    from reverseproxy.listener.listener import Listener

log = Logger(__package__)

TLS_HANDSHAKE_TIMEOUT = 15.0
"""Seconds for a client's TLS handshake, as MOSN's (docs/mosn.rst 1.3.11)."""


class InspectingFactory(ServerFactory):
    """
    Tracks the connections that have not shown yet whether they use TLS.

    @ivar silent: these connections, and some that have.
    """

    noisy = False

    def __init__(self, inspecting: IProtocolFactory) -> None:
        self._inspecting = inspecting
        self.silent: WeakSet[Any] = WeakSet()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Build the protocol of one connection."""
        protocol = build_protocol(self._inspecting, addr)
        self.silent.add(protocol)
        return protocol

    def abort(self) -> None:
        """Abort the connections that have sent nothing."""
        for protocol in list(self.silent):
            transport = protocol.transport
            # Once that is decided, or the connection is lost, it has another protocol, or none.
            if getattr(transport, "protocol", None) is protocol:
                transport.abortConnection()


class ListenerEntrance:
    """Makes the factory of a listener's connections, as its configuration says."""

    def __init__(self, listener: Listener, connections: Connections, reactor: Any) -> None:
        self._listener = listener
        self._connections = connections
        self._reactor = reactor
        self._complaints = Folding(reactor)
        self._inspecting: list[InspectingFactory] = []

    def make(self) -> IProtocolFactory:
        """Make the factory for the listener's current configuration."""
        factory = self._make_inside()
        headers = self._listener.config.proxy_protocol
        if headers is None:
            return factory
        trusts = trusting(headers.trusted_proxies)
        return proxied_factory(factory, trusts, self._reactor, self._no_header)

    def _no_header(self, peer: IAddress, reason: str) -> None:
        def say(left_out: LeftOut) -> None:
            log.warn(
                "listener {listener}: {peer} closed: {reason}; see trusted_proxies of its proxy_protocol"
                "{left_out}",
                listener=self._listener.name,
                peer=format_address(peer),
                reason=reason,
                left_out=left_out,
            )

        self._complaints.note((address_key(host_of(format_address(peer))), reason), say)

    def _make_inside(self) -> IProtocolFactory:
        plain = AcceptedFactory(self._listener, self._connections, secure=False)
        if self._listener.tls is None:
            return plain
        secure: IProtocolFactory = wrap_server(
            AcceptedFactory(self._listener, self._connections, secure=True),
            self._listener.tls,
            clock=self._reactor,
            handshake_timeout=TLS_HANDSHAKE_TIMEOUT,
            plaintext=plain,
            folding=self._complaints,
            listener=str(self._listener.name),
        )
        if not self._listener.config.inspector:
            return secure
        inspecting = InspectingFactory(inspect_factory(plain, secure))
        self._inspecting.append(inspecting)
        return inspecting

    def stop(self) -> None:
        """Write the log lines about bad peers that are still held back."""
        self._complaints.stop()

    def abort_silent(self) -> None:
        """Abort the connections that have sent nothing."""
        for inspecting in self._inspecting:
            inspecting.abort()
