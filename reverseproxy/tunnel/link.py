"""
An agent's connection to a tunnel server: greeting, then hosting.

The link owns the connection until the server has accepted it, and hands it to
the hosting listener then, with whatever came behind the response.
"""

from __future__ import annotations

__all__ = ["AgentLink"]

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.cluster.handover import Handover
from reverseproxy.errors import ConnectionRefusedByPeer, FrameError, HandshakeRefused
from reverseproxy.interfaces import ConnectionInfo, IConnectionSink, IDrainable
from reverseproxy.listener import format_address
from reverseproxy.proxy.relay import LINGER, lose_connection
from reverseproxy.sockets import DEAD_PEER_TIMEOUT, tune
from reverseproxy.tls import peer_identity
from reverseproxy.wire.extra import ServerAnnouncement
from reverseproxy.wire.tunnel import ConnectionInit, Flag, FrameDecoder, InitResponse, Status, encode

log = Logger()


def _ignore(reason: Failure) -> None:
    """Stand in until somebody wants to hear of the loss."""


class AgentLink(Handover):
    """
    See L{reverseproxy.tunnel.slot.Link}.

    @ivar used: whether the server has sent anything after its answer.
    @ivar gone: whether the connection is lost.
    @ivar server_announced: whether the server is one of ours, so that what it
        understands beyond MOSN may be used.
    """

    transport: Any
    used = False
    gone = False
    server_announced = False

    def __init__(
        self,
        make_init: Callable[[str], ConnectionInit],
        sink: IConnectionSink,
        clock: IReactorTime,
        response_timeout: float,
        secure: bool,
        dead_peer_timeout: float = DEAD_PEER_TIMEOUT,
    ) -> None:
        """
        @param make_init: makes the init frame, given our own address on this
            connection.
        @param sink: the hosting listener.
        @param response_timeout: seconds that the server has for its answer.
        @param dead_peer_timeout: see L{tune}.
        """
        super().__init__()
        self.lost: Callable[[Failure], None] = _ignore
        self._make_init = make_init
        self._sink = sink
        self._clock = clock
        self._timeout = response_timeout
        self._secure = secure
        self._dead_peer_timeout = dead_peer_timeout
        self._decoder = FrameDecoder(expect=frozenset({Flag.INIT_RESPONSE}))
        self._greeting: Deferred[None] | None = None
        self._deadline: IDelayedCall | None = None
        self._closing: IDelayedCall | None = None
        self._hosted = False

    def connectionMade(self) -> None:
        """Tune the connection; the greeting waits until it is asked for."""
        tune(self.transport, self._dead_peer_timeout)

    @property
    def local_address(self) -> str:
        """Our address on this connection, as the server sees it without NAT."""
        return format_address(self.transport.getHost())

    @property
    def busy(self) -> bool:
        """Whether a request or a session is under way."""
        inner = self.inner
        return IDrainable.providedBy(inner) and inner.busy

    def greet(self) -> Deferred[None]:
        """Send the init frame; see L{reverseproxy.tunnel.slot.Link.greet}."""
        greeting: Deferred[None] = Deferred(lambda _: self._abandon())
        if self.gone:
            greeting.errback(Failure(ConnectionRefusedByPeer("connection lost before the handshake")))
            return greeting
        self._greeting = greeting
        self._deadline = self._clock.callLater(self._timeout, self._too_late)
        try:
            frame = encode(self._make_init(self.local_address))
        except Exception as error:
            # Such as a credential that does not fit into a frame: the next one may.
            self._refuse(error)
        else:
            self.transport.write(frame)
        return greeting

    def _abandon(self) -> None:
        # Forgotten first: the loss of the connection must not conclude what is cancelled.
        self._greeting = None
        self._conclude(None)
        self.close()

    def _too_late(self) -> None:
        self._refuse(ConnectionRefusedByPeer(f"no answer to the handshake within {self._timeout:g} s"))

    def dataReceived(self, data: bytes) -> None:
        """Wait for the answer; the hosted protocol takes over after it."""
        try:
            answer = self._decoder.feed(data)
        except FrameError as error:
            self._refuse(error)
            return
        if answer is None:
            return
        assert isinstance(answer, InitResponse)
        if self._greeting is None:
            self.close()  # cancelled, or the server spoke before it was greeted
        elif answer.status != Status.SUCCESS:
            self._refuse(HandshakeRefused(answer.status, answer.status.meaning))
        else:
            self._host(answer)

    def _host(self, answer: InitResponse) -> None:
        self.server_announced = ServerAnnouncement.from_extra(answer.extra) is not None
        info = ConnectionInfo(
            remote=format_address(self.transport.getPeer()),
            local=self.local_address,
            secure=self._secure,
            identity=peer_identity(self.transport) if self._secure else None,
            reverse=True,
        )
        # Concluded first: the hosted protocol may close the connection at once,
        # and a slot must hear of the success before it hears of the loss.
        self._hosted = True
        self._conclude(None)
        surplus = self._decoder.take_surplus()
        try:
            self.hand_over(self._sink.build_protocol(info), surplus)
        except Exception:
            self._hosted_failed()
            self.close()

    def _hosted_failed(self) -> None:
        log.failure(
            "listener {listener}: the protocol of a connection to {peer} failed",
            listener=self._sink.name,
            peer=format_address(self.transport.getPeer()),
        )

    def rebind(self, receive: Callable[[bytes], None]) -> None:
        """Give reads to the hosted protocol; the first one marks the link as used."""
        if not self._hosted or self.used:
            super().rebind(receive)
            return

        def first(data: bytes) -> None:
            self.used = True
            self.rebind(receive)
            receive(data)

        super().rebind(first)

    def _refuse(self, error: Exception) -> None:
        self._conclude(Failure(error))
        self.close()

    def _conclude(self, result: Failure | None) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        greeting, self._greeting = self._greeting, None
        if greeting is None:
            return
        if result is None:
            greeting.callback(None)
        else:
            greeting.errback(result)

    def drain(self) -> None:
        """Let the hosted protocol finish what it has begun."""
        if IDrainable.providedBy(self.inner):
            self.inner.drain()

    def close(self) -> None:
        """Close the connection, once what the hosted protocol wrote is sent."""
        if self.gone or self._closing is not None:
            return
        if self._hosted:
            self._closing = self._clock.callLater(LINGER, self.transport.abortConnection)
            lose_connection(self.transport)
        else:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End the hosted protocol, then tell the slot."""
        self.gone = True
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        try:
            super().connectionLost(reason)
        except Exception:
            self._hosted_failed()  # which must not keep the slot from hearing of the loss
        self._conclude(
            Failure(ConnectionRefusedByPeer(f"lost during the handshake: {reason.getErrorMessage()}"))
        )
        lost, self.lost = self.lost, _ignore
        if self._hosted:
            lost(reason)
