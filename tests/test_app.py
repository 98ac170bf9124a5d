"""Tests for L{reverseproxy.app}."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.error import CannotListenError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from reverseproxy.addresses import split_host_port
from reverseproxy.app import ReverseProxy
from reverseproxy.config.models import RouterConfig, VirtualHostConfig
from reverseproxy.errors import ConfigError
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.listener import Listener
from reverseproxy.proxy.http.http1_server import Http1Proxy
from reverseproxy.proxy.idle import SESSION_IDLE
from reverseproxy.proxy.protocols import IDLE_TIMEOUT
from reverseproxy.proxy.tcp.sessions import TcpProxy
from reverseproxy.tls import ClientTls, client_endpoint
from reverseproxy.tls.reload import RELOAD_INTERVAL
from reverseproxy.wire.mosn.frames import ConnectionInit, encode
from tests.certs import Certificates
from tests.config.documents import (
    AGENT,
    CHAIN,
    CLUSTER,
    CONFIG,
    FILTER,
    GONE,
    LISTENER,
    ROUTER,
    RULE,
    TUNNEL_SERVER,
    edited,
    parse,
)
from tests.streams import reactor
from tests.tunnel.logged import capture

TUNNEL = "servers[0].listeners[1]"
ACCEPTED = ConnectionInfo("10.9.9.9:1234", "10.0.0.1:80")
REVERSE = ConnectionInfo("10.9.9.9:1234", "10.0.0.1:80", reverse=True)


def build(document: Any, clock: Any = None, file: str = "c.json") -> ReverseProxy:
    return ReverseProxy(parse(document).config, clock or MemoryReactorClock(), Random(1), file)


class BuildTests(SynchronousTestCase):
    def test_a_tunnel_server(self) -> None:
        app = build(TUNNEL_SERVER)
        self.assertEqual(list(app.listeners), ["clients", "agents"])
        self.assertEqual([cluster.name for cluster in app.clusters], ["edge"])
        self.assertEqual((app.agents, app.warnings), ([], []))
        self.assertIsInstance(app.listeners["clients"].build_protocol(ACCEPTED), Http1Proxy)

    def test_an_agent(self) -> None:
        app = build(AGENT)
        [agent] = app.agents
        self.assertIs(agent.plan.sink, app.listeners["hosted"])
        self.assertEqual(len(agent.plan.agent_id), 32)
        [cluster] = app.clusters
        self.assertEqual(list(cluster.hosts), ["127.0.0.1:8080"])
        self.assertIsInstance(app.listeners["hosted"].build_protocol(REVERSE), TcpProxy)

    def test_agents_that_are_not_enabled_are_left_out(self) -> None:
        second = {"type": "tunnel_agent", "config": {**AGENT["extends"][0]["config"], "connection_num": 7}}
        app = build(edited(AGENT, (f"{CONFIG}.enable", False), ("extends[1]", second)))
        self.assertEqual([agent.plan.config.connection_num for agent in app.agents], [7])

    def test_every_agent_has_a_name_of_its_own(self) -> None:
        app = build(edited(AGENT, ("extends[1]", AGENT["extends"][0])))
        self.assertEqual(len({agent.plan.agent_id for agent in app.agents}), 2)

    def test_nothing_is_bound_or_dialled(self) -> None:
        clock = MemoryReactorClock()
        build(TUNNEL_SERVER, clock)
        build(AGENT, clock)
        self.assertEqual((clock.tcpServers, clock.tcpClients, clock.getDelayedCalls()), ([], [], []))

    def test_a_router_in_a_connection_manager(self) -> None:
        router = TUNNEL_SERVER["servers"][0]["routers"][0]
        app = build(
            edited(
                TUNNEL_SERVER,
                ("servers[0].routers", []),
                (f"{CHAIN}.filters[1]", {"type": "connection_manager", "config": router}),
            )
        )
        self.assertIsInstance(app.listeners["clients"].build_protocol(ACCEPTED), Http1Proxy)

    def answer(self, app: ReverseProxy, target: str = "/") -> bytes:
        """Send a request to the clients' listener, and return the first line of the answer."""
        protocol = app.listeners["clients"].build_protocol(ACCEPTED)
        transport = StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        return transport.value().partition(b"\r\n")[0]

    def test_a_router_that_there_is_not(self) -> None:
        """Every request is answered with 404, as in MOSN, rather than left to the filter behind."""
        for name in ("other", GONE):
            app = build(
                edited(
                    TUNNEL_SERVER,
                    (f"{FILTER}.config.router_config_name", name),
                    (f"{CHAIN}.filters[1]", {"type": "tcp_proxy", "config": {"cluster": "edge"}}),
                )
            )
            self.assertEqual(self.answer(app), b"HTTP/1.1 404 Not Found")

    def test_filters_of_requests(self) -> None:
        """A listener's requests go through its filters."""
        for addresses, status in ((["10.9.9.9"], b"403"), (["10.9.9.8"], b"202")):
            filters = [{"type": "ip_access", "config": {"ips": [{"action": "deny", "addrs": addresses}]}}]
            app = build(
                edited(
                    TUNNEL_SERVER,
                    (f"{RULE}.route", GONE),
                    (f"{RULE}.direct_response", {"status": 202}),
                    (f"{LISTENER}.stream_filters", filters),
                )
            )
            self.assertIn(status, self.answer(app))

    def test_the_servers_router_counts(self) -> None:
        """It does so beside one of the same name in a filter, as in MOSN."""
        other = {
            "router_config_name": "web",
            "virtual_hosts": [{"domains": ["*"], "routers": [{"direct_response": {"status": 201}}]}],
        }
        answered = edited(
            TUNNEL_SERVER, (f"{RULE}.route", GONE), (f"{RULE}.direct_response", {"status": 202})
        )
        for routers, status in ((answered["servers"][0]["routers"], b"202"), ([], b"201")):
            app = build(
                edited(
                    TUNNEL_SERVER,
                    ("servers[0].routers", routers),
                    (f"{CHAIN}.filters[1]", {"type": "connection_manager", "config": other}),
                )
            )
            self.assertIn(status, self.answer(app))

    def test_an_agent_with_the_policy_of_the_sample(self) -> None:
        """A tunnel filter without options takes MOSN's sample as MOSN does, and says that this is nothing."""
        app = build(TUNNEL_SERVER)
        for policy, credential, status in (
            ("test", "prefix__edge", 1),
            ("test", "edge", 2),
            ("static", "edge", 3),
            ("unknown", "edge", 3),
            ("", "", 1),
        ):
            protocol = app.listeners["agents"].build_protocol(ACCEPTED)
            transport = StringTransport()
            transport.registerProducer(
                transport, True
            )  # as TLS has, which stands in for a real transport here
            protocol.makeConnection(transport)
            with capture() as events:
                protocol.dataReceived(
                    encode(ConnectionInit("edge", credential_policy=policy, credential=credential))
                )
            self.assertIn(f'{{"status":{status}}}'.encode(), transport.value())
            self.assertEqual("accepts every agent" in events.text(), credential == "prefix__edge")

    def test_a_demanded_policy_is_not_evaded_with_the_samples(self) -> None:
        tokens = {"tokens": [{"agent": "a", "token": "secret"}]}
        config = {"credential_policy": "static", "validators": {"static": tokens}}
        app = build(edited(TUNNEL_SERVER, (f"{TUNNEL}.filter_chains[0].filters[0].config", config)))
        protocol = app.listeners["agents"].build_protocol(ACCEPTED)
        transport = StringTransport()
        transport.registerProducer(transport, True)
        protocol.makeConnection(transport)
        protocol.dataReceived(
            encode(ConnectionInit("edge", credential_policy="test", credential="prefix__edge"))
        )
        self.assertIn(b'{"status":3}', transport.value())

    def test_a_filter_that_does_not_serve_is_passed_over(self) -> None:
        app = build(edited(AGENT, (f"{CHAIN}.filters", [{"type": "fault_inject"}, *_filters(AGENT)])))
        self.assertIsInstance(app.listeners["hosted"].build_protocol(ACCEPTED), TcpProxy)
        app = build(edited(AGENT, (f"{CHAIN}.filters", [])))
        self.assertNotIsInstance(app.listeners["hosted"].build_protocol(ACCEPTED), TcpProxy)


