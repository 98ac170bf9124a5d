"""The examples run, with ports of the kernel's choice in place of theirs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

from tests.integration.clients import fetch
from tests.integration.configs import EXAMPLES, agent, example, server
from tests.integration.harness import JOINED, IntegrationTestCase


class ExampleTests(IntegrationTestCase):
    async def run_pair(self, name: str, suffix: str = "json", files: Mapping[str, str] | None = None) -> None:
        """Run an example's server and agent before a backend, and ask for something."""
        backend = await self.run_backend()
        cloud = self.run_proxy(
            example(f"{name}/server.{suffix}", {"127.0.0.1:2045": 0, "127.0.0.1:9999": 0}, files), "server"
        )
        tunnel = await cloud.port("tunnel_server_listener")
        ports = {"127.0.0.1:9999": tunnel, "127.0.0.1:8080": backend.port}
        self.run_proxy(example(f"{name}/agent.{suffix}", ports, files), "agent")
        await cloud.counted(JOINED, 4)
        answer = await fetch(await cloud.port("clientListener"), "/echo", "POST", b"an example")
        self.assertEqual((answer.status, answer.body), (200, b"an example"))

    def certificates(self) -> dict[str, str]:
        """Make certificates with the examples' own script."""
        script = str(EXAMPLES / "make_certs.py")
        directory = self.directory / "certs"
        subprocess.run([sys.executable, script, str(directory)], check=True, stdout=subprocess.DEVNULL)
        return {"examples/certs/": f"{directory}/"}

    async def test_plain(self) -> None:
        await self.run_pair("plain")

    async def test_tcp(self) -> None:
        await self.run_pair("tcp")

    async def test_h2(self) -> None:
        await self.run_pair("h2")

    async def test_tls(self) -> None:
        await self.run_pair("tls", files=self.certificates())

    async def test_mtls(self) -> None:
        await self.run_pair("mtls", files=self.certificates())

    async def test_yaml(self) -> None:
        await self.run_pair("yaml", "yaml")

    async def test_tokens(self) -> None:
        await self.run_pair(
            "tokens", files={**self.certificates(), "examples/tokens/": f"{EXAMPLES}/tokens/"}
        )

    async def test_plugins(self) -> None:
        """Credentials and server lists of a plug-in, which is only on the module path."""
        cloud = self.run_proxy(
            server(
                tunnel_config={
                    "credential_policy": "signed",
                    "validators": {"signed": {"secret": "a shared secret"}},
                }
            ),
            "server",
            PYTHONPATH=str(EXAMPLES / "plugins"),
        )
        document = agent(
            [],
            dynamic_server_list_config={
                "dynamic_server_lister": "environment",
                "config": {"variable": "TUNNEL_SERVERS"},
            },
            credential_policy="signed",
            credential_config={"name": "agent-1", "secret": "a shared secret"},
        )
        self.run_proxy(
            document,
            "agent",
            PYTHONPATH=str(EXAMPLES / "plugins"),
            TUNNEL_SERVERS=f"127.0.0.1:{await cloud.port('tunnelListener')}",
        )
        await cloud.counted(JOINED, 1)
        answer = await fetch(await cloud.port("clientListener"))
        self.assertEqual(answer.body, b"answered by the agent")
