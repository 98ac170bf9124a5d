"""Hosts that get the client's address in a PROXY protocol header; in memory."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.loader import loads
from reverseproxy.errors import ConfigError
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.proxy.client_pools import IDLE, ClientPools, header_of
from reverseproxy.testing import MemoryReactor, Recorder, run
from reverseproxy.wire.proxy_protocol import SIGNATURE
from tests.integration.configs import http_filter, quick_agent, server
from tests.transport.contract import CallableFactory

CLIENTS, HOST = 8080, 7000
GET = b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Service(Recorder):
    """Answers each request that has come."""

    answered = 0

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        while self.data.count(b"\r\n\r\n") > self.answered:
            self.answered += 1
            self.transport.write(ANSWER)

    @property
    def header(self) -> bytes:
        """The header that the connection has begun with."""
        return self.data.partition(b"\r\n")[0] + b"\r\n"


def document(
    cluster: dict[str, Any],
    proxy: dict[str, Any] | None = None,
    tcp: dict[str, Any] | None = None,
    route: dict[str, Any] | None = None,
) -> dict[str, Any]:
    each: dict[str, Any] = {
        "type": "proxy",
        "config": {"downstream_protocol": "Http1", "router_config_name": "r", **(proxy or {})},
    }
    if tcp is not None:
        each = {"type": "tcp_proxy", "config": {"cluster": "c", **tcp}}
    rule = {"match": {"prefix": "/"}, "route": {"cluster_name": "c", **(route or {})}}
    return {
        "servers": [
            {
                "default_log_path": "stdout",
                "routers": [
                    {
                        "router_config_name": "r",
                        "virtual_hosts": [{"name": "h", "domains": ["*"], "routers": [rule]}],
                    }
                ],
                "listeners": [
                    {
                        "name": "clients",
                        "address": f"127.0.0.1:{CLIENTS}",
                        "bind_port": True,
                        "filter_chains": [{"filters": [each]}],
                    }
                ],
            }
        ],
        "cluster_manager": {
            "clusters": [{"name": "c", "hosts": [{"address": f"127.0.0.1:{HOST}"}], **cluster}]
        },
    }


class World(SynchronousTestCase):
    def start(self, cluster: dict[str, Any], **more: Any) -> None:
        self.reactor = MemoryReactor()
        self.services: list[Service] = []

        def build() -> Service:
            self.services.append(Service())
            return self.services[-1]

        self.reactor.listenTCP(HOST, CallableFactory(build))
        self.service = run(document(cluster, **more), self.reactor)
        self.addCleanup(self.stop)

    def stop(self) -> None:
        self.service.stopService()
        self.turn(20)

    def turn(self, seconds: float = 0.0) -> None:
        self.reactor.settle()
        for _ in range(round(seconds * 4)):
            self.reactor.advance(0.25)
            self.reactor.settle()

    def client(self) -> Any:
        client = self.reactor.dial("127.0.0.1", CLIENTS, Recorder())
        self.turn()
        return client

    def ask(self, client: Any, headers: bytes = b"") -> None:
        before = client.data.count(b"200 OK")
        client.transport.write(GET % headers)
        self.turn()
        self.assertEqual(client.data.count(b"200 OK"), before + 1, client.data)

    def name(self, client: Any) -> bytes:
        """The header of version 1 for a client."""
        host = client.transport.getHost()
        return f"PROXY TCP4 {host.host} 127.0.0.1 {host.port} {CLIENTS}\r\n".encode()


class Http1Tests(World):
    def test_each_client_has_connections_of_its_own(self) -> None:
        self.start({"proxy_protocol": "v1"})
        one, other = self.client(), self.client()
        for _ in range(2):
            self.ask(one)
            self.ask(other)
        self.assertEqual([each.header for each in self.services], [self.name(one), self.name(other)])
        self.assertEqual([each.answered for each in self.services], [2, 2])

    def test_version_2(self) -> None:
        self.start({"proxy_protocol": "v2"})
        client = self.client()
        self.ask(client)
        (service,) = self.services
        port = client.transport.getHost().port
        ends = b"\x7f\0\0\1\x7f\0\0\1" + port.to_bytes(2, "big") + CLIENTS.to_bytes(2, "big")
        self.assertTrue(service.data.startswith(SIGNATURE + b"\x21\x11\x00\x0c" + ends + b"GET /"))

    def test_idle(self) -> None:
        """A connection whose client asks nothing more is closed soon."""
        self.start({"proxy_protocol": "v1"})
        client = self.client()
        self.ask(client)
        self.turn(IDLE - 1)
        self.assertIsNone(self.services[0].reason)
        self.turn(2)
        self.assertIsNotNone(self.services[0].reason)
        self.ask(client)
        self.assertEqual(self.services[1].header, self.name(client))

    def test_others_make_room(self) -> None:
        self.start({"proxy_protocol": "v1", "circuit_breakers": [{"max_connections": 1}]})
        one, other = self.client(), self.client()
        self.ask(one)
        self.ask(other)
        self.assertIsNotNone(self.services[0].reason)
        self.ask(one)
        self.assertEqual([each.header for each in self.services[1:]], [self.name(other), self.name(one)])

    def test_whom_a_proxy_in_front_names(self) -> None:
        """The client that it has put first; and of strangers, nobody is believed."""
        self.start({"proxy_protocol": "v1"}, proxy={"trusted_proxies": ["127.0.0.1"]})
        client = self.client()
        forwarded = b"X-Forwarded-For: %b\r\n"
        self.ask(client, forwarded % b"192.0.2.7, 10.0.0.1")
        self.ask(client, forwarded % b"192.0.2.8")
        self.ask(client, forwarded % b"2001:db8::7")
        self.ask(client, forwarded % b"somebody")
        self.ask(client)
        self.assertEqual(
            [each.header for each in self.services],
            [
                b"PROXY TCP4 192.0.2.7 127.0.0.1 0 8080\r\n",
                b"PROXY TCP4 192.0.2.8 127.0.0.1 0 8080\r\n",
                b"PROXY TCP6 2001:db8::7 :: 0 8080\r\n",
                self.name(client),
            ],
        )

    def test_strangers_are_not_believed(self) -> None:
        self.start({"proxy_protocol": "v1"})
        client = self.client()
        self.ask(client, b"X-Forwarded-For: 192.0.2.7\r\n")
        self.assertEqual(self.services[0].header, self.name(client))

    def test_a_client_leaves(self) -> None:
        self.start({"proxy_protocol": "v1"})
        client = self.client()
        self.ask(client)
        client.transport.loseConnection()
        self.turn(IDLE + 1)
        self.assertIsNotNone(self.services[0].reason)

    def test_health_checks_name_nobody(self) -> None:
        check = {
            "protocol": "Http1",
            "interval": "1s",
            "initial_delay_seconds": "1s",
            "service_name": "c",
            "check_config": {"http_check_config": {"path": "/"}},
        }
        self.start({"proxy_protocol": "v1", "health_check": check})
        self.turn(3)
        self.assertEqual(self.services[0].header, b"PROXY UNKNOWN\r\n")


class Http2Tests(World):
    def test_each_client_has_a_connection_of_its_own(self) -> None:
        self.start({"proxy_protocol": "v1"}, route={"upstream_protocol": "Http2"})
        clients = [self.client(), self.client()]
        for client in clients:
            client.transport.write(GET % b"")
            self.turn()
        self.assertEqual([each.header for each in self.services], [self.name(each) for each in clients])
        for each in self.services:
            self.assertIn(b"\r\nPRI * HTTP/2.0\r\n", each.data)

    def test_clients_that_come_at_once(self) -> None:
        """One does not take the connection away that is being made for another."""
        self.patch(Service, "dataReceived", Recorder.dataReceived)
        self.start({"proxy_protocol": "v1"}, route={"upstream_protocol": "Http2"})
        clients = [self.client() for _ in range(3)]
        for client in clients:
            client.transport.write(GET % b"")
        self.turn()
        self.assertEqual([each.header for each in self.services], [self.name(each) for each in clients])
        for each in self.services:
            self.assertIn(b"\r\nPRI * HTTP/2.0\r\n", each.data)
            self.assertIsNone(each.reason)
        self.assertEqual([client.data for client in clients], [b""] * 3)


class TcpTests(World):
    def test_by_the_cluster(self) -> None:
        self.start({"proxy_protocol": "v1"}, tcp={})
        client = self.client()
        client.transport.write(b"hello")
        self.turn()
        self.assertEqual(self.services[0].data, self.name(client) + b"hello")

    def test_once(self) -> None:
        """The filter's counts where both have one."""
        self.start({"proxy_protocol": "v2"}, tcp={"proxy_protocol": "v1"})
        client = self.client()
        client.transport.write(b"hello")
        self.turn()
        self.assertEqual(self.services[0].data, self.name(client) + b"hello")

    def test_before_tls(self) -> None:
        """The header comes first, and then the handshake."""
        tls = {"status": True, "insecure_skip": True}
        for cluster, tcp in (({"proxy_protocol": "v1"}, {}), ({}, {"proxy_protocol": "v1"})):
            self.start({"tls_context": tls, **cluster}, tcp=tcp)
            client = self.client()
            name = self.name(client)
            self.assertTrue(self.services[0].data.startswith(name + b"\x16\x03"), self.services[0].data)


