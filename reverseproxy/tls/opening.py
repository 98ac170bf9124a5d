"""
What a client sends before its handshake is complete.

It is buffered until there is time for this handshake (L{reverseproxy.net.time_share}) and, if its first
message chooses the certificate, until that message is complete.  OpenSSL buffers incomplete messages
as well, such as a large certificate: so all of it is counted as unfinished bytes.

With TLS 1.3 the handshake is complete for the client before it is for the server.  The client may
send application data at once, and may have sent all of it, before its last handshake message is
processed here.  So reading pauses when much is buffered, and an end-of-file is handled after the
data before it.  A client that closes before it has sent its last handshake message gets no time.
"""

from __future__ import annotations

__all__ = ["MOST_EARLY", "ClientOpening", "OpeningOwner"]

from typing import Any, Final, Protocol

from reverseproxy.limits.buffered_bytes import UNTRUSTED, AccountedProtocol, BufferAccount
from reverseproxy.limits.connection_limit import address_key
from reverseproxy.net.time_share import QueuedStep, TimeShare
from reverseproxy.tls.client_hello import ClientHello, ClientHelloReader

MOST_EARLY: Final = 65536
"""Bytes buffered while a handshake waits for its time, above which reading pauses."""


class OpeningOwner(Protocol):
    """What a L{ClientOpening} calls: the handshake that it belongs to."""

    def choose(self, hello: ClientHello) -> None:
        """Choose the context by the client's first message, before its bytes are processed."""

    def step(self, data: bytes) -> None:
        """Process what the client has sent."""

    def refuse(self, reason: str) -> None:
        """Abort the connection, with a reason."""

    def pause(self) -> None:
        """Stop reading."""

    def resume(self) -> None:
        """Read again, unless the connection is paused for another reason."""

    def end(self) -> None:
        """Handle the client's end-of-file."""


class ClientOpening(AccountedProtocol):
    """Buffers what one client sends, and continues its handshake when there is time for it."""

    def __init__(
        self, owner: OpeningOwner, transport: Any, time_share: TimeShare | None, chooses: bool
    ) -> None:
        """
        @param transport: the transport below.
        @param time_share: limits the time that handshakes take; L{None} for no limit.
        @param chooses: whether the context depends on the client's first message.
        """
        self._owner = owner
        self._transport = transport
        self._time_share = time_share
        self._hello = ClientHelloReader() if chooses else None
        self._held: list[bytes] = []  # until the first message is complete
        self._early: list[bytes] = []  # until there is time
        self._received = 0  # bytes in total
        self._step: QueuedStep | None = None
        self._begun = False  # a step has been taken
        self._paused = False
        self._ended = False
        self._stopped = False

    def open_account(self) -> BufferAccount:
        """See L{AccountedProtocol}."""
        return UNTRUSTED.account(self._address, self._owner.refuse)

    @property
    def _address(self) -> str:
        return address_key(getattr(self._transport.getPeer(), "host", ""))

    def receive(self, data: bytes) -> None:
        """Buffer what the client has sent, and process it if there is time."""
        self._received += len(data)
        self.count(self._received)
        if self._stopped:
            return
        self._early.append(data)
        if self._step is None:
            if self._time_share is None:
                self._go_on()
                return
            # Reading goes on meanwhile, so that clients that close need no time.
            self._step = self._time_share.ask(self._address, self._go_on, self._owner.refuse)
        if self._step is not None and not self._paused and sum(map(len, self._early)) > MOST_EARLY:
            self._paused = True
            self._owner.pause()

    def defer_end(self) -> bool:
        """
        Handle the client's end-of-file: decide whether it may still complete the handshake.

        @return: if so, C{end} of the owner is called after the buffered data has been processed.
        """
        self._ended = self._begun and self._step is not None and not self._stopped
        return self._ended

    def _go_on(self) -> None:
        """Continue the handshake, as there is time."""
        data, self._early = b"".join(self._early), []
        self._step = None
        if self._stopped:
            return
        if self._hello is not None:
            data = self._read_hello(self._hello, data)
        if data:
            self._begun = True
            self._owner.step(data)
        if self._paused:
            self._paused = False
            self._owner.resume()
        if self._ended:
            self._ended = False
            self._owner.end()

    def _read_hello(self, reader: ClientHelloReader, data: bytes) -> bytes:
        """
        Choose the context by the client's first message.

        @return: all that was received; empty as long as the message is incomplete.
        """
        self._held.append(data)
        hello = reader.feed(data)
        if hello is None:
            return b""
        held, self._held, self._hello = b"".join(self._held), [], None
        self._owner.choose(hello)
        return held

    def stop(self) -> None:
        """Ignore all further data."""
        self._stopped = True

    def close(self) -> None:
        """Drop what is buffered, as the handshake is complete or the connection lost."""
        self._stopped = True
        self.count_no_more()
        if self._step is not None:
            self._step.cancel()
            self._step = None
        self._held, self._early = [], []
