"""Watch the files that decide which agents and clients are admitted."""

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
    """Polls the files of listeners' certificates and of tokens every second."""

    def __init__(self, world: World, contexts: Callable[[], Iterable[Any]]) -> None:
        """
        @param contexts: returns the TLS contexts of listeners.
        """
        self._world = world
        self._contexts = contexts
        self._loop = LoopingCall(self.look)
        self._loop.clock = world.reactor

    def start(self) -> None:
        """Start polling; does nothing if it is started."""
        if not self._loop.running:
            self._loop.start(LOOK, now=False)

    def stop(self) -> None:
        """Stop polling; does nothing if it is not started."""
        if self._loop.running:
            self._loop.stop()

    def look(self) -> None:
        """Poll the files now."""
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
