"""Tests for the admin API, of a server and its agents in memory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.admin import agent_index
from reverseproxy.config.models import TlsContextConfig
from reverseproxy.errors import ConfigError
from reverseproxy.logs import make_observer
from reverseproxy.metrics import OTHER
from reverseproxy.testing import Recorder
from reverseproxy.tls.reload import RELOAD_INTERVAL
from tests.admin.world import ADMIN, CLIENT, PORT, STATIC, World, parse_answer
from tests.transport.contract import CallableFactory
from tests.tunnel.logged import capture

READ, OPERATE = "r" * 16, "o" * 16


class FakeTls:
    """TLS contexts that have changed whenever they are looked at."""

    def __init__(self) -> None:
        self.looks = 0
        self.dated = [("admin.tls_context", SimpleNamespace(name="CN=admin", begins=1e9, ends=2e9))]

    def reload_if_changed(self) -> bool:
        self.looks += 1
        return True

    def expiring(self) -> list[Any]:
        return []


class AdminTestCase(SynchronousTestCase):
    def with_tokens(self, **more: Any) -> World:
        path = Path(self.mktemp() + ".json").absolute()
        tokens = [{"name": "grafana", "token": READ}, {"name": "ops", "token": OPERATE, "role": "operate"}]
        path.write_text(json.dumps(tokens))
        return World({**ADMIN, "tokens_file": str(path)}, **more)


class ServiceTests(AdminTestCase):
    def test_health(self) -> None:
        world = self.with_tokens()
        for path in ("/healthz", "/livez"):
            answer = world.ask(path)
            self.assertEqual((answer.status, answer.body), (200, b"ok\n"))
        self.assertEqual(world.ask("/healthz", "POST").status, 405)
        self.assertEqual(world.ask("/healthz", "HEAD")[0::2], (200, b""))

    def test_readiness(self) -> None:
        world = self.with_tokens(cluster={"hosts": [{"address": "127.0.0.1:4000"}]})
        world.reactor.listenTCP(4000, CallableFactory(Recorder))  # which never answers
        self.assertEqual(world.ask("/readyz")[0::2], (200, b"ready\n"))
        self.proxy_stops(world)
        self.assertEqual(world.ask("/readyz")[0::2], (503, b"not ready\n"))
        answer = world.ask("/readyz", Authorization=f"Bearer {READ}")
        self.assertEqual(answer.status, 503)
        self.assertIn(b"stopping: requests in progress are finished", answer.body)

    def proxy_stops(self, world: World) -> None:
        """Stop the server while a client is still busy."""
        client = world.connect(2000)
        client.transport.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        world.reactor.settle()
        stopped = world.proxy.stopService()
        world.reactor.settle()
        self.assertNoResult(stopped)

        def end() -> None:
            client.transport.abortConnection()
            for _ in range(40):
                world.reactor.advance(1)
            self.successResultOf(stopped)
            self.assertRaises(Refused, world.connect)

        self.addCleanup(end)

    def test_an_agent_that_does_not_serve(self) -> None:
        world = World()
        document = world.proxy.inspector
        self.assertEqual(document.answer("ready", {}), [])
        agent = world.agent()
        self.assertEqual(agent.inspector.answer("ready", {}), [])
        agent.agents[0].drain()
        for _ in range(5):
            world.reactor.advance(1)
        self.assertEqual(
            agent.inspector.answer("ready", {}),
            ["agent of cluster clientCluster: no serving connection to 127.0.0.1:3000"],
        )

    def test_roles(self) -> None:
        world = self.with_tokens()
        answer = world.ask("/metrics")
        self.assertEqual(
            (answer.status, answer.headers["www-authenticate"]), (401, 'Bearer realm="reverseproxy"')
        )
        with capture() as events:
            for _ in range(50):
                self.assertEqual(world.ask("/metrics", Authorization="Bearer nonsense").status, 401)
        self.assertIn("sent an unknown token", events.text())
        self.assertNotIn("nonsense", events.text())
        self.assertEqual(len(events), 10)
        self.assertEqual(world.ask("/metrics", Authorization=f"Bearer {READ}").status, 200)
        body = b'{"log_path": "", "log_level": "DEBUG"}'
        path = "/api/v1/update_loglevel"
        self.assertEqual(world.ask(path, "POST", body, Authorization=f"Bearer {READ}").status, 403)
        # There is no observer here: it is told so by the path itself.
        self.assertEqual(world.ask(path, "POST", body, Authorization=f"Bearer {OPERATE}").status, 400)

    def test_changing_takes_a_token(self) -> None:
        answer = World().ask("/api/v1/update_loglevel", "POST", b"{}")
        self.assertEqual(answer.status, 403)
        self.assertIn("configure admin with a tokens_file", answer.json["title"])

    def test_a_page_that_rebinds_its_name(self) -> None:
        """Without tokens, only names of this machine are taken; with them, the name is no matter."""
        world = World()
        for host, status in (
            ("localhost:9900", 200),
            ("127.0.0.1:9900", 200),
            ("[::1]:9900", 200),
            ("[::1]", 200),
            ("LOCALHOST:9900", 200),
            ("evil.example:9900", 421),
            ("evil.example", 421),
        ):
            self.assertEqual(world.ask("/api/v1/states", Host=host).status, status, host)
        world = self.with_tokens()
        token = f"Bearer {READ}"
        self.assertEqual(world.ask("/api/v1/states", Host="evil.example", Authorization=token).status, 200)

    def test_a_target_that_is_a_whole_url(self) -> None:
        """Its authority counts, and not the Host beside it."""
        world = World()
        for target, status in (
            ("http://localhost:9900/api/v1/states", 200),
            ("HTTP://127.0.0.1/api/v1/stats?key=nothing", 200),
            ("http://localhost?x=/y", 200),
            ("http://localhost", 200),
            ("http://evil.example/api/v1/states", 421),
            ("http://localhost@evil.example/api/v1/states", 421),
            ("ftp://localhost/api/v1/states", 400),
            ("localhost:9900", 400),
            ("*", 400),
        ):
            self.assertEqual(world.ask(target).status, status, target)
        self.assertEqual(world.ask("http://localhost/healthz", Host="evil.example").status, 200)

    def test_header_fields_that_are_no_text(self) -> None:
        """They are no failure of ours."""
        world = self.with_tokens()
        for name in ("Host", "Accept", "Authorization", "Origin", "Sec-Fetch-Site", "If-None-Match"):
            for path in ("/", "/dashboard", "/healthz", "/metrics"):
                client = world.connect()
                line = f"GET {path} HTTP/1.1\r\nConnection: close\r\n{name}: ".encode()
                client.transport.write(line + b"\xff\xfe\r\n\r\n")
                world.reactor.settle()
                self.assertIn(parse_answer(client.data).status, (200, 302, 401), (name, path))

    def test_paths(self) -> None:
        world = World()
        self.assertIn(b"/metrics\n", world.ask("/").body)
        for path in (
            "/nowhere",
            "/api",
            "/api/v1",
            "/api/v1/",
            "/api/v1/plugin",
            "/metrics/x",
            "//",
            "/%2e%2e",
        ):
            self.assertEqual(world.ask(path).status, 404, path)
        answer = world.ask("/api/v1/states", "PUT")
        self.assertIn(answer.status, (403, 405))

    def test_headers_against_browsers(self) -> None:
        headers = World().ask("/metrics").headers
        self.assertEqual(headers["x-content-type-options"], "nosniff")
        self.assertEqual(headers["cache-control"], "no-store")
        self.assertNotIn("access-control-allow-origin", headers)

    def test_large_bodies(self) -> None:
        world = self.with_tokens()
        token = f"Bearer {OPERATE}"
        answer = world.ask("/api/v1/update_loglevel", "POST", b"x" * 70000, Authorization=token)
        self.assertEqual(answer.status, 413)
        client = world.connect()
        client.transport.write(
            b"POST /api/v1/update_loglevel HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            b"Authorization: Bearer " + OPERATE.encode() + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(10):
            client.transport.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
            world.reactor.settle()
        client.transport.write(b"0\r\n\r\n")
        world.reactor.settle()
        self.assertEqual(parse_answer(client.data).status, 413)

    def test_silent_connections_end(self) -> None:
        world = World()
        client = world.connect()
        for _ in range(80):
            world.reactor.advance(1)
        self.assertIsNotNone(client.reason)

    def test_certificates_of_the_api_itself(self) -> None:
        """They are reloaded and shown; connections are closed if clients have certificates."""
        world = World()
        server = world.proxy.admin
        assert server is not None
        tls = FakeTls()
        server.tls = tls  # type: ignore[assignment]
        client = world.connect()
        for verifies, connected in ((False, True), (True, False)):
            config = TlsContextConfig(status=True, verify_client=verifies)
            server._admin = server._admin.model_copy(update={"tls_context": config})
            world.reactor.advance(RELOAD_INTERVAL)
            world.reactor.settle()
            self.assertEqual(client.reason is None, connected)
        self.assertEqual(tls.looks, 2)
        server.reload_certificates()
        self.assertEqual(tls.looks, 3)
        world.proxy.reload()
        self.assertEqual(tls.looks, 4)
        world.proxy.reload_certificates()
        self.assertEqual(tls.looks, 5)
        [item] = world.ask("/api/tunnel/v1/certificates").json["items"]
        self.assertEqual(
            (item["use"], item["name"], item["not_after"]), ("admin.tls_context", "CN=admin", 2e9)
        )
        self.assertIn(b'{name="CN=admin",use="admin.tls_context"} 2e+09\n', world.ask("/metrics").body)
        world.proxy.stopService()
        world.reactor.settle()
        world.reactor.advance(RELOAD_INTERVAL)
        self.assertEqual(tls.looks, 5)

    def test_a_file_of_tokens_that_is_missing(self) -> None:
        with self.assertRaises(ConfigError) as caught:
            World({**ADMIN, "tokens_file": "nowhere.json"})
        self.assertIn("admin.tokens_file: can't read nowhere.json", str(caught.exception))

    def test_none_without_an_address(self) -> None:
        for admin in (None, {}, {"address": {}}):
            world = World(admin)
            self.assertIsNone(world.proxy.admin)
            self.assertRaises(Refused, world.connect, PORT)


class MosnTests(AdminTestCase):
    def test_the_level_of_the_log(self) -> None:
        """It is set for the log that has the path, by its name in MOSN, and written down."""
        world = self.with_tokens()
        observer = make_observer(self.mktemp(), "INFO")
        self.addCleanup(observer.close)
        world.proxy.inspector.parts.observer = observer
        token = {"Authorization": f"Bearer {OPERATE}"}
        path = "/api/v1/update_loglevel"
        for body in (
            b"{",
            b"[]",
            b'{"log_path": "x", "log_level": "DEBUG"}',
            b'{"log_path": "", "log_level": 5}',
        ):
            self.assertEqual(world.ask(path, "POST", body, **token).status, 400, body)
        self.assertEqual(observer.level, "INFO")
        body = json.dumps({"log_path": observer.file.path, "log_level": "debug"}).encode()
        with capture() as events:
            self.assertEqual(world.ask(path, "POST", body, **token).status, 200)
        self.addCleanup(setattr, observer, "level", "INFO")  # which the whole process knows of
        self.assertEqual(observer.level, "DEBUG")
        self.assertIn(f"audit: ops: log level: {body.decode()}", events.text())
        self.assertEqual(world.ask("/api/v1/get_loglevel", **token).json, {observer.file.path: "DEBUG"})
        [entry] = world.ask("/api/tunnel/v1/audit", **token).json["items"]
        self.assertEqual((entry["caller"], entry["what"]), ("ops", "log level"))

    def test_logs_that_are_not_written(self) -> None:
        world = self.with_tokens()
        observer = make_observer(self.mktemp(), "INFO")
        self.addCleanup(observer.close)
        world.proxy.inspector.parts.observer = observer
        token = {"Authorization": f"Bearer {OPERATE}"}
        path = observer.file.path
        answer = world.ask("/api/v1/disable_log", "POST", b"nowhere", **token)
        self.assertEqual((answer.status, answer.json), (400, {"error": "disable logger failed"}))
        self.assertEqual(world.ask("/api/v1/disable_log", Authorization=f"Bearer {READ}").status, 405)
        self.assertEqual(
            world.ask("/api/v1/disable_log", "POST", path.encode(), Authorization=f"Bearer {READ}").status,
            403,
        )
        for what, lines in (("disable", 0), ("enable", 1)):
            answer = world.ask(f"/api/v1/{what}_log", "POST", path.encode(), **token)
            self.assertEqual((answer.status, answer.body), (200, f"{what} logger success\n".encode()))
            observer({"log_level": LogLevel.info, "log_namespace": "x", "log_format": "a line"})
            self.assertEqual(len(Path(path).read_text().splitlines()), lines)
        entries = world.ask("/api/tunnel/v1/audit", **token).json["items"]
        self.assertEqual(
            [(each["what"], each["told"]) for each in entries], [("enable log", path), ("disable log", path)]
        )

    def test_answers(self) -> None:
        world = World()
        self.assertRegex(
            world.ask("/api/v1/version").body.decode(), r"^mosn version: \S+ \(reverseproxy\)\n$"
        )
        self.assertEqual(world.ask("/api/v1/states").body.decode(), f"pid={os.getpid()}&state=6\n")
        self.assertEqual(world.ask("/api/v1/get_loglevel").json, {})
        self.assertEqual(world.ask("/api/v1/stats?key=nothing").body, b"no metrics key: nothing")
        self.assertIn(b"reverseproxy_hosts\n", world.ask("/api/v1/stats").body)
        self.assertIn(b"downstream_request_total:0\n", world.ask("/api/v1/stats_glob").body)

    def test_the_configuration(self) -> None:
        validators = {"static": {"tokens": [{"agent": "a", "token": "very secret"}]}}
        world = World(tunnel_config={"credential_policy": "static", "validators": validators})
        text = world.ask("/api/v1/config_dump").body.decode()
        self.assertNotIn("very secret", text)
        self.assertIn('"credential_policy": "static"', text)
        self.assertEqual(world.ask("/api/v1/config_dump?cluster=clientCluster").json["name"], "clientCluster")
        self.assertEqual(
            sorted(world.ask("/api/v1/config_dump?alllisteners").json), ["clientListener", "tunnelListener"]
        )
        self.assertIn("client_router", world.ask("/api/v1/config_dump?allrouters").json)
        self.assertEqual(world.ask("/api/v1/config_dump?cluster=none").status, 500)
        self.assertEqual(world.ask("/api/v1/config_dump?a=1&b=2").status, 400)


class MetricsTests(AdminTestCase):
    def metrics(self, world: World, path: str = "/metrics") -> dict[tuple[str, frozenset[str]], float]:
        """The samples, by name and values of labels."""
        text = world.ask(path).body.decode()
        return {
            (sample.name.removeprefix("reverseproxy_"), frozenset(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def test_figures(self) -> None:
        world = World()
        world.agent(connections=2)
        for _ in range(3):
            self.assertEqual(world.request().status, 200)
        found = self.metrics(world)

        def figure(name: str, *labels: str) -> float:
            return found[name, frozenset(labels)]

        where = ("clientListener", "clientCluster")
        self.assertEqual(
            figure("http_requests_total", *where, "client_router_host", "client_router_host[0]", "2xx"), 3
        )
        self.assertEqual(figure("http_request_duration_seconds_count", *where), 3)
        self.assertEqual(figure("bytes_total", "clientListener", "sent"), 3 * len("answered by the agent"))
        self.assertEqual(figure("tunnel_joins_total", "clientCluster", "accepted"), 2)
        self.assertEqual(figure("tunnel_connections", "clientCluster", "streams"), 2)
        self.assertEqual(figure("tunnel_agents", "clientCluster"), 1)
        self.assertEqual(figure("hosts", "clientCluster", "healthy"), 2)
        self.assertEqual(figure("listener_connections_total", "clientListener"), 3)
        self.assertEqual(figure("tunnel_handshake_duration_seconds_count"), 2)

    def test_of_single_agents(self) -> None:
        """So many have series of their own, for as long as they are there; the others have one together."""
        self.patch(agent_index, "MOST_NAMED", 1)
        world = World()
        world.agent(connections=2)
        self.assertEqual(world.request().status, 200)
        [first] = world.ask("/api/tunnel/v1/agents").json["items"]
        other = world.agent()
        for _ in range(3):
            world.request()
        found = self.metrics(world, "/metrics/agents")

        def figure(name: str, *labels: str) -> float:
            return found[f"per_agent_{name}", frozenset(labels)]

        own = (first["id"], "unproved")
        self.assertEqual(figure("connections", *own), 2)
        self.assertEqual(figure("connections", OTHER), 1)
        requests = figure("requests_total", *own, "2xx") + figure("requests_total", OTHER, "2xx")
        self.assertEqual(requests, 4)
        size = figure("bytes_total", *own, "sent") + figure("bytes_total", OTHER, "sent")
        self.assertEqual(size, 4 * len("answered by the agent"))
        self.assertIn(("per_agent_request_p99_seconds", frozenset(own)), found)
        before = figure("requests_total", OTHER, "2xx")
        other.agents[0].drain()
        world.reactor.advance(1)
        found = self.metrics(world, "/metrics/agents")
        self.assertEqual(figure("requests_total", OTHER, "2xx"), before)
        # The rule keeps what it has had of both; the counters that it shared with one are free for another.
        where = ("clientListener", "client_router_host", "client_router_host[0]", "clientCluster", "2xx")
        self.assertEqual(self.metrics(world)["http_requests_total", frozenset(where)], 4)
        [cell] = world.proxy.inspector.parts.tallies["clientListener"].cells.values()
        self.assertEqual(len(cell.shares), 1)

    def test_what_waits_and_what_is_late(self) -> None:
        world = World()
        client = world.connect(CLIENT)
        world.reactor.advance(1.0)
        agent = world.agent()
        client.transport.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        world.reactor.settle()
        world.reactor.advance(3.0)
        found = self.metrics(world)
        self.assertEqual(found["cluster_wait_seconds_count", frozenset({"clientCluster"})], 0)
        self.assertGreater(found["reactor_lag_seconds_count", frozenset()], 1)
        # The clock has gone on by three seconds at once: so late was what is done twice in each.
        self.assertGreater(found["reactor_lag_seconds_sum", frozenset()], 2)
        self.assertGreaterEqual(found["tunnel_rtt_seconds_count", frozenset({"clientCluster"})], 1)
        self.assertEqual(found["retries_total", frozenset({"clientCluster"})], 0)
        [server] = agent.inspector.answer("servers", {})["items"]
        self.assertEqual((server["dials"], server["last_error"]), ({"accepted": 1}, None))

    def test_dials(self) -> None:
        """An agent says how its attempts to connect have ended, and when the next one is."""
        world = World(tunnel_config=STATIC)
        agent = world.agent()
        [server] = agent.inspector.answer("servers", {})["items"]
        self.assertEqual((server["serving"], server["wanted"]), (0, 1))
        self.assertEqual(set(server["dials"]), {"refused"})
        self.assertIn("credential", server["last_error"]["reason"])
        self.assertGreater(server["next_dial_seconds"], 0)
        families = {each["name"]: each for each in agent.inspector.answer("metrics", {})}
        samples = families["reverseproxy_agent_dials_total"]["samples"]
        self.assertEqual(
            samples, [[["clientCluster", "127.0.0.1:3000", "refused"], server["dials"]["refused"]]]
        )

    def test_leaving(self) -> None:
        world = World()
        agent = world.agent()
        agent.agents[0].drain()
        world.reactor.advance(1)
        world.reactor.settle()
        self.assertEqual(
            self.metrics(world)["tunnel_leaves_total", frozenset(("clientCluster", "agent_left"))], 1
        )

    def test_refusals(self) -> None:
        world = World(
            tunnel_config={
                "credential_policy": "static",
                "validators": {"static": {"tokens": [{"agent": "a", "token": "very secret"}]}},
            }
        )
        world.agent()
        found = self.metrics(world)
        self.assertGreaterEqual(
            found["tunnel_joins_total", frozenset(("clientCluster", "credential_rejected"))], 1
        )
        [refusal, *_] = world.proxy.inspector.parts.tunnels["tunnelListener"].tally.refusals
        self.assertIn("demands the credential policy 'static'", refusal["reason"])
        self.assertIn("give the agent a valid credential", refusal["remedy"])

    def test_nothing_is_counted_where_nobody_may_ask(self) -> None:
        world = World(None)
        world.agent()
        self.assertEqual(world.request().status, 200)
        self.assertEqual(world.proxy.inspector.parts.tallies, {})
        self.assertEqual(world.proxy.inspector.parts.journal.last, 0)
