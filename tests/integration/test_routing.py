"""Every kind of route, through a tunnel, with real processes."""

from __future__ import annotations

from typing import Any

from tests.integration.clients import Answer, fetch, gather
from tests.integration.configs import http_filter, quick_agent, server
from tests.integration.harness import JOINED, IntegrationTestCase

TUNNEL = {"cluster_name": "clientCluster"}
OTHER = {"cluster_name": "other"}


def header(name: str, value: str, **more: Any) -> dict[str, Any]:
    return {"header": {"key": name, "value": value}, **more}


def rule(match: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"match": match, **({} if more else {"route": TUNNEL}), **more}


RULES: list[dict[str, Any]] = [
    rule({"path": "/SHOW/Exact"}, route=TUNNEL),
    rule({"regex": "^/show/[0-9]+$"}, route=OTHER),
    rule({"prefix": "/show/kind", "headers": [{"name": "x-a", "value": "1"}]}, route=OTHER),
    rule({"prefix": "/show/kind", "headers": [{"name": "x-a", "value": "^2", "regex": True}]}, route=TUNNEL),
    rule({"prefix": "/show/kind", "headers": [{"name": "method", "value": "PUT"}]}, route=OTHER),
    rule({"prefix": "/show/kind"}, direct_response={"status": 418, "body": "teapot"}),
    rule({"variables": [{"name": "x-mosn-method", "value": "DELETE"}]}, route=OTHER),
    rule({"headers": [{"name": "x-only", "value": "header"}]}, route=OTHER),
    rule({"prefix": "/moved"}, redirect={"path_redirect": "/new", "response_code": 307}),
    rule({"prefix": "/elsewhere"}, redirect={"host_redirect": "example.com", "scheme_redirect": "https"}),
    rule(
        {"prefix": "/weighted"},
        route={
            "weighted_clusters": [
                {"cluster": {"name": "other", "weight": 1}},
                {"cluster": {"name": "clientCluster", "weight": 0}},
            ]
        },
    ),
    rule({"prefix": "/named"}, route={"cluster_header": "x-cluster"}),
    rule({"prefix": "/variable"}, route={"cluster_variable": "request_header_x-cluster"}),
    rule({"prefix": "/nowhere"}, route={"cluster_name": "unknown"}),
    rule({"prefix": "/slow"}, route={**OTHER, "prefix_rewrite": "/hold", "timeout": "200ms"}),
    rule(
        {"prefix": "/short"},
        route={
            **OTHER,
            "prefix_rewrite": "/hold",
            "retry_policy": {"retry_on": True, "retry_timeout": "100ms", "num_retries": 1},
        },
    ),
    rule(
        {"prefix": "/flaky"},
        route={**TUNNEL, "retry_policy": {"retry_on": True, "num_retries": 3, "status_codes": [503]}},
    ),
    rule({"prefix": "/old/"}, route={**TUNNEL, "prefix_rewrite": "/show/new/"}),
    rule(
        {"prefix": "/swap/"},
        route={
            **TUNNEL,
            "regex_rewrite": {
                "pattern": {"regex": "^/swap/([a-z]+)/([a-z]+)"},
                "substitution": "/show/$2/$1",
            },
        },
    ),
    rule({"prefix": "/show/host"}, route={**TUNNEL, "host_rewrite": "other.example"}),
    rule(
        {"prefix": "/show/headers"},
        route={
            **TUNNEL,
            "request_headers_to_add": [
                header("x-add", "route"),
                header("x-set", "new", append=False),
                header("x-from", "%x-mosn-method%"),
            ],
            "request_headers_to_remove": ["x-secret"],
            "response_headers_to_add": [header("x-level", "route")],
            "response_headers_to_remove": ["x-backend"],
        },
    ),
    rule({"prefix": "/show"}, route=TUNNEL),
]


