"""
The directory of a fleet: what this server publishes, and what the others have published.

While etcd can't be reached, the known state is kept, and changes of this server wait to be written. When
it is back, the watch goes on from the last known revision, and everything is published again if the
lease has expired.
"""

from __future__ import annotations

__all__ = ["Figures", "FleetDirectory", "Settings"]

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from reverseproxy.fleet.etcd import Etcd
from reverseproxy.fleet.follower import Follower
from reverseproxy.fleet.interfaces import IDirectory, IDirectoryListener
from reverseproxy.fleet.keys import host_path, route_path
from reverseproxy.fleet.notifier import BadRecordLog, DirectoryNotifier, RouteNotifier, log_notice
from reverseproxy.fleet.outbox import Outbox
from reverseproxy.fleet.own_record import OwnRecord
from reverseproxy.fleet.publisher import Publisher
from reverseproxy.fleet.record_table import Notice
from reverseproxy.fleet.records import HostKey, HostRecord, RouteKey, RouteRecord, ServerRecord
from reverseproxy.fleet.store_health import StoreHealth
from reverseproxy.fleet.view import View

log = Logger()


@dataclass(frozen=True, slots=True)
class Settings:
    """
    This server's settings in the fleet.

    @ivar server_id: its id.
    @ivar prefix: of all keys of the fleet; ends with C{/}.
    @ivar ttl: seconds after which its lease expires unless it is renewed.
    """

    server_id: str
    prefix: str
    ttl: int


