"""
How a tunnel server leaves its agents without losing requests.

An agent of this project is told that the server is about to leave, and when to dial another connection;
its present one serves until the server closes it. MOSN has no such message: its agents only understand
the end of a connection, after which they dial at once. So their idle connections are closed as soon as
they are not needed any more, and the others when they become idle.
"""

from __future__ import annotations

__all__ = ["AWAY", "SHORTEST_ABSENCE", "Departure"]

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from reverseproxy.cluster.host import MuxHost
from reverseproxy.logs import counted
from reverseproxy.tunnel.handshake import Hangup, Refusal
from reverseproxy.wire.mosn.frames import Status

if TYPE_CHECKING:
    from reverseproxy.cluster.host import ReverseHost
    from reverseproxy.tunnel.server.registry import RegisteredConnection, Registry

log = Logger()

AWAY: Final = 1.0
"""
Seconds after which agents dial again, if no other process has taken the server's place: one may have by
then.
"""


SHORTEST_ABSENCE: Final = 0.05
"""Seconds, at least, after which an agent comes back that has found a server about to leave."""


class Departure:
    """
    The departure of one server.

    @ivar after: seconds after which the first agents dial another connection.
    """

    def __init__(
        self,
        listener: str,
        registry: Registry[ReverseHost | MuxHost],
        max_joins_per_second: float,
        after: float,
    ) -> None:
        """
        @param registry: the connections that have joined.
        @param max_joins_per_second: the rate of joins at the server that takes this one's place; 0 for
            no limit.
        """
        self.after = after
        self._listener = listener
        self._registry = registry
        self._spread = 1.0 / max_joins_per_second if max_joins_per_second else 0.0
        self._told: set[RegisteredConnection[ReverseHost | MuxHost]] = set()

    def tell(self) -> None:
        """Tell the agents that understand it, each with another delay."""
        for held in self._registry.all:
            if isinstance(held.host, MuxHost) and held.host.tell_leaving(
                self.after + self._spread * len(self._told)
            ):
                self._told.add(held)
        others = len(self._registry) - len(self._told)
        if self._told or others:
            log.info(
                "{listener}: {agents} notified that the server is stopping, {others} can't be notified",
                listener=self._listener,
                agents=counted(len(self._told), "connection"),
                told=len(self._told),
                others=others,
            )

    def turn_away(self, ours: bool) -> Refusal | Hangup:
        """
        Return the refusal for an agent that wants to join now.

        @param ours: whether it is an agent of this project, which is told when to come back.
        """
        reason = "the server is about to leave"
        if not ours:
            return Hangup(reason, "leaving")
        return Refusal(Status.UNKNOWN, reason, max(self.after, SHORTEST_ABSENCE), cause="leaving")

    def release(self, keep: int) -> None:
        """
        Close idle connections of agents that can't be told.

        @param keep: how many of them to keep for each cluster.
        """
        kept: Counter[str] = Counter()
        for held in self._untold():
            host = held.host
            if host.active or host.reserved or not host.usable():
                continue
            cluster = host.cluster
            if cluster is None or cluster.waiting:
                continue  # a request waits for it
            kept[held.cluster] += 1
            if kept[held.cluster] > keep:
                cluster.remove_host(host, "the server is about to leave")

    def _untold(self) -> Iterable[RegisteredConnection[ReverseHost | MuxHost]]:
        return [held for held in self._registry.all if held not in self._told]
