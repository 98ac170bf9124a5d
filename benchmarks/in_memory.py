"""
What requests cost here against another checkout, or with metrics against without: in memory, by CPU time.

A proxy filter, its clients and a host are in one process, and connections are lists of bytes: what
is measured is our code alone.  Both sides take turns in many short rounds, so that whatever else the
machine does comes to both, and are started anew now and then.  Of each two rounds that lie side by
side the ratio is taken, and of all these the median, with the interval in which it lies with a
probability of 95 %::

    python -m benchmarks.in_memory ../other-checkout [--rounds 200] [--rows http1-get,http2-get]
    python -m benchmarks.in_memory --metrics
"""

from __future__ import annotations

__all__ = ["main"]

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import process_time
from typing import Any

HERE = Path(__file__).resolve()
ROWS = ("http1-get", "http1-post", "http2-get", "http2-post", "http1-to-http2-get")
REQUESTS = 400
"""Requests of a round; it takes some hundredths of a second."""

RESTARTS = 6
"""How often both processes are started: where things happen to lie in memory makes a difference, too."""

BODY = b"x" * 1024
_FIELDS = (
    b"host: service.example\r\nuser-agent: benchmark/1\r\naccept: */*\r\naccept-encoding: gzip\r\n"
    b"x-request-id: 0123456789abcdef\r\n"
)
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nserver: s\r\ndate: Sun, 29 Nov 2026 12:00:00 GMT\r\ncontent-type: text/plain\r\n"
    b"content-length: 1024\r\n\r\n" + BODY
)


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


def _request_fields(method: bytes) -> list[tuple[bytes, bytes]]:
    head = [
        (b":method", method),
        (b":scheme", b"http"),
        (b":path", b"/a"),
        (b":authority", b"service.example"),
    ]
    fields = [tuple(line.split(b": ", 1)) for line in _FIELDS.split(b"\r\n")[1:-1]]
    length = [(b"content-length", b"1024")] if method == b"POST" else []
    return [*head, *fields, *length]  # type: ignore[list-item]


_ANSWER_FIELDS = [
    (b":status", b"200"),
    (b"server", b"s"),
    (b"date", b"Sun, 29 Nov 2026 12:00:00 GMT"),
    (b"content-type", b"text/plain"),
    (b"content-length", b"1024"),
]


