"""
Plain connections go to the worker whose requests wait longest, and stay there.

    {"want": cluster, "hosts": [[labels, 3, 0.012]]}    three requests wait, the oldest for 12 ms
    {"give": facts, "papers": ..., ...} + descriptor    here is a connection
    {"fetch": "0.c2b1.7", "for": 1}                     this very connection is wanted
    {"retire": "0.c2b1.7"}                              it is to be closed when it is idle

What is given is a connection that nobody uses: its protocol lets go of it
(L{IDetachable<reverseproxy.cluster.handover.IDetachable>}), and its socket goes to
the other process (L{reverseproxy.transport.handing}).  Which ones, and how many, is
L{reverseproxy.workers.policy}'s to say.  Where the load balancer decides on a
certain host, such as by a hash, that one is fetched when it is to be connected.

A connection over TLS can't leave its process.  What goes to the other worker is one
end of a pair of sockets; at the other end the first worker relays (L{_Relay}).  It may
go on to others, as any connection, and comes home when this worker is given it.
"""

from __future__ import annotations

__all__ = ["Mover"]

from functools import partial
from itertools import islice
from math import inf
from typing import Any, Final

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.cluster.balancers.weighted import is_settled
from reverseproxy.cluster.host import Host, ReverseHost
from reverseproxy.cluster.manager import Cluster, Want
from reverseproxy.errors import ConnectionUnavailable, HostGone
from reverseproxy.proxy.farewell import Parting
from reverseproxy.proxy.relay import RelayEnd, couple
from reverseproxy.transport.handing import discard, is_socket, lose, make_pair, put_in, take_out
from reverseproxy.tunnel.server.holding import Condition, Holding, MovedConnection, Papers
from reverseproxy.workers.directory import Directory, Entry
from reverseproxy.workers.links import Link
from reverseproxy.workers.messages import Message
from reverseproxy.workers.policy import TELL_EVERY, is_pressing, to_give, to_owe
from reverseproxy.workers.requests import is_committed

log = Logger()

LEAST_GAP: Final = 0.003
"""Seconds between two messages about the same cluster, at the least."""

MOST_LOOKED_AT: Final = 1024
"""Hosts that are looked at to find some that are free."""

MOST_EARLY: Final = 65536
"""Bytes that have come before the first use; a connection with more of them stays."""

_PARTING: Final = Parting(excused=True)


class _Far(RelayEnd):
    """The agent's end of a relay."""

    parting = _PARTING

    @property
    def intact(self) -> bool:
        """Whether both directions of the connection are open."""
        return not (self._lost or self._read_closed or self._write_closed or self.closing)

    def uncouple(self) -> None:
        """Have nothing more to do with the other end, and receive nothing for now."""
        self._peer = None
        self.transport.unregisterProducer()
        self.transport.pauseProducing()


