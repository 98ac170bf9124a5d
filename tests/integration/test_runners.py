"""What else runs a proxy than twistd: C{twist}, and programs of their own."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.integration.clients import Load, fetch
from tests.integration.configs import EXAMPLES, agent, server
from tests.integration.harness import Child, IntegrationTestCase, ReverseProxy

TWIST = "from twisted.application.twist._twist import Twist; Twist.main()"


class Text(ReverseProxy):
    """A proxy whose log is text."""

    async def port(self, listener: str) -> int:
        line = await self.wait_for(rf"listener {listener} listening on 127\.0\.0\.1:(\d+)")
        return int(line.group(1))


class RunnersTestCase(IntegrationTestCase):
    def file(self, document: Any, name: str = "config.json") -> str:
        path = self.directory / name
        path.write_text(json.dumps(document))
        return str(path)

    async def through_the_tunnel(self, cloud: Any, run: Any) -> int:
        """Run an agent of a server, and send requests through it; return the server's port for clients."""
        backend = await self.run_backend()
        tunnel, client = await cloud.port("tunnelListener"), await cloud.port("clientListener")
        edge = run(self.file(agent([f"127.0.0.1:{tunnel}"], backend.address), "agent.json"), "agent")
        await edge.wait_for("serving ")
        answer = await fetch(client, "/echo", "POST", b"hello")
        self.assertEqual((answer.status, answer.body), (200, b"hello"))
        return client


