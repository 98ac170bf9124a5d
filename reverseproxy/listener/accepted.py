"""Connections that a listener has accepted."""

from __future__ import annotations

__all__ = [
    "AcceptedConnection",
    "AcceptedFactory",
    "AdoptedConnection",
]

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    IProtocol,
)
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.handover import Handover
from reverseproxy.interfaces import ConnectionInfo, IDrainable, IExpendable, IPartable
from reverseproxy.limits.connection_limit import address_key
from reverseproxy.listener.connections import Connections
from reverseproxy.listener.proxy_protocol import ProxiedAddress
from reverseproxy.net.formatting import format_address
from reverseproxy.net.handles import descriptor_of
from reverseproxy.net.tcp_options import tune
from reverseproxy.proxy.closing import QUIET, doing, end_session
from reverseproxy.tls import gate_of, peer_subject

if TYPE_CHECKING:
    from reverseproxy.listener.listener import Listener

log = Logger(__package__)


@implementer(IHandshakeListener)
class AcceptedConnection(Handover):
    """
    An accepted connection: the outer protocol, which the filter's protocol is built behind.

    The filter's protocol is built when the peer is known: over TLS when the handshake is
    complete, as the peer's certificate goes into L{ConnectionInfo}.

    @ivar address: the address that limits count the connection for.
    @ivar vouched_for: whether another part limits it, such as a tunnel's quotas.
    """

    def __init__(
        self,
        listener: Listener,
        connections: Connections,
        secure: bool,
        proxied: ProxiedAddress | None = None,
    ) -> None:
        """
        @param listener: builds the inner protocol.
        @param connections: the listener's open connections.
        @param secure: whether it has TLS.
        @param proxied: the addresses in a PROXY protocol header, if there was one.
        """
        super().__init__()
        self._listener = listener
        self._connections = connections
        self._proxied = proxied
        self._secure = secure
        self._leaves: Callable[[], None] | None = None  # to be called once there is an inner protocol
        self.address = ""
        self.vouched_for = False

    def connectionMade(self) -> None:
        """Check the limits, and build the inner protocol unless TLS comes first."""
        self.address = address_key(getattr(self._peer, "host", ""))
        if not self._connections.admit(self):
            self.transport.abortConnection()
            return
        self._listener.accepted += 1
        tune(self.transport)
        if not self._secure:
            self._begin()

    # ILimited

    @property
    def expendable(self) -> bool:
        """Whether nothing is lost if it is closed."""
        inner = IExpendable(self.inner, None)
        return self.inner is None or (inner is not None and bool(inner.expendable))

    @property
    def descriptor(self) -> int:
        """Its file descriptor; -1 if it has none."""
        return descriptor_of(self.transport)

    def make_room(self) -> None:
        """Close, as there are too many connections."""
        self.transport.abortConnection()

    def vouched(self) -> None:
        """Leave the listener's limits, as the peer has been authenticated and others apply."""
        self.vouched_for = True
        self._connections.vouch(self)

    def handshakeCompleted(self) -> None:
        """Build the inner protocol: the peer is known."""
        self._begin()

    @property
    def _peer(self) -> Any:
        """The client's address."""
        return self.transport.getPeer() if self._proxied is None else self._proxied.source

    @property
    def _host(self) -> Any:
        """The address that the client has connected to."""
        return self.transport.getHost() if self._proxied is None else self._proxied.destination

    def _begin(self) -> None:
        subject = peer_subject(self.transport) if self._secure else None
        info = ConnectionInfo(
            remote=format_address(self._peer),
            local=format_address(self._host),
            secure=self._secure,
            identity=None if subject is None else subject.key,
            subject=subject,
            gate=gate_of(self.transport, self._listener.tls) if self._secure else None,
        )
        try:
            self.hand_over(self._listener.build_protocol(info))
        except Exception:
            self._failed()
            self.transport.abortConnection()
        else:
            if self._leaves is not None:
                self._leaves()

    def _failed(self) -> None:
        log.failure(
            "listener {listener}: the protocol of the connection from {peer} failed",
            listener=self._listener.name,
            peer=format_address(self.transport.getPeer()),
        )

    def part(self) -> None:
        """
        Close after the client's next request, if the protocol can; otherwise L{drain}.

        A connection that is not closed at an arbitrary moment loses no request that is on its way.
        """
        if self.inner is None:
            self._leave_later(self.part)
        elif IPartable.providedBy(self.inner):
            self.inner.part()
        else:
            self.drain()

    def _leave_later(self, leave: Callable[[], None]) -> None:
        """Give a connection in its TLS handshake a moment for the request that follows."""
        if self._leaves is None:
            self._connections.clock.callLater(QUIET, self._too_late)
        self._leaves = leave

    def _too_late(self) -> None:
        if self.inner is None:
            self.transport.loseConnection()

    def drain(self) -> None:
        """Let what is under way finish; close the connection if its protocol can't drain."""
        if self.inner is None:
            self._leave_later(self.drain)
            return
        try:
            if IDrainable.providedBy(self.inner):
                self.inner.drain()
            else:
                self.transport.loseConnection()
        except Exception:
            self._failed()
            self.transport.abortConnection()

    @property
    def doing(self) -> str:
        """What is under way, in a word or two."""
        return doing(self.inner)

    def end(self, reason: str) -> None:
        """End what is under way, in the protocol's way."""
        try:
            if self.inner is None:
                self.transport.loseConnection()
            else:
                end_session(self.inner, reason)
        except Exception:
            self._failed()
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Pass the event on, and leave the listener's connections."""
        try:
            super().connectionLost(reason)
        except Exception:
            self._failed()
        # Last: a callback may close what the inner protocol has just used.
        self._connections.forget(self)


class AdoptedConnection(AcceptedConnection):
    """A connection that another worker has accepted, whose inner protocol is there already."""

    def __init__(self, listener: Listener, connections: Connections, protocol: IProtocol) -> None:
        super().__init__(listener, connections, secure=False)
        self._protocol = protocol

    def connectionMade(self) -> None:
        """Connect the inner protocol."""
        self._connections.add(self)
        self.hand_over(self._protocol)


class AcceptedFactory(ServerFactory):
    """The factory of a listener's connections, with TLS or without."""

    noisy = False

    def __init__(self, listener: Listener, connections: Connections, secure: bool) -> None:
        self._listener = listener
        self._connections = connections
        self._secure = secure

    def logPrefix(self) -> str:
        """Return the listener's name, for logs."""
        return f"listener {self._listener.name}"

    def buildProtocol(self, addr: IAddress | None) -> AcceptedConnection:
        """Build the outer protocol of one connection."""
        return AcceptedConnection(
            self._listener,
            self._connections,
            self._secure,
            addr if isinstance(addr, ProxiedAddress) else None,
        )
