"""Tests for C{/api/tunnel/v1}, of a server and its agents in memory."""

from __future__ import annotations

import copy
import json
import time
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.task import Clock

from reverseproxy.admin.api import PATHS
from reverseproxy.admin.events import MOST_STREAMS, PERIOD, EventStream
from reverseproxy.admin.merging import merge_agent_routes, merge_agents, merge_by_name, shown
from reverseproxy.admin.messages import compact
from reverseproxy.admin.paging import cut
from reverseproxy.admin.routes import Routes
from reverseproxy.admin.service import REFUSED_BURST
from reverseproxy.admin.slices import at_once
from reverseproxy.admin.sources import Answer as Answered
from reverseproxy.clock import wall_time
from reverseproxy.config.loader import Loaded, loads
from reverseproxy.errors import ConfigError, Problem
from reverseproxy.testing import Recorder
from reverseproxy.tunnel.server.exclusion_records import id_of
from tests.admin.test_service import OPERATE, READ, AdminTestCase
from tests.admin.world import PORT, STATIC, Answer, World
from tests.config.documents import TUNNEL_SERVER
from tests.transport.contract import CallableFactory
from tests.tunnel.logged import capture

API = "/api/tunnel/v1"
BEARER = f"Bearer {OPERATE}"


def items(world: World, path: str, **headers: str) -> list[Any]:
    """The items of a list."""
    answer = world.ask(f"{API}/{path}", **headers)
    assert answer.status == 200, answer
    found: list[Any] = answer.json["items"]
    return found


