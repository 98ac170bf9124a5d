"""
Move connections without streams to the worker whose requests have waited longest.

L{reverseproxy.workers.policy} decides which ones, and how many, from the waiting times of
this worker's requests (L{reverseproxy.workers.demand_announcer}) and of its siblings'
(L{reverseproxy.workers.sibling_demand}); L{reverseproxy.workers.giving} moves them.
"""

from __future__ import annotations

__all__ = ["Mover"]

from functools import partial
from itertools import islice
from typing import Any, Final
from weakref import WeakKeyDictionary

from reverseproxy.cluster.host import Host
from reverseproxy.cluster.manager import Cluster, QueuedDemand
from reverseproxy.workers.demand_announcer import DemandAnnouncer
from reverseproxy.workers.directory import Directory
from reverseproxy.workers.entries import Entry
from reverseproxy.workers.giving import Giver
from reverseproxy.workers.links import Link
from reverseproxy.workers.messages import Message
from reverseproxy.workers.policy import is_pressing, may_spare, to_give, to_owe
from reverseproxy.workers.requests import is_committed
from reverseproxy.workers.sibling_demand import SiblingDemand, SiblingDemands

MOST_LOOKED_AT: Final = 1024
"""Hosts that are examined to find idle ones."""


class Mover:
    """
    Decides which connections of this worker move to others.

    @ivar draining: whether this worker is about to end, and so gives away all idle
        connections.
    """

    draining = False

    def __init__(self, directory: Directory, wanting: DemandAnnouncer, giver: Giver, clock: Any) -> None:
        self._directory = directory
        self._links = directory.links
        self._wanting = wanting
        self._giver = giver
        self._clock = clock
        self._demands: WeakKeyDictionary[Cluster, SiblingDemands] = WeakKeyDictionary()

    # what others' requests wait for

    def wanted(self, link: Link, message: Message) -> None:
        """Record how many requests of a sibling wait, and move connections."""
        if message["want"] not in self._directory.clusters:
            return
        cluster = self._directory.clusters.get(message["want"])
        now = self._clock.seconds()
        wants = [
            QueuedDemand(tuple((key, value) for key, value in labels), number, now - age)
            for labels, number, age in message["hosts"]
        ]
        self._demands.setdefault(cluster, SiblingDemands()).said(link, wants, now)
        self._weigh(cluster)

    def _weigh(self, cluster: Cluster) -> None:
        """Move connections that siblings need more than this worker."""
        demands = self._demands[cluster]
        demands.owe_nothing()
        for link, demand in demands:
            self._give_free(cluster, link, demand)
        for link, demand in demands:
            self._owe(cluster, link, demand)
        # No callback on every request, if it would never move anything.
        useful = self.draining or demands.owed or any(self._could_spare(cluster, link) for link, _ in demands)
        cluster.on_free = partial(self._on_free, cluster, demands) if useful else None

    def _could_spare(self, cluster: Cluster, link: Link) -> bool:
        # With subsets, what waits here may have no use for what others want.
        return cluster.subsets is not None or may_spare(
            self._directory.has_plain(link, cluster), self._wanting.rested(cluster)
        )

    def _pressing(self, cluster: Cluster, link: Link, demand: SiblingDemand) -> bool:
        age = demand.age(self._clock.seconds())
        return self._could_spare(cluster, link) and is_pressing(
            age, self._directory.has_plain(link, cluster), cluster.active
        )

    def _give_free(self, cluster: Cluster, link: Link, demand: SiblingDemand) -> None:
        """Move a part of the idle connections."""
        if not self._pressing(cluster, link, demand):
            return
        free = self._free(cluster)
        quota = to_give(len(free), demand.number, self._directory.count_here(cluster))
        for entry in free:
            if quota and SiblingDemands.grant(cluster, entry.host, demand):
                quota -= 1
                self._giver.give(entry.host, link)

    def _free(self, cluster: Cluster) -> list[Entry]:
        found: list[Entry] = []
        if cluster.waiting and cluster.subsets is None and cluster.queued_demand():
            return found  # a waiting request takes it
        if self._directory.count_here(cluster):
            for entry in list(islice(self._directory.here(cluster), MOST_LOOKED_AT)):
                host = entry.host
                if not host.active and not host.reserved and host.healthy and host.usable():
                    if is_committed(host):
                        self._directory.commit(entry)
                    else:
                        found.append(entry)
        return found

    def _owe(self, cluster: Cluster, link: Link, demand: SiblingDemand) -> None:
        now = self._clock.seconds()
        if self._directory.has_plain(link, cluster):
            age, own = demand.standing.least(now), self._wanting.standing(cluster)
        else:
            # A sibling without connections can't serve any request at all.
            since = min((want.since for want in cluster.queued_demand()), default=now)
            age, own = demand.age(now), now - since
        demand.owed = to_owe(age, own, demand.number, self._directory.count_here(cluster))
        if demand.owed:
            self._end_sharing(cluster, link, demand.wants)

    def _end_sharing(self, cluster: Cluster, link: Link, wants: list[QueuedDemand]) -> None:
        """
        Reserve a host that carries concurrent requests and might never be idle.

        One at a time; and none, if there are hosts that become idle by themselves.
        """
        if link in self._giver.leaving.values():
            return
        best: Entry | None = None
        # From a list: C{usable} may remove a host.
        for entry in list(islice(self._directory.here(cluster), MOST_LOOKED_AT)):
            host = entry.host
            if is_committed(host):
                self._directory.commit(entry)
            elif not host.reserved and host.healthy and host.usable():
                if host.capacity == 1:
                    return
                if any(cluster.would_take(host, want.labels) for want in wants) and (
                    best is None or host.active < best.host.active
                ):
                    best = entry
        if best is not None:
            self._giver.give(best.host, link)

    def _on_free(self, cluster: Cluster, demands: SiblingDemands, host: Host) -> bool:
        """Move a host that has become idle, if it is owed to a sibling; see L{Cluster.on_free}."""
        if cluster.waiting and not demands.owed:
            return False
        entry = self._directory.by_host.get(host)
        if entry is None or not host.exclusive or not host.usable() or is_committed(host):
            return False
        here = self._directory.count_here(cluster)
        spare = not cluster.waiting and to_give(here - cluster.active, 1, here)
        # It stays, unless it is owed to a sibling or not needed here.
        for link, demand in demands:
            if (demand.owed or (spare and self._pressing(cluster, link, demand))) and SiblingDemands.grant(
                cluster, host, demand
            ):
                self._giver.give(host, link)
                return True
        if self.draining and not cluster.waiting:
            target = self._links.any_link()
            if target is not None:
                self._giver.give(host, target)
                return True
        return False

    # links, and the end

    def went(self, link: Link) -> None:
        """Forget a sibling that has ended."""
        for cluster, demands in list(self._demands.items()):
            if demands.forget(link):
                self._weigh(cluster)
        self._giver.went(link)

    def drain(self) -> None:
        """Move all idle connections to siblings that stay, and others when they are idle."""
        self.draining = True
        for cluster in self._directory.clusters:
            self._give_away(cluster)
            demands = self._demands.setdefault(cluster, SiblingDemands())
            cluster.on_free = partial(self._on_free, cluster, demands)

    def arrived(self, host: Host) -> None:
        """Move on a connection that has arrived while this worker is ending."""
        if self.draining and host.cluster is not None:
            self._give_away(host.cluster)

    def _give_away(self, cluster: Cluster) -> None:
        if cluster.waiting:
            return
        for entry in self._free(cluster):
            link = self._links.any_link()
            if link is not None:
                self._giver.give(entry.host, link)
