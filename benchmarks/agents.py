"""
Many light agents in one process: C{agents.py PORT --agents N}.

Each keeps one plain reverse connection, as an agent of MOSN's does, and answers
requests itself, so that what is measured is the tunnel server.  Prints a line
when all of them have joined, and serves until somebody ends the process.
"""

from __future__ import annotations

__all__ = ["response", "whole_requests"]

import argparse
import select
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # run as a script: the project is beside the directory of what is beside it
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from reverseproxy.wire.mosn.frames import ConnectionInit, FrameDecoder, InitResponse, Status, encode

_CHUNK = 65536
_BATCH = 50  # joins under way at once
_PAUSE = 0.2


def response(size: int) -> bytes:
    """What every request is answered with."""
    return f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode() + b"x" * size


def whole_requests(data: bytes) -> tuple[int, bytes]:
    """Count the requests without bodies in what has come; returns the rest, too."""
    *whole, rest = data.split(b"\r\n\r\n")
    return len(whole), rest


def _join(port: int, cluster: str, name: str) -> socket.socket:
    """
    Dial and say hello.

    @raise OSError: if that fails; C{ConnectionError} if the server refuses.
    """
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(encode(ConnectionInit(cluster, host_name=name)))
        decoder = FrameDecoder()
        while True:
            data = connection.recv(_CHUNK)
            if not data:
                raise ConnectionError("the server closed the connection")
            answer = decoder.feed(data)
            if answer is not None:
                break
        if not isinstance(answer, InitResponse) or answer.status != Status.SUCCESS:
            raise ConnectionError(f"the server answered {answer}")
        connection.setblocking(False)
    except BaseException:
        connection.close()
        raise
    return connection


def serve(port: int, cluster: str, count: int, size: int) -> None:
    """Join, and answer."""
    answer = response(size)
    connections: dict[int, socket.socket] = {}
    rests: dict[int, bytes] = {}
    poller = select.epoll()
    number, announced, retry_at = 0, False, 0.0
    while True:
        now = time.monotonic()
        if len(connections) < count and now >= retry_at:
            for _ in range(min(_BATCH, count - len(connections))):
                number += 1
                try:
                    connection = _join(port, cluster, f"light-{number}")
                except OSError:
                    # not now: it may limit how many join in a second
                    retry_at = now + _PAUSE
                    break
                connections[connection.fileno()] = connection
                rests[connection.fileno()] = b""
                poller.register(connection, select.EPOLLIN)
        elif len(connections) == count and not announced:
            announced = True
            print(f"joined {count}", flush=True)
        for descriptor, _ in poller.poll(0 if len(connections) < count and now >= retry_at else _PAUSE):
            connection = connections[descriptor]
            try:
                data = connection.recv(_CHUNK)
                if data:
                    requests, rests[descriptor] = whole_requests(rests[descriptor] + data)
                    if requests:
                        connection.send(answer * requests)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                poller.unregister(descriptor)
                connections.pop(descriptor).close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Be many agents.")
    parser.add_argument("port", type=int)
    parser.add_argument("--agents", type=int, default=100)
    parser.add_argument("--cluster", default="clientCluster")
    parser.add_argument("--size", type=int, default=1024)
    options = parser.parse_args(arguments)
    serve(options.port, options.cluster, options.agents, options.size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