class TwistTests(RunnersTestCase):
    def twist(self, file: str, name: str = "twist", *options: str, before: tuple[str, ...] = ()) -> Text:
        child = Text(name)
        self.spawn(
            child, "-c", TWIST, "--log-format=text", *before, "reverseproxy", "--config", file, *options
        )
        return child

    async def test_both_ends(self) -> None:
        cloud = self.twist(self.file(server()), "server")
        client = await self.through_the_tunnel(cloud, self.twist)
        load = Load(client, 4).start()
        await load.answers(50)
        # It finishes what it has begun, and ends as under twistd.
        edge = self.children[-1]
        assert isinstance(edge, Text)
        self.assertEqual(await edge.stop(), 0)
        await load.stop()
        self.assertEqual(await cloud.stop(), 0)
        self.assertEqual(len(cloud.find(lambda line: "stopped" in line)), 1)

    async def test_stock_connections(self) -> None:
        cloud = self.twist(self.file(server()), "server", "--transport", "stock")
        await self.through_the_tunnel(cloud, self.twist)

    async def test_signals(self) -> None:
        child = self.twist(self.file(server()))
        await child.port("clientListener")
        mark = child.mark()
        child.signal("HUP")
        child.signal("USR1")
        child.signal("INT")
        self.assertEqual(await child.ended(), 0)
        self.assertEqual(len(child.find(lambda line: "asked to stop by a signal" in line, mark)), 1)

    async def test_an_address_in_use(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            child = self.twist(self.file(server(client=address)))
            self.assertEqual(await child.ended(), 1)
        [line] = [line for line in child.lines if "can't listen on" in line]
        self.assertIn(
            f"servers[0].listeners[0].address: listener clientListener can't listen on {address}", line
        )
        self.assertEqual(child.find(lambda line: "Traceback" in line), [])

    async def test_a_wrong_configuration(self) -> None:
        child = self.twist(self.file({"servers": []}))
        self.assertEqual(await child.ended(), 1)
        self.assertEqual(len(child.find(lambda line: "config.json: servers" in line)), 1)

    async def test_workers(self) -> None:
        cloud = self.twist(self.file(server()), "server", "--workers", "2")
        await cloud.wait_for("worker 1 is ready")
        await cloud.wait_for("worker 2 is ready")
        client = await self.through_the_tunnel(cloud, self.twist)
        load = Load(client, 4).start()
        await load.answers(50)
        await load.stop()
        self.assertEqual(load.failures, [])
        self.assertEqual(await cloud.stop(), 0)
        self.assertEqual(len(cloud.find(lambda line: "all workers have stopped" in line)), 1)

    async def test_workers_and_an_address_in_use(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            child = self.twist(
                self.file(server(client=f"127.0.0.1:{taken.getsockname()[1]}")), "twist", "--workers", "2"
            )
            self.assertEqual(await child.ended(), 1)
        self.assertEqual(len(child.find(lambda line: "can't listen on" in line)), 1)

    async def test_workers_write_where_twist_does(self) -> None:
        for fmt, wanted in (("text", r"\[2\] "), ("json", r'"worker": ?2')):
            log = self.directory / f"{fmt}.log"
            child = self.twist(
                self.file(server()),
                fmt,
                "--workers",
                "2",
                before=(f"--log-format={fmt}", f"--log-file={log}", "--log-level=debug"),
            )

            async def written(log: Path = log, wanted: str = wanted) -> None:
                while not (log.exists() and re.search(wanted, log.read_text())):
                    await deferLater(reactor, 0.05)

            await written()
            self.assertEqual(await child.stop(), 0)

    async def test_options_for_the_log_are_twist_s(self) -> None:
        for option in ("--log-format", "--log-level"):
            value = "json" if option == "--log-format" else "DEBUG"
            child = self.twist(self.file(server()), "twist", option, value)
            self.assertEqual(await child.ended(), 64)
            self.assertEqual(
                len(child.find(lambda line, o=option: f"say twist {o}=... reverseproxy" in line)), 1
            )

    async def test_a_level_that_does_not_count(self) -> None:
        child = self.twist(self.file(server()))
        await child.wait_for("default_log_level: does not count for the log that twist writes")

    async def test_a_file_for_the_log(self) -> None:
        document = server()
        document["servers"][0]["default_log_path"] = str(self.directory / "own.log")
        child = self.twist(self.file(document), "twist", "--log-format", "json")
        await child.port("clientListener")
        (self.directory / "own.log").rename(self.directory / "old.log")
        child.signal("USR1")
        while not (self.directory / "own.log").exists():
            await deferLater(reactor, 0.01)
        self.assertEqual(await child.stop(), 0)
        before, after = (
            [json.loads(line)["message"] for line in (self.directory / name).read_text().splitlines()]
            for name in ("old.log", "own.log")
        )
        self.assertEqual(len([line for line in before if "clientListener listening on" in line]), 1)
        self.assertIn("stopped", after)


class EmbeddedTests(RunnersTestCase):
    """The example of a program that has it inside."""

    def embedded(self, file: str, name: str = "embedded", *more: str) -> Text:
        child = Text(name)
        self.spawn(child, str(EXAMPLES / "embedded" / "main.py"), file, *more)
        return child

    async def end(self, child: Child) -> None:
        # Twisted's own way to end by SIGTERM.
        child.signal("TERM")
        self.assertEqual(await child.ended(), 0)

    async def test_both_ends(self) -> None:
        cloud = self.embedded(self.file(server()), "server")
        await self.through_the_tunnel(cloud, self.embedded)
        for child in (self.children[-1], cloud):
            await self.end(child)

    async def test_both_ends_in_one_process(self) -> None:
        tunnel = self.reserve_port()
        backend = await self.run_backend()
        child = self.embedded(
            self.file(server(tunnel=f"127.0.0.1:{tunnel}"), "server.json"),
            "both",
            self.file(agent([f"127.0.0.1:{tunnel}"], backend.address), "agent.json"),
        )
        await child.wait_for("serving ")
        answer = await fetch(await child.port("clientListener"), "/echo", "POST", b"hello")
        self.assertEqual((answer.status, answer.body), (200, b"hello"))
        await self.end(child)

    async def test_an_address_in_use(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            child = self.embedded(self.file(server(client=f"127.0.0.1:{taken.getsockname()[1]}")))
            self.assertEqual(await child.ended(), 1)
        self.assertEqual(len(child.find(lambda line: "can't listen on" in line)), 1)
