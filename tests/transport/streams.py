"""
Streams for the tests of what protocols may expect of a connection.

The other end of a stream is made to look like a plain socket, which does
nothing by itself.
"""

from __future__ import annotations

__all__ = ["StreamSocket", "Streams"]

import socket
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.mux.session import MuxSession
from reverseproxy.wire.yamux.events import MuxLimits
from tests.transport.contract import CallableFactory, Contract, Recorder


@implementer(IHalfCloseableProtocol)
class StreamSocket(Protocol):
    """
    A stream that is used like a socket that does not block.

    @ivar room: bytes that it takes without anybody reading them.
    """

    transport: Any

    def __init__(self) -> None:
        self.room = 2**18
        self.unread = bytearray()
        self.ended = False
        self.full = False
        self.failure: Failure | None = None
        self.closed = False
        self.resets = False

    # the protocol

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)

    def pauseProducing(self) -> None:
        self.full = True

    def resumeProducing(self) -> None:
        self.full = False

    def stopProducing(self) -> None:
        self.full = True

    def dataReceived(self, data: bytes) -> None:
        self.unread += data
        if len(self.unread) >= self.room:
            self.transport.pauseProducing()

    def readConnectionLost(self) -> None:
        self.ended = True

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.ended:
            self.failure = reason

    # the socket

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        if option == socket.SO_RCVBUF:
            self.room = value
        elif option == socket.SO_LINGER:
            self.resets = True

    def getpeername(self) -> Any:
        peer = self.transport.getPeer()
        return (peer.host, peer.port)

    def getsockname(self) -> Any:
        host = self.transport.getHost()
        return (host.host, host.port)

    def recv(self, size: int) -> bytes:
        data = bytes(self.unread[:size])
        del self.unread[:size]
        if len(self.unread) < self.room:
            self.transport.resumeProducing()
        if not data and self.failure is not None:
            raise ConnectionResetError(self.failure.getErrorMessage())
        if not data and not self.ended:
            raise BlockingIOError
        return data

    def send(self, data: Any) -> int:
        if self.failure is not None:
            raise BrokenPipeError
        if self.full:
            raise BlockingIOError
        self.transport.write(bytes(data))
        return len(data)

    def shutdown(self, how: int) -> None:
        assert how == socket.SHUT_WR
        self.transport.loseWriteConnection()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self.resets:
            self.transport.abortConnection()
        else:
            self.transport.unregisterProducer()
            self.transport.loseConnection()


class Streams(Contract):
    """
    What a kind of stream is tested with.

    @ivar sessions: the ends of the connection, ours and that of the L{StreamSocket}s.
    """

    def setUp(self) -> None:
        super().setUp()
        self.sessions: list[MuxSession] = []
        self.next: list[Any] = []

    async def tearDown(self) -> None:
        await super().tearDown()
        for session in self.sessions:
            session.abort("the test is over")
        await self.until(lambda: all(session.lost for session in self.sessions))

    def build(self) -> Any:
        return self.next.pop() if self.next else None

    async def join(self) -> None:
        """Connect the two sessions."""
        made = self.sessions
        # A window takes much less than what the tests send to those that do not read.
        limits = MuxLimits(max_window=2**19)
        made += [MuxSession(client, self.reactor, limits, accept=self.build) for client in (False, True)]
        where = self.listen(lambda: made[0])
        self.dial(where, lambda: made[1])
        await self.until(lambda: all(session.connected for session in made))

    async def connect(self, kind: Any = Recorder, small: bool = False) -> tuple[Any, Any]:
        """Open a stream between a protocol and a L{StreamSocket}."""
        if not self.sessions:
            await self.join()
        protocol, peer = kind(), StreamSocket()
        self.protocols.append(protocol)
        self.peers.append(peer)  # type: ignore[arg-type]
        if small:
            peer.room = 4096
        opener, accepter = (peer, protocol) if self.server else (protocol, peer)
        self.next.append(accepter)
        self.sessions[self.server].open(CallableFactory(lambda: opener)).addErrback(lambda _: None)
        await self.until(lambda: peer.connected and protocol.events)
        return protocol, peer
