"""
The other ends for L{benchmarks.scale}: programs of their own, told what to do on standard input.

C{scale_peers.py swarm PORT}: connections that say hello, answer a request if one
comes, and else stay idle, with as little of their own as possible, so that what
is measured is the server.  Commands are C{join COUNT AGENTS}, C{leave COUNT} and
C{count}.

C{scale_peers.py agents PORT}: agents as they are, but for a listener that
answers everything in the same way.  The command is C{start AGENTS CONNECTIONS}; then there is a line each
quarter of a second.

Answers are lines of JSON on standard output.  Both end with their input.
"""

from __future__ import annotations

__all__ = ["Swarm", "raise_limit"]

import argparse
import json
import os
import resource
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from typing import Any

if __name__ == "__main__":
    # run as a script: the project is beside the directory of what is beside it
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from reverseproxy.wire.mosn.extensions import YAMUX, Announcement, ServerAnnouncement
from reverseproxy.wire.mosn.frames import ConnectionInit, FrameDecoder, InitResponse, Status, encode
from reverseproxy.wire.yamux.events import Data, Ended
from reverseproxy.wire.yamux.session import Mux

LOOPBACK = "127.0.0.1"
CLUSTER = "clientCluster"

WINDOW = 128
"""Joins under way at once."""

TICK = 0.25
"""Seconds between two lines of the agents."""

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nserved"
"""What a request gets."""

_CHUNK = 65536


