"""
Tunnel servers that mean no good, all in one process: C{python -m tests.attacks.servers}.

Each kind listens on a port of its own, which is printed, and does the same to every
agent that dials it, until it is dialled no more.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from reverseproxy.wire.mosn.extensions import ServerAnnouncement
from reverseproxy.wire.mosn.frames import InitResponse, Status, encode
from tests.attacks.attackers import HEAD, PREFACE, h2, pour

PIECE = 0.01
"""Seconds between the pieces of what comes slowly."""


def accept(agent: socket.socket, mux: str = "") -> None:
    """Take an agent's handshake, and let it in."""
    agent.recv(1 << 16)
    extra = ServerAnnouncement(mux=mux).to_extra() if mux else None
    agent.sendall(encode(InitResponse(Status.SUCCESS, extra)))


def slowly(agent: socket.socket, data: bytes) -> None:
    """One byte after the other, without an end."""
    for byte in data:
        agent.sendall(bytes([byte]))
        time.sleep(PIECE)


def yamux(agent: socket.socket, data: bytes) -> None:
    """Let it in with streams, and send frames of no use, or streams on and on."""
    accept(agent, "yamux")
    pour(agent, data)


def frame(kind: int, flags: int, stream: int, length: int) -> bytes:
    return struct.pack(">BBHLL", 0, kind, flags, stream, length)


def opened(number: int, data: bytes) -> bytes:
    """A stream with a request, or with what is none."""
    return frame(0, 1, number, len(data)) + data


ASK = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
REST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n"

KINDS: dict[str, Callable[[socket.socket], object]] = {
    "an answer that is long and slow": lambda agent: slowly(
        agent, b"\x20\x88\x01\x02\x02\x00\xff\xff" + b"{" * 65000
    ),
    "an answer that is none": lambda agent: pour(agent, b"HTTP/1.1 200 OK\r\n\r\n" * 100),
    "nobody is let in": lambda agent: agent.sendall(encode(InitResponse(Status.CLUSTER_UNKNOWN))),
    "let in and closed": accept,
    "requests on and on": lambda agent: (accept(agent), pour(agent, ASK * 50)),
    "a head without an end": lambda agent: (
        accept(agent),
        pour(agent, b"GET / HTTP/1.1\r\nX: " + b"x" * 65536),
    ),
    "a body without an end": lambda agent: (accept(agent), agent.sendall(REST), pour(agent, bytes(1 << 16))),
    "settings of HTTP/2": lambda agent: (
        accept(agent),
        agent.sendall(PREFACE + h2(4, 0, 0) + b"".join(h2(1, 4, 2 * n + 1, HEAD) for n in range(100))),
        pour(agent, h2(4, 0, 0, b"".join(struct.pack(">HL", 4, 1000 + n) for n in range(64))) * 20),
    ),
    "pings of yamux": lambda agent: yamux(agent, frame(2, 1, 0, 7) * 5000),
    "streams without an end": lambda agent: yamux(
        agent, b"".join(opened(2 * n + 2, ASK[:10]) for n in range(5000))
    ),
    "streams that are broken off": lambda agent: yamux(
        agent, b"".join(opened(2 * n + 2, ASK) + frame(1, 8, 2 * n + 2, 0) for n in range(5000))
    ),
    "a frame that is too large": lambda agent: yamux(agent, frame(0, 1, 2, 1 << 31) + bytes(1 << 20)),
}


def serve(port: socket.socket, attack: Callable[[socket.socket], object]) -> None:
    while True:
        agent, _ = port.accept()
        agent.settimeout(5)

        def run(agent: socket.socket = agent) -> None:
            with suppress(OSError), agent:
                attack(agent)

        threading.Thread(target=run, daemon=True).start()


def main() -> None:
    ports = []
    for attack in KINDS.values():
        port = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=serve, args=(port, attack), daemon=True).start()
        ports.append(str(port.getsockname()[1]))
    print("begun", *ports, flush=True)  # noqa: T201
    threading.Event().wait()


if __name__ == "__main__":
    main()