def _filters(document: Any) -> list[Any]:
    filters: list[Any] = document["servers"][0]["listeners"][0]["filter_chains"][0]["filters"]
    return filters


class IdleTimeoutTests(SynchronousTestCase):
    def timeouts(self, listener: Any = GONE, tcp: Any = None) -> tuple[float | None, float | None]:
        """How long an accepted and a reverse connection may be idle."""
        changes = [] if listener is GONE else [(f"{LISTENER}.connection_idle_timeout", listener)]
        if tcp is None:
            app = build(edited(TUNNEL_SERVER, *changes))
            found = [app.listeners["clients"].build_protocol(info) for info in (ACCEPTED, REVERSE)]
            timeouts = [protocol.settings.idle_timeout for protocol in found]  # type: ignore[attr-defined]
        else:
            if tcp is not GONE:
                changes.append((f"{FILTER}.config.idle_timeout", tcp))
            app = build(edited(AGENT, *changes))
            found = [app.listeners["hosted"].build_protocol(info) for info in (ACCEPTED, REVERSE)]
            timeouts = [protocol._settings.session_idle for protocol in found]  # type: ignore[attr-defined]
        return timeouts[0], timeouts[1]

    def test_http(self) -> None:
        self.assertEqual(self.timeouts(), (IDLE_TIMEOUT, None))
        self.assertEqual(self.timeouts(0), (None, None))
        self.assertEqual(self.timeouts("0s"), (None, None))
        self.assertEqual(self.timeouts("7s"), (7, 7))

    def test_tcp(self) -> None:
        self.assertEqual(self.timeouts(tcp=GONE), (SESSION_IDLE, SESSION_IDLE))
        self.assertEqual(self.timeouts(0, tcp=GONE), (None, None))
        self.assertEqual(self.timeouts("7s", tcp=GONE), (7, 7))
        self.assertEqual(self.timeouts("7s", tcp=5_000_000_000), (5, 5))
        self.assertEqual(self.timeouts(0, tcp="5s"), (5, 5))
        self.assertEqual(self.timeouts("7s", tcp=0), (None, None))


