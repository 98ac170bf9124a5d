"""
The record layer of a TLS connection: from ciphertext to its protocol, and from its protocol to ciphertext.

OpenSSL reads and writes memory, never the socket, so that this works over every transport.  What is
written is encrypted and given to the transport at once, so that the transport's buffer is the only one.
"""

from __future__ import annotations

__all__ = ["RecordOwner", "RecordLayer"]

from contextlib import suppress
from typing import Any, Final, Protocol

from OpenSSL import SSL
from OpenSSL.SSL import Error

from reverseproxy.tls.records import BLOCK, records_of

_FLUSH_EVERY: Final = 32
"""
Reads after which OpenSSL is asked whether it has something to send by itself, such as the
answer to a key update.  Asking costs as much as decrypting a small message.
"""


class RecordOwner(Protocol):
    """What a L{RecordLayer} calls: the connection that it belongs to."""

    def end_met(self) -> None:
        """Handle the peer's close_notify; called again after a pause."""

    def fail(self, error: Error) -> None:
        """Close the connection, as OpenSSL has failed."""


class RecordLayer:
    """
    Decrypts what a connection receives and delivers it; encrypts what it sends.

    The connection sets the flags below.  They are attributes of this class, in slots, because every
    message needs them, and the attributes of a C{ProtocolWrapper} are several times as slow.

    @ivar protocol: receives the plaintext.
    @ivar paused: whether nothing is to be delivered now.
    @ivar discards: whether plaintext is dropped, as the protocol has closed the connection.  Alerts are
        still handled.
    @ivar closed: whether nothing is received any more.
    @ivar sends: whether what is written may be encrypted and sent at once.
    """

    __slots__ = (
        "_codec",
        "_connection",
        "_delivering",
        "_held",
        "_more",
        "_owner",
        "_send",
        "_transport",
        "_unflushed",
        "closed",
        "discards",
        "paused",
        "protocol",
        "sends",
    )

    def __init__(self, owner: RecordOwner) -> None:
        self._owner: Any = owner
        self.protocol: Any = None
        self._connection: Any = None
        self._transport: Any = None
        self._send: Any = None  # for memory that is overwritten afterwards
        self._codec: Any = None
        self.paused = self.discards = self.closed = self.sends = False
        self._delivering = False
        self._more = False  # OpenSSL may have something that was not decrypted
        self._held: list[bytes] = []  # ciphertext that OpenSSL was not given yet
        self._unflushed = 0

    def use(self, connection: SSL.Connection, transport: Any) -> None:
        """
        Use a connection of OpenSSL's from now on.

        @param connection: with memory BIOs, which are empty.
        @param transport: what ciphertext is written to.
        """
        self._connection = connection
        self._transport = transport
        self._codec = records_of(connection)
        # The class is asked, as a wrapper (TLS below this TLS) forwards attributes that it does not have.
        can_view = hasattr(type(transport), "write_view")
        self._send = transport.write_view if can_view else lambda data: transport.write(bytes(data))

    # receiving

    def feed(self, data: bytes) -> None:
        """Give OpenSSL ciphertext of the handshake, of which it decrypts nothing yet."""
        self._codec.feed(data)

    def hold(self, data: bytes) -> None:
        """Keep ciphertext that came behind the handshake, until C{deliver}."""
        self._held.append(data)

    # This and write run for every message, hence few calls.

    def receive(self, data: bytes) -> None:
        """Decrypt ciphertext and deliver the plaintext, unless the connection is paused."""
        if self.closed:
            return
        if self.paused or self._delivering or self._held:
            self._held.append(data)  # behind what came before
            if not (self.paused or self._delivering):
                self.deliver()
            return
        plaintext = self._codec.receive(data)
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
            while self._more and not (self.paused or self.closed):
                self._more = False
                self._deliver(self._codec.decrypt())
                while self._held and not (self.paused or self.closed):
                    self._deliver(self._codec.receive(self._held.pop(0)))
        finally:
            self._delivering = False

    def _deliver(self, plaintext: bytes) -> None:
        """Deliver all that was decrypted at once: every call of a protocol has its price."""
        self._unflushed += 1
        if not plaintext or self._unflushed >= _FLUSH_EVERY:
            self.flush()
        if plaintext and not self.discards:
            self.protocol.dataReceived(plaintext)
        if self.closed:
            return
        codec = self._codec
        if codec.error is not None:
            self._owner.fail(codec.error)
        elif codec.ended:
            self._owner.end_met()

    # sending

    def write(self, data: bytes) -> None:
        """Encrypt, and send."""
        encrypt, send = self._codec.encrypt, self._send
        self._unflushed = 0
        try:
            if len(data) <= BLOCK:
                send(encrypt(data))
            else:
                view = memoryview(data)
                for start in range(0, len(data), BLOCK):
                    send(encrypt(view[start : start + BLOCK]))
        except Error as error:
            self._owner.fail(error)

    def flush(self) -> None:
        """Send what OpenSSL has to send by itself, such as an alert or an answer to a key update."""
        self._unflushed = 0
        data = self._codec.take()
        if data:
            self._transport.write(data)

    def close(self) -> None:
        """Send our close_notify."""
        with suppress(Error):  # OpenSSL has failed before, and sends nothing more
            self._connection.shutdown()
        self.flush()

    def forget(self) -> None:
        """Drop all references, as the connection is lost: they make cycles."""
        self.closed, self.sends = True, False
        self._owner = self.protocol = self._connection = self._transport = self._send = self._codec = None
        self._held = []
