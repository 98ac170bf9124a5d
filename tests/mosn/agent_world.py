"""Our agent, a fake of MOSN's server, and services."""

from __future__ import annotations

__all__ = ["AgentWorld"]

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet import ssl
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater

from tests.mosn.cells import PROTOCOLS, TLS, Cell, cells
from tests.mosn.configs import agent_config
from tests.mosn.driver import TalkProtocol
from tests.mosn.protocols import make_answerer, make_asker
from tests.mosn.server import FakeServer, Pool
from tests.mosn.talk import Answerer, Asker, Unexpected
from tests.mosn.world import World, converse, reactor

IDLE = 0.05
"""Seconds for 90: long enough that a connection that is closed then was not closed at once."""

HASTY = 25
"""How often one may be dialled before there is a wait, as not each is closed so soon that it is "at once"."""


class _Service(Factory):
    """
    What stands behind the agent.

    @ivar holding: whether connections that come let their requests wait.
    """

    noisy = False

    def __init__(self, protocol: str) -> None:
        self.holding = False
        self._protocol = protocol
        self._talks: list[TalkProtocol] = []
        self._unused: list[TalkProtocol] = []
        self._waiting: list[tuple[str, Deferred[None]]] = []

    def buildProtocol(self, addr: object) -> TalkProtocol:
        answerer = make_answerer(self._protocol)
        answerer.holding = self.holding
        answerer.came = partial(self._tell, "held")
        talk = TalkProtocol(reactor, answerer)
        talk.changed = self._changed
        self._talks.append(talk)
        self._unused.append(talk)
        reactor.callLater(0, self._tell, "unused")
        return talk

    def _changed(self, talk: TalkProtocol) -> None:
        if talk in self._unused:
            self._unused.remove(talk)
        if talk.lost:
            self._talks.remove(talk)

    def _tell(self, what: str) -> None:
        for waiting in [waiting for waiting in self._waiting if waiting[0] == what]:
            self._waiting.remove(waiting)
            waiting[1].callback(None)

    def _next(self, what: str) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self._waiting.append((what, done))
        return done

    async def unused(self) -> None:
        """Wait for a connection on which nothing has come yet."""
        if not self._unused:
            await self._next("unused")

    def hold(self) -> None:
        """Let requests wait from now on."""
        self.holding = True
        for talk in self._talks:
            assert isinstance(talk.talk, Answerer)
            talk.talk.holding = True

    @property
    def _held(self) -> list[TalkProtocol]:
        return [talk for talk in self._talks if isinstance(talk.talk, Answerer) and talk.talk.held]

    async def holds(self) -> None:
        """Wait until a request waits."""
        if not self._held:
            await self._next("held")

    def release(self) -> None:
        """Answer what waits, and let nothing more wait."""
        self.holding = False
        for talk in list(self._talks):
            talk.release()


