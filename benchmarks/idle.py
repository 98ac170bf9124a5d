"""
Whether connections that do nothing stay: C{idle.py [--connections N] [--seconds S] [--own AGENTS] [--plain]}.

Ten thousand of them join one server, and a few requests a second go through
some.  Each that is lost while nobody is gone is a false death.  With C{--own}
they belong to so many agents as they are, each in one process with all others of
these, which have everything to do that an agent has; otherwise to scripts that
do next to nothing (L{benchmarks.scale_peers}).
"""

from __future__ import annotations

__all__ = ["Found", "Plan", "stay"]

import argparse
import http.client
import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from twisted.logger import globalLogBeginner

if __name__ == "__main__":
    # run as a script: the project is beside the directory of what is beside it
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.measure import cpu_seconds
from benchmarks.scale import Limits, Server, Swarms, _Child, running
from benchmarks.scale_peers import LOOPBACK, TICK

PATIENCE = 300.0
"""Seconds in which all connections have to stand."""


@dataclass(frozen=True)
class Plan:
    """
    What to try.

    @ivar own: how many agents as they are; 0 for scripts.
    @ivar rate: requests a second.
    """

    connections: int = 10_000
    seconds: float = 180.0
    own: int = 0
    mux: bool = True
    rate: float = 5.0

    @property
    def limits(self) -> Limits:
        """The same for L{benchmarks.scale}."""
        return Limits(self.connections, self.own or 1_000, 1, self.mux)


@dataclass
class Found:
    """
    What has become of it.

    @ivar joined: seconds until all connections stood.
    @ivar deaths: connections that were lost afterwards, or while the others joined.
    @ivar requests: how many there were, and C{failed} of them.
    @ivar bytes_per_connection: of the server's memory.
    @ivar server: percent of a core that the server has used, once all stood; C{peers}, what
        the other end has.
    """

    connections: int
    mux: bool
    own: int
    joined: float = 0.0
    seconds: float = 0.0
    deaths: int = 0
    requests: int = 0
    failed: int = 0
    longest_ms: float = 0.0
    bytes_per_connection: int = 0
    server: float = 0.0
    peers: float = 0.0


class _Scripts:
    """Connections of scripts."""

    def __init__(self, server: Server, plan: Plan) -> None:
        self._plan = plan
        self._swarms = Swarms(server, plan.limits)
        [self._child] = self._swarms._children
        self.pid = self._child.pid

    def join(self) -> None:
        """Let all join."""
        self._swarms.join(self._plan.connections)

    def keep_up(self) -> None:
        """Scripts say nothing that they are not asked for."""

    def deaths(self) -> int:
        """How many are lost."""
        self._child.tell("count")
        return self._plan.connections - int(self._child.hear()["held"])

    def stop(self) -> None:
        """End them."""
        self._swarms.stop()


class _Agents:
    """Connections of agents."""

    def __init__(self, server: Server, plan: Plan) -> None:
        self._plan = plan
        self._child = _Child("agents", server.tunnel, plan.limits)
        self.pid = self._child.pid

    def join(self) -> None:
        """
        Let all join.

        @raise RuntimeError: if they do not.
        """
        plan = self._plan
        self._child.tell(f"start {plan.own} {plan.connections // plan.own}")
        deadline = time.monotonic() + PATIENCE
        while self._hear()["serving"] < plan.connections // plan.own * plan.own:
            if time.monotonic() > deadline:
                raise RuntimeError(f"not all connections stand: {self._child.last}")

    def _hear(self) -> dict[str, Any]:
        """What they say now."""
        while self._child.hear()["time"] < time.monotonic() - TICK:
            pass
        return self._child.last

    def keep_up(self) -> None:
        """Take what they have said: who is not listened to has to wait, and can't do anything else."""
        while self._child.has_said:
            self._child.hear()

    def deaths(self) -> int:
        """How many were dialled again, or are missing."""
        last, wanted = self._hear(), self._plan.connections // self._plan.own * self._plan.own
        return int(max(last["dials"] - wanted, wanted - last["serving"]))

    def stop(self) -> None:
        """End them."""
        self._child.stop()


def stay(plan: Plan) -> Found:
    """Let all connections join, and see whether they stay."""
    found = Found(plan.connections, plan.mux, plan.own)
    with running(plan.limits, None) as server:
        peers = _Agents(server, plan) if plan.own else _Scripts(server, plan)
        try:
            before, began = server.memory, time.monotonic()
            peers.join()
            found.joined = round(time.monotonic() - began, 1)
            found.bytes_per_connection = (server.memory - before) // plan.connections
            cpu, others, began = server.cpu, sum(cpu_seconds(peers.pid)), time.monotonic()
            _ask(server, peers, plan, found, began)
            found.seconds = time.monotonic() - began
            found.server = round((server.cpu - cpu) / found.seconds * 100, 1)
            found.peers = round((sum(cpu_seconds(peers.pid)) - others) / found.seconds * 100, 1)
            found.seconds = round(found.seconds, 1)
            found.deaths = peers.deaths()
        finally:
            peers.stop()
    return found


def _ask(server: Server, peers: _Scripts | _Agents, plan: Plan, found: Found, began: float) -> None:
    """Send requests, evenly."""
    client = http.client.HTTPConnection(LOOPBACK, server.client, timeout=10)
    while time.monotonic() < began + plan.seconds:
        found.requests += 1
        peers.keep_up()
        sent = time.monotonic()
        try:
            client.request("GET", "/")
            answer = client.getresponse()
            if answer.read() != b"served" or answer.status != 200:
                raise OSError(answer.status)
        except (OSError, http.client.HTTPException):
            found.failed += 1
            client.close()
        found.longest_ms = round(max(found.longest_ms, (time.monotonic() - sent) * 1e3), 1)
        with suppress(ValueError):
            time.sleep(began + found.requests / plan.rate - time.monotonic())
    client.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its status is 1 if a connection was lost or a request failed."""
    parser = argparse.ArgumentParser(description="See whether connections that do nothing stay.")
    parser.add_argument("--connections", type=int, default=Plan.connections)
    parser.add_argument("--seconds", type=float, default=Plan.seconds)
    parser.add_argument("--rate", type=float, default=Plan.rate, help="requests in a second")
    parser.add_argument(
        "--own", type=int, default=0, metavar="AGENTS", help="agents as they are, not scripts"
    )
    parser.add_argument("--plain", action="store_true", help="connections that are lent as a whole")
    options = parser.parse_args(arguments)
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
    found = stay(Plan(options.connections, options.seconds, options.own, not options.plain, options.rate))
    print(json.dumps(asdict(found)))
    return int(bool(found.deaths or found.failed))


if __name__ == "__main__":
    sys.exit(main())