class BehindAnAgentTests(World):
    def test_the_client_of_the_server(self) -> None:
        """Whom the tunnel server names, the agent names to its service."""
        self.start({})
        proxy = http_filter("client_router", extend_config={"Http1": {"x_forwarded": "replace"}})
        self.server = run(
            server(client="127.0.0.1:2000", tunnel="127.0.0.1:3000", client_filter=proxy), self.reactor
        )
        edge = quick_agent(3000, f"127.0.0.1:{HOST}")
        edge["cluster_manager"]["clusters"][0]["proxy_protocol"] = "v1"
        agent = run(edge, self.reactor)
        self.turn(2)
        clients = [self.reactor.dial("127.0.0.1", 2000, Recorder()) for _ in range(2)]
        self.turn()
        for client in clients:
            self.ask(client)
        asked = [each.header for each in self.services if each.answered]
        self.assertEqual(len(asked), 1)  # both have the same address, as far as the agent can know
        self.assertRegex(asked[0], rb"^PROXY TCP4 127\.0\.0\.1 127\.0\.0\.1 0 \d+\r\n$")
        agent.stopService()
        self.server.stopService()
        self.turn(5)


class RpcTests(SynchronousTestCase):
    def test_refused(self) -> None:
        """Requests of many clients share a connection there, which could name one of them only."""
        text = json.dumps(document({"proxy_protocol": "v1"}, proxy={"downstream_protocol": "bolt"}))
        with self.assertRaises(ConfigError) as raised:
            loads(text, "file")
        (problem,) = raised.exception.problems
        self.assertEqual(problem.path, "servers[0].routers[0].virtual_hosts[0].routers[0].route")
        self.assertIn('the cluster "c" has proxy_protocol, but requests of bolt share', problem.message)


class HeaderTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        info = ConnectionInfo("10.0.0.1:5", "[::1]:80")
        self.assertEqual(header_of("v1", info), b"PROXY UNKNOWN\r\n")
        info = ConnectionInfo("unix:", "unix:/run/x")
        self.assertEqual(header_of("v1", info), b"PROXY UNKNOWN\r\n")
        self.assertEqual(header_of("v1", info, "192.0.2.1"), b"PROXY TCP4 192.0.2.1 0.0.0.0 0 0\r\n")
        self.assertEqual(header_of("v1", info, "[2001:db8::1]"), b"PROXY TCP6 2001:db8::1 :: 0 0\r\n")


class Host:
    """Has room for some connections."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.open = 0

    def may_connect(self) -> bool:
        return self.open < self.most

    def connect_for(self, header: bytes, factory: Any) -> bytes:
        return header


class Pool:
    def __init__(self, host: Any, clock: Any, idle: Any) -> None:
        self.connections = 1
        self.busy = False
        self.drained = False
        self.dial: Any = None
        self.host = host

    def drain(self) -> None:
        self.drained = True
        self.host.open -= 1

    def make_room(self) -> None:
        if not self.busy:
            self.connections = 0
            self.host.open -= 1


class ClientPoolsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.host = Host(100)
        self.patch(
            __import__("reverseproxy.proxy.client_pools", fromlist=["make_pool"]),
            "make_pool",
            lambda protocol, *more: Pool(*more),
        )
        self.patch(__import__("reverseproxy.proxy.client_pools", fromlist=["MOST"]), "MOST", 3)
        self.pools = ClientPools("Http1", self.host, Clock(), None)  # type: ignore[arg-type]

    def of(self, name: bytes) -> Any:
        return self.pools.of(name)

    def test_no_more_than_some(self) -> None:
        """Those that have not asked for longest go."""
        first, second, _ = self.of(b"1"), self.of(b"2"), self.of(b"3")
        self.assertIs(self.of(b"1"), first)
        self.of(b"4")
        self.assertEqual((first.drained, second.drained, len(self.pools)), (False, True, 3))

    def test_those_without_a_connection_are_forgotten(self) -> None:
        first = self.of(b"1")
        first.connections = 0
        self.of(b"2")
        self.assertEqual(len(self.pools), 1)

    def test_those_that_dial_are_not_forgotten(self) -> None:
        """The client whose connection is being made waits for it."""
        first = self.of(b"1")
        first.connections, first.busy = 0, True
        self.assertIsNot(self.of(b"2"), first)
        self.assertEqual((first.drained, self.of(b"1")), (False, first))

    def test_those_in_use_are_kept(self) -> None:
        """Their connections are to be closed with the host, however many clients there are."""
        pools = [self.of(b"%d" % number) for number in range(3)]
        pools[0].busy = pools[1].busy = True
        pools += [self.of(b"3"), self.of(b"4")]
        self.assertEqual([each.drained for each in pools], [False, False, True, True, False])
        pools[4].busy = True
        pools.append(self.of(b"5"))
        self.assertEqual((len(self.pools), pools[4].drained, pools[5].drained), (4, False, False))
        for each in pools:
            each.busy = False
        self.of(b"6")
        self.assertEqual(len(self.pools), 3)

    def test_room(self) -> None:
        """Whoever is idle goes for somebody else's first connection, and nobody who is not."""
        first, second = self.of(b"1"), self.of(b"2")
        first.busy = True
        self.host.open = self.host.most = 2
        third = self.of(b"3")
        self.assertEqual([each.connections for each in (first, second, third)], [1, 0, 1])
        self.assertEqual(third.dial("factory"), b"3")
