"""
What a client sends before its handshake is complete.

It is kept until there is time for this handshake (L{reverseproxy.tls.turns}) and, where that
chooses the certificate, until its first message is whole.  OpenSSL keeps what is not complete, too, of a
certificate for one: so all of it is counted as unfinished.

For a client of TLS 1.3 the handshake is complete before it is for us.  It may send what that was for
at once, and may have sent all of it, before its last message has its turn here.  So it is read no further
when there is much of it; and an end behind it is met in its turn, too.  Clients that leave earlier have none.
"""

from __future__ import annotations

__all__ = ["MOST_EARLY", "ClientOpening", "OpeningOwner"]

from typing import Any, Final, Protocol

from reverseproxy.limits.buffered_bytes import UNTRUSTED, AccountedProtocol, BufferAccount
from reverseproxy.limits.connection_limit import address_key
from reverseproxy.tls.client_hello import ClientHello, ClientHelloReader
from reverseproxy.tls.turns import HandshakeTurns, Waiting

MOST_EARLY: Final = 65536
"""Bytes that have come while a handshake waits for its turn, beyond which no more is read."""


class OpeningOwner(Protocol):
    """Who makes something of what a client sends."""

    def choose(self, hello: ClientHello) -> None:
        """Take the client's first message, before anything else is made of it."""

    def step(self, data: bytes) -> None:
        """Take what the client has sent, as there is time for it."""

    def refuse(self, reason: str) -> None:
        """End the connection."""

    def pause(self) -> None:
        """Read no further."""

    def resume(self) -> None:
        """Read on, unless the connection is paused for another reason."""

    def end(self) -> None:
        """The client sends nothing more."""


class ClientOpening(AccountedProtocol):
    """Takes in what one client sends, and goes on with its handshake when there is time."""

    def __init__(
        self, owner: OpeningOwner, transport: Any, turns: HandshakeTurns | None, chooses: bool
    ) -> None:
        """
        @param transport: what it comes from.
        @param turns: paces handshakes; L{None} if nothing does.
        @param chooses: whether something depends on the client's first message.
        """
        self._owner = owner
        self._transport = transport
        self._turns = turns
        self._hello = ClientHelloReader() if chooses else None
        self._held: list[bytes] = []  # until the first message is whole
        self._early: list[bytes] = []  # until there is time
        self._received = 0  # bytes, in all
        self._waits: Waiting | None = None
        self._begun = False  # a step was taken
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
        """Take in what the client has sent."""
        self._received += len(data)
        self.count(self._received)
        if self._stopped:
            return
        self._early.append(data)
        if self._waits is None:
            if self._turns is None:
                self._go_on()
                return
            # What it sends meanwhile is read: those that leave shall not have a turn.
            self._waits = self._turns.ask(self._address, self._go_on, self._owner.refuse)
        if self._waits is not None and not self._paused and sum(map(len, self._early)) > MOST_EARLY:
            self._paused = True
            self._owner.pause()

    def defer_end(self) -> bool:
        """
        The client sends nothing more: see whether it can complete the handshake nevertheless.

        @return: if so, the owner is told of the end when what waits has had its turn.
        """
        self._ended = self._begun and self._waits is not None and not self._stopped
        return self._ended

    def _go_on(self) -> None:
        """It is this handshake's turn."""
        data, self._early = b"".join(self._early), []
        self._waits = None
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
        Have the context chosen by the client's first message.

        @return: all that was received; nothing as long as the message is incomplete.
        """
        self._held.append(data)
        hello = reader.feed(data)
        if hello is None:
            return b""
        held, self._held, self._hello = b"".join(self._held), [], None
        self._owner.choose(hello)
        return held

    def stop(self) -> None:
        """Make nothing more of what comes."""
        self._stopped = True

    def close(self) -> None:
        """Keep nothing any more: the handshake is complete, or the connection lost."""
        self._stopped = True
        self.count_no_more()
        if self._waits is not None:
            self._waits.cancel()
            self._waits = None
        self._held, self._early = [], []
