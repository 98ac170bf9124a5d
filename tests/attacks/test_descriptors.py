"""Silent connections, more than there are descriptors."""

from __future__ import annotations

import contextlib
import json
import socket
import statistics
from typing import Any

from twisted.internet import reactor

from reverseproxy.limits.connection_limit import Descriptors
from tests.integration import configs
from tests.integration.clients import fetch
from tests.integration.harness import JOINED, TWISTD, IntegrationTestCase, ReverseProxy

LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({0}, {0}));" + TWISTD
"""What runs with so many descriptors."""


class DescriptorTests(IntegrationTestCase):
    """
    With more connections than there are descriptors, others are served.

    @cvar descriptors: how many the server has.
    @ivar attacker: the address of those that say nothing.
    """

    descriptors = 128
    attacker = "127.0.0.1"

    async def start(self, *options: str, **server: Any) -> tuple[ReverseProxy, int, int]:
        """A server with few descriptors, and an agent that answers; the ports."""
        path = self.directory / "server.json"
        path.write_text(json.dumps(configs.server(**server)))
        child = ReverseProxy("server")
        self.spawn(
            child,
            *(
                "-c",
                LIMITED.format(self.descriptors),
                "--nodaemon",
                "--pidfile=",
                "reverseproxy",
                "--log-format",
                "json",
            ),
            *("--config", str(path), *options),
        )
        port = await child.port("clientListener")
        tunnel = await child.port("tunnelListener")
        return child, port, tunnel

    def flood(self, port: int, count: int, first: bytes = b"") -> None:
        """Connect that often, and keep it open."""
        for _ in range(count):
            connection = socket.socket()
            self.addCleanup(connection.close)
            connection.setblocking(False)
            connection.bind((self.attacker, 0))
            connection.connect_ex(("127.0.0.1", port))
            self._flooding.append(connection)
        if first:
            for connection in self._flooding[-count:]:
                with contextlib.suppress(OSError):
                    connection.send(first)

    def setUp(self) -> None:
        super().setUp()
        Descriptors.raise_limit()
        self.expected_errors = [r"\d+ of \d+ descriptors are in use"]
        self._flooding: list[socket.socket] = []

    async def served(self, server: ReverseProxy, port: int, tunnel: int) -> None:
        """Requests are answered, soon, and agents may still join."""
        times = []
        for _ in range(50):
            begun = reactor.seconds()  # type: ignore[attr-defined]
            self.assertEqual((await fetch(port)).status, 200)
            times.append(reactor.seconds() - begun)  # type: ignore[attr-defined]
        print(f"median {statistics.median(times) * 1000:.1f} ms, longest {max(times) * 1000:.1f} ms")  # noqa: T201
        mark = server.mark()
        self.run_proxy(configs.agent([f"127.0.0.1:{tunnel}"], answer="late", connections=3), "late")
        await server.counted(JOINED, 3, since=mark)

    async def attack(self, *options: str, processes: int = 1) -> None:
        server, port, tunnel = await self.start(*options)
        self.run_proxy(configs.agent([f"127.0.0.1:{tunnel}"], connections=2), "agent")
        await server.counted(JOINED, 2)
        mark = server.mark()
        self.flood(port, 2 * self.descriptors)
        self.flood(tunnel, 2 * self.descriptors)
        self.flood(port, 2 * self.descriptors, first=b"GET / HTTP/1.1\r\n")
        await self.served(server, port, tunnel)
        errors = [entry for entry in server.entries(mark) if entry["level"] == "ERROR"]
        self.assertLessEqual(len(errors), processes)
        # Each decision about each request is told as well, to those who have asked for that.
        self.told = sum(entry["level"] != "DEBUG" for entry in server.entries(mark))

    async def test_silent(self) -> None:
        await self.attack()
        # fifty lines about bad peers at once, some ten a second, and what the agents' coming gives
        self.assertLess(self.told, 200)

    async def test_silent_with_the_reactor_s_own_connections(self) -> None:
        await self.attack("--transport", "stock")

    async def test_silent_with_workers(self) -> None:
        await self.attack("--workers", "2", processes=2)