class _Pair:
    """A client and a host of one proxy filter, both of which say what they have always said."""

    def __init__(self, row: str, metrics: bool) -> None:
        from hpack import Encoder

        import reverseproxy.proxy.protocols  # noqa: F401 - so that there are pools of all of them
        from reverseproxy.interfaces import ConnectionInfo
        from reverseproxy.metrics import AgentFigures, RequestTally
        from reverseproxy.proxy.http.http1_server import Http1Proxy
        from reverseproxy.proxy.http.http2_server import Http2Proxy
        from tests.proxy.memory import Wire, World

        version, *rest = row.split("-")
        to_http2 = "http2" in rest
        route = {"cluster_name": "c"}
        if to_http2 or version == "http2":
            route["upstream_protocol"] = "Http2" if to_http2 else "Http1"
        self._world = world = World(
            routes=[{"match": {"prefix": "/"}, "route": route}],
            access_log=None,
            tally=RequestTally("test") if metrics else None,
        )
        if metrics:
            world.hosts[0].counters = AgentFigures().own  # as if an agent had brought it
        info = ConnectionInfo("10.9.9.9:1234", "10.0.0.1:80")
        method = rest[-1].upper().encode()
        self._post = method == b"POST"
        self._written: list[bytes] = []
        self._sent: list[bytes] = []
        # As every client does: what was said once is known by its place in a table from then on.
        self._encoder, self._fields = Encoder(), _request_fields(method)
        self._block = self._encoder.encode(self._fields)
        self._stream = 1
        self.answers = 0
        wire = Wire(world.clock)
        self._http2 = version == "http2"
        if self._http2:
            wire.connect(Http2Proxy(world.settings, info))
            greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b"") + _frame(4, 1, 0, b"")
            wire.protocol.dataReceived(greeting + _frame(8, 0, 0, (2**31 - 65536).to_bytes(4, "big")))
        else:
            wire.connect(Http1Proxy(world.settings, info))
        self._client: Any = wire.protocol
        wire.write = self._written.append  # type: ignore[method-assign]
        request = method + b" /a HTTP/1.1\r\n" + _FIELDS
        self._request = request + (b"content-length: 1024\r\n\r\n" + BODY if self._post else b"\r\n")
        self._ask()
        host = world.endpoint.wires[0]
        self._host: Any = host.protocol
        self._to_http2 = to_http2
        if to_http2:
            greeting = _frame(4, 0, 0, b"") + _frame(4, 1, 0, b"")
            host.protocol.dataReceived(greeting)
        self._asked = 1
        encoder = Encoder()
        self._answer_block = encoder.encode(_ANSWER_FIELDS)
        host.write = self._sent.append  # type: ignore[method-assign]
        self._answer()
        self._block = self._encoder.encode(self._fields)
        self._answer_block = encoder.encode(_ANSWER_FIELDS)

    def _ask(self) -> None:
        if not self._http2:
            self._client.dataReceived(self._request)
            return
        number, self._stream = self._stream, self._stream + 2
        if self._post:
            self._client.dataReceived(_frame(1, 4, number, self._block) + _frame(0, 1, number, BODY))
        else:
            self._client.dataReceived(_frame(1, 5, number, self._block))

    def _answer(self) -> None:
        if self._to_http2:
            number, self._asked = self._asked, self._asked + 2
            self._host.dataReceived(_frame(1, 4, number, self._answer_block) + _frame(0, 1, number, BODY))
        else:
            self._host.dataReceived(_ANSWER)

    def round(self, requests: int) -> float:
        """Have some requests answered: microseconds of CPU of each."""
        ask, answer, written, sent = self._ask, self._answer, self._written, self._sent
        written.clear()
        begun = process_time()
        for _ in range(requests):
            ask()
            answer()
        used = process_time() - begun
        if len(written) < requests or b"x" * 100 not in written[-1] or not sent:
            raise RuntimeError(f"not all requests were answered: {written[-1:]}")
        sent.clear()
        return used / requests * 1e6


def _serve(metrics: bool) -> None:
    """Do rounds, each of the row that a line names."""
    pairs: dict[str, _Pair] = {}
    for line in sys.stdin:
        row = line.strip()
        pair = pairs.get(row)
        if pair is None:
            pair = pairs[row] = _Pair(row, metrics)
            pair.round(2000)
        print(pair.round(REQUESTS), flush=True)


@contextmanager
def _child(checkout: Path, metrics: bool) -> Iterator[Callable[[str], float]]:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONHASHSEED": "0"}
    command = [sys.executable, str(HERE), "--child", *(["--metrics"] if metrics else [])]
    process = subprocess.Popen(
        command, cwd=checkout, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    source, sink = process.stdout, process.stdin

    def measure(row: str) -> float:
        print(row, file=sink, flush=True)
        return float(source.readline())

    yield measure
    sink.close()
    process.wait()


def main() -> None:
    """Measure, and print a line for each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("other", nargs="?", type=Path, help="the checkout to compare with")
    parser.add_argument("--rounds", type=int, default=200, help="of each row and side")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--metrics", action="store_true", help="compare metrics with none, in this checkout")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _serve(options.metrics)
        return
    from benchmarks.model import interval

    here = HERE.parent.parent
    other = here if options.other is None else options.other.resolve()
    rows = options.rows.split(",")
    found: dict[str, list[tuple[float, float]]] = {row: [] for row in rows}
    for _ in range(RESTARTS):
        with _child(other, False) as before, _child(here, options.metrics) as after:
            for row in rows:
                for number in range(-(-options.rounds // RESTARTS)):
                    if number % 2:
                        then, now = before(row), after(row)
                    else:
                        now, then = after(row), before(row)
                    found[row].append((then, now))
    for row, costs in found.items():
        ratios = [now / then for then, now in costs]
        low, high = interval(ratios)
        then, now = (statistics.median(side) for side in zip(*costs, strict=True))
        print(
            f"{row:15} {then:6.2f} -> {now:6.2f} us, {statistics.median(ratios):.3f} "
            f"({low:.3f} to {high:.3f}, {len(ratios)} pairs)",
            flush=True,
        )


if __name__ == "__main__":
    main()
