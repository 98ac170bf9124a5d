"""
A connection of a reactor, with a plain socket at its other end.

The plain socket does nothing by itself, so that a test says in which order
things happen: what arrives while the reactor does not run, and when it is read.
"""

from __future__ import annotations

__all__ = ["CallableFactory", "Contract", "HalfRecorder", "Recorder", "read_now", "reset"]

import shutil
import socket
import struct
import tempfile
from collections.abc import Callable
from typing import Any, Literal

from twisted.internet import reactor
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from reverseproxy.transport import with_streams

Family = Literal["TCP4", "TCP6", "UNIX"]

_FAMILIES = {"TCP4": socket.AF_INET, "TCP6": socket.AF_INET6, "UNIX": socket.AF_UNIX}
_LOOPBACK = {"TCP4": "127.0.0.1", "TCP6": "::1"}


class Recorder(Protocol):
    """
    Notes what it is told.

    @ivar events: C{made}, C{lost}, and what a half-closeable one hears.
    @ivar pieces: what was received, by call.
    """

    transport: Any

    def __init__(self) -> None:
        self.events: list[str] = []
        self.pieces: list[bytes] = []
        self.reason: Failure | None = None
        self.on_data: Callable[[bytes], object] = lambda data: None
        self.on_made: Callable[[], object] = lambda: None
        self.on_lost: Callable[[], object] = lambda: None

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)

    def connectionMade(self) -> None:
        self.events.append("made")
        self.on_made()

    def dataReceived(self, data: bytes) -> None:
        self.pieces.append(data)
        self.on_data(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.events.append("lost")
        self.reason = reason
        self.on_lost()


@implementer(IHalfCloseableProtocol)
class HalfRecorder(Recorder):
    """One that half-closes."""

    on_read_lost: Callable[[], object] = staticmethod(lambda: None)
    on_write_lost: Callable[[], object] = staticmethod(lambda: None)

    def readConnectionLost(self) -> None:
        self.events.append("read lost")
        self.on_read_lost()

    def writeConnectionLost(self) -> None:
        self.events.append("write lost")
        self.on_write_lost()


class CallableFactory(Factory):
    """Builds protocols with a function."""

    noisy = False

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build

    def buildProtocol(self, addr: Any) -> Any:
        return self._build()


class _Dial(ClientFactory):
    noisy = False

    def __init__(self, build: Callable[[], Any]) -> None:
        self._build = build
        self.failed: Failure | None = None
        self.lost: Failure | None = None

    def buildProtocol(self, addr: Any) -> Any:
        return self._build()

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.failed = reason

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        self.lost = reason


def reset(peer: socket.socket) -> None:
    """Close a socket so that the other end is told of an error; a Unix socket can't."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def read_now(peer: socket.socket) -> bytes:
    """All that can be read from a socket now."""
    pieces = []
    try:
        while data := peer.recv(2**16):
            pieces.append(data)
    except (BlockingIOError, ConnectionResetError):
        pass
    return b"".join(pieces)


class Contract(TestCase):
    """
    What one kind of connection is tested with.

    @cvar fast: whether the connections are ours.
    @cvar family: which kind of socket.
    @cvar server: whether the connection of the reactor is the accepted one.
    """

    timeout = 30  # seconds, for each test
    fast = True
    family: Family = "TCP4"
    server = True

    def setUp(self) -> None:
        self.reactor: Any = with_streams(reactor) if self.fast else reactor
        self.peers: list[socket.socket] = []
        self.protocols: list[Recorder] = []
        self.ports: list[Any] = []
        self.directories: list[str] = []

    async def tearDown(self) -> None:
        for protocol in self.protocols:
            if "lost" not in protocol.events and protocol.transport is not None:
                protocol.transport.unregisterProducer()
                protocol.transport.abortConnection()
        for peer in self.peers:
            peer.close()
        for port in self.ports:
            await port.stopListening()
        await self.until(lambda: all("lost" in each.events for each in self.protocols))
        await self.turn()
        for directory in self.directories:
            shutil.rmtree(directory)

    # time

    async def until(self, true: Callable[[], object]) -> None:
        """Wait for the reactor to bring something about; trial's timeout is the deadline."""
        while not true():
            await deferLater(reactor, 0.001)

    async def turn(self, turns: int = 3) -> None:
        """Let the reactor do what it can do now."""
        for _ in range(turns):
            await deferLater(reactor, 0)

    # making connections

    def socket(self) -> socket.socket:
        made = socket.socket(_FAMILIES[self.family])
        made.setblocking(False)
        self.peers.append(made)
        return made

    def path(self) -> str:
        # Short, whatever trial's directory is: such a name has 108 bytes at the most.
        self.directories.append(tempfile.mkdtemp(prefix="reverseproxy"))
        return f"{self.directories[-1]}/socket"

    def listen(self, build: Callable[[], Any]) -> Any:
        """Listen with the reactor; return where."""
        if self.family == "UNIX":
            where: Any = self.path()
            port = self.reactor.listenUNIX(where, CallableFactory(build))
        else:
            port = self.reactor.listenTCP(0, CallableFactory(build), interface=_LOOPBACK[self.family])
            where = (port.getHost().host, port.getHost().port)
        self.ports.append(port)
        return where

    def dial(self, where: Any, build: Callable[[], Any], timeout: float = 10) -> tuple[_Dial, Any]:
        """Dial with the reactor."""
        factory = _Dial(build)
        if self.family == "UNIX":
            return factory, self.reactor.connectUNIX(where, factory, timeout=timeout)
        return factory, self.reactor.connectTCP(where[0], where[1], factory, timeout=timeout)

    def listening_socket(self) -> socket.socket:
        listening = self.socket()
        listening.bind(self.path() if self.family == "UNIX" else (_LOOPBACK[self.family], 0))
        listening.listen(256)
        return listening

    async def connect(
        self, kind: Callable[[], Recorder] = Recorder, small: bool = False
    ) -> tuple[Any, socket.socket]:
        """
        Connect a protocol of the reactor and a plain socket.

        @param small: whether the sockets are to buffer as little as possible.
        """
        protocol = kind()
        self.protocols.append(protocol)
        peer = self.socket()
        if small:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        if self.server:
            # Waits for nobody: the kernel completes the connection by itself.
            peer.connect_ex(self.listen(lambda: protocol))
            await self.until(lambda: protocol.events)
        else:
            listening = self.listening_socket()
            if small:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self.dial(listening.getsockname(), lambda: protocol)
            await self.until(lambda: protocol.events)
            peer = listening.accept()[0]
            peer.setblocking(False)
            self.peers.append(peer)
        if small:
            handle = protocol.transport.getHandle()
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return protocol, peer

    # the plain socket

    async def is_reset(self, peer: socket.socket) -> None:
        """Wait until the plain socket hears that it was reset."""
        with self.assertRaises(ConnectionResetError):
            await self.hear(peer)

    async def receive(self, peer: socket.socket, size: int) -> bytes:
        """Read so many bytes, or up to the end."""
        data = bytearray()
        while len(data) < size:
            piece = await self.hear(peer, min(size - len(data), 2**18))
            if not piece:
                break
            data += piece
        return bytes(data)

    async def hear(self, peer: socket.socket, size: int = 2**18) -> bytes:
        """
        Wait for whatever comes next: data, or C{b""} for an end-of-file.

        What the reactor has done may be on its way to the plain socket for any
        number of turns, so that this is the way to look for an end, too.

        @raise OSError: if it is an error.
        """
        while True:
            try:
                return peer.recv(size)
            except BlockingIOError:
                await deferLater(reactor, 0)

    async def receive_end(self, peer: socket.socket) -> bytes:
        """Read everything up to the end."""
        return await self.receive(peer, 2**40)

    async def send(self, peer: socket.socket, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[peer.send(view) :]
            except BlockingIOError:
                await deferLater(reactor, 0)

    async def lost(self, protocol: Recorder, *kinds: type[Exception]) -> None:
        """Wait for the end of a connection, and check its reason."""
        await self.until(lambda: "lost" in protocol.events)
        assert protocol.reason is not None
        self.assertIn(protocol.reason.type, kinds)
        await self.turn()
        self.assertEqual(protocol.events.count("lost"), 1)

    async def done(self, protocol: Recorder) -> None:
        await self.lost(protocol, ConnectionDone)

    async def broken(self, protocol: Recorder) -> None:
        await self.lost(protocol, ConnectionLost)

    async def aborted(self, protocol: Recorder) -> None:
        await self.lost(protocol, ConnectionAborted)
