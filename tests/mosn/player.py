"""
A process that plays scenes for tests: one end of ours, and a fake MOSN for the other.

It takes a line of JSON for each scene, and gives one with what went wrong.  A
child process for each of hundreds of situations would take minutes: it keeps
what it has once started, until its standard input ends.
"""

from __future__ import annotations

__all__ = ["main"]

import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from tests.certs import Certificates
from tests.mosn.agent_world import AgentWorld
from tests.mosn.cells import Cell
from tests.mosn.server_world import ServerWorld
from tests.mosn.talk import Unexpected
from tests.mosn.world import LIMIT, World, reactor

MANY = 3
"""Scenes that took too long with one end of ours, after which others are not waited for."""


class _Orders(LineOnlyReceiver):
    """Takes orders on standard input, one after the other."""

    delimiter = b"\n"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # Of all worlds: what ran before would take new ones for a rotation.
        self._certificates = Certificates(directory / "certificates")
        self._started = 0
        self._late: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self._worlds: dict[tuple[str, str], World] = {}

    def lineReceived(self, line: bytes) -> None:
        ensureDeferred(self._obey(json.loads(line))).addErrback(Failure.getTraceback).addCallback(
            self._answer
        )

    def _answer(self, error: str) -> None:
        self.sendLine(json.dumps({"error": error}).encode())

    async def _obey(self, order: dict[str, Any]) -> str:
        key = (order["end"], order["mode"])
        late = self._late[key]
        if len(late) == MANY:
            return f"not tried, as all of these took too long: {', '.join(late)}"
        cell = Cell(*order["cell"])
        began = reactor.seconds()
        error = await self._play(key, order["scene"], cell, order["fresh"])
        if error and reactor.seconds() - began > LIMIT / 2:
            late.append(f"{order['scene']} {cell.name}")
        return error

    async def _play(self, key: tuple[str, str], scene: str, cell: Cell, fresh: bool) -> str:
        world = None if fresh else self._worlds.get(key)
        try:
            if world is None:
                world = await self._start(*key)
                if not fresh:
                    self._worlds[key] = world
            mark = world.child.mark()
            await ensureDeferred(getattr(world, scene)(cell)).addTimeout(LIMIT, reactor)
        except BaseException:
            if world is None:
                return Failure().getTraceback()
            return "\n".join([Failure().getTraceback(), world.child.name, *world.child.lines[mark:][-40:]])
        finally:
            if world is not None and fresh and world.child.status is None:
                await world.child.stop()
        return "\n".join(world.child.complaints(mark))

    async def _start(self, end: str, mode: str) -> World:
        self._started += 1
        directory = self._directory / str(self._started)
        directory.mkdir()
        world = (ServerWorld if end == "server" else AgentWorld)(directory, self._certificates, mode)
        try:
            await ensureDeferred(world.start()).addTimeout(LIMIT, reactor)
        except BaseException as error:
            lines = world.child.lines[-40:]
            await world.child.stop()
            raise Unexpected("\n".join(["could not be started", *lines])) from error
        return world

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The tests are over."""
        stopping = [world.child.stop() for world in self._worlds.values()]
        gatherResults(stopping, consumeErrors=True).addBoth(lambda _: reactor.stop())


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="mosn-") as directory:
        StandardIO(_Orders(Path(directory).resolve()))
        reactor.run()


if __name__ == "__main__":
    main()
