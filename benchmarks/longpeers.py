"""
Clients and services for single long transfers, over HTTP/1 and HTTP/2.

They move one body as fast as the other end lets them, and are never what
limits it: their own windows of HTTP/2 are as large as the protocol has them.
They know nothing of this project's code, and as much of the protocols as a
transfer takes: a request without a body is answered with C{--size} bytes, one
with a body with nothing, when all of it has come.

C{longpeers.py serve --size N} prints the ports of its services for HTTP/1 and for
HTTP/2 without TLS; C{longpeers.py get|put http1|http2 PORT --size N} moves a body
and prints the seconds that it took.
"""

from __future__ import annotations

__all__ = ["H2Peer", "PeerFailed", "accept", "get_http1", "main", "move_http2", "put_http1"]

import argparse
import json
import select
import socket
import sys
import threading
import time
from struct import Struct

LOOPBACK = "127.0.0.1"
CHUNK = 1024 * 1024
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
LARGEST = 2**31 - 1
FRAME = 16384
CREDIT = 1024 * 1024
"""Bytes that were received after which the peer may send as many more."""

_header = Struct(">HBBBL")
_uint32 = Struct(">L")
_setting = Struct(">HL")


class PeerFailed(Exception):
    """The other end did not do what it should."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Write a frame."""
    size = len(payload)
    return _header.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


