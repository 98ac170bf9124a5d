"""What may change by which somebody does not qualify any more that was let in."""

from __future__ import annotations

__all__ = ["AdmissionWatch"]

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from reverseproxy.assembly.world import World
from reverseproxy.tunnel.server.revocation import LOOK

log = Logger()


class AdmissionWatch:
    """Looks at the files of listeners' certificates, and of tokens, every second."""

    def __init__(self, world: World, contexts: Callable[[], Iterable[Any]]) -> None:
        """
        @param contexts: those of listeners.
        """
        self._world = world
        self._contexts = contexts
        self._loop = LoopingCall(self.look)
        self._loop.clock = world.reactor

    def start(self) -> None:
        """Begin.  Harmless if it has begun."""
        if not self._loop.running:
            self._loop.start(LOOK, now=False)

    def stop(self) -> None:
        """End.  Harmless if it has not begun."""
        if self._loop.running:
            self._loop.stop()

    def look(self) -> None:
        """Look now."""
        for tls in self._contexts():
            try:
                tls.reload_if_changed()
            except Exception:
                log.failure("while looking for changed certificates")
        for server in self._world.tunnels.values():
            try:
                server.look()
            except Exception:
                log.failure("while looking whether agents may stay")
