"""
Receive connections from other workers, and request certain ones.

    {"give": facts, "join_record": ..., ...} + descriptor    here is a connection
    {"fetch": "0.c2b1.7", "for": 1}                     worker 1 requests this connection

If the load balancer decides on a certain host, as with a hash, its connection is fetched when a
request needs it.
"""

from __future__ import annotations

__all__ = ["MOST_HOPS", "Taker"]

import errno
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.cluster.host import Host, ReverseHost
from reverseproxy.errors import ConnectionUnavailable, HostGone
from reverseproxy.transport.handing import discard, put_in
from reverseproxy.tunnel.server.joined import ConnectionState, JoinRecord, MovedConnection
from reverseproxy.workers.directory import Directory
from reverseproxy.workers.entries import Entry
from reverseproxy.workers.giving import Giver
from reverseproxy.workers.links import Link
from reverseproxy.workers.messages import Message
from reverseproxy.workers.requests import is_committed
from reverseproxy.workers.tls_relays import TlsRelays

log = Logger()

MOST_HOPS: Final = 4
"""How often a request for a connection is forwarded; workers may disagree for a moment where that is."""


class Taker:
    """
    Receives connections from siblings, and requests certain ones.

    @ivar on_arrival: called with each host whose connection has arrived.
    @ivar on_shortage: called when a connection was lost for lack of descriptors.
    """

    on_arrival: Callable[[Host], object] = staticmethod(lambda host: None)
    on_shortage: Callable[[], object] = staticmethod(lambda: None)

    def __init__(self, directory: Directory, giver: Giver, relays: TlsRelays, clock: Any) -> None:
        self._directory = directory
        self._links = directory.links
        self._giver = giver
        self._relays = relays
        self._clock = clock
        self._fetches: dict[Host, Deferred[None]] = {}
        relays.on_arrival = self._arrived
        relays.on_loss = directory.lose
        directory.fetch = self.fetch

    def stop(self) -> None:
        """Cancel all pending requests."""
        for fetch in list(self._fetches.values()):
            fetch.cancel()

    # connections that siblings move here

    def given(self, link: Link, message: Message, handle: Any) -> None:
        """
        Take over a connection of a sibling.

        @param handle: its socket; L{None} if this process has no descriptor left.
        """
        facts = message["give"]
        join_record = JoinRecord.from_json(message["join_record"])
        server = self._directory.servers.get(join_record.listener)
        entry = self._entry_of(link, facts)
        host = None if entry is None else entry.host
        if server is None or entry is None or not isinstance(host, ReverseHost) or host.cluster is None:
            # It is of no use here: its agent connects again.
            if handle is not None:
                discard(handle)
            self._directory.tell({"leave": facts["id"]})
            if entry is not None:
                self._directory.gone(entry.host, "nobody can use it here")
            return
        if handle is None:
            self._none_left(entry)
            return
        for number in message.get("untold", ()):
            # They have no link to the giver, and may never have heard of the host.
            if number in self._links.up:
                self._links.up[number].send({"join": entry.facts()})
        host.committed_protocol = message["committed_protocol"]
        # It may have changed since the host was announced, by an operator as well.
        host.cluster.weigh(host, facts["weight"])
        state = ConnectionState.from_json(message["state"])
        if self._relays.come_back(entry, handle, state):
            return
        connection = MovedConnection(server, join_record, host, state, message["counted"])
        # Siblings hear of its end from here, even if it is not wanted here: its agent may be banned by now.
        self._directory.place(entry, self._links.number)
        try:
            put_in(handle, server.workers.adopt(connection), self._clock)
        except ConnectionUnavailable as error:
            if getattr(error.__cause__, "errno", 0) in (errno.EMFILE, errno.ENFILE):
                self._none_left(entry)
            else:
                self._directory.lose(entry, str(error))
            return
        self._arrived(entry, host)

    def _entry_of(self, link: Link, facts: Message) -> Entry | None:
        """Return the entry of a host that moves here, or make it; L{None} for an unknown cluster."""
        name = facts["cluster"]
        if name not in self._directory.clusters:
            entry = self._directory.entries.get(facts["id"])
        else:
            cluster = self._directory.clusters.get(name)
            entry = self._directory.known(facts["id"], cluster)
            if entry is None:
                entry = self._directory.make(link.number, cluster, {**facts, "kind": "plain"})
        if entry is not None:
            entry.moves = facts["moves"]
        return entry

    def _none_left(self, entry: Entry) -> None:
        """Report a connection that was lost, as this process has no descriptor left."""
        log.warn(
            "cluster {cluster}: host {host}, whose connection another worker has given, is lost, as this"
            " process has as many files open as it may have (LimitNOFILE, ulimit -n)",
            cluster=entry.cluster.name,
            host=entry.host.address,
        )
        self.on_shortage()
        self._directory.lose(entry, "its worker has no descriptor left")

    def _arrived(self, entry: Entry, host: ReverseHost) -> None:
        """Use a connection that has arrived."""
        self._directory.place(entry, self._links.number)
        cluster = entry.cluster
        if host.closed or host.cluster is None:
            return
        if cluster.on_change is not None:
            cluster.on_change("move", host, "")
        fetch = self._fetches.pop(host, None)
        if fetch is not None:
            fetch.callback(None)
        cluster.unreserve(host)
        self.on_arrival(host)

    # a certain host

    def fetch(self, host: ReverseHost) -> Deferred[None]:
        """Request the connection of a certain host from the worker that has it."""
        entry = self._directory.by_host.get(host)
        link = None if entry is None else self._links.up.get(entry.at)
        if entry is None or (link is None and not self._directory.is_here(entry)):
            return fail(HostGone(f"{host.address} is gone"))
        if host in self._fetches:
            return fail(HostGone(f"{host.address} is in use"))
        fetch: Deferred[None] = Deferred()
        self._fetches[host] = fetch
        fetch.addTimeout(entry.cluster.config.connect_timeout, self._clock, partial(self._too_late, host))
        fetch.addErrback(self._not_fetched, host)
        if link is not None:
            link.send({"fetch": entry.number, "for": self._links.number})
        return fetch

    def _not_fetched(self, reason: Failure, host: ReverseHost) -> Failure:
        self._fetches.pop(host, None)
        return reason

    def _too_late(self, host: ReverseHost, result: Any, timeout: float) -> Any:
        raise HostGone(f"{host.address} did not come within {timeout:g} s")

    def fetched(self, link: Link, message: Message) -> None:
        """Move a certain connection to a sibling, or forward the request to the worker that has it."""
        entry = self._directory.entries.get(message["fetch"])
        if entry is None:
            return
        asking = self._links.up.get(message["for"])
        if not self._directory.is_here(entry):
            on = self._links.up.get(entry.at)
            hops = message.get("hops", 0)
            if on is not None and on is not asking and hops < MOST_HOPS:
                on.send({**message, "hops": hops + 1})
        elif is_committed(entry.host):
            self._directory.commit(entry)
        elif asking is not None:
            self._giver.fetch(entry.host, asking, message)

    def dropped(self, host: Host) -> None:
        """Fail the request for a host that is gone."""
        fetch = self._fetches.get(host)
        if fetch is not None:
            fetch.errback(HostGone(f"{host.address} is gone"))
