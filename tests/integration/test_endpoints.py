"""Programs of Twisted's that listen through a real tunnel server: the examples, and C{twist web}."""

from __future__ import annotations

import json
import socket
from typing import Any

from websockets.sync.client import connect

from tests.integration.clients import RawPeer, connect_raw, fetch, threaded
from tests.integration.configs import EXAMPLES, example
from tests.integration.harness import Child, IntegrationTestCase

HERE = EXAMPLES / "endpoints"

TWIST = "from twisted.application.twist._twist import Twist; Twist.main()"


class EndpointTests(IntegrationTestCase):
    async def test_examples(self) -> None:
        """All examples at one server; each process is slow to start, so that they start together."""
        ports = {"127.0.0.1:2045": 0, "127.0.0.1:2046": 0, "127.0.0.1:9999": 0}
        cloud = self.run_proxy(example("endpoints/server.json", ports), "server")
        server = f"tunnel:127.0.0.1:{await cloud.port('tunnels')}"
        (self.directory / "page.txt").write_text("a file\n")
        programs = {
            "klein": [str(HERE / "klein_app.py"), f"{server}:cluster=klein:name=k"],
            "lines": [str(HERE / "line_server.py"), f"{server}:cluster=lines"],
            "asgi": ["-m", "daphne", "-e", f"{server}:cluster=asgi", "asgi_app:app"],
            "files": [
                *("-c", TWIST, "web", "--listen", f"{server}:cluster=files"),
                *("--path", str(self.directory)),
            ],
        }
        children = {}
        for name, command in programs.items():
            children[name] = Child(name)
            self.spawn(children[name], *command, PYTHONPATH=str(HERE))
        for name in programs:
            await cloud.logged(rf"^cluster {name}: host .* joined ")
        self.web, self.raw = await cloud.port("sites"), await cloud.port("lines")
        await self.look_at_files()
        await self.look_at_klein()
        await self.look_at_asgi()
        await self.look_at_lines(children["lines"])
        for child in children.values():
            if child.status is None:
                child.signal("TERM")
        for child in children.values():
            await child.ended()
            self.assertFalse(child.find(lambda line: "Traceback" in line), child.lines)

    async def get(self, path: str, host: str = "x.example") -> Any:
        return await fetch(self.web, path, headers={"Host": host})

    async def look_at_files(self) -> None:
        self.assertEqual((await self.get("/page.txt")).body, b"a file\n")
        self.assertEqual((await self.get("/other.txt")).status, 404)

    async def look_at_klein(self) -> None:
        self.assertEqual((await self.get("/greet/you", "klein.example")).body, b"hello you\n")

    async def look_at_asgi(self) -> None:
        answer = await self.get("/a", "asgi.example")
        self.assertEqual(answer.body, b"GET /a of 127.0.0.1\n")

        def talk() -> str:
            wire = socket.create_connection(("127.0.0.1", self.web))
            with connect("ws://asgi.example/", sock=wire) as talking:
                talking.send("over a tunnel")
                return str(talking.recv(10))

        self.assertEqual(await threaded(talk), "over a tunnel")

    async def look_at_lines(self, server: Child) -> None:
        """A client that is still there when the program stops is waited for."""
        client: RawPeer = await connect_raw(self, self.raw)
        await client.contains(b"you come by way of 127.0.0.1\r\n")
        server.signal("TERM")
        client.transport.write(b"abc\r\n")
        await client.contains(b"cba\r\n")
        self.assertIsNone(server.status)
        client.transport.write(b"quit\r\n")
        await client.closed()
        client.transport.loseConnection()
        self.assertEqual(await server.ended(), 0)

    async def test_a_string_that_is_wrong(self) -> None:
        """Twisted's own way to tell is a traceback; the message stands at its end."""
        self.expected_errors.append("Traceback")
        child = Child("twist")
        self.spawn(child, "-c", TWIST, "web", "--listen", "tunnel:127.0.0.1:9:cluster=c:wieght=1")
        self.assertNotEqual(await child.ended(), 0)
        self.assertIn("unknown key 'wieght'", json.dumps(child.lines))