class AgentWorld(World):
    """See L{World}."""

    async def start(self) -> None:
        self._fake = FakeServer(reactor)
        self._listening = [await self._endpoint(tls).listen(self._fake) for tls in TLS]
        servers = {tls: port.getHost().port for tls, port in zip(TLS, self._listening, strict=True)}
        self._services = {protocol: _Service(protocol) for protocol in PROTOCOLS}
        services = {}
        for protocol, service in self._services.items():
            listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(service)
            services[protocol] = listening.getHost().port
        self.run_child("agent", agent_config(self.certificates, servers, services))
        for cell in cells():
            await self._fake.waits(cell.cluster, cell.connections)

    # scenes

    async def load(self, cell: Cell) -> None:
        pool = await self._open(cell)
        clients = [ensureDeferred(self._client(cell, number)) for number in range(cell.clients)]
        try:
            await gatherResults(clients, consumeErrors=True)
            if cell.protocol in ("bolt", "boltv2"):
                # MOSN's server sends one where nothing has come for 15 s
                await gatherResults([talk.heartbeat() for talk in pool.talks])
        finally:
            await self._close(cell)

    async def large(self, cell: Cell) -> None:
        """Something that does not fit into any window, both ways."""
        pool = await self._open(cell)
        try:
            await converse([bytes(range(256)) * (9 << 12)], partial(self._ask, pool))
        finally:
            await self._close(cell)

    async def interrupted(self, cell: Cell) -> None:
        """A client goes in mid-request, for which MOSN closes the connection; then another one comes."""
        service = self._services[cell.protocol]
        pool = await self._open(cell)
        try:
            service.hold()
            talk = await pool.take()
            asked = talk.ask(b"the first one")
            asked.addErrback(lambda _: None)
            await service.holds()
            talk.drop()
            await asked
            service.release()
            await converse([b"the second one"], partial(self._ask, pool))
        finally:
            service.release()
            await self._close(cell)

    async def idle(self, cell: Cell) -> None:
        """Nothing comes for 90 s, MOSN's default, and connections are closed: others follow at once."""
        await self._fake.waits(cell.cluster, cell.connections)
        mark = self.child.mark()
        connections = self._fake.accept(cell.cluster)
        await self.child.counted(f"^agent of cluster {cell.cluster}: serving ", cell.connections, mark)
        await deferLater(reactor, IDLE)
        mark = self.child.mark()
        for connection in connections:
            connection.transport.loseConnection()
        for entry in await self._lost(cell, mark):
            if entry["delay"]:
                raise Unexpected(entry["message"])
        await self._fake.waits(cell.cluster, cell.connections)

    async def closed_at_once(self, cell: Cell) -> None:
        """Connections are closed right after they have been accepted: sooner or later agents wait."""
        await self._fake.waits(cell.cluster, cell.connections)
        mark = self.child.mark()
        pool = self._fake.turn_away(cell.cluster)
        await self._lost(cell, mark, lambda entry: entry["delay"] > 0)
        pool.turning_away = False
        if pool.turned_away > cell.connections * HASTY:
            raise Unexpected(f"dialled {pool.turned_away} times before it waited")
        # and then it serves, as if nothing had been
        await self._fake.waits(cell.cluster, cell.connections)
        self._fake.open(cell.cluster, lambda: self._asker(cell), coalesced=False)
        for _ in range(cell.connections):
            await converse([b"after all"], partial(self._ask, pool))
        self._fake.close(cell.cluster)
        await self._fake.waits(cell.cluster, cell.connections)
        self._judge(pool)

    async def stopping(self, cell: Cell) -> None:
        """
        The agent stops, with a request of each protocol under way; MOSN's server closes nothing.

        @param cell: its protocol does not matter.
        """
        each = [cell._replace(protocol=protocol) for protocol in PROTOCOLS]
        pools = [await self._open(cell) for cell in each]
        asked = []
        for cell, pool in zip(each, pools, strict=True):
            service = self._services[cell.protocol]
            service.hold()
            asked.append(ensureDeferred(self._ask(pool, b"the last one")))
            await service.holds()
        stopped = ensureDeferred(self.stop())
        for pool in pools:
            await pool.leaves()
        for service in self._services.values():
            service.release()
        for answer in asked:
            if await answer != b"the last one":
                raise Unexpected("another answer")
        await stopped
        for port in self._listening:
            await port.stopListening()
        for pool in pools:
            self._judge(pool)

    # their parts

    async def _lost(
        self, cell: Cell, mark: int, wanted: Callable[[dict[str, Any]], bool] = lambda _: True
    ) -> list[dict[str, Any]]:
        """Wait for what the agent says of the loss of each connection; it is wanted, or not counted."""
        entries: dict[tuple[int | None, str], dict[str, Any]] = {}
        said = re.compile(f"^{cell.cluster} via .*: connection lost after ")

        def complete(line: str) -> bool:
            """of each connection that it is lost"""
            entry = json.loads(line)
            if said.search(entry["message"]) and wanted(entry):
                entries[entry.get("worker"), entry["slot"]] = entry
            return len(entries) == cell.connections

        await self.child.wait_for(complete, since=mark)
        return list(entries.values())

    def _endpoint(self, tls: str) -> Any:
        if tls == "plain":
            return TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        own = self.certificates.server
        identity = ssl.PrivateCertificate.loadPEM(own.chain_pem + own.key_pem)
        authority = ssl.Certificate.loadPEM(Path(self.certificates.ca).read_bytes())
        options = identity.options(authority) if tls == "mtls" else identity.options()
        return SSL4ServerEndpoint(reactor, 0, options, interface="127.0.0.1")

    async def _open(self, cell: Cell) -> Pool:
        """Accept the connections that wait, fresh ones unless they carry TCP sessions."""
        if cell.protocol != "tcp":
            await self._fake.waits(cell.cluster, cell.connections)
        return self._fake.open(cell.cluster, lambda: self._asker(cell), coalesced=cell.clients > 1)

    async def _close(self, cell: Cell) -> None:
        """
        Close the connections, and wait for those that follow.

        An agent dials again at once where a connection has served: each has, but
        those for TCP sessions, which are spent by serving; what is left of them stays.
        """
        pool = self._fake.pool(cell.cluster)
        if cell.protocol != "tcp":
            self._fake.close(cell.cluster)
            await self._fake.waits(cell.cluster, cell.connections)
        self._judge(pool)

    def _judge(self, pool: Pool) -> None:
        failures = [*pool.failures, *self._fake.failures]
        pool.failures.clear()
        self._fake.failures.clear()
        for failure in failures:
            failure.raiseException()

    def _asker(self, cell: Cell) -> Asker:
        # MOSN without max_connections gives a second request to a connection that is in use
        return make_asker(cell.protocol, hasty=True, at_once=4 if cell.connections > 1 else 1)

    async def _ask(self, pool: Pool, body: bytes) -> bytes:
        return await (await pool.take()).ask(body)

    async def _client(self, cell: Cell, number: int) -> None:
        pool = self._fake.pool(cell.cluster)

        async def ask(body: bytes) -> bytes:
            talk = await pool.take()
            if cell.protocol == "tcp" and cell.clients == 1:
                # The client comes late: the way to the service has long been open.
                await self._services[cell.protocol].unused()
            return await talk.ask(body)

        await converse(cell.bodies(number), ask)