class H2Peer:
    """
    One end of a connection of HTTP/2, which moves the body of one stream at a time.

    @ivar stream: the stream; 0 as long as there is none.
    @ivar to_send: bytes of the body still to be sent.
    @ivar received: bytes of the body that have come.
    @ivar ended: whether that was all.
    """

    def __init__(self, connection: socket.socket, client: bool) -> None:
        self._socket = connection
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client = client
        self._expected = b"" if client else PREFACE
        self._window = self._initial = 65535
        self._stream_window = 65535
        self._credit = 0
        self._rest = b""
        self._left = 0  # of a DATA frame that has begun
        self._left_flags = 0
        self._answer = b""  # behind which the body goes
        self._size = 0
        self._out = bytearray(PREFACE if client else b"")
        self._out += frame(SETTINGS, 0, 0, _setting.pack(2, 0) * client + _setting.pack(4, LARGEST))
        self._out += frame(WINDOW_UPDATE, 0, 0, _uint32.pack(LARGEST - 65535))
        self._body: list[memoryview] = []
        self.stream = 0
        self.to_send = 0
        self.received = 0
        self.ended = False

    def request(self, method: bytes, path: bytes, size: int) -> None:
        """Ask for something, or send a body of some bytes."""
        self.stream = self.stream + 2 if self.stream else 1
        self.received, self.ended = 0, False
        block = b"\x02" + bytes([len(method)]) + method + b"\x86\x04" + bytes([len(path)]) + path
        block += b"\x01\x09127.0.0.1"
        if size:
            length = b"%d" % size
            block += b"\x0f\x0d" + bytes([len(length)]) + length
        self._begin(frame(HEADERS, END_HEADERS | (0 if size else END_STREAM), self.stream, block), size)

    def answer(self, size: int) -> None:
        """Answer a request with a body of some bytes."""
        length = b"%d" % size
        block = b"\x88\x0f\x0d" + bytes([len(length)]) + length
        self._begin(frame(HEADERS, END_HEADERS | (0 if size else END_STREAM), self.stream, block), size)

    def _begin(self, head: bytes, size: int) -> None:
        self._out += head
        self._stream_window = self._initial
        self.to_send = size
        # Frames of one stream are all alike but for the last one: many of them are sent at once.
        one = frame(DATA, 0, self.stream, bytes(FRAME))
        self._frames = memoryview(one * 16)

    def turn(self, timeout: float = 30.0) -> bool:
        """
        Wait for the other end, and do what there is to do.

        @return: false if the other end has closed.
        @raise PeerFailed: if it breaks off, or nothing happens in time.
        """
        writing = bool(self._out or self._body or self._sendable)
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | (select.POLLOUT if writing else 0))
        if not poll.poll(timeout * 1000):
            raise PeerFailed(
                f"nothing happened for {timeout:g} s; {self.received:,} bytes came, "
                f"{self.to_send:,} are to be sent, in windows of {self._window:,} and {self._stream_window:,}"
            )
        try:
            data = self._socket.recv(CHUNK)
        except BlockingIOError:
            pass
        else:
            if not data:
                return False
            self._feed(data)
        self._write()
        return True

    @property
    def _sendable(self) -> int:
        return min(self.to_send, self._window, self._stream_window)

    def _write(self) -> None:
        while True:
            if self._body:
                pieces = self._body
            elif self._out:
                pieces = [memoryview(bytes(self._out))]
                self._out.clear()
            elif self._sendable:
                pieces = [self._next_frames(self._sendable)]
            else:
                return
            self._body = pieces
            try:
                sent = self._socket.send(pieces[0])
            except BlockingIOError:
                return
            if sent < len(pieces[0]):
                self._body = [pieces[0][sent:]]
                return
            self._body = []

    def _next_frames(self, sendable: int) -> memoryview:
        whole = min(sendable, self.to_send - 1) // FRAME
        if whole:
            count = min(whole, 16)
            size = count * FRAME
            frames = self._frames[: count * (FRAME + 9)]
        else:
            size = min(sendable, FRAME)
            last = END_STREAM if size == self.to_send else 0
            frames = memoryview(frame(DATA, last, self.stream, bytes(size)))
        self.to_send -= size
        self._window -= size
        self._stream_window -= size
        return frames

    def _feed(self, data: bytes) -> None:
        if self._expected:
            have = self._rest + data
            if len(have) < len(self._expected):
                self._rest = have
                return
            if not have.startswith(self._expected):
                raise PeerFailed(f"the other end begins with {have[:24]!r}")
            data, self._rest = have[len(self._expected) :], b""
            self._expected = b""
        offset = 0
        if self._left:
            offset = min(self._left, len(data))
            self._left -= offset
            if not self._left and self._left_flags & END_STREAM:
                self.ended = True
        elif self._rest:
            data, self._rest = self._rest + data, b""
        end = len(data)
        while end - offset >= 9:
            high, low, kind, flags, stream = _header.unpack_from(data, offset)
            size = (high << 8) | low
            stop = offset + 9 + size
            if kind == DATA:
                self.received += size
                self._credit += size
                if self._credit >= CREDIT or flags & END_STREAM:
                    self._out += frame(WINDOW_UPDATE, 0, 0, _uint32.pack(self._credit))
                    if not flags & END_STREAM:
                        self._out += frame(WINDOW_UPDATE, 0, stream, _uint32.pack(self._credit))
                    self._credit = 0
                if stop > end:
                    self._left, self._left_flags = stop - end, flags
                    return
                if flags & END_STREAM:
                    self.ended = True
            elif stop > end:
                break
            else:
                self._take(kind, flags, stream, data[offset + 9 : stop])
            offset = stop
        self._rest = data[offset:] if offset < end else b""

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            for key, value in _setting.iter_unpack(payload):
                if key == 4:
                    self._stream_window += value - self._initial
                    self._initial = value
            self._out += frame(SETTINGS, ACK, 0)
        elif kind == PING and not flags & ACK:
            self._out += frame(PING, ACK, 0, payload)
        elif kind == WINDOW_UPDATE:
            if stream:
                self._stream_window += _uint32.unpack(payload)[0]
            else:
                self._window += _uint32.unpack(payload)[0]
        elif kind == HEADERS:
            if not self._client:
                self.stream = stream
                self.received, self.ended = 0, False
            self.ended = self.ended or bool(flags & END_STREAM)
            self.headed(bool(flags & END_STREAM))
        elif kind == RST_STREAM and not (self._client and self.ended):
            raise PeerFailed(f"the stream was reset with code {_uint32.unpack(payload)[0]}")
        elif kind == GOAWAY and _uint32.unpack_from(payload, 4)[0]:
            raise PeerFailed(f"the connection was given up: {payload[4:100]!r}")

    def headed(self, ended: bool) -> None:
        """The head of a message has come, and perhaps all of it."""


class _H2Service(H2Peer):
    """Serves one connection."""

    def __init__(self, connection: socket.socket, size: int) -> None:
        super().__init__(connection, client=False)
        self._body_size = size
        self._answered = 0

    def headed(self, ended: bool) -> None:
        if ended:
            self._answered = self.stream
            self.answer(self._body_size)

    def serve(self) -> None:
        """Serve until the other end is gone."""
        while self.turn(3600):
            if self.ended and self._answered != self.stream:
                self._answered = self.stream
                self.answer(0)
                self._write()


def move_http2(port: int, size: int, upload: bool) -> float:
    """
    Move one body over a connection of its own.

    @return: the seconds that it took, from the request to the last byte, or to
        the answer.
    @raise PeerFailed: if it does not get there.
    """
    with socket.create_connection((LOOPBACK, port), timeout=30) as connection:
        peer = H2Peer(connection, client=True)
        begun = time.perf_counter()
        if upload:
            peer.request(b"PUT", b"/", size)
        else:
            peer.request(b"GET", b"/", 0)
        while not peer.ended:
            if not peer.turn():
                raise PeerFailed(f"the connection was closed after {peer.received:,} bytes")
        if not upload and peer.received != size:
            raise PeerFailed(f"{peer.received:,} bytes came instead of {size:,}")
        if upload and peer.to_send:
            raise PeerFailed(f"{peer.to_send:,} bytes were not wanted")
        return time.perf_counter() - begun


