"""C{reverseproxy status}, C{ready}, C{agents} and C{drain} at a process that runs."""

from __future__ import annotations

import json

from tests.integration.clients import fetch
from tests.integration.configs import quick_agent, server
from tests.integration.harness import JOINED, LEFT, Child, IntegrationTestCase


class AskingTests(IntegrationTestCase):
    async def ask(self, *arguments: str) -> tuple[int, str]:
        child = Child("ask")
        self.spawn(child, "-m", "reverseproxy", *arguments)
        return await child.ended(), "\n".join(child.lines)

    async def test_all(self) -> None:
        (self.directory / "operators.json").write_text(
            json.dumps([{"name": "me", "token": "0123456789abcdef", "role": "operate"}])
        )
        (self.directory / "operators.json").chmod(0o600)
        (self.directory / "token").write_text("0123456789abcdef\n")
        port = self.reserve_port()
        document = server()
        document["admin"] = {
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            "tokens_file": "operators.json",
        }
        cloud = self.run_proxy(document, "server")
        tunnel = await cloud.port("tunnelListener")
        self.run_proxy(quick_agent(tunnel), "agent")
        await cloud.counted(JOINED, 1)
        await fetch(await cloud.port("clientListener"))
        file = next(iter(self.directory.glob("server-*.json"))).name
        who = ("--config", file, "--token-file", "token")

        code, text = await self.ask("status", *who)
        self.assertEqual(code, 0, text)
        self.assertRegex(text, r"1 agent, 1 connection; 1 request, 0 errors")
        self.assertRegex(text, r"clientCluster +1 +1 +0 +0")
        code, text = await self.ask("status", "--admin", f"127.0.0.1:{port}")
        self.assertEqual(code, 1)
        self.assertIn("--token-file", text)
        self.assertEqual(await self.ask("ready", "--config", file), (0, "ready"))
        code, text = await self.ask("agents", *who, "--json")
        [agent] = json.loads(text)
        code, text = await self.ask("agents", *who)
        self.assertIn(agent["id"], text)
        code, text = await self.ask("drain", "nobody", *who)
        self.assertEqual((code, "no agents have an id that begins with nobody" in text), (1, True), text)
        code, text = await self.ask("drain", agent["id"][:6], *who, "--for", "60")
        self.assertEqual((code, text), (0, f"{agent['id']}: 1 connection drained; banned for 60 s"))
        await cloud.counted(LEFT, 1)
        code, text = await self.ask("exclusions", *who)
        self.assertEqual((code, agent["id"] in text, "drained by " in text), (0, True, True), text)
        code, text = await self.ask("drain", agent["id"][:6], *who, "--resume")
        self.assertEqual((code, text), (0, f"{agent['id']}: bans lifted"))
