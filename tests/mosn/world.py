"""What both worlds have in common: a process of ours, and what is known of it."""

from __future__ import annotations

__all__ = ["LIMIT", "Ours", "World", "converse", "reactor"]

import json
import os
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred

from tests.certs import Certificates
from tests.integration.forked import fork
from tests.integration.harness import OURS, ROOT, TWISTD, ReverseProxy
from tests.mosn.cells import MODES, Cell
from tests.mosn.talk import Unexpected

reactor: Any = _reactor

LIMIT = 60.0
"""
Seconds that a scene, or the start of what it needs, may take on a machine that has much else to do.

Less than an agent of ours waits where it should not, see C{configs}.
"""


class Ours(ReverseProxy):
    """
    A process of ours that is watched for the hosts of its clusters.

    @ivar hosts: how many of its workers have a host, by its cluster and address.
    """

    _SEEN = re.compile(r"^cluster (\S+): host (\S+) .*?(joined|left)[ ,]")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.hosts: Counter[tuple[str, str]] = Counter()
        self._watching: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def _line(self, line: str) -> None:
        super()._line(line)
        if '"namespace": "cluster.manager"' not in line:
            return
        seen = self._SEEN.search(json.loads(line)["message"])
        if seen is not None:
            self.hosts[seen[1], seen[2]] += 1 if seen[3] == "joined" else -1
            self._look()

    def _look(self) -> None:
        for watching in list(self._watching):
            if watching[0]():
                self._watching.remove(watching)
                watching[1].callback(None)

    def misses(self, cluster: str, addresses: list[str]) -> Deferred[None]:
        """Wait until a worker that has had these hosts has them no more."""
        before = self.hosts.copy()
        done: Deferred[None] = Deferred()
        keys = [(cluster, address) for address in addresses]
        self._watching.append((lambda: all(self.hosts[key] < before[key] for key in keys), done))
        return done

    def has(self, cluster: str, addresses: Callable[[], list[str]], workers: int) -> Deferred[None]:
        """Wait until so many workers have each of the hosts that there are."""
        done: Deferred[None] = Deferred()
        self._watching.append(
            (lambda: all(self.hosts[cluster, address] == workers for address in addresses()), done)
        )
        self._look()
        return done

    def complaints(self, mark: int) -> list[str]:
        """What it should not have had to say since then."""
        return [
            line
            for line in self.lines[mark:]
            if "Traceback (most recent" in line or re.search(r'"level": "(error|fatal)"', line, re.IGNORECASE)
        ]


class World:
    """
    One end of ours, and a fake MOSN for the other.

    A scene is a method that is given a L{Cell}, and raises if anything was not as
    it should be.

    @ivar child: the process of ours.
    """

    child: Ours

    def __init__(self, directory: Path, certificates: Certificates, mode: str) -> None:
        """
        @param directory: where files may be written, of this world alone.
        @param certificates: of this world and others.
        @param mode: see L{tests.mosn.cells.MODES}.
        """
        self.directory = directory
        self.mode = mode
        self.certificates = certificates

    def run_child(self, name: str, config: dict[str, Any]) -> None:
        """Start the process of ours."""
        file = self.directory / f"{name}.json"
        file.write_text(json.dumps(config, indent=1))
        self.child = Ours(f"{name} ({self.mode})")
        options = ["--nodaemon", "--pidfile=", "reverseproxy", "--log-format", "json", "--config", str(file)]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        fork(
            self.child,
            OURS,
            ["-c", TWISTD, *options, *MODES[self.mode]],
            {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
            str(self.directory),
        )

    async def start(self) -> None:
        """Start all there is, and wait until it may be used."""
        raise NotImplementedError

    async def stop(self) -> None:
        """
        Stop the process of ours with SIGTERM.

        @raise Unexpected: if it does not end well.
        """
        status = await self.child.stop()
        if status:
            raise Unexpected(f"{self.child.name} ended with status {status}")

    async def load(self, cell: Cell) -> None:
        """Clients ask all they have to ask, on fresh connections of the agent."""
        raise NotImplementedError


async def converse(bodies: list[bytes], ask: Callable[[bytes], Awaitable[bytes]]) -> None:
    """Ask for one thing after the other; each has to come back as it was."""
    for body in bodies:
        answer = await ask(body)
        if answer != body:
            raise Unexpected(f"{answer[:100]!r} ({len(answer)} bytes), where {body[:100]!r} was sent")
