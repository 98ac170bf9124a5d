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
from tests.mosn.world import LIMIT, World, reactor


class _Orders(LineOnlyReceiver):
    """Takes orders on standard input, one after the other."""

    delimiter = b"\n"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # Of all worlds: what ran before would take new ones for a rotation.
        self._certificates = Certificates(directory / "certificates")
        self._started = 0
        self._worlds: dict[tuple[str, str], World] = {}

    def lineReceived(self, line: bytes) -> None:
        ensureDeferred(self._obey(json.loads(line))).addErrback(Failure.getTraceback).addCallback(
            self._answer
        )

    def _answer(self, error: str) -> None:
        self.sendLine(json.dumps({"error": error}).encode())

    async def _obey(self, order: dict[str, Any]) -> str:
        fresh: bool = order["fresh"]
        world = await self._world(order["end"], order["mode"], fresh)
        mark = world.child.mark()
        playing = ensureDeferred(getattr(world, order["scene"])(Cell(*order["cell"])))
        playing.addTimeout(LIMIT, reactor)
        try:
            await playing
        except BaseException:
            last = world.child.lines[mark:][-40:]
            return "\n".join([Failure().getTraceback(), world.child.name, *last])
        finally:
            if fresh and world.child.status is None:
                await world.child.stop()
        return "\n".join(world.child.complaints(mark))

    async def _world(self, end: str, mode: str, fresh: bool) -> World:
        key = (end, mode)
        if not fresh and key in self._worlds:
            return self._worlds[key]
        self._started += 1
        directory = self._directory / str(self._started)
        directory.mkdir()
        world = (ServerWorld if end == "server" else AgentWorld)(directory, self._certificates, mode)
        try:
            await ensureDeferred(world.start()).addTimeout(LIMIT, reactor)
        except BaseException:
            await world.child.stop()
            raise
        if not fresh:
            self._worlds[key] = world
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