@dataclass(frozen=True, slots=True)
class Figures:
    """
    Figures of the directory for the admin API; counters begin with the process.

    @ivar up: whether the store is reached.
    @ivar servers: other servers that are known.
    @ivar held: those of them that the store does not have.
    @ivar hosts: agents of other servers.
    @ivar published: agents that this server publishes.
    @ivar waiting: records that are still to be written or deleted.
    @ivar revision: the last known revision of the store.
    @ivar leases: leases that this process has got.
    @ivar puts: records written.
    @ivar deletes: records deleted.
    @ivar events: changes that watches have reported.
    @ivar resyncs: how often everything has been read.
    @ivar requests: requests to etcd.
    @ivar failures: requests that an endpoint has not answered.
    @ivar bad_records: records that could not be decoded.
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


@implementer(IDirectory)
class FleetDirectory:
    """An L{IDirectory} in etcd."""

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
        @param who: returns this server's record without what the directory adds; called from L{start}
            on.
        @param publishes: whether this process publishes for the server: one of several workers does.
        """
        self._reactor = reactor
        self._publishes = publishes
        self._record = OwnRecord(settings.server_id, who)
        self._notifier = DirectoryNotifier(reactor)
        self._published: dict[tuple[str, str], HostRecord] = {}
        self._reached: Callable[[str], bool] = lambda server: False
        self._routes = RouteNotifier()
        self._started = False
        self._bad_records = BadRecordLog(reactor)
        self._health = StoreHealth(reactor)
        self._spent = (0, 0)  # requests and failures of clients that were replaced
        self.settings = settings
        self._outbox = Outbox(self._record.path)
        self._view = View(settings.server_id, self._is_reached, float(settings.ttl), self._bad_records.note)
        prefix = settings.prefix
        self._publisher = Publisher(reactor, etcd, prefix, settings.ttl, self._outbox, self._renew, random)
        self._follower = Follower(reactor, etcd, prefix, self._view, self._told, random, self._looks_for)
        self._publisher.on_written = self._follower.expect
        self._publisher.on_lost = self._lost_lease
        self._publisher.on_trouble = lambda reason: self._health.note("publisher", reason)
        self._follower.on_trouble = lambda reason: self._health.note("follower", reason)
        self._follower.on_own = self._own_changed
        self._follower.on_read = self._compare

    def _looks_for(self) -> str:
        """
        Return the path of the record to compare with the store from time to time: where this process
        writes nothing, it would not notice a store that was replaced.
        """
        return "" if self._publishes and not self._publisher.silent else self._record.path

    # state

    @property
    def server_id(self) -> str:
        """This server's id."""
        return self.settings.server_id

    @property
    def servers(self) -> Mapping[str, ServerRecord]:
        """The other servers, by id."""
        return self._view.servers

    @property
    def hosts(self) -> Mapping[HostKey, HostRecord]:
        """Their hosts."""
        return self._view.hosts

    @property
    def up(self) -> bool:
        """Whether the store is reached, and watched."""
        return self._started and self._follower.up and self._health.well

    @property
    def held(self) -> list[str]:
        """The ids of servers that are known although the store does not have them."""
        return self._view.held

    @property
    def figures(self) -> Figures:
        """The present figures."""
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
            self._bad_records.count,
        )

    def listen(self, listener: IDirectoryListener) -> None:
        """See L{IDirectory.listen}."""
        known = (each for each in self._view.replay() if not each.method.startswith("route_"))
        self._notifier.add(listener, known)

    def unlisten(self, listener: IDirectoryListener) -> None:
        """See L{IDirectory.unlisten}."""
        self._notifier.remove(listener)

    def judge(self, reached: Callable[[str], bool]) -> None:
        """See L{IDirectory.judge}."""
        self._reached = reached

    def _is_reached(self, server: str) -> bool:
        return self._reached(server)

    def lost(self, server: str) -> None:
        """See L{IDirectory.lost}."""
        self._told(self._view.lost(server, self._reactor.seconds()))
        self._follower.settle()

    # publishing

    def publish_routes(self, record: RouteRecord) -> None:
        """See L{IRouteDirectory.publish_routes}."""
        self._outbox.put(route_path(record.key), record.encode())
        self._publisher.wake()

    def withdraw_routes(self, cluster: str) -> None:
        """See L{IRouteDirectory.withdraw_routes}."""
        self._outbox.drop(route_path(RouteKey(cluster, self.server_id)))
        self._publisher.wake()

    def follow_routes(
        self,
        told: Callable[[str, RouteRecord], object],
        own: Callable[[RouteRecord, RouteRecord | None], object],
        lost: Callable[[], object],
    ) -> None:
        """See L{IRouteDirectory.follow_routes}."""
        self._routes.set(told, lost)
        self._view.on_own_route = own
        for record in self.routes.values():
            told("came", record)

    @property
    def routes(self) -> Mapping[RouteKey, RouteRecord]:
        """The routes of other servers' agents."""
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
        if not self._record.draining:
            self._record.draining = True
            self._renew()
            self._publisher.wake()

    def _renew(self) -> None:
        if self._started:
            self._outbox.put(self._record.path, self._record.make(self._publisher.leases).encode())

    # life cycle

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
        Change the time to live, or the client of etcd.

        The known state stays; the lease is granted anew if the other etcd does not know it.

        @param ttl: as in L{Settings}.
        @param etcd: L{None} to keep the present client.
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

    # events

    def _told(self, notices: list[Notice]) -> None:
        others: list[Notice] = []
        for notice in notices:
            if notice.method.startswith("route_"):
                self._routes.notify(notice)
            else:
                log_notice(notice, len(self._view.servers))
                others.append(notice)
        self._notifier.tell(others)
        self._look_at_own()

    def _lost_lease(self) -> None:
        self._routes.lease_lost()
        self._follower.resync()

    def _own_changed(self, paths: list[str], revision: int) -> None:
        """
        Write again what the store has lost of this server; find records that this process has not
        written.
        """
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
        """Return whether the store lacks a record; of hosts, only their existence is known."""
        found = self._view.own.get(path)
        if path == self._record.path and found is not None:
            return self._record.decode(found) is None
        return found is None or (path.startswith("routes/") and found != self._outbox.wanted.get(path))

    def _look_for_strays(self, paths: Iterable[str]) -> None:
        """Delete records under this server's keys that this process has not written."""
        own, wanted = self._view.own, self._outbox.wanted
        if self._publishes and any(path in own and path not in wanted for path in paths):
            self._publisher.tidy_later()

    def _look_at_own(self) -> None:
        """Follow which process is this server, by the record that the store has: the last one to write it."""
        value = self._view.own.get(self._record.path)
        if value is None:
            self._publisher.silence(False)
            return
        found = self._record.decode(value)
        if found is None:
            return
        if not self._publishes:
            if self._record.is_published_anew(found):
                # Its lease was lost, perhaps with the store, which a watch need not show.
                self._follower.resync()
            return
        if not self._record.is_foreign(found):
            self._publisher.silence(False)
            return
        written = self._outbox.written.get(self._record.path)
        later = written is not None and written <= self._view.revision
        if later and not self._publisher.silent:
            self._record.log_replaced(found)
        self._publisher.silence(self._publisher.silent or later)
