"""
A long wire, emulated: connections to one port go on to another address, and every byte takes its time.

Run as a script it prints the port that it listens on, and relays until it is
ended.  It needs no privileges, as it is an ordinary process that holds what it
has read until it is due.  What it holds is the wire's content, so a wire of
40 ms in each direction that carries 200 MB/s holds 8 MB of it.

TCP ends at the relay, on both sides, so that there is no slow start and no loss:
a plain connection over it is as fast as this process can move bytes, and what
is slower than that is so for reasons of its own.  A receiver that takes nothing
stops the sender, as it does on a real wire, once the kernel's buffers are full.
"""

from __future__ import annotations

__all__ = ["Direction", "Relay", "main"]

import argparse
import select
import socket
import sys
import time
from collections import deque

LOOPBACK = "127.0.0.1"
CHUNK = 1024 * 1024
"""Bytes that one read takes at the most."""

IN_FLIGHT = 512 * 1024 * 1024
"""Bytes that one direction holds at the most, whatever its delay."""

PIECES = 16
"""How many reads one write sends at the most."""

QUEUE = 0.01
"""
Seconds' worth of bytes that wait for a wire of a certain rate, as they do in a router.

Timers are late by a millisecond; without a queue the wire would rest meanwhile.
"""


class Direction:
    """
    What is on its way in one direction of a connection: bytes, and when they arrive.

    @ivar held: bytes on the way.
    @ivar piece: bytes that are put on the wire at once.
    @ivar stopped: whether the receiver took less than was due.
    @ivar ended: whether the sender has sent everything.
    @ivar finished: whether all of that has arrived.
    """

    __slots__ = ("_delay", "_free_at", "_queue", "_rate", "ended", "finished", "held", "piece", "stopped")

    def __init__(self, delay: float, rate: float = 0.0) -> None:
        """
        @param delay: seconds from one end to the other.
        @param rate: bytes in a second that the wire carries; 0 for any number.
        """
        self._delay = delay
        self._rate = rate
        self.piece = min(CHUNK, max(4096, int(rate * QUEUE / 4))) if rate else CHUNK
        self._free_at = 0.0  # when the sender's end of the wire can carry more
        self._queue: deque[tuple[float, memoryview]] = deque()
        self.held = 0
        self.stopped = False
        self.ended = False
        self.finished = False

    def wants(self, now: float) -> bool:
        """Whether the sender may put something on the wire."""
        return not (self.ended or self.stopped or self.held >= IN_FLIGHT or self._free_at > now + QUEUE)

    def put(self, data: bytes, now: float) -> None:
        """The sender sends; nothing means that that was all."""
        if not data:
            self.ended = True
        elif self._rate:
            self._free_at = max(self._free_at, now) + len(data) / self._rate
            now = self._free_at
        self.held += len(data)
        self._queue.append((now + self._delay, memoryview(data)))

    def due(self, now: float) -> list[memoryview]:
        """What has arrived and is to be delivered, or the first part of it; it may be empty, as an end is."""
        pieces = []
        for at, data in self._queue:
            if at > now or len(pieces) == PIECES:
                break
            pieces.append(data)
        return pieces

    def delivered(self, size: int) -> None:
        """The receiver has taken so many bytes."""
        self.held -= size
        queue = self._queue
        while queue:
            at, data = queue[0]
            if len(data) > size:
                queue[0] = (at, data[size:])
                break
            if not len(data):
                self.finished = True
            size -= len(data)
            queue.popleft()

    def next_time(self, now: float) -> float | None:
        """When there is something to be done; L{None} if that is not known."""
        times = []
        if self._queue and not self.stopped:
            times.append(self._queue[0][0])
        if self._free_at > now + QUEUE and not self.ended:
            times.append(self._free_at - QUEUE / 2)
        return min(times, default=None)


