"""
The handshake of a TLS connection, from the first byte to the last.

It has a deadline.  On a server's side it takes its turn with others, and the client's first message may
choose the certificate; see L{reverseproxy.tls.opening}.
"""

from __future__ import annotations

__all__ = ["Handshake", "HandshakeEnd"]

from typing import Any, Protocol

from OpenSSL import SSL
from OpenSSL.SSL import Error, WantReadError
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from reverseproxy.tls.client_hello import ClientHello
from reverseproxy.tls.opening import ClientOpening
from reverseproxy.tls.record_layer import RecordLayer
from reverseproxy.tls.records import PORTION
from reverseproxy.tls.server_contexts import ServerTls
from reverseproxy.tls.turns import HandshakeTurns


class HandshakeEnd(Protocol):
    """Whose handshake it is."""

    @property
    def finished(self) -> bool:
        """Whether nothing that comes now matters any more."""

    def use(self, connection: SSL.Connection) -> RecordLayer:
        """Use another connection of OpenSSL's, through which nothing has gone yet."""

    def handshake_complete(self) -> None:
        """Begin what the handshake was for."""

    def go_on(self) -> None:
        """Deliver what has come behind the handshake."""

    def fail(self, error: Error) -> None:
        """TLS can't go on."""

    def give_up(self, reason: str) -> None:
        """End the connection."""

    def readConnectionLost(self) -> None:
        """The peer sends nothing more."""


class Handshake:
    """
    One handshake.

    @ivar complete: whether it is.
    """

    __slots__ = (
        "_connection",
        "_deadline",
        "_end",
        "_opening",
        "_records",
        "_server",
        "_stopped",
        "_transport",
        "complete",
    )

    def __init__(
        self,
        end: HandshakeEnd,
        transport: Any,
        connection: SSL.Connection,
        server: ServerTls | None,
        turns: HandshakeTurns | None,
    ) -> None:
        """
        @param transport: what it goes through.
        @param server: what a client may choose from; L{None} on a client's side.
        @param turns: paces those of clients; L{None} if nothing does.
        """
        self.complete = False
        self._end = end
        self._transport = transport
        self._connection = connection
        self._records = end.use(connection)
        self._server = server
        self._stopped = False
        self._deadline: IDelayedCall | None = None
        self._opening: ClientOpening | None = None
        if server is not None:
            self._opening = ClientOpening(self, transport, turns, server.chooses)

    def begin(self, clock: IReactorTime | None, timeout: float | None) -> None:
        """
        Begin.

        @param timeout: seconds that it may take; L{None} for any time.
        """
        if clock is not None and timeout is not None:
            reason = f"the handshake was not complete after {timeout:g} s"
            self._deadline = clock.callLater(timeout, self._end.give_up, reason)

    def receive(self, data: bytes) -> None:
        """Take what the peer has sent."""
        if self._opening is not None:
            self._opening.receive(data)
        else:
            self.step(data)

    def defer_end(self) -> bool:
        """
        The peer sends nothing more.

        @return: whether that is told again, when what it has sent has had its turn.
        """
        return self._opening is not None and self._opening.defer_end()

    # what a client's opening asks for

    def choose(self, hello: ClientHello) -> None:
        """Have the context chosen by the client's first message."""
        server = self._server
        assert server is not None
        self._connection = server.connection(self._end, server.select(hello.server_name, hello.alpn))
        self._records = self._end.use(self._connection)

    def step(self, data: bytes) -> None:
        """Take a step; behind it there may be what the handshake was for."""
        for start in range(0, len(data), PORTION):
            if self.complete:
                self._records.hold(data[start:])
                break
            self._records.feed(data[start : start + PORTION])
            self.shake_hands()
        if self.complete:
            self._end.go_on()

    def refuse(self, reason: str) -> None:
        """End the connection."""
        self._end.give_up(reason)

    def pause(self) -> None:
        """Read no further."""
        self._transport.pauseProducing()

    def resume(self) -> None:
        """Read on, unless whoever the handshake was for does not want that."""
        if not (self._end.finished or (self.complete and self._records.paused)):
            self._transport.resumeProducing()

    def end(self) -> None:
        """The client sends nothing more."""
        self._end.readConnectionLost()

    def shake_hands(self) -> None:
        """Do what can be done with what has come."""
        if self._stopped:
            return
        try:
            self._connection.do_handshake()
        except WantReadError:
            self._records.flush()
        except Error as error:
            self._end.fail(error)
        else:
            self.complete = True
            self.close()
            self._end.handshake_complete()

    def stop(self) -> None:
        """Make nothing more of what comes."""
        self._stopped = True
        if self._opening is not None:
            self._opening.stop()
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

    def close(self) -> None:
        """It is over: keep nothing of it."""
        self.stop()
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.close()
