"""
TLS between one of our connections and its socket.

OpenSSL reads from the socket and writes to it by itself, which spares the ways
through memory in between.  Two things are different from the ways through
memory (L{reverseproxy.tls.records}):

  - What waits to be sent is plaintext, so that our close_notify waits behind it.
  - When OpenSSL has met an error in sending, it does not decrypt any more: an
    answer that came before the connection was reset is lost if it was not read.
"""

from __future__ import annotations

__all__ = ["SocketRecords", "can_have_socket"]

import socket
from collections.abc import Callable
from errno import ECONNRESET
from typing import TYPE_CHECKING, Any, Final, NoReturn

from OpenSSL import SSL
from OpenSSL.SSL import Error, SysCallError
from twisted.internet.main import CONNECTION_LOST

from reverseproxy.tls.openssl import (
    PLAIN,
    PLAIN_VIEW,
    RECORD,
    ROOM,
    WANT_READ,
    WANT_WRITE,
    ZERO_RETURN,
    address_of,
    attach,
    detach,
    get_error,
    raise_error,
    read,
    serves,
    write,
)

if TYPE_CHECKING:
    from reverseproxy.tls.transport import TlsTransport

_TCP_CORK: Final[int | None] = getattr(socket, "TCP_CORK", None)


def can_have_socket(tls: object, connection: Any, transport: Any) -> bool:
    """
    Find whether OpenSSL can be given a connection's socket once nothing is on its way through memory.

    @param tls: the protocol that the transport has, or would have if all is for it as it is.
    """
    if not (hasattr(transport, "set_filter") and serves(connection)):
        return False
    # Twisted's endpoints leave a protocol of theirs in between, which passes everything on.
    first = transport.protocol
    return first is tls or getattr(first, "_wrappedProtocol", None) is tls


