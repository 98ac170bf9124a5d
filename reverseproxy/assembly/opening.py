"""Listeners that accept clients only once their required clusters have hosts: C{open_when_ready}."""

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
"""Seconds between two looks at the required clusters."""

TELL: Final = 60.0
"""Seconds between two log lines about clusters without hosts."""

AGAIN: Final = 10.0
"""Seconds between two attempts to listen, if the kernel refuses."""


class Opening:
    """
    Opens listeners with C{open_when_ready}.

    An opened listener stays open, even if clusters lose their hosts, as requests wait for
    a host to return.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._again: dict[Listener, float] = {}  # when to retry those that could not be opened
        self._complaints = Throttle(world.reactor, 1 / TELL, 1)
        self._loop = LoopingCall(self._look)
        self._loop.clock = world.reactor

    def start(self) -> None:
        """Start looking, as long as there are closed listeners."""
        if self._held() and not self._loop.running:
            self._loop.start(LOOK)

    def stop(self) -> None:
        """Stop looking."""
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
                        "listener {listener} accepts no clients yet, as these clusters have no healthy host: "
                        "{clusters}",
                        listener=listener.name,
                        clusters=", ".join(missing),
                    )
            elif self._again.get(listener, 0.0) <= now and not listener.open():
                self._again[listener] = now + AGAIN
        if not held:
            self.stop()