class _Near(RelayEnd):
    """Our end of the pair of sockets whose other end another worker has."""

    parting = _PARTING

    def __init__(self, clock: IReactorTime, relay: _Relay) -> None:
        super().__init__(clock)
        self._relay = relay

    def readConnectionLost(self) -> None:
        """The other worker sends no more, or all of it has come that it had sent before it gave it back."""
        if self._relay.returned:
            self._relay.all_sent()
        else:
            super().readConnectionLost()

    def part(self) -> None:
        """Have nothing more to do with the agent's end, and close behind what came from there."""
        self._peer = None
        self.transport.unregisterProducer()
        self.close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The other worker is gone, or we have parted."""
        super().connectionLost(reason)
        self._relay.near_lost()


class _Rest(Protocol):
    """The other end of the pair, back again: what it still holds is for whoever is next."""

    transport: Any

    def __init__(self, relay: _Relay) -> None:
        self._relay = relay
        self._data: list[bytes] = []

    def connectionMade(self) -> None:
        """End what the near end receives, behind all that was sent here."""
        self.transport.loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self._data.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """That is all."""
        self._relay.all_here(b"".join(self._data))


class _Relay:
    """
    A connection over TLS, whose host is another worker's at present.

    @ivar entry: the host.
    @ivar connection: who has the connection.
    @ivar papers: who has brought it.
    @ivar server: what it has joined.
    @ivar place: what it takes of the quotas.
    @ivar claimed: whether it has brought routes.
    @ivar state: what has happened on it, once it has come back.
    @ivar returned: whether the other worker has given it back.
    """

    returned = False
    state = Condition()

    def __init__(self, mover: Mover, entry: Entry, holding: Holding, clock: Any) -> None:
        self.entry = entry
        self.connection = holding.connection
        self.papers = holding.papers
        self.server = holding.server
        self.place = holding.take_place()
        self.claimed = holding.claimed
        self._mover = mover
        self._far = _Far(clock)
        self._near = _Near(clock, self)
        self._clock = clock
        self._over = self._parted = False

    def begin(self) -> Any:
        """
        Relay from now on.

        @return: the other worker's end.
        """
        ours, theirs = make_pair(self._clock)
        self.server.revocations.add(self)
        self.connection.hand_over(self._far)
        put_in(ours, self._near, self._clock)
        couple(self._near, self._far)
        return theirs

    # IJoined: whether its TLS would be good enough now; who has it judges the rest

    def judge_again(self, credentials: bool) -> str:
        """See L{IJoined<reverseproxy.tunnel.server.revocation.IJoined>}."""
        return self.server.transport_policy.objection(self.papers.info, self.connection.transport)

    def revoke(self, reason: str, grace: float) -> None:
        """See L{IJoined<reverseproxy.tunnel.server.revocation.IJoined>}."""
        log.warn(
            "{listener}: {peer} is let go, at the latest in {seconds:g} s: {reason}",
            listener=self.server.listener,
            peer=self.papers.info.remote,
            seconds=grace,
            reason=reason,
        )
        self._mover.recall(self)
        self._clock.callLater(grace, self._far.abort)

    def come_back(self, handle: Any, state: Condition) -> None:
        """
        The connection is ours again, as soon as everything has come that is on its way.

        @param handle: the other worker's end.
        @param state: what has happened at its end.
        """
        self.returned = True
        self.state = state
        try:
            put_in(handle, _Rest(self), self._clock)
        except ConnectionUnavailable:
            self.lost()

    def all_sent(self) -> None:
        """Everything has gone to the agent that was meant for it."""
        if self._parted or self._over:
            return
        if self._far.intact:
            self._parted = True
            self._far.uncouple()
            self._near.part()
        else:
            # The agent has closed it, and the worker that has given it back has not heard of that.
            self._near.close()
            self.lost()

    def all_here(self, rest: bytes) -> None:
        """Everything has come back that the agent has sent."""
        if self._over:
            return
        if not self._parted or not self._far.intact:
            self.lost()
            return
        self._over = True
        self.connection.let_go()
        self._mover.home(self, rest)

    def near_lost(self) -> None:
        """The pair of sockets is closed, or the connection is."""
        if not self._parted:
            self.lost()

    def lost(self) -> None:
        """The connection is nobody's any more."""
        if not self._over:
            self._over = True
            self._far.abort()
            self._mover.lost(self)


