"""
Two servers and two agents are restarted one after the other, under recorded load.

C{python -m tests.change rolling --times 5} does so again and again, and prints a table.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.task import deferLater

from tests.change.recorded import RATE
from tests.change.rolling import Measured, RollingLoad
from tests.change.test_upgrade import OVER
from tests.integration.configs import agent, server
from tests.integration.harness import JOINED, SERVING, IntegrationTestCase, ReverseProxy, certificates
from tests.integration.test_tls import client_context, server_context
from tests.integration.test_workers import READY
from tests.mosn.agent import FakeAgent
from tests.mosn.http1 import Http1Answerer, Http1Asker
from tests.mosn.server import FakeServer, Pool

TIMES = int(os.environ.get("REVERSEPROXY_ROLLINGS", "0"))
"""How often all is done; 0 for a short form of it."""

SPEED = RATE if TIMES else 100.0
"""Requests a second; in the short form the machine has other tests to run at the same time."""

CONNECTIONS = 2


class RollingCase(IntegrationTestCase):
    """
    Two servers, and two agents that have both of them in their lists.

    @cvar kind: what is said of it.
    @cvar workers: how many each server has.
    @cvar secure: whether there is TLS between agents and servers.
    """

    timeout = 120 + 120 * TIMES
    kind = ""
    workers = 1
    secure = False
    load: Any
    agents: list[ReverseProxy]

    async def begin(self) -> None:
        self.sockets = Path(tempfile.mkdtemp(prefix="rolling-"))  # paths of Unix sockets have 107 bytes
        self.addCleanup(shutil.rmtree, self.sockets, True)
        tls: dict[str, Any] = {}
        self.agent_tls: dict[str, Any] | None = None
        if self.secure:
            authority = certificates(self.directory)
            tls = server_context(authority.issue("127.0.0.1"))
            self.agent_tls = client_context(authority.ca_file)
        self.clients = [self.reserve_port() for _ in range(2)]
        self.tunnels = [self.reserve_port() for _ in range(2)]
        for index, (client, tunnel) in enumerate(zip(self.clients, self.tunnels, strict=True)):
            document = server(
                client=f"127.0.0.1:{client}",
                tunnel=f"127.0.0.1:{tunnel}",
                tls=tls,
                client_listener={"open_when_ready": True},
                cluster={"required": True},
            )
            self.write(f"server-{index}", document)
        self.servers = [self.launch("server", index) for index in range(2)]
        for each in self.servers:
            await self.listens(each)
        await self.begin_agents()
        for each in self.servers:
            await each.counted(JOINED, 2 * CONNECTIONS * self.workers)
            await each.port("clientListener")
        self.load = RollingLoad(self.clients, rate=SPEED)
        self.load.start()
        await self.load.answers(50)
        self.load.step("before")

    async def begin_agents(self) -> None:
        backend = await self.run_backend()
        for index in range(2):
            addresses = [f"127.0.0.1:{port}" for port in self.tunnels]
            document = agent(addresses, backend.address, connections=CONNECTIONS, tls=self.agent_tls)
            if not self.mux:
                document["extends"][0]["config"]["mux"] = False
            self.write(f"agent-{index}", document)
        self.agents = [self.launch("agent", index) for index in range(2)]

    def write(self, name: str, document: dict[str, Any]) -> None:
        (self.directory / f"{name}.json").write_text(json.dumps(document))

    def launch(self, what: str, index: int) -> ReverseProxy:
        name = f"{what}-{index}"
        options = ["--takeover", str(self.sockets / name)]
        if what == "server" and self.workers > 1:
            options += ["--workers", str(self.workers)]
        return self.run_proxy(self.directory / f"{name}.json", name, *options)

    async def listens(self, child: ReverseProxy) -> None:
        if self.workers > 1:
            await child.counted(READY, self.workers)
        else:
            await child.port("tunnelListener")

    # steps

    async def restart_server(self, index: int) -> None:
        """SIGTERM, and another process when the first one has ended; agents come back."""
        self.assertEqual(await self.servers[index].stop(), 0)
        self.servers[index] = self.launch("server", index)
        await self.servers[index].counted(JOINED, 2 * CONNECTIONS * self.workers)

    async def take_over_server(self, index: int) -> None:
        """Another process takes its place."""
        old = self.servers[index]
        self.servers[index] = self.launch("server", index)
        await old.logged(OVER)
        await self.servers[index].counted(JOINED, 2 * CONNECTIONS * self.workers)
        self.assertEqual(await old.ended(), 0)

    async def restart_agent(self, index: int) -> None:
        """SIGTERM, and another process when the first one has ended."""
        marks = [each.mark() for each in self.servers]
        self.assertEqual(await self.agents[index].stop(), 0)
        self.agents[index] = self.launch("agent", index)
        for each, mark in zip(self.servers, marks, strict=True):
            await each.counted(JOINED, CONNECTIONS * self.workers, mark)

    async def take_over_agent(self, index: int) -> None:
        """Another process takes its place."""
        old = self.agents[index]
        self.agents[index] = self.launch("agent", index)
        await old.logged(OVER)
        self.assertEqual(await old.ended(), 0)

    short = (("restart_server", 0), ("take_over_server", 1), ("restart_agent", 0))
    steps = tuple(
        (name, index)
        for name in ("restart_server", "take_over_server", "restart_agent", "take_over_agent")
        for index in range(2)
    )

    async def roll(self) -> None:
        await self.begin()
        for name, index in self.steps * TIMES or self.short:
            step: Callable[[int], Awaitable[None]] = getattr(self, name)
            await step(index)
            await self.load.answers(20)
            self.load.step(f"{name.replace('_', ' ')} {index + 1}")
        await self.load.stop()
        self.load.step("after")
        assert sys.__stdout__ is not None
        for done in self.load.steps:
            sys.__stdout__.write(f"{self.kind}: {done}\n")
            for failure in done.failed[:5]:
                sys.__stdout__.write(f"    {failure}\n")
        self.assertEqual(self.load.failures, [])


if TIMES:

    class PlainTests(RollingCase):
        kind = "connections lent as a whole"
        mux = False

        async def test_one_after_the_other(self) -> None:
            await self.roll()


class StreamTests(RollingCase):
    kind = "streams over TLS"
    secure = True

    async def test_one_after_the_other(self) -> None:
        await self.roll()


class WorkerTests(RollingCase):
    """In the short form for connections that are lent as a whole, too."""

    kind = f"two workers, {'streams' if TIMES else 'connections lent as a whole'}"
    workers = 2
    mux = bool(TIMES)

    async def test_one_after_the_other(self) -> None:
        await self.roll()


class MosnAgentTests(RollingCase):
    """
    Servers of ours, and agents as MOSN's are: told nothing, and with waits that grow.

    Each has one agent for each server.
    """

    kind = "agents of MOSN's"
    steps = tuple((name, index) for name, index in RollingCase.steps if not name.endswith("over_agent"))
    short = (("restart_server", 0), ("restart_agent", 0))

    async def begin_agents(self) -> None:
        self.fakes = [[self.fake(port) for port in self.tunnels] for _ in range(2)]
        self.addCleanup(self.abort_fakes)
        for fakes in self.fakes:
            for fake in fakes:
                await fake.start()

    def abort_fakes(self) -> None:
        for fakes in self.fakes:
            for fake in fakes:
                fake.abort()

    def fake(self, port: int) -> FakeAgent:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        return FakeAgent(reactor, endpoint, "clientCluster", CONNECTIONS, Http1Answerer)  # type: ignore[arg-type]

    async def restart_agent(self, index: int) -> None:
        """It says which connections are about to go, finishes what is under way, and another one comes."""
        for number, fake in enumerate(self.fakes[index]):
            mark = self.servers[number].mark()
            self.fakes[index][number] = self.fake(self.tunnels[number])
            await fake.leave()
            await self.fakes[index][number].start()
            await self.servers[number].counted(JOINED, CONNECTIONS, mark)

    async def test_one_after_the_other(self) -> None:
        await self.roll()


class MosnServerTests(RollingCase):
    """
    Agents of ours, and servers as MOSN's are, which close nothing.

    The servers are in this process, and so are their clients.
    """

    kind = "servers of MOSN's"
    steps = tuple((name, index) for name, index in RollingCase.steps if name.endswith("agent"))
    short = (("restart_agent", 0),)

    async def begin(self) -> None:
        self.sockets = Path(tempfile.mkdtemp(prefix="rolling-"))
        self.addCleanup(shutil.rmtree, self.sockets, True)
        self.agent_tls = None
        self.tunnels = []
        self.fakes = [FakeServer(reactor) for _ in range(2)]  # type: ignore[arg-type]
        for each in self.fakes:
            listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(each)
            self.addCleanup(listening.stopListening)
            self.tunnels.append(listening.getHost().port)
        await self.begin_agents()
        self.pools = []
        for each in self.fakes:
            await each.waits("clientCluster", 2 * CONNECTIONS)
            self.pools.append(each.open("clientCluster", Http1Asker, coalesced=False))
        self.load = PoolLoad(self.pools)
        self.load.start()
        await self.load.answers(100)
        self.load.step("before")

    async def serve(self, index: int) -> None:
        """Wait until an agent's connections serve."""
        await self.agents[index].counted(SERVING, 2 * CONNECTIONS)

    async def restart_agent(self, index: int) -> None:
        self.assertEqual(await self.agents[index].stop(), 0)
        self.agents[index] = self.launch("agent", index)
        await self.serve(index)

    async def take_over_agent(self, index: int) -> None:
        await super().take_over_agent(index)
        await self.serve(index)

    async def test_one_after_the_other(self) -> None:
        await self.roll()
        for pool in self.pools:
            self.assertEqual(pool.failures, [])