class ProblemTests(SynchronousTestCase):
    """Everything that only building shows is reported at once, each with its place in the document."""

    def setUp(self) -> None:
        self.certs = Certificates(self.mktemp())
        # Each file is one, but they do not belong together.
        self.mismatched = {
            "status": True,
            "cert_chain": self.certs.server.chain,
            "private_key": self.certs.client.key,
        }
        self.broken = Path(self.certs.ca).with_name("broken.pem")
        self.broken.write_text("-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n")
        self.wrong_ca = {"status": True, "ca_cert": str(self.broken)}

    def problems(self, document: Any, *changes: tuple[str, Any]) -> dict[str, str]:
        """What is wrong with a document, by its place."""
        error = self.assertRaises(ConfigError, build, edited(document, *changes), file="the.json")
        # What is wrong in another file is at a place in that.
        files = {"the.json": ""}
        found = {files.get(each.file, each.file) + each.path: each.message for each in error.problems}
        self.assertEqual(len(found), len(error.problems), error)
        return found

    def test_the_certificate_of_a_listener(self) -> None:
        found = self.problems(TUNNEL_SERVER, (f"{CHAIN}.tls_context", self.mismatched))
        self.assertEqual(list(found), [f"{CHAIN}.tls_context.cert_chain"])

    def test_one_certificate_of_several(self) -> None:
        contexts = [{"status": True, **self.certs.server.options}, self.mismatched]
        found = self.problems(TUNNEL_SERVER, (f"{CHAIN}.tls_context_set", contexts))
        self.assertEqual(list(found), [f"{CHAIN}.tls_context_set[1].cert_chain"])

    def test_two_certificates_of_the_same_names(self) -> None:
        contexts = [{"status": True, **self.certs.server.options}] * 2
        app = build(edited(TUNNEL_SERVER, (f"{CHAIN}.tls_context_set", contexts)))
        [warning] = app.warnings
        self.assertEqual(warning.path, f"{CHAIN}.tls_context_set[1]")
        self.assertIn(f"get {CHAIN}.tls_context_set[0], which has the same name", warning.message)

    def test_the_authorities_of_a_cluster_once_for_all_its_hosts(self) -> None:
        hosts = [{"address": f"127.0.0.1:{port}"} for port in (8080, 8081)]
        found = self.problems(AGENT, (f"{CLUSTER}.hosts", hosts), (f"{CLUSTER}.tls_context", self.wrong_ca))
        self.assertEqual(list(found), [f"{CLUSTER}.tls_context.ca_cert"])

    def test_the_authorities_that_clusters_share(self) -> None:
        found = self.problems(
            AGENT,
            ("cluster_manager.tls_context", self.wrong_ca),
            (f"{CLUSTER}.cluster_manager_tls", True),
        )
        self.assertEqual(list(found), ["cluster_manager.tls_context.ca_cert"])

    def test_the_authorities_of_an_agent_once_for_all_its_servers(self) -> None:
        servers = ["127.0.0.1:9999", "127.0.0.2:9999"]
        found = self.problems(
            AGENT, (f"{CONFIG}.server_list", servers), (f"{CONFIG}.tls_context", self.wrong_ca)
        )
        self.assertEqual(list(found), [f"{CONFIG}.tls_context.ca_cert"])

    def test_the_authorities_of_an_agent_that_has_yet_to_learn_of_its_servers(self) -> None:
        lister = {"dynamic_server_lister": "file", "config": {"path": "servers.txt"}}
        found = self.problems(
            AGENT,
            (f"{CONFIG}.server_list", []),
            (f"{CONFIG}.dynamic_server_list_config", lister),
            (f"{CONFIG}.tls_context", self.wrong_ca),
        )
        self.assertEqual(list(found), [f"{CONFIG}.tls_context.ca_cert"])

    def test_plug_ins(self) -> None:
        found = self.problems(
            AGENT,
            (f"{CONFIG}.credential_policy", "nobody-knows"),
            (f"{CONFIG}.dynamic_server_list_config", {"dynamic_server_lister": "nobody-knows"}),
            (f"{CONFIG}.metadata", {"k" * 1000: "v"}),
        )
        self.assertEqual(
            list(found),
            [
                f"{CONFIG}.credential_policy",
                f"{CONFIG}.metadata",
                f"{CONFIG}.dynamic_server_list_config.dynamic_server_lister",
            ],
        )
        self.assertIn("there is no credential policy 'nobody-knows'", found[f"{CONFIG}.credential_policy"])
        self.assertIn("a metadata key must have", found[f"{CONFIG}.metadata"])

    def test_the_admin_api(self) -> None:
        """Its tokens and its certificates are looked at, whatever is wrong with the others."""
        admin = {
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
            "tokens_file": str(self.broken),
            "tls_context": self.mismatched,
        }
        found = self.problems(TUNNEL_SERVER, ("admin", admin))
        self.assertEqual(set(found), {str(self.broken), "admin.tls_context.cert_chain"})

    def test_the_policies_of_a_tunnel(self) -> None:
        found = self.problems(
            TUNNEL_SERVER,
            (
                f"{TUNNEL}.filter_chains[0].filters[0].config",
                {
                    "credential_policy": "nobody-knows",
                    "cluster_credential_policies": {"edge": "another"},
                    "validators": {"third": {}, "static": {"tokens": 7}},
                },
            ),
        )
        config = f"{TUNNEL}.filter_chains[0].filters[0].config"
        self.assertEqual(
            sorted(found),
            [
                f"{config}.cluster_credential_policies.edge",
                f"{config}.credential_policy",
                f"{config}.validators.static.tokens",
                f"{config}.validators.third",
            ],
        )

    def test_access_logs(self) -> None:
        path = str(self.broken / "access.log")
        good = Path(self.mktemp())
        found = self.problems(
            TUNNEL_SERVER,
            (f"{LISTENER}.access_logs", [{"log_path": str(good)}, {"log_path": path}, {"log_path": path}]),
            (f"{TUNNEL}.access_logs", [{"log_path": path, "log_format": "json"}]),
        )
        self.assertEqual(
            list(found),
            [
                f"{LISTENER}.access_logs[1].log_path",
                f"{LISTENER}.access_logs[2].log_path",
                f"{TUNNEL}.access_logs[0].log_path",
            ],
        )
        self.assertIn("can't be opened", found[f"{LISTENER}.access_logs[1].log_path"])

    def test_a_router_and_everything_else(self) -> None:
        # Which the loader would have refused.
        router = RouterConfig(
            router_config_name="web", virtual_hosts=(VirtualHostConfig(domains=("a", "a")),)
        )
        config = parse(edited(TUNNEL_SERVER, (f"{CHAIN}.tls_context", self.mismatched))).config
        server = config.server.model_copy(update={"routers": (router,)})
        config = config.model_copy(update={"servers": (server,)})
        error = self.assertRaises(ConfigError, ReverseProxy, config, MemoryReactorClock(), Random(1))
        self.assertEqual(
            [problem.path for problem in error.problems],
            [f"{ROUTER}.virtual_hosts[0].domains[1]", f"{CHAIN}.tls_context.cert_chain"],
        )

    def test_warnings(self) -> None:
        logs = [{"log_path": self.mktemp(), "log_format": "%nobody_knows%"}]
        app = build(edited(TUNNEL_SERVER, (f"{LISTENER}.access_logs", logs)), file="the.json")
        self.addCleanup(app._close_access_logs)
        [warning] = app.warnings
        self.assertEqual((warning.file, warning.path), ("the.json", f"{LISTENER}.access_logs[0].log_format"))
        self.assertIn("%nobody_knows%", warning.message)