def raise_limit(files: int) -> int:
    """
    Let this process, and its children, have so many descriptors.

    @return: how many it may have now.
    @raise OSError: if it may not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= files:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, max(files, hard)))
    except ValueError as error:
        raise OSError(f"{files} descriptors are needed and {hard} allowed: {error}") from error
    return files


def say(**fields: object) -> None:
    """Answer."""
    print(json.dumps(fields), flush=True)


class _Connection:
    """One connection of the swarm."""

    __slots__ = ("decoder", "mux", "socket")

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.decoder: FrameDecoder | None = FrameDecoder()
        self.mux: Mux | None = None


class Swarm:
    """
    Connections that are held open.

    @ivar held: how many have joined.
    @ivar failed: how many could not.
    """

    def __init__(self, port: int, mux: bool) -> None:
        self._port = port
        self._mux = mux
        self._poller = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._greeting: set[int] = set()
        self._queue: deque[bytes] = deque()
        self.held = 0
        self.failed = 0

    def join(self, count: int, agents: int) -> None:
        """Begin to dial; L{turn} goes on with it."""
        for number in range(count):
            extra = Announcement(
                agent=f"swarm-{os.getpid()}-{number % agents}",
                local_address=f"10.0.0.1:{number}",
                mux=(YAMUX,) if self._mux else (),
            ).to_extra()
            self._queue.append(
                encode(ConnectionInit(CLUSTER, host_name=f"agent-{number % agents}", extra=extra))
            )

    @property
    def joining(self) -> bool:
        """Whether there is anything left to join."""
        return bool(self._queue or self._greeting)

    def leave(self, count: int) -> None:
        """Close connections, without a word, as a process does that ends."""
        for fd in list(self._connections)[:count]:
            self._close(fd)

    def _close(self, fd: int) -> None:
        self._connections.pop(fd).socket.close()
        if fd in self._greeting:
            self._greeting.discard(fd)
            self.failed += 1
        else:
            self.held -= 1

    def turn(self, timeout: float) -> bool:
        """
        Dial, and look what has come.

        @return: whether there is a command on standard input.
        """
        while self._queue and len(self._greeting) < WINDOW:
            init = self._queue.popleft()
            connection = socket.create_connection((LOOPBACK, self._port))
            connection.setblocking(False)
            connection.send(init)
            fd = connection.fileno()
            self._connections[fd] = _Connection(connection)
            self._greeting.add(fd)
            self._poller.register(fd, select.EPOLLIN)
        command = False
        for fd, _ in self._poller.poll(timeout):
            if fd == sys.stdin.fileno():
                command = True
            else:
                self._receive(fd)
        return command

    def listen_to_commands(self) -> None:
        """Have L{turn} look at standard input, too."""
        self._poller.register(sys.stdin.fileno(), select.EPOLLIN)

    def _receive(self, fd: int) -> None:
        each = self._connections[fd]
        try:
            data = each.socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(fd)
            return
        if each.decoder is not None:
            answer = each.decoder.feed(data)
            if answer is None:
                return
            if not isinstance(answer, InitResponse) or answer.status != Status.SUCCESS:
                self._close(fd)
                return
            self._greeting.discard(fd)
            self.held += 1
            data = each.decoder.take_surplus()
            each.decoder = None
            ours = ServerAnnouncement.from_extra(answer.extra)
            if ours is not None and ours.mux:
                each.mux = Mux(False)
        if each.mux is None:
            if data.endswith(b"\r\n\r\n"):
                each.socket.send(ANSWER)
            return
        now = time.monotonic()
        for event in each.mux.feed(data, now):
            if isinstance(event, Data):
                each.mux.consumed(event.stream, len(event.data), now)
                if event.data.endswith(b"\r\n\r\n"):
                    each.mux.send(event.stream, ANSWER)
            elif isinstance(event, Ended):
                each.mux.end(event.stream)
        if each.mux.has_output:
            with suppress(BlockingIOError):
                each.socket.send(each.mux.take())


def _swarm(port: int, mux: bool) -> None:
    swarm = Swarm(port, mux)
    swarm.listen_to_commands()
    began: float | None = None
    while True:
        if swarm.turn(0 if swarm.joining else 1.0):
            command = sys.stdin.readline().split()
            if not command:
                return
            if command[0] == "join":
                began = time.monotonic()
                swarm.join(int(command[1]), int(command[2]))
            elif command[0] == "count":
                say(held=swarm.held, failed=swarm.failed)
            else:
                swarm.leave(int(command[1]))
                say(held=swarm.held)
        if began is not None and not swarm.joining:
            say(held=swarm.held, failed=swarm.failed, seconds=time.monotonic() - began)
            began = None


def _agents(port: int, mux: bool) -> None:
    from twisted.internet import reactor as stock
    from twisted.internet.interfaces import IConnector
    from twisted.internet.protocol import Protocol
    from twisted.internet.task import LoopingCall
    from twisted.logger import globalLogBeginner

    from reverseproxy.config.models import TunnelAgentConfig
    from reverseproxy.net.dead_peers import PeerSweep
    from reverseproxy.transport.reactor import StreamReactor
    from reverseproxy.tunnel.agent.discovery import Target
    from reverseproxy.tunnel.agent.peer import Peer
    from reverseproxy.tunnel.agent.plan import AgentPlan

    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
    _, count, connections = sys.stdin.readline().split()
    dials = 0

    class Counting(StreamReactor):
        def connectTCP(self, *args: Any, **kwargs: Any) -> IConnector:
            nonlocal dials
            dials += 1
            return super().connectTCP(*args, **kwargs)

    class Answering(Protocol):
        def dataReceived(self, data: bytes) -> None:
            assert self.transport is not None
            if data.endswith(b"\r\n\r\n"):
                self.transport.write(ANSWER)

    class Idle:
        name = "idle"

        def build_protocol(self, info: object) -> Protocol:
            return Answering()

    reactor: Any = Counting(stock)
    config = TunnelAgentConfig(
        enable=True,
        cluster=CLUSTER,
        connection_num=int(connections),
        server_list=(f"{LOOPBACK}:{port}",),
        mux=mux,
    )
    peers = [
        Peer(
            AgentPlan(
                config=config,
                sink=Idle(),  # type: ignore[arg-type]
                reactor=reactor,
                random=SystemRandom(),
                credentials=None,
                client_tls=None,
                agent_id=f"agent-{os.getpid()}-{number}",
            ),
            Target(f"{LOOPBACK}:{port}", f"{LOOPBACK}:{port}"),
            lambda: None,
        )
        for number in range(int(count))
    ]
    for peer in peers:
        peer.start()
    PeerSweep(reactor).start()

    def tell() -> None:
        say(time=time.monotonic(), serving=sum(peer.serving for peer in peers), dials=dials)
        if select.select([sys.stdin], [], [], 0)[0]:
            os._exit(0)

    telling = LoopingCall(tell)
    telling.clock = reactor
    telling.start(TICK)
    reactor.run()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Be many agents.")
    parser.add_argument("role", choices=("swarm", "agents"))
    parser.add_argument("port", type=int)
    parser.add_argument("--mux", action="store_true")
    parser.add_argument("--files", type=int, default=20_000)
    options = parser.parse_args(arguments)
    raise_limit(options.files)
    (_swarm if options.role == "swarm" else _agents)(options.port, options.mux)
    return 0


if __name__ == "__main__":
    sys.exit(main())
