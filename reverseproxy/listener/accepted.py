"""Connections that a listener has accepted, each from its first byte to its last."""

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
    An accepted connection, until it is known who it comes from.

    Over TLS that is once the handshake is complete, as the peer's certificate
    goes into L{ConnectionInfo}.

    @ivar address: whom the connection is counted with.
    @ivar vouched_for: whether somebody else counts it.
    """

    def __init__(
        self,
        listener: Listener,
        connections: Connections,
        secure: bool,
        proxied: ProxiedAddress | None = None,
    ) -> None:
        """
        @param listener: what builds its protocol.
        @param connections: those of the listener, of which it becomes one.
        @param proxied: who is at the ends, if somebody before us says so.
        """
        super().__init__()
        self._listener = listener
        self._connections = connections
        self._proxied = proxied
        self._secure = secure
        self._leaves: Callable[[], None] | None = None  # what to do as soon as it has begun
        self.address = ""
        self.vouched_for = False

    def connectionMade(self) -> None:
        """Begin, or be refused."""
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
        """Whether nothing is lost with it."""
        inner = IExpendable(self.inner, None)
        return self.inner is None or (inner is not None and bool(inner.expendable))

    @property
    def descriptor(self) -> int:
        """Its number; -1 if it has none."""
        return descriptor_of(self.transport)

    def make_room(self) -> None:
        """End, for another connection."""
        self.transport.abortConnection()

    def vouched(self) -> None:
        """Somebody knows who the peer is, and has limits of its own."""
        self.vouched_for = True
        self._connections.vouch(self)

    def handshakeCompleted(self) -> None:
        """The peer is known now."""
        self._begin()

    @property
    def _peer(self) -> Any:
        """Where the client is."""
        return self.transport.getPeer() if self._proxied is None else self._proxied.source

    @property
    def _host(self) -> Any:
        """Where it has connected to."""
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
        Close when the client's next request is answered, if the protocol can say so; else as L{drain}.

        As nothing is closed at an arbitrary moment, no request is lost that is on its way.
        """
        if self.inner is None:
            self._leave_later(self.part)
        elif IPartable.providedBy(self.inner):
            self.inner.part()
        else:
            self.drain()

    def _leave_later(self, leave: Callable[[], None]) -> None:
        """Its TLS handshake is under way, behind which there is a request: it has a moment for that."""
        if self._leaves is None:
            self._connections.clock.callLater(QUIET, self._too_late)
        self._leaves = leave

    def _too_late(self) -> None:
        if self.inner is None:
            self.transport.loseConnection()

    def drain(self) -> None:
        """Let what is under way finish; a protocol that can't drain is closed."""
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
        """End what is under way as its protocol has it."""
        try:
            if self.inner is None:
                self.transport.loseConnection()
            else:
                end_session(self.inner, reason)
        except Exception:
            self._failed()
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Be forgotten."""
        try:
            super().connectionLost(reason)
        except Exception:
            self._failed()
        # Last: who waits for this may close what the protocol above has just used.
        self._connections.forget(self)


class AdoptedConnection(AcceptedConnection):
    """A connection that another worker has accepted, and knows who it comes from."""

    def __init__(self, listener: Listener, connections: Connections, protocol: IProtocol) -> None:
        super().__init__(listener, connections, secure=False)
        self._protocol = protocol

    def connectionMade(self) -> None:
        """Begin, or be refused."""
        self._connections.add(self)
        self.hand_over(self._protocol)


class AcceptedFactory(ServerFactory):
    """Builds the connections of a listener, with TLS or without."""

    noisy = False

    def __init__(self, listener: Listener, connections: Connections, secure: bool) -> None:
        self._listener = listener
        self._connections = connections
        self._secure = secure

    def logPrefix(self) -> str:
        """Name the listener."""
        return f"listener {self._listener.name}"

    def buildProtocol(self, addr: IAddress | None) -> AcceptedConnection:
        """Build the protocol of one connection."""
        return AcceptedConnection(
            self._listener,
            self._connections,
            self._secure,
            addr if isinstance(addr, ProxiedAddress) else None,
        )
