"""
A client that asks at a constant rate: C{rate.py PORT}; prints one line of JSON.

Requests are due at fixed instants, whatever became of those before them, and a
request's latency counts from the instant at which it was due: what waits
behind a slow answer is late, and is seen to be (wrk, and whatever else sends
the next request when the last one is answered, would leave that out).

How late the client itself was is recorded as well, so that its share in the
latencies is known:

  - I{late}: from the instant at which a request was due and a connection was
    free, until it was sent;
  - I{turn}: how long the client was busy between two looks for answers; an
    answer may have waited for that long before it was noticed.
"""

from __future__ import annotations

__all__ = ["Book", "percentile"]

import argparse
import ctypes
import gc
import json
import os
import select
import socket
import sys
import time
from array import array
from collections import deque
from collections.abc import Sequence

_TFD_NONBLOCK = 0o4000
_TFD_TIMER_ABSTIME = 1
_CLOCK_MONOTONIC = 1
_CHUNK = 65536
_PATIENCE = 5_000_000_000  # nanoseconds that answers may take after the last request was due


def percentile(values: Sequence[float], share: float) -> float:
    """
    The smallest value that at least a share of all values does not exceed; 0 if there are none.

    @param values: in any order.
    @param share: from 0 to 1.
    """
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


class Book:
    """
    When requests are due, and what became of them.  All times are nanoseconds.

    @ivar sent: how many were sent.
    @ivar answered: how many were answered.
    @ivar queued: how many found no free connection when they were due.
    """

    def __init__(self, start: int, interval: int, count: int, skip: int) -> None:
        """
        @param start: when the first one is due.
        @param interval: from one to the next.
        @param count: of all.
        @param skip: how many do not count: everybody warms up.
        """
        self.sent = 0
        self.answered = 0
        self.queued = 0
        self._start = start
        self._interval = interval
        self._count = count
        self._skip = skip
        self._latencies = array("q")
        self._lateness = array("q")

    def due(self, now: int) -> int:
        """How many are due and not sent."""
        if now < self._start:
            return 0
        return min(self._count, (now - self._start) // self._interval + 1) - self.sent

    @property
    def over(self) -> bool:
        """Whether all were sent."""
        return self.sent >= self._count

    def send(self, now: int, free_since: int) -> int:
        """
        Note that the next one is sent.

        @param free_since: when its connection became free.
        @return: when it was due, which L{answer} wants to know.
        """
        intended = self._start + self.sent * self._interval
        if self.sent >= self._skip:
            if free_since > intended:
                self.queued += 1
                self._lateness.append(now - free_since)
            else:
                self._lateness.append(now - intended)
        self.sent += 1
        return intended

    def answer(self, now: int, intended: int) -> None:
        """Note that one was answered whole."""
        self.answered += 1
        if intended >= self._start + self._skip * self._interval:
            self._latencies.append(now - intended)

    def summary(self) -> dict[str, float]:
        """The figures, in seconds."""
        latencies, lateness = sorted(self._latencies), sorted(self._lateness)
        return {
            "sent": self.sent,
            "answered": self.answered,
            "counted": len(latencies),
            "queued": self.queued,
            "p50": percentile(latencies, 0.5) / 1e9,
            "p90": percentile(latencies, 0.9) / 1e9,
            "p99": percentile(latencies, 0.99) / 1e9,
            "p999": percentile(latencies, 0.999) / 1e9,
            "max": (latencies[-1] if latencies else 0) / 1e9,
            "late_p50": percentile(lateness, 0.5) / 1e9,
            "late_p99": percentile(lateness, 0.99) / 1e9,
            "late_max": (lateness[-1] if lateness else 0) / 1e9,
        }


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Timer(ctypes.Structure):
    _fields_ = (("interval", _Time), ("value", _Time))


def _timer(start: int, interval: int) -> int:
    """Make a descriptor that is ready at these instants, which poll's milliseconds are too coarse for."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK)
    setting = _Timer(_Time(*divmod(interval, 10**9)), _Time(*divmod(start, 10**9)))
    if (
        descriptor < 0
        or libc.timerfd_settime(descriptor, _TFD_TIMER_ABSTIME, ctypes.byref(setting), None) < 0
    ):
        raise OSError(ctypes.get_errno(), "no timerfd")
    return descriptor


class _Connection:
    """One connection to the server, with one request outstanding at the most."""

    __slots__ = ("free_since", "intended", "needed", "number", "received", "sock")

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.number = self.sock.fileno()
        self.free_since = 0
        self.intended = 0
        self.received = 0
        self.needed = 0

    def read(self, size: int) -> tuple[bool, str]:
        """
        Take what has come.

        @param size: of the body, bytes.
        @return: whether the answer is whole, and what is wrong with it.
        """
        try:
            data = self.sock.recv(_CHUNK)
        except BlockingIOError:
            return False, ""
        if not data:
            return False, "a connection was closed"
        if not self.received:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                return False, "the head of an answer came in parts"
            if data[9:12] != b"200":
                return False, f"an answer began {data[:40]!r}"
            self.needed = end + 4 + size
        self.received += len(data)
        if self.received < self.needed:
            return False, ""
        self.received = 0
        return True, ""


def run(
    port: int, path: str, size: int, rate: float, seconds: float, warm: float, count: int
) -> dict[str, object]:
    """
    Ask.

    @param size: of the resource, bytes.
    @param rate: requests per second.
    @param seconds: how long it counts.
    @param warm: how long it does not count, before that.
    @param count: connections.
    @return: the figures by name, and what went wrong.
    """
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    connections = {each.number: each for each in (_Connection(port) for _ in range(count))}
    idle = deque(connections.values())
    poller = select.epoll()
    for number in connections:
        poller.register(number, select.EPOLLIN)
    interval = round(1e9 / rate)
    start = time.monotonic_ns() + 20_000_000
    book = Book(start, interval, round((seconds + warm) * rate), round(warm * rate))
    timer = _timer(start, interval)
    poller.register(timer, select.EPOLLIN)
    turns = array("q")
    problems: dict[str, int] = {}
    deadline = start + round((seconds + warm) * 1e9) + _PATIENCE
    now_ns, poll, read_timer = time.monotonic_ns, poller.poll, os.read
    gc.collect()
    gc.freeze()
    gc.disable()
    while book.answered < book.sent or not book.over:
        events = poll(1.0)
        began = now = now_ns()
        if now > deadline:
            break
        for number, _ in events:
            if number == timer:
                read_timer(timer, 8)
                continue
            connection = connections[number]
            done, problem = connection.read(size)
            if done:
                now = now_ns()
                book.answer(now, connection.intended)
                connection.free_since = now
                idle.append(connection)
            elif problem:
                problems[problem] = problems.get(problem, 0) + 1
                poller.unregister(number)
        now = now_ns()
        for _ in range(min(book.due(now), len(idle))):
            connection = idle.popleft()
            connection.sock.send(request)
            connection.intended = book.send(now_ns(), connection.free_since)
        turns.append(now_ns() - began)
        if len(problems) and sum(problems.values()) >= count:
            break
    if book.answered < book.sent or not book.over:
        problems["requests without an answer"] = round((seconds + warm) * rate) - book.answered
    return {
        **book.summary(),
        "seconds": seconds + warm,
        "requests": book.answered,
        "turn_p99": percentile(turns, 0.99) / 1e9,
        "turn_max": max(turns, default=0) / 1e9,
        "problems": [f"{number} x {problem}" for problem, number in problems.items()],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Ask at a constant rate.")
    parser.add_argument("port", type=int)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--warm", type=float, default=0.5)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--path", default="/1k")
    parser.add_argument("--size", type=int, default=1024)
    options = parser.parse_args(arguments)
    figures = run(
        options.port,
        options.path,
        options.size,
        options.rate,
        options.seconds,
        options.warm,
        options.connections,
    )
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
