"""
Move connections to other workers.

    {"give": facts, "join_record": ..., ...} + descriptor    here is a connection

Only an idle connection moves: its protocol detaches from it
(L{IDetachable<reverseproxy.cluster.handover.IDetachable>}), and its socket goes to the other
process (L{reverseproxy.transport.handing}).  A busy one gets no further request, and moves
when it is idle.
"""

from __future__ import annotations

__all__ = ["MOST_EARLY", "Giver"]

from typing import Any, Final

from twisted.internet.error import ConnectionDone

from reverseproxy.cluster.balancers.factory import is_deterministic
from reverseproxy.cluster.host import Host, ReverseHost
from reverseproxy.cluster.manager import Cluster
from reverseproxy.transport.handing import is_socket, lose, take_out
from reverseproxy.tunnel.server.joined import ConnectionState, JoinedConnection, MovedConnection
from reverseproxy.workers.channel import fits
from reverseproxy.workers.directory import Directory
from reverseproxy.workers.entries import Entry
from reverseproxy.workers.links import Link
from reverseproxy.workers.messages import Message
from reverseproxy.workers.tls_relays import TlsRelays

MOST_EARLY: Final = 65536
"""Bytes received before the first request; a connection with more of them does not move."""


class Giver:
    """
    Moves connections of this worker to others, each as soon as it is idle.

    @ivar leaving: hosts whose connections are to move, and the links to their new workers.
    """

    def __init__(self, directory: Directory, relays: TlsRelays, clock: Any) -> None:
        self.leaving: dict[Host, Link] = {}
        self._next: dict[Host, dict[Link, Message]] = {}  # requests for these by other siblings
        self._directory = directory
        self._relays = relays
        self._clock = clock

    def share(self, cluster: Cluster) -> None:
        """Let hosts of a cluster move."""
        cluster.on_idle = self._idle

    def give(self, host: Host, link: Link) -> None:
        """Move a host's connection to a sibling, as soon as it is idle."""
        cluster = host.cluster
        if cluster is None or host in self.leaving:
            return
        self.leaving[host] = link
        cluster.reserve(host)
        self._try(host)

    def fetch(self, host: Host, link: Link, message: Message) -> None:
        """
        Move a host's connection to a sibling that has requested it.

        If it is about to move to another one, the request is forwarded there right behind the connection:
        sooner, it would come back.
        """
        to = self.leaving.get(host)
        if to is None:
            self.give(host, link)
        elif to is not link:
            self._next.setdefault(host, {})[link] = message

    def dropped(self, host: Host) -> None:
        """Forget a host that is gone."""
        self.leaving.pop(host, None)
        self._next.pop(host, None)

    def went(self, link: Link) -> None:
        """Keep the connections that were to move to a sibling which has ended."""
        for host in [host for host, to in self.leaving.items() if to is link]:
            self._keep(host)

    def _idle(self, host: Host) -> None:
        """Move a reserved host that has become idle."""
        if host in self.leaving:
            self._try(host)

    def _try(self, host: Host, again: bool = True) -> None:
        link = self.leaving.get(host)
        entry = self._directory.by_host.get(host)
        if link is None or host.active:
            return
        if not isinstance(host, ReverseHost) or entry is None or not link.up or not host.usable():
            self._keep(host)
        elif not host.take_back() or not self._hand_over(entry, host, link):
            if again:
                # The protocol may still be finishing the last request.
                self._clock.callLater(0, self._try, host, False)
            else:
                self._keep(host)

    def _keep(self, host: Host) -> None:
        """Use a host here again, as it can't move."""
        self.leaving.pop(host, None)
        requests = self._next.pop(host, {})
        if host.cluster is not None:
            host.cluster.unreserve(host)
        for link, message in requests.items():
            if link.up:
                self.fetch(host, link, message)

    def _hand_over(self, entry: Entry, host: ReverseHost, link: Link) -> bool:
        """
        Move an idle host's connection.

        @return: whether it was moved; if not, nothing has changed.
        """
        holding: JoinedConnection | None = getattr(host.holder, "holding", None)
        state = ConnectionState.of(host)
        if holding is None or len(state.early) > MOST_EARLY or not host.usable():
            return False
        transport, connection = host.transport, holding.connection
        message: dict[str, Any] = {
            "give": {**entry.facts(), "moves": entry.moves + 1},
            "join_record": holding.join_record.to_json(),
            "state": state.to_json(),
            "committed_protocol": host.committed_protocol or next(iter(host.pools), ""),
            "counted": False,
            "untold": self._directory.links.missing(link.number),
        }
        if not fits(message):
            return False  # what the agent has sent, its metadata and its names are too long together
        if is_socket(transport):
            protocol = transport.protocol
            handle = take_out(transport)
            if handle is None:
                return False
            message["counted"] = connection.counted if isinstance(connection, MovedConnection) else True
            holding.end()
            connection.let_go()
            lose(protocol, ConnectionDone())
        else:
            handle = self._relays.begin(entry, holding)
            if handle is None:
                return False
        del self.leaving[host]
        cluster = entry.cluster
        host.depart(self._directory.gone)
        if cluster.on_change is not None:
            cluster.on_change("move", host, "")
        self._directory.given(entry, link.number)
        requests = self._next.pop(host, {})
        link.send(message, handle)
        for request in requests.values():
            link.send(request)
        host.fetch = self._directory.fetch
        if is_deterministic(cluster.config):
            cluster.unreserve(host)
        return True
