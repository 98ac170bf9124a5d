"""
A world in memory for the tests of the HTTP/1 proxy: clients, hosts, and a clock.

The cluster, its hosts and the router are the real ones; connections are
L{Wire}s, which treat their protocol as Twisted's TCP transports do.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IHalfCloseableProtocol, IPushProducer, ITCPTransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.balancers.factory import make_balancer
from reverseproxy.cluster.handover import Handover
from reverseproxy.cluster.host import ReverseHost, StaticHost
from reverseproxy.cluster.manager import Cluster, ClusterManager
from reverseproxy.config.models import ClusterConfig, HostConfig, Http1Options, RouterConfig
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.proxy.access import AccessRecord
from reverseproxy.proxy.http.http1_pool import POOL, Http1Pool
from reverseproxy.proxy.http.http1_server import Http1Proxy
from reverseproxy.proxy.http.settings import HttpSettings
from reverseproxy.routing import Router
from reverseproxy.transport.backlog import NOTHING, Backlog

HIGH_WATER = 65536
"""Bytes beyond which a transport pauses its producer, as Twisted's do."""


def pass_time(clock: Clock, seconds: float) -> None:
    """Let time pass as in a process that is never late: each timer goes off when it is due."""
    end = clock.seconds() + seconds
    while calls := clock.getDelayedCalls():
        due = min(call.getTime() for call in calls)
        if due > end:
            break
        clock.rightNow = max(due, clock.rightNow)
        clock.advance(0)
    clock.rightNow = end
    clock.advance(0)


@implementer(ITCPTransport, IConsumer, IPushProducer)
class Wire:
    """
    One end of a connection; the test plays the other one.

    What happens to the connection takes effect when the clock moves, as in a
    reactor.

    @ivar written: everything that the protocol has written.
    @ivar most_buffered: the most that was ever written and not yet received.
    @ivar automatic: whether the peer receives everything at once.
    """

    def __init__(self, clock: Clock, automatic: bool = True) -> None:
        self._clock = clock
        self.automatic = automatic
        self.written = bytearray()
        self.received = 0
        self.most_buffered = 0
        self.protocol: Any = None
        self.producer: Any = None
        self.reading = True
        self.disconnecting = False
        self.write_closed = False  # loseWriteConnection was called
        self.write_ended = False  # and the peer has seen it
        self.aborted = False
        self.lost = False
        self.ended = False  # the peer has sent an end-of-file
        self._inbound: list[bytes] = []
        self._producer_paused = False
        self._mark = 0

    def connect(self, protocol: Any) -> Wire:
        self.protocol = protocol
        protocol.makeConnection(self)
        return self

    # what the test does

    @property
    def buffered(self) -> int:
        return len(self.written) - self.received

    def send(self, data: bytes) -> None:
        """The peer sends something."""
        if data and not self.lost:
            self._inbound.append(data)
            self._deliver()

    def backlog(self) -> Backlog:
        return Backlog(self.buffered, self.received) if self.buffered and not self.lost else NOTHING

    @property
    def unread(self) -> int:
        """Bytes that the peer has sent, and the protocol has not read."""
        return sum(map(len, self._inbound))

    def end(self) -> None:
        """The peer sends an end-of-file."""
        self.ended = True
        self._deliver()

    def reset(self, reason: Exception | None = None) -> None:
        """The connection breaks."""
        self._lose(reason or ConnectionLost())

    def receive(self, count: int | None = None) -> None:
        """The peer receives something of what was written."""
        self.received = len(self.written) if count is None else min(len(self.written), self.received + count)
        self._drained()

    def take(self) -> bytes:
        """What was written since the last call."""
        if self.automatic:
            self.receive()
        data = bytes(self.written[self._mark : self.received])
        self._mark = self.received
        return data

    def _deliver(self) -> None:
        while self._inbound and self.reading and not self.lost and not self.aborted:
            self.protocol.dataReceived(self._inbound.pop(0))
        if self.ended and not self._inbound and self.reading and not self.lost:
            self.ended = False
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.protocol.readConnectionLost()
            else:
                self._lose(ConnectionDone())

    def _drained(self) -> None:
        if self.buffered or self.lost:
            return
        if self.producer is not None and self._producer_paused:
            self._producer_paused = False
            self.producer.resumeProducing()
        elif self.disconnecting:
            self._clock.callLater(0, self._close_if_drained)
        elif self.write_closed and not self.write_ended:
            self.write_ended = True
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.protocol.writeConnectionLost()

    def _close_if_drained(self) -> None:
        if not self.buffered and not self._producer_paused:
            self._lose(ConnectionDone())

    def _lose(self, reason: Exception) -> None:
        if not self.lost:
            self.lost = True
            self._inbound.clear()
            self.protocol.connectionLost(Failure(reason))

    # ITransport, IConsumer, IPushProducer

    def write(self, data: bytes) -> None:
        assert type(data) is bytes
        if self.lost or self.aborted or self.write_closed:
            return
        self.written += data
        self.most_buffered = max(self.most_buffered, self.buffered)
        if self.automatic:
            self.received = len(self.written)
        elif self.buffered > HIGH_WATER and self.producer is not None and not self._producer_paused:
            self._producer_paused = True
            self.producer.pauseProducing()

    def writeSequence(self, data: list[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        if not self.disconnecting:
            self.disconnecting = True
            self.reading = False
            self._drained()

    def loseWriteConnection(self) -> None:
        self.write_closed = True
        self._clock.callLater(0, self._drained)

    def abortConnection(self) -> None:
        if not self.aborted:
            self.aborted = True
            self._clock.callLater(0, self._lose, ConnectionAborted())

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert self.producer is None, "two producers"
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None
        self._producer_paused = False
        self._drained()

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        if not self.disconnecting and not self.lost:
            self.reading = True
            # The reactor would come back to us.
            self._clock.callLater(0, self._deliver)

    def stopProducing(self) -> None:
        self.loseConnection()

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "10.0.0.9", 9)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "10.0.0.1", 1)

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled


