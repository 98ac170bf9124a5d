"""
Strangers that mean no good, each a process of its own: C{python -m tests.attacks.attackers}.

They are told what to do by lines, each a kind of attack and ports with tabs between, which
takes the place of the one before; an empty line is none.  They connect again when they
are closed.  Frames are put together by hand, or with codecs that are pure.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import cycle

from reverseproxy.wire.mosn.extensions import Announcement
from reverseproxy.wire.mosn.frames import ConnectionInit, GracefulClose, encode
from reverseproxy.wire.rpc.bolt import Bolt, encode_request

PR_SET_PDEATHSIG = 1
"""Of L{prctl(2)}: a child ends with its parent."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 5, (source, 0))
    connection.settimeout(0.5)
    return connection


def pour(connection: socket.socket, data: bytes) -> None:
    """Send one thing on and on, and read what comes, until the connection is closed."""
    while True:
        connection.sendall(data)
        with suppress(BlockingIOError):
            while connection.recv(1 << 20, socket.MSG_DONTWAIT):
                pass


def crowd(
    port: int, count: int, first: bytes, more: bytes = b"", times: int = 0, source: str = "127.0.0.1"
) -> None:
    """Hold many connections, all of which have begun something, and go on with it, but never to its end."""
    left: dict[socket.socket, int] = {}
    held: list[socket.socket] = []
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        if len(held) < count:
            with suppress(OSError):
                connection = connect(port, source)
                connection.setblocking(False)
                held.append(connection)
                connection.send(first)
                left[connection] = times
        else:
            time.sleep(0.005)
        for connection in [each for each in left if left[each]]:
            with suppress(OSError):
                left[connection] -= connection.send(more) == len(more)


def bad_fields(port: int) -> None:
    """Fields that are larger than any."""
    with connect(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"y" * (1 << 20))
        connection.recv(1 << 16)


# HTTP/2


