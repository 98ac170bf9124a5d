"""Routes that agents bring, with both ends in memory."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory
from twisted.protocols.wire import Echo
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.app import ReverseProxy
from reverseproxy.config.loader import loads
from reverseproxy.errors import ConfigError
from reverseproxy.identity import CertificateSubject
from reverseproxy.identity.allowance import Allowance
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.process.inherited_sockets import INHERITED
from reverseproxy.testing import MemoryReactor, Recorder, run
from reverseproxy.tunnel.handshake import Accepted
from reverseproxy.tunnel.server.agent_routes import AgentRoutes
from reverseproxy.tunnel.server.claims import Claim, Claims, Rules
from reverseproxy.wire.mosn.extensions import Announcement
from reverseproxy.wire.mosn.frames import Status
from reverseproxy.wire.mosn.route_requests import RouteRequest

WEB, TUNNELS = 8080, 9999

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"


def listener(name: str, port: int, each: dict[str, Any], bind: bool = True) -> dict[str, Any]:
    return {
        "name": name,
        "address": f"127.0.0.1:{port}",
        "bind_port": bind,
        "filter_chains": [{"filters": [each]}],
    }


def http(router: str) -> dict[str, Any]:
    return {"type": "proxy", "config": {"downstream_protocol": "Http1", "router_config_name": router}}


def host(domain: str, body: str) -> dict[str, Any]:
    rule = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": body}}
    return {"name": body, "domains": [domain], "routers": [rule]}


def server(tokens: dict[str, Any], **routes: Any) -> dict[str, Any]:
    entries = [{"agent": name, "token": f"token of {name}", **more} for name, more in tokens.items()]
    tunnel = {
        "credential_policy": "static",
        "validators": {"static": {"tokens": entries}},
        "agent_routes": {"router": "web", "zone": "x.example", "tcp_ports": ["3000-3002"], **routes},
    }
    return {
        "servers": [
            {
                "default_log_path": "stdout",
                "routers": [
                    {
                        "router_config_name": "web",
                        "virtual_hosts": [host("*", "default"), host("www.x.example", "static")],
                    }
                ],
                "listeners": [
                    listener("web", WEB, http("web")),
                    listener("tunnels", TUNNELS, {"type": "tunnel", "config": tunnel}),
                ],
            }
        ],
        "cluster_manager": {"clusters": [{"name": "static"}]},
    }


def agent(name: str, cluster: str, body: str = "mine", tcp: bool = False, **routes: Any) -> dict[str, Any]:
    """An agent whose service answers at once, or, for TCP, is at port 7000."""
    each = {"type": "tcp_proxy", "config": {"cluster": "service"}} if tcp else http("service")
    return {
        "servers": [
            {
                "default_log_path": "stdout",
                "routers": [{"router_config_name": "service", "virtual_hosts": [host("*", body)]}],
                "listeners": [listener("hosting", 1, each, bind=False)],
            }
        ],
        "cluster_manager": {"clusters": [{"name": "service", "hosts": [{"address": "127.0.0.1:7000"}]}]},
        "extends": [
            {
                "type": "tunnel_agent",
                "config": {
                    "enable": True,
                    "connection_num": 2,
                    "cluster": cluster,
                    "hosting_listener": "hosting",
                    "server_list": [f"127.0.0.1:{TUNNELS}"],
                    "credential_policy": "static",
                    "credential_config": {"token": f"token of {name}"},
                    "routes": routes,
                },
            }
        ],
    }


class World(SynchronousTestCase):
    tokens: ClassVar[dict[str, Any]] = {
        "one": {"domains": ["*.x.example", "one.example"], "ports": ["3000-3001"]},
        "two": {"domains": ["*.x.example"], "ports": [3000]},
        "nobody": {},
    }

    def setUp(self) -> None:
        self.reactor = MemoryReactor()
        self.running: list[ReverseProxy] = []
        self.server = self.start(server(self.tokens))
        self.addCleanup(self.stop_all)

    def start(self, document: dict[str, Any]) -> ReverseProxy:
        service = run(document, self.reactor)
        self.running.append(service)
        self.pass_time(2)
        return service

    def stop(self, service: ReverseProxy) -> None:
        self.running.remove(service)
        service.stopService()
        self.pass_time(5)

    def stop_all(self) -> None:
        for service in reversed(self.running):
            service.stopService()
        self.pass_time(60)

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds * 4)):
            self.reactor.advance(0.25)

    def get(self, host: str) -> bytes:
        client = Recorder()
        self.reactor.dial("127.0.0.1", WEB, client)
        client.transport.write(b"GET / HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % host.encode())
        self.pass_time(1)
        return bytes(client.data).rpartition(b"\r\n\r\n")[2]

    def serve(self) -> None:
        """A service that says what it hears."""
        factory = Factory.forProtocol(Echo)
        factory.noisy = False
        port = self.reactor.listenTCP(7000, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)

    def serving(self, service: ReverseProxy) -> int:
        return service.agents[0].serving

    def routes(self) -> Any:
        return self.server.answer("routes", {})


class DomainTests(World):
    def test_domain(self) -> None:
        self.assertEqual(self.get("one.example"), b"default")
        service = self.start(agent("one", "app", domains=["One.example"], subdomains=["app"]))
        self.assertEqual(self.serving(service), 2)
        for name in ("one.example", "ONE.example:8080", "app.x.example"):
            self.assertEqual(self.get(name), b"mine")
        self.assertEqual(self.get("www.x.example"), b"static")
        self.assertEqual(self.get("other.x.example"), b"default")
        (item,) = self.routes()
        self.assertEqual(
            (item["cluster"], item["owner"], item["domains"], item["connections"], item["ends_in"]),
            ("app", "token:one", ["one.example", "app.x.example"], 2, None),
        )
        (given,) = service.agents[0].routes.values()
        self.assertEqual(given.domains, ("one.example", "app.x.example"))

    def test_gone_after_the_grace_time(self) -> None:
        service = self.start(agent("one", "app", domains=["one.example"]))
        self.stop(service)
        self.assertIn("app", self.server.clusters)
        self.assertIsNotNone(self.routes()[0]["ends_in"])
        again = self.start(agent("one", "app", "again", domains=["one.example"]))
        self.pass_time(40)
        self.assertEqual(self.get("one.example"), b"again")
        self.stop(again)
        self.pass_time(31)
        self.assertNotIn("app", self.server.clusters)
        self.assertEqual(self.routes(), [])
        self.assertEqual(self.get("one.example"), b"default")

    def use(self, document: dict[str, Any]) -> list[Any]:
        """Let the server have another configuration; what is wrong with it."""
        try:
            prepared = self.server.living.prepare(loads(json.dumps(document), "file"))
        except ConfigError as error:
            return list(error.problems)
        self.server.living.commit(prepared)
        return []

    def test_another_configuration(self) -> None:
        """What agents have stays theirs, unless the configuration has it."""
        self.start(agent("one", "app", domains=["one.example"]))
        tunnels = self.server.living.world.tunnels["tunnels"]
        assert tunnels.routes is not None
        document = server(self.tokens)
        virtual_hosts = document["servers"][0]["routers"][0]["virtual_hosts"]
        virtual_hosts.append(host("new.example", "new"))
        self.assertEqual(self.use(document), [])
        self.assertEqual((self.get("one.example"), self.get("new.example")), (b"mine", b"new"))
        virtual_hosts.append(host("one.example:*", "configured"))
        document["cluster_manager"]["clusters"].append({"name": "other"})
        self.assertEqual(self.use(document), [])
        self.assertEqual(self.get("one.example"), b"configured")
        document["cluster_manager"]["clusters"].append({"name": "app"})
        (problem,) = self.use(document)
        self.assertIn("an agent has brought a cluster of this name", str(problem))
        tunnels.routes.take_over(None)
        late = self.start(agent("two", "late", domains=["late.x.example"]))
        self.assertEqual(self.serving(late), 0)
        self.assertEqual(len(self.routes()), 1)

    def test_two_agents_of_one_identity_share(self) -> None:
        for body in ("a", "b"):
            self.start(agent("one", "app", body, domains=["one.example"]))
        self.assertEqual({self.get("one.example") for _ in range(20)}, {b"a", b"b"})

    def test_refused(self) -> None:
        self.start(agent("one", "app", domains=["one.example"], port=3000))
        for name, cluster, routes, status in (
            ("two", "other", {"domains": ["one.example"]}, "route_forbidden"),
            ("one", "other", {"domains": ["one.example"]}, "route_taken"),
            ("one", "other", {"domains": ["www.x.example"]}, "route_taken"),
            ("two", "app", {"domains": ["a.x.example"]}, "route_taken"),
            ("two", "app", {}, "route_taken"),
            ("two", "other", {"port": 3000}, "route_taken"),
            ("two", "other", {"port": 3002}, "route_forbidden"),
            ("nobody", "other", {"domains": ["b.x.example"]}, "route_forbidden"),
            ("one", "static", {"domains": ["b.x.example"]}, "route_forbidden"),
            ("one", "unknown", {}, "cluster_unknown"),
        ):
            service = self.start(agent(name, cluster, **routes))
            self.assertEqual(self.serving(service), 0, (name, cluster, routes))
            last = self.server.answer("refused", {"limit": 10, "before": None})["items"][0]
            self.assertEqual(last["result"], status, (name, cluster, routes, last))
            self.assertTrue(last["remedy"])
            self.stop(service)
        self.assertEqual(len(self.routes()), 1)
        self.assertEqual(self.get("one.example"), b"mine")


class PortTests(World):
    def talk(self, port: int) -> bytes:
        client = Recorder()
        self.reactor.dial("127.0.0.1", port, client)
        client.transport.write(b"ping")
        self.pass_time(2)
        return bytes(client.data)

    def test_port(self) -> None:
        self.serve()
        service = self.start(agent("one", "app", tcp=True, port=3001))
        self.assertEqual(self.talk(3001), b"ping")
        self.stop(service)
        self.pass_time(40)
        self.assertRaises(ConnectionRefusedError, self.talk, 3001)

    def test_any_port(self) -> None:
        self.serve()
        first = self.start(agent("one", "app", tcp=True, port=0))
        self.start(agent("one", "other", tcp=True, port=0))
        third = self.start(agent("one", "third", tcp=True, port=0))
        self.assertEqual(sorted(item["port"] for item in self.routes()), [3000, 3001])
        self.assertEqual(self.serving(third), 0)
        self.assertEqual(self.talk(3000), b"ping")
        self.stop(third)
        self.stop(first)
        self.pass_time(31)
        self.assertEqual([item["port"] for item in self.routes()], [3001])

    def test_a_port_that_somebody_has(self) -> None:
        taken = self.reactor.listenTCP(3000, Factory(), interface="127.0.0.1")
        self.addCleanup(taken.stopListening)
        fixed = self.start(agent("two", "fixed", tcp=True, port=3000))
        self.assertEqual(self.serving(fixed), 0)
        self.assertNotIn("fixed", self.server.clusters)  # nothing of it is left
        free = self.start(agent("one", "free", tcp=True, port=0))
        self.assertEqual(self.serving(free), 2)
        self.assertEqual(self.routes()[0]["port"], 3001)


class InheritTests(World):
    """What a process is told that takes the place of another one."""

    def another(self) -> list[dict[str, Any]]:
        """Have another process in the place of the first one; what it was told."""
        claims = json.loads(json.dumps(self.server.claims()))
        self.running.remove(self.server)
        self.server.stopService()
        self.pass_time(5)
        INHERITED.claims = list(claims)
        self.server = self.start(server(self.tokens))
        self.assertEqual(INHERITED.claims, [])
        return claims  # type: ignore[no-any-return]

    def test_until_agents_come(self) -> None:
        self.serve()
        first = self.start(agent("one", "app", domains=["one.example"]))
        second = self.start(agent("one", "lines", tcp=True, port=3001))
        for each in (first, second):
            self.running.remove(each)
            each.stopService()
        self.pass_time(5)
        self.assertEqual(len(self.another()), 2)
        self.assertEqual({item["cluster"] for item in self.routes()}, {"app", "lines"})
        self.assertEqual([item["connections"] for item in self.routes()], [0, 0])
        # A request waits, as the agent is about to come.
        client = Recorder()
        self.reactor.dial("127.0.0.1", WEB, client)
        client.transport.write(b"GET / HTTP/1.1\r\nHost: one.example\r\nConnection: close\r\n\r\n")
        session = Recorder()
        self.reactor.dial("127.0.0.1", 3001, session)
        session.transport.write(b"ping")
        self.pass_time(1)
        self.assertEqual((client.data, session.data), (b"", b""))
        self.start(agent("one", "app", domains=["one.example"]))
        self.start(agent("one", "lines", tcp=True, port=3001))
        self.assertTrue(bytes(client.data).endswith(b"mine"))
        self.assertEqual(bytes(session.data), b"ping")
        self.pass_time(40)
        self.assertEqual(len(self.routes()), 2)

    def test_nobody_comes(self) -> None:
        service = self.start(agent("one", "app", domains=["one.example"]))
        self.stop(service)
        self.another()
        self.pass_time(31)
        self.assertEqual(self.routes(), [])
        self.assertEqual(self.get("one.example"), b"default")

    def test_it_stays_whose_it_was(self) -> None:
        service = self.start(agent("one", "app", subdomains=["app"]))
        self.stop(service)
        self.another()
        other = self.start(agent("two", "other", subdomains=["app"]))
        self.assertEqual(self.serving(other), 0)
        again = self.start(agent("one", "app", subdomains=["app"]))
        self.assertEqual(self.serving(again), 2)

    def test_what_the_configuration_has_by_now(self) -> None:
        service = self.start(agent("one", "app", subdomains=["app"]))
        self.stop(service)
        claims = self.server.claims()
        claims[0]["domains"] = ["www.x.example"]
        routes = self.server.living.world.tunnels["tunnels"].routes
        assert routes is not None
        self.pass_time(40)
        routes.inherit(claims)
        self.assertEqual(self.routes(), [])
        self.assertEqual(self.get("www.x.example"), b"static")


class OffTests(World):
    def setUp(self) -> None:
        super().setUp()
        self.stop(self.server)
        document = server(self.tokens)
        del document["servers"][0]["listeners"][1]["filter_chains"][0]["filters"][0]["config"]["agent_routes"]
        self.server = self.start(document)

    def test_off(self) -> None:
        service = self.start(agent("one", "app", domains=["one.example"]))
        self.assertEqual(self.serving(service), 0)
        self.assertEqual(
            self.server.answer("refused", {"limit": 10, "before": None})["items"][0]["result"],
            "route_forbidden",
        )
        self.assertEqual(self.routes(), [])


class CheckTests(SynchronousTestCase):
    def problem(self, text: str, **routes: Any) -> None:
        document = server({"one": {}}, **routes)
        error = self.assertRaises(ConfigError, loads, json.dumps(document), "file")
        self.assertIn(text, str(error))

    def test_mistakes(self) -> None:
        self.problem('there is no router "wbe"', router="wbe")
        self.problem("has no effect without router", router="")
        self.problem("agents can bring nothing", router="", zone="", tcp_ports=[])
        self.problem('there is no cluster "template"', cluster_template="template")
        self.problem("is no IP address", tcp_address="localhost")
        self.problem("no certificate would be verified", allow=[{"certificate": "CN=a", "domains": ["a"]}])
        self.problem("is no range of ports", tcp_ports=["80-70"])
        self.problem("is no domain", zone="a b")
        self.problem("unknown key", rooter="web")

    def test_nobody_could_prove_anything(self) -> None:
        document = server({"one": {}})
        config = document["servers"][0]["listeners"][1]["filter_chains"][0]["filters"][0]["config"]
        del config["credential_policy"], config["validators"]
        error = self.assertRaises(ConfigError, loads, json.dumps(document), "file")
        self.assertIn("no agent can prove who it is", str(error))

    def test_tokens(self) -> None:
        for more, text in (
            ({"domains": "a"}, "domains: must be a list"),
            ({"domains": ["a b"]}, "is no domain"),
            ({"ports": ["1-0"]}, "is no range of ports"),
            ({"ports": [1.5]}, "must be a string"),
        ):
            document = server({"one": more})
            error = self.assertRaises(ConfigError, run, document, MemoryReactor())
            self.assertIn(text, str(error))


class CertificateTests(SynchronousTestCase):
    """What a certificate allows, which the memory's network has none of."""

    def ask(self, subject: CertificateSubject | None, *domains: str) -> Any:
        made: list[str] = []

        class Surface:
            """Makes nothing."""

            def add_cluster(self, name: str) -> None:
                made.append(name)

            def add_domain(self, domain: str, cluster: str) -> None:
                made.append(domain)

            remove_cluster = remove_domain = made.remove

        routes = AgentRoutes(
            Claims(Rules()),
            Surface(),  # type: ignore[arg-type]
            MemoryReactor(),
            [("CN=a", Allowance.of(["a.example"], [])), ("DNS:b.example", Allowance.of(["b.example"], []))],
        )
        asked = Announcement("agent", routes=RouteRequest(domains))
        accepted = Accepted("app", "", 1, None, asked)
        info = ConnectionInfo("1.2.3.4:5", "1.2.3.4:6", True, None, subject=subject)
        verdict = self.successResultOf(Deferred.fromCoroutine(routes.ask(accepted, info)))
        return made if isinstance(verdict, Claim) else verdict.status

    def test_allowed(self) -> None:
        self.assertEqual(self.ask(CertificateSubject("key", "CN=a"), "a.example"), ["app", "a.example"])
        both = CertificateSubject("key", "CN=a", ("DNS:b.example",))
        self.assertEqual(self.ask(both, "a.example", "b.example"), ["app", "a.example", "b.example"])

    def test_not_allowed(self) -> None:
        for subject in (None, CertificateSubject("key", "CN=b"), CertificateSubject("key", "", ("DNS:a",))):
            self.assertEqual(self.ask(subject, "a.example"), Status.ROUTE_FORBIDDEN)
