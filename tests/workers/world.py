"""Several workers of one configuration in memory, with agents, services and clients."""

from __future__ import annotations

__all__ = ["CLUSTER", "REQUEST", "Service", "World"]

import json
from collections.abc import Callable
from random import Random
from typing import Any

from reverseproxy.app import ReverseProxy
from reverseproxy.cluster.manager import Cluster
from reverseproxy.config.loader import loads
from reverseproxy.errors import WireError
from reverseproxy.testing import MemoryReactor, Recorder, run
from reverseproxy.transport.handing import discard
from reverseproxy.workers.channel import decode, encode
from reverseproxy.workers.demand_announcer import LEAST_GAP
from reverseproxy.workers.links import Link
from reverseproxy.workers.route_client import RouteArbiterClient
from reverseproxy.workers.siblings import Siblings
from tests.integration.configs import quick_agent, server
from tests.transport.contract import CallableFactory

CLUSTER = "clientCluster"
REQUEST = b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n"
CLIENT, TUNNEL, BACKEND = 2000, 3000, 4000


class Service(Recorder):
    """Answers requests when it is told to."""

    def answer(self, body: bytes) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


class MemoryChannel:
    """
    A channel without sockets; see L{reverseproxy.workers.channel}.

    @ivar sent: the messages, as they were sent.
    """

    def __init__(self, reactor: MemoryReactor, link: Any) -> None:
        self.sent: list[Any] = []
        self._reactor = reactor
        self._link = link
        self._other = self
        self._closed = False

    @classmethod
    def pair(cls, reactor: MemoryReactor, one: Any, other: Any) -> tuple[MemoryChannel, MemoryChannel]:
        """Two ends, for two links."""
        ends = cls(reactor, one), cls(reactor, other)
        ends[0]._other, ends[1]._other = ends[1], ends[0]
        return ends

    def send(self, message: Any, handle: Any = None) -> None:
        try:
            packet = encode(message)
        except WireError:
            if handle is not None:
                discard(handle)
            raise
        self.sent.append(message)
        self._reactor.callLater(0, self._other._receive, packet, handle)

    def _receive(self, packet: bytes, handle: Any) -> None:
        if not self._closed:
            self._link.received(decode(packet), handle)
        elif handle is not None:
            discard(handle)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._reactor.callLater(0, self._other._lost)

    def _lost(self) -> None:
        if not self._closed:
            self._closed = True
            self._link.abort("the other end is closed")


class FakeWorker:
    """A worker without a supervisor, whose siblings are linked by the test."""

    siblings: Siblings
    seed = "workers"

    def __init__(self, number: int, workers: int, reactor: MemoryReactor) -> None:
        self.number = number
        self.workers = workers
        self._reactor = reactor
        self.told: list[Any] = []  # what it has said to its supervisor
        self.tell: Callable[[Any], object] = self.told.append
        self.route_client = RouteArbiterClient(
            lambda message: self.tell(message), number, workers, None, reactor
        )

    def join(self, clusters: Any) -> Siblings:
        self.siblings = Siblings(self.number, self.workers, clusters, self._reactor)
        self.route_client.servers = self.siblings.servers
        return self.siblings

    def say(self, message: Any) -> None:
        self.tell(message)

    def listen_for(self, listener: str) -> None:
        return None

    def share_of_agent(self, config: Any, index: int) -> Any:
        return config

    def start(self, service: Any) -> None:
        """The test links."""

    def stop(self) -> None:
        self.siblings.stop()


class World:
    """
    Workers, each with ports of its own, so that it is known which one is asked.

    @ivar services: the connections of each agent to its service.
    @ivar spread: whether agents' connections may get to other workers than those that
        they are dialled to.
    """

    def __init__(
        self, workers: int = 2, linked: bool = True, rpc: bool = False, spread: bool = False, **more: Any
    ) -> None:
        self.reactor = MemoryReactor()
        self.workers: list[FakeWorker] = []
        self.proxies: list[ReverseProxy] = []
        self.services: list[list[Service]] = []
        self.agents: list[ReverseProxy] = []
        for number in range(workers):
            document = server(
                client=f"127.0.0.1:{CLIENT + number}", tunnel=f"127.0.0.1:{TUNNEL + number}", **more
            )
            if rpc:
                [host] = document["servers"][0]["routers"][0]["virtual_hosts"]
                host["routers"][0]["match"] = {"headers": [{"name": "service", "value": ".*", "regex": True}]}
            worker: Any = FakeWorker(number, workers, self.reactor)
            config = loads(json.dumps(document), "document").config
            proxy = ReverseProxy(config, self.reactor, Random(number), worker=worker)
            proxy.privilegedStartService()
            proxy.startService()
            if not spread:
                worker.siblings.serve(worker.siblings.servers.copy(), {})
                for each in worker.siblings.servers.values():
                    each.workers.count = 1
            self.workers.append(worker)
            self.proxies.append(proxy)
        if linked:
            for one in range(workers):
                for other in range(one + 1, workers):
                    self.link(one, other)

    def link(self, one: int, other: int) -> None:
        """Connect two workers."""
        dialled = Link(self.workers[one].siblings.links, other)
        accepted = Link(self.workers[other].siblings.links, None)
        ends = MemoryChannel.pair(self.reactor, dialled, accepted)
        accepted.begin(ends[1])
        dialled.begin(ends[0])
        self.turn()

    def links(self, worker: int) -> dict[int, Link]:
        return self.workers[worker].siblings.links.up

    def agent(self, worker: int = 0, **more: Any) -> ReverseProxy:
        """Run an agent whose connections are all a certain worker's."""
        services: list[Service] = []
        port = BACKEND + len(self.agents)
        self.services.append(services)

        def build() -> Service:
            services.append(Service())
            return services[-1]

        self.reactor.listenTCP(port, CallableFactory(build))
        more.setdefault("kind", "http")
        agent = run(quick_agent(TUNNEL + worker, f"127.0.0.1:{port}", **more), self.reactor)
        self.agents.append(agent)
        self.turn(0.1)
        return agent

    def cluster(self, worker: int) -> Cluster:
        return self.proxies[worker].clusters.get(CLUSTER)

    def hosts(self, worker: int) -> list[Any]:
        return list(self.cluster(worker).hosts.values())

    def client(self, worker: int, data: bytes = b"") -> Any:
        client = self.reactor.dial("127.0.0.1", CLIENT + worker, Recorder())
        client.transport.write(data)
        self.turn()
        return client

    def answer_all(self) -> int:
        """Let services answer every request that has come, with its path; how many there were."""
        count = 0
        for services in self.services:
            for service in services:
                *requests, _ = service.data.split(b"\r\n\r\n")
                answered = getattr(service, "answered", 0)
                for request in requests[answered:]:
                    service.answer(request.split()[1])
                    count += 1
                service.answered = len(requests)  # type: ignore[attr-defined]
        self.turn()
        return count

    def answer_until_done(self, most: int = 1000) -> int:
        count = 0
        while more := self.answer_all():
            count += more
            assert count <= most, "there is no end of requests"
        return count

    def turn(self, seconds: float = 0.0) -> None:
        self.reactor.settle()
        self.reactor.advance(LEAST_GAP)  # which workers leave between two messages
        self.reactor.settle()
        for _ in range(round(seconds / 0.05)):
            self.reactor.advance(0.05)