def h2(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">HBBBL", len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


HEAD = b"\x83\x84\x86\x41\x01a"
"""POST / of a."""


def http2(port: int, data: bytes, streams: int = 0) -> None:
    """Open some streams, which do not end, and send something on and on."""
    connection = connect(port)
    connection.sendall(PREFACE + h2(4, 0, 0))
    connection.sendall(b"".join(h2(1, 4, 2 * number + 1, HEAD) for number in range(streams)))
    pour(connection, data)


def settings(port: int) -> None:
    """Windows of a hundred streams that change on and on."""
    values = b"".join(struct.pack(">HL", 4, 1000 + number) for number in range(64))
    http2(port, h2(4, 0, 0, values) * 20, 100)


def rapid_reset(port: int) -> None:
    """Requests that are broken off at once."""
    connection = connect(port)
    connection.sendall(PREFACE + h2(4, 0, 0))
    for number in cycle(range(1, 1 << 30, 2)):
        connection.sendall(h2(1, 5, number, HEAD) + h2(3, 0, number, bytes(4)))


# tunnels


def join(port: int, name: str, **extra: object) -> socket.socket:
    """Become a host of a cluster that nobody asks anything of."""
    connection = connect(port)
    announcement = Announcement(agent="a" * 32, mux=("yamux",) if extra else ())
    connection.sendall(
        encode(ConnectionInit("other", host_name=name, extra=announcement.to_extra() if extra else None))
    )
    assert connection.recv(8)[:4] == b"\x20\x88\x01\x02"
    return connection


def yamux(port: int, data: bytes) -> None:
    """Join with streams, and send frames of no use."""
    connection = join(port, "evil", mux=True)
    connection.recv(1 << 16)
    pour(connection, data)


def come_and_go(port: int) -> None:
    """Join with a long name, and leave, on and on."""
    with join(port, "n" * 255):
        pass


def close_others(port: int) -> None:
    """Ask for the close of connections that are others'."""
    addresses = tuple(f"10.0.{number >> 8}.{number & 255}:1" for number in range(3000))
    pour(connect(port), encode(GracefulClose(addresses, "clientCluster")))


def guess(port: int) -> None:
    """Credentials that are none."""
    connection = connect(port)
    connection.sendall(encode(ConnectionInit("clientCluster", credential_policy="none", credential="x")))
    connection.recv(1 << 16)


def rubbish(port: int) -> None:
    """What belongs to no protocol, with long lines of it."""
    with connect(port) as connection:
        connection.sendall(b"\x00" * 300 + b"\x1b[31m" * 100)
        connection.recv(1 << 16)


def bad_heads(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n" + b"X: y\r\n" * 50 + b"\r\n")
        connection.recv(1 << 16)


# what only agents may say

LIMITS = ((b"x-mosn-try-timeout", b"1"), (b"x-mosn-global-timeout", b"1"), (b"x-mosn-retry", b"9"))
"""Fields by which a request would be over before any host could answer it, which is the host's fault then."""


def limits(port: int) -> None:
    """Requests that want to be over at once."""
    fields = b"".join(b"%b: %b\r\n" % field for field in LIMITS)
    pour(connect(port), (b"GET / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n") * 20)


def http2_limits(port: int) -> None:
    """The same in HTTP/2."""
    fields = b"".join(bytes([0, len(name)]) + name + bytes([len(value)]) + value for name, value in LIMITS)
    connection = connect(port)
    connection.sendall(PREFACE + h2(4, 0, 0))
    for first in range(1, 1 << 30, 40):
        block = b"\x82\x84\x86\x41\x01a" + fields
        connection.sendall(b"".join(h2(1, 5, number, block) for number in range(first, first + 40, 2)))
        connection.recv(1 << 20)


# TLS

ELSEWHERE = "127.0.0.2"
"""Whose handshakes these are: others at the same address would wait behind them."""


def tls_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def handshake(port: int) -> None:
    """A whole handshake, for nothing."""
    with connect(port, ELSEWHERE) as connection:
        connection.settimeout(5)
        with tls_context().wrap_socket(connection):
            pass


def hellos(port: int, count: int = 100) -> None:
    """The first message of handshakes, which the server has to sign an answer to, and nobody takes."""
    outgoing = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        tls_context().wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    crowd(port, count, outgoing.read(), source=ELSEWHERE)


FRAME = encode_request(1, content=b"x" * (15 << 20))
BEAT = Bolt().heartbeat(1)
BLOCK = PREFACE + h2(4, 0, 0) + h2(1, 0, 1, b"\x00" * 16384) + h2(9, 0, 1, b"\x00" * 16384) * 8

ATTACKS: dict[str, Callable[[int, int, int], object]] = {
    "settings of HTTP/2": lambda web, rpc, tunnel: settings(web),
    "silent connections": lambda web, rpc, tunnel: (crowd(web, 300, b""), crowd(tunnel, 300, b"")),
    "graceful closes of others": lambda web, rpc, tunnel: close_others(tunnel),
    "guessed credentials": lambda web, rpc, tunnel: guess(tunnel),
    "no protocol at all": lambda web, rpc, tunnel: (rubbish(web), rubbish(rpc), rubbish(tunnel)),
    "bad heads": lambda web, rpc, tunnel: bad_heads(web),
    "joins and leaves": lambda web, rpc, tunnel: come_and_go(tunnel),
    "parts of frames": lambda web, rpc, tunnel: crowd(rpc, 40, FRAME[:65536], bytes(1 << 18), 40),
    "parts of heads": lambda web, rpc, tunnel: crowd(
        web, 200, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 7000
    ),
    "parts of field blocks": lambda web, rpc, tunnel: crowd(web, 200, BLOCK),
    "parts of handshakes": lambda web, rpc, tunnel: crowd(
        tunnel, 200, encode(ConnectionInit("other", host_name="h" * 60_000))[:-1]
    ),
    "pings of yamux": lambda web, rpc, tunnel: yamux(tunnel, struct.pack(">BBHLL", 0, 2, 1, 0, 7) * 5000),
    "repeated GoAways": lambda web, rpc, tunnel: yamux(tunnel, struct.pack(">BBHLL", 0, 3, 0, 0, 0) * 5000),
    "streams of yamux that are none": lambda web, rpc, tunnel: yamux(
        tunnel, b"".join(struct.pack(">BBHLL", 0, 1, 1, 2 * n + 2, 0) for n in range(20_000))
    ),
    "pings of HTTP/2": lambda web, rpc, tunnel: http2(web, h2(6, 0, 0, bytes(8)) * 1000),
    "credit of HTTP/2": lambda web, rpc, tunnel: http2(web, h2(8, 0, 1, b"\0\0\0\1") * 5000, 1),
    "rapid resets": lambda web, rpc, tunnel: rapid_reset(web),
    "heartbeats": lambda web, rpc, tunnel: pour(connect(rpc), BEAT * 5000),
    "limits that only agents may set": lambda web, rpc, tunnel: limits(web),
    "the same limits in HTTP/2": lambda web, rpc, tunnel: http2_limits(web),
    "one byte at a time": lambda web, rpc, tunnel: http2(web, h2(0, 0, 1, b"x") * 5000, 1),
}

ADMIN_HEAD = b"POST /api/tunnel/v1/hosts HTTP/1.1\r\nHost: localhost\r\n"

ADMIN_ATTACKS: dict[str, Callable[[int], object]] = {
    "silent connections to the admin API": lambda admin: crowd(admin, 150, b""),
    "heads of the admin API that never end": lambda admin: crowd(admin, 150, ADMIN_HEAD, b"X: y\r\n", 400),
    "bodies of the admin API that never end": lambda admin: crowd(
        admin, 150, ADMIN_HEAD + b"Content-Length: 1000000000\r\n\r\n", bytes(65536), 100
    ),
    "large fields for the admin API": lambda admin: bad_fields(admin),
    "answers of the admin API that nobody takes": lambda admin: crowd(
        admin, 150, b"GET /api/v1/config_dump HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200
    ),
    "events that nobody takes": lambda admin: crowd(
        admin, 100, b"GET /api/tunnel/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
    ),
}
"""The same, against the admin API."""

TLS_ATTACKS: dict[str, Callable[[int, int], object]] = {
    "whole TLS handshakes": lambda web, tunnel: (handshake(web), handshake(tunnel)),
    "beginnings of TLS handshakes": lambda web, tunnel: (hellos(web), hellos(tunnel)),
}
"""The same, against listeners with TLS for the web and for tunnels."""


def attack(kind: str, ports: list[int]) -> None:
    """Do it until somebody ends this process."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    while True:
        with suppress(OSError, AssertionError):
            if kind in TLS_ATTACKS:
                TLS_ATTACKS[kind](*ports[3:5])
            elif kind in ADMIN_ATTACKS:
                ADMIN_ATTACKS[kind](ports[5])
            else:
                ATTACKS[kind](*ports[:3])


def main() -> None:
    """Begin and end attacks, each in a child: to start Python anew takes longer than most of them."""
    child = 0
    for line in sys.stdin:
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            child = 0
        kind, *ports = line.rstrip("\n").split("\t")
        if kind:
            child = os.fork()
            if not child:
                attack(kind, [int(port) for port in ports])
        print(f"begun: {kind}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
