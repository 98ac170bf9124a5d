"""What C{expose} does besides running an agent: serve a directory, and show the status."""

from __future__ import annotations

__all__ = ["Exposing"]

import atexit
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
from twisted.internet.task import LoopingCall
from twisted.logger import ILogObserver, globalLogPublisher

from reverseproxy.command.files import serve_directory
from reverseproxy.command.instant import MAX_SOCKET
from reverseproxy.command.live import LiveLine, LiveSample
from reverseproxy.metrics.latency import times_of

if TYPE_CHECKING:
    from reverseproxy.app import ReverseProxy


class Exposing:
    """
    One exposed service.

    @ivar live: whether to show its status in a line of the terminal.
    """

    def __init__(self, name: str, directory: Path, tcp: bool, files: str = "") -> None:
        """
        @param name: the name of the service.
        @param directory: the directory for its sockets.
        @param files: the directory to serve; empty for another service.
        """
        self.live = sys.stdout.isatty()
        self._name = name
        self._directory = directory
        self._tcp = tcp
        self._files = files
        self._temporary = ""

    def socket(self, what: str) -> str:
        """Return a path for a Unix socket that is short enough."""
        path = str(self._directory / f"{self._name}-{what}.sock")
        if len(path.encode()) <= MAX_SOCKET:
            return path
        if not self._temporary:
            self._temporary = tempfile.mkdtemp(prefix="reverseproxy-")
            atexit.register(shutil.rmtree, self._temporary, ignore_errors=True)
        return f"{self._temporary}/{what}.sock"

    def begin(self, service: ReverseProxy, clock: Any) -> None:
        """
        Begin after the start of the agent.

        @param clock: the reactor.
        """
        if self._files:
            port = serve_directory(self._files, self.socket("files"), clock)
            clock.addSystemEventTrigger("during", "shutdown", port.stopListening)
        say: Callable[[str], object] = click.echo
        if self.live:
            line = LiveLine(
                self._name,
                lambda: sample(service, clock.seconds()),
                sys.__stdout__ or sys.stdout,
                clock,
                self._tcp,
                lambda: shutil.get_terminal_size().columns,
            )
            line.start()
            say = line.say
            # Any callable is one, which Twisted's types don't say.
            globalLogPublisher.addObserver(cast(ILogObserver, line.observe))
            clock.addSystemEventTrigger("before", "shutdown", line.stop)
        self._announce(service, clock, say)

    def _announce(self, service: ReverseProxy, clock: Any, say: Callable[[str], object]) -> None:
        """Print the address for clients, whenever it is known or changes."""
        told: list[str] = []

        def look() -> None:
            found = [
                address
                for agent in service.agents
                for server, routes in agent.routes.items()
                for address in [
                    *routes.addresses,
                    *([] if routes.port is None else [f"port {routes.port} of {server.rpartition(':')[0]}"]),
                ]
            ]
            if found and found != told:
                told[:] = found
                for address in found:
                    say(f"{self._name}: clients go to {address}")

        watching = LoopingCall(look)
        watching.clock = clock
        watching.start(0.1)


def sample(service: ReverseProxy, now: float) -> LiveSample:
    """Read the counters of an agent's process."""
    requests, seconds = 0, 0.0
    for tally in service.inspector.parts.tallies.values():
        for cell in list(tally.cells.values()):
            total = cell.total
            requests += sum(times_of(total.ends))
            seconds += total.seconds
    return LiveSample(
        now,
        sum(agent.serving for agent in service.agents),
        sum(agent.wanted for agent in service.agents),
        requests,
        sum(cluster.active for cluster in service.clusters),
        seconds,
    )
