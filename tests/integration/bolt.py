"""
bolt peers for the scenario tests: a client, and a service.

Frames are put together and taken apart by hand, from the wire format and not
from L{reverseproxy.wire}.
"""

from __future__ import annotations

__all__ = [
    "BoltClient",
    "BoltService",
    "Message",
    "heartbeat",
    "heartbeat_answer",
    "headers_of",
    "request",
    "response",
]

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from tests.integration.harness import DEADLINE, _deadline

SUCCESS, UNKNOWN, BUSY, NO_PROCESSOR, TIMEOUT, CODEC = 0, 3, 4, 6, 7, 9


@dataclass
class Message:
    """A frame: C{extra} is a request's timeout or a response's status."""

    version: int
    kind: int
    command: int
    number: int
    extra: int
    headers: bytes
    content: bytes
    raw: bytes


def _block(headers: Mapping[str, str]) -> bytes:
    texts = [text.encode() for item in headers.items() for text in item]
    return b"".join(struct.pack("!I", len(text)) + text for text in texts)


def headers_of(block: bytes) -> dict[str, str]:
    texts = []
    while block:
        length = struct.unpack("!I", block[:4])[0]
        texts.append(block[4 : 4 + length].decode())
        block = block[4 + length :]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def request(
    number: int,
    content: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    timeout: int = 0,
    kind: int = 1,
    command: int = 1,
    version: int = 1,
) -> bytes:
    block = _block({"service": "echo"} if headers is None else headers)
    lengths = struct.pack("!HHI", 5, len(block), len(content)) + b"class" + block + content
    if version == 1:
        return struct.pack("!BBHBIBi", 1, kind, command, 1, number, 1, timeout) + lengths
    return struct.pack("!BBBHBIBBi", 2, 1, kind, command, 1, number, 1, 0, timeout) + lengths


def response(
    number: int, content: bytes = b"", status: int = 0, *, command: int = 2, version: int = 1
) -> bytes:
    lengths = struct.pack("!HHI", 0, 0, len(content)) + content
    if version == 1:
        return struct.pack("!BBHBIBH", 1, 0, command, 1, number, 1, status) + lengths
    return struct.pack("!BBBHBIBBH", 2, 1, 0, command, 1, number, 1, 0, status) + lengths


def heartbeat(number: int) -> bytes:
    return struct.pack("!BBHBIBiHHI", 1, 1, 0, 1, number, 1, -1, 0, 0, 0)


def heartbeat_answer(number: int) -> bytes:
    return response(number, command=0)


def _take(buffer: bytearray) -> Message | None:
    """Take one frame off the front of a buffer."""
    if len(buffer) < 24 and len(buffer) < 20:
        return None
    version = buffer[0]
    assert version in (1, 2), buffer[:20]
    shift = version - 1
    kind = buffer[1 + shift]
    size = (20 if kind == 0 else 22) + 2 * shift
    if len(buffer) < size:
        return None
    command, _, number, _ = struct.unpack_from("!HBIB", buffer, 2 + shift)
    form = "!HHHI" if kind == 0 else "!iHHI"
    extra, class_, block, content = struct.unpack_from(form, buffer, 10 + 2 * shift)
    end = size + class_ + block + content
    if len(buffer) < end:
        return None
    raw = bytes(buffer[:end])
    del buffer[:end]
    start = size + class_
    return Message(
        version, kind, command, number, extra, raw[start : start + block], raw[start + block :], raw
    )


class _Peer(Protocol):
    transport: Any

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        while (message := _take(self._buffer)) is not None:
            self.received(message)

    def received(self, message: Message) -> None:
        raise NotImplementedError


