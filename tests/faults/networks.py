"""
A network between two hosts: as slow, lossy or gone as a test wants it.

The hosts are network namespaces of this machine, and what lies between them is
a thread of this process, which reads IP packets from one and writes them to the
other.  That takes root, C{ip} and C{/dev/net/tun}; where they are not to be had,
there is a L{SlowRelay} on loopback, which is slow as well, and drops nothing.
"""

from __future__ import annotations

__all__ = ["Network", "SlowRelay", "can_make_networks"]

import fcntl
import os
import random
import select
import shutil
import socket
import subprocess
import threading
import time
from collections import deque
from itertools import count
from struct import pack
from typing import Any, Final

from twisted.internet import reactor
from twisted.internet.endpoints import HostnameEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

_TUNSETIFF: Final = 0x400454CA
_TUN: Final = 0x0001 | 0x1000  # without a header of its own

_numbers = count(1)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def can_make_networks() -> bool:
    """Whether there can be a L{Network} here."""
    if os.geteuid() or shutil.which("ip") is None or not os.path.exists("/dev/net/tun"):
        return False
    try:
        Network().close()
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


class _Way:
    """One direction."""

    def __init__(self, source: int, target: int) -> None:
        self.source = source
        self.target = target
        self.free = 0.0  # when all that waits has been sent
        self.waiting: deque[tuple[float, float, bytes]] = deque()  # when it is sent, when it arrives, what


class Network:
    """
    Two hosts, and what lies between them.

    @ivar near: the name of the namespace of one host.
    @ivar far: that of the other one.
    @ivar addresses: what each is called.
    @ivar rate: bits in a second, in each direction; 0 for any number.
    @ivar queue: bytes that may wait; what comes beyond that is dropped.
    @ivar delay: seconds that a packet takes besides.
    @ivar loss: the part of all packets that is dropped.
    @ivar gone: whether all are.
    """

    rate = 0
    queue = 1_000_000
    delay = 0.0
    loss = 0.0
    gone = False

    def __init__(self) -> None:
        number = next(_numbers)
        self.near, self.far = (f"rp{os.getpid()}n{number}{end}" for end in "ab")
        self.addresses = {self.near: "10.77.0.1", self.far: "10.77.0.2"}
        self._random = random.Random(7).random
        self._tuns: list[int] = []
        self._wake = os.pipe()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        try:
            for name, address in self.addresses.items():
                _run("ip", "netns", "add", name)
                tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
                self._tuns.append(tun)
                fcntl.ioctl(tun, _TUNSETIFF, pack("16sH14x", name.encode()[-15:], _TUN))
                _run("ip", "link", "set", name[-15:], "netns", name)
                _run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", name[-15:])
                _run("ip", "-n", name, "link", "set", name[-15:], "up")
                _run("ip", "-n", name, "link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise
        self._thread.start()

    def command(self, name: str) -> list[str]:
        """What to write before a command that is to run on a host."""
        return ["ip", "netns", "exec", name]

    def _carry(self) -> None:
        one, other = self._tuns
        ways = {one: _Way(one, other), other: _Way(other, one)}
        while True:
            now = time.monotonic()
            due = [way.waiting[0][1] for way in ways.values() if way.waiting]
            wait = max(min(due) - now, 0.0) if due else None
            readable, _, _ = select.select([one, other, self._wake[0]], [], [], wait)
            if self._wake[0] in readable:
                return
            now = time.monotonic()
            for source in readable:
                self._take(ways[source], now)
            for way in ways.values():
                while way.waiting and way.waiting[0][1] <= now:
                    packet = way.waiting.popleft()[2]
                    if not self.gone:
                        try:
                            os.write(way.target, packet)
                        except OSError:
                            continue

    def _take(self, way: _Way, now: float) -> None:
        while True:
            try:
                packet = os.read(way.source, 65536)
            except OSError:
                return
            waits = sum(len(each) for sent, _, each in way.waiting if sent > now)
            if self.gone or self._random() < self.loss or waits + len(packet) > self.queue:
                continue
            way.free = max(way.free, now) + (len(packet) * 8 / self.rate if self.rate else 0.0)
            way.waiting.append((way.free, way.free + self.delay, packet))

    def close(self) -> None:
        """Take it away."""
        if self._thread.is_alive():
            os.write(self._wake[1], b"x")
            self._thread.join()
        for descriptor in (*self._tuns, *self._wake):
            os.close(descriptor)
        for name in self.addresses:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


class _Leg(Protocol):
    transport: Any
    other: _Leg | None = None

    def __init__(self, relay: SlowRelay) -> None:
        self._relay = relay

    def connectionMade(self) -> None:
        self.transport.bufferSize = 4096
        self.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)

    def dataReceived(self, data: bytes) -> None:
        self.transport.pauseProducing()
        reactor.callLater(len(data) / self._relay.rate, self._pass, data)

    def _pass(self, data: bytes) -> None:
        if self._relay.gone:
            return
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)
            self.transport.resumeProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.loseConnection()
        self.other = None


class SlowRelay(Factory):
    """
    A port that leads to another one, byte for byte, at a pace; what is too fast stays with who sends it.

    @ivar gone: whether nothing is passed on any more.
    """

    noisy = False
    gone = False

    def __init__(self, port: int, rate: float) -> None:
        """
        @param port: where it leads to.
        @param rate: bytes in a second and direction of each connection.
        """
        self._port = port
        self.rate = rate

    async def listen(self, test: Any) -> int:
        """Begin; the port."""
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self)
        listening.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        test.addCleanup(listening.stopListening)
        port: int = listening.getHost().port
        return port

    def buildProtocol(self, addr: object) -> _Leg:
        near, far = _Leg(self), _Leg(self)
        near.other, far.other = far, near
        connecting = connectProtocol(HostnameEndpoint(reactor, "127.0.0.1", self._port), far)
        connecting.addErrback(lambda _: near.transport.abortConnection())
        return near
