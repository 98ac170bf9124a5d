"""What siblings' requests for one cluster wait for, and what each of them is owed of it: pure."""

from __future__ import annotations

__all__ = ["Wish", "Wishes"]

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from reverseproxy.cluster.manager import QueuedDemand
from reverseproxy.workers.policy import Standing

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host
    from reverseproxy.cluster.manager import Cluster
    from reverseproxy.workers.links import Link


class Wish:
    """
    What one sibling's requests wait for.

    @ivar wants: as it has said, without what it was granted since; empty if they wait for nothing.
    @ivar standing: for how long they have waited.
    @ivar owed: how many hosts that become free are to go there.
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
        """Say for how many seconds the oldest has waited; 0 if none waits."""
        return max((now - want.since for want in self.wants), default=0.0)


class Wishes:
    """What all siblings' requests for one cluster wait for."""

    def __init__(self) -> None:
        self._wishes: dict[Link, Wish] = {}

    def __bool__(self) -> bool:
        """Whether any wait."""
        return any(wish.wants for wish in self._wishes.values())

    def __iter__(self) -> Iterator[tuple[Link, Wish]]:
        """Go through those whose requests wait, in the order in which these have begun to."""
        waiting = [(link, wish) for link, wish in self._wishes.items() if wish.wants]
        waiting.sort(key=lambda each: min(want.since for want in each[1].wants))
        return iter(waiting)

    def said(self, link: Link, wants: Sequence[QueuedDemand], now: float) -> None:
        """
        A sibling has said what its requests wait for.

        @param wants: by our own clock; empty if they wait for nothing.
        """
        wish = self._wishes.setdefault(link, Wish())
        wish.wants = list(wants)
        wish.standing.note(now, wish.age(now))

    def forget(self, link: Link) -> bool:
        """A sibling is gone; whether it had wanted anything."""
        wish = self._wishes.pop(link, None)
        return wish is not None and bool(wish.wants)

    def owe_nothing(self) -> None:
        """Begin anew to find out what is owed."""
        for wish in self._wishes.values():
            wish.owed = 0

    @property
    def owed(self) -> int:
        """How many hosts that become free are to go to siblings."""
        return sum(wish.owed for wish in self._wishes.values())

    @staticmethod
    def grant(cluster: Cluster, host: Host, wish: Wish) -> bool:
        """
        Note that a sibling is given a host, if it wants such a one.

        It will say what it still wants.
        """
        wants = wish.wants
        for index, want in enumerate(wants):
            if cluster.would_take(host, want.labels):
                if want.number > 1:
                    wants[index] = want._replace(number=want.number - 1)
                else:
                    del wants[index]
                wish.owed = max(wish.owed - 1, 0)
                return True
        return False
