"""
The record layer of a TLS connection: from ciphertext to its protocol, and from its protocol to ciphertext.

OpenSSL reads and writes memory, never the socket, so that this works over every transport.  What is
written is encrypted and given to the transport at once, so that the transport's buffer is the only one.
"""

from __future__ import annotations

__all__ = ["PlaintextReceiver", "RecordLayer"]

from contextlib import suppress
from typing import Any, Final, Protocol

from OpenSSL import SSL
from OpenSSL.SSL import Error

from reverseproxy.tls.records import BLOCK, records_of

_FLUSH_EVERY: Final = 32
"""
Reads after which OpenSSL is asked for answers of its own, which it has if the
peer wants new keys.  Asking costs as much as decrypting a small message.
"""


class PlaintextReceiver(Protocol):
    """
    What a L{RecordLayer} delivers to.

    @ivar paused: whether nothing is to be delivered now.
    @ivar disconnecting: whether nothing is to be delivered any more.
    @ivar wrappedProtocol: the protocol that receives the plaintext.
    """

    paused: bool
    disconnecting: int
    wrappedProtocol: Any  # noqa: N815 - Twisted's name

    @property
    def finished(self) -> bool:
        """Whether the connection is over, so that whatever arrives is dropped."""

    @property
    def reads(self) -> bool:
        """Whether it takes plaintext now."""

    def end_met(self) -> None:
        """Handle the peer's close_notify."""

    def fail(self, error: Error) -> None:
        """Close the connection, as OpenSSL has failed."""


class RecordLayer:
    """Decrypts what a connection receives and delivers it; encrypts what it sends."""

    __slots__ = (
        "_connection",
        "_delivering",
        "_held",
        "_more",
        "_receiver",
        "_records",
        "_transport",
        "_unflushed",
    )

    def __init__(self, receiver: PlaintextReceiver, connection: SSL.Connection, transport: Any) -> None:
        """
        @param connection: with memory BIOs, which are empty.
        @param transport: what ciphertext is written to.
        """
        self._receiver = receiver
        self._connection = connection
        self._transport = transport
        self._records = records_of(connection)
        self._delivering = False
        self._more = False  # OpenSSL may have something that was not decrypted
        self._held: list[bytes] = []  # ciphertext that it was not given yet
        self._unflushed = 0

    # receiving

    def feed(self, data: bytes) -> None:
        """Give OpenSSL ciphertext of the handshake, of which it decrypts nothing yet."""
        self._records.feed(data)

    def hold(self, data: bytes) -> None:
        """Keep ciphertext that came behind the handshake, until C{deliver}."""
        self._held.append(data)

    def receive(self, data: bytes) -> None:
        """Decrypt ciphertext and deliver the plaintext, unless the connection is paused."""
        if self._receiver.paused or self._delivering:
            self._held.append(data)
            return
        plaintext = self._records.receive(data)
        self._delivering = True
        try:
            self._deliver(plaintext)
        finally:
            self._delivering = False
        if self._more or self._held:
            self.deliver()

    def deliver(self) -> None:
        """Deliver what can be decrypted of the ciphertext so far, unless the connection is paused."""
        self._more = True
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._more and self._receiver.reads:
                self._more = False
                self._deliver(self._records.decrypt())
                while self._held and self._receiver.reads:
                    self._deliver(self._records.receive(self._held.pop(0)))
        finally:
            self._delivering = False

    def _deliver(self, plaintext: bytes) -> None:
        """Deliver all that was decrypted at once: every call of a protocol has its price."""
        self._unflushed += 1
        if not plaintext or self._unflushed >= _FLUSH_EVERY:
            self.flush()
        receiver = self._receiver
        # A protocol that has closed the connection takes no more data.
        if plaintext and not receiver.disconnecting:
            receiver.wrappedProtocol.dataReceived(plaintext)
        if receiver.finished:
            return
        records = self._records
        if records.error is not None:
            receiver.fail(records.error)
        elif records.ended:
            receiver.end_met()

    # sending

    def write(self, data: bytes) -> None:
        """Encrypt, and send."""
        encrypt, send = self._records.encrypt, self._transport.write
        self._unflushed = 0
        try:
            if len(data) <= BLOCK:
                send(encrypt(data))
            else:
                view = memoryview(data)
                for start in range(0, len(data), BLOCK):
                    send(encrypt(view[start : start + BLOCK]))
        except Error as error:
            self._receiver.fail(error)

    def flush(self) -> None:
        """Send what OpenSSL has to send by itself, such as an alert or an answer to a key update."""
        self._unflushed = 0
        data = self._records.take()
        if data:
            self._transport.write(data)

    def close(self) -> None:
        """Send our close_notify."""
        with suppress(Error):  # OpenSSL has failed before, and sends nothing more
            self._connection.shutdown()
        self.flush()
