"""
What workers do for each other: every one can use the hosts of all of them.

Each worker tells its siblings of the hosts that agents have brought to it, and
puts theirs into its own clusters.  How these are used is in
L{reverseproxy.workers.borrowing}, and how they are lent in
L{reverseproxy.workers.lending}.  The health of a host is not shared, but for
what its agent says of its service: each worker finds it out by itself.

An agent's graceful close may reach another worker than its connections.  That
worker has found out who asks, as for its own connections, and tells the others
that; each of them judges by its own registry what may be taken away.
"""

from __future__ import annotations

__all__ = ["Siblings"]

import socket
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from zope.interface import implementer

from reverseproxy.cluster.balancers.weighted import is_settled
from reverseproxy.cluster.host import Host
from reverseproxy.cluster.manager import Cluster, ClusterManager, IClusterTask
from reverseproxy.identity import AgentIdentity
from reverseproxy.interfaces import PickContext
from reverseproxy.tunnel.handshake import Principal, Requester
from reverseproxy.workers.borrowing import BorrowedHost, Borrower, RelayedHost
from reverseproxy.workers.lending import Lender
from reverseproxy.workers.links import Link, Links
from reverseproxy.workers.messages import Message
from reverseproxy.workers.streams import Incoming

if TYPE_CHECKING:
    from reverseproxy.tunnel.server.filter import TunnelServer

log = Logger()

EVICT_TIMEOUT: Final = 5.0
"""Seconds that a sibling has to say which connections it has let go."""


@implementer(IClusterTask)
class _Announcer:
    """Tells siblings which hosts one cluster has, and has no more."""

    def __init__(self, siblings: Siblings, cluster: Cluster) -> None:
        self._siblings = siblings
        self._cluster = cluster

    def start(self) -> None:
        """See L{IClusterTask}."""

    def stop(self) -> None:
        """See L{IClusterTask}."""

    def joined(self, host: Host) -> None:
        """See L{IClusterTask}."""
        if host.returns and not host.relayed:
            self._siblings.tell(_join(self._cluster, host))

    def left(self, host: Host) -> None:
        """See L{IClusterTask}."""
        if host.returns and not host.relayed:
            self._siblings.tell({"leave": host.address, "cluster": self._cluster.name})
            self._siblings.uncover(self._cluster, host)


def _join(cluster: Cluster, host: Host) -> Message:
    return {
        "join": {
            "cluster": cluster.name,
            "address": host.address,
            "hostname": host.hostname,
            "weight": host.weight,
            "metadata": dict(host.metadata),
            "single": host.single,
            "spoken": host.spoken,
            "identity": None if host.identity is None else host.identity.to_json(),
            "tells": host.tells,
            "well": cluster.wellness.is_well(host),
        }
    }


