"""What the OpenAPI documents of a server and of an agent say is so, whatever schemathesis sends."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

from twisted.internet import reactor

from tests.integration.configs import quick_agent, server
from tests.integration.harness import JOINED, Child, IntegrationTestCase

API = "/api/tunnel/v1"
TOKEN = "operate-change-me-0002"
OPTIONS = (
    *("--exclude-path", "/events"),  # it has no end
    *("--exclude-path", "/workers/replace"),
    *("--phases", "coverage,fuzzing", "--max-examples", "2", "--no-shrink", "--seed", "1"),
    *("--header", f"Authorization: Bearer {TOKEN}"),
)

CONFIG = """
[[operations]]
include-path-regex = "/config:(validate|diff)"
checks.positive_data_acceptance.enabled = false
"""
"""Whether a document is a configuration is not in the OpenAPI document."""

if shutil.which("schemathesis"):

    class SchemathesisTests(IntegrationTestCase):
        """Where it is installed: C{.ci/run} says where it is not."""

        def fuzz(self, port: int) -> Child:
            child = Child(f"schemathesis of port {port}")
            self.children.append(child)
            base = f"http://127.0.0.1:{port}{API}"
            arguments = ["schemathesis", "run", f"{base}/openapi.json", "--url", base, *OPTIONS]
            reactor.spawnProcess(  # type: ignore[attr-defined]
                child, shutil.which("schemathesis"), arguments, env=os.environ, path=str(self.directory)
            )
            return child

        async def test_a_server_and_an_agent(self) -> None:
            (self.directory / "schemathesis.toml").write_text(CONFIG)
            tokens = self.directory / "tokens.json"
            tokens.write_text(json.dumps([{"name": "fuzz", "token": TOKEN, "role": "operate"}]))
            admin: dict[str, Any] = {
                "admin": {
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
                    "tokens_file": str(tokens),
                }
            }
            cloud = self.run_proxy(server() | admin, "server", "--workers", "2")
            edge = self.run_proxy(quick_agent(await cloud.port("tunnelListener")) | admin, "agent")
            await cloud.counted(JOINED, 2)
            for fuzzing in [self.fuzz(await each.port("admin")) for each in (cloud, edge)]:
                self.assertEqual(await fuzzing.ended(timeout=100), 0, fuzzing.tail())
                self.assertTrue(fuzzing.find(lambda line: "generated," in line and "passed" in line))
