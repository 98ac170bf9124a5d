"""
The directory of a fleet: what this server publishes, and what the others have published.

While etcd can't be reached, what is known stays known, and what this server has to say
waits.  When it is back, a watch goes on where it was, and a lease that has ended
meanwhile is taken up again.
"""

from __future__ import annotations

__all__ = ["Figures", "FleetDirectory", "Settings"]

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from random import Random
from secrets import token_hex
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from reverseproxy.fleet.etcd import Etcd
from reverseproxy.fleet.follower import Follower
from reverseproxy.fleet.interfaces import IDirectory, IDirectoryListener
from reverseproxy.fleet.keys import host_path, route_path, server_path
from reverseproxy.fleet.notifier import BadRecordLog, DirectoryNotifier
from reverseproxy.fleet.outbox import Outbox
from reverseproxy.fleet.publisher import Publisher
from reverseproxy.fleet.records import (
    BadRecord,
    HostKey,
    HostRecord,
    RouteKey,
    RouteRecord,
    ServerRecord,
)
from reverseproxy.fleet.view import Notice, View
from reverseproxy.logs import counted

log = Logger()


@dataclass(frozen=True, slots=True)
class Settings:
    """
    What this server is in the fleet.

    @ivar server_id: what it is called.
    @ivar prefix: of all keys of the fleet; ends with C{/}.
    @ivar ttl: seconds after which it is gone for others when it does not say that it is there.
    """

    server_id: str
    prefix: str
    ttl: int


@dataclass(frozen=True, slots=True)
class Figures:
    """
    How the directory is doing, in numbers; those that only grow begin with the process.

    @ivar up: whether the store is reached.
    @ivar servers: other servers that are known.
    @ivar held: those of them that the store does not have.
    @ivar hosts: agents at other servers.
    @ivar published: agents that this server publishes.
    @ivar waiting: records that are still to be written.
    @ivar revision: of the store, as far as it is known.
    """

    up: bool
    servers: int
    held: int
    hosts: int
    published: int
    waiting: int
    revision: int
    leases: int
    puts: int
    deletes: int
    events: int
    resyncs: int
    requests: int
    failures: int
    bad_records: int


class _RouteListener(NamedTuple):
    """See L{FleetDirectory.follow_routes}."""

    told: Callable[[str, RouteRecord], object]
    lost: Callable[[], object]


_NOBODY: Final = _RouteListener(lambda what, record: None, lambda: None)


class _Standing:
    """Says once that etcd is away, and once that it is back."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._troubles: dict[str, str] = {}
        self._since: float | None = None

    @property
    def well(self) -> bool:
        """Whether nothing is wrong."""
        return not self._troubles

    def note(self, who: str, reason: str) -> None:
        """Somebody can't reach it, or can, if there is no reason."""
        if reason:
            self._troubles[who] = reason
            if self._since is None:
                self._since = self._clock.seconds()
                log.warn(
                    "fleet: etcd is away ({reason}); servers and hosts that are known stay in use, and "
                    "what changes here is published when it is back",
                    reason=reason,
                )
        elif self._troubles:
            self._troubles.pop(who, None)
            if not self._troubles and self._since is not None:
                seconds = self._clock.seconds() - self._since
                self._since = None
                log.info("fleet: etcd is back after {seconds:.1f} s", seconds=seconds)


