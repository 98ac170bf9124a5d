"""
A bolt service that echoes, and a client that keeps a number of requests under way.

C{bolt.py serve} prints the port that it listens on; C{bolt.py drive PORT} prints
one line of JSON.  Frames are counted by their headers alone, so that both take
little of the machine from what is measured.
"""

from __future__ import annotations

__all__ = ["EchoError", "answers", "frames", "probe"]

import argparse
import gc
import json
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

if __name__ == "__main__":
    # run as a script: the project is beside the directory of what is beside it
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.rate import percentile
from reverseproxy.wire.rpc.bolt import encode_request, encode_response

_CHUNK = 262144
_REQUEST = struct.Struct(">BBHBIBiHHI")
_RESPONSE = struct.Struct(">BBHBIBHHHI")
_IS_REQUEST = 1
_SUCCESS = 0
_HEADERS = {"service": "echo"}
_PATIENCE = 5.0


class EchoError(Exception):
    """What came is no answer to what was asked."""


def frames(data: bytes | bytearray) -> Iterator[tuple[int, int, int, int, int]]:
    """
    Find the whole frames of version 1 in what has come.

    @return: for each, its type, its id, its status (0 in a request), where its
        content begins, and where it ends.
    @raise EchoError: if there is something else.
    """
    position, size = 0, len(data)
    while size - position >= _REQUEST.size:
        if data[position] != 1:
            raise EchoError(f"no frame begins with {bytes(data[position : position + 20])!r}")
        if data[position + 1]:
            _, kind, _, _, number, _, _, name, block, content = _REQUEST.unpack_from(data, position)
            begin, status = position + _REQUEST.size + name + block, 0
        else:
            _, kind, _, _, number, _, status, name, block, content = _RESPONSE.unpack_from(data, position)
            begin = position + _RESPONSE.size + name + block
        if size < begin + content:
            return
        yield kind, number, status, begin, begin + content
        position = begin + content


def answers(data: bytes | bytearray) -> tuple[bytes, int]:
    """
    Echo all whole requests.

    @return: the responses, and how much of the data they answer.
    """
    taken, out = 0, []
    for kind, number, _, begin, end in frames(data):
        taken = end
        if kind == _IS_REQUEST:
            # a heartbeat has no content, and its answer needs none
            out.append(bytes(encode_response(number, content=bytes(data[begin:end]))))
    return b"".join(out), taken


def serve() -> None:
    """Serve until somebody ends the process."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN)
    buffers: dict[int, tuple[socket.socket, bytearray]] = {}
    while True:
        for number, _ in poller.poll():
            if number == listener.fileno():
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                buffers[connection.fileno()] = connection, bytearray()
                poller.register(connection, select.EPOLLIN)
                continue
            connection, buffer = buffers[number]
            try:
                data = connection.recv(_CHUNK)
                buffer += data
                out, taken = answers(buffer)
                del buffer[:taken]
                connection.sendall(out)
            except (OSError, EchoError):
                data = b""
            if not data:
                del buffers[number]
                poller.unregister(connection)
                connection.close()


def probe(port: int) -> bool:
    """
    Whether one request is answered well.

    @raise EchoError: if the answer is not what it should be.
    @raise OSError: if there is none.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(bytes(encode_request(1, _HEADERS, b"probe", timeout=5000)))
        buffer = bytearray()
        while data := connection.recv(_CHUNK):
            buffer += data
            for _, number, status, begin, end in frames(buffer):
                if number == 1 and status == _SUCCESS and buffer[begin:end] == b"probe":
                    return True
                raise EchoError(f"request {number} has status {status}")
    raise EchoError("the connection was closed")


def drive(port: int, seconds: float, connections: int, in_flight: int, size: int) -> dict[str, object]:
    """
    Keep requests under way.

    @param in_flight: on each connection.
    @param size: of the content, bytes.
    """
    request = bytearray(encode_request(0, _HEADERS, b"x" * size, timeout=60_000))
    identity = struct.Struct(">I")
    poller = select.epoll()
    states: dict[int, tuple[socket.socket, bytearray]] = {}
    begun: dict[tuple[int, int], float] = {}
    latencies: list[float] = []
    now, number = time.perf_counter, 0
    gc.disable()

    def ask(descriptor: int, count: int) -> bytes:
        nonlocal number
        out = []
        for _ in range(count):
            number += 1
            identity.pack_into(request, 5, number)
            out.append(bytes(request))
            begun[descriptor, number] = now()
        return b"".join(out)

    for _ in range(connections):
        connection = socket.create_connection(("127.0.0.1", port), timeout=5)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        states[connection.fileno()] = connection, bytearray()
        poller.register(connection, select.EPOLLIN)
    start = now()
    for descriptor, (connection, _) in states.items():
        connection.sendall(ask(descriptor, in_flight))
    received, failed, problems = 0, 0, []
    end = start + seconds
    last = start
    while begun and last < end + _PATIENCE:
        for descriptor, _ in poller.poll(1.0):
            connection, buffer = states[descriptor]
            data = connection.recv(_CHUNK)
            if not data:
                problems.append("a connection was closed")
                poller.unregister(descriptor)
                continue
            buffer += data
            last, taken, done = now(), 0, 0
            for _, identifier, status, begin, stop in frames(buffer):
                latencies.append(last - begun.pop((descriptor, identifier)))
                failed += status != _SUCCESS or stop - begin != size
                received += stop - taken
                taken = stop
                done += 1
            del buffer[:taken]
            if done and last < end:
                connection.sendall(ask(descriptor, done))
        if len(problems) >= connections:
            break
        last = now()
    if begun:
        problems.append(f"{len(begun)} requests without an answer")
    if failed:
        problems.append(f"{failed} requests failed")
    return {
        "seconds": min(last, end) - start,
        "requests": len(latencies),
        "bytes": received,
        "p50": percentile(latencies, 0.5),
        "p99": percentile(latencies, 0.99),
        "problems": problems,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Echo in bolt, and ask for it.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve")
    client = commands.add_parser("drive")
    client.add_argument("port", type=int)
    client.add_argument("--seconds", type=float, default=3.0)
    client.add_argument("--connections", type=int, default=4)
    client.add_argument("--in-flight", type=int, default=16)
    client.add_argument("--size", type=int, default=1024)
    options = parser.parse_args(arguments)
    if options.command == "serve":
        serve()
    figures = drive(options.port, options.seconds, options.connections, options.in_flight, options.size)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
