"""
The directory of hosts: each worker knows the hosts of all workers.

The worker that an agent has joined gives its host a number, which the host keeps when it
moves.  That worker announces the host, and the others add it to their clusters: as a
L{RelayedHost} if its connection carries streams, else as a L{ReverseHost} without a
connection, which may move there (L{reverseproxy.workers.moving}).  A worker that gives a
connection away announces its new worker to all others; such messages may overtake one
another, so each has the number of moves so far.

    {"join": facts}                                     a host is here
    {"leave": "0.c2b1.7"}                               the host has left
    {"moved": "0.c2b1.7", "to": 2, "moves": 5}          its connection has moved to worker 2
    {"well": "0.c2b1.7", "is": false}                   its agent reports the health of its service
"""

from __future__ import annotations

__all__ = ["Directory"]

from collections.abc import Callable, Iterator
from itertools import count
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from reverseproxy.cluster.balancers.factory import is_deterministic
from reverseproxy.cluster.host import Host, ReverseHost
from reverseproxy.cluster.manager import Cluster, ClusterManager, IClusterTask
from reverseproxy.identity import AgentIdentity
from reverseproxy.workers.connection_counts import ConnectionCounts
from reverseproxy.workers.entries import Entry
from reverseproxy.workers.evictions import Evictions
from reverseproxy.workers.links import Link, Links
from reverseproxy.workers.messages import Message
from reverseproxy.workers.relaying import RelayedHost
from reverseproxy.workers.requests import PROTOCOL
from reverseproxy.workers.same_agent import SameAgent

if TYPE_CHECKING:
    from reverseproxy.tunnel.server.filter import TunnelServer

log = Logger()


@implementer(IClusterTask)
class _Announcer:
    """Announces hosts that join and leave one cluster."""

    def __init__(self, directory: Directory, cluster: Cluster) -> None:
        self._directory = directory
        self._cluster = cluster

    def start(self) -> None:
        """See L{IClusterTask}."""

    def stop(self) -> None:
        """See L{IClusterTask}."""

    def joined(self, host: Host) -> None:
        """See L{IClusterTask}."""
        if host.is_reverse and not host.is_remote:
            self._directory.announce(self._cluster, host)

    def left(self, host: Host) -> None:
        """See L{IClusterTask}."""
        if host.is_reverse:
            self._directory.left(host)