class SocketRecords:
    """
    A connection's L{reverseproxy.transport.stream.ByteFilter}, and the hand of its L{TlsTransport} there.

    OpenSSL takes one record after the other from the socket, so that what has
    not been delivered is still there, and is an event.

    @ivar ended: whether the peer's close_notify has been met.
    """

    __slots__ = ("_blocked", "_connection", "_dead", "_ssl", "_starved", "_tls", "_transport", "ended")

    def __init__(self, tls: TlsTransport, connection: Any, transport: Any) -> None:
        """
        @param connection: with nothing left in its memory.
        @param transport: the L{StreamTransport}, with nothing unsent.
        """
        self._tls = tls
        self._connection = connection
        self._transport = transport
        self._ssl = connection._ssl
        self._blocked = False  # OpenSSL must send something of its own before it reads on
        self._starved = False  # and the other way around
        self._dead = False
        self.ended = False
        attach(connection, transport.socket)
        transport.set_filter(self)

    # This and send run for every message, hence no helpers.

    def doRead(self) -> Any:  # noqa: N802 - Twisted's name
        """See L{IReadDescriptor}."""
        if self._starved:
            self._starved = False
            self._transport.startWriting()
        size = read(self._ssl, PLAIN, RECORD)
        if size <= 0:
            then = self._why(size)
            return None if then is None else then()
        then = None
        if size == RECORD:
            # There is more, most likely; after a smaller record there is not.
            while size < ROOM:
                got = read(self._ssl, PLAIN + size, RECORD)
                if got <= 0:
                    # To be found out now: the reason is gone when OpenSSL is called again.
                    then = self._why(got)
                    break
                size += got
                if got < RECORD:
                    break
        tls = self._tls
        # What comes when the protocol has closed the connection is of no use to it.
        if not tls.disconnecting:
            tls.wrappedProtocol.dataReceived(PLAIN_VIEW[:size].tobytes())
        return None if then is None or tls.finished else then()

    def _why(self, result: int) -> Callable[[], Any] | None:
        """Find out why there is nothing more to read, and what is to be done then."""
        error = get_error(self._ssl, result)
        if error == WANT_READ:
            return None
        if error == WANT_WRITE:
            return self._block
        if error == ZERO_RETURN:
            return self._end
        if self._dead:
            return lambda: CONNECTION_LOST
        try:
            raise_error(self._connection, result)
        except SysCallError as failed:
            # With -1 for an end-of-file.
            return self._cut_off if failed.args[0] == -1 else lambda: CONNECTION_LOST
        except Error as failed:
            reason = failed
            return lambda: self._tls.fail(reason)

    def _block(self) -> None:
        """Read no more until the socket takes what OpenSSL has to send."""
        self._blocked = True
        self._transport.stopReading()
        self._transport.startWriting()

    def _end(self) -> None:
        """The peer's close_notify has come: nothing that is TLS comes any more."""
        self.ended = True
        self._transport.doRead = self._drop
        self._tls.end_met()

    def _drop(self) -> Any:
        """Read what nobody wants, to hear of a connection that is reset."""
        try:
            size = self._transport.socket.recv_into(PLAIN_VIEW)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not size:
            self._transport.stopReading()
        return None

    def _cut_off(self) -> None:
        """An end-of-file without close_notify."""
        self._tls.readConnectionLost()

    def send(self, data: bytes | memoryview) -> int:
        """See L{reverseproxy.transport.stream.ByteFilter}."""
        size = len(data)
        if size > RECORD:
            return self._send_records(data, min(size, ROOM))
        sent: int = write(self._ssl, data if type(data) is bytes else address_of(data), size)
        if sent <= 0:
            self._not_sent(sent)
        return sent

    def _send_records(self, data: bytes | memoryview, size: int) -> int:
        """Send one record after the other, as OpenSSL does not do it by itself."""
        start = address_of(data)
        sent = 0
        corked = size > 2 * RECORD and self._cork(True)
        try:
            while sent < size:
                more = write(self._ssl, start + sent, size - sent)
                if more <= 0:
                    self._not_sent(more)
                sent += more
        except BlockingIOError:
            if not sent:
                raise
        finally:
            if corked:
                self._cork(False)
        return sent

    def _cork(self, corked: bool) -> bool:
        """
        Let the kernel make large packets of many records, and the peer wake up for them once.

        @return: whether it can.
        """
        if _TCP_CORK is None:
            return False
        try:
            self._transport.socket.setsockopt(socket.IPPROTO_TCP, _TCP_CORK, corked)
        except OSError:
            return False  # a Unix socket, for instance
        return True

    def _not_sent(self, result: int) -> NoReturn:
        error = get_error(self._ssl, result)
        if error == WANT_READ:
            # OpenSSL waits for an answer of the peer's.
            self._starved = True
            self._transport.stopWriting()
            raise BlockingIOError
        if error == WANT_WRITE:
            raise BlockingIOError
        self._dead = True
        try:
            raise_error(self._connection, result)
        except SysCallError:
            pass
        except Error as failed:
            self._tls.fail(failed)
        raise OSError(ECONNRESET, "OpenSSL sends no more")

    def write(self, data: bytes) -> None:
        """Send by way of the connection, which keeps what can't be sent."""
        self._transport.write(data)

    def flush(self) -> None:
        """OpenSSL sends by itself what it has to send."""

    def deliver(self) -> None:
        """What was not delivered is in the socket, but for the end."""
        if self.ended:
            self._tls.end_met()

    def drained(self) -> None:
        """See L{reverseproxy.transport.stream.ByteFilter}."""
        tls = self._tls
        if self._blocked:
            self._blocked = False
            if not tls.paused:
                self._transport.startReading()
        tls.drained()

    def close(self) -> bool:
        """
        Send our close_notify, behind everything else.

        @return: whether that is done; if not, there will be a call of C{drained}.
        """
        transport = self._transport
        if not transport.connected:
            return True
        if transport.unsent:
            return False
        try:
            self._connection.shutdown()
        except SSL.WantWriteError:
            transport.startWriting()
            return False
        except Error:
            """There is nobody left to tell."""
        return True

    def forget(self) -> None:
        """The connection is lost."""
        detach(self._connection)
