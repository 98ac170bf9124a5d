"""
TLS connections that can be half-closed.

Twisted's TLS transport closes both directions when either of them ends, and
passes C{loseWriteConnection} through to the TCP connection, which truncates
what is left to send.  The one here treats TLS's two directions as TCP's:

  - C{loseWriteConnection} sends C{close_notify} once nothing is left to send
    and no producer is registered, and reading goes on;
  - the peer's C{close_notify} is C{readConnectionLost} to a protocol that
    provides L{IHalfCloseableProtocol}, and writing goes on; other protocols are
    closed, as ever;
  - the connection closes when both directions have ended;
  - a TCP connection that ends without C{close_notify} was truncated, perhaps by
    an attacker: that is the reason of C{connectionLost}.

A paused transport delivers nothing, though up to one read of ciphertext may be
buffered.  What is written goes to the TCP transport at once, so that its
buffer is the only one and back-pressure is its business.
"""

from __future__ import annotations

__all__ = ["CLOSE_LIMITS", "TlsTransport"]

from collections.abc import Iterable
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

from OpenSSL import SSL
from OpenSSL.crypto import X509
from OpenSSL.SSL import Error
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    INegotiated,
    IProtocol,
    IPullProducer,
    IPushProducer,
    ISSLTransport,
    ISystemHandle,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from reverseproxy.errors import TlsFailed
from reverseproxy.tls.handshake import Handshake
from reverseproxy.tls.material import openssl_text
from reverseproxy.tls.producing import EarlyWriter
from reverseproxy.tls.record_layer import RecordLayer
from reverseproxy.transport.closing import CloseLimits, DelayedClose
from reverseproxy.transport.halves import Half

if TYPE_CHECKING:
    from reverseproxy.tls.factory import TlsFactory

CLOSE_LIMITS: Final = CloseLimits(stall=60.0)
"""
How long a client may take to close, too.

A connection that is closed while the client still sends is reset, and the client may lose
the end of what was sent to it.  What is read meanwhile is dropped.
"""


class TlsPhase(Enum):
    """The state of a connection, apart from whether its handshake is complete."""

    OPEN = auto()
    OVER = auto()
    """Nothing is read or written any more; TCP closes when its buffer is empty."""
    ABORTED = auto()
    """TCP is reset."""