class Mover:
    """
    Gives connections of this worker to others, and takes theirs.

    @ivar draining: whether this worker is about to end, and keeps nothing that it does
        not need.
    """

    draining = False

    def __init__(self, directory: Directory, clock: Any) -> None:
        self._directory = directory
        self._links = directory.links
        self._clock = clock
        self._told: dict[Cluster, float] = {}  # when, if we have said that we want something
        self._timers: dict[Cluster, IDelayedCall] = {}
        self._wishes: dict[Cluster, dict[Link, list[Want]]] = {}
        self._owed: dict[Cluster, dict[Link, int]] = {}
        self._leaving: dict[Host, Link] = {}
        self._fetches: dict[Host, Deferred[None]] = {}
        self._relays: dict[str, _Relay] = {}
        directory.fetch = self._fetch
        directory.on_drop = self._dropped

    def share(self, cluster: Cluster) -> None:
        """Let connections of a cluster come and go."""
        cluster.on_idle = self._idle
        cluster.on_wait = partial(self._waits, cluster)

    def stop(self) -> None:
        """Ask for nothing more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for fetch in list(self._fetches.values()):
            fetch.cancel()

    # what this worker's requests wait for

    def _waits(self, cluster: Cluster) -> None:
        """A request waits."""
        if is_settled(cluster.config):
            self._directory.settle(cluster)
            return
        timer = self._timers.get(cluster)
        if timer is None:
            self._tell(cluster)
        elif cluster.waiting == 1:
            # The first one, after there was none: others think that we want what we did before.
            rest = self._told.get(cluster, 0.0) + LEAST_GAP - self._clock.seconds()
            if rest <= 0:
                self._tell(cluster)
            elif timer.getTime() - self._clock.seconds() > rest:
                timer.reset(rest)

    def _tell(self, cluster: Cluster) -> None:
        """Say what we want, again and again as long as we do."""
        timer = self._timers.pop(cluster, None)
        if timer is not None and timer.active():
            timer.cancel()
        wants = cluster.wants()
        if not wants and self._told.pop(cluster, None) is None:
            return
        now = self._clock.seconds()
        hosts = [[list(want.labels), want.number, now - want.since] for want in wants]
        for link in self._links:
            if self._directory.has_plain(link, cluster) or not wants:
                link.send({"want": cluster.name, "hosts": hosts})
        if wants or cluster.waiting:
            self._told[cluster] = now
            self._timers[cluster] = self._clock.callLater(TELL_EVERY, self._tell, cluster)

    # what others' wait for

    def wanted(self, link: Link, message: Message) -> None:
        """A sibling's requests wait, or do not any more."""
        if message["want"] not in self._directory.clusters:
            return
        cluster = self._directory.clusters.get(message["want"])
        now = self._clock.seconds()
        wants = [
            Want(tuple((key, value) for key, value in labels), number, now - age)
            for labels, number, age in message["hosts"]
        ]
        wishes = self._wishes.setdefault(cluster, {})
        if wants:
            wishes[link] = wants
        else:
            wishes.pop(link, None)
        self._weigh(cluster)

    def _weigh(self, cluster: Cluster) -> None:
        """Give what others need more than we do."""
        wishes = self._wishes.get(cluster, {})
        owed = self._owed.setdefault(cluster, {})
        owed.clear()
        for link in sorted(wishes, key=lambda each: min(want.since for want in wishes[each])):
            self._give_free(cluster, link)
        if wishes:
            self._owe(cluster, wishes, owed)
        cluster.on_free = partial(self._on_free, cluster) if wishes or self.draining else None

    def _give_free(self, cluster: Cluster, link: Link) -> None:
        """Give away a part of what nobody uses here."""
        if not self._pressing(cluster, link):
            return
        free = self._free(cluster)
        waiting = sum(want.number for want in self._wishes[cluster][link])
        quota = to_give(len(free), waiting, self._directory.count_here(cluster))
        for entry in free:
            if quota and self._grant(cluster, entry.host, link):
                quota -= 1
                self._give(entry.host, link)

    def _grant(self, cluster: Cluster, host: Host, link: Link) -> bool:
        """
        Note that a sibling is given a host, if it wants such a one.

        It will say what it still wants.
        """
        wishes = self._wishes.get(cluster, {})
        wants = wishes.get(link, [])
        for index, want in enumerate(wants):
            if cluster.would_take(host, want.labels):
                if want.number > 1:
                    wants[index] = want._replace(number=want.number - 1)
                else:
                    del wants[index]
                    if not wants:
                        del wishes[link]
                return True
        return False

    def _pressing(self, cluster: Cluster, link: Link) -> bool:
        since = min((want.since for want in self._wishes[cluster].get(link, ())), default=inf)
        return is_pressing(
            self._clock.seconds() - since, self._directory.has_plain(link, cluster), cluster.active
        )

    def _free(self, cluster: Cluster) -> list[Entry]:
        found: list[Entry] = []
        if cluster.waiting and cluster.subsets is None:
            return found  # whoever waits would have it
        if self._directory.count_here(cluster):
            for entry in list(islice(self._directory.here(cluster), MOST_LOOKED_AT)):
                host = entry.host
                if not host.active and not host.reserved and host.healthy and host.usable():
                    if is_committed(host):
                        self._directory.commit(entry)
                    else:
                        found.append(entry)
        return found

    def _owe(self, cluster: Cluster, wishes: dict[Link, list[Want]], owed: dict[Link, int]) -> None:
        now = self._clock.seconds()
        own = max((now - want.since for want in cluster.wants()), default=0.0)
        here = self._directory.count_here(cluster)
        for link, wants in wishes.items():
            age = max(now - want.since for want in wants)
            number = to_owe(age, own, sum(want.number for want in wants), here)
            if number:
                owed[link] = number
                self._end_sharing(cluster, link, wants)

    def _end_sharing(self, cluster: Cluster, link: Link, wants: list[Want]) -> None:
        """
        Let a host become free that carries many requests at once, and might never be.

        That is one at a time; and none, if there are others, which become free by themselves.
        """
        if link in self._leaving.values():
            return
        best: Entry | None = None
        # In one go: a look whether a host is usable may be what makes it leave.
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
            self._give(best.host, link)

    def _on_free(self, cluster: Cluster, host: Host) -> bool:
        """Take a host that has become free, if it is owed to somebody; see L{Cluster.on_free}."""
        owed = self._owed.get(cluster)
        if not owed and cluster.waiting:
            return False  # as nearly always under load, where this is called for every request
        entry = self._directory.by_host.get(host)
        if entry is None or not host.exclusive or not host.usable() or is_committed(host):
            return False
        owed = {} if owed is None else owed
        here = self._directory.count_here(cluster)
        spare = not cluster.waiting and to_give(here - cluster.active, 1, here)
        # Unless somebody is owed it, or nobody needs it here, it is ours.
        for link in list(self._wishes.get(cluster, ()) if spare else owed):
            if (link in owed or self._pressing(cluster, link)) and self._grant(cluster, host, link):
                left = owed.pop(link, 0) - 1
                if left > 0:
                    owed[link] = left
                self._give(host, link)
                return True
        if self.draining and not cluster.waiting:
            somebody = self._links.somebody()
            if somebody is not None:
                self._give(host, somebody)
                return True
        return False

    # giving

    def _give(self, host: Host, link: Link) -> None:
        """Give a host to a sibling, as soon as nobody uses it."""
        cluster = host.cluster
        if cluster is None or host in self._leaving:
            return
        self._leaving[host] = link
        cluster.reserve(host)
        self._try(host)

    def _idle(self, host: Host) -> None:
        """Nobody uses a host that is reserved."""
        if host in self._leaving:
            self._try(host)

    def _try(self, host: Host, again: bool = True) -> None:
        link = self._leaving.get(host)
        entry = self._directory.by_host.get(host)
        if link is None or host.active:
            return
        if not isinstance(host, ReverseHost) or entry is None or not link.up or not host.usable():
            self._keep(host)
        elif not host.take_back() or not self._hand_over(entry, host, link):
            if again:
                # A protocol may still be about to finish what has just ended.
                self._clock.callLater(0, self._try, host, False)
            else:
                self._keep(host)

    def _keep(self, host: Host) -> None:
        """A host can't be given, after all."""
        self._leaving.pop(host, None)
        if host.cluster is not None:
            host.cluster.unreserve(host)

    def _hand_over(self, entry: Entry, host: ReverseHost, link: Link) -> bool:
        """
        Give a host away that nobody uses.

        @return: whether it was; else nothing is changed.
        """
        holding: Holding | None = getattr(host.holder, "holding", None)
        state = Condition.of(host)
        if holding is None or len(state.early) > MOST_EARLY or not host.usable():
            return False
        transport, connection = host.transport, holding.connection
        message: dict[str, Any] = {
            "papers": holding.papers.to_json(),
            "state": state.to_json(),
            "committed_protocol": host.committed_protocol or next(iter(host.pools), ""),
        }
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
            relay = self._relays[entry.number] = _Relay(self, entry, holding, self._clock)
            message["counted"] = False
            holding.end()
            connection.let_go()
            handle = relay.begin()
        del self._leaving[host]
        cluster = entry.cluster
        host.depart(self._directory.gone)
        if cluster.on_change is not None:
            cluster.on_change("move", host, "")
        self._directory.given(entry, link.number)
        link.send({"give": entry.facts(), **message}, handle)
        host.fetch = self._fetch
        if is_settled(cluster.config):
            cluster.unreserve(host)
        return True

    # taking

    def given(self, link: Link, message: Message, handle: Any) -> None:
        """A sibling gives us a connection."""
        facts = message["give"]
        papers = Papers.from_json(message["papers"])
        server = self._directory.servers.get(papers.listener)
        entry = self._directory.entries.get(facts["id"])
        if entry is None and facts["cluster"] in self._directory.clusters:
            cluster = self._directory.clusters.get(facts["cluster"])
            entry = self._directory.make(link.number, cluster, {**facts, "kind": "plain"})
        if entry is not None:
            entry.moves = facts["moves"]
        host = None if entry is None else entry.host
        if server is None or entry is None or not isinstance(host, ReverseHost) or host.cluster is None:
            # Nobody could use it here: its agent connects again.
            discard(handle)
            self._directory.tell({"leave": facts["id"]})
            if entry is not None:
                self._directory.gone(entry.host, "nobody can use it here")
            return
        host.committed_protocol = message["committed_protocol"]
        if host.weight != papers.accepted.weight:
            host.cluster.weigh(host, papers.accepted.weight)  # it has changed since the host was announced
        state = Condition.from_json(message["state"])
        relay = self._relays.get(entry.number)
        if relay is not None:
            relay.come_back(handle, state)
            return
        connection = MovedConnection(server, papers, host, state, message["counted"])
        try:
            put_in(handle, server.workers.adopt(connection), self._clock)
        except ConnectionUnavailable as error:
            self._lost_on_its_way(entry, str(error))
            return
        self._here(entry, host)

    def _lost_on_its_way(self, entry: Entry, reason: str) -> None:
        """Nobody has a connection any more that was given to this worker, and so nobody else says so."""
        self._directory.place(entry, self._links.number)
        self._directory.tell({"leave": entry.number})
        entry.host.close(reason)

    def _here(self, entry: Entry, host: ReverseHost) -> None:
        """A connection has come."""
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
        if self.draining:
            self._give_away(cluster)

    # relays

    def home(self, relay: _Relay, surplus: bytes) -> None:
        """
        A connection over TLS has come back to the worker that has accepted it.

        @param surplus: what has come on it, and nobody has had.
        """
        entry = relay.entry
        self._relays.pop(entry.number, None)
        relay.server.revocations.discard(relay)
        host = entry.host
        if not isinstance(host, ReverseHost) or host.cluster is None or host.closed:
            relay.connection.transport.abortConnection()
            return
        holding = Holding(
            relay.server, relay.papers, host, relay.connection, relay.place, claimed=relay.claimed
        )
        relay.connection.holding = holding
        relay.state.restore(host, relay.connection, holding, surplus)
        relay.connection.transport.resumeProducing()
        self._here(entry, host)

    def lost(self, relay: _Relay) -> None:
        """A connection over TLS is gone while another worker had it."""
        self._relays.pop(relay.entry.number, None)
        relay.server.revocations.discard(relay)
        relay.server.quotas.give_back(relay.place)
        if relay.returned:
            self._lost_on_its_way(relay.entry, "it was lost on its way")

    def recall(self, relay: _Relay) -> None:
        """Let the worker that has a connection close it when it is idle."""
        link = self._links.up.get(relay.entry.at)
        if link is not None:
            link.send({"retire": relay.entry.number})

    def retire(self, link: Link, message: Message) -> None:
        """The worker through which a connection goes is about to end."""
        host = self._directory.find(message["retire"])
        if host is not None and host.cluster is not None:
            host.cluster.remove_host(host, f"worker {link.number + 1}, which relays it, wants it closed")

    # a certain host

    def _fetch(self, host: ReverseHost) -> Deferred[None]:
        """Ask for the connection of a certain host."""
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
        """A sibling wants a certain connection, which may have gone on."""
        entry = self._directory.entries.get(message["fetch"])
        if entry is None:
            return
        asking = self._links.up.get(message["for"])
        if not self._directory.is_here(entry):
            on = self._links.up.get(entry.at)
            if on is not None and on is not asking:
                on.send(message)
        elif is_committed(entry.host):
            self._directory.commit(entry)
        elif asking is not None and entry.host in self._leaving:
            # Whoever gets it first is asked for it then, behind it.
            self._leaving[entry.host].send(message)
        elif asking is not None:
            self._give(entry.host, asking)

    def _dropped(self, host: Host) -> None:
        """A host is gone: nobody need wait for it."""
        self._leaving.pop(host, None)
        fetch = self._fetches.get(host)
        if fetch is not None:
            fetch.errback(HostGone(f"{host.address} is gone"))

    # links, and the end

    def went(self, link: Link) -> None:
        """A sibling is gone."""
        for cluster, wishes in self._wishes.items():
            if wishes.pop(link, None) is not None:
                self._weigh(cluster)
        for host in [host for host, to in self._leaving.items() if to is link]:
            self._keep(host)

    def drain(self) -> None:
        """Give all that nobody uses to those who stay; and whatever becomes free."""
        self.draining = True
        for cluster in self._directory.clusters:
            self._give_away(cluster)
            cluster.on_free = partial(self._on_free, cluster)

    def _give_away(self, cluster: Cluster) -> None:
        if cluster.waiting:
            return
        for entry in self._free(cluster):
            link = self._links.somebody()
            if link is not None:
                self._give(entry.host, link)

    def withdraw(self) -> None:
        """Let siblings begin nothing more with what goes through this worker."""
        for relay in list(self._relays.values()):
            self.recall(relay)
