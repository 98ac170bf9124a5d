"""Tests for L{reverseproxy.assembly}: from one configuration to the next, with connections in memory."""

from __future__ import annotations

import copy
import json
from typing import Any

from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.app import ReverseProxy
from reverseproxy.clock import wall_time
from reverseproxy.config.loader import loads
from reverseproxy.errors import ConfigError
from reverseproxy.process.reloading import Report
from reverseproxy.testing import MemoryReactor, Recorder, run
from tests.admin.world import parse_answer
from tests.config.documents import (
    AGENT,
    CHAIN,
    CLUSTER,
    CONFIG,
    FILTER,
    GONE,
    LISTENER,
    RULE,
    TUNNEL_SERVER,
    edited,
)
from tests.tunnel.logged import capture

TUNNEL = "servers[0].listeners[1]"
SERVICE = 8080
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def admin(port: int) -> Any:
    """An admin API on a port."""
    return {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"


class Service(Recorder):
    """Answers each request with its name, or when it is told to."""

    def __init__(self, name: bytes, answers: bool) -> None:
        super().__init__()
        self.name = name
        self.answers = answers

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        for _ in range(data.count(b"\r\n\r\n") if self.answers else 0):
            self.answer()

    def answer(self) -> None:
        self.transport.write(ANSWER % (len(self.name), self.name))


class Services:
    """Listens as a factory."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.answers = True
        self.connections: list[Service] = []

    def buildProtocol(self, addr: Any) -> Service:
        self.connections.append(Service(self.name, self.answers))
        return self.connections[-1]

    def doStart(self) -> None:
        pass

    def doStop(self) -> None:
        pass


class Sites:
    """A server and an agent, and the documents that they run."""

    def __init__(self, case: SynchronousTestCase, server: Any = TUNNEL_SERVER, agent: Any = AGENT) -> None:
        self.reactor = MemoryReactor()
        self.service = Services(b"first")
        self.reactor.listenTCP(SERVICE, self.service)
        self.documents = {"server": copy.deepcopy(server), "agent": copy.deepcopy(agent)}
        self.apps: dict[str, ReverseProxy] = {}
        for name in ("server", "agent"):
            app = self.apps[name] = run(self.documents[name], self.reactor)
            app.read_from(lambda name=name: self.read(name))  # type: ignore[misc]
        self.advance(0.5)
        case.addCleanup(self.stop)

    def read(self, name: str) -> Any:
        return loads(json.dumps(self.documents[name]), "c.json")

    def advance(self, seconds: float) -> None:
        for _ in range(int(seconds * 20)):
            self.reactor.advance(0.05)

    def change(self, name: str, *edits: tuple[str, Any]) -> Report:
        """Change a document, and reload it."""
        self.documents[name] = edited(self.documents[name], *edits)
        reports: list[Report] = []
        self.apps[name].reload().addCallback(reports.append)
        self.reactor.settle()
        [report] = reports
        return report

    def client(self, port: int = 2045, host: str = "127.0.0.1") -> Recorder:
        client: Recorder = self.reactor.dial(host, port, Recorder())
        return client

    def ask(self, client: Recorder, request: bytes = GET) -> bytes:
        """Send a request; gives all that comes."""
        client.data = b""
        client.transport.write(request)
        self.advance(0.2)
        return client.data

    def stop(self) -> None:
        for app in self.apps.values():
            app.stopService()
            app.cut_short()
        self.advance(40)


class ServerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.sites = Sites(self)
        self.server = self.sites.apps["server"]
        [self.tunnel] = self.server.clusters.get("edge").hosts.values()

    def assertKept(self) -> None:
        """The agent's connection is the one of the start."""
        self.assertIn(self.tunnel, self.server.clusters.get("edge").hosts.values())
        self.assertFalse(self.tunnel.closed)
        self.assertEqual(self.server.clusters.get("edge").joined, 1)

    def test_nothing(self) -> None:
        listener = self.server.listeners["clients"]
        report = self.sites.change("server")
        self.assertEqual((report.successful, report.generation, report.changes), (True, 1, {}))
        self.assertIs(self.server.listeners["clients"], listener)
        self.assertKept()

    def test_a_route(self) -> None:
        """It counts from the next request on, on connections that there are."""
        client = self.sites.client()
        self.assertIn(b"first", self.sites.ask(client))
        report = self.sites.change(
            "server", (f"{RULE}.route", GONE), (f"{RULE}.direct_response", {"status": 418})
        )
        self.assertEqual((report.generation, report.changes["routers"]["changed"]), (2, ["web"]))
        self.assertIn(b" 418 ", self.sites.ask(client))
        self.assertIsNone(client.reason)
        self.assertKept()

    def test_a_router_that_comes_and_goes(self) -> None:
        routers = self.sites.documents["server"]["servers"][0]["routers"]
        client = self.sites.client()
        self.sites.change("server", ("servers[0].routers", []))
        self.assertIn(b" 404 ", self.sites.ask(client))
        self.sites.change("server", ("servers[0].routers", routers))
        self.assertIn(b" 200 ", self.sites.ask(client))

    def test_a_balancer(self) -> None:
        """The hosts of agents stay, and so does what has been counted."""
        client = self.sites.client()
        self.sites.ask(client)
        for kind in ("LB_ROUNDROBIN", "LB_PEAK_EWMA", "LB_MAGLEV", "LB_LEAST_REQUEST", "LB_RANDOM"):
            report = self.sites.change("server", (f"{CLUSTER}.lb_type", kind))
            self.assertEqual(report.changes["clusters"]["changed"], ["edge"])
            self.assertIn(b"first", self.sites.ask(client))
        self.assertEqual(self.tunnel.picked, 6)
        self.assertKept()

    def test_limits_of_a_cluster(self) -> None:
        client = self.sites.client()
        self.sites.change("server", (f"{CLUSTER}.circuit_breakers", [{"max_requests": 1}]))
        cluster = self.server.clusters.get("edge")
        host = cluster.acquire()
        assert host is not None
        self.assertIn(b" 503 ", self.sites.ask(client))
        self.sites.change("server", (f"{CLUSTER}.circuit_breakers", []))
        self.assertIn(b" 200 ", self.sites.ask(client))
        cluster.release(host)
        self.assertKept()

    def test_a_cluster_with_hosts(self) -> None:
        """Those that are the same stay; others come and go, and requests under way are finished."""
        other = Services(b"other")
        self.sites.reactor.listenTCP(8081, other)
        hosts = [{"address": f"127.0.0.1:{SERVICE}"}]
        self.sites.change(
            "server",
            ("cluster_manager.clusters[1]", {"name": "web", "hosts": hosts}),
            (f"{RULE}.route.cluster_name", "web"),
        )
        client = self.sites.client()
        self.assertIn(b"first", self.sites.ask(client))
        cluster = self.server.clusters.get("web")
        [first] = cluster.hosts.values()
        more = [*hosts, {"address": "127.0.0.1:8081"}]
        self.sites.change("server", ("cluster_manager.clusters[1].hosts", more))
        self.assertIs(cluster.hosts[f"127.0.0.1:{SERVICE}"], first)
        self.assertEqual(len(cluster.hosts), 2)
        answers = {self.sites.ask(client)[-5:] for _ in range(4)}
        self.assertEqual(answers, {b"first", b"other"})
        self.sites.change("server", ("cluster_manager.clusters[1].hosts", more[1:]))
        self.assertEqual(self.sites.ask(client)[-5:], b"other")
        self.assertTrue(first.retired)
        # Another weight is another host.
        [second] = cluster.hosts.values()
        self.sites.change("server", ("cluster_manager.clusters[1].hosts[0].weight", 7))
        self.assertEqual([host.weight for host in cluster.hosts.values()], [7])
        self.assertIsNot(cluster.hosts["127.0.0.1:8081"], second)
        self.assertEqual(self.sites.ask(client)[-5:], b"other")

    def test_a_cluster_that_goes(self) -> None:
        self.sites.change(
            "server",
            ("cluster_manager.clusters[1]", {"name": "web", "hosts": [{"address": f"127.0.0.1:{SERVICE}"}]}),
            (f"{RULE}.route.cluster_name", "web"),
        )
        client = self.sites.client()
        self.assertIn(b"first", self.sites.ask(client))
        self.sites.change(
            "server", ("cluster_manager.clusters[1]", GONE), (f"{RULE}.route.cluster_name", "edge")
        )
        self.assertNotIn("web", self.server.clusters)
        self.assertIn(b"first", self.sites.ask(client))
        self.assertKept()

    def another(self) -> Any:
        listener = self.sites.documents["server"]["servers"][0]["listeners"][0]
        return {**listener, "name": "more", "address": "127.0.0.1:2050"}

    def test_a_listener_comes(self) -> None:
        listener = copy.deepcopy(self.sites.documents["server"]["servers"][0]["listeners"][0])
        self.sites.change(
            "server", ("servers[0].listeners[2]", {**listener, "name": "more", "address": "127.0.0.1:2050"})
        )
        self.assertIn(b"first", self.sites.ask(self.sites.client(2050)))
        self.assertIn(b"first", self.sites.ask(self.sites.client()))

    def test_a_listener_goes(self) -> None:
        """Nothing that was asked for is lost."""
        listener = copy.deepcopy(self.sites.documents["server"]["servers"][0]["listeners"][0])
        self.sites.change(
            "server", ("servers[0].listeners[2]", {**listener, "name": "more", "address": "127.0.0.1:2050"})
        )
        busy, idle = self.sites.client(2050), self.sites.client(2050)
        self.sites.ask(busy)
        self.sites.change("server", ("servers[0].listeners[2]", GONE))
        self.assertRaises(Refused, self.sites.client, 2050)
        answer = self.sites.ask(busy)
        self.assertIn(b"first", answer)
        self.assertIn(b"connection: close", answer.lower())
        self.assertIsNone(idle.reason)
        self.sites.advance(4)
        self.assertIsNotNone(idle.reason)
        self.assertEqual(self.server.living.departing, [])

    def test_another_address(self) -> None:
        """Connections to the old one go on."""
        client = self.sites.client()
        self.sites.change("server", (f"{LISTENER}.address", "127.0.0.1:2060"))
        self.assertIn(b"first", self.sites.ask(self.sites.client(2060)))
        self.assertRaises(Refused, self.sites.client)
        self.assertIn(b"first", self.sites.ask(client))

    def test_addresses_that_are_exchanged(self) -> None:
        self.sites.change(
            "server", (f"{LISTENER}.address", "127.0.0.1:9999"), (f"{TUNNEL}.address", "127.0.0.1:2045")
        )
        self.assertIn(b"first", self.sites.ask(self.sites.client(9999)))
        self.assertKept()

    def test_another_name(self) -> None:
        """The address stays bound, and connections to the old one end when that is no loss."""
        client = self.sites.client()
        ports = self.server.listeners["clients"]._port
        report = self.sites.change("server", (f"{LISTENER}.name", "front"))
        self.assertEqual(report.changes["listeners"]["removed"], ["clients"])
        self.assertIs(self.server.listeners["front"]._port, ports)
        self.assertIn(b"first", self.sites.ask(self.sites.client()))
        self.assertIn(b"connection: close", self.sites.ask(client).lower())

    def test_an_address_in_use(self) -> None:
        """All stays as it is."""
        self.sites.reactor.listenTCP(2061, Services(b""))
        client = self.sites.client()
        with capture() as events:
            report = self.sites.change(
                "server",
                (f"{LISTENER}.address", "127.0.0.1:2061"),
                (f"{RULE}.route", GONE),
                (f"{RULE}.direct_response", {"status": 418}),
            )
        self.flushLoggedErrors()
        self.assertEqual([problem.path for problem in report.problems], ["servers[0].listeners[0].address"])
        self.assertEqual(report.generation, 1)
        self.assertIn("is not taken into use", events.text())
        self.assertIn(b"first", self.sites.ask(client))
        self.assertIn(b"first", self.sites.ask(self.sites.client()))
        self.assertFalse(self.server.living.reloading.successful)
        self.assertTrue(self.sites.change("server", (f"{LISTENER}.address", "127.0.0.1:2045")).successful)
        self.assertIn(b" 418 ", self.sites.ask(client))

    def test_all_addresses_in_use(self) -> None:
        """That of the admin API is told with that of a listener, and nothing stays bound."""
        for port in (2061, 2062):
            self.sites.reactor.listenTCP(port, Services(b""))
        admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 2062}}}
        report = self.sites.change("server", (f"{LISTENER}.address", "127.0.0.1:2061"), ("admin", admin))
        self.flushLoggedErrors()
        self.assertEqual(
            [problem.path for problem in report.problems],
            ["servers[0].listeners[0].address", "admin.address"],
        )
        back = (f"{LISTENER}.address", "127.0.0.1:2045"), ("admin", GONE)
        self.assertTrue(self.sites.change("server", *back).successful)

    def test_files_of_the_admin_api(self) -> None:
        """They are looked at, whether the configuration is to be used or only examined."""
        path = self.mktemp()
        admin = {
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 2063}},
            "tokens_file": path,
        }
        document = edited(self.sites.documents["server"], ("admin", admin))
        loaded = loads(json.dumps(document), "c.json")
        for attempt in (self.server.living.examine, lambda each: self.server.living.take(each, 2)):
            error = self.assertRaises(ConfigError, attempt, loaded)
            self.assertEqual([problem.path for problem in error.problems], ["admin.tokens_file"])

    def test_filters_on_the_same_port(self) -> None:
        client = self.sites.client()
        filters = [{"type": "ip_access", "config": {"default_action": "deny"}}]
        self.sites.change("server", (f"{LISTENER}.stream_filters", filters))
        self.assertIn(b" 403 ", self.sites.ask(client))
        self.sites.change("server", (f"{LISTENER}.stream_filters", []))
        self.assertIn(b" 200 ", self.sites.ask(client))

    def test_an_access_log(self) -> None:
        paths = [self.mktemp() for _ in range(2)]
        client = self.sites.client()
        for path in paths:
            logs = [{"log_path": path, "log_format": "%response_code%"}]
            self.sites.change("server", (f"{LISTENER}.access_logs", logs))
            self.sites.ask(client)
        for path in paths:
            with open(path) as file:
                self.assertEqual(file.read(), "200\n")

    def test_another_protocol(self) -> None:
        """What is spoken no more is told so."""
        client = self.sites.client()
        self.sites.ask(client)
        with capture() as events:
            self.sites.change("server", (f"{FILTER}.config.downstream_protocol", "Http2"))
        self.assertIn("1 connections speak what is not spoken here any more", events.text())
        self.assertIn(b"connection: close", self.sites.ask(client).lower())

    def test_a_file_that_is_wrong(self) -> None:
        client = self.sites.client()
        with capture() as events:
            report = self.sites.change(
                "server",
                (f"{CLUSTER}.lb_type", 7),
                (f"{LISTENER}.address", "nowhere"),
                (f"{CHAIN}.filters", 3),
            )
        self.assertEqual((report.successful, report.generation, len(report.problems)), (False, 1, 3))
        for place in ("lb_type", "address", "filters"):
            self.assertIn(place, events.text())
        self.assertIn(b"first", self.sites.ask(client))

    def test_a_restart(self) -> None:
        with capture() as events:
            report = self.sites.change("server", ("servers[0].default_log_path", "/tmp/other"))
        self.assertEqual(list(report.restart), ["servers[0].default_log_path"])
        self.assertIn("needs a restart: servers[0].default_log_path", events.text())

    def test_a_tunnel_s_settings(self) -> None:
        """Connections that may stay do."""
        self.sites.change(
            "server", (f"{TUNNEL}.filter_chains[0].filters[0].config", {"max_joins_per_second": 7})
        )
        self.assertKept()
        self.assertIn(b"first", self.sites.ask(self.sites.client()))


class AgentTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.sites = Sites(self)
        self.agent = self.sites.apps["agent"]
        self.edge = self.sites.apps["server"].clusters.get("edge")

    def test_a_service(self) -> None:
        """Another host behind the agent; the tunnel stays."""
        other = Services(b"other")
        self.sites.reactor.listenTCP(8081, other)
        client = self.sites.client()
        self.sites.ask(client)
        self.sites.change("agent", (f"{CLUSTER}.hosts[0].address", "127.0.0.1:8081"))
        # A session goes on where it is, and the next one goes where it is to go now.
        self.assertEqual(self.sites.ask(client)[-5:], b"first")
        self.sites.service.connections[0].transport.loseConnection()
        self.sites.advance(0.1)
        self.assertEqual(self.sites.ask(client)[-5:], b"other")
        self.assertEqual(self.edge.joined, 1)

    def test_another_cluster_behind_it(self) -> None:
        """Whether the service is there is found out of the new one."""
        hosts = [{"address": "127.0.0.1:8099"}]
        self.sites.change(
            "agent",
            ("cluster_manager.clusters[1]", {"name": "gone", "hosts": hosts}),
            (f"{FILTER}.config.cluster", "gone"),
        )
        self.sites.advance(3)
        [agent] = self.agent.agents
        assert agent.plan.service is not None
        self.assertFalse(agent.plan.service.well)
        self.assertEqual(list(self.agent.living.assembly._around.reaches), ["gone"])
        self.sites.change("agent", (f"{FILTER}.config.cluster", "service"))
        self.sites.advance(3)
        self.assertTrue(agent.plan.service.well)
        self.assertIn(b"first", self.sites.ask(self.sites.client()))
        self.assertEqual(self.edge.joined, 1)

    def test_routes_of_plain_connections(self) -> None:
        """Those that carry one request at a time go on, with what is new."""
        router = TUNNEL_SERVER["servers"][0]["routers"][0]
        proxy = {"downstream_protocol": "Http1", "router_config_name": "web"}
        sites = Sites(
            self,
            agent=edited(
                AGENT,
                (f"{CONFIG}.mux", False),
                (FILTER, {"type": "proxy", "config": proxy}),
                ("servers[0].routers", [router]),
                (f"{RULE}.route.cluster_name", "service"),
            ),
        )
        edge = sites.apps["server"].clusters.get("edge")
        client = sites.client()
        self.assertIn(b"first", sites.ask(client))
        sites.change("agent", (f"{RULE}.route", GONE), (f"{RULE}.direct_response", {"status": 418}))
        self.assertIn(b" 418 ", sites.ask(client))
        denied = [{"type": "ip_access", "config": {"default_action": "deny"}}]
        sites.change("agent", (f"{LISTENER}.stream_filters", denied))
        self.assertIn(b" 403 ", sites.ask(client))
        self.assertEqual(edge.joined, 1)

    def test_what_a_tunnel_is_made_with(self) -> None:
        """The new one is there before the old one goes."""
        [before] = self.edge.hosts.values()
        self.sites.change("agent", (f"{CONFIG}.weight", 7))
        client = self.sites.client()
        self.assertIn(b"first", self.sites.ask(client))
        self.sites.advance(3)
        [after] = self.edge.hosts.values()
        self.assertIsNot(after, before)
        self.assertEqual(after.weight, 7)
        self.assertEqual(len(self.agent.agents), 1)
        self.assertIn(b"first", self.sites.ask(client))

    def test_other_servers(self) -> None:
        """Connections to those that stay go on."""
        [before] = self.edge.hosts.values()
        tunnel = self.sites.documents["server"]["servers"][0]["listeners"][1]
        more = {**tunnel, "name": "more", "address": "127.0.0.1:9998"}
        self.sites.change("server", ("servers[0].listeners[2]", more))
        [agent] = self.agent.agents
        self.sites.change("agent", (f"{CONFIG}.server_list[1]", "127.0.0.1:9998"))
        self.sites.advance(1)
        self.assertEqual(self.agent.agents, [agent])
        self.assertEqual(len(self.edge.hosts), 2)
        self.sites.change("agent", (f"{CONFIG}.server_list[1]", GONE))
        self.sites.advance(3)
        self.assertEqual(list(self.edge.hosts.values()), [before])
        self.assertEqual(self.edge.joined, 2)
        self.assertFalse(before.closed)
        self.assertEqual(agent.plan.config.server_list, ("127.0.0.1:9999",))

    def test_settings_of_dialling(self) -> None:
        """Connections go on, and there are as many as there should be now."""
        [before] = self.edge.hosts.values()
        [agent] = self.agent.agents
        self.sites.change(
            "agent",
            (f"{CONFIG}.connection_num", 3),
            (f"{CONFIG}.reconnect_max_duration", "7s"),
            (f"{CONFIG}.dns_refresh_duration", "11s"),
        )
        self.sites.advance(1)
        self.assertEqual((len(self.edge.hosts), self.edge.joined), (3, 3))
        self.assertIn(before, self.edge.hosts.values())
        self.assertEqual(agent._watcher.refresh, 11.0)
        self.sites.change("agent", (f"{CONFIG}.connection_num", 1), (f"{CONFIG}.connect_retry_times", 5))
        self.sites.advance(3)
        self.assertEqual(list(self.edge.hosts.values()), [before])
        self.assertFalse(before.closed)
        self.assertEqual(self.agent.agents, [agent])
        self.assertEqual((self.edge.joined, agent.wanted), (3, 1))

    def test_an_agent_comes_and_goes(self) -> None:
        [before] = self.edge.hosts.values()
        more = {**self.sites.documents["agent"]["extends"][0]["config"], "host_name": "more"}
        self.sites.change("agent", ("extends[1]", {"type": "tunnel_agent", "config": more}))
        self.sites.advance(1)
        self.assertEqual(len(self.edge.hosts), 2)
        self.sites.change("agent", ("extends[1]", GONE))
        self.sites.advance(3)
        self.assertEqual(list(self.edge.hosts.values()), [before])
        self.assertFalse(before.closed)

    def test_agents_in_another_order(self) -> None:
        more = {**self.sites.documents["agent"]["extends"][0]["config"], "host_name": "more"}
        self.sites.change("agent", ("extends[1]", {"type": "tunnel_agent", "config": more}))
        self.sites.advance(1)
        self.sites.change("agent", ("extends", self.sites.documents["agent"]["extends"][::-1]))
        self.sites.advance(3)
        self.assertEqual(self.edge.joined, 2)
        self.assertEqual(len(self.edge.hosts), 2)