def get_http1(port: int, size: int) -> float:
    """Fetch one body over a connection of its own; see L{move_http2}."""
    buffer = memoryview(bytearray(CHUNK))
    with socket.create_connection((LOOPBACK, port), timeout=30) as connection:
        begun = time.perf_counter()
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        head = b""
        while b"\r\n\r\n" not in head:
            part = connection.recv(CHUNK)
            if not part:
                raise PeerFailed(f"the answer was {head!r}")
            head += part
        head, _, rest = head.partition(b"\r\n\r\n")
        if b" 200 " not in head[:16]:
            raise PeerFailed(f"the answer was {head!r}")
        received = len(rest)
        while received < size:
            part_size = connection.recv_into(buffer)
            if not part_size:
                raise PeerFailed(f"the connection was closed after {received:,} bytes")
            received += part_size
        return time.perf_counter() - begun


def put_http1(port: int, size: int) -> float:
    """Send one body over a connection of its own; see L{move_http2}."""
    block = memoryview(bytes(CHUNK))
    with socket.create_connection((LOOPBACK, port), timeout=60) as connection:
        begun = time.perf_counter()
        connection.sendall(b"PUT / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % size)
        left = size
        while left:
            left -= connection.send(block[: min(left, CHUNK)])
        answer = connection.recv(1024)
        if b" 200 " not in answer[:16]:
            raise PeerFailed(f"the answer was {answer!r}")
        return time.perf_counter() - begun


def _serve_http1(connection: socket.socket, size: int) -> None:
    buffer = memoryview(bytearray(CHUNK))
    block = memoryview(bytes(CHUNK))
    rest = b""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        while b"\r\n\r\n" not in rest:
            part = connection.recv(CHUNK)
            if not part:
                return
            rest += part
        head, _, rest = rest.partition(b"\r\n\r\n")
        length = 0
        chunked = False
        for line in head.lower().split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name == b"content-length":
                length = int(value)
            elif name == b"transfer-encoding":
                chunked = True
        if length or chunked:
            left = length - len(rest)
            while left > 0:
                left -= connection.recv_into(buffer, min(left, CHUNK))
            rest = b""
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        else:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            left = size
            while left:
                left -= connection.send(block[: min(left, CHUNK)])


def accept(listening: socket.socket, http2: bool, size: int, count: int | None = None) -> None:
    """
    Serve connections, each in a thread of its own.

    @param http2: what is spoken.
    @param size: bytes of answers to requests without a body.
    @param count: how many connections; L{None} for any number.  They are over when this
        returns, if there is one.
    """

    def handle(connection: socket.socket) -> None:
        try:
            with connection:
                if http2:
                    _H2Service(connection, size).serve()
                else:
                    _serve_http1(connection, size)
        except (PeerFailed, OSError) as error:
            print(error, file=sys.stderr, flush=True)

    threads = []
    while count is None or len(threads) < count:
        connection, _ = listening.accept()
        thread = threading.Thread(target=handle, args=(connection,), daemon=True)
        thread.start()
        if count is not None:
            threads.append(thread)
    for thread in threads:
        thread.join()


def serve(size: int) -> None:
    """Serve until the process is ended."""
    listeners = [socket.create_server((LOOPBACK, 0)) for _ in range(2)]
    threads = [
        threading.Thread(target=accept, args=(listening, http2, size), daemon=True)
        for listening, http2 in zip(listeners, (False, True), strict=True)
    ]
    for thread in threads:
        thread.start()
    print(*(listening.getsockname()[1] for listening in listeners), flush=True)
    threads[0].join()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Move one large body.")
    parser.add_argument("what", choices=("serve", "get", "put"))
    parser.add_argument("protocol", nargs="?", choices=("http1", "http2"), default="http1")
    parser.add_argument("port", nargs="?", type=int, default=0)
    parser.add_argument("--size", type=int, default=10**9, help="bytes")
    options = parser.parse_args()
    if options.what == "serve":
        serve(options.size)
        return 0
    upload = options.what == "put"
    if options.protocol == "http2":
        seconds = move_http2(options.port, options.size, upload)
    else:
        seconds = (put_http1 if upload else get_http1)(options.port, options.size)
    print(json.dumps({"seconds": seconds, "bytes": options.size}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