class Siblings:
    """
    The other workers, as one worker sees them.

    @ivar links: the connections to them.
    @ivar servers: this worker's tunnel servers, by listener.
    """

    def __init__(self, number: int, workers: int, clusters: ClusterManager, clock: Any) -> None:
        """
        @param number: this worker's number, from 0.
        @param workers: how many there are.
        @param clock: the reactor.
        """
        self.links = Links(number, workers, clock, self._opened, self._received, self._came, self._went)
        self.servers: dict[str, TunnelServer] = {}
        self._clusters = clusters
        self._clock = clock
        self._lender = Lender(clusters, clock)
        self._borrower = Borrower(clock)
        self._evictions: dict[int, Deferred[list[str]]] = {}
        self._numbers = count(1)
        self._handlers = {
            "join": self._join,
            "leave": self._leave,
            "well": self._well,
            "recall": self._recall,
            "busy": self._busy,
            "return": self._lender.returned,
            "spoilt": self._spoilt,
            "evict": self._evict,
            "evicted": self._evicted,
        }
        for cluster in clusters:
            self.share(cluster)

    def share(self, cluster: Cluster) -> None:
        """Let the siblings use what a cluster has, and the other way round."""
        cluster.add_task(_Announcer(self, cluster))
        cluster.on_wait = partial(self._waiting, cluster)
        cluster.wellness.on_said = partial(self._said, cluster)

    def start(self, directory: str, listening: socket.socket) -> None:
        """Link to the siblings; see L{Links.start}."""
        self.links.start(directory, listening)

    def stop(self) -> None:
        """Have nothing more to do with them."""
        self.links.stop()
        for eviction in list(self._evictions.values()):
            eviction.cancel()

    def withdraw(self) -> None:
        """Let siblings begin nothing more with this worker's hosts."""
        for cluster in self._clusters:
            for host in cluster.hosts.values():
                if host.returns and not host.relayed:
                    self.tell({"leave": host.address, "cluster": cluster.name})

    def tell(self, message: Message) -> None:
        """Send a message to all siblings."""
        for link in self.links.up.values():
            link.send(message)

    # what the links tell

    def _came(self, link: Link) -> None:
        for cluster in self._clusters:
            for host in cluster.hosts.values():
                if host.returns and not host.relayed:
                    link.send(_join(cluster, host))

    def _went(self, link: Link, reason: str) -> None:
        hosts, link.hosts = link.hosts, {}
        for host in hosts.values():
            host.close(reason)

    def _opened(self, link: Link, stream: Incoming, message: Message) -> None:
        self._lender.opened(link, stream, message)

    def _received(self, link: Link, message: Message) -> None:
        self._handlers[next(iter(message))](link, message)

    # hosts of siblings

    def _join(self, link: Link, message: Message) -> None:
        facts = message["join"]
        if facts["cluster"] not in self._clusters:
            return
        cluster = self._clusters.get(facts["cluster"])
        gone = partial(self._gone, link, cluster)
        host: Host
        if facts["single"]:
            ask = partial(self._borrower.ask, link, cluster)
            host = BorrowedHost(facts, ask, self._clock, gone, is_settled(cluster.config))
        else:
            host = RelayedHost(link, cluster, facts, self._clock, gone)
        host.spoken = facts["spoken"]
        if facts["identity"] is not None:
            host.identity = AgentIdentity.from_json(facts["identity"])
        host.tells, host.well = facts.get("tells", False), facts.get("well", True)
        old = link.hosts.get((cluster.name, host.address))
        if old is not None:
            old.close("replaced by a new connection from the same address")
        link.hosts[cluster.name, host.address] = host
        link.count(cluster.name, host, 1)
        self._add(link, cluster, host)

    def _add(self, link: Link, cluster: Cluster, host: Host) -> None:
        known = cluster.hosts.get(host.address)
        if known is None or known.relayed:
            cluster.add_host(host)
            if cluster.waiting and not is_settled(cluster.config):
                self._borrower.top_up(link, cluster)

    def _leave(self, link: Link, message: Message) -> None:
        host = link.hosts.get((message["cluster"], message["leave"]))
        if host is not None and message["cluster"] in self._clusters:
            cluster = self._clusters.get(message["cluster"])
            self._forget(link, cluster, host)
            if host.cluster is None:
                host.close("its worker has lost it")
            else:
                cluster.remove_host(host, f"worker {link.number + 1} has lost it")

    def _said(self, cluster: Cluster, host: Host) -> None:
        """An agent has said whether it can reach its service."""
        if host.returns and not host.relayed:
            self.tell({"well": host.address, "cluster": cluster.name, "is": cluster.wellness.is_well(host)})

    def _well(self, link: Link, message: Message) -> None:
        host = link.hosts.get((message["cluster"], message["well"]))
        if host is not None and message["cluster"] in self._clusters:
            self._clusters.get(message["cluster"]).wellness.said(host, message["is"])

    def _gone(self, link: Link, cluster: Cluster, host: Host, reason: str) -> None:
        self._forget(link, cluster, host)
        cluster.remove_host(host, reason)

    def _forget(self, link: Link, cluster: Cluster, host: Host) -> None:
        if link.hosts.get((cluster.name, host.address)) is host:
            del link.hosts[cluster.name, host.address]
            link.count(cluster.name, host, -1)

    def uncover(self, cluster: Cluster, host: Host) -> None:
        """A host has left, behind which there may be a sibling's with the same address."""
        for link in self.links.up.values():
            other = link.hosts.get((cluster.name, host.address))
            if other is not None and other.cluster is None and not other.closed:
                self._clock.callLater(0, self._uncover, link, cluster, other)

    def _uncover(self, link: Link, cluster: Cluster, host: Host) -> None:
        if link.hosts.get((cluster.name, host.address)) is host and host.cluster is None and not host.closed:
            self._add(link, cluster, host)

    # requests that wait

    def _waiting(self, cluster: Cluster, context: PickContext | None, waiter: Deferred[Host]) -> None:
        links = list(self.links.up.values())
        self._lender.waiting(links, cluster, context)
        own = context is not None and context.own
        if not own and not waiter.called and not is_settled(cluster.config):
            self._borrower.waiting(links, cluster, context, waiter)

    def _recall(self, link: Link, message: Message) -> None:
        self._borrower.recalled(link, message["recall"])

    def _busy(self, link: Link, message: Message) -> None:
        self._lender.busy(list(self.links.up.values()), link, message["busy"])

    def _spoilt(self, link: Link, message: Message) -> None:
        self._lender.spoilt(message)

    # graceful closes

    def evict(
        self, listener: str, cluster: str, addresses: Sequence[str], requester: Requester
    ) -> Deferred[set[str]]:
        """
        Let siblings close connections that are not this worker's.

        @param requester: who asks, as far as that is proven.
        @return: the addresses of those that were; never fails.
        """
        by = {
            "remote_ip": requester.remote_ip,
            "identity": requester.identity,
            "agent": requester.agent,
            "policy": requester.policy,
        }
        if requester.principal is not None:
            by["principal"] = [requester.principal.policy, requester.principal.name]  # type: ignore[assignment]
        answers: list[Deferred[Any]] = []
        for link in list(self.links.up.values()):
            number = next(self._numbers)
            answer: Deferred[Any] = Deferred()
            self._evictions[number] = answer
            answer.addTimeout(EVICT_TIMEOUT, self._clock)
            answer.addBoth(self._answered, number)
            answers.append(answer)
            link.send(
                {
                    "evict": number,
                    "listener": listener,
                    "cluster": cluster,
                    "addresses": list(addresses),
                    "by": by,
                }
            )
        gathered: Any = DeferredList(answers, consumeErrors=True)
        return gathered.addCallback(  # type: ignore[no-any-return]
            lambda results: {address for good, found in results if good for address in found}
        )

    def _answered(self, result: Any, number: int) -> Any:
        self._evictions.pop(number, None)
        return result

    def _evict(self, link: Link, message: Message) -> None:
        by: Mapping[str, Any] = message["by"]
        principal = by.get("principal")
        requester = Requester(
            by["remote_ip"],
            by["identity"],
            None if principal is None else Principal(*principal),
            by["agent"],
            by["policy"],
        )
        server = self.servers.get(message["listener"])
        evicted: set[str] = set()
        if server is not None:
            addresses = message["addresses"]
            refused = server.evict(message["cluster"], addresses, requester).refused
            evicted = set(addresses) - {each.address for each in refused}
        link.send({"evicted": message["evict"], "addresses": sorted(evicted)})

    def _evicted(self, link: Link, message: Message) -> None:
        answer = self._evictions.get(message["evicted"])
        if answer is not None and not answer.called:
            answer.callback(message["addresses"])