class RoutingTests(IntegrationTestCase):
    async def test_every_kind(self) -> None:
        backend = await self.run_backend()
        config = server(client_filter=http_filter("client_router", trusted_proxies=["127.0.0.1"]))
        clusters = config["cluster_manager"]["clusters"]
        clusters.append({"name": "other", "hosts": [{"address": backend.address}]})
        router = config["servers"][0]["routers"][0]
        router["request_headers_to_add"] = [header("x-add", "router")]
        router["response_headers_to_add"] = [header("x-level", "router")]
        router["virtual_hosts"] = [
            {
                "name": name,
                "domains": domains,
                "routers": rules,
                "request_headers_to_add": [header("x-add", name)],
                "response_headers_to_add": [
                    header("x-level", name),
                    header("x-to", "%upstream_cluster%"),
                ],
            }
            for name, domains, rules in (
                ("exact", ["one.example"], [rule({"prefix": "/"}, direct_response={"body": "exact"})]),
                ("wild", ["*.example"], [rule({"prefix": "/"}, direct_response={"body": "wild"})]),
                ("default", ["*"], RULES),
            )
        ]
        cloud = self.run_proxy(config, "server")
        self.run_proxy(quick_agent(await cloud.port("tunnelListener"), backend.address), "agent")
        await cloud.counted(JOINED, 1)
        port = await cloud.port("clientListener")

        async def ask(path: str, method: str = "GET", **headers: str) -> Answer:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return await fetch(port, path, method, headers=named)

        for path, method, headers, status, cluster in (
            ("/show/exact", "GET", {}, 200, "clientCluster"),
            ("/show/123", "GET", {}, 200, "other"),
            ("/show/12x", "GET", {}, 200, "clientCluster"),
            ("/show/kind", "GET", {"x_a": "1"}, 200, "other"),
            ("/show/kind", "GET", {"x_a": "23"}, 200, "clientCluster"),
            ("/show/kind", "PUT", {}, 200, "other"),
            ("/show/kind", "GET", {}, 418, None),
            ("/show", "DELETE", {}, 200, "other"),
            ("/bytes?n=1", "GET", {"x_only": "header"}, 200, "other"),
            ("/bytes?n=1", "GET", {}, 404, None),
            ("/weighted", "GET", {}, 200, "other"),
            ("/named", "GET", {"x_cluster": "other"}, 200, "other"),
            ("/named", "GET", {}, 404, None),
            ("/variable", "GET", {"x_cluster": "clientCluster"}, 200, "clientCluster"),
            ("/nowhere", "GET", {}, 404, None),
            ("/slow?key=never", "GET", {}, 504, None),
            ("/short?key=never", "GET", {}, 504, None),
            ("/hold?key=never", "GET", {"x_only": "header", "x_mosn_global_timeout": "100"}, 504, None),
            ("/flaky?key=a&n=2", "GET", {}, 200, "clientCluster"),
            ("/flaky?key=b&n=1", "POST", {}, 503, "clientCluster"),
            ("/bytes?n=1", "GET", {"host": "one.example"}, 200, None),
        ):
            answer = await ask(path, method, **headers)
            found = answer.headers.get("x-to") if answer.headers.get("x-backend") else None
            self.assertEqual((answer.status, found), (status, cluster), (path, method, headers, answer.body))

        for host, body in (("one.example", b"exact"), ("two.example", b"wild"), ("a.b.example", b"wild")):
            self.assertEqual((await ask("/", host=host)).body, body)
        moved = await ask("/moved/x?y")
        self.assertEqual((moved.status, moved.headers["location"]), (307, f"http://127.0.0.1:{port}/new?y"))
        moved = await ask("/elsewhere")
        self.assertEqual((moved.status, moved.headers["location"]), (301, "https://example.com/elsewhere"))

        for path, line in (
            ("/old/x?y=1", b"GET /show/new/x?y=1"),
            ("/swap/a/b?c", b"GET /show/b/a?c"),
        ):
            shown = (await ask(path)).body.split(b"\n")
            self.assertEqual(shown[0], line)
            self.assertIn(b"x-mosn-original-path: " + path.partition("?")[0].encode(), shown)
        self.assertIn(b"\nhost: other.example\n", (await ask("/show/host")).body + b"\n")

        answer = await ask("/show/headers", x_secret="s", x_set="old", x_add="client")
        shown = answer.body.split(b"\n")
        self.assertIn(b"x-add: client,route,default,router", shown)
        self.assertIn(b"x-set: new", shown)
        self.assertIn(b"x-from: GET", shown)
        self.assertNotIn(b"x-secret", answer.body)
        self.assertEqual(answer.headers["x-level"], "route,default,router")
        self.assertIsNone(answer.headers.get("x-backend"))

    async def test_mirror(self) -> None:
        backend, copied = await self.run_backend(), await self.run_backend()
        config = server(cluster={"hosts": [{"address": backend.address}]})
        config["cluster_manager"]["clusters"].append(
            {"name": "copies", "hosts": [{"address": copied.address}]}
        )
        [entry] = config["servers"][0]["routers"][0]["virtual_hosts"][0]["routers"]
        entry["request_mirror_policies"] = {"cluster": "copies", "percent": 100}
        cloud = self.run_proxy(config, "server")
        port = await cloud.port("clientListener")
        held = [fetch(port, "/hold?key=k", headers={"x-id": str(number)}) for number in range(3)]
        self.assertEqual((await fetch(copied.port, "/held?key=k&n=3")).body, b"3")
        await fetch(backend.port, "/held?key=k&n=3")
        await fetch(backend.port, "/release?key=k")
        answers = await gather(held)
        self.assertEqual({answer.body for answer in answers}, {b"0", b"1", b"2"})
