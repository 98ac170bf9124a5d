"""Our server, a fake of MOSN's agent, and clients."""

from __future__ import annotations

__all__ = ["ServerWorld"]

from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet import ssl
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, wrapClientTLS

from tests.mosn.agent import FakeAgent
from tests.mosn.cells import PROTOCOLS, TLS, Cell
from tests.mosn.configs import listener_of, server_config, tunnel_of
from tests.mosn.driver import TalkProtocol
from tests.mosn.http2 import Http2Asker
from tests.mosn.protocols import make_answerer, make_asker
from tests.mosn.talk import Answerer, Unexpected
from tests.mosn.world import LIMIT, World, converse, reactor


class _Service:
    """
    What stands behind the hosting listener of a fake agent.

    @ivar holding: whether it lets requests wait from now on.
    """

    def __init__(self, protocol: str, streamed: bool = False) -> None:
        self.holding = False
        self._protocol = protocol
        self._streamed = streamed
        self._answerers: list[Answerer] = []
        self._waiting: list[Deferred[None]] = []

    def make_answerer(self) -> Answerer:
        answerer = make_answerer(self._protocol, streamed=self._streamed)
        answerer.holding = self.holding
        answerer.came = self._came
        self._answerers.append(answerer)
        return answerer

    def hold(self) -> None:
        self.holding = True
        for each in self._answerers:
            each.holding = True

    def release(self) -> None:
        """Let no more requests wait; none does."""
        self.holding = False
        for each in self._answerers:
            each.holding = False

    @property
    def held(self) -> int:
        """How many requests wait."""
        return sum(len(each.held) for each in self._answerers)

    def holds(self) -> Deferred[None]:
        """Wait until a request waits."""
        done: Deferred[None] = Deferred()
        if self.held:
            done.callback(None)
        else:
            self._waiting.append(done)
        return done

    def _came(self) -> None:
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.callback(None)