class BoltClient(_Peer):
    """
    A client.

    @ivar others: what came that was no answer to a request.
    """

    def __init__(self) -> None:
        super().__init__()
        self.others: list[Message] = []
        self._number = 0
        self._waiting: dict[int, Deferred[Message]] = {}
        self._closed: list[Deferred[None]] = []
        self._came: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def ask(
        self, content: bytes = b"", headers: Mapping[str, str] | None = None, **more: Any
    ) -> Deferred[Message]:
        """Send a request; fires with the answer."""
        self._number += 1
        return self.send(self._number, request(self._number, content, headers, **more))

    def send(self, number: int, data: bytes, timeout: float = DEADLINE) -> Deferred[Message]:
        """Send a request that is at hand."""
        answer: Deferred[Message] = Deferred()
        self._waiting[number] = answer
        self.transport.write(data)

        def late() -> None:
            del self._waiting[number]
            answer.errback(AssertionError(f"request {number} was not answered"))

        return _deadline(answer, timeout, late)

    def received(self, message: Message) -> None:
        if message.kind == 0 and message.command == 2:
            self._waiting.pop(message.number).callback(message)
            return
        self.others.append(message)
        for waiting in list(self._came):
            look, came = waiting
            if look():
                self._came.remove(waiting)
                came.callback(None)

    def came(self, count: int) -> Deferred[None]:
        """Wait until that many other frames have come."""
        came: Deferred[None] = Deferred()
        waiting = (lambda: len(self.others) >= count, came)
        if waiting[0]():
            came.callback(None)
            return came
        self._came.append(waiting)

        def late() -> None:
            self._came.remove(waiting)
            came.errback(AssertionError(f"{len(self.others)} frames came, not {count}"))

        return _deadline(came, DEADLINE, late)

    def closed(self) -> Deferred[None]:
        """Wait until the other end has closed."""
        closed: Deferred[None] = Deferred()
        if self.lost:
            closed.callback(None)
            return closed
        self._closed.append(closed)

        def late() -> None:
            self._closed.remove(closed)
            closed.errback(AssertionError("the connection is still open"))

        return _deadline(closed, DEADLINE, late)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True
        closed, self._closed = self._closed, []
        for each in closed:
            each.callback(None)
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            answer.errback(reason)


class _Connection(_Peer):
    def __init__(self, service: BoltService) -> None:
        super().__init__()
        self._service = service
        self._unused = True

    def connectionMade(self) -> None:
        self._service.made.append(self)

    def received(self, message: Message) -> None:
        service = self._service
        if self._unused:
            self._unused = False
            service.connections.append(self)
        if message.command == 0:
            service.heartbeats += 1
            self.transport.write(heartbeat_answer(message.number))
        elif message.command == 1:
            service.seen.append(message)
            if message.kind == 1:
                service.take(self, message)
            service.check()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True


class BoltService(Factory):
    """
    A service that sends back what it gets, perhaps later.

    @ivar made: all connections so far, those included that only try whether somebody listens.
    @ivar connections: those on which something came.
    @ivar seen: all requests so far.
    @ivar held: requests that wait for an answer, with their connections.
    @ivar holding: whether to hold them.
    @ivar name: what answers begin with.
    """

    noisy = False

    def __init__(self, name: bytes = b"") -> None:
        self.name = name
        self.port = 0
        self.made: list[_Connection] = []
        self.connections: list[_Connection] = []
        self.heartbeats = 0
        self.seen: list[Message] = []
        self.held: list[tuple[_Connection, Message]] = []
        self.holding = False
        self._waiting: list[tuple[int, Deferred[None]]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def listen(self, test: Any) -> BoltService:
        """Listen on a port until the test ends."""
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self)
        test.addCleanup(listening.stopListening)
        test.addCleanup(lambda: [each.transport.abortConnection() for each in self.made])
        self.port = listening.getHost().port
        return self

    def buildProtocol(self, addr: object) -> _Connection:
        return _Connection(self)

    def take(self, connection: _Connection, message: Message) -> None:
        if self.holding:
            self.held.append((connection, message))
        else:
            self.answer(connection, message)

    def answer(self, connection: _Connection, message: Message) -> None:
        content = self.name + message.content
        connection.transport.write(response(message.number, content, version=message.version))

    def release(self) -> None:
        """Answer what is held, in the order in which it stands in L{held}."""
        held, self.held = self.held, []
        for connection, message in held:
            self.answer(connection, message)

    def came(self, count: int, timeout: float = DEADLINE) -> Deferred[None]:
        """Wait until that many requests have come in all."""
        came: Deferred[None] = Deferred()
        waiting = (count, came)
        self._waiting.append(waiting)
        self.check()

        def late() -> None:
            self._waiting.remove(waiting)
            came.errback(AssertionError(f"{len(self.seen)} requests came, not {count}"))

        return _deadline(came, timeout, late)

    def check(self) -> None:
        for waiting in list(self._waiting):
            if len(self.seen) >= waiting[0]:
                self._waiting.remove(waiting)
                waiting[1].callback(None)
