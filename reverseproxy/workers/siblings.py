"""The cooperation of workers: each of them can use the hosts of all."""

from __future__ import annotations

__all__ = ["Siblings"]

import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from reverseproxy.cluster.host import Host
from reverseproxy.cluster.manager import Cluster, ClusterManager
from reverseproxy.transport.handing import discard
from reverseproxy.workers.demand_announcer import DemandAnnouncer
from reverseproxy.workers.directory import Directory
from reverseproxy.workers.giving import Giver
from reverseproxy.workers.links import Link, Links
from reverseproxy.workers.messages import Message
from reverseproxy.workers.moving import Mover
from reverseproxy.workers.relaying import RelayStream, StreamRelay
from reverseproxy.workers.spreading import Spreader
from reverseproxy.workers.taking import Taker
from reverseproxy.workers.tls_relays import TlsRelays

if TYPE_CHECKING:
    from reverseproxy.listener import Listener
    from reverseproxy.tunnel.server.filter import TunnelServer


class Siblings:
    """
    The other workers, as one worker sees them.

    @ivar links: the links to them.
    @ivar directory: the hosts of all workers.
    @ivar wanting: announces the waiting requests of this worker.
    @ivar mover: decides which connections move to siblings.
    @ivar giver: moves connections to siblings.
    @ivar taker: receives connections, and requests certain ones.
    @ivar relays: TLS connections of this worker that siblings use.
    @ivar spreader: distributes new connections of agents.
    @ivar servers: this worker's tunnel servers, by listener.
    @ivar evict: lets siblings close connections; see C{Evictions.evict}.
    """

    def __init__(self, number: int, workers: int, clusters: ClusterManager, clock: Any) -> None:
        """
        @param number: this worker's number, from 0.
        @param workers: how many there are.
        @param clock: the reactor.
        """
        self.links = Links(number, workers, clock, self)
        self.directory = Directory(self.links, clusters, clock)
        self.relays = TlsRelays(self.directory, clock)
        self.giver = Giver(self.directory, self.relays, clock)
        self.taker = Taker(self.directory, self.giver, self.relays, clock)
        self.wanting = DemandAnnouncer(self.directory, clock)
        self.mover = Mover(self.directory, self.wanting, self.giver, clock)
        self.taker.on_arrival = self.mover.arrived
        self.taker.on_shortage = self.wanting.hold
        self.directory.on_drop = self._dropped
        self.spreader = Spreader(self.directory, clock)
        self._turns = StreamRelay(self.directory.find, clock)
        self._handlers: dict[str, Callable[[Link, Message], object]] = {
            "list": self.directory.listed,
            "join": self.directory.joined,
            "leave": self.directory.leave,
            "moved": self.directory.moved,
            "well": self.directory.well,
            "evict": self.directory.evictions.evicting,
            "evicted": self.directory.evictions.evicted,
            "want": self.mover.wanted,
            "fetch": self.taker.fetched,
            "retire": self.relays.retire,
            "drain": self._drains,
        }
        self.servers = self.directory.servers
        self.evict = self.directory.evictions.evict
        for cluster in clusters:
            self.share(cluster)

    def serve(self, servers: Mapping[str, TunnelServer], listeners: Mapping[str, Listener]) -> None:
        """
        Set the tunnel servers of this worker.

        @param listeners: their listeners, by the same names.
        """
        self.servers.clear()
        self.servers.update(servers)
        for server in servers.values():
            server.workers.count = self.links.count
            server.workers.announce_weight = self.directory.announce_weight
        self.spreader.serve(listeners)

    def share(self, cluster: Cluster) -> None:
        """Share the hosts of a cluster with the siblings."""
        self.directory.share(cluster)
        self.giver.share(cluster)
        self.wanting.share(cluster)

    def start(self, directory: str, listening: socket.socket) -> None:
        """Link to the siblings; see L{Links.start}."""
        self.links.start(directory, listening)

    def stop(self) -> None:
        """End all cooperation."""
        self.wanting.stop()
        self.taker.stop()
        self.links.stop()
        self.directory.evictions.stop()

    def drain(self) -> None:
        """Move connections to the siblings, as this worker ends and they don't."""
        self.directory.tell({"drain": True})
        self.mover.drain()

    def withdraw(self) -> None:
        """Let siblings send no more requests to this worker's hosts."""
        for entry in list(self.directory.entries.values()):
            if self.directory.is_here(entry):
                self.directory.withdraw(entry)
        self.relays.withdraw()

    # IBusiness

    def received(self, link: Link, message: Message, handle: Any) -> None:
        """See L{IBusiness<reverseproxy.workers.links.IBusiness>}."""
        kind = next(iter(message))
        if kind == "give":
            self.taker.given(link, message, handle)
            return
        if kind == "accepted":
            self.spreader.accepted(link, message, handle)
            return
        if handle is not None:
            discard(handle)
        self._handlers[kind](link, message)

    def opened(self, link: Link, stream: RelayStream, message: Message) -> None:
        """See L{IBusiness<reverseproxy.workers.links.IBusiness>}."""
        self._turns.opened(stream, message)

    def came(self, link: Link) -> None:
        """See L{IBusiness<reverseproxy.workers.links.IBusiness>}."""
        self.directory.came(link)
        if self.mover.draining:
            link.send({"drain": True})

    def went(self, link: Link, reason: str) -> None:
        """See L{IBusiness<reverseproxy.workers.links.IBusiness>}."""
        self.mover.went(link)
        self.directory.went(link, reason)

    def _dropped(self, host: Host) -> None:
        """Cancel moves and requests of a host that is gone."""
        self.giver.dropped(host)
        self.taker.dropped(host)

    def _drains(self, link: Link, message: Message) -> None:
        link.draining = True
