"""C{reverseproxy server} and C{reverseproxy expose}, as people type them."""

from __future__ import annotations

import os
import re
import sys

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.integration.clients import fetch
from tests.integration.harness import Child, IntegrationTestCase


class ExposeTests(IntegrationTestCase):
    async def serve(self, *options: str) -> Child:
        """Run a server, with its state in the test's directory."""
        self.agents, self.web = self.reserve_port(), self.reserve_port()
        server = Child("server")
        self.spawn(
            server,
            *("-m", "reverseproxy", "server", "--state", "server", *options),
            *("--listen", f"127.0.0.1:{self.agents}", "--http-listen", f"127.0.0.1:{self.web}"),
        )
        return server

    def expose(self, server_line: str, target: str, name: str, token: str, *options: str) -> list[str]:
        """The command line, with what the server has printed."""
        (self.directory / "a.token").write_text(f"{token}\n")
        (self.directory / "a.token").chmod(0o600)
        found = re.search(r"--fingerprint (sha256:\w+)", server_line)
        assert found is not None
        return [
            *("-m", "reverseproxy", "expose", target, "--as", name, "--to", f"127.0.0.1:{self.agents}"),
            *("--token-file", "a.token", "--fingerprint", found[1], "--state", name, *options),
        ]

    async def test_first_minute(self) -> None:
        """A server without a word on services, a directory, a service, and a port."""
        ports = self.reserve_port()
        server = await self.serve("--ports", f"{ports}-{ports}")
        token = (await server.wait_for(r"A token, which is not shown again: (\S+)")).group(1)
        line = (await server.wait_for(r"reverseproxy expose .*")).group(0)
        await server.wait_for(r"listening on")
        (self.directory / "site").mkdir()
        (self.directory / "site" / "page.txt").write_text("a page\n")
        backend = await self.run_backend()
        runs = {
            "files": ("site",),
            "web": (str(backend.port),),
            "raw": (str(backend.port), "--tcp"),
            "other": (str(backend.port), "--domain", "other.example"),
        }
        children = {}
        for name, (target, *options) in runs.items():
            children[name] = child = Child(name)
            self.spawn(child, *self.expose(line, target, name, token, *options))
        url = f"http://files.localhost:{self.web}/"
        await children["files"].wait_for(re.escape(f"files: clients go to {url}"))
        page = await fetch(self.web, "/page.txt", headers={"Host": f"files.localhost:{self.web}"})
        self.assertEqual(page.body, b"a page\n")
        await children["web"].wait_for("web: clients go to ")
        echo = await fetch(self.web, "/echo", "POST", b"web", headers={"Host": "web.localhost"})
        self.assertEqual(echo.body, b"web")
        await children["raw"].wait_for(f"raw: clients go to port {ports} of ")
        self.assertEqual((await fetch(ports, "/echo", "POST", b"raw")).body, b"raw")
        await children["other"].wait_for("may not have the domain other.example")
        for child in children.values():
            self.assertEqual(await child.stop(), 0)
        self.assertEqual(await server.stop(), 0)

    async def test_line(self) -> None:
        """On a terminal, the last line is alive."""
        server = await self.serve()
        token = (await server.wait_for(r"A token, which is not shown again: (\S+)")).group(1)
        line = (await server.wait_for(r"reverseproxy expose .*")).group(0)
        await server.wait_for(r"listening on")
        backend = await self.run_backend()
        command = self.expose(line, str(backend.port), "web", token)
        child = Child("expose")
        # What a terminal shows comes through one descriptor, without ends of lines.
        child._partial[0] = b""
        self.children.append(child)
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path]), "COLUMNS": "70"}
        reactor.spawnProcess(  # type: ignore[attr-defined]
            child, sys.executable, [sys.executable, *command], environ, str(self.directory), usePTY=True
        )
        await child.wait_for(r"web: clients go to http://web\.localhost")
        for _ in range(3):
            await fetch(self.web, "/echo", "POST", b"x", headers={"Host": "web.localhost"})
        shown = await self.shown(child, "web  1 connection  3 requests")
        self.assertRegex(shown, r"3 requests  \d+\.\d/s  \d+ ms")
        backend.signal("TERM")
        await backend.ended()
        await self.shown(child, "-> start the service, or use another TARGET")
        self.assertEqual(await child.stop(), 0)
        self.assertTrue((self.directory / "web" / "web-agent.log").read_text())
        self.assertEqual(await server.stop(), 0)

    async def shown(self, child: Child, wanted: str) -> str:
        """Wait until a terminal shows something; everything that it has shown."""
        for _ in range(300):
            text = "\n".join(child.lines) + b"".join(child._partial.values()).decode("utf-8", "replace")
            if wanted in text:
                return text
            await deferLater(reactor, 0.1)
        raise AssertionError(f"{wanted!r} is not shown: {text!r}")
