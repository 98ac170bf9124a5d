"""Tests for L{reverseproxy.command.explaining}."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.command.explaining import BadRequest, explain_request

VIRTUAL_HOSTS: list[dict[str, Any]] = [
    {
        "name": "one",
        "domains": ["a.example", "*.b.example"],
        "routers": [
            {
                "match": {"path": "/post", "headers": [{"name": "method", "value": "POST"}]},
                "direct_response": {"status": 204, "body": ""},
            },
            {"match": {"prefix": "/old"}, "redirect": {"path_redirect": "/new"}},
            {
                "match": {"prefix": "/", "headers": [{"name": "x-env", "value": "te.t", "regex": True}]},
                "route": {
                    "weighted_clusters": [
                        {"cluster": {"name": "here", "weight": 1}},
                        {"cluster": {"name": "edge", "weight": 3}},
                    ]
                },
            },
            {"match": {"prefix": "/gone"}, "route": {"cluster_name": "nowhere"}},
            {"match": {"prefix": "/named"}, "route": {"cluster_header": "x-cluster"}},
            {"match": {"regex": "^/[0-9]+$"}, "route": {"cluster_name": "here", "timeout": "5s"}},
        ],
    },
]


def listener(name: str, port: int, **more: Any) -> dict[str, Any]:
    proxy = {"type": "proxy", "config": {"downstream_protocol": "Http1", "router_config_name": "web"}}
    filters = more.pop("filters", [proxy])
    address = f"127.0.0.1:{port}"
    chains = [{"filters": filters}]
    return {"name": name, "address": address, "bind_port": True, "filter_chains": chains, **more}


class ExplainTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.file = Path(self.mktemp())
        listeners = [
            listener("web", 8080),
            listener("raw", 2222, filters=[{"type": "tcp_proxy", "config": {"cluster": "here"}}]),
            listener("agents", 9999, filters=[{"type": "tunnel"}]),
        ]
        routers = [{"router_config_name": "web", "virtual_hosts": VIRTUAL_HOSTS}]
        clusters = [{"name": "here", "hosts": [{"address": "127.0.0.1:80"}]}, {"name": "edge"}]
        document = {
            "servers": [{"listeners": listeners, "routers": routers}],
            "cluster_manager": {"clusters": clusters},
        }
        self.file.write_text(json.dumps(document))

    def explain(
        self, url: str, method: str = "GET", *headers: str, name: str | None = None
    ) -> tuple[str, bool]:
        lines, taken = explain_request(str(self.file), url, method, headers, name)
        return "\n".join(lines), taken

    def check(self, wanted: list[str], taken: bool, *arguments: str, name: str | None = None) -> None:
        text, takes = self.explain(*arguments, name=name)
        self.assertEqual(takes, taken, text)
        for part in wanted:
            self.assertIn(part, text)

    def test_rules(self) -> None:
        at = "http://a.example"
        self.check(
            [
                "listener web at",
                "virtual host 0 one",
                "rule 5: regex",
                "cluster here: 127.0.0.1:80",
                "timeout 5 s",
            ],
            True,
            "http://A.example/12",
            name="web",
        )
        self.check(
            ["rule 0: path", 'method = "POST"', "answers with 204"], True, f"{at}/post", "POST", name="web"
        )
        self.check(["rule 1", "redirects with 301 to http://a.example/new"], True, f"{at}/old", name="web")
        self.check(
            ["rule 2", "cluster here (weight 1)", "cluster edge (weight 3): hosts of tunnel agents"],
            True,
            f"{at}/x",
            "GET",
            "X-Env: test",
            name="web",
        )
        self.check(["virtual host 0"], True, "http://x.b.example/12", name="web")

    def test_what_nothing_takes(self) -> None:
        self.check(["404", "no rule of it matches"], False, "http://a.example/x", name="web")
        self.check(["404", "no domain takes the Host"], False, "http://c.example/12", name="web")
        self.check(["404", "without the port"], False, "http://a.example:8080/12")
        self.check(["404, as there is none of this name"], False, "http://a.example/gone", name="web")
        self.check(["named by the field x-cluster"], False, "http://a.example/named", name="web")
        self.check(["takes tunnel agents, not requests"], False, "http://a.example:9999/")

    def test_listeners(self) -> None:
        self.check(["listener raw", "TCP", "cluster here"], True, "http://a.example:2222/")
        self.check(
            ["no listener is at port 443", "listener web", "speaks no TLS"], True, "https://a.example/12"
        )
        text, _ = self.explain("http://a.example:8080/", "GET", "host: a.example")
        self.assertNotIn("listener raw", text)

    def test_host_field(self) -> None:
        self.check(["virtual host 0"], True, "http://127.0.0.1:8080/12", "GET", "Host: a.example")

    def test_no_requests(self) -> None:
        for arguments in (
            ("a.example/x",),
            ("http://a.example:x/",),
            ("http:///x",),
            ("http://b\u00fccher.example/",),
            ("http://a b/",),
            ("http://a.example/", "GE T"),
            ("http://a.example/", "GET", "no colon"),
            ("http://a.example/", "GET", "no name : x"),
        ):
            self.assertRaises(BadRequest, self.explain, *arguments)
        error = self.assertRaises(BadRequest, self.explain, "http://a.example/", name="wob")
        self.assertIn('there are: "web", "raw", "agents"', str(error))