class AdminTests(SynchronousTestCase):
    """The admin API is switched on, moved and switched off while everything runs."""

    def setUp(self) -> None:
        self.sites = Sites(self)

    def assertAnswers(self, port: int, path: str) -> Any:
        client = self.sites.client(port)
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        self.sites.ask(client, head.encode())
        answer = parse_answer(client.data)
        self.assertEqual(answer.status, 200, path)
        return answer

    def agents(self, port: int) -> Any:
        return self.assertAnswers(port, "/api/tunnel/v1/agents").json["items"]

    def test_on_a_server(self) -> None:
        """Agents that had joined before are there, since when they came, and are counted from now on."""
        self.sites.advance(3)
        self.assertTrue(self.sites.change("server", ("admin", admin(9901))).successful)
        client = self.sites.client()
        self.assertIn(b"first", self.sites.ask(client))
        [agent] = self.agents(9901)
        self.assertEqual((agent["connections"], agent["requests_by_class"]), (1, {"2xx": 1}))
        self.assertApproximates(wall_time() - agent["since"], 3.7, 0.5)
        metrics = self.assertAnswers(9901, "/metrics").body.decode()
        self.assertIn('reverseproxy_tunnel_agents{cluster="edge"} 1.0\n', metrics)

    def test_moved(self) -> None:
        self.sites.change("server", ("admin", admin(9901)))
        [agent] = self.agents(9901)
        self.sites.change("server", ("admin", admin(9902)))
        self.assertEqual(self.agents(9902)[0]["since"], agent["since"])
        self.assertRaises(Refused, self.sites.client, 9901)

    def test_off_and_on_again(self) -> None:
        """What comes and goes meanwhile is not kept, and is found all the same."""
        self.sites.change("server", ("admin", admin(9901)))
        [before] = self.agents(9901)
        self.sites.change("server", ("admin", GONE))
        self.assertRaises(Refused, self.sites.client, 9901)
        self.assertTrue(self.sites.change("server", ("admin", admin(9901))).successful, "at once")
        self.assertApproximates(self.agents(9901)[0]["since"], before["since"], 1)
        self.sites.change("server", ("admin", GONE))
        host = next(iter(self.sites.apps["server"].clusters.get("edge").hosts.values()))
        more = {**self.sites.documents["agent"]["extends"][0]["config"], "connection_num": 2, "weight": 7}
        self.sites.change("agent", ("extends[0].config", more))
        self.sites.advance(3)
        self.assertTrue(host.closed)
        self.sites.change("server", ("admin", admin(9901)))
        [after] = self.agents(9901)
        self.assertEqual((before["connections"], after["connections"]), (1, 2))

    def test_on_an_agent(self) -> None:
        self.sites.change("agent", ("admin", admin(9903)))
        [server] = self.assertAnswers(9903, "/api/tunnel/v1/servers").json["items"]
        self.assertEqual((server["serving"], server["wanted"]), (1, 1))
        self.assertIn(b"first", self.sites.ask(self.sites.client()))
        metrics = self.assertAnswers(9903, "/metrics").body.decode()
        self.assertIn('reverseproxy_http_requests_in_flight{cluster="service"} 1.0\n', metrics)
        self.sites.change("agent", ("admin", admin(9904)))
        self.assertAnswers(9904, "/readyz")
        self.sites.change("agent", ("admin", GONE))
        self.sites.advance(1.5)
        self.assertRaises(Refused, self.sites.client, 9904)
        self.assertIn(b"first", self.sites.ask(self.sites.client()))


