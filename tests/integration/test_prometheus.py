"""A real Prometheus reads a server and an agent, with the rules that the documentation has."""

from __future__ import annotations

import json
import os
import shutil
import urllib.parse
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.integration.clients import fetch
from tests.integration.configs import quick_agent, server
from tests.integration.harness import JOINED, Child, IntegrationTestCase

MONITORING = Path(__file__).resolve().parent.parent.parent / "docs" / "monitoring"
OFTEN = "250ms"
LOOPBACK = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}

if shutil.which("prometheus"):

    class PrometheusTests(IntegrationTestCase):
        """Where it is installed: C{.ci/run} says where it is not."""

        async def query(self, port: int, path: str, **arguments: str) -> Any:
            answer = await fetch(port, f"/api/v1/{path}?{urllib.parse.urlencode(arguments)}")
            self.assertEqual(answer.status, 200, answer.body)
            return json.loads(answer.body)["data"]

        async def value(self, port: int, expression: str) -> float | None:
            result = (await self.query(port, "query", query=expression))["result"]
            return float(result[0]["value"][1]) if result else None

        async def until(self, told: Any, wanted: Any) -> None:
            """Ask until something is so; the test's own limit is how long that may take."""
            while await told() != wanted:
                await deferLater(reactor, 0.05)

        async def test_it_reads_and_judges(self) -> None:
            tokens = self.directory / "tokens.json"
            token = "read-change-me-0001"
            tokens.write_text(json.dumps([{"name": "prometheus", "token": token}]))
            seen = {**LOOPBACK, "tokens_file": str(tokens)}
            cloud = self.run_proxy(server() | {"admin": seen}, "server", "--workers", "2")
            tunnel = await cloud.port("tunnelListener")
            edge = self.run_proxy(quick_agent(tunnel) | {"admin": seen}, "agent")
            targets = [f"127.0.0.1:{await each.port('admin')}" for each in (cloud, edge)]
            await cloud.counted(JOINED, 2)
            client = await cloud.port("clientListener")
            self.assertEqual((await fetch(client)).status, 200)

            port = self.reserve_port()
            prometheus = self.run_prometheus(port, targets)
            await prometheus.wait_for("eady to receive web requests")

            async def health() -> set[str]:
                active = (await self.query(port, "targets"))["activeTargets"]
                return {each["health"] for each in active}

            await self.until(health, {"up"})
            await self.until(partial(self.value, port, "sum(reverseproxy_tunnel_agents)"), 1.0)
            await self.until(
                partial(self.value, port, 'sum(reverseproxy_http_requests_total{code_class="2xx"})'), 2.0
            )
            # It has heard how many workers there are, and holds a connection to each.
            await self.until(partial(self.value, port, "sum(reverseproxy_agent_connections_serving)"), 2.0)

            async def judged() -> set[tuple[str, str]]:
                groups = (await self.query(port, "rules"))["groups"]
                return {(rule["health"], rule.get("lastError", "")) for g in groups for rule in g["rules"]}

            await self.until(judged, {("ok", "")})

        def run_prometheus(self, port: int, targets: list[str]) -> Child:
            """Run it with what the documentation has, but more often, and with these targets."""
            document = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
            document["global"] = dict.fromkeys(document["global"], OFTEN)
            for job in document["scrape_configs"]:
                job["static_configs"][0]["targets"] = targets
                job.pop("scrape_interval", None)
            rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
            (self.directory / "alerts.yaml").write_text(yaml.safe_dump(rules))
            file = self.directory / "prometheus.yaml"
            file.write_text(yaml.safe_dump(document))
            child = Child("prometheus")
            self.children.append(child)
            options = {
                "config.file": file,
                "web.listen-address": f"127.0.0.1:{port}",
                "storage.tsdb.path": self.directory / "data",
            }
            arguments = ["prometheus", *(f"--{name}={value}" for name, value in options.items())]
            reactor.spawnProcess(  # type: ignore[attr-defined]
                child, shutil.which("prometheus"), arguments, env=os.environ, path=str(self.directory)
            )
            return child