class ServerWorld(World):
    """See L{World}."""

    async def start(self) -> None:
        self.run_child("server", server_config(self.certificates, self.mode))
        self._ports: dict[str, int] = {}
        for tls in TLS:
            self._ports[tunnel_of(tls)] = await self.child.port(tunnel_of(tls))

    # scenes

    async def load(self, cell: Cell) -> None:
        service = _Service(cell.protocol, streamed=cell.clients > 1)
        # one of many has a service that is not up yet
        agent = self._agent(cell, service, quitters=cell.connections // 8)
        try:
            await agent.start()
            await self._serve(cell, agent)
            # 90 s in which nothing happens
            await agent.close_idle()
            await agent.settled()
            await self._serve(cell, agent)
            addresses = agent.addresses
            await (agent.leave() if cell.clients == 1 else agent.quit())
            await self.child.has(cell.cluster, lambda: addresses, 0)
        finally:
            agent.abort()
        self._judge(agent)

    async def large(self, cell: Cell) -> None:
        """Something that does not fit into any window, both ways."""
        agent = self._agent(cell, _Service(cell.protocol))
        try:
            await agent.start()
            await self._joined(cell, agent)
            await converse([bytes(range(256)) * (9 << 12)], partial(self._ask_once, cell))
        finally:
            agent.abort()
        self._judge(agent)

    async def leaving(self, cell: Cell) -> None:
        """One of two agents leaves, with a request under way."""
        services = [_Service(cell.protocol), _Service(cell.protocol)]
        agents = [self._agent(cell, service) for service in services]
        try:
            for agent in agents:
                await agent.start()
                await self._joined(cell, agent)
            service, asked = await self._hold_one(cell, services)
            agent = agents[services.index(service)]
            addresses = agent.addresses
            left = agent.leave()
            await self.child.has(cell.cluster, lambda: addresses, 0)
            for _ in range(4):
                await converse([b"for the one that stays"], partial(self._ask_once, cell))
            if service.held != 1:
                raise Unexpected(f"{service.held} requests are with the agent that leaves")
            agent.release()
            await asked
            await left
        finally:
            for agent in agents:
                agent.abort()
        for agent in agents:
            self._judge(agent)

    async def going_away(self, cell: Cell) -> None:
        """The hosting listener of one of two agents says that no more requests should come."""
        services = [_Service(cell.protocol), _Service(cell.protocol)]
        agents = [self._agent(cell, service) for service in services]
        try:
            for agent in agents:
                await agent.start()
                await self._joined(cell, agent)
            service, asked = await self._hold_one(cell, services)
            agent = agents[services.index(service)]
            missed = self.child.misses(cell.cluster, agent.addresses)
            agent.go_away()
            await missed  # by the worker that has the request; others can't use the connection meanwhile
            for _ in range(4):
                await converse([b"for the one that stays"], partial(self._ask_once, cell))
            accepted = agent.accepted
            service.release()
            agent.release()
            await asked
            # there is nothing left to wait for: the connection makes room for another one
            await agent.until(lambda: agent.accepted > accepted)
            await agent.settled()
            await self._joined(cell, agent)
            for _ in range(4):
                await converse([b"for both"], partial(self._ask_once, cell))
        finally:
            for agent in agents:
                agent.abort()
        for agent in agents:
            self._judge(agent)

    async def refused(self, cell: Cell) -> None:
        """An agent is refused, and never comes back."""
        stranger = self._agent(cell._replace(protocol="unheard-of"), _Service("tcp"))
        agent = self._agent(cell, _Service(cell.protocol))
        try:
            await stranger.start()
            await agent.start()
            await self._joined(cell, agent)
            await converse([b"from others"], partial(self._ask_once, cell))
        finally:
            stranger.abort()
            agent.abort()
        self._judge(agent)
        if stranger.refusals != [4] * cell.connections or stranger.hosted:
            raise Unexpected(f"refused with {stranger.refusals}, {len(stranger.hosted)} connections serve")

    async def stopping(self, cell: Cell) -> None:
        """
        The server stops, with a request of each protocol under way.

        @param cell: its protocol does not matter.
        """
        cells = [cell._replace(protocol=protocol) for protocol in PROTOCOLS]
        services = [_Service(each.protocol) for each in cells]
        agents = [self._agent(*each) for each in zip(cells, services, strict=True)]
        try:
            asked = []
            for each, service, agent in zip(cells, services, agents, strict=True):
                await agent.start()
                await self._joined(each, agent)
                service.hold()
                asked.append(ensureDeferred(self._ask_once(each, b"the last one")))
                await service.holds()
            stopped = ensureDeferred(self.stop())
            await self.child.logged("^stopping: ")
            for agent in agents:
                agent.leaving = True  # whoever is closed now does not dial again
                agent.release()
            for answer in asked:
                if await answer != b"the last one":
                    raise Unexpected("another answer")
            await stopped
        finally:
            for agent in agents:
                agent.abort()

    # their parts

    def _agent(self, cell: Cell, service: _Service, quitters: int = 0) -> FakeAgent:
        return FakeAgent(
            reactor,
            self._endpoint(cell.tls),
            cell.cluster,
            cell.connections,
            service.make_answerer,
            # with many clients there is much else to do here
            prompt=cell.clients == 1,
            quitters=quitters,
        )

    def _endpoint(self, tls: str) -> Any:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self._ports[tunnel_of(tls)])
        if tls == "plain":
            return endpoint
        authority = ssl.Certificate.loadPEM(Path(self.certificates.ca).read_bytes())
        own = self.certificates.client
        identity = ssl.PrivateCertificate.loadPEM(own.chain_pem + own.key_pem) if tls == "mtls" else None
        return wrapClientTLS(ssl.optionsForClientTLS("127.0.0.1", authority, identity), endpoint)

    async def _serve(self, cell: Cell, agent: FakeAgent) -> None:
        """Let clients come and go, and wait until all is as it was before."""
        await self._joined(cell, agent)
        accepted = agent.accepted
        clients = [ensureDeferred(self._client(cell, number)) for number in range(cell.clients)]
        sessions = sum(await gatherResults(clients, consumeErrors=True))
        if cell.protocol == "tcp":
            # each has used up a connection
            await agent.until(lambda: agent.accepted >= accepted + sessions)
        await agent.settled()
        await self._joined(cell, agent)

    def _joined(self, cell: Cell, agent: FakeAgent) -> Deferred[None]:
        """Wait until all connections may be given requests, wherever they come in."""
        return self.child.has(cell.cluster, lambda: agent.addresses, 2 if self.mode == "workers" else 1)

    async def _connect(self, cell: Cell, hasty: bool = False) -> TalkProtocol:
        listener = listener_of(cell.cluster)
        if listener not in self._ports:
            self._ports[listener] = await self.child.port(listener)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self._ports[listener])
        asker = make_asker(cell.protocol, hasty=hasty)
        # Whoever is told to be hasty has to be: our server speaks without being spoken to.
        talk: TalkProtocol = TalkProtocol(reactor, asker, haste=LIMIT)
        spoken_to: Deferred[object] = Deferred()
        talk.changed = lambda _: spoken_to.called or spoken_to.callback(None)
        await connectProtocol(endpoint, talk)
        if isinstance(asker, Http2Asker) and hasty:
            await spoken_to
            if not asker.early:
                raise Unexpected("no acknowledgement before SETTINGS")
        return talk

    async def _ask_once(self, cell: Cell, body: bytes) -> bytes:
        talk = await self._connect(cell)
        try:
            return await talk.ask(body)
        finally:
            talk.transport.loseConnection()

    async def _client(self, cell: Cell, number: int) -> int:
        """Ask for all there is to ask for; how much it was."""
        talk: TalkProtocol | None = None
        bodies = cell.bodies(number)

        async def ask(body: bytes) -> bytes:
            nonlocal talk
            if talk is None or not talk.usable:
                talk = await self._connect(cell, hasty=number % 2 == 1)
            return await talk.ask(body)

        try:
            await converse(bodies, ask)
        finally:
            if talk is not None:
                talk.transport.loseConnection()
        return len(bodies)

    async def _hold_one(self, cell: Cell, services: list[_Service]) -> tuple[_Service, Deferred[bytes]]:
        """Let one of two services have a request under way, and the other one answer at once."""
        for service in services:
            service.hold()
        asked = ensureDeferred(self._ask_once(cell, b"held"))
        came = DeferredList([service.holds() for service in services], fireOnOneCallback=True)
        _, index = await came
        services[1 - index].release()
        return services[index], asked

    def _judge(self, agent: FakeAgent) -> None:
        for failure in agent.failures:
            failure.raiseException()
        if agent.refusals or agent.retries:
            raise Unexpected(f"refused with {agent.refusals}, waited {agent.retries} times")