class Ends:
    """When the parts of an application are told to end, and when they have ended."""

    def __init__(self, app: ReverseProxy) -> None:
        self.events: list[str] = []
        self.pending: dict[str, Deferred[None]] = {}
        for name, listener in app.listeners.items():
            self.watch(listener, "drain", f"drain {name}")
            self.watch(listener, "stopService", f"stop {name}", at_once=True)
        for agent in app.agents:
            self.watch(agent, "drain", "drain agent")
            self.watch(agent, "stopService", "stop agent", at_once=True)
        closing = app.clusters.close
        app.clusters.close = lambda reason: self.events.append("close clusters") or closing(reason)  # type: ignore[func-returns-value, method-assign]

    def watch(self, part: Any, method: str, event: str, at_once: bool = False) -> None:
        def called(*_: object) -> Deferred[None]:
            self.events.append(event)
            if at_once:
                return succeed(None)
            self.pending[event] = Deferred()
            return self.pending[event]

        setattr(part, method, called)

    def finish(self, event: str) -> None:
        self.pending.pop(event).callback(None)


class StartTests(SynchronousTestCase):
    """Ports are bound with privileges if there are any, and else when the service starts."""

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.app = build(TUNNEL_SERVER, self.clock)

    def bound(self) -> list[int]:
        return [server[0] for server in self.clock.tcpServers]

    def test_with_privileges(self) -> None:
        self.app.privilegedStartService()
        self.assertEqual(len(self.bound()), 2)
        self.assertFalse(self.app.running)
        self.app.startService()
        self.assertEqual(len(self.bound()), 2)
        self.assertTrue(self.app.running)

    def test_without(self) -> None:
        self.app.startService()
        self.assertEqual(len(self.bound()), 2)
        self.assertTrue(all(each.bound for each in self.app.listeners.values()))
        self.assertTrue(self.app.running)

    def test_of_a_parent(self) -> None:
        parent = MultiService()  # type: ignore[no-untyped-call]
        self.app.setServiceParent(parent)
        parent.startService()
        self.assertEqual(len(self.bound()), 2)
        # One that comes later is started with privileges at once.
        later = build(TUNNEL_SERVER, self.clock)
        later.setServiceParent(parent)
        self.assertEqual(len(self.bound()), 4)

    def test_an_address_that_can_t_be_bound(self) -> None:
        def refuse(*_: object) -> None:
            raise CannotListenError("127.0.0.1", 1, OSError(errno.EADDRINUSE, "taken"))

        for start in (self.app.startService, self.app.privilegedStartService):
            self.patch(self.clock, "listenTCP", refuse)
            error = self.assertRaises(ConfigError, start)
            self.assertEqual(len(error.problems), 2)
            self.assertFalse(self.app.running)
        self.successResultOf(self.app.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_again(self) -> None:
        self.app.startService()
        self.successResultOf(self.app.stopService())
        self.assertRaises(RuntimeError, self.app.startService)
        self.assertEqual(len(self.bound()), 2)

    def test_stopping_what_was_never_started(self) -> None:
        self.successResultOf(self.app.stopService())


class StopTests(SynchronousTestCase):
    def test_a_tunnel_server_lets_its_clients_finish_before_it_lets_go_of_its_agents(self) -> None:
        document = edited(
            TUNNEL_SERVER,
            ("extends", AGENT["extends"]),
            (f"{CONFIG}.hosting_listener", "hosted"),
            ("servers[0].listeners[2]", AGENT["servers"][0]["listeners"][0]),
            ("cluster_manager.clusters[1]", AGENT["cluster_manager"]["clusters"][0]),
        )
        app = build(document)
        ends = Ends(app)
        app.startService()
        stopped = app.stopService()
        self.assertEqual(ends.events, ["drain clients", "drain hosted"])
        ends.finish("drain hosted")
        self.assertEqual(len(ends.events), 2)
        ends.finish("drain clients")
        self.assertEqual(ends.events[2:], ["drain agent"])
        self.assertNoResult(stopped)
        ends.finish("drain agent")
        self.assertEqual(ends.events[3:], ["stop agent", "drain agents"])
        self.assertNoResult(stopped)
        ends.finish("drain agents")
        self.successResultOf(stopped)
        self.assertEqual(
            ends.events[5:],
            ["stop clients", "stop agents", "stop hosted", "close clusters"],
        )

    def test_without_a_tunnel_server_agents_go_at_the_same_time(self) -> None:
        app = build(AGENT)
        ends = Ends(app)
        stopped = app.stopService()
        self.assertEqual(ends.events, ["drain hosted", "drain agent"])
        ends.finish("drain agent")
        self.assertNoResult(stopped)
        ends.finish("drain hosted")
        self.successResultOf(stopped)
        self.assertEqual(ends.events[2:], ["stop agent", "stop hosted", "close clusters"])

    def test_a_part_that_fails_to_end_keeps_nothing_else_from_it(self) -> None:
        app = build(TUNNEL_SERVER)
        ends = Ends(app)
        stopped = app.stopService()
        ends.pending.pop("drain clients").errback(Failure(ZeroDivisionError()))
        ends.pending.pop("drain agents").errback(Failure(ZeroDivisionError()))
        self.successResultOf(stopped)
        self.assertEqual(ends.events[-1], "close clusters")

    def test_nothing_is_left(self) -> None:
        clock = MemoryReactorClock()
        app = build(edited(TUNNEL_SERVER, ("servers[0].graceful_timeout", "3s")), clock)
        app.privilegedStartService()
        self.assertEqual([port for port, *_ in clock.tcpServers], [2045, 9999])
        app.startService()
        self.assertEqual(len(clock.getDelayedCalls()), 3)  # for certificates, revocations and dead peers
        with capture() as events:
            self.successResultOf(app.stopService())
        self.assertIn("stopping: requests under way may take up to 3 s\n", events.text())
        self.assertEqual(clock.getDelayedCalls(), [])


class Got(Protocol):
    """A client that collects an answer."""

    transport: Any

    def __init__(self) -> None:
        self.data = b""
        self.closed: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed.callback(None)


class Service(Protocol):
    """A service that answers when the test wants it."""

    transport: Any

    def __init__(self) -> None:
        self.data = b""

    def dataReceived(self, data: bytes) -> None:
        self.data += data


DIRECT = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": "here"}}


class RunningTests(TestCase):
    """Applications with real sockets."""

    def start(self, document: Any) -> ReverseProxy:
        app = build(document, reactor)
        app.privilegedStartService()
        app.startService()
        self.addCleanup(self.end, app)
        return app

    async def end(self, app: ReverseProxy) -> None:
        if app.running:
            await app.stopService()

    async def until(self, true: Callable[[], object]) -> None:
        """Wait for the reactor to bring something about; trial's timeout is the deadline."""
        while not true():
            await deferLater(reactor, 0.001)

    async def connect(self, listener: Listener, tls: ClientTls | None = None) -> Got:
        host, port = split_host_port(listener.bound or "")
        endpoint = TCP4ClientEndpoint(reactor, host, port)
        client = await connectProtocol(endpoint if tls is None else client_endpoint(endpoint, tls), Got())
        self.addCleanup(self.hang_up, client)
        return client

    async def hang_up(self, client: Got) -> None:
        if not client.closed.called:
            client.transport.abortConnection()
            await client.closed

    async def get(self, listener: Listener, tls: ClientTls | None = None) -> bytes:
        """Ask an HTTP listener, on a connection of its own."""
        client = await self.connect(listener, tls)
        client.transport.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await client.closed
        return client.data.rpartition(b"\r\n\r\n")[2]

    def server(self, *changes: tuple[str, Any]) -> ReverseProxy:
        return self.start(
            edited(
                TUNNEL_SERVER,
                (f"{LISTENER}.address", "127.0.0.1:0"),
                (f"{TUNNEL}.address", "127.0.0.1:0"),
                *changes,
            )
        )

    async def test_through_the_tunnel_to_the_end(self) -> None:
        services: list[Service] = []

        class Services(Factory):
            noisy = False

            def buildProtocol(self, addr: object) -> Service:
                services.append(Service())
                return services[-1]

        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Services())
        self.addCleanup(port.stopListening)
        server = self.server()
        agent = self.start(
            edited(
                AGENT,
                (f"{CONFIG}.server_list", [server.listeners["agents"].bound]),
                (f"{CLUSTER}.hosts[0].address", f"127.0.0.1:{port.getHost().port}"),
            )
        )
        [cluster] = server.clusters
        await self.until(lambda: cluster.hosts)
        answer = Deferred.fromCoroutine(self.get(server.listeners["clients"]))
        await self.until(lambda: services and services[0].data.startswith(b"GET / HTTP/1.1\r\n"))
        # Both are told to stop while a request is under way.
        ends = [server.stopService(), agent.stopService()]
        with self.assertRaises(Refused):
            await self.connect(server.listeners["clients"])
        self.assertFalse(answer.called)
        services[0].transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer")
        self.assertEqual(await answer, b"answer")
        for each in ends:
            await each

    async def test_all_addresses_that_can_t_be_bound_are_reported_together(self) -> None:
        with contextlib.ExitStack() as stack:
            ports = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
            numbers = [each.getsockname()[1] for each in ports]
            taken = [f"127.0.0.1:{number}" for number in numbers]
            admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": numbers[2]}}}
            etcd = {"endpoints": ["127.0.0.1:1"]}
            third = edited(TUNNEL_SERVER, (f"{LISTENER}.name", "third"))["servers"][0]["listeners"][0]
            app = build(
                edited(
                    TUNNEL_SERVER,
                    (f"{LISTENER}.address", taken[0]),
                    (f"{TUNNEL}.address", taken[1]),
                    ("servers[0].listeners[2]", {**third, "address": "127.0.0.1:0"}),
                    ("admin", admin),
                    ("fleet", {"server_id": "a", "peers": {"address": taken[3]}, "etcd": etcd}),
                ),
                reactor,
                file="the.json",
            )
            self.addCleanup(app.stopService)
            with self.assertRaises(ConfigError) as caught:
                app.privilegedStartService()
        self.assertEqual(
            [(problem.file, problem.path) for problem in caught.exception.problems],
            [
                ("the.json", f"{LISTENER}.address"),
                ("the.json", f"{TUNNEL}.address"),
                ("the.json", "fleet.peers.address"),
                ("the.json", "admin.address"),
            ],
        )
        for problem, address in zip(caught.exception.problems, [*taken[:2], taken[3], taken[2]], strict=True):
            self.assertIn(f"can't listen on {address}: Address already in use; ", problem.message)
        # What could be bound does not stay so.
        with self.assertRaises(Refused):
            await self.connect(app.listeners["third"])

    async def test_access_logs(self) -> None:
        paths = [Path(self.mktemp()) for _ in range(2)]
        logs = [
            {"log_path": str(paths[0]), "log_format": "first %upstream_host%"},
            {"log_path": str(paths[1]), "log_format": "json"},
        ]
        app = self.server((f"{LISTENER}.access_logs", logs), (RULE, DIRECT))
        self.assertEqual(await self.get(app.listeners["clients"]), b"here")
        await self.until(lambda: all(path.read_text() for path in paths))
        self.assertTrue(paths[0].read_text().startswith("first "))
        self.assertIn('"status": 200', paths[1].read_text())
        moved = paths[0].with_suffix(".1")
        paths[0].rename(moved)
        app.reopen_logs()
        await self.get(app.listeners["clients"])
        await self.until(lambda: paths[0].read_text())
        self.assertEqual(len(moved.read_text().splitlines()), 1)
        self.assertEqual(len(paths[1].read_text().splitlines()), 2)

    async def test_an_access_log_that_can_t_be_reopened(self) -> None:
        path = Path(self.mktemp()) / "access.log"
        app = self.server((f"{LISTENER}.access_logs", [{"log_path": str(path)}]), (RULE, DIRECT))
        moved = path.parent.with_suffix(".1")
        path.parent.rename(moved)
        path.parent.write_text("in the way")
        with capture() as events:
            app.reopen_logs()
        self.assertIn("the old access log stays in use", events.text())
        await self.get(app.listeners["clients"])
        await self.until(lambda: (moved / "access.log").read_text())

    async def test_sessions_that_are_cut_off_are_in_the_access_log(self) -> None:
        path = Path(self.mktemp())
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            Factory.forProtocol(Protocol)
        )
        self.addCleanup(port.stopListening)
        app = self.start(
            edited(
                AGENT,
                ("servers[0].graceful_timeout", "10ms"),
                ("extends", []),
                (f"{LISTENER}.bind_port", True),
                (f"{LISTENER}.address", "127.0.0.1:0"),
                (f"{LISTENER}.access_logs", [{"log_path": str(path), "log_format": "json"}]),
                (f"{CLUSTER}.hosts[0].address", f"127.0.0.1:{port.getHost().port}"),
            )
        )
        client = await self.connect(app.listeners["hosted"])
        client.transport.write(b"hello")
        [cluster] = app.clusters
        await self.until(lambda: cluster.active)
        await app.stopService()
        self.assertEqual(path.read_text().count('"protocol": "tcp"'), 1)
        await self.until(lambda: not cluster.active)

    async def test_new_certificates(self) -> None:
        certs = Certificates(self.mktemp())
        context = {"status": True, **certs.server.options}
        app = self.server((f"{CHAIN}.tls_context", context), (RULE, DIRECT))
        trusting = ClientTls(certs.client_context(), "localhost")
        other = ClientTls(certs.client_context(ca_cert=certs.wrong_ca), "localhost")
        self.assertEqual(await self.get(app.listeners["clients"], trusting), b"here")
        certs.issue("server", "localhost", by=certs.other_authority)
        app.reload_certificates()
        self.assertEqual(await self.get(app.listeners["clients"], other), b"here")


class ReloadTests(SynchronousTestCase):
    def test_certificates_are_looked_at_from_time_to_time(self) -> None:
        certs = Certificates(self.mktemp())
        client = {"status": True, "ca_cert": certs.ca, **certs.client.options}
        clock = MemoryReactorClock()
        app = build(
            edited(
                AGENT,
                (f"{CHAIN}.tls_context", {"status": True, **certs.server.options}),
                (f"{CONFIG}.tls_context", client),
                (f"{CLUSTER}.tls_context", client),
            ),
            clock,
        )
        app.startService()
        certs.issue("server", "localhost")
        certs.issue("client", "agent-2.example.com")
        with capture() as events:
            clock.advance(RELOAD_INTERVAL)
        for place in (f"{CHAIN}.tls_context", f"{CONFIG}.tls_context", f"{CLUSTER}.tls_context"):
            self.assertEqual(events.text().count(f"{place}: new certificates are in use"), 1)
        app.stopService()
