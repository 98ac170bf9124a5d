"""
TLS connections with half-closes that work.

Twisted's TLS transport closes both directions when either of them ends, and
passes C{loseWriteConnection} through to the TCP connection, which truncates
what is left to send.  The one here treats TLS's two directions as TCP's:

  - C{loseWriteConnection} sends C{close_notify} once nothing is left to send
    and no producer is registered, and reading goes on;
  - the peer's C{close_notify} is C{readConnectionLost} to a protocol that
    provides L{IHalfCloseableProtocol}, and writing goes on; other protocols are
    closed, as ever;
  - the connection closes when both directions have ended;
  - a TCP connection that ends without C{close_notify} was cut off, by an
    attacker perhaps: C{connectionLost} says so.

A paused transport delivers nothing, though up to one read of ciphertext is
taken in.  What is written goes to the TCP transport at once, so that its
buffer is the only one and back-pressure is its business.

Handshakes go through memory, whatever the transport.  When one is complete and
the connection is one of ours, OpenSSL is given the socket, and what follows
costs less; see L{reverseproxy.tls.socket_records}.
"""

from __future__ import annotations

__all__ = ["CLOSE_TIMEOUT", "TlsFactory", "TlsTransport", "wrap_client", "wrap_server"]

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

from OpenSSL import SSL
from OpenSSL.crypto import X509
from OpenSSL.SSL import Error, WantReadError
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    INegotiated,
    IProtocol,
    IProtocolFactory,
    IPullProducer,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    ISystemHandle,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from reverseproxy.addresses import host_of
from reverseproxy.crowd import crowd_address
from reverseproxy.errors import TlsFailed
from reverseproxy.logs import LeftOut, loss
from reverseproxy.logs.folding import Folding
from reverseproxy.refused import REFUSED
from reverseproxy.sockets import format_address
from reverseproxy.tls.client_hello import ClientHelloReader
from reverseproxy.tls.contexts import ClientTls, ServerTls
from reverseproxy.tls.material import openssl_text
from reverseproxy.tls.openssl import serves
from reverseproxy.tls.records import BLOCK, Records, records_of
from reverseproxy.tls.socket_records import SocketRecords
from reverseproxy.tls.turns import Waiting, turns_of
from reverseproxy.tls.wording import explain
from reverseproxy.transport.fronts import build_protocol
from reverseproxy.unfinished import STRANGERS, Account, Counted

log = Logger()

MOST_EARLY: Final = 65536
"""Bytes that a client may send while its handshake waits for its turn; a message is all that is expected."""

CLOSE_TIMEOUT: Final = 5.0
"""
Seconds that a server reads on, after all is sent, until the client closes too.

A connection that is closed while the client still sends is reset, and the
client may lose the end of what it was sent.  What is read is dropped.
"""

_FLUSH_EVERY: Final = 32
"""
Reads after which OpenSSL is asked for answers of its own, which it has if the
peer wants new keys.  Asking costs as much as decrypting a small message.
"""


_NO_RECORDS: Final = Records()