class _End:
    """
    One of the two sockets of a connection.

    @ivar out: what arrives here.
    @ivar back: what is sent from here.
    """

    def __init__(self, connection: socket.socket, out: Direction, back: Direction) -> None:
        self.socket = connection
        self.out = out
        self.back = back
        self.events = 0
        self.other: _End

    def read(self, now: float) -> None:
        """Put what the peer sends on the wire, as far as that takes it."""
        while self.back.wants(now):
            try:
                data = self.socket.recv(self.back.piece)
            except BlockingIOError:
                return
            self.back.put(data, now)
            if len(data) < self.back.piece:
                return

    def write(self, now: float) -> None:
        """Give the peer what has arrived."""
        out = self.out
        while pieces := out.due(now):
            size = sum(map(len, pieces))
            try:
                sent = self.socket.sendmsg(pieces) if size else 0
            except BlockingIOError:
                sent = -1
            if sent < 0 or sent < size:
                out.delivered(max(sent, 0))
                out.stopped = True
                return
            out.delivered(sent)
            if out.finished:
                self.socket.shutdown(socket.SHUT_WR)
                return


class Relay:
    """
    All connections over one wire.

    @ivar port: that it listens on.
    """

    def __init__(self, target: tuple[str, int], delay: float, rate: float = 0.0) -> None:
        """
        @param target: where connections go on to.
        @param delay: seconds in each direction: half of a round trip.
        @param rate: bytes in a second, of each connection in each direction; 0 for any number.
        """
        self._target = target
        self._delay = delay
        self._rate = rate
        self._listening = socket.create_server((LOOPBACK, 0), backlog=256)
        self._listening.setblocking(False)
        self.port: int = self._listening.getsockname()[1]
        self._epoll = select.epoll()
        self._epoll.register(self._listening, select.EPOLLIN)
        self._ends: dict[int, _End] = {}

    def run(self) -> None:
        """Relay for ever."""
        while True:
            self.turn(1.0)

    def close(self) -> None:
        """Close everything."""
        for end in list(self._ends.values()):
            if end.socket.fileno() >= 0:
                self._close(end)
        self._listening.close()
        self._epoll.close()

    def turn(self, longest: float) -> None:
        """Do what there is to do, and wait for no longer than some seconds for it."""
        now = time.monotonic()
        times = [at for end in self._ends.values() if (at := end.out.next_time(now)) is not None]
        wait = max(0.0, min([*times, now + longest]) - now)
        events = self._epoll.poll(wait)
        now = time.monotonic()
        for descriptor, event in events:
            end = self._ends.get(descriptor)
            if end is None:
                if descriptor == self._listening.fileno():
                    self._accept()
                continue
            if event & select.EPOLLOUT:
                end.out.stopped = False
            try:
                if event & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                    end.read(now)
            except OSError:
                self._close(end)
        for end in list(self._ends.values()):
            if end.socket.fileno() < 0:
                continue
            try:
                end.write(now)
                if not end.back.ended and end.events & select.EPOLLIN == 0:
                    end.read(now)
                self._watch(end, now)
            except OSError:
                self._close(end)
            if end.out.finished and end.back.finished:
                self._close(end)

    def _accept(self) -> None:
        connection, _ = self._listening.accept()
        try:
            onward = socket.create_connection(self._target, timeout=5)
        except OSError:
            connection.close()
            return
        there, back = Direction(self._delay, self._rate), Direction(self._delay, self._rate)
        ends = _End(connection, back, there), _End(onward, there, back)
        for end, other in (ends, ends[::-1]):
            end.other = other
            end.socket.setblocking(False)
            end.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ends[end.socket.fileno()] = end
            self._epoll.register(end.socket, 0)

    def _watch(self, end: _End, now: float) -> None:
        events = (select.EPOLLIN if end.back.wants(now) else 0) | (select.EPOLLOUT if end.out.stopped else 0)
        if events != end.events:
            end.events = events
            self._epoll.modify(end.socket, events)

    def _close(self, end: _End) -> None:
        """Close both ends of a connection, at once."""
        for each in (end, end.other):
            if each.socket.fileno() >= 0:
                del self._ends[each.socket.fileno()]
                each.socket.close()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Relay connections over an emulated long wire.")
    parser.add_argument("target", type=int, help="the port on the loopback interface that connections go to")
    parser.add_argument(
        "--rtt", type=float, default=0.08, help="seconds of a round trip (default %(default)s)"
    )
    parser.add_argument("--rate", type=float, default=0.0, help="MB/s of each connection; 0 for any number")
    options = parser.parse_args()
    relay = Relay((LOOPBACK, options.target), options.rtt / 2, options.rate * 1e6)
    print(relay.port, flush=True)
    relay.run()


if __name__ == "__main__":
    sys.exit(main())