class PoolLoad(Measured):
    """Clients of servers as MOSN's are, in this process: each takes the next connection that may be used."""

    def __init__(self, pools: list[Pool], clients: int = 8) -> None:
        super().__init__()
        self.failures: list[str] = []
        self._pools = pools
        self._clients = clients
        self._numbers = itertools.count(1)
        self._stopping = False
        self._done: list[Deferred[None]] = []

    def start(self) -> None:
        self._done = [Deferred.fromCoroutine(self._ask(client)) for client in range(self._clients)]

    async def answers(self, more: int) -> None:
        wanted = len(self.records) + more
        while len(self.records) < wanted:
            await deferLater(reactor, 0.02)  # type: ignore[arg-type]

    async def stop(self) -> None:
        self._stopping = True
        for each in self._done:
            await each

    async def _ask(self, client: int) -> None:
        turn = client
        while not self._stopping:
            token = f"request-{next(self._numbers)}-of-client-{client}"
            began, reason, turn = time.monotonic(), "", turn + 1
            try:
                talk = await self._pools[turn % len(self._pools)].take()
                answer = await talk.ask(token.encode())
                if answer != token.encode():
                    reason = repr(answer[:100])
            except Exception as error:
                reason = repr(error)
            if reason:
                self.failures.append(f"{token}: {reason}")
            self.records.append((token, began, time.monotonic() - began, reason))
            await deferLater(reactor, self._clients / SPEED)  # type: ignore[arg-type]
