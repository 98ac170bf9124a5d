"""Listeners that let clients in once there is somebody to serve them."""

from __future__ import annotations

__all__ = ["Opening"]

from typing import Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from reverseproxy.assembly.world import World
from reverseproxy.listener import Listener
from reverseproxy.logs import Throttle

log = Logger()

LOOK: Final = 0.05
"""Seconds between two looks at the clusters that are required."""

TELL: Final = 60.0
"""Seconds between two lines about what is waited for."""

AGAIN: Final = 10.0
"""Seconds between two attempts to listen, should the kernel refuse."""


class Opening:
    """
    Opens what is held: see C{open_when_ready} of listeners.

    What has been opened stays so, whatever becomes of the clusters, as requests wait
    for a host that comes back.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._again: dict[Listener, float] = {}  # when to try again what could not be opened
        self._complaints = Throttle(world.reactor, 1 / TELL, 1)
        self._loop = LoopingCall(self._look)
        self._loop.clock = world.reactor

    def start(self) -> None:
        """Look from now on, as long as there is something that is held."""
        if self._held() and not self._loop.running:
            self._loop.start(LOOK)

    def stop(self) -> None:
        """Look no more."""
        if self._loop.running:
            self._loop.stop()

    def _held(self) -> list[Listener]:
        return [listener for listener in self._world.listeners.values() if listener.held]

    def _look(self) -> None:
        missing = [
            cluster.name
            for cluster in self._world.clusters
            if cluster.config.required and not cluster.healthy
        ]
        held, now = self._held(), self._world.reactor.seconds()
        for listener in held:
            if listener.config.open_when_ready and missing:
                if self._complaints.allow():
                    log.info(
                        "listener {listener} lets no clients in yet, as these clusters have no healthy host: "
                        "{clusters}",
                        listener=listener.name,
                        clusters=", ".join(missing),
                    )
            elif self._again.get(listener, 0.0) <= now and not listener.open():
                self._again[listener] = now + AGAIN
        if not held:
            self.stop()
