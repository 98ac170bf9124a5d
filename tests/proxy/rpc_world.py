"""
A world in memory for the tests of RPC proxies, beside that of L{tests.proxy.memory}.

Clients and hosts are L{Wire}s, which the tests play with frames of bolt.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock

from reverseproxy.cluster.balancers.factory import make_balancer
from reverseproxy.cluster.handover import Handover
from reverseproxy.cluster.host import ReverseHost, StaticHost
from reverseproxy.cluster.manager import ClusterManager
from reverseproxy.config.models import ClusterConfig, HostConfig, RouterConfig
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.proxy.access import AccessRecord
from reverseproxy.proxy.rpc.client import RpcClient
from reverseproxy.proxy.rpc.pool import RpcPool
from reverseproxy.proxy.rpc.server import RpcProxy
from reverseproxy.proxy.rpc.settings import RpcSettings
from reverseproxy.routing import Router
from reverseproxy.wire.rpc.bolt import Bolt, encode_request, encode_response
from reverseproxy.wire.rpc.xprotocol import Kind, RpcFrameDecoder, XProtocol
from tests.proxy.memory import CountingCluster, Endpoint, Wire, pass_time

ROUTES: list[dict[str, Any]] = [
    {
        "match": {"headers": [{"name": "service", "value": "direct"}]},
        "direct_response": {"status": 403, "body": "no"},
    },
    {
        "match": {"headers": [{"name": "service", "value": "moved"}]},
        "redirect": {"path_redirect": "/new"},
    },
    {
        "match": {"headers": [{"name": "service", "value": "unknown"}]},
        "route": {"cluster_name": "unknown"},
    },
    {
        "match": {"headers": [{"name": "service", "value": "quick"}]},
        "route": {"cluster_name": "c", "timeout": "2s"},
    },
    {
        "match": {"headers": [{"name": "service", "value": "again"}]},
        "route": {
            "cluster_name": "c",
            "retry_policy": {"retry_on": True, "retry_timeout": "1s", "status_codes": [503]},
        },
    },
    {
        "match": {"headers": [{"name": "service", "value": "changed"}]},
        "route": {
            "cluster_name": "c",
            "request_headers_to_add": [
                {"header": {"name": "x-from", "value": "%downstream_remote_address%"}},
                {"header": {"name": "x-what", "value": "%x-mosn-rpc-service%/%x-mosn-rpc-method%"}},
                {"header": {"name": "x-service", "value": "%x-mosn-rpc-service%"}},
                {"header": {"name": "x-method", "value": "%x-mosn-rpc-method%"}},
                {"header": {"name": "x-local", "value": "%downstream_local_address%"}},
                {"header": {"name": "x-listener", "value": "%listener_name%"}},
            ],
            "request_headers_to_remove": ["secret"],
            "response_headers_to_add": [
                {"header": {"name": "x-cluster", "value": "%upstream_cluster%"}},
                {"header": {"name": "x-host", "value": "%upstream_host%"}},
                {"header": {"name": "x-us", "value": "%upstream_local_address%"}},
                {"header": {"name": "x-nothing", "value": "%bytes_sent%"}},
            ],
        },
    },
    {
        "match": {"headers": [{"name": "service", "value": "copied"}]},
        "route": {"cluster_name": "c"},
        "request_mirror_policies": {"cluster": "copies", "percent": 100},
    },
    {
        "match": {"headers": [{"name": "service", "value": "copied nowhere"}]},
        "route": {"cluster_name": "c"},
        "request_mirror_policies": {"cluster": "unknown", "percent": 100},
    },
    {
        "match": {"headers": [{"name": "service", "value": "turned"}]},
        "route": {"cluster_name": "c", "upstream_protocol": "dubbo"},
    },
    {
        "match": {"headers": [{"name": "service", "value": "labelled"}]},
        "route": {"cluster_name": "c", "metadata_match": {"zone": "b"}},
    },
    {"match": {"headers": [{"name": "service", "value": ".*"}]}, "route": {"cluster_name": "c"}},
]


def request(number: int, service: str = "echo", content: bytes = b"", **more: Any) -> bytes:
    more.setdefault("timeout", 0)
    return encode_request(number, {"service": service} if service else {}, content, **more)


def response(number: int, content: bytes = b"", status: int = 0, **more: Any) -> bytes:
    return encode_response(number, status, content=content, **more)


class Peer:
    """What plays the other end of a wire: takes frames, and sends some."""

    def __init__(self, wire: Wire, protocol: XProtocol | None = None) -> None:
        self.wire = wire
        self._decoder = RpcFrameDecoder(protocol or Bolt())

    def send(self, *frames: bytes) -> None:
        self.wire.send(b"".join(frames))

    def frames(self) -> list[Any]:
        """What has come since the last call."""
        frames = self._decoder.feed(self.wire.take())
        assert self._decoder.error is None, self._decoder.error
        return frames

    def one(self) -> Any:
        [frame] = self.frames()
        return frame

    def answers(self) -> list[tuple[int, int]]:
        """The ids and statuses of responses."""
        frames = self.frames()
        assert all(frame.kind is Kind.RESPONSE for frame in frames), frames
        return [(frame.id, frame.status) for frame in frames]

    def echo(self) -> list[int]:
        """Answer every request with its own content; the ids."""
        frames = [frame for frame in self.frames() if frame.kind is Kind.REQUEST]
        self.send(*(response(frame.id, frame.content) for frame in frames))
        return [frame.id for frame in frames]


class World:
    """Clients in front of one proxy filter, with one cluster behind it."""

    def __init__(
        self,
        hosts: int = 0,
        *,
        cluster: dict[str, Any] | None = None,
        protocol: XProtocol | None = None,
        **settings: Any,
    ) -> None:
        self.clock = Clock()
        self.protocol = protocol or Bolt()
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
        self.records: list[AccessRecord] = []
        router = Router(
            RouterConfig.model_validate(
                {
                    "router_config_name": "r",
                    "virtual_hosts": [{"name": "all", "domains": ["*"], "routers": ROUTES}],
                }
            )
        )
        copies = ClusterConfig.model_validate({"name": "copies"})
        self.copies = CountingCluster(copies, make_balancer(copies, random.Random(1)), self.clock)
        self.copied = Endpoint(self.clock)
        self.copies.add_host(StaticHost(HostConfig(address="10.2.0.0:80"), self.copied, self.clock))  # type: ignore[arg-type]
        self.settings = RpcSettings(
            listener="test",
            protocol=self.protocol,
            router=router,
            clusters=ClusterManager([self.cluster, self.copies]),
            clock=self.clock,
            **{"access_log": self.records.append, "idle_timeout": 90.0, **settings},
        )

    @property
    def endpoint(self) -> Endpoint:
        return self.endpoints[0]

    @property
    def pool(self) -> RpcPool:
        """The pool of the first host."""
        pool = self.hosts[0].pools[self.protocol.name]
        assert isinstance(pool, RpcPool)
        return pool

    @property
    def upstream(self) -> RpcClient:
        """The connection of the first host."""
        [client] = self.pool._all
        return client

    def client(
        self, automatic: bool = True, reverse: bool = False, settings: RpcSettings | None = None
    ) -> Peer:
        """
        Connect a client.

        @param settings: of another filter in front of the same clusters.
        """
        info = ConnectionInfo(remote="10.9.9.9:1234", local="10.0.0.1:80", reverse=reverse)
        proxy = RpcProxy(settings or self.settings, info)
        return Peer(Wire(self.clock, automatic).connect(proxy), proxy.protocol)

    def host(self, number: int = -1) -> Peer:
        """A connection to the first host, the last one made by default."""
        return Peer(self.endpoint.wires[number], self.protocol)

    def agent(self, name: str = "agent:1", automatic: bool = True) -> Peer:
        """Let an agent bring a host."""
        wire = Wire(self.clock, automatic)
        owner = Handover()
        wire.connect(owner)
        host = ReverseHost(name, "", 10, None, wire, self.cluster.remove_host, clock=self.clock)
        host.attach(owner)
        self.hosts.append(host)
        self.cluster.add_host(host)
        return Peer(wire, self.protocol)

    def turn(self, seconds: float = 0.0) -> None:
        """Let the reactor run."""
        pass_time(self.clock, seconds)
        for _ in range(3):
            self.clock.advance(0)

    def run(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass in small steps, as timers set others."""
        for _ in range(round(seconds / step)):
            self.turn(step)

    def check_idle(self, fail: Callable[[str], object]) -> None:
        """Nothing is under way: every host was given back as often as it was taken."""
        if self.cluster.taken != self.cluster.given_back:
            fail(f"taken {self.cluster.taken} times, given back {self.cluster.given_back} times")
        if self.cluster.active or any(host.active for host in self.hosts):
            fail(f"still active: {self.cluster}")
        if self.cluster.waiting:
            fail(f"still waiting: {self.cluster}")
