"""
The order of a graceful shutdown, so that no request in progress fails.

The order, and why:

1. Tunnel listeners accept no more connections, and agents are notified at once: they dial
   the process that takes over, and serve here until they are not needed any more.
2. Clients' listeners accept no more connections, and requests in progress on them are
   finished; these may use the tunnels.
3. Agents of this process leave their servers: at the same time if clients' requests
   can't need them, otherwise after these.
4. The remaining tunnels are closed.

Each step has a timeout, after which connections are closed as their protocol does, and
counted in the log.
"""

from __future__ import annotations

__all__ = ["Shutdown"]

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from reverseproxy.listener import END_TIME, PARTING, Listener
from reverseproxy.logs import counted
from reverseproxy.tunnel.server.departure import AWAY, Departure

if TYPE_CHECKING:
    from reverseproxy.tunnel.agent.agent import Agent
    from reverseproxy.tunnel.server.filter import TunnelServer

log = Logger()

LOOK: Final = 0.1
"""Seconds between two looks for agents' connections that are not needed any more."""

QUIET: Final = 1.0
"""
Seconds for requests that clients had begun to send before they were notified; meanwhile
agents that can't be notified keep one connection for each cluster.
"""

TELL: Final = 5.0
"""Seconds between two log lines about the connections that are waited for."""


class IWorkerStop(Protocol):
    """The part of a worker in its shutdown, where there are several."""

    @property
    def alone(self) -> bool:
        """Whether only this worker stops."""

    def stopping(self) -> None:
        """Take note that this worker stops."""

    def drained(self) -> Deferred[None]:
        """Report that this worker's clients are served; fires when those of the others are, too."""


class Shutdown:
    """The shutdown of a process."""

    def __init__(
        self,
        reactor: Any,
        seconds: float,
        listeners: Sequence[Listener],
        servers: Sequence[tuple[Listener, TunnelServer]],
        agents: Sequence[Agent],
        worker: IWorkerStop | None = None,
        succeeded: bool = False,
    ) -> None:
        """
        @param seconds: the timeout of requests in progress; agents have timeouts of their own.
        @param listeners: all listeners.
        @param servers: the tunnel listeners among them, with their filters.
        @param succeeded: whether another process has taken over, and listens already.
        """
        self._reactor = reactor
        self._seconds = seconds
        self._tunnels = [listener for listener, _ in servers]
        self._clients = [each for each in listeners if each not in self._tunnels]
        self._servers = [server for _, server in servers]
        self._agents = agents
        self._worker = worker
        self._succeeded = succeeded
        self._departures: list[Departure] = []
        self._began = 0.0
        self._told_at = 0.0
        self._cut_short = False

    async def run(self) -> None:
        """Run all steps; the remaining connections may be aborted then."""
        log.info("stopping: requests under way may take up to {seconds:g} s", seconds=self._seconds)
        self._began = self._told_at = self._reactor.seconds()
        worker = self._worker
        if worker is not None:
            worker.stopping()
        succeeded = self._succeeded or (worker is not None and worker.alone)
        for listener in self._tunnels:
            listener.stop_accepting()
        if not succeeded:
            for listener in self._clients:
                listener.stop_accepting(take=True)
        after = 0.0 if succeeded else AWAY
        self._departures = [server.leave(after) for server in self._servers]
        watch = LoopingCall(self._look)
        watch.clock = self._reactor
        watch.start(LOOK)
        try:
            if succeeded:
                await self._part()
            drains = [each.drain(self._seconds) for each in self._clients]
            if self._tunnels:
                await DeferredList(drains, consumeErrors=True)
                drains = []
                if worker is not None:
                    await worker.drained()
            if not self._cut_short:
                drains += [agent.drain() for agent in self._agents]
            await DeferredList(drains, consumeErrors=True)
        finally:
            watch.stop()
        for agent in self._agents:
            agent.stopService()
        await DeferredList([each.drain(END_TIME) for each in self._tunnels], consumeErrors=True)

    async def _part(self) -> None:
        """
        Give clients with persistent connections one more response, which announces the close.

        A client whose idle connection is closed may be about to send a request on it, which would
        fail needlessly: the process that has taken over would serve it.
        """
        for listener in self._clients:
            listener.stop_accepting()
            listener.part()
        until = self._reactor.seconds() + min(PARTING, self._seconds)
        while (
            self._reactor.seconds() < until
            and not self._cut_short
            and any(listener.connections for listener in self._clients)
        ):
            await deferLater(self._reactor, LOOK)

    def cut_short(self) -> None:
        """Stop waiting for requests in progress."""
        self._cut_short = True
        for agent in self._agents:
            agent.stopService()
        for listener in self._clients:
            listener.abort()

    def _look(self) -> None:
        now = self._reactor.seconds()
        waiting = any(listener.connections for listener in self._clients)
        keep = int(waiting and now - self._began < QUIET)
        for departure in self._departures:
            departure.release(keep)
        if now - self._told_at >= TELL:
            self._told_at = now
            self._tell(now)

    def _tell(self, now: float) -> None:
        """Log the connections that are waited for."""
        for listener in self._clients:
            if listener.connections:
                log.info(
                    "stopping: since {seconds:.0f} s listener {listener} waits for {connections}: {doing}",
                    seconds=now - self._began,
                    listener=listener.name,
                    connections=counted(listener.connections, "connection"),
                    count=listener.connections,
                    doing=listener.doing,
                )
        for agent in self._agents:
            if agent.draining and agent.doing:
                log.info(
                    "stopping: since {seconds:.0f} s the agent of cluster {cluster} waits for {doing}",
                    seconds=now - self._began,
                    cluster=agent.plan.config.cluster,
                    doing=agent.doing,
                )
