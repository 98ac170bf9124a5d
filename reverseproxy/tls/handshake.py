"""
The handshake of a TLS connection.

It has a deadline.  On the server's side its steps are scheduled with those of other handshakes, and the
client's first message may choose the certificate; see L{reverseproxy.tls.opening}.
"""

from __future__ import annotations

__all__ = ["Handshake", "HandshakeEnd"]

from typing import Any, Protocol

from OpenSSL import SSL
from OpenSSL.SSL import Error, WantReadError
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from reverseproxy.net.time_share import TimeShare
from reverseproxy.tls.client_hello import ClientHello
from reverseproxy.tls.opening import ClientOpening
from reverseproxy.tls.record_layer import RecordLayer
from reverseproxy.tls.records import PORTION
from reverseproxy.tls.server_contexts import ServerTls


class HandshakeEnd(Protocol):
    """What a L{Handshake} calls: the connection that it belongs to."""

    @property
    def finished(self) -> bool:
        """Whether the connection is over, so that whatever arrives is dropped."""

    def use(self, connection: SSL.Connection) -> RecordLayer:
        """Use another connection of OpenSSL's, with empty BIOs."""

    def handshake_complete(self) -> None:
        """Begin to use the connection, as the handshake is complete."""

    def go_on(self) -> None:
        """Deliver data that arrived with the end of the handshake."""

    def fail(self, error: Error) -> None:
        """Close the connection, as OpenSSL has failed."""

    def give_up(self, reason: str) -> None:
        """Abort the connection, with a reason."""

    def readConnectionLost(self) -> None:
        """Handle the peer's end-of-file."""


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
        time_share: TimeShare | None,
    ) -> None:
        """
        @param transport: the transport below.
        @param server: the contexts that a client may choose from; L{None} on the client's side.
        @param time_share: limits the time that handshakes with clients take; L{None} for no limit.
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
            self._opening = ClientOpening(self, transport, time_share, server.chooses)

    def begin(self, clock: IReactorTime | None, timeout: float | None) -> None:
        """
        Start the deadline.

        @param timeout: seconds that the handshake may take; L{None} for no deadline.
        """
        if clock is not None and timeout is not None:
            reason = f"the handshake was not complete after {timeout:g} s"
            self._deadline = clock.callLater(timeout, self._end.give_up, reason)

    def receive(self, data: bytes) -> None:
        """Take ciphertext from the peer."""
        if self._opening is not None:
            self._opening.receive(data)
        else:
            self.step(data)

    def defer_end(self) -> bool:
        """
        Handle the peer's end-of-file.

        @return: whether C{readConnectionLost} is called again, after the data before it.
        """
        return self._opening is not None and self._opening.defer_end()

    # called by ClientOpening

    def choose(self, hello: ClientHello) -> None:
        """Choose the context by the client's first message."""
        server = self._server
        assert server is not None
        self._connection = server.connection(self._end, server.select(hello.server_name, hello.alpn))
        self._records = self._end.use(self._connection)

    def step(self, data: bytes) -> None:
        """Continue the handshake with ciphertext, behind which there may be application data."""
        for start in range(0, len(data), PORTION):
            if self.complete:
                self._records.hold(data[start:])
                break
            self._records.feed(data[start : start + PORTION])
            self.shake_hands()
        if self.complete:
            self._end.go_on()

    def refuse(self, reason: str) -> None:
        """Abort the connection."""
        self._end.give_up(reason)

    def pause(self) -> None:
        """Stop reading."""
        self._transport.pauseProducing()

    def resume(self) -> None:
        """Read again, unless the connection is paused or over."""
        if not (self._end.finished or (self.complete and self._records.paused)):
            self._transport.resumeProducing()

    def end(self) -> None:
        """Handle the client's end-of-file, now that its data has been handled."""
        self._end.readConnectionLost()

    def shake_hands(self) -> None:
        """Continue the handshake with the ciphertext so far."""
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
        """Ignore all further data, and cancel the deadline."""
        self._stopped = True
        if self._opening is not None:
            self._opening.stop()
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

    def close(self) -> None:
        """Drop all references, as the handshake is over."""
        self.stop()
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.close()