class Dial:
    """A connection that a static host is asked to make."""

    def __init__(self, endpoint: Endpoint, factory: Any) -> None:
        self.cancelled = False
        self.deferred: Deferred[Any] = Deferred(self._cancel)
        self._endpoint = endpoint
        self._factory = factory

    def _cancel(self, deferred: Deferred[Any]) -> None:
        self.cancelled = True

    def succeed(self) -> Wire:
        endpoint = self._endpoint
        wire = Wire(endpoint.clock, endpoint.automatic)
        endpoint.wires.append(wire)
        wire.connect(self._factory.buildProtocol(None))
        self.deferred.callback(wire.protocol)
        return wire

    def fail(self, reason: Exception) -> None:
        self.deferred.errback(Failure(reason))


class Endpoint:
    """
    Where a static host dials.

    @ivar answer: what becomes of a dial at once: C{"connect"}, C{"wait"} for
        the test, or an exception.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.answer: str | Exception = "connect"
        self.automatic = True
        self.dials: list[Dial] = []
        self.wires: list[Wire] = []

    def connect(self, factory: Any) -> Deferred[Any]:
        dial = Dial(self, factory)
        self.dials.append(dial)
        if self.answer == "connect":
            dial.succeed()
        elif isinstance(self.answer, Exception):
            dial.fail(self.answer)
        return dial.deferred


ROUTES: list[dict[str, Any]] = [
    {"match": {"path": "/direct"}, "direct_response": {"status": 418, "body": "short and stout"}},
    {"match": {"path": "/empty"}, "direct_response": {"status": 204, "body": ""}},
    {"match": {"path": "/moved"}, "redirect": {"path_redirect": "/new", "response_code": 302}},
    {"match": {"prefix": "/nowhere"}, "route": {"cluster_name": "unknown"}},
    {"match": {"prefix": "/forever"}, "route": {"cluster_name": "c", "timeout": "-1s"}},
    {"match": {"prefix": "/quick"}, "route": {"cluster_name": "c", "timeout": "2s"}},
    {"match": {"path": "*"}, "route": {"cluster_name": "c"}},
    {"match": {"prefix": "/"}, "route": {"cluster_name": "c"}},
]


class CountingCluster(Cluster):
    """Notes what was taken and given back."""

    taken = 0
    given_back = 0

    def take(self, host: Any) -> None:
        self.taken += 1
        super().take(host)

    def release(self, host: Any) -> None:
        self.given_back += 1
        super().release(host)


class World:
    """Clients in front of one proxy filter, with one cluster behind it."""

    def __init__(
        self,
        hosts: int = 1,
        *,
        cluster: dict[str, Any] | None = None,
        routes: list[dict[str, Any]] | None = None,
        mirrors: int = 0,
        router: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        """
        @param mirrors: hosts of a second cluster, C{mirror}, behind those of the first.
        @param router: other keys of the router's configuration.
        """
        self.clock = Clock()
        config = ClusterConfig.model_validate({"name": "c", "lb_type": "LB_ROUNDROBIN", **(cluster or {})})
        self.cluster = CountingCluster(
            config, make_balancer(config, random.Random(1), self.clock), self.clock
        )
        self.endpoints: list[Endpoint] = []
        self.hosts: list[Any] = []
        for number in range(hosts):
            endpoint = Endpoint(self.clock)
            host = StaticHost(HostConfig(address=f"10.1.0.{number}:80"), endpoint, self.clock)  # type: ignore[arg-type]
            self.endpoints.append(endpoint)
            self.hosts.append(host)
            self.cluster.add_host(host)
        mirror = ClusterConfig(name="mirror")
        self.mirror = CountingCluster(mirror, make_balancer(mirror, random.Random(1)), self.clock)
        for number in range(mirrors):
            endpoint = Endpoint(self.clock)
            host = StaticHost(HostConfig(address=f"10.2.0.{number}:80"), endpoint, self.clock)  # type: ignore[arg-type]
            self.endpoints.append(endpoint)
            self.mirror.add_host(host)
        self.records: list[AccessRecord] = []
        table = Router(
            RouterConfig.model_validate(
                {
                    "router_config_name": "r",
                    "virtual_hosts": [
                        {"name": "none", "domains": ["nobody"], "routers": []},
                        {"name": "all", "domains": ["*"], "routers": ROUTES if routes is None else routes},
                    ],
                    **(router or {}),
                }
            )
        )
        options = Http1Options(**settings.pop("options", {}))
        self.settings = HttpSettings(
            listener="test",
            router=table,
            clusters=ClusterManager([self.cluster, self.mirror]),
            clock=self.clock,
            options=options,
            **{
                "access_log": self.records.append,
                "idle_timeout": 90.0,
                "error_details": True,  # so that tests see the reasons
                **settings,
            },
        )
        self.clients: list[Wire] = []

    @property
    def endpoint(self) -> Endpoint:
        return self.endpoints[0]

    @property
    def pool(self) -> Http1Pool:
        """The pool of the first host."""
        pool = self.hosts[0].pools[POOL]
        assert isinstance(pool, Http1Pool)
        return pool

    def client(self, automatic: bool = True, reverse: bool = False, **info: Any) -> Wire:
        """Connect a client."""
        where = {"remote": "10.9.9.9:1234", "local": "10.0.0.1:80", "reverse": reverse, **info}
        wire = Wire(self.clock, automatic)
        self.clients.append(wire)
        return wire.connect(Http1Proxy(self.settings, ConnectionInfo(**where)))

    def host(self, number: int = -1) -> Wire:
        """A connection to the first host, the last one made by default."""
        return self.endpoint.wires[number]

    def agent(self, name: str = "agent:1", automatic: bool = True) -> Wire:
        """Let an agent bring a host."""
        wire = Wire(self.clock, automatic)
        owner = Handover()
        wire.connect(owner)
        host = ReverseHost(name, "", 10, None, wire, self.cluster.remove_host, clock=self.clock)
        host.attach(owner)
        self.hosts.append(host)
        self.cluster.add_host(host)
        return wire

    def turn(self, seconds: float = 0.0) -> None:
        """Let the reactor run, punctually."""
        pass_time(self.clock, seconds)
        for _ in range(3):
            self.clock.advance(0)

    def run(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass in small steps, as timers set others."""
        for _ in range(round(seconds / step)):
            self.turn(step)

    def check_idle(self, fail: Callable[[str], object]) -> None:
        """Nothing is under way: every host was given back as often as it was taken."""
        for cluster in (self.cluster, self.mirror):
            if cluster.taken != cluster.given_back:
                fail(f"{cluster} taken {cluster.taken} times, given back {cluster.given_back} times")
            if cluster.retries:
                fail(f"{cluster} counts {cluster.retries} retries still")
        if self.cluster.active or any(host.active for host in self.hosts):
            fail(f"still active: {self.cluster}")
        if self.cluster.waiting:
            fail(f"still waiting: {self.cluster}")
