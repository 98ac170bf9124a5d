"""A real etcd for tests, where the program is installed, behind a relay that can be in the way."""

from __future__ import annotations

__all__ = ["ETCD", "RealEtcd", "Relay"]

import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from reverseproxy.fleet.etcd import Etcd
from reverseproxy.fleet.etcd_json import EtcdError

ETCD = shutil.which("etcd")
"""The program; C{None} if there is none."""

reactor: Any = global_reactor

DEADLINE = 20.0
"""Seconds after which an etcd that was started should answer."""


class _Leg(Protocol):
    """One end of a relayed connection."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.other: _Leg | None = None
        self.kept: list[bytes] = []

    def connectionMade(self) -> None:
        self.relay.legs.add(self)
        if self.relay.held:
            self.transport.pauseProducing()
        self.flush()

    def flush(self) -> None:
        """Pass on what came before there was another end."""
        other = self.other
        if other is not None and other.connected and self.connected:
            for data in self.kept:
                other.transport.write(data)
            self.kept.clear()
            for data in other.kept:
                self.transport.write(data)
            other.kept.clear()

    def dataReceived(self, data: bytes) -> None:
        relay = self.relay
        if relay.delay or relay.rate:
            self.transport.pauseProducing()
            seconds = relay.delay + (len(data) / relay.rate if relay.rate else 0.0)
            reactor.callLater(seconds, self.late, data)
        else:
            self.give(data)

    def late(self, data: bytes) -> None:
        """Pass on what was kept for a while."""
        self.give(data)
        if self.connected and not self.relay.held:
            self.transport.resumeProducing()

    def give(self, data: bytes) -> None:
        """Pass something on."""
        if self.other is not None and self.other.connected:
            self.other.transport.write(data)
        else:
            self.kept.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.relay.legs.discard(self)
        if self.other is not None and self.other.connected:
            self.other.transport.loseConnection()


class _Dial(ClientFactory):
    noisy = False

    def __init__(self, near: _Leg, far: _Leg) -> None:
        self.near = near
        self.far = far

    def buildProtocol(self, addr: object) -> _Leg:
        return self.far

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self.near.transport.abortConnection()


class Relay(Factory):
    """
    A port that leads to another one.

    @ivar host: the address of this machine that it is at.
    @ivar target: the port that it leads to.
    @ivar held: whether nothing is passed on for now, though connections stay.
    @ivar delay: seconds for which each piece is kept.
    @ivar rate: bytes in a second, of each direction of a connection; 0 for any number.
    """

    noisy = False
    host = "127.0.0.1"
    delay = 0.0
    rate = 0

    def __init__(self) -> None:
        self.target = 0
        self.held = False
        self.legs: set[_Leg] = set()
        self.port = 0

    async def listen(self) -> None:
        """Begin."""
        self.listening = await TCP4ServerEndpoint(reactor, 0, interface=self.host).listen(self)
        self.port = self.listening.getHost().port

    @property
    def address(self) -> str:
        """Where clients find it."""
        return f"{self.host}:{self.port}"

    async def stop(self) -> None:
        """End."""
        await self.listening.stopListening()
        self.cut()
        while self.legs:
            await deferLater(reactor, 0.01)

    def cut(self) -> None:
        """Break off all connections."""
        for leg in list(self.legs):
            leg.transport.abortConnection()

    def hold(self, held: bool) -> None:
        """Pass nothing on, or everything again."""
        self.held = held
        for leg in self.legs:
            (leg.transport.pauseProducing if held else leg.transport.resumeProducing)()

    def buildProtocol(self, addr: object) -> _Leg:
        near, far = _Leg(self), _Leg(self)
        near.other, far.other = far, near
        reactor.connectTCP("127.0.0.1", self.target, _Dial(near, far))
        return near


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens at."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class RealEtcd:
    """
    One node, behind a relay, whose port stays the same when the node is started again.

    @ivar relay: in front of it.
    """

    def __init__(self, directory: str) -> None:
        self.directory = Path(directory)
        self.relay = Relay()
        self.process: subprocess.Popen[bytes] | None = None
        self.options: list[str] = []
        self.scheme = "http"

    @property
    def endpoint(self) -> str:
        """Where clients find it."""
        return f"127.0.0.1:{self.relay.port}"

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        assert ETCD is not None
        if not self.relay.port:
            await self.relay.listen()
        for _ in range(3):  # somebody else may take a port meanwhile
            client, peer = free_ports(2)
            self.process = subprocess.Popen(
                [
                    *(ETCD, "--data-dir", str(self.directory / "data"), "--name", "one"),
                    *("--listen-client-urls", f"{self.scheme}://127.0.0.1:{client}"),
                    *("--advertise-client-urls", f"{self.scheme}://127.0.0.1:{client}"),
                    *("--listen-peer-urls", f"http://127.0.0.1:{peer}"),
                    *("--initial-advertise-peer-urls", "http://127.0.0.1:1"),
                    *("--initial-cluster", "one=http://127.0.0.1:1"),
                    *("--log-level", "fatal", "--unsafe-no-fsync", *self.options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            self.relay.target = client
            if await self._answers(client):
                return
        raise AssertionError("etcd does not start")

    async def _answers(self, port: int) -> bool:
        assert self.process is not None
        until = reactor.seconds() + DEADLINE
        while self.process.poll() is None and reactor.seconds() < until:
            try:
                with socket.create_connection(("127.0.0.1", port), 1):
                    pass
                if self.scheme == "https":
                    return True
                client = Etcd(reactor, [f"127.0.0.1:{port}"])
                try:
                    await client.revision("/")
                finally:
                    await client.close()
                return True
            except (OSError, EtcdError):
                await deferLater(reactor, 0.05)
        return False

    def kill(self) -> None:
        """End it, as a machine that fails does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def wipe(self) -> None:
        """Forget everything; to be called while it is not running."""
        shutil.rmtree(self.directory / "data")

    def pause(self, paused: bool) -> None:
        """Let it answer nothing, or again."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP if paused else signal.SIGCONT)

    async def stop(self) -> None:
        """End it for good."""
        self.kill()
        if self.relay.port:
            await self.relay.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