@implementer(IDirectory)
class FleetDirectory:
    """See L{IDirectory}."""

    def __init__(
        self,
        reactor: Any,
        etcd: Etcd,
        settings: Settings,
        random: Random,
        who: Callable[[], ServerRecord],
        publishes: bool = True,
    ) -> None:
        """
        @param who: says who this server is, from L{start} on.
        @param publishes: whether this process publishes for the server: one of several workers does.
        """
        self._reactor = reactor
        self._publishes = publishes
        self._who = who
        self._process = token_hex(8)
        self._teller = DirectoryNotifier(reactor)
        self._published: dict[tuple[str, str], HostRecord] = {}
        self._reached: Callable[[str], bool] = lambda server: False
        self._routes = _NOBODY
        self._incarnation = ""
        self._draining = False
        self._started = False
        self._complaints = BadRecordLog(reactor)
        self._standing = _Standing(reactor)
        self._spent = (0, 0)  # requests to an etcd before, and those that were not answered
        self.settings = settings
        self._own = server_path(settings.server_id)
        self._outbox = Outbox(self._own)
        self._view = View(settings.server_id, self._is_reached, float(settings.ttl), self._complaints.note)
        prefix = settings.prefix
        self._publisher = Publisher(reactor, etcd, prefix, settings.ttl, self._outbox, self._renew, random)
        self._follower = Follower(reactor, etcd, prefix, self._view, self._told, random, self._looks_for)
        self._publisher.on_written = self._follower.expect
        self._publisher.on_lost = self._lost_lease
        self._publisher.on_trouble = lambda reason: self._standing.note("publisher", reason)
        self._follower.on_trouble = lambda reason: self._standing.note("follower", reason)
        self._follower.on_own = self._own_changed
        self._follower.on_read = self._compare

    def _looks_for(self) -> str:
        """Where this process writes nothing, it looks for this server's record, as it would not miss it."""
        return "" if self._publishes and not self._publisher.silent else self._own

    # what is known

    @property
    def server_id(self) -> str:
        """What this server is called."""
        return self.settings.server_id

    @property
    def servers(self) -> Mapping[str, ServerRecord]:
        """The other servers."""
        return self._view.servers

    @property
    def hosts(self) -> Mapping[HostKey, HostRecord]:
        """Their hosts."""
        return self._view.hosts

    @property
    def up(self) -> bool:
        """Whether the store is reached."""
        return self._started and self._follower.up and self._standing.well

    @property
    def held(self) -> list[str]:
        """The servers that are known although the store does not have them."""
        return self._view.held

    @property
    def figures(self) -> Figures:
        """How it is doing."""
        publisher, follower, etcd = self._publisher, self._follower, self._publisher.etcd
        return Figures(
            self.up,
            len(self._view.servers),
            len(self._view.held),
            len(self._view.hosts),
            len(self._published),
            len(self._outbox),
            self._view.revision,
            publisher.leases,
            publisher.puts,
            publisher.deletes,
            follower.events,
            follower.resyncs,
            etcd.requests + self._spent[0],
            etcd.failures + self._spent[1],
            self._complaints.count,
        )

    def listen(self, listener: IDirectoryListener) -> None:
        """See L{IDirectory.listen}."""
        known = (each for each in self._view.replay() if not each.method.startswith("route_"))
        self._teller.add(listener, known)

    def unlisten(self, listener: IDirectoryListener) -> None:
        """See L{IDirectory.unlisten}."""
        self._teller.remove(listener)

    def judge(self, reached: Callable[[str], bool]) -> None:
        """See L{IDirectory.judge}."""
        self._reached = reached

    def _is_reached(self, server: str) -> bool:
        return self._reached(server)

    def lost(self, server: str) -> None:
        """See L{IDirectory.lost}."""
        self._told(self._view.lost(server, self._reactor.seconds()))
        self._follower.settle()

    # what is published

    def publish_routes(self, record: RouteRecord) -> None:
        """Say that an agent has brought routes to this server; see C{on_own_route} of L{View}."""
        self._outbox.put(route_path(record.key), record.encode())
        self._publisher.wake()

    def withdraw_routes(self, cluster: str) -> None:
        """Say that this server has an agent's routes no more."""
        self._outbox.drop(route_path(RouteKey(cluster, self.server_id)))
        self._publisher.wake()

    def follow_routes(
        self,
        told: Callable[[str, RouteRecord], object],
        own: Callable[[RouteRecord, RouteRecord | None], object],
        lost: Callable[[], object],
    ) -> None:
        """
        Be told of routes.

        @param told: called with C{"came"} or C{"left"}, and a record of another server; one that is
            another one now has left, and has come.
        @param own: as C{on_own_route} of L{View}.
        @param lost: called when this server's lease has ended, so that others may have taken what it had.
        """
        self._routes = _RouteListener(told, lost)
        self._view.on_own_route = own
        for record in self.routes.values():
            told("came", record)

    @property
    def routes(self) -> Mapping[RouteKey, RouteRecord]:
        """The routes that agents have brought to other servers."""
        return self._view.routes

    def publish(self, host: HostRecord) -> None:
        """See L{IDirectory.publish}."""
        host = replace(host, server=self.server_id)
        self._published[host.cluster, host.agent] = host
        self._put(host)

    def _put(self, host: HostRecord) -> None:
        self._outbox.put(host_path(host.key), host.encode())
        self._publisher.wake()

    def withdraw(self, key: HostKey) -> None:
        """See L{IDirectory.withdraw}."""
        if self._published.pop((key.cluster, key.agent), None) is not None:
            self._outbox.drop(host_path(key._replace(server=self.server_id)))
            self._publisher.wake()

    def drain(self) -> None:
        """See L{IDirectory.drain}."""
        if not self._draining:
            self._draining = True
            self._renew()
            self._publisher.wake()

    @property
    def record(self) -> ServerRecord:
        """This server's own record."""
        return replace(
            self._who(),
            incarnation=f"{self._process}.{self._publisher.leases}",
            process=self._process,
            draining=self._draining,
        )

    def _renew(self) -> None:
        if self._started:
            self._outbox.put(self._own, self.record.encode())

    # beginning, changing, ending

    def start(self) -> None:
        """See L{IDirectory.start}."""
        self._started = True
        self._renew()
        self._follower.start()
        if self._publishes:
            self._publisher.start(lambda: list(self._view.own))

    def stop(self, stays: bool = False) -> Deferred[None]:
        """See L{IDirectory.stop}."""
        if not stays:
            self.drain()
        return Deferred.fromCoroutine(self._stop(stays))

    async def _stop(self, stays: bool) -> None:
        self._started = False
        self._follower.stop()
        await self._publisher.stop(stays)
        await self._publisher.etcd.close()

    def change(self, ttl: int, etcd: Etcd | None = None) -> None:
        """
        Go on with another time to live, or another etcd.

        What is known stays; a lease that the other etcd does not know is taken there anew.

        @param ttl: as in L{Settings}.
        @param etcd: L{None} to go on with the one that there is.
        """
        if etcd is not None:
            old = self._publisher.etcd
            self._spent = (self._spent[0] + old.requests, self._spent[1] + old.failures)
            self._publisher.etcd = etcd
            self._follower.use(etcd)
            if self._started:
                self._follower.resync()
            old.close()
        if ttl != self.settings.ttl:
            self.settings = replace(self.settings, ttl=ttl)
            self._publisher.change_ttl(ttl)
        self._publisher.wake()

    # what comes

    def _told(self, notices: list[Notice]) -> None:
        others: list[Notice] = []
        for notice in notices:
            self._log(notice)
            kind, _, what = notice.method.partition("_")
            if kind == "route":
                self._tell_of_route(what, *notice.arguments)
            else:
                others.append(notice)
        self._teller.tell(others)
        self._look_at_own()

    def _tell_of_route(self, what: str, record: Any, *rest: Any) -> None:
        try:
            if what == "changed":
                self._routes.told("left", rest[0])
                what = "came"
            self._routes.told(what, record)
        except Exception:
            log.failure("fleet: a mistake with routes of cluster {cluster}", cluster=record.cluster)

    def _log(self, notice: Notice) -> None:
        server, *rest = notice.arguments
        if not isinstance(server, ServerRecord):
            return
        if notice.method == "server_came":
            log.info(
                "fleet: server {server} at {address} has joined, {servers} now beside this one",
                server=server.id,
                address=server.address,
                servers=counted(len(self._view.servers), "server"),
            )
        elif notice.method == "server_left":
            log.info(
                "fleet: server {server} at {address} has left: {reason}",
                server=server.id,
                address=server.address,
                reason=rest[0],
            )
        elif server.draining:
            log.info("fleet: server {server} is about to leave", server=server.id)

    def _lost_lease(self) -> None:
        self._routes.lost()
        self._follower.resync()

    def _own_changed(self, paths: list[str], revision: int) -> None:
        """The store has lost some of what is published here, or has something else of this server's."""
        if self._outbox.missing(filter(self._is_lost, paths), revision):
            self._publisher.wake()
        self._look_for_strays(paths)
        self._look_at_own()

    def _compare(self) -> None:
        own = self._view.own
        if self._outbox.compare(own, self._view.revision):
            self._publisher.wake()
        if self._outbox.missing([path for path in own if self._is_lost(path)], self._view.revision + 1):
            self._publisher.wake()
        self._look_for_strays(own)
        self._look_at_own()

    def _is_lost(self, path: str) -> bool:
        """Whether the store does not have what it is to have; of hosts it is only known that it has them."""
        found = self._view.own.get(path)
        if path == self._own and found is not None:
            return self._of_own(found) is None
        return found is None or (path.startswith("routes/") and found != self._outbox.wanted.get(path))

    def _of_own(self, value: bytes) -> ServerRecord | None:
        """Read a record of this server, which another process may have written; L{None} if it is none."""
        try:
            return ServerRecord.decode(self.server_id, value)
        except BadRecord:
            return None

    def _look_for_strays(self, paths: Iterable[str]) -> None:
        """See to what is called like this server's in the store, and is not: somebody else has written it."""
        own, wanted = self._view.own, self._outbox.wanted
        if self._publishes and any(path in own and path not in wanted for path in paths):
            self._publisher.tidy_later()

    def _look_at_own(self) -> None:
        """See whether another process is this server now; the last one to come is."""
        value = self._view.own.get(self._own)
        silent = False
        if value is not None:
            found = self._of_own(value)
            if found is None:
                return
            if not self._publishes:
                self._look_at_publisher(found)
                return
            if found.process == self._process:
                silent = False
            else:
                written = self._outbox.written.get(self._own)
                later = written is not None and written <= self._view.revision
                silent = self._publisher.silent or later
                if later and not self._publisher.silent:
                    self._say_silent(found)
        self._publisher.silence(silent)

    def _look_at_publisher(self, found: ServerRecord) -> None:
        """
        Read everything if the process that publishes has begun anew.

        It has lost its lease, perhaps as this is another store, of which a watch need not tell.
        """
        before, self._incarnation = self._incarnation, found.incarnation
        if before and before != found.incarnation:
            self._follower.resync()

    def _say_silent(self, found: ServerRecord) -> None:
        if found.address == self._who().address:
            log.info("fleet: another process is server {server} now", server=self.server_id)
        else:
            log.error(
                "fleet: the process at {address} calls itself {server}, too: while it does, this one "
                "publishes nothing; give each server an id of its own",
                address=found.address,
                server=self.server_id,
            )
