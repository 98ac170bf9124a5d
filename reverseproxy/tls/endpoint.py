"""An endpoint that dials with TLS."""

from __future__ import annotations

__all__ = ["client_endpoint"]

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import NoProtocol
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.logs import loss
from reverseproxy.tls.client_contexts import ClientTls
from reverseproxy.tls.factory import TlsFactory
from reverseproxy.tls.transport import TlsTransport
from reverseproxy.tls.wording import explain

log = Logger()


class _TlsDial(TlsFactory):
    """
    One attempt to connect.

    The protocol is built and connected when the handshake is complete, so that
    one that is never connected is never built.
    """

    def __init__(self, factory: IProtocolFactory, tls: ClientTls) -> None:
        super().__init__(factory, tls)
        self._outcomes: dict[TlsTransport, Deferred[IProtocol]] = {}

    def buildProtocol(self, addr: IAddress | None) -> TlsTransport:
        transport = TlsTransport(self, None)
        self._outcomes[transport] = Deferred(lambda _: transport.abortConnection())
        return transport

    def outcome(self, transport: TlsTransport) -> Deferred[IProtocol]:
        """Return the protocol, once it is connected; call this once."""

        def forget(result: Any) -> Any:
            # The references would make a cycle.
            del self._outcomes[transport]
            return result

        return self._outcomes[transport].addBoth(forget)

    def connect_wrapped(self, transport: TlsTransport) -> None:
        try:
            wrapped = self.wrappedFactory.buildProtocol(transport.transport.getPeer())
            if wrapped is None:
                raise NoProtocol
            transport.wrappedProtocol = wrapped
            wrapped.makeConnection(transport)
        except Exception:
            self._conclude(transport, Failure())
            transport.abortConnection()

    def handshake_succeeded(self, transport: TlsTransport) -> None:
        self._conclude(transport, transport.wrappedProtocol)

    def handshake_failed(self, transport: TlsTransport, reason: Failure) -> None:
        self._conclude(transport, reason)

    def _conclude(self, transport: TlsTransport, result: Any) -> None:
        outcome = self._outcomes.get(transport)
        if outcome is not None and not outcome.called:
            outcome.callback(result)


@implementer(IStreamClientEndpoint)
class _TlsEndpoint:
    """See L{client_endpoint}."""

    def __init__(self, endpoint: IStreamClientEndpoint, tls: ClientTls, allow_fall_back: bool) -> None:
        self._endpoint = endpoint
        self._tls = tls
        self._fall_back = allow_fall_back and tls.fall_back

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """See L{IStreamClientEndpoint}."""
        dial = _TlsDial(factory, self._tls)

        def dialled(transport: Any) -> Deferred[IProtocol]:
            outcome = dial.outcome(transport)
            if self._fall_back:
                outcome.addErrback(in_plaintext)
            return outcome

        def in_plaintext(reason: Failure) -> Failure | Deferred[IProtocol]:
            if reason.check(CancelledError):
                return reason
            log.warn(
                "TLS with {name} failed, connecting in plaintext as fall_back is set: {reason}",
                name=self._tls.name,
                reason=explain(loss(reason)),
            )
            return self._endpoint.connect(factory)

        return self._endpoint.connect(dial).addCallback(dialled)


def client_endpoint(
    endpoint: IStreamClientEndpoint, tls: ClientTls, *, allow_fall_back: bool = False
) -> IStreamClientEndpoint:
    """
    Dial with TLS.

    The protocol is built and connected, and C{connect}'s result is there, when
    the handshake is complete and the server's certificate verified.  Otherwise
    C{connect} fails with the reason, which is a L{CertificateRejected} for a
    certificate and a L{TlsFailed} for other failures of the handshake.  It may
    be cancelled at any time, which is how a caller sets a deadline.

    With TLS 1.3 the handshake is complete for a client before the server has
    judged the client's certificate.  A server that refuses it closes the
    connection right after.

    @param endpoint: dials the TCP connection.
    @param allow_fall_back: whether the configuration's C{fall_back} counts: a
        failed handshake is logged, and a new connection is made in plaintext.
        MOSN does so for the hosts of clusters and not for tunnel agents.
    """
    return _TlsEndpoint(endpoint, tls, allow_fall_back)
