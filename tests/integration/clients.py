"""
Clients and peers for the scenario tests.

HTTP is spoken by the standard library's client in threads, so that neither the
project's own code nor its reactor has a part in judging an answer; tunnel
frames are put together by hand, from the wire format and not from
L{reverseproxy.wire}.
"""

from __future__ import annotations

__all__ = [
    "Answer",
    "Load",
    "RawPeer",
    "Recorder",
    "close_frame",
    "connect_raw",
    "fetch",
    "frame",
    "gather",
    "init_frame",
    "listen_raw",
    "response_frame",
    "threaded",
]

import http.client
import json
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.endpoints import HostnameEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.integration.harness import DEADLINE, _deadline


def threaded(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
    """Run a blocking function in a thread of its own."""
    done: Deferred[Any] = Deferred()

    def run() -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException:
            reactor.callFromThread(done.errback, Failure())  # type: ignore[attr-defined]
        else:
            reactor.callFromThread(done.callback, result)  # type: ignore[attr-defined]

    threading.Thread(target=run, daemon=True).start()
    return done


# HTTP


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, with names of headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def ask(
    connection: http.client.HTTPConnection,
    path: str = "/",
    method: str = "GET",
    body: Any = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """Make one request on a connection."""
    connection.request(method, path, body=body, headers=headers or {})
    response = connection.getresponse()
    return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


def fetch(
    port: int,
    path: str = "/",
    method: str = "GET",
    body: Any = None,
    headers: dict[str, str] | None = None,
    *,
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
    timeout: float = DEADLINE,
) -> Deferred[Answer]:
    """Make one request on a connection of its own."""

    def run() -> Answer:
        connection: http.client.HTTPConnection
        if tls is None:
            connection = http.client.HTTPConnection(host, port, timeout=timeout)
        else:
            connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=tls)
        try:
            return ask(connection, path, method, body, {"Connection": "close", **(headers or {})})
        finally:
            connection.close()

    return threaded(run)


@dataclass
class Load:
    """
    Clients that make one request after the other until told to stop.

    Every request carries an id of its own, in a header and in its body, which
    the answer has to carry as well.

    @ivar method: POST may not be repeated by a proxy; GET has no body here.
    @ivar answered: how many requests were answered as they should be.
    @ivar failures: what went wrong with the others.
    @ivar slowest: the longest that one took, in seconds, since that was set to 0 last.
    """

    port: int
    clients: int = 32
    limit: int | None = None
    method: str = "POST"
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    backends: dict[str, int] = field(default_factory=dict)
    _begun: int = 0
    _stopping: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _waiting: list[tuple[int, Deferred[None]]] = field(default_factory=list)
    _done: list[Deferred[Any]] = field(default_factory=list)

    def start(self) -> Load:
        """Start all clients."""
        self._done = [threaded(self._run, number) for number in range(self.clients)]
        return self

    def answers(self, more: int) -> Deferred[None]:
        """Wait for that many more good answers."""
        came: Deferred[None] = Deferred()
        with self._lock:
            waiting = (self.answered + more, came)
            self._waiting.append(waiting)

        def late() -> None:
            self._waiting.remove(waiting)
            came.errback(AssertionError(f"no {more} answers in time; failures: {self.failures[:5]}"))

        return _deadline(came, DEADLINE, late)

    async def stop(self) -> None:
        """Let every client finish its last request and end."""
        self._stopping = True
        await self.finished()

    async def finished(self) -> None:
        """Wait until all clients have ended."""
        for done in self._done:
            await done

    def _next(self) -> int | None:
        with self._lock:
            if self._stopping or self._begun == self.limit:
                return None
            self._begun += 1
            return self._begun

    def _run(self, client: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            while (number := self._next()) is not None:
                token = f"request-{number}-of-client-{client}"
                body = b"" if self.method == "GET" else token.encode() * 3
                began = time.monotonic()
                try:
                    answer = ask(connection, "/echo", self.method, body or None, {"x-id": token})
                except (OSError, http.client.HTTPException) as error:
                    self._failed(f"{token}: {error!r}")
                    connection.close()
                    continue
                if (answer.status, answer.headers.get("x-id"), answer.body) == (
                    200,
                    token,
                    body,
                ):
                    self._good(answer.headers.get("x-backend", ""), time.monotonic() - began)
                else:
                    self._failed(f"{token}: {answer}")
        finally:
            connection.close()

    def _failed(self, reason: str) -> None:
        with self._lock:
            self.failures.append(reason)

    def _good(self, backend: str, seconds: float) -> None:
        with self._lock:
            self.slowest = max(self.slowest, seconds)
            self.answered += 1
            self.backends[backend] = self.backends.get(backend, 0) + 1
            due = [waiting for waiting in self._waiting if waiting[0] <= self.answered]
            for waiting in due:
                self._waiting.remove(waiting)
        for _, came in due:
            reactor.callFromThread(came.callback, None)  # type: ignore[attr-defined]


# tunnel frames, and peers that are neither


def frame(flag: int, payload: bytes) -> bytes:
    """A tunnel frame; types are 1 for requests and 2 for responses."""
    return (
        struct.pack("!2sBBHH", b"\x20\x88", 1, flag, 0x0200 if flag == 2 else 0x0100, len(payload)) + payload
    )


def init_frame(cluster: str, **fields: Any) -> bytes:
    """The init frame that MOSN's agent sends."""
    document = {
        "cluster_name": cluster,
        "weight": 10,
        "host_name": "",
        "credential_policy": "",
        "credential": "",
        "extra": None,
    }
    return frame(1, json.dumps({**document, **fields}, separators=(",", ":")).encode())


def response_frame(status: int) -> bytes:
    """The answer to an init frame."""
    return frame(2, b'{"status":%d}' % status)


def close_frame(cluster: str, *addresses: str) -> bytes:
    """The frame that announces that an agent is about to leave."""
    document = {"addresses": list(addresses), "cluster_name": cluster}
    return frame(3, json.dumps(document, separators=(",", ":")).encode())


@implementer(IHalfCloseableProtocol)
class RawPeer(Protocol):
    """
    One end of a connection, in the hands of a test.

    @ivar received: all bytes so far.
    """

    def __init__(self) -> None:
        self.received = b""
        self.eof = False
        self.lost = False
        self._waiting: list[tuple[Callable[[], Any], Deferred[bytes]]] = []

    @property
    def address(self) -> str:
        """Our own address, as the other end sees it."""
        host = self.transport.getHost()
        return f"{host.host}:{host.port}"

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._look()

    def readConnectionLost(self) -> None:
        self.eof = True
        self._look()

    def writeConnectionLost(self) -> None:
        """Nothing to do: the test did it."""

    def connectionLost(self, reason: Failure = Failure(Exception("lost"))) -> None:  # noqa: B008
        self.lost = self.eof = True
        self._look()

    def _look(self) -> None:
        for waiting in list(self._waiting):
            if waiting[0]():
                self._waiting.remove(waiting)
                waiting[1].callback(self.received)
        if self.lost:
            waiting_for, self._waiting = self._waiting, []
            for _, came in waiting_for:
                came.errback(AssertionError(f"connection lost after {self.received[:300]!r}"))

    def until(self, wanted: Callable[[], Any], timeout: float = DEADLINE) -> Deferred[bytes]:
        """Wait until a condition holds; fires with all bytes received."""
        came: Deferred[bytes] = Deferred()
        waiting = (wanted, came)
        self._waiting.append(waiting)

        def late() -> None:
            self._waiting.remove(waiting)
            came.errback(AssertionError(f"nothing came after {self.received[:300]!r}"))

        _deadline(came, timeout, late)
        self._look()
        return came

    def bytes(self, count: int) -> Deferred[bytes]:
        """Wait for that many bytes in all."""
        return self.until(lambda: len(self.received) >= count)

    def contains(self, wanted: bytes) -> Deferred[bytes]:
        """Wait until these bytes have come."""
        return self.until(lambda: wanted in self.received)

    def closed(self, timeout: float = DEADLINE) -> Deferred[bytes]:
        """Wait until the other end has closed."""
        return self.until(lambda: self.eof or self.lost, timeout)

    async def frame(self) -> tuple[int, dict[str, Any]]:
        """Take the next tunnel frame off what was received."""
        await self.bytes(8)
        length = struct.unpack("!H", self.received[6:8])[0]
        await self.bytes(8 + length)
        header, payload = self.received[:8], self.received[8 : 8 + length]
        assert header[:3] == b"\x20\x88\x01", header
        assert header[4:6] == (b"\x02\x00" if header[3] == 2 else b"\x01\x00"), header
        self.received = self.received[8 + length :]
        return header[3], json.loads(payload)


class Recorder(Factory):
    """A server that hands each accepted connection to the test, in order."""

    def __init__(self, protocol: Callable[[], Protocol] = RawPeer) -> None:
        self._protocol = protocol
        self.accepted: list[Any] = []
        self._waiting: list[Deferred[Any]] = []
        self.port = 0

    def buildProtocol(self, addr: object) -> Protocol:
        peer = self._protocol()
        self.accepted.append(peer)
        reactor.callLater(0, self._hand_over)  # type: ignore[attr-defined]
        return peer

    def _hand_over(self) -> None:
        while self._waiting and self.accepted:
            self._waiting.pop(0).callback(self.accepted.pop(0))

    def next(self, timeout: float = DEADLINE) -> Deferred[Any]:
        """Wait for the next connection."""
        came: Deferred[Any] = Deferred()
        self._waiting.append(came)

        def late() -> None:
            self._waiting.remove(came)
            came.errback(AssertionError("nobody connected"))

        _deadline(came, timeout, late)
        self._hand_over()
        return came


def gather(waited: Iterable[Any]) -> Deferred[list[Any]]:
    """Wait for several coroutines or Deferreds at the same time."""
    return gatherResults([ensureDeferred(each) for each in waited])


async def connect_raw(
    test: Any, port: int, protocol: Callable[[], Any] = RawPeer, host: str = "127.0.0.1"
) -> Any:
    """Connect to a port; the connection is dropped when the test ends."""
    peer = await connectProtocol(HostnameEndpoint(reactor, host, port), protocol())
    test.addCleanup(peer.transport.abortConnection)
    return peer


async def listen_raw(test: Any, protocol: Callable[[], Protocol] = RawPeer, port: int = 0) -> Recorder:
    """Listen on a port until the test ends."""
    recorder = Recorder(protocol)
    listening = await TCP4ServerEndpoint(reactor, port, interface="127.0.0.1").listen(recorder)
    test.addCleanup(listening.stopListening)
    recorder.port = listening.getHost().port
    return recorder