class Directory:
    """
    The hosts of all workers, as one worker knows them.

    @ivar links: the links to the siblings.
    @ivar clusters: the clusters of this worker.
    @ivar servers: this worker's tunnel servers, by listener.
    @ivar evictions: graceful closes of connections of siblings.
    @ivar entries: all hosts, by number.
    @ivar by_host: the same, by host object.
    @ivar fetch: requests the connection of a host from a sibling.
    @ivar on_drop: called with each host that is removed.
    @ivar on_add: called with each new entry.
    """

    fetch: Callable[[ReverseHost], Deferred[None]] | None = None
    on_drop: Callable[[Host], object] | None = None
    on_add: Callable[[Entry], object] | None = None

    def __init__(self, links: Links, clusters: ClusterManager, clock: Any) -> None:
        self.links = links
        self.clusters = clusters
        self.servers: dict[str, TunnelServer] = {}
        self.entries: dict[str, Entry] = {}
        self.by_host: dict[Host, Entry] = {}
        self._hidden: dict[tuple[str, str], list[Entry]] = {}
        self._counts = ConnectionCounts()
        self._same_agent = SameAgent()
        self._clock = clock
        self.evictions = Evictions(links, self.servers, clock)
        self._hosts = count(1)
        self._prefix = f"{links.number}.{token_hex(4)}."

    def share(self, cluster: Cluster) -> None:
        """Announce a cluster's hosts to the siblings, and ask for theirs."""
        cluster.add_task(_Announcer(self, cluster))
        cluster.service_health.on_report = self._said
        self.tell({"list": cluster.name})

    def listed(self, link: Link, message: Message) -> None:
        """Announce the hosts of a cluster that is new at a sibling."""
        self._list(link, message["list"])

    def _list(self, link: Link, cluster: str = "") -> None:
        for entry in list(self.entries.values()):
            name = entry.cluster.name
            if self.is_here(entry) and entry.host.cluster is not None and cluster in ("", name):
                link.send({"join": entry.facts()})

    def settle(self, cluster: Cluster) -> None:
        """Let a load balancer that decides on certain hosts pick those of siblings, too."""
        for host in list(cluster.hosts.values()):
            if host.exclusive and host.is_remote:
                cluster.unreserve(host)
        self._same_agent.settle(cluster)

    def tell(self, message: Message, but: int = -1) -> None:
        """
        Send a message to all siblings.

        @param but: the number of a sibling to leave out.
        """
        for link in self.links:
            if link.number != but:
                link.send(message)

    # lookups

    def is_here(self, entry: Entry) -> bool:
        """Whether this worker has the connection."""
        return entry.at == self.links.number

    def here(self, cluster: Cluster) -> Iterator[Entry]:
        """Iterate over the hosts of a cluster whose connections this worker has and could move."""
        for host in cluster.hosts.values():
            entry = self.by_host.get(host) if host.exclusive and not host.is_remote else None
            if entry is not None:
                yield entry

    def find(self, number: str) -> Host | None:
        """Return the host of a number, if this worker has its connection."""
        entry = self.entries.get(number)
        return entry.host if entry is not None and self.is_here(entry) else None

    def has_plain(self, link: Link, cluster: Cluster) -> bool:
        """Whether a sibling has connections of a cluster that can move."""
        return self._counts.plain(cluster.name, link.number) > 0

    def count_here(self, cluster: Cluster) -> int:
        """Return how many connections of a cluster that can move this worker has."""
        return self._counts.plain(cluster.name, self.links.number)

    def count_from(self, ip: str, at: int) -> int:
        """Return how many connections from an IP address a worker has."""
        return self._counts.brought(ip, at)

    def _add(self, entry: Entry) -> None:
        self.entries[entry.number] = entry
        self.by_host[entry.host] = entry
        self._counts.count(entry, 1)
        self._same_agent.add(entry)
        if self.on_add is not None:
            self.on_add(entry)

    def _drop(self, entry: Entry) -> None:
        if self.entries.get(entry.number) is entry:
            del self.entries[entry.number]
            self._counts.count(entry, -1)
        self._same_agent.drop(entry)
        if self._hidden:
            key = entry.cluster.name, entry.host.address
            hidden = [each for each in self._hidden.pop(key, ()) if each is not entry]
            if hidden:
                self._hidden[key] = hidden
        self.by_host.pop(entry.host, None)
        if self.on_drop is not None:
            self.on_drop(entry.host)

    def place(self, entry: Entry, at: int) -> None:
        """Record which worker has a connection."""
        counted = self.entries.get(entry.number) is entry
        if counted:
            self._counts.count(entry, -1)
        entry.at = at
        if counted:
            self._counts.count(entry, 1)

    def given(self, entry: Entry, to: int) -> None:
        """Record that a connection has moved to another worker, and announce it."""
        entry.moves += 1
        self.place(entry, to)
        self.evictions.given(entry.cluster.name, to)
        self.tell({"moved": entry.number, "to": to, "moves": entry.moves}, but=to)

    def lose(self, entry: Entry, reason: str) -> None:
        """Announce that a connection was lost on the way between two workers."""
        log.info(
            "cluster {cluster}: host {host} is lost on its way to another worker: {reason}",
            cluster=entry.cluster.name,
            host=entry.host.address,
            reason=reason,
        )
        self.place(entry, self.links.number)
        self.tell({"leave": entry.number})
        entry.host.close(reason)

    # hosts of this worker

    def announce(self, cluster: Cluster, host: Host) -> None:
        """Announce a host that has joined this worker."""
        entry = Entry(f"{self._prefix}{next(self._hosts)}", cluster, host, self.links.number)
        self._add(entry)
        self.tell({"join": entry.facts()})

    def commit(self, entry: Entry) -> None:
        """Announce that a host can't move any more, as HTTP/2 has been used on it."""
        if not entry.committed:
            entry.committed = True
            self._same_agent.add(entry)
            self.tell({"join": entry.facts()})

    def announce_weight(self, host: Host) -> None:
        """Announce another weight of a host of this worker."""
        entry = self.by_host.get(host)
        if entry is not None and self.is_here(entry):
            self.tell({"join": entry.facts()})

    def left(self, host: Host) -> None:
        """Remove a host that has left its cluster, and announce that if it was here."""
        entry = self.by_host.get(host)
        if entry is not None:
            here = self.is_here(entry)
            self._drop(entry)
            if here:
                self.tell({"leave": entry.number})
                self._uncover(entry)

    def withdraw(self, entry: Entry) -> None:
        """Let siblings send no more requests to a host of this worker."""
        self.tell({"leave": entry.number})

    def _said(self, host: Host) -> None:
        """Announce the health of a service, as its agent has reported it."""
        entry = self.by_host.get(host)
        if entry is not None and self.is_here(entry):
            self.tell({"well": entry.number, "is": entry.cluster.service_health.is_up(host)})

    # hosts of siblings

    def came(self, link: Link) -> None:
        """Announce all hosts of this worker to a sibling."""
        self._list(link)

    def went(self, link: Link, reason: str) -> None:
        """Close the hosts of a sibling that has ended."""
        for entry in [each for each in self.entries.values() if each.at == link.number]:
            entry.host.close(reason)
            self._drop(entry)

    def joined(self, link: Link, message: Message) -> None:
        """Add a host of a sibling, or update its worker, its weight and whether it can move."""
        facts = message["join"]
        number, name = facts["id"], facts["cluster"]
        if name not in self.clusters:
            return
        cluster = self.clusters.get(name)
        entry = self.known(number, cluster)
        if entry is not None:
            if facts["moves"] < entry.moves or self.is_here(entry):
                return
            entry.moves = facts["moves"]
            self.place(entry, link.number)
            if entry.host.exclusive is (facts["kind"] == "plain"):
                cluster.weigh(entry.host, facts["weight"])
                return
            # HTTP/2 has been used on it, so it can't move any more.
            old = entry.host
            self._drop(entry)
            old.close("it can't leave its worker any more")
        self.make(link.number, cluster, facts)

    def known(self, number: str, cluster: Cluster) -> Entry | None:
        """
        Return what is known of a host of a sibling's, unless it is in another cluster.

        A cluster that is removed lives on while requests wait in it, and may have been made anew.
        """
        entry = self.entries.get(number)
        if entry is None or entry.cluster is cluster or self.is_here(entry):
            return entry
        reason = "its cluster has been made anew"
        self._drop(entry)
        if entry.host.cluster is None:
            entry.host.close(reason)
        else:
            entry.cluster.remove_host(entry.host, reason)
        return None

    def make(self, at: int, cluster: Cluster, facts: Message) -> Entry:
        """
        Make a host of a sibling, and add it to its cluster.

        @param at: the number of the worker that has its connection.
        @param facts: see L{Entry.facts}.
        """
        host: Host
        if facts["kind"] == "plain":
            host = away = ReverseHost(
                facts["address"],
                facts["hostname"],
                facts["weight"],
                facts["metadata"],
                None,
                self.gone,
                clock=self._clock,
            )
            away.away = True
            away.fetch = self.fetch
            away.reserved = not is_deterministic(cluster.config)
            host.tells = facts["tells"]
        else:
            protocol = facts["kind"] if facts["kind"] == PROTOCOL else ""
            host = RelayedHost(self.links.up[at], facts, self.gone, protocol)
        if facts["speaks"] is not None and facts["kind"] != PROTOCOL:
            host.announced = frozenset(facts["speaks"])
        host.health.service_up = facts["well"]
        if facts["identity"] is not None:
            host.identity = AgentIdentity.from_json(facts["identity"])
        entry = Entry(facts["id"], cluster, host, at, facts["moves"])
        self._add(entry)
        self._enter(entry)
        return entry

    def _enter(self, entry: Entry) -> None:
        """Add a host to its cluster, unless this worker has one with the same address."""
        known = entry.cluster.hosts.get(entry.host.address)
        if known is None or known.is_remote:
            entry.cluster.add_host(entry.host)
        else:
            self._hidden.setdefault((entry.cluster.name, entry.host.address), []).append(entry)

    def _uncover(self, left: Entry) -> None:
        """Add a sibling's host that was hidden by a host of this worker with the same address."""
        for entry in self._hidden.pop((left.cluster.name, left.host.address), ()):
            self._clock.callLater(0, self._enter_uncovered, entry)

    def _enter_uncovered(self, entry: Entry) -> None:
        if self.entries.get(entry.number) is entry and entry.host.cluster is None and not entry.host.closed:
            self._enter(entry)

    def gone(self, host: Host, reason: str) -> None:
        """A host of a sibling's can take no further request."""
        entry = self.by_host.get(host)
        if entry is not None:
            self._drop(entry)
            entry.cluster.remove_host(host, reason)

    def leave(self, link: Link, message: Message) -> None:
        """A sibling has lost a host."""
        entry = self.entries.get(message["leave"])
        if entry is None or self.is_here(entry):
            return
        host = entry.host
        self._drop(entry)
        if host.cluster is None:
            host.close("its worker has lost it")
        else:
            entry.cluster.remove_host(host, f"worker {link.number + 1} has lost it")

    def moved(self, link: Link, message: Message) -> None:
        """A sibling has given a connection to another one."""
        entry = self.entries.get(message["moved"])
        if entry is None or message["moves"] <= entry.moves or self.is_here(entry):
            return
        entry.moves = message["moves"]
        self.place(entry, message["to"])
        if entry.at not in self.links.up:
            # It is gone, or has been started anew, and tells us of what it has.
            entry.host.close(f"worker {entry.at + 1} is gone")
            self._drop(entry)

    def well(self, link: Link, message: Message) -> None:
        """Announce the health of a service, as its agent has reported it."""
        entry = self.entries.get(message["well"])
        if entry is not None:
            entry.cluster.service_health.report(entry.host, message["is"])