class ReloadingTests(SynchronousTestCase):
    def test_nothing_to_read(self) -> None:
        app = run(TUNNEL_SERVER, MemoryReactor())
        report = self.successResultOf(app.reload())
        self.assertIn("it is in no file", str(report.problems[0]))

    def test_everything_wrong_at_once(self) -> None:
        """What can't be loaded hides nothing of what can't be built."""
        sites = Sites(self)
        report = sites.change(
            "server",
            (f"{LISTENER}.address", "nowhere"),
            (
                f"{CHAIN}.tls_context",
                {"status": True, "cert_chain": "-----BEGIN", "private_key": "-----BEGIN"},
            ),
            (f"{TUNNEL}.filter_chains[0].filters[0].config", {"credential_policy": "mine"}),
        )
        self.assertEqual({each.file for each in report.problems}, {"c.json"})
        self.assertEqual(
            [each.path for each in report.problems],
            [
                f"{LISTENER}.address",
                f"{CHAIN}.tls_context.cert_chain",
                f"{CHAIN}.tls_context.private_key",
                f"{TUNNEL}.filter_chains[0].filters[0].config.credential_policy",
            ],
        )

    def test_while_stopping(self) -> None:
        sites = Sites(self)
        sites.apps["server"].stopService()
        report = sites.change("server", (f"{CLUSTER}.lb_type", "LB_MAGLEV"))
        self.assertIn("stopping", str(report.problems[0]))
