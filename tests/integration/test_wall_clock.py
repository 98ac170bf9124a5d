"""The wall clock is set forward and back under running processes: only stamps in logs change."""

from __future__ import annotations

import json
import mmap
import struct
from datetime import datetime
from pathlib import Path
from typing import Any

from twisted.internet import reactor

from tests.integration import configs
from tests.integration.clients import fetch
from tests.integration.harness import (
    JOINED,
    LEFT,
    SERVING,
    SLOW_MACHINE,
    TWISTD,
    IntegrationTestCase,
    ReverseProxy,
)

HOURS = 2 * 3600.0

WITHIN = 5.0
"""Seconds in which an agent that stands still has to be noticed."""


class WallClockTests(IntegrationTestCase):
    """With streams, whose pings are our own timers, unlike the kernel's keepalive."""

    def setUp(self) -> None:
        super().setUp()
        offset = self.directory / "offset"
        offset.write_bytes(struct.pack("d", 0.0))
        with offset.open("r+b") as file:
            self._offset = mmap.mmap(file.fileno(), 8)
        self.addCleanup(self._offset.close)
        self._environ = {
            "WALL_CLOCK_OFFSET": str(offset),
            "PYTHONPATH": str(Path(__file__).resolve().parent.parent / "wall_clock"),
        }

    def step(self, seconds: float) -> None:
        """Set the clock of all processes: so many seconds ahead of the machine's."""
        self._offset[:] = struct.pack("d", seconds)

    def run_with_clock(
        self, config: Any, name: str, *options: str, twisted: tuple[str, ...] = ()
    ) -> ReverseProxy:
        path = self.directory / f"{name}.json"
        path.write_text(json.dumps(config))
        child = ReverseProxy(name)
        self.spawn(
            child,
            *("-c", TWISTD, "--nodaemon", "--pidfile=", *twisted),
            *("reverseproxy", "--log-format", "json", "--config", str(path), *options),
            **self._environ,
        )
        return child

    async def start(
        self, *options: str, twisted: tuple[str, ...] = ()
    ) -> tuple[ReverseProxy, ReverseProxy, int]:
        """A server, the agent that will stand still, and the port for clients."""
        backend = await self.run_backend()
        server = self.run_with_clock(configs.server(), "server", *options, twisted=twisted)
        port = await server.port("clientListener")
        tunnel = await server.port("tunnelListener")
        agents = [
            self.run_with_clock(
                configs.agent([f"127.0.0.1:{tunnel}"], backend.address, host_name=name),
                name,
                *(() if "--workers" in options else options),  # one that can stand still as a whole
                twisted=twisted,
            )
            for name in ("one", "two")
        ]
        for agent in agents:
            await agent.logged(SERVING)
        return server, agents[0], port

    async def set_back(self, *options: str, twisted: tuple[str, ...] = ()) -> None:
        """After a step back, an agent that stands still is noticed as ever, and comes back as ever."""
        server, agent, port = await self.start(*options, twisted=twisted)
        self.step(-HOURS)
        await fetch(port, "/headers")
        mark = server.mark()
        began = reactor.seconds()  # type: ignore[attr-defined]
        agent.signal("STOP")
        try:
            await server.logged(LEFT, since=mark)
            noticed = reactor.seconds() - began  # type: ignore[attr-defined]
            self.assertLess(noticed, WITHIN + SLOW_MACHINE)
            entry = (await server.logged(LEFT, since=mark))["time"]
        finally:
            agent.signal("CONT")
        stamp = datetime.fromisoformat(entry).timestamp()
        now = datetime.now().timestamp()
        self.assertLess(abs(now - HOURS - stamp), 600.0, "what people read is the wall clock's")
        # It dials again, after a wait that was not made longer by the step.
        await server.logged(JOINED, since=mark)

    async def test_set_back(self) -> None:
        await self.set_back()

    async def test_set_back_stock(self) -> None:
        await self.set_back("--transport", "stock", twisted=("--reactor", "select"))

    async def test_set_back_asyncio(self) -> None:
        await self.set_back(twisted=("--reactor", "asyncio"))

    async def test_set_back_workers(self) -> None:
        await self.set_back("--workers", "2")

    async def test_set_forward(self) -> None:
        """A request that is under way, tunnels and idle connections outlive a step forward."""
        server, _, port = await self.start()
        mark = server.mark()
        waiting = fetch(port, "/hold?key=a")
        await fetch(port, "/held?key=a&n=1")
        self.step(HOURS)
        self.assertEqual((await fetch(port, "/release?key=a")).status, 200)
        self.assertEqual((await waiting).status, 200)
        self.assertEqual(server.find(lambda line: " left, " in line, mark), [])
