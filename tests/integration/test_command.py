"""The command C{reverseproxy}, and C{twistd reverseproxy} as people mistype it, as real processes."""

from __future__ import annotations

import json
import re

from reverseproxy.command.frp import convert_frp
from tests.integration.clients import fetch
from tests.integration.harness import IntegrationTestCase, ReverseProxy
from tests.integration.test_process import answering


class RunTests(IntegrationTestCase):
    def run_file(self, text: str) -> ReverseProxy:
        """Start C{python -m reverseproxy run} with a configuration."""
        file = self.directory / "config.json"
        file.write_text(text)
        child = ReverseProxy("run")
        self.spawn(child, "-m", "reverseproxy", "run", "--log-format", "json", str(file))
        return child

    async def test_run(self) -> None:
        child = self.run_file(json.dumps(answering("127.0.0.1:0")))
        self.assertEqual((await fetch(await child.port("clientListener"))).body, b"here")
        self.assertEqual(await child.stop(), 0)
        self.assertFalse((self.directory / "twistd.pid").exists())

    async def test_wrong_file(self) -> None:
        child = self.run_file("{'servers': []}")
        self.assertEqual(await child.ended(), 1)
        self.assertIn("double quotation marks", "\n".join(child.lines))


class TwistdTests(IntegrationTestCase):
    async def test_wrong_command_lines(self) -> None:
        for arguments, wanted in (
            ([], "name a configuration with --config FILE"),
            (["-n"], "option -n not recognized"),
            (["--config", "a.json", "--workers", "many"], "--workers"),
        ):
            child = self.run_twistd("mistyped", *arguments)
            self.assertEqual(await child.ended(), 1, arguments)
            output = "\n".join(child.lines)
            self.assertIn(f"twistd reverseproxy: {wanted}", output)
            self.assertIn("twistd -n reverseproxy --config FILE", output)
            self.assertNotIn("--rundir", output)


class ConvertTests(IntegrationTestCase):
    async def test_both_ends_work(self) -> None:
        """What becomes of a file of frp's runs, and requests get through."""
        backend = await self.run_backend()
        client = {
            "serverAddr": "127.0.0.1",
            "auth": {"token": "secret"},
            "transport": {"tls": {"enable": False}},
            "proxies": [
                {
                    "name": "web",
                    "type": "http",
                    "localPort": backend.port,
                    "customDomains": ["www.example.com"],
                },
                {"name": "raw", "type": "tcp", "localPort": backend.port, "remotePort": 6000},
            ],
        }
        server = convert_frp(json.dumps(client), "frpc.json").server
        for listener in server["servers"][0]["listeners"]:
            listener["address"] = "127.0.0.1:0"
        cloud = self.run_proxy(server, "server")
        client["serverPort"] = await cloud.port("tunnels")
        self.run_proxy(convert_frp(json.dumps(client), "frpc.json").agent, "agent")
        for cluster in ("web", "raw"):
            await cloud.wait_for(rf"cluster {cluster}: host .* joined ")
        answer = await fetch(await cloud.port("http"), headers={"Host": "www.example.com"})
        self.assertEqual(answer.status, 200)
        answer = await fetch(await cloud.port("port-6000"))
        self.assertEqual(answer.status, 200)


class ExposeTests(IntegrationTestCase):
    def start(self, name: str, *arguments: str) -> ReverseProxy:
        child = ReverseProxy(name)
        self.spawn(child, "-m", "reverseproxy", *arguments)
        return child

    async def test_server_and_expose(self) -> None:
        """What is printed is what it takes."""
        backend = await self.run_backend()
        agents, web, raw = (self.reserve_port() for _ in range(3))
        kept = str(self.directory / "server")
        cloud = self.start(
            *("server", "server", "--http", "app1", "--tcp", f"raw={raw}", "--state", kept),
            *("--listen", f"127.0.0.1:{agents}", "--http-listen", f"127.0.0.1:{web}"),
        )
        await cloud.wait_for("listener tcp-raw listening on")
        printed = "\n".join(cloud.lines)
        fingerprint = re.search(r"certificate: (sha256:[0-9a-f]{64})", printed)
        assert fingerprint is not None
        secrets = re.findall(r"its token, which is not shown again: (\S+)", printed)
        for name, secret, more in (("app1", secrets[0], []), ("raw", secrets[1], ["--tcp"])):
            token = self.directory / f"{name}.token"
            token.write_text(f"{secret}\n")
            token.chmod(0o600)
            self.start(
                *(name, "expose", str(backend.port), "--as", name, "--to", f"127.0.0.1:{agents}"),
                *("--token-file", str(token), "--state", str(self.directory / "agent")),
                *("--fingerprint", fingerprint[1], *more),
            )
            await cloud.wait_for(f"cluster {name}: host .* joined")
        for port in (web, raw):
            self.assertEqual((await fetch(port)).status, 200)
        wrong = self.start(
            *("wrong", "expose", "1", "--as", "other", "--to", f"127.0.0.1:{agents}"),
            *("--token-file", str(token), "--state", str(self.directory / "other")),
        )
        self.assertEqual(await wrong.ended(), 1)
        self.assertIn(f"It shows {fingerprint[1]}", "\n".join(wrong.lines))
