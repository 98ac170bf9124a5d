"""
TLS between a connection and any transport, through memory.

This is how every handshake goes, and all that follows it where there is no socket of ours; see
L{reverseproxy.tls.socket_records} for the other way.  What is written is encrypted and goes to the
transport at once, so that its buffer is the only one.
"""

from __future__ import annotations

__all__ = ["PlaintextEnd", "ThroughMemory"]

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


class PlaintextEnd(Protocol):
    """
    Who gets what was decrypted.

    @ivar paused: whether nothing is to be delivered now.
    @ivar disconnecting: whether it wants nothing any more.
    @ivar wrappedProtocol: the protocol that has what is delivered.
    """

    paused: bool
    disconnecting: int
    wrappedProtocol: Any  # noqa: N815 - Twisted's name

    @property
    def finished(self) -> bool:
        """Whether nothing that comes now matters any more."""

    @property
    def reads(self) -> bool:
        """Whether it is to be given what there is."""

    def end_met(self) -> None:
        """The peer's close_notify has come."""

    def fail(self, error: Error) -> None:
        """TLS can't go on."""


class ThroughMemory:
    """Decrypts what comes for a connection, and encrypts what it sends."""

    __slots__ = ("_connection", "_delivering", "_end", "_more", "_records", "_transport", "_unflushed")

    def __init__(self, end: PlaintextEnd, connection: SSL.Connection, transport: Any) -> None:
        """
        @param connection: with memory for a wire, through which nothing has gone yet.
        @param transport: what ciphertext is written to.
        """
        self._end = end
        self._connection = connection
        self._transport = transport
        self._records = records_of(connection)
        self._delivering = False
        self._more = False  # something has come that was not looked at
        self._unflushed = 0

    @property
    def ended(self) -> bool:
        """Whether the peer's close_notify has been met."""
        return self._records.ended

    # receiving

    def feed(self, data: bytes) -> None:
        """Take what has come of a handshake, and of what may be behind it."""
        self._records.feed(data)

    def receive(self, data: bytes) -> None:
        """Take what has come, and deliver it unless the connection is paused."""
        if self._end.paused or self._delivering:
            self._records.feed(data)
            self._more = True
            return
        plaintext = self._records.receive(data)
        self._delivering = True
        try:
            self._pass_on(plaintext)
        finally:
            self._delivering = False
        if self._more:
            self.deliver()

    def deliver(self) -> None:
        """Deliver what can be decrypted, unless the connection is paused."""
        self._more = True
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._more and self._end.reads:
                self._more = False
                self._pass_on(self._records.decrypt())
        finally:
            self._delivering = False

    def _pass_on(self, plaintext: bytes) -> None:
        """Deliver all that was decrypted as one piece: each delivery has its price."""
        self._unflushed += 1
        if not plaintext or self._unflushed >= _FLUSH_EVERY:
            self.flush()
        end = self._end
        # What comes when the protocol has closed or aborted the connection is of no use to it.
        if plaintext and not end.disconnecting:
            end.wrappedProtocol.dataReceived(plaintext)
        if end.finished:
            return
        records = self._records
        if records.error is not None:
            end.fail(records.error)
        elif records.ended:
            end.end_met()

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
            self._end.fail(error)

    def flush(self) -> None:
        """Give the transport what OpenSSL has to send of its own accord."""
        self._unflushed = 0
        data = self._records.take()
        if data:
            self._transport.write(data)

    def close(self) -> bool:
        """
        Send our close_notify.

        @return: true, as that is done.
        """
        with suppress(Error):  # there is nobody left to tell
            self._connection.shutdown()
        self.flush()
        return True

    def forget(self) -> None:
        """The connection is lost."""