@implementer(IHalfCloseableProtocol, INegotiated, ISSLTransport, ISystemHandle)
class TlsTransport(ProtocolWrapper):
    """
    A TLS connection: a protocol towards TCP, a transport towards the wrapped protocol.

    It provides L{IHalfCloseableProtocol} itself, so that it decides what an
    end-of-file of TCP means.

    @ivar established: whether the handshake is complete, and the peer's
        certificate verified if it has to be.
    """

    factory: TlsFactory
    transport: Any
    established = False

    def __init__(self, factory: TlsFactory, wrapped: IProtocol | None) -> None:
        """
        @param wrapped: connected at once; L{None} for one that is built when the handshake is complete.
        """
        self._records = RecordLayer(self)
        super().__init__(factory, wrapped)  # type: ignore[arg-type]
        self._connection: SSL.Connection | None = None
        self._handshake: Handshake | None = None
        self._inbound: Handshake | RecordLayer = self._records  # takes what the transport receives
        self._early = EarlyWriter()
        self._linger: DelayedClose | None = None
        self._reason: Failure | None = None
        self._phase = TlsPhase.OPEN
        self._reading = self._writing = Half.OPEN

    def logPrefix(self) -> str:
        """See L{twisted.internet.interfaces.ILoggingContext}."""
        return "TLS"

    @property
    def wrappedProtocol(self) -> Any:  # noqa: N802 - Twisted's name
        """The protocol that uses this transport; the record layer has it at hand."""
        return self._records.protocol

    @wrappedProtocol.setter
    def wrappedProtocol(self, protocol: Any) -> None:  # noqa: N802
        self._records.protocol = protocol

    # the handshake

    def makeConnection(self, transport: ITransport) -> None:
        """Begin the handshake."""
        factory = self.factory
        connection = factory.new_connection(self)
        directlyProvides(self, providedBy(transport))
        Protocol.makeConnection(self, transport)
        handshake = self._handshake = self._inbound = Handshake(
            self, transport, connection, factory.server, factory.time_share
        )
        handshake.begin(factory.clock, factory.handshake_timeout)
        if self.wrappedProtocol is not None:
            self.wrappedProtocol.makeConnection(self)
        handshake.shake_hands()

    def use(self, connection: SSL.Connection) -> RecordLayer:
        """See L{HandshakeEnd<reverseproxy.tls.handshake.HandshakeEnd>}."""
        self._connection = connection
        self._records.use(connection, self.transport)
        return self._records

    def handshake_complete(self) -> None:
        """Begin to use the connection, as the peer is verified."""
        self.established = True
        self._handshake = None
        records = self._inbound = self._records
        records.sends = not self.disconnecting and self._writing is Half.OPEN
        records.flush()
        self.factory.connect_wrapped(self)
        early = self._early
        early.pass_down(self.transport)
        if early.has_written:
            self._write(early.take())
            early.resume()
        if IHandshakeListener.providedBy(self.wrappedProtocol) and not self.disconnecting:
            self.wrappedProtocol.handshakeCompleted()
        self.factory.handshake_succeeded(self)
        if records.paused and not self.disconnecting:
            self.transport.pauseProducing()
        self._finish_writing()

    def go_on(self) -> None:
        """See L{HandshakeEnd<reverseproxy.tls.handshake.HandshakeEnd>}."""
        if not self.finished:  # handshakeCompleted may have closed it
            self._records.deliver()

    def give_up(self, reason: str) -> None:
        """See L{HandshakeEnd<reverseproxy.tls.handshake.HandshakeEnd>}."""
        self._reason = Failure(TlsFailed(reason))
        self.abortConnection()

    def failVerification(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """
        Note why the peer's certificate is refused.

        This is called from within OpenSSL, which then sends an alert and ends the handshake.
        """
        if self._reason is None:
            self._reason = reason

    # receiving

    def dataReceived(self, data: bytes) -> None:
        """Decrypt ciphertext, and deliver the plaintext."""
        self._inbound.receive(data)

    @property
    def finished(self) -> bool:
        """Whether the connection is over, so that whatever arrives is dropped."""
        return self._phase is not TlsPhase.OPEN

    @property
    def _over(self) -> bool:
        return self._phase is TlsPhase.OVER

    def end_met(self) -> None:
        """Handle the peer's close_notify; if the transport is paused, when it is resumed."""
        if self._reading is Half.CLOSED:
            return
        if self._records.paused:
            self._reading = Half.CLOSING
            return
        self._reading = Half.CLOSED
        self._records.closed = True
        half = IHalfCloseableProtocol(self.wrappedProtocol, None)
        if self.disconnecting:
            self._finish_writing()
        elif half is None:
            # It was closed cleanly, even if TCP fails from now on.
            self._reason = self._reason or Failure(ConnectionDone())
            self._close_tcp()
        else:
            half.readConnectionLost()
            if self._writing is Half.CLOSED:
                self._close_tcp()

    def readConnectionLost(self) -> None:
        """Handle TCP's end-of-file: expected after close_notify, otherwise a truncation."""
        if self._reading is Half.CLOSED or self._over:
            return
        if self._handshake is not None and self._handshake.defer_end():
            return
        if self._writing is Half.CLOSED and self.disconnecting:
            self._close_tcp()
            return
        self._note_truncation()
        self._stop(TlsPhase.OVER)
        self.transport.abortConnection()

    def _note_truncation(self) -> None:
        """Note that the peer has closed TCP without a close_notify."""
        if self._reason is None and not self.disconnecting:
            self._reason = Failure(_truncation(self.established))

    def writeConnectionLost(self) -> None:
        """Do nothing: TCP's sending direction is never closed alone."""

    def pauseProducing(self) -> None:
        """Deliver nothing until C{resumeProducing}; a handshake continues, and so does a close."""
        if self.disconnecting:
            return  # nothing is delivered any more, and nothing is to be kept
        self._records.paused = True
        if self.established:
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Deliver again, beginning with what is buffered."""
        self._records.paused = False
        if not self.established or self._over or self.disconnecting:
            return
        self._records.deliver()
        if not (self._records.paused or self._over):
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """Close, as the consumer of what is received here is gone."""
        self.loseConnection()

    # sending

    def write(self, data: bytes) -> None:
        """
        Encrypt data, and send it.

        What is written after C{loseConnection} is dropped, unless a producer is
        registered.

        @raise TypeError: for anything but bytes.
        """
        records = self._records
        if records.sends and data and type(data) is bytes:
            records.write(data)
            return
        if not isinstance(data, bytes):
            raise TypeError("Data must be bytes")
        if (self.disconnecting or self._writing is not Half.OPEN) and self._early.producer is None:
            return
        self._write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """See L{ITransport}."""
        self.write(b"".join(data))

    def _write(self, data: bytes) -> None:
        if self.finished or self._writing is Half.CLOSED or not data:
            return
        if self.established:
            self._records.write(data)
        else:
            self._early.keep(data)

    def registerProducer(self, producer: IPullProducer | IPushProducer, streaming: bool) -> None:
        """
        See L{twisted.internet.interfaces.IConsumer}.

        @raise RuntimeError: if there is a producer already.
        """
        early = self._early
        if early.producer is None and (self._over or not self.connected):
            producer.stopProducing()
            return
        early.register(producer, streaming, self.transport if self.established else None)

    def unregisterProducer(self) -> None:
        """See L{twisted.internet.interfaces.IConsumer}; a close that was asked for happens now."""
        if self._early.unregister():
            self._finish_writing()

    # closing

    def loseWriteConnection(self) -> None:
        """
        Send close_notify behind everything written so far, once no producer is registered.

        Then C{writeConnectionLost} is called on a protocol that provides
        L{IHalfCloseableProtocol}.
        """
        if self.connected and not self.disconnecting:
            self._records.sends = False
            if self._writing is Half.OPEN:
                self._writing = Half.CLOSING
            self._finish_writing()

    def loseConnection(self) -> None:
        """
        Close behind everything written so far, once no producer is registered.

        A connection whose handshake is not complete, and that has nothing to send,
        is aborted.
        """
        if self.disconnecting or not self.connected:
            return
        if not self.established and not self._early.has_written:
            self.abortConnection()
            return
        self.disconnecting = True
        self._records.sends, self._records.discards = False, True
        self._finish_writing()

    def stopConsuming(self) -> None:  # noqa: N802 - Twisted's name
        """Unregister the producer, and close."""
        self.unregisterProducer()
        self.loseConnection()

    def _finish_writing(self) -> None:
        """Close one direction or both, if that was asked for and nothing prevents it."""
        if (self._writing is Half.OPEN and not self.disconnecting) or self._early.producer is not None:
            return
        if self._phase is not TlsPhase.OPEN or not self.established:
            return
        first = self._writing is not Half.CLOSED
        if first:
            self._send_close_notify()
        if self._reading is Half.CLOSED:
            self._close_tcp()
        elif self.disconnecting:
            self._await_close()
        if first and not self.disconnecting:
            half = IHalfCloseableProtocol(self.wrappedProtocol, None)
            if half is not None:
                half.writeConnectionLost()

    def _send_close_notify(self) -> None:
        """Send close_notify behind everything that was written."""
        self._writing = Half.CLOSED
        self._records.close()

    def _await_close(self) -> None:
        """Wait for the peer to close too, and drop what it sends until then; see L{CLOSE_LIMITS}."""
        if self.factory.clock is None:
            self._close_tcp()
            return
        if self._linger is None:
            # What is not received yet includes our own close_notify.
            self._linger = DelayedClose(
                self.factory.clock, self.transport, CLOSE_LIMITS, self._close_tcp, counts_present=False
            )
        self._records.paused = False
        self.transport.resumeProducing()
        self._records.deliver()  # the peer's close_notify may be in what was held during a pause

    def _close_tcp(self) -> None:
        """Close the TCP connection once its buffer is empty."""
        if self._phase is TlsPhase.OPEN:
            self._stop(TlsPhase.OVER)
        self._early.withdraw()
        if self._writing is not Half.CLOSED:
            self._send_close_notify()
        self.transport.loseConnection()

    def abortConnection(self) -> None:
        """Reset the TCP connection now, without a close_notify."""
        if self._phase is TlsPhase.ABORTED or not self.connected:
            return
        self._stop(TlsPhase.ABORTED)
        self.disconnecting = True
        self.transport.abortConnection()

    def _stop(self, phase: TlsPhase) -> None:
        """Enter a final phase: ignore what arrives, and cancel timers."""
        self._phase = phase
        self._inbound = self._records
        self._records.closed, self._records.sends = True, False
        if self._linger is not None:
            self._linger.stop()
        if self._handshake is not None:
            self._handshake.stop()

    def fail(self, error: Error) -> None:
        """Close the connection, as OpenSSL has failed; its alert to the peer is sent first."""
        if self._reason is None:
            text = openssl_text(error)
            self._reason = Failure(ConnectionLost(f"TLS: {text}") if self.established else TlsFailed(text))
        self._writing = Half.CLOSED
        self._records.flush()
        self._close_tcp()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the protocol, and drop all references: the TCP connection is lost."""
        handshake, self._handshake = self._handshake, None
        if handshake is not None:
            handshake.close()
        if self.established and not (self.finished or self.disconnecting or self._reading is Half.CLOSED):
            # What is buffered for a paused protocol is delivered now or never.
            self._records.paused = False
            self._records.deliver()
        told = self.finished or self._reading is Half.CLOSED
        if not told and (not self.established or reason.check(ConnectionDone)):
            self._note_truncation()
        self._stop(TlsPhase.OVER)
        self.connected = False
        reason, self._reason = self._reason or reason, None
        self._early.lose()
        if not self.established:
            self.factory.handshake_failed(self, reason)
        # The references make cycles.
        wrapped, self.wrappedProtocol = self.wrappedProtocol, None
        self._records.forget()
        self._connection = None
        if wrapped is not None:
            wrapped.connectionLost(reason)

    # facts

    def getHandle(self) -> SSL.Connection | None:
        """OpenSSL's connection object; L{None} when the connection is lost."""
        return self._connection

    def getPeerCertificate(self) -> X509 | None:
        """The peer's certificate, verified or not; L{None} without one."""
        return None if self._connection is None else self._connection.get_peer_certificate()

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """See L{INegotiated}."""
        return (
            (self._connection.get_alpn_proto_negotiated() or None) if self._connection is not None else None
        )


def _truncation(established: bool) -> Exception:
    if established:
        return ConnectionLost("truncated: the peer closed it without a TLS close_notify")
    return TlsFailed("the peer closed the connection during the handshake")
