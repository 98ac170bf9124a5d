"""Factories of connections over TLS, of servers and of clients."""

from __future__ import annotations

__all__ = ["TlsFactory", "wrap_client", "wrap_server"]

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.internet.interfaces import IAddress, IProtocolFactory, IReactorTime
from twisted.logger import Logger
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure

from reverseproxy.addresses import host_of
from reverseproxy.errors import TlsFailed
from reverseproxy.limits.connection_limit import address_key
from reverseproxy.limits.refusals import REFUSALS
from reverseproxy.logs import LeftOut, loss
from reverseproxy.logs.folding import Folding
from reverseproxy.net.formatting import format_address
from reverseproxy.tls.client_contexts import ClientTls
from reverseproxy.tls.handshake_share import handshake_share_of
from reverseproxy.tls.server_contexts import ServerTls
from reverseproxy.tls.transport import TlsTransport
from reverseproxy.tls.wording import explain
from reverseproxy.transport.delegation import build_protocol

# Under the name by which readers of the log know these lines.
log = Logger(namespace="reverseproxy.tls.transport")

if TYPE_CHECKING:
    _WrappingFactory = WrappingFactory[TlsTransport]
else:
    _WrappingFactory = WrappingFactory  # not generic in older releases of Twisted


class TlsFactory(_WrappingFactory):
    """
    Makes a L{TlsTransport} for each connection.

    @ivar server: L{None} on the client's side.
    @ivar clock: L{None} if there are no deadlines.
    @ivar handshake_timeout: seconds for the handshake; L{None} for any time.
    @ivar time_share: paces the handshakes of clients; L{None} if nothing does.
    @ivar plaintext: builds the protocols while a server can't use TLS.
    """

    protocol = TlsTransport
    noisy = False

    def __init__(
        self,
        factory: IProtocolFactory,
        tls: ServerTls | ClientTls,
        clock: IReactorTime | None = None,
        handshake_timeout: float | None = None,
        plaintext: IProtocolFactory | None = None,
        folding: Folding | None = None,
        listener: str = "",
    ) -> None:
        initialize: Callable[[IProtocolFactory], None] = super().__init__
        initialize(factory)
        self.server = tls if isinstance(tls, ServerTls) else None
        self.plaintext = plaintext or factory
        self.clock = clock
        self.handshake_timeout = handshake_timeout
        self._folding = folding
        self._listener = listener
        self.time_share = None if clock is None or self.server is None else handshake_share_of(clock)
        self.new_connection: Callable[[TlsTransport], SSL.Connection] = (
            tls.serverConnectionForTLS if isinstance(tls, ServerTls) else tls.clientConnectionForTLS
        )

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Make the protocol of a connection; it has no TLS while C{fall_back} means plaintext."""
        if self.server is not None and self.server.plaintext:
            return build_protocol(self.plaintext, addr)
        wrapped = self.wrappedFactory.buildProtocol(addr)
        return None if wrapped is None else TlsTransport(self, wrapped)

    def connect_wrapped(self, transport: TlsTransport) -> None:
        """Give a transport its protocol at the end of the handshake, unless it has one."""

    def handshake_succeeded(self, transport: TlsTransport) -> None:
        """Called when a handshake is complete."""

    def handshake_failed(self, transport: TlsTransport, reason: Failure) -> None:
        """Called when a connection is lost before its handshake is complete."""
        if reason.check(TlsFailed):
            if self.server is not None:
                REFUSALS["tls"] += 1
            peer = format_address(transport.transport.getPeer())
            why = explain(loss(reason))

            def say(left_out: LeftOut) -> None:
                log.info(
                    "{where}TLS handshake with {peer} failed: {reason}{left_out}",
                    where=f"listener {self._listener}: " if self._listener else "",
                    listener=self._listener,
                    peer=peer,
                    reason=why,
                    left_out=left_out,
                )

            if self._folding is None:
                say(LeftOut())
            else:
                self._folding.note((address_key(host_of(peer)), why), say)


def wrap_server(
    factory: IProtocolFactory,
    tls: ServerTls,
    *,
    clock: IReactorTime | None = None,
    handshake_timeout: float | None = None,
    plaintext: IProtocolFactory | None = None,
    folding: Folding | None = None,
    listener: str = "",
) -> TlsFactory:
    """
    Put TLS in front of a server's protocols.

    A protocol is connected when its TCP connection is, as with Twisted's own
    TLS; if it provides L{IHandshakeListener}, its C{handshakeCompleted} is called,
    before which nothing is known of the peer.

    @param clock: without one there are no deadlines, and a closed connection
        does not wait for the client to close too.
    @param handshake_timeout: seconds after which a client that has not
        completed its handshake is dropped, which is logged.
    @param plaintext: builds the protocols while no certificate can be used and
        C{fall_back} is set; without one C{factory} does, whose protocols then
        have no C{handshakeCompleted} called.
    @param folding: folds log lines about handshakes that fail; without one, each is written.
    @param listener: the name of the listener, for these lines.
    @raise ValueError: for a timeout without a clock.
    """
    if handshake_timeout is not None and clock is None:
        raise ValueError("a handshake_timeout needs a clock")
    return TlsFactory(factory, tls, clock, handshake_timeout, plaintext, folding, listener)


def wrap_client(factory: IProtocolFactory, tls: ClientTls) -> TlsFactory:
    """
    Put TLS in front of a client's protocols.

    Protocols are connected before the handshake; L{client_endpoint} is the
    better choice where there is an endpoint.
    """
    return TlsFactory(factory, tls)
