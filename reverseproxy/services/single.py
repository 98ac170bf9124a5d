"""The service of a process that has no workers."""

from __future__ import annotations

__all__ = ["SingleProcessService", "on_start"]

import sys
from collections.abc import Callable
from typing import Any

from reverseproxy.app import ReverseProxy
from reverseproxy.services import quickstart
from reverseproxy.services.process_service import AGENTS_LOOK, AGENTS_TIME, ProcessService

on_start: list[Callable[[ReverseProxy, Any], object]] = []
"""Callbacks that get the service and its reactor, once the service has started."""


class SingleProcessService(ProcessService, ReverseProxy):
    """
    The service of the only process.

    @ivar is_quickstart: whether to print how to try it out.
    """

    is_quickstart = False

    def startService(self) -> None:
        """Start, and report that we serve."""
        super().startService()
        if self.is_quickstart:
            quickstart.announce(self, self.main_reactor, sys.__stdout__ or sys.stdout)
        for begin in on_start:
            begin(self, self.main_reactor)
        until = self.main_reactor.seconds() + AGENTS_TIME
        self.main_reactor.callWhenRunning(self._when_agents_serve, until)

    def _when_agents_serve(self, until: float) -> None:
        """
        Report that we serve; if we take over another process, once our agents have connected.

        Otherwise the agents of the old process would leave their servers before ours are there.
        """
        reactor = self.main_reactor
        waits = self.lifecycle.takes_over and any(agent.unserved for agent in self.agents)
        if waits and self.running and reactor.seconds() < until:
            reactor.callLater(AGENTS_LOOK, self._when_agents_serve, until)
        elif self.running:
            self.serves()