@implementer(IHalfCloseableProtocol, INegotiated, ISSLTransport, ISystemHandle)
class TlsTransport(ProtocolWrapper, Counted):
    """
    A TLS connection: a protocol towards TCP, a transport towards the wrapped protocol.

    It is a half-closeable protocol itself, so that TCP leaves the decision what
    an end-of-file means to it.

    @ivar established: whether the handshake is complete, and the peer's
        certificate verified if it has to be.
    @ivar paused: whether nothing is to be delivered now.
    """

    factory: TlsFactory
    transport: Any
    wrappedProtocol: Any  # noqa: N815
    established = False

    def __init__(self, factory: TlsFactory, wrapped: IProtocol | None) -> None:
        """
        @param wrapped: connected at once; L{None} for one that the factory
            builds when the handshake is complete.
        """
        super().__init__(factory, wrapped)  # type: ignore[arg-type]
        self._connection: SSL.Connection | None = None
        self._records: Records
        self._bound: SocketRecords | None = None
        self._wants_socket = False
        self._hello: ClientHelloReader | None = None
        self._held: list[bytes] = []  # received, until the hello is complete
        self._early: list[bytes] = []  # received, until it is this handshake's turn
        self._waits: Waiting | None = None  # for that
        self._said = 0  # bytes of a client's handshake
        self._pending: list[bytes] = []  # written, until the handshake is complete
        self._producer: Any = None
        self._streaming = False
        self._passed_down = False  # whether TCP knows the producer
        self._deadline: IDelayedCall | None = None
        self._linger: IDelayedCall | None = None
        self._reason: Failure | None = None
        self.paused = False
        self._delivering = self._more = False
        self._unflushed = 0
        self._ended = False  # the peer's close_notify has come
        self._read_closed = False  # and whoever wants to know has heard of it
        self._write_closing = False  # loseWriteConnection was called
        self._write_closed = False  # our close_notify is sent
        self._aborted = False
        self._failed = False  # OpenSSL can't go on
        self._over = False  # nothing is read or written any more

    def logPrefix(self) -> str:
        """See L{twisted.internet.interfaces.ILoggingContext}."""
        return "TLS"

    # the handshake

    def makeConnection(self, transport: ITransport) -> None:
        """Begin the handshake."""
        self._connect(self.factory.new_connection(self))
        if self.factory.server is not None and self.factory.server.chooses:
            self._hello = ClientHelloReader()
        directlyProvides(self, providedBy(transport))
        Protocol.makeConnection(self, transport)
        self._wants_socket = (
            hasattr(transport, "set_filter") and serves(self._connection) and self._has_to_itself(transport)
        )
        clock, timeout = self.factory.clock, self.factory.handshake_timeout
        if clock is not None and timeout is not None:
            self._deadline = clock.callLater(timeout, self._too_late, timeout)
        if self.wrappedProtocol is not None:
            self.wrappedProtocol.makeConnection(self)
        self._shake_hands()

    def _has_to_itself(self, transport: Any) -> bool:
        """Whether all that a connection receives is for us, as it is."""
        # Twisted's endpoints leave a protocol of theirs in between, which passes everything on.
        first = transport.protocol
        return first is self or getattr(first, "_wrappedProtocol", None) is self

    def _connect(self, connection: SSL.Connection) -> None:
        self._connection, self._records = connection, records_of(connection)

    def _too_late(self, timeout: float) -> None:
        self._reason = Failure(TlsFailed(f"the handshake was not complete after {timeout:g} s"))
        self.abortConnection()

    def _shake_hands(self) -> None:
        if self._aborted:
            return
        assert self._connection is not None
        try:
            self._connection.do_handshake()
        except WantReadError:
            self._flush()
        except Error as error:
            self.fail(error)
        else:
            self.established = True
            self.count_no_more()
            self._flush()
            self._cancel_timers()
            self._begin()

    def _begin(self) -> None:
        """The peer is who it should be: now its protocol may talk to it."""
        self.factory.connect_wrapped(self)
        if self._producer is not None and not self._passed_down:
            self._pass_down()
        if self._pending:
            pending, self._pending = self._pending, []
            self._write(b"".join(pending))
            if self._streaming:
                self._producer.resumeProducing()
        if IHandshakeListener.providedBy(self.wrappedProtocol) and not self.disconnecting:
            self.wrappedProtocol.handshakeCompleted()
        self.factory.handshake_succeeded(self)
        if self.paused and not self.disconnecting:
            self.transport.pauseProducing()
        self._finish_writing()

    def _choose(self, data: bytes) -> bytes:
        """
        Choose the context by the client's first message.

        @return: all that was received; nothing as long as the message is incomplete.
        """
        assert self._hello is not None
        assert self.factory.server is not None
        self._held.append(data)
        hello = self._hello.feed(data)
        if hello is None:
            return b""
        held, self._held, self._hello = b"".join(self._held), [], None
        chosen = self.factory.server.select(hello.server_name, hello.alpn)
        self._connect(self.factory.server.connection(self, chosen))
        return held

    def open_account(self) -> Account:
        """See L{Counted}."""
        host = getattr(self.transport.getPeer(), "host", "")
        return STRANGERS.account(crowd_address(host), self._made_room)

    def _made_room(self, reason: str) -> None:
        """This connection has to go for others."""
        self._reason = Failure(TlsFailed(reason))
        self.abortConnection()

    def failVerification(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """
        Note why the peer's certificate is refused.

        This is called from within OpenSSL, which ends the handshake as soon as
        it is back there, and tells the peer.
        """
        if self._reason is None:
            self._reason = reason

    # receiving

    def dataReceived(self, data: bytes) -> None:
        """Decrypt, and deliver."""
        if not data or self._over or self._read_closed or self._aborted:
            return
        if not self.established and self.factory.server is not None:
            # OpenSSL keeps what is not complete, of a certificate for one.
            self._said += len(data)
            self.count(self._said)
            if self._aborted:
                return
            self._early.append(data)
            if self._waits is None:
                self._take_turn()
            elif sum(map(len, self._early)) > MOST_EARLY:
                self._made_room("it sends on and on while its handshake waits for its turn")
            return
        records = self._records
        if not self.established:
            self._step(data)
        elif self.paused or self._delivering:
            records.feed(data)
            self._more = True
        else:
            plaintext = records.receive(data)
            self._delivering = True
            try:
                self._pass_on(plaintext)
            finally:
                self._delivering = False
            if self._more:
                self._deliver()
            if self._wants_socket:
                self._take_socket()

    def _take_turn(self) -> None:
        """Go on with a client's handshake, as soon as there is time for it."""
        turns = self.factory.turns
        if turns is None:
            self._go_on()
            return
        host = getattr(self.transport.getPeer(), "host", "")
        # What it sends meanwhile is read: those that leave shall not have a turn.
        self._waits = turns.ask(crowd_address(host), self._go_on, self._made_room)

    def _go_on(self) -> None:
        """It is this handshake's turn."""
        data, self._early = b"".join(self._early), []
        self._waits = None
        if self._over or self._aborted:
            return
        if self._hello is not None:
            data = self._choose(data)
        if data:
            self._step(data)

    def _step(self, data: bytes) -> None:
        """Take a step of the handshake; behind it there may be what the wrapped protocol gets."""
        self._records.feed(data)
        self._shake_hands()
        if self.established:
            self._deliver()
            if self._wants_socket:
                self._take_socket()

    def _take_socket(self) -> None:
        """Give OpenSSL the socket, unless there is something on its way through memory, or at an end."""
        if self.paused or self.finished or self.disconnecting or self._write_closing or self._records.ended:
            return
        self._flush()
        transport = self.transport
        if transport.connected and not (transport.unsent or transport.disconnecting):
            self._wants_socket = False
            self._bound = SocketRecords(self, self._connection, transport)
            self._records = _NO_RECORDS  # the memory is gone

    def _deliver(self) -> None:
        """Deliver what can be decrypted, unless the transport is paused."""
        self._more = True
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._more and not (self.paused or self._over or self._read_closed):
                self._more = False
                self._pass_on(self._records.decrypt())
        finally:
            self._delivering = False

    def _pass_on(self, plaintext: bytes) -> None:
        """Deliver all that was decrypted as one piece: each delivery has its price."""
        self._unflushed += 1
        if not plaintext or self._unflushed >= _FLUSH_EVERY:
            self._flush()
        # What comes when the protocol has closed or aborted the connection is of no use to it.
        if plaintext and not self.disconnecting:
            self.wrappedProtocol.dataReceived(plaintext)
        if self.finished:
            return
        records = self._records
        if records.error is not None:
            self.fail(records.error)
        elif records.ended:
            self.end_met()

    @property
    def finished(self) -> bool:
        """Whether nothing that comes now matters any more."""
        return self._over or self._aborted

    def end_met(self) -> None:
        """The peer's close_notify has come.  A paused transport tells when it is resumed."""
        self._ended = True
        if not self.paused and not self._read_closed:
            self._peer_closed()

    def _peer_closed(self) -> None:
        self._read_closed = True
        half = IHalfCloseableProtocol(self.wrappedProtocol, None)
        if self.disconnecting:
            self._finish_writing()
        elif half is None:
            # Whatever becomes of the connection now, this was its end.
            self._reason = self._reason or Failure(ConnectionDone())
            self._close_tcp()
        else:
            half.readConnectionLost()
            if self._write_closed:
                self._close_tcp()

    def readConnectionLost(self) -> None:
        """TCP's end-of-file: nothing new after close_notify, otherwise a truncation."""
        if self._read_closed or self._over:
            return
        if self._write_closed and self.disconnecting:
            self._close_tcp()
            return
        self._note_truncation()
        self._over = True
        self.transport.abortConnection()

    def _note_truncation(self) -> None:
        """The peer has ended the connection, but not as TLS wants it."""
        if self._reason is not None or self.disconnecting:
            return
        if self.established:
            error: Exception = ConnectionLost("truncated: the peer closed it without a TLS close_notify")
        else:
            error = TlsFailed("the peer closed the connection during the handshake")
        self._reason = Failure(error)

    def writeConnectionLost(self) -> None:
        """TCP's sending direction is never closed alone."""

    def pauseProducing(self) -> None:
        """Deliver nothing more until C{resumeProducing}; a handshake goes on."""
        self.paused = True
        if self.established and not self.disconnecting:
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Deliver again, beginning with what was taken in already."""
        self.paused = False
        if not self.established or self._over or self.disconnecting:
            return
        if self._bound is None:
            self._deliver()
        elif self._ended:
            self.end_met()
        if not self.paused and not self._over:
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """Close: whoever was sent what is received here is gone."""
        self.loseConnection()

    # sending

    def _flush(self) -> None:
        """Give TCP what OpenSSL has to send of its own accord."""
        if self._bound is not None:
            return
        self._unflushed = 0
        data = self._records.take()
        if data:
            self.transport.write(data)

    def write(self, data: bytes) -> None:
        """
        Encrypt, and send.

        What is written after the connection was closed is dropped, unless a
        producer is registered.

        @raise TypeError: for anything but bytes.
        """
        if not isinstance(data, bytes):
            raise TypeError("Data must be bytes")
        if (self.disconnecting or self._write_closing) and self._producer is None:
            return
        self._write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """See L{ITransport}."""
        self.write(b"".join(data))

    def _write(self, data: bytes) -> None:
        if self._over or self._write_closed or self._aborted or not data:
            return
        if not self.established:
            self._pending.append(data)
            if self._streaming:
                self._producer.pauseProducing()
            return
        if self._bound is not None:
            self.transport.write(data)
            return
        encrypt, send = self._records.encrypt, self.transport.write
        self._unflushed = 0
        try:
            if len(data) <= BLOCK:
                send(encrypt(data))
            else:
                view = memoryview(data)
                for start in range(0, len(data), BLOCK):
                    send(encrypt(view[start : start + BLOCK]))
        except Error as error:
            self.fail(error)

    def registerProducer(self, producer: IPullProducer | IPushProducer, streaming: bool) -> None:
        """
        See L{twisted.internet.interfaces.IConsumer}.

        @raise RuntimeError: if there is a producer already.
        """
        if self._producer is not None:
            raise RuntimeError(f"can't register {producer}: {self._producer} was never unregistered")
        if self._over or not self.connected:
            producer.stopProducing()
            return
        self._producer, self._streaming = producer, streaming
        if self.established:
            self._pass_down()
        elif self._pending and streaming:
            cast(IPushProducer, producer).pauseProducing()  # as it streams

    def _pass_down(self) -> None:
        self._passed_down = True
        self.transport.registerProducer(self._producer, self._streaming)

    def unregisterProducer(self) -> None:
        """See L{twisted.internet.interfaces.IConsumer}; a close that was asked for happens now."""
        if self._producer is None:
            return
        self._producer, self._streaming = None, False
        if self._passed_down:
            self._passed_down = False
            self.transport.unregisterProducer()
        self._finish_writing()

    # closing

    def loseWriteConnection(self) -> None:
        """
        Send no more.

        The peer is told when everything written so far is on its way and no
        producer is registered; then a protocol that provides
        L{IHalfCloseableProtocol} has its C{writeConnectionLost} called.
        """
        if self.connected and not self.disconnecting:
            self._write_closing = True
            self._finish_writing()

    def loseConnection(self) -> None:
        """
        Close, when everything written so far is on its way and no producer is registered.

        On a connection that is still in its handshake, and has nothing to send,
        there is nobody to tell.
        """
        if self.disconnecting or not self.connected:
            return
        if not self.established and not self._pending:
            self.abortConnection()
            return
        self.disconnecting = True
        self._finish_writing()

    def stopConsuming(self) -> None:  # noqa: N802 - Twisted's name
        """Close, and hear no more of the producer."""
        self.unregisterProducer()
        self.loseConnection()

    def _finish_writing(self) -> None:
        """Go on with what was asked for: to close one direction, or both."""
        if not (self._write_closing or self.disconnecting) or self._producer is not None:
            return
        if self._over or self._aborted or not self.established:
            return
        first = not self._write_closed
        if first and not self._send_close_notify():
            if self.disconnecting:
                # An end-of-file that OpenSSL meets now would be the end of sending, too.
                self.transport.pauseProducing()
            return
        if self._read_closed:
            self._close_tcp()
        elif self.disconnecting:
            self._await_close()
        if first and not self.disconnecting:
            half = IHalfCloseableProtocol(self.wrappedProtocol, None)
            if half is not None:
                half.writeConnectionLost()

    def _send_close_notify(self) -> bool:
        """
        Tell the peer that this was all.

        @return: whether that is done; if not, L{drained} goes on with what was to follow.
        """
        if self._bound is not None:
            self._write_closed = self._bound.close()
            return self._write_closed
        self._write_closed = True
        assert self._connection is not None
        with suppress(Error):  # there is nobody left to tell
            self._connection.shutdown()
        self._flush()
        return True

    def drained(self) -> None:
        """Hear that everything is sent: what had to wait for that comes now."""
        if not self._over:
            self._finish_writing()
        elif not self.transport.disconnecting:
            self._close_tcp()

    def _await_close(self) -> None:
        """Read on for a while; see L{CLOSE_TIMEOUT}."""
        if self.factory.clock is None:
            self._close_tcp()
            return
        self._linger = self.factory.clock.callLater(CLOSE_TIMEOUT, self._close_tcp)
        self.paused = False
        self.transport.resumeProducing()

    def _close_tcp(self) -> None:
        """Close the TCP connection once what it has still to send is sent."""
        self._over = True
        self._cancel_timers()
        if self._passed_down:
            # TCP does not close while it has a producer that is paused.
            self._passed_down = False
            self.transport.unregisterProducer()
        if self._write_closed or self._failed or self._send_close_notify():
            self.transport.loseConnection()

    def abortConnection(self) -> None:
        """Close now.  The peer is not told by TLS that this was the end, as it was not."""
        if self._aborted or not self.connected:
            return
        self._aborted = True
        self.disconnecting = True
        self._cancel_timers()
        self.transport.abortConnection()

    def fail(self, error: Error) -> None:
        """TLS can't go on; the alert that tells the peer why is sent first."""
        if self._reason is None:
            text = openssl_text(error)
            self._reason = Failure(ConnectionLost(f"TLS: {text}") if self.established else TlsFailed(text))
        self._failed = True
        self._flush()
        self._close_tcp()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The TCP connection is gone."""
        self._cancel_timers()
        self.count_no_more()
        if self._waits is not None:
            self._waits.cancel()
            self._waits = None
        if self.established and not (self._over or self.disconnecting or self._read_closed):
            # What a paused protocol has not been given yet is delivered now or never.
            self.paused = False
            if self._bound is None:
                self._deliver()
            elif self._ended:
                self.end_met()
        if (
            not self._read_closed
            and not self._over
            and (not self.established or reason.check(ConnectionDone))
        ):
            self._note_truncation()
        self._over = True
        self.connected = False
        reason, self._reason = self._reason or reason, None
        if self._producer is not None and not self._passed_down:
            self._producer.stopProducing()
        if not self.established:
            self.factory.handshake_failed(self, reason)
        # These references make cycles.
        wrapped, self.wrappedProtocol, self._producer = self.wrappedProtocol, None, None
        self._pending, self._held, self._early = [], [], []
        if self._bound is not None:
            self._bound.forget()
        self._connection = self._bound = None
        del self._records
        if wrapped is not None:
            wrapped.connectionLost(reason)

    def _cancel_timers(self) -> None:
        for timer in (self._deadline, self._linger):
            if timer is not None and timer.active():
                timer.cancel()

    # facts

    def getHandle(self) -> SSL.Connection | None:
        """OpenSSL's side of the connection; L{None} when it is lost."""
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
    @ivar turns: paces the handshakes of clients; L{None} if nothing does.
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
        self.turns = None if clock is None or self.server is None else turns_of(clock)
        self.new_connection: Callable[[TlsTransport], SSL.Connection] = (
            tls.serverConnectionForTLS if isinstance(tls, ServerTls) else tls.clientConnectionForTLS
        )

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Make the protocol for a connection; it has no TLS if C{fall_back} means plaintext at present."""
        if self.server is not None and self.server.plaintext:
            return build_protocol(self.plaintext, addr)
        wrapped = self.wrappedFactory.buildProtocol(addr)
        return None if wrapped is None else TlsTransport(self, wrapped)

    def connect_wrapped(self, transport: TlsTransport) -> None:
        """Give a transport its protocol, at the end of the handshake, unless it has one."""

    def handshake_succeeded(self, transport: TlsTransport) -> None:
        """Hear of a handshake that is complete."""

    def handshake_failed(self, transport: TlsTransport, reason: Failure) -> None:
        """Hear of a connection that was lost before its handshake was complete."""
        if reason.check(TlsFailed):
            if self.server is not None:
                REFUSED["tls"] += 1
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
                self._folding.note((crowd_address(host_of(peer)), why), say)


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
    TLS; if it provides L{IHandshakeListener} it hears of the handshake, before
    which nothing is known of the peer.

    @param clock: without one there are no deadlines, and a closed connection
        does not wait for the client to close too.
    @param handshake_timeout: seconds after which a client that has not
        completed its handshake is dropped, which is logged.
    @param plaintext: builds the protocols while no certificate can be used and
        C{fall_back} is set; without one C{factory} does, whose protocols then
        hear of no handshake.
    @param folding: folds lines about handshakes that fail; without one, each is written.
    @param listener: who has accepted the connections, for these lines.
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