class ReadingTests(AdminTestCase):
    def test_agents(self) -> None:
        world = World(tunnel_config=STATIC)
        world.agent(
            connections=2,
            credential_policy="static",
            credential_config={"token": "very secret"},
            host_name="box 1",
        )
        self.assertEqual(world.request().status, 200)
        [agent] = items(world, "agents")
        known = {
            "identity": "token:edge-7",
            "proved": True,
            "token": "edge-7",
            "policy": "static",
            "certificate": None,
            "claimed_host_name": "box 1",
            "kind": "reverseproxy",
            "clusters": ["clientCluster"],
            "connections": 2,
            "healthy": 2,
            "mux": True,
            "requests": 1,
            "in_flight": 0,
            "excluded": None,
            "workers": [],
        }
        self.assertEqual({name: agent[name] for name in known}, known)
        self.assertEqual(len(agent["addresses"]), 2)
        self.assertNotIn("targets", agent)
        self.assertEqual(world.ask(f"{API}/agents/{agent['id']}").json["identity"], "token:edge-7")
        self.assertEqual(world.ask(f"{API}/agents/none").status, 404)
        for query, number in (
            ("identity=token:edge-7", 1),
            ("identity=unproved", 0),
            ("cluster=clientCluster", 1),
            ("cluster=other", 0),
            (f"ids=none,{agent['id']},", 1),
            ("ids=", 0),
        ):
            found = [each["id"] for each in items(world, f"agents?{query}")]
            self.assertEqual(found, [agent["id"]] * number, query)
        self.assertEqual(world.ask(f"{API}/agents?ids={'x,' * 201}").status, 400)

    def test_what_agents_have_had(self) -> None:
        world = World()
        service = world.reactor.listenTCP(4000, CallableFactory(Recorder))
        world.agent(connections=2, backend="127.0.0.1:4000")
        client = world.connect(2000)
        client.transport.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789")
        world.reactor.settle()
        [agent] = items(world, "agents")
        self.assertEqual((agent["requests"], agent["in_flight"], agent["p99_seconds"]), (0, 1, None))
        service.stopListening()
        for _ in range(2):
            self.assertIn(world.request().status, (502, 503))
        [agent] = items(world, "agents")
        self.assertEqual((agent["requests"], agent["errors"]), (2, 2))
        self.assertEqual(agent["requests_by_class"], {"5xx": 2})
        self.assertEqual((agent["most_connections"], agent["tls"], agent["version"]), (2, None, 1))
        self.assertGreater(agent["bytes"]["sent"], 0)

    def test_summary(self) -> None:
        world = World()
        world.agent()
        for _ in range(3):
            world.request()
        for _ in range(12):
            world.reactor.advance(0.5)
        found = world.ask(f"{API}/summary").json
        known = {"agents": 1, "connections": 1, "requests": 3, "errors": 0, "waiting": 0, "workers": 0}
        self.assertEqual({name: found[name] for name in known}, known)
        self.assertEqual(found["caller"]["role"], "read")
        self.assertIsNotNone(found["p99_seconds"])
        self.assertEqual(found["history"]["requests"], [3])
        self.assertEqual(found["history"]["clusters"], {"clientCluster": [3]})

    def test_figures_of_routes(self) -> None:
        world = World()
        [rule] = items(world, "routes")
        self.assertEqual(rule["figures"]["requests"], 0)
        world.agent()
        world.request()
        [rule] = items(world, "routes")
        self.assertEqual(rule["figures"]["requests_by_class"], {"2xx": 1})
        self.assertEqual(rule["figures"]["bytes"]["sent"], len("answered by the agent"))

    def test_pages(self) -> None:
        world = World()
        for _ in range(5):
            world.agent()
        every = [agent["id"] for agent in items(world, "agents")]
        self.assertEqual(len(every), 5)
        self.assertEqual(every, sorted(every))
        found: list[str] = []
        after: str | None = ""
        while after is not None:
            answer = world.ask(f"{API}/agents?limit=2&after={after}").json
            found += [agent["id"] for agent in answer["items"]]
            after = answer["next"]
        self.assertEqual(found, every)
        for limit in ("0", "501", "x", "-1", "99999999999", "\u0665"):
            self.assertEqual(world.ask(f"{API}/agents?limit={limit}".encode().decode("latin-1")).status, 400)

    def test_agents_that_leave(self) -> None:
        world = World()
        agent = world.agent()
        self.assertEqual(len(items(world, "agents")), 1)
        agent.agents[0].drain()
        world.reactor.advance(1)
        self.assertEqual(items(world, "agents"), [])

    def test_clusters_and_hosts(self) -> None:
        world = World()
        world.agent(connections=3)
        [cluster] = items(world, "clusters")
        self.assertEqual((cluster["name"], cluster["hosts"], cluster["healthy"]), ("clientCluster", 3, 3))
        hosts = items(world, "clusters/clientCluster/hosts")
        self.assertEqual([host["state"] for host in hosts], ["idle"] * 3)
        page = world.ask(f"{API}/clusters/clientCluster/hosts?limit=2").json
        self.assertEqual(page["next"], hosts[1]["address"])
        self.assertEqual(world.ask(f"{API}/clusters/none/hosts").status, 404)

    def test_a_host_that_is_left_out(self) -> None:
        """It says until when, and why; a host that is well says nothing."""
        world = World()
        world.agent(connections=2)
        cluster = next(each for each in world.proxy.inspector.parts.clusters if each.name == "clientCluster")
        bad, _ = sorted(cluster.hosts.values(), key=lambda host: host.address)
        cluster.ejector.rest(bad, 20.0, "it answers for nobody")
        first, second = items(world, "clusters/clientCluster/hosts")
        self.assertEqual((first["healthy"], first["faults"]), (False, ["ejected for failures"]))
        self.assertIn("it answers for nobody", first["why"])
        self.assertApproximates(first["ejected_until"], time.time() + 20, 5)
        self.assertEqual((second["why"], second["ejected_until"]), (None, None))
        world.reactor.advance(30)
        first, _ = items(world, "clusters/clientCluster/hosts")
        self.assertEqual((first["healthy"], first["why"], first["ejected_until"]), (True, None, None))

    def test_listeners(self) -> None:
        names = {item["name"]: item for item in items(World(), "listeners")}
        self.assertEqual(sorted(names), ["clientListener", "tunnelListener"])
        self.assertEqual(names["clientListener"]["address"], "127.0.0.1:2000")
        self.assertTrue(names["clientListener"]["bound"])

    def test_what_agents_feed_to_a_listener(self) -> None:
        """Connections of servers, and the streams on them, are connections of the hosting listener."""
        for mux in (True, False):
            with self.subTest(mux=mux):
                world = World()
                agent = world.agent(connections=2, mux=mux)
                ask = agent.inspector.answer
                [listener] = ask("listeners", {})["items"]
                idle = 0 if mux else 2
                self.assertEqual((listener["connections"], listener["accepted"]), (idle, idle))
                world.request()
                [listener] = ask("listeners", {})["items"]
                self.assertEqual((listener["connections"], listener["accepted"]), (1 if mux else 2,) * 2)
                families = {each["name"]: each["samples"] for each in ask("metrics", {})}
                for name in ("connections", "connections_total"):
                    [[_, number]] = families[f"reverseproxy_listener_{name}"]
                    self.assertEqual(number, listener["connections"])
                agent.agents[0].plan.sink.abort()
                agent.stopService()
                world.reactor.settle()
                [listener] = ask("listeners", {})["items"]
                self.assertEqual(listener["connections"], 0)

    def test_routes(self) -> None:
        world = World()
        [rule] = items(world, "routes")
        self.assertEqual(rule["place"], "servers[0].routers[0].virtual_hosts[0].routers[0]")
        [found] = items(world, "routes:explain?method=GET&host=a&path=/x%3Fq=1&header=X-A:%201")
        self.assertEqual((found["listener"], found["outcome"]), ("clientListener", "cluster clientCluster"))
        self.assertEqual(found["place"], rule["place"])
        for query in ("path=x", "header=x", "nonsense=1"):
            self.assertEqual(world.ask(f"{API}/routes:explain?{query}").status, 400, query)
        self.assertEqual(items(world, "routes:explain?listener=none"), [])

    def test_many_routes(self) -> None:
        """They come in the order in which they count, page after page; those of agents are first."""
        document = copy.deepcopy(TUNNEL_SERVER)
        [host] = document["servers"][0]["routers"][0]["virtual_hosts"]
        [last] = host["routers"]
        first = [{"match": {"prefix": f"/{number}"}, "route": last["route"]} for number in range(24)]
        host["routers"] = [*first, last]
        routes = Routes(loads(json.dumps(document), "c.json").config)
        brought = [{"place": f"agents.a{number}"} for number in (10, 2)]
        places: list[str] = []
        after: str | None = ""
        while after is not None:
            page, after = at_once(routes.page(after, 5, brought))
            self.assertLessEqual(len(page), 5)
            places += [item["place"] for item in page]
        place = "servers[0].routers[0].virtual_hosts[0].routers"
        self.assertEqual(places, ["agents.a2", "agents.a10", *(f"{place}[{number}]" for number in range(25))])

    def test_routes_of_agents(self) -> None:
        """What an agent has brought stands beside the configuration's, and takes its requests."""
        world = World()
        claim = {
            "router": "client_router",
            "virtual_host": "agent of app",
            "place": "agents.app",
            "listener": "tunnelListener",
            "cluster": "app",
            "domains": ["app.example"],
            "connections": 1,
            "ends_in": None,
        }
        questions = world.proxy.inspector._questions
        questions["routes"] = lambda arguments: [claim]
        (brought,) = [each for each in items(world, "routes") if each["place"] == "agents.app"]
        self.assertEqual({name: brought[name] for name in claim}, claim)
        [found] = items(world, "routes:explain?host=app.example:80")
        self.assertEqual((found["place"], found["outcome"]), ("agents.app", "cluster app"))
        [found] = items(world, "routes:explain?host=other.example")
        self.assertNotEqual(found["place"], "agents.app")

    def test_routes_of_agents_of_several_workers(self) -> None:
        """All know all of them, and each its own connections."""

        def said(cluster: str, connections: int, ends_in: float | None) -> dict[str, Any]:
            return {"listener": "t", "cluster": cluster, "connections": connections, "ends_in": ends_in}

        one = [said("a", 1, None), said("b", 0, 20.0), said("c", 1, None)]
        other = [said("a", 1, None), said("b", 0, 25.0), said("c", 0, 10.0)]
        self.assertEqual(
            at_once(merge_agent_routes([one, other])),
            [said("a", 2, None), said("b", 0, 25.0), said("c", 1, None)],
        )

    def test_refused(self) -> None:
        world = World(tunnel_config=STATIC)
        world.agent(host_name="boss")
        [refusal, *_] = items(world, "joins/refused")
        self.assertEqual(
            (refusal["result"], refusal["claimed_host_name"], refusal["cluster"], refusal["listener"]),
            ("credential_rejected", "boss", "clientCluster", "tunnelListener"),
        )
        self.assertIn("give the agent a valid credential", refusal["remedy"])

    def test_all_refused(self) -> None:
        """All that are kept can be read, page by page, the latest first."""
        world = World(tunnel_config=STATIC)
        refusals = world.proxy.inspector.parts.tunnels["tunnelListener"].tally.refusals
        refusals.extend({"time": 1000.25 + number // 400, "reason": str(number)} for number in range(1000))
        found: list[Any] = []
        after, pages = "", 0
        while pages < 20:
            page = world.ask(f"{API}/joins/refused?limit=300&after={after}").json
            self.assertLessEqual(len(page["items"]), 300)
            found += page["items"]
            pages += 1
            after = page["next"]
            if after is None:
                break
        self.assertEqual((pages, len(found), len({each["reason"] for each in found})), (4, 1000, 1000))
        self.assertEqual([each["time"] for each in found], sorted((e["time"] for e in found), reverse=True))
        for after in ("x", "nan", "inf", "-inf"):
            self.assertEqual(world.ask(f"{API}/joins/refused?after={after}").status, 400, after)

    def test_servers_of_several_workers(self) -> None:
        """Each worker of an agent dials the servers itself."""

        def said(serving: int, dials: Any, error: Any, next_dial: float | None) -> dict[str, Any]:
            item = {"name": "c at s", "wanted": 2, "serving": serving, "dials": dials, "last_error": error}
            return {**item, "next_dial_seconds": next_dial}

        late, early = {"time": 5.0, "reason": "late"}, {"time": 4.0, "reason": "early"}
        one = [said(2, {"accepted": 2, "refused": 1}, early, None)]
        other = [said(0, {"accepted": 1, "unreachable": 7}, late, 3.0)]
        dials = {"accepted": 3, "refused": 1, "unreachable": 7}
        expected = [{**said(2, dials, late, 3.0), "wanted": 4}]
        for answers in ([one, other], [other, one]):
            self.assertEqual(at_once(merge_by_name(answers)), expected)
        [item] = at_once(merge_by_name([[said(0, {}, None, 2.0)], [said(0, {}, None, 1.0)]]))
        self.assertEqual((item["last_error"], item["next_dial_seconds"]), (None, 1.0))

    def test_a_good_credential_for_another_cluster(self) -> None:
        """Who it is has been proved, and is said: there is somebody to ask."""
        token = {"agent": "edge-7", "token": "very secret", "clusters": ["elsewhere"]}
        world = World(
            tunnel_config={"credential_policy": "static", "validators": {"static": {"tokens": [token]}}}
        )
        with capture() as events:
            world.agent(credential_policy="static", credential_config={"token": "very secret"})
        [refusal, *_] = items(world, "joins/refused")
        self.assertEqual(
            (refusal["result"], refusal["identity"], refusal["proved"]),
            ("cluster_forbidden", "token:edge-7", True),
        )
        self.assertIn("allow this cluster in the credential", refusal["remedy"])
        self.assertIn("of agent edge-7 (token of policy static)", events.text())

    def test_certificates(self) -> None:
        """Page by page, the first to expire first; all of them, if there are more than one page has."""
        world = World()
        many = [
            {
                "use": f"place {number % 3}",
                "name": f"c{number}",
                "not_before": 0.0,
                "not_after": 1e9 - number // 2,
            }
            for number in range(1003)
        ]
        world.proxy.inspector.parts.certificates = lambda: many
        for query, size in (("", 500), ("limit=7&", 7)):
            found: list[dict[str, Any]] = []
            after, pages = "", 0
            while pages < 200:
                page = world.ask(f"{API}/certificates?{query}after={quote(after)}").json
                self.assertLessEqual(len(page["items"]), size)
                found += page["items"]
                pages += 1
                if page["next"] is None:
                    break
                after = page["next"]
            self.assertEqual(len(found), 1003)
            self.assertEqual(
                sorted(each["not_after"] for each in found), [each["not_after"] for each in found]
            )

    def test_what_does_not_expire(self) -> None:
        """Revocation lists need not say when; they come last, and JSON has no infinity for them."""
        world = World()
        ends = {"never": inf, "late": 253402300799.0, "before 1970": -1.0, "soon": 1e9}
        world.proxy.inspector.parts.certificates = lambda: [
            {"use": "somewhere", "name": name, "not_before": 0.0, "not_after": end}
            for name, end in ends.items()
        ]

        def refuse(constant: str) -> float:
            raise ValueError(f"{constant} is not JSON")

        found, after = [], ""
        while len(found) < len(ends):
            answer = world.ask(f"{API}/certificates?limit=1&after={quote(after)}")
            page = json.loads(answer.body, parse_constant=refuse)
            found += page["items"]
            after = page["next"] or after
        self.assertEqual(
            [(each["name"], each["not_after"]) for each in found],
            [("before 1970", -1.0), ("soon", 1e9), ("late", 253402300799.0), ("never", None)],
        )
        self.assertIsNone(page["next"])
        self.assertIn(b'name="never",use="somewhere"} +Inf\n', world.ask("/metrics").body)
        self.assertRaises(ValueError, compact, [inf])

    def test_the_rest(self) -> None:
        world = World()
        for path in ("certificates", "servers", "workers", "audit"):
            self.assertEqual(items(world, path), [])
        listed = world.ask("/").body.decode()
        for path in PATHS:
            self.assertIn(f"{API}/{path}\n", listed)
        for path in ("", "nowhere", "agents/", "agents/a/b", "clusters/a", "joins"):
            self.assertEqual(world.ask(f"{API}/{path}").status, 404, path)


class DescriptionTests(AdminTestCase):
    def test_openapi(self) -> None:
        """Every path is described, and what it says of methods and answers is so."""
        world = self.with_tokens()
        document = world.ask(f"{API}/openapi.json", Authorization=BEARER).json
        self.assertEqual(set(document["paths"]), {f"/{path}" for path in PATHS})
        [url] = [server["url"] for server in document["servers"]]
        self.assertEqual(url, API)
        for path, operations in document["paths"].items():
            target = url + path.replace("{id}", "none").replace("{name}", "clientCluster")
            target = target.replace("{address}", "none")
            for method in ("get", "post", "delete", "put"):
                if path == "/events" and method == "get":
                    continue  # which does not end
                answer = world.ask(target, method.upper(), Authorization=BEARER)
                if method not in operations:
                    self.assertEqual(answer.status, 405, (method, path))
                    continue
                described = operations[method]["responses"][str(answer.status)]
                [content_type] = described["content"]
                self.assertEqual(answer.headers["content-type"], content_type)
                name = described["content"][content_type]["schema"]["$ref"].rpartition("/")[2]
                required = document["components"]["schemas"][name].get("required", [])
                self.assertEqual([key for key in required if key not in answer.json], [])


class ConfigurationTests(AdminTestCase):
    def post(self, world: World, name: str, document: Any = None) -> Answer:
        body = b"" if document is None else json.dumps(document).encode()
        return world.ask(f"{API}/config:{name}", "POST", body, Authorization=BEARER)

    def world(self) -> tuple[World, Any]:
        """One that has a file, and the document in it."""
        world = self.with_tokens()
        document = json.loads(json.dumps(world.document))
        world.proxy.read_from(lambda: loads(json.dumps(document), "the.json"))
        return world, document

    def test_reload(self) -> None:
        world, document = self.world()
        state = world.ask(f"{API}/config", Authorization=BEARER).json
        self.assertEqual((state["generation"], state["successful"], state["last"]), (1, True, None))
        document["cluster_manager"]["clusters"].append({"name": "more"})
        changes = self.post(world, "diff").json["changes"]
        self.assertEqual(changes["clusters"], {"added": ["more"], "changed": [], "removed": []})
        self.assertNotIn("more", world.proxy.clusters)
        answer = self.post(world, "reload")
        self.assertEqual((answer.status, answer.json["generation"]), (200, 2))
        self.assertIn("more", world.proxy.clusters)
        names = [item["name"] for item in items(world, "clusters", Authorization=BEARER)]
        self.assertEqual(names, ["clientCluster", "more"])
        [entry] = items(world, "audit", Authorization=BEARER)
        self.assertEqual(entry["what"], "reload the configuration")
        self.assertIn("1 added", entry["told"])

    def test_what_can_t_be_used(self) -> None:
        world, document = self.world()
        document["cluster_manager"]["clusters"][0]["lb_type"] = 7
        for name in ("validate", "diff", "reload"):
            answer = self.post(world, name)
            self.assertEqual((answer.status, answer.json["successful"]), (422, False))
            self.assertIn("lb_type", answer.json["problems"][0]["path"])
        state = world.ask(f"{API}/config", Authorization=BEARER).json
        self.assertEqual((state["generation"], state["successful"]), (1, False))
        metrics = world.ask("/metrics", Authorization=BEARER).body.decode()
        self.assertIn("reverseproxy_config_generation 1.0", metrics)
        self.assertIn("reverseproxy_config_last_reload_successful 0.0", metrics)
        [event] = world.proxy.inspector.parts.journal.since(0)
        self.assertEqual((event["kind"], event["file"], event["generation"]), ("reload_failed", "", 1))
        self.assertIn("lb_type", event["reason"])
        document["cluster_manager"]["clusters"][0]["lb_type"] = "LB_RANDOM"
        self.assertEqual(self.post(world, "reload").status, 200)
        kinds = [each["kind"] for each in world.proxy.inspector.parts.journal.since(0)]
        self.assertEqual(kinds, ["reload_failed", "reload"])

    def test_whoever_asks_is_not_cut_off(self) -> None:
        """Connections to the admin API stay, unless it has other certificates."""
        world, document = self.world()
        document["cluster_manager"]["clusters"].append({"name": "more"})
        client = world.connect()
        head = f"POST {API}/config:reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: {BEARER}\r\n"
        for _ in range(2):
            client.data = b""
            client.transport.write(f"{head}Content-Length: 0\r\n\r\n".encode())
            world.reactor.settle()
            self.assertIn(b" 200 OK", client.data)
        world.reactor.advance(5)
        self.assertIsNone(client.reason)

    def test_a_document_in_the_request(self) -> None:
        world, document = self.world()
        document["servers"][0]["processor"] = 4
        answer = self.post(world, "diff", document)
        self.assertEqual(list(answer.json["needs_restart"]), ["servers[0].processor"])
        self.assertEqual(self.post(world, "validate", {}).status, 422)
        self.assertEqual(self.post(world, "validate", "{").status, 422)
        self.assertEqual(self.post(world, "reload", document).status, 400)

    def post_later(self, world: World, document: Any) -> Recorder:
        """Send a document to be validated; the answer may come later."""
        client = world.connect()
        body = json.dumps(document)
        head = f"POST {API}/config:validate HTTP/1.1\r\nHost: localhost\r\nAuthorization: {BEARER}\r\n"
        client.transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        world.reactor.settle()
        return client

    def test_documents_are_parsed_one_after_the_other(self) -> None:
        """Where the process does that: in a thread, so that requests don't wait for it."""
        world, document = self.world()
        parsed: list[Deferred[Loaded]] = []

        def parse(text: str, file: str, yaml: bool) -> Deferred[Loaded]:
            self.assertEqual((json.loads(text), file, yaml), (document, "the body of the request", False))
            parsed.append(Deferred())
            return parsed[-1]

        self.patch(world.proxy.living.reloading, "parse", parse)
        clients = [self.post_later(world, document) for _ in range(2)]
        self.assertEqual(len(parsed), 1)
        parsed[0].callback(loads(json.dumps(document), "the.json"))
        world.reactor.settle()
        self.assertIn(b" 200 OK", clients[0].data)
        self.assertEqual((len(parsed), clients[1].data), (2, b""))
        parsed[1].errback(ConfigError(Problem("the.json", "", "wrong")))
        world.reactor.settle()
        self.assertIn(b" 422 ", clients[1].data)

    def test_another_address(self) -> None:
        """The answer still comes, and the audit stays."""
        world, document = self.world()
        document["admin"]["address"]["socket_address"]["port_value"] = 9901
        self.assertEqual(self.post(world, "reload").status, 200)
        self.assertRaises(Refused, world.connect)
        answer = world.ask(f"{API}/audit", port=9901, Authorization=BEARER)
        self.assertEqual(len(answer.json["items"]), 1)
        del document["admin"]
        report = world.proxy.reload()
        self.assertTrue(self.successResultOf(report).successful)
        world.reactor.advance(2)
        self.assertRaises(Refused, world.connect, 9901)
        self.assertIsNone(world.proxy.admin)
        document["admin"] = world.document["admin"]
        self.assertTrue(self.successResultOf(world.proxy.reload()).successful)
        self.assertEqual(world.ask("/healthz").status, 200)


class ChangingTests(AdminTestCase):
    def test_weights(self) -> None:
        """A host's weight counts from now on, for as long as it is there."""
        world = self.with_tokens(cluster={"lb_type": "LB_WEIGHTED_ROUNDROBIN"})
        world.agent(connections=2)
        hosts = items(world, "clusters/clientCluster/hosts", Authorization=BEARER)
        first, second = (host["address"] for host in hosts)
        path = f"{API}/clusters/clientCluster/hosts/{first}/weight"
        for body in (
            b"",
            b"5",
            b"[]",
            b"{}",
            b'{"weight": 0}',
            b'{"weight": 129}',
            b'{"weight": true}',
            b'{"weight": "5"}',
        ):
            self.assertEqual(world.ask(path, "PUT", body, Authorization=BEARER).status, 400, body)
        body = b'{"weight": 90}'
        self.assertEqual(world.ask(path, "PUT", body, Authorization=f"Bearer {READ}").status, 403)
        for missing in ("clusters/none/hosts/x/weight", "clusters/clientCluster/hosts/none/weight"):
            self.assertEqual(world.ask(f"{API}/{missing}", "PUT", body, Authorization=BEARER).status, 404)
        with capture() as events:
            answer = world.ask(path, "PUT", body, Authorization=BEARER)
        self.assertEqual((answer.status, answer.json["before"], answer.json["weight"]), (200, 10, 90))
        told = f"weight of {first} in cluster clientCluster: 10 before, 90 now"
        self.assertIn(f"audit: ops: weight: {told}", events.text())
        [entry] = items(world, "audit", Authorization=BEARER)
        self.assertEqual((entry["what"], entry["told"]), ("weight", told))
        for _ in range(20):
            self.assertEqual(world.request().status, 200)
        picked = {
            host["address"]: (host["weight"], host["requests"])
            for host in items(world, "clusters/clientCluster/hosts", Authorization=BEARER)
        }
        self.assertEqual(picked, {first: (90, 18), second: (10, 2)})

    def change(self, world: World, path: str, method: str = "POST", token: str = OPERATE, **more: str) -> Any:
        return world.ask(f"{API}/{path}", method, Authorization=f"Bearer {token}", **more)

    def agent(self, world: World) -> Any:
        found = items(world, "agents", Authorization=BEARER)
        return found[0] if found else None

    def settle(self, world: World, seconds: int = 20) -> None:
        for _ in range(seconds * 4):
            world.reactor.advance(0.25)

    def test_draining(self) -> None:
        """What is under way is finished; nothing new is given to it; it comes back when it may."""
        world = self.with_tokens()
        service: list[Recorder] = []

        class Slow(Recorder):
            def connectionMade(self) -> None:
                service.append(self)

        world.reactor.listenTCP(4000, CallableFactory(Slow))
        world.agent(backend="127.0.0.1:4000")
        client = world.connect(2000)
        client.transport.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        world.reactor.settle()
        [connection] = service
        agent = self.agent(world)
        self.assertEqual(self.change(world, f"agents/{agent['id']}/drain", token=READ).status, 403)
        with capture() as events:
            answer = self.change(world, f"agents/{agent['id']}/drain")
        self.assertEqual((answer.status, answer.json["connections"]), (202, 1))
        self.assertEqual(answer.json["kept_out"]["target"], ["process", agent["agent_id"]])
        told = f"1 connection; banned for 3600 s: process {agent['agent_id']}"
        self.assertIn(f"audit: ops: drain agent {agent['id']} (unproved): {told}", events.text())
        self.assertIn("left, 0 hosts now: drained by ops", events.text())
        self.assertIsNone(self.agent(world))
        connection.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        self.settle(world)
        self.assertIn(b"\r\n\r\nok", client.data)
        self.assertIsNone(self.agent(world))
        refusals = items(world, "joins/refused", Authorization=BEARER)
        self.assertEqual({item["result"] for item in refusals}, {"banned"})
        self.assertIn("drained by ops; the ban ends in", refusals[0]["reason"])
        with capture() as events:
            answer = self.change(world, f"agents/{agent['id']}/resume")
        self.assertEqual(answer.json["was_kept_out"], True)
        self.assertIn(f"audit: ops: resume agent {agent['id']} (unproved): bans lifted", events.text())
        self.settle(world, 90)
        self.assertEqual(self.agent(world)["id"], agent["id"])

    def test_kicking(self) -> None:
        """It is closed at once, and may come back at once."""
        world = self.with_tokens()
        world.agent()
        agent = self.agent(world)
        with capture() as events:
            answer = self.change(world, f"agents/{agent['id']}", "DELETE")
        self.assertEqual((answer.status, answer.json["connections"], answer.json["kept_out"]), (202, 1, None))
        self.assertIn("left, 0 hosts now: kicked by ops", events.text())
        self.settle(world, 10)
        self.assertEqual(self.agent(world)["id"], agent["id"])

    def test_banning(self) -> None:
        world = self.with_tokens(tunnel_config=STATIC)
        config: dict[str, Any] = {
            "credential_policy": "static",
            "credential_config": {"token": "very secret"},
        }
        world.agent(**config)
        agent = self.agent(world)
        answer = self.change(world, f"agents/{agent['id']}?ban=120", "DELETE")
        target = ["token", "static", "edge-7"]
        kept_out = {"target": target, "seconds": 120.0, "id": id_of(target)}
        self.assertEqual(answer.json["kept_out"], kept_out)
        [listed] = items(world, "exclusions", Authorization=BEARER)
        self.assertEqual((listed["id"], listed["target"]), (kept_out["id"], target))
        self.assertEqual((listed["agents"], listed["why"]), ([agent["id"]], "banned by ops"))
        self.assertApproximates(listed["seconds"], 120.0, 1.0)
        # Another process with the same token does not get in either.
        world.agent(**config)
        self.settle(world, 60)
        self.assertIsNone(self.agent(world))
        refusals = items(world, "joins/refused", Authorization=BEARER)
        self.assertEqual({(each["identity"], each["proved"]) for each in refusals}, {("token:edge-7", True)})
        self.settle(world, 130)
        self.assertEqual(len(items(world, "agents", Authorization=BEARER)), 2)
        [entry] = items(world, "audit", Authorization=BEARER)
        self.assertEqual((entry["caller"], entry["what"], entry["agent"]), ("ops", "kick", agent["id"]))

    def test_letting_in_by_what_the_list_has(self) -> None:
        world = self.with_tokens(tunnel_config=STATIC)
        world.agent(credential_policy="static", credential_config={"token": "very secret"})
        agent = self.agent(world)
        kept_out = self.change(world, f"agents/{agent['id']}?ban=120", "DELETE").json["kept_out"]
        path = f"exclusions/{kept_out['id']}"
        self.assertEqual(self.change(world, path, "DELETE", token=READ).status, 403)
        answer = self.change(world, path, "DELETE")
        self.assertEqual((answer.status, answer.json["target"]), (200, kept_out["target"]))
        self.assertEqual(self.change(world, path, "DELETE").status, 404)
        self.assertEqual(items(world, "exclusions", Authorization=BEARER), [])
        self.assertIn("lift ban", [each["what"] for each in items(world, "audit", Authorization=BEARER)])
        self.settle(world, 70)
        self.assertEqual(self.agent(world)["id"], agent["id"])

    def test_pages_of_exclusions(self) -> None:
        world = self.with_tokens()
        for number in range(5):
            world.proxy._world.exclusions.exclude(("address", str(number)), 60.0, "banned by ops")
        found: list[str] = []
        after = ""
        while after is not None:
            page = world.ask(f"{API}/exclusions?limit=2&after={after}", Authorization=BEARER).json
            found += [each["target"][1] for each in page["items"]]
            after = page["next"]
        self.assertEqual(sorted(found), ["0", "1", "2", "3", "4"])

    def refused(self, world: World, path: str, method: str = "POST", **headers: str) -> str:
        """Return what the log says of a request."""
        with capture() as events:
            world.ask(path, method, **headers)
        return events.text()

    def test_what_was_refused_is_logged(self) -> None:
        """A line names the caller, what it wanted and why not; reading, and no path for changes, has none."""
        world = self.with_tokens()
        world.agent()
        path = f"{API}/agents/{self.agent(world)['id']}"
        line = self.refused(world, path, "DELETE", Authorization=f"Bearer {READ}")
        self.assertRegex(line, rf"^audit: grafana: refused: DELETE {path}: .*operate")
        self.assertRegex(
            self.refused(world, path, "DELETE"), r"^audit: 127\.0\.0\.1:\d+: refused: DELETE .*token"
        )
        line = self.refused(world, path, "DELETE", Authorization=BEARER, Origin="https://evil.example")
        self.assertIn("audit: ops: refused: DELETE", line)
        line = self.refused(world, f"{API}/agents/none/drain", Authorization=BEARER)
        self.assertIn("audit: ops: refused: POST", line)
        line = self.refused(world, "/api/v1/update_loglevel", Authorization=BEARER)
        self.assertIn("audit: ops: refused: POST /api/v1/update_loglevel: ", line)
        self.assertEqual(self.refused(world, path, "GET", Authorization=f"Bearer {'x' * 16}")[:6], "admin:")
        self.assertEqual(self.refused(world, path, "POST", Authorization=BEARER), "")
        self.assertEqual(self.refused(world, f"{API}/config:validate", Authorization=BEARER), "")
        self.assertEqual(items(world, "audit", Authorization=BEARER), [])

    def test_what_was_refused_does_not_flood_the_log(self) -> None:
        """What strangers cause is limited apart from what callers with a role do."""
        world = self.with_tokens()
        with capture() as events:
            for _ in range(60):
                world.ask(f"{API}/agents/none", "DELETE")
        self.assertEqual(len(events), REFUSED_BURST)
        self.assertIn(
            "audit: ops: refused", self.refused(world, f"{API}/agents/none", "DELETE", Authorization=BEARER)
        )

    def test_mistakes(self) -> None:
        world = self.with_tokens()
        world.agent()
        key = self.agent(world)["id"]
        self.assertEqual(self.change(world, "agents/none", "DELETE").status, 404)
        self.assertEqual(self.change(world, f"agents/{key}", "PUT").status, 405)
        self.assertEqual(world.ask(f"{API}/agents/{key}/drain", Authorization=BEARER).status, 405)
        for text in ("0", "-1", "nan", "inf", "x", "1e99", ""):
            self.assertEqual(self.change(world, f"agents/{key}?ban={text}", "DELETE").status, 400, text)
        self.assertEqual(self.agent(world)["id"], key)

    def test_pages_of_others(self) -> None:
        """A browser that has a certificate, or reaches the socket, is not to be used by pages of others."""
        world = self.with_tokens()
        world.agent()
        key = self.agent(world)["id"]
        for headers in ({"Origin": "https://evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
            self.assertEqual(self.change(world, f"agents/{key}", "DELETE", **headers).status, 403)
        self.assertEqual(self.change(world, f"agents/{key}", "DELETE", Origin="http://localhost").status, 202)


class EventTests(AdminTestCase):
    def listen(self, world: World, query: str = "") -> Recorder:
        client = world.connect(PORT)
        client.transport.write(f"GET {API}/events{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        world.reactor.settle()
        return client

    def events(self, client: Recorder) -> list[Any]:
        return [
            json.loads(line[6:]) for line in client.data.decode().split("\n") if line.startswith("data: ")
        ]

    def test_as_they_happen(self) -> None:
        world = World()
        world.agent()
        late, early = self.listen(world), self.listen(world, "?recent=1")
        self.assertIn(b"Content-Type: text/event-stream", late.data)
        self.assertEqual([event["kind"] for event in self.events(early)], ["join"])
        self.assertEqual(self.events(late), [])
        world.agent(host_name="box")
        world.reactor.advance(PERIOD)
        [event] = self.events(late)
        self.assertEqual((event["kind"], event["identity"], event["proved"]), ("join", "unproved", False))
        world.agents[0].agents[0].drain()
        world.reactor.advance(1)
        world.reactor.advance(PERIOD)
        self.assertEqual([event["kind"] for event in self.events(late)], ["join", "leave"])
        ids = [event["agent"] for event in self.events(late)]
        self.assertEqual(ids[0], items(world, "agents")[0]["id"])
        self.assertNotIn(ids[1], ("", ids[0]))
        self.assertEqual(self.events(late)[1]["reason"], "the agent leaves")
        self.assertEqual(len(self.events(early)), 3)

    def streamed(self, source: Any, looks: int = 1) -> list[dict[str, Any]]:
        """
        Return the events that a client gets of what several workers report.

        @param looks: how often the stream asks the workers.
        """
        written: list[bytes] = []
        clock = Clock()
        stream = EventStream(
            source,
            clock,
            lambda data: written.append(data) or True,  # type: ignore[func-returns-value]
            lambda: None,
            recent=True,
        )
        stream.start()
        for _ in range(looks - 1):
            clock.advance(PERIOD)
        stream.stop()
        return [json.loads(line[6:]) for line in b"".join(written).split(b"\n") if line[:5] == b"data:"]

    def test_what_all_workers_do_is_one_event(self) -> None:
        """Each of them takes a new configuration; what one of them does by itself is its own."""
        happened = [{"id": 1, "kind": "reload"}, {"id": 2, "kind": "join"}]
        values = [{"origin": str(number), "last": 2, "events": happened} for number in (1, 2)]

        class Workers:
            def ask(self, question: str, arguments: Any) -> Any:
                return succeed([Answered(number, value) for number, value in enumerate(values, 1)])

        told = self.streamed(Workers())
        self.assertEqual(
            [(each["kind"], each["worker"]) for each in told], [("reload", None), ("join", 1), ("join", 2)]
        )

    def told_of_orders(self, *looks: list[list[tuple[str, int]]]) -> list[tuple[int | None, int]]:
        """
        What a client is told of what workers have done by orders of operators.

        @param looks: by worker, the orders and how many connections it has let go of.
        @return: the worker and the number of connections of each event.
        """
        left = list(looks)
        last = [0] * len(looks[0])

        class Workers:
            def ask(self, question: str, arguments: Any) -> Any:
                answers = []
                for number, done in enumerate(left.pop(0)):
                    events = []
                    for order, connections in done:
                        last[number] += 1
                        facts = {"kind": "drain", "order": order, "connections": connections}
                        events.append({"id": last[number], **facts})
                    value = {"origin": str(number), "last": last[number], "events": events}
                    answers.append(Answered(number + 1, value))
                return succeed(answers)

        told = self.streamed(Workers(), len(looks))
        self.assertFalse([each for each in told if each["kind"] != "drain" or "order" in each])
        return [(each["worker"], each["connections"]) for each in told]

    def test_what_an_operator_does_is_one_event(self) -> None:
        """Each worker lets go of an agent's connections by the same order."""
        self.assertEqual(
            self.told_of_orders(
                [[("a", 2)], [("a", 1), ("b", 4)], []],
                [[], [], [("a", 0), ("c", 5)]],
            ),
            [(None, 3), (2, 4), (3, 5)],
        )

    def test_an_order_that_reaches_workers_at_different_times(self) -> None:
        """That of another server comes over a link to each worker: no connection is left out."""
        for looks, told in (
            (([[("a", 0)], []], [[], [("a", 5)]]), [(1, 0), (2, 5)]),
            (([[("a", 5)], []], [[], [("a", 0)]]), [(1, 5)]),
            (([[("a", 5)], [], []], [[], [("a", 1)], [("a", 2)]]), [(1, 5), (None, 3)]),
            # Those that had none when it had been told of are none of those who have done it.
            (([[("a", 5)], [], []], [[], [("a", 0)], [("a", 2)]]), [(1, 5), (3, 2)]),
            (([[("a", 5)], [], []], [[], [("a", 2)], [("a", 0)]]), [(1, 5), (2, 2)]),
        ):
            self.assertEqual(self.told_of_orders(*looks), told)

    def test_orders_without_a_name(self) -> None:
        """What one has no name for, such as one of another version, is an event of each worker."""
        self.assertEqual(self.told_of_orders([[("", 0)], [("", 2)]]), [(1, 0), (2, 2)])
        world = World()
        world.agent()
        world.reactor.advance(1)
        [agent] = items(world, "agents")
        arguments = {"id": agent["id"], "why": "drained by ops", "at_once": False}
        self.assertEqual(world.proxy.inspector.answer("close_connections", arguments), 1)

    def test_refusals(self) -> None:
        """They are told, but not as many as strangers may like."""
        world = World(tunnel_config=STATIC)
        client = self.listen(world)
        world.agent(host_name="boss")
        world.reactor.advance(PERIOD)
        event = self.events(client)[0]
        self.assertEqual(
            (event["kind"], event["result"], event["claimed_host_name"], event["suppressed"]),
            ("refusal", "credential_rejected", "boss", 0),
        )
        tally = world.proxy.inspector.parts.tunnels["tunnelListener"].tally
        for _ in range(5000):
            tally.refused({"time": 0.0, "result": "failed"})
        self.assertLess(world.proxy.inspector.parts.journal.last, 200)

    def test_heartbeats_and_the_end(self) -> None:
        world = World()
        client = self.listen(world)
        for _ in range(200):
            world.reactor.advance(PERIOD)
        self.assertIn(b": still here", client.data)
        self.assertIsNone(client.reason)
        assert world.proxy.admin is not None
        client.transport.abortConnection()
        world.reactor.settle()
        self.assertEqual(world.proxy.admin._api._streams, set())

    def test_a_gap(self) -> None:
        """Who is too slow hears of it."""
        world = World()
        client = self.listen(world)
        journal = world.proxy.inspector.parts.journal
        journal.add("join")
        world.reactor.advance(PERIOD)
        for _ in range(2500):
            journal.add("join")
        world.reactor.advance(PERIOD)
        gaps = [event for event in self.events(client) if "missed" in event]
        self.assertEqual([event["missed"] for event in gaps], [500])

    def listen_as(self, world: World, token: str) -> Recorder:
        client = world.connect(PORT)
        head = f"GET {API}/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        client.transport.write(head.encode())
        world.reactor.settle()
        return client

    def test_a_token_that_is_revoked(self) -> None:
        """The stream that was opened with it ends, and no other."""
        world = self.with_tokens()
        reader, other = self.listen_as(world, READ), self.listen_as(world, OPERATE)
        path = Path(world.document["admin"]["tokens_file"])
        path.write_text(json.dumps([{"name": "ops", "token": OPERATE, "role": "operate"}]))
        world.agent()
        world.reactor.advance(PERIOD)
        world.reactor.settle()
        self.assertEqual((self.events(reader), len(self.events(other))), ([], 1))
        self.assertTrue(reader.data.endswith(b"\r\n0\r\n\r\n"), reader.data)
        assert world.proxy.admin is not None
        self.assertEqual(len(world.proxy.admin._api._streams), 1)
        # The connection may be used for another request, with another token.
        reader.data = b""
        reader.transport.write(
            b"GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n\r\n" % READ.encode()
        )
        world.reactor.settle()
        self.assertIn(b" 401 ", reader.data)

    def test_failure(self) -> None:
        """A stream that has failed does not stay open without events."""
        world = World()
        client = self.listen(world)
        world.proxy.inspector._questions["events"] = lambda arguments: {"nonsense": 1}
        world.reactor.advance(PERIOD)
        world.reactor.settle()
        self.assertTrue(client.data.endswith(b"0\r\n\r\n"))
        assert world.proxy.admin is not None
        self.assertEqual(world.proxy.admin._api._streams, set())
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_a_worker_that_does_not_answer_at_first(self) -> None:
        """What had happened there before is not told of as if it were new."""
        begun = wall_time()
        events = [
            {"id": 1, "kind": "join", "time": begun - 60},
            {"id": 2, "kind": "leave", "time": begun + 60},
        ]
        looks: list[Any] = [Answered(1, None, "late")]
        looks += [Answered(1, {"origin": "a", "last": 2, "events": events})]

        class Workers:
            def ask(self, question: str, arguments: Any) -> Any:
                return succeed([looks.pop(0)])

        written: list[bytes] = []
        clock = Clock()
        stream = EventStream(Workers(), clock, lambda data: not written.append(data), lambda: None)  # type: ignore[arg-type,func-returns-value]
        stream.start()
        clock.advance(PERIOD)
        stream.stop()
        self.assertEqual(
            [kind for kind in (b"join", b"leave", b"gap") if kind in b"".join(written)], [b"leave"]
        )

    def test_so_many_and_no_more(self) -> None:
        world = World()
        clients = [self.listen(world) for _ in range(MOST_STREAMS + 1)]
        self.assertEqual({client.data.split()[1] for client in clients[:-1]}, {b"200"})
        self.assertEqual(clients[-1].data.split()[1], b"503")
        clients[0].transport.abortConnection()
        world.reactor.settle()
        self.assertEqual(self.listen(world).data.split()[1], b"200")


class MergingTests(AdminTestCase):
    def test_hosts_that_have_joined(self) -> None:
        """Each worker counts the hosts of all workers, so that these numbers are not added up."""
        known = {"name": "c", "hosts": 1, "joined": 4, "left": 3}
        younger = {**known, "joined": 2, "left": 0}
        for answers in ([[known], [younger]], [[younger], [known]]):
            self.assertEqual(
                at_once(merge_by_name(answers)), [{"name": "c", "hosts": 2, "joined": 4, "left": 3}]
            )

    def test_workers(self) -> None:
        """What several workers know of one agent is added up."""
        world = World()
        world.agent(connections=2)
        page = world.proxy.inspector.answer("agents", {})
        world.request()
        page = world.proxy.inspector.answer("agents", {})
        [agent] = at_once(merge_agents([(1, page), (2, page)]))
        self.assertEqual((agent["connections"], agent["workers"]), (4, [1, 2]))
        self.assertEqual(len(agent["addresses"]), 2)
        self.assertEqual((shown(agent)["requests"], agent["ends"]), (2, {"2xx": 2}))
        # A worker that only makes use of another one's connections.
        user = {**page["agents"][0], "connections": 0, "healthy": 0, "rtt_seconds": None, "addresses": []}
        for pages in ([(1, {"agents": [user]}), (2, page)], [(2, page), (1, {"agents": [user]})]):
            [agent] = at_once(merge_agents(pages))
            self.assertEqual((agent["connections"], agent["workers"]), (2, [2]))
            self.assertEqual(shown(agent)["requests"], 2)

    def test_pages_are_complete(self) -> None:
        world = World()
        for _ in range(6):
            world.agent()
        every = world.proxy.inspector.answer("agents", {})["agents"]
        # Each worker has every agent but one, in pages of three.
        pages = [
            (number, {"agents": [each for i, each in enumerate(every) if i != number][:3]})
            for number in (1, 2)
        ]
        found, last = cut(at_once(merge_agents(pages)), [every[3]["id"]] * 2, 3, "id")
        self.assertEqual(last, every[2]["id"])
        self.assertEqual([each["id"] for each in found], [each["id"] for each in every[:3]])
        self.assertEqual([each["workers"] for each in found], [[1, 2], [2], [1]])
