"""The waiting requests of siblings for one cluster, and the connections they are owed; pure."""

from __future__ import annotations

__all__ = ["SiblingDemand", "SiblingDemands"]

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from reverseproxy.cluster.manager import QueuedDemand
from reverseproxy.workers.policy import Standing

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host
    from reverseproxy.cluster.manager import Cluster
    from reverseproxy.workers.links import Link


class SiblingDemand:
    """
    The waiting requests of one sibling.

    @ivar wants: its last announcement, less the connections granted since.
    @ivar standing: their waiting times.
    @ivar owed: how many connections are to move there when they are idle.
    """

    __slots__ = ("owed", "standing", "wants")

    def __init__(self) -> None:
        self.wants: list[QueuedDemand] = []
        self.standing = Standing()
        self.owed = 0

    @property
    def number(self) -> int:
        """How many requests wait."""
        return sum(want.number for want in self.wants)

    def age(self, now: float) -> float:
        """Return for how many seconds the oldest has waited; 0 if none waits."""
        return max((now - want.since for want in self.wants), default=0.0)


class SiblingDemands:
    """The waiting requests of all siblings for one cluster."""

    def __init__(self) -> None:
        self._demands: dict[Link, SiblingDemand] = {}

    def __bool__(self) -> bool:
        """Whether any wait."""
        return any(demand.wants for demand in self._demands.values())

    def __iter__(self) -> Iterator[tuple[Link, SiblingDemand]]:
        """Iterate over siblings with waiting requests, the longest waiting first."""
        waiting = [(link, demand) for link, demand in self._demands.items() if demand.wants]
        waiting.sort(key=lambda each: min(want.since for want in each[1].wants))
        return iter(waiting)

    def said(self, link: Link, wants: Sequence[QueuedDemand], now: float) -> None:
        """
        Record an announcement.

        @param wants: with times of this process's clock; empty if no request waits.
        """
        demand = self._demands.setdefault(link, SiblingDemand())
        demand.wants = list(wants)
        demand.standing.note(now, demand.age(now))

    def forget(self, link: Link) -> bool:
        """Forget a sibling; return whether it had waiting requests."""
        demand = self._demands.pop(link, None)
        return demand is not None and bool(demand.wants)

    def owe_nothing(self) -> None:
        """Reset what siblings are owed."""
        for demand in self._demands.values():
            demand.owed = 0

    @property
    def owed(self) -> int:
        """How many connections are to move to siblings when they are idle."""
        return sum(demand.owed for demand in self._demands.values())

    @staticmethod
    def grant(cluster: Cluster, host: Host, demand: SiblingDemand) -> bool:
        """
        Record that a host moves to a sibling, if it fits the sibling's requests.

        The next announcement of the sibling has the requests that still wait.
        """
        wants = demand.wants
        for index, want in enumerate(wants):
            if cluster.would_take(host, want.labels):
                if want.number > 1:
                    wants[index] = want._replace(number=want.number - 1)
                else:
                    del wants[index]
                demand.owed = max(demand.owed - 1, 0)
                return True
        return False
