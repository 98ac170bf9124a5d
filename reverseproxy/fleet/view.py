"""
What is known of the other servers and their hosts, from a store that can be watched; pure.

The store is etcd's kind: all keys together have a revision, which grows with each
change; a I{snapshot} is all there is at one revision, and a I{watch} tells what has
changed after one.  A L{View} is given both, and says what that means.

Three rules keep hosts from appearing and disappearing for no reason, and ghosts out:

 - A host is known only together with its server.  Of a server that has no record,
   hosts are put aside, and come with it.
 - A server whose record is gone, though it has not said that it leaves, may be well:
   its lease has lapsed because it, or the store, was paused, or the store has been
   emptied.  As long as it is I{reached} (there is a link to it that works), it is kept,
   with its hosts.  When it is missing in a snapshot that is a fresh beginning, it is
   kept for a while even so, as links may not be up yet either.
 - A server publishes its own record after those of all its hosts.  So when it comes
   back, what of its hosts has not come before is gone.
"""

from __future__ import annotations

__all__ = ["MAX_HOSTS", "MAX_SERVERS", "Change", "Notice", "View"]

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple, TypeVar

from reverseproxy.fleet.keys import Name
from reverseproxy.fleet.record_reader import Key, Record, RecordReader, StoreContents, kept
from reverseproxy.fleet.records import HostKey, HostRecord, RouteKey, RouteRecord, ServerRecord

MAX_SERVERS: Final = 1000
"""Servers that are known at the most."""

MAX_HOSTS: Final = 2_000_000
"""Hosts that are known at the most."""

HOLD: Final = 10.0
"""Seconds for which servers are kept that a store does not have any more, until links can tell."""

PART: Final = 100
"""Hosts of a snapshot, or changes of one revision, that are taken in at a time."""

T = TypeVar("T")


class Change(NamedTuple):
    """
    What has become of a key.

    @ivar path: the key without the fleet's prefix.
    @ivar value: its record; L{None} if it is gone.
    @ivar revision: when.
    """

    path: str
    value: bytes | None
    revision: int


class Notice(NamedTuple):
    """
    What a change means.

    @ivar method: which of L{reverseproxy.fleet.interfaces.IDirectoryListener}'s.
    @ivar arguments: what it is called with.
    """

    method: str
    arguments: tuple[object, ...]


@dataclass(slots=True)
class _Server:
    """
    A server that is known.

    @ivar stored: whether the store has its record.
    @ivar until: if not, for how long it is kept whether it is reached or not.
    """

    record: ServerRecord
    stored: bool = True
    until: float = 0.0


@dataclass(slots=True)
class _Host:
    """
    A host, or an agent's routes, that is known, or would be with its server.

    @ivar stored: whether the store has its record.
    """

    record: HostRecord | RouteRecord
    stored: bool = True


class View:
    """
    The servers and hosts that are known.

    @ivar revision: the last one of the store that is known; 0 before the first snapshot.
    @ivar servers: the other servers' records, by id.
    @ivar hosts: records of the hosts of these.
    @ivar routes: the routes that agents have brought to these.
    @ivar on_own_route: called with a record of this server's that is in the store now, and with one
        of another server's that was there before and conflicts with it, if there is one.
    @ivar own: what the store has of this server's, by path, and what of it is kept (L{kept}); for whoever
        publishes it.
    """

    on_own_route: Callable[[RouteRecord, RouteRecord | None], object] = staticmethod(lambda own, other: None)

    def __init__(
        self,
        own: str,
        reached: Callable[[str], bool] = lambda server: False,
        hold: float = HOLD,
        bad: Callable[[str, str], object] = lambda path, problem: None,
    ) -> None:
        """
        @param own: this server's id.
        @param reached: whether there is a link to a server that works.
        @param hold: see L{HOLD}.
        @param bad: called with a path, and what is wrong with it or its record.
        """
        self.revision = 0
        self.reached = reached
        self.servers: dict[str, ServerRecord] = {}
        self.hosts: dict[HostKey, HostRecord] = {}
        self.routes: dict[RouteKey, RouteRecord] = {}
        self.own: dict[str, bytes] = {}
        self._reader = RecordReader(own, bad)
        self._hold = hold
        self._servers: dict[str, _Server] = {}
        self._hosts: dict[str, dict[Key, _Host]] = {}
        self._count = 0
        self._notices: list[Notice] = []

    # what comes

    def everything(self) -> StoreContents:
        """What L{snapshot} is to be given, to be filled."""
        return StoreContents(self._reader)

    def snapshot(self, everything: StoreContents, revision: int, now: float) -> Iterator[list[Notice]]:
        """
        Take in all that the store has, a part of it at a time; nothing else comes in between.

        @param revision: when it had that; may be lower than before, if it is another store.
        @param now: the time, in seconds.
        @return: what each part means, in order.
        """
        self.revision = revision
        self.own = everything.own
        servers = {each.id for each in everything.servers}
        for name, server in self._servers.items():
            if name not in servers and server.stored:
                server.stored = False
                server.until = now if server.record.draining else now + self._hold
        for name, known in list(self._hosts.items()):
            for key, host in list(known.items()):
                if key in everything.keys:
                    host.stored = True  # or it would be gone for a moment when its server comes back
                else:
                    self._unstored(key, keep=name not in servers)
            yield self._told()
        # Servers first: then each of their hosts comes by itself, and none has to be put aside.
        for record in everything.servers:
            self._put(record)
        for start in range(0, len(everything.others), PART):
            for each in everything.others[start : start + PART]:
                self._put(each)
            yield self._told()
        for path, value in list(self.own.items()):
            self._look_at_route(path, value)
        self._expire(now)
        yield self._told()

    def changed(self, changes: Iterable[Change], now: float) -> Iterator[list[Notice]]:
        """
        Take in what a watch says, a part of it at a time; no other changes come in between.

        What is known already is left alone.  A revision of which not all has been taken in is not
        known: it may come once more, from its beginning.

        @param changes: in the order of their revisions; all that there are of a revision.
        @param now: the time, in seconds.
        @return: what each part means, in order; there is one part only of up to L{PART} changes.
        """
        self._reader.begin()
        known = self.revision
        for revision, group in groupby(changes, attrgetter("revision")):
            if revision > known:
                yield from self._take(list(group))
                self.revision = max(self.revision, revision)
        self._expire(now)
        yield self._told()

    def _take(self, changes: list[Change]) -> Iterator[list[Notice]]:
        """Take in all changes of one revision; what the last part means is still to be told."""
        gone: list[Name] = []
        records: list[Record] = []
        yield from self._in_parts(changes, lambda change: self._read(change, gone, records))
        lapsed = {name for name in gone if isinstance(name, str) and self._lapses(name)}
        kept = lapsed.union(self.held)
        hosts = [name for name in gone if not isinstance(name, str)]
        yield from self._in_parts(hosts, lambda name: self._unstored(name, keep=name.server in kept))
        for name in gone:
            if isinstance(name, str):
                self._server_gone(name, name in lapsed)
        # Those of this server come first: of two that conflict, the one wins that was first in the store.
        for change in changes:
            self._look_at_route(change.path, change.value)
        # A server's record is the last one of what it publishes anew, in the same step as well.
        records.sort(key=lambda record: isinstance(record, ServerRecord))
        yield from self._in_parts(records, self._put)

    def _in_parts(self, items: list[T], step: Callable[[T], object]) -> Iterator[list[Notice]]:
        """Take a step for each; what the first ones mean can be told before there are more."""
        for number, item in enumerate(items):
            if number and number % PART == 0:
                yield self._told()
            step(item)

    def _read(self, change: Change, gone: list[Name], records: list[Record]) -> None:
        """Find out what has become of a key."""
        name = self._reader.name(change.path)
        if name is None:
            return
        if self._reader.is_own(name):
            self._note_own(change.path, name, change.value)
            return
        record = None if change.value is None else self._reader.decode(change.path, name, change.value)
        if record is None:
            # A bad record is none: what the key had before is gone.
            gone.append(name)
        else:
            records.append(record)

    def _lapses(self, name: str) -> bool:
        """Whether a server whose record is gone is kept, as it is reached and has not said that it leaves."""
        server = self._servers.get(name)
        return server is not None and not server.record.draining and self.reached(name)

    def _server_gone(self, name: str, keep: bool) -> None:
        server = self._servers.get(name)
        if server is None or not server.stored:
            return
        server.stored = False
        server.until = 0.0
        if not keep:
            self._leave(name, "it has left" if server.record.draining else "its lease has ended")

    # when nothing comes

    def expire(self, now: float) -> list[Notice]:
        """
        Let go of servers that have been kept for long enough, and are not reached.

        @param now: the time, in seconds.
        @return: what that means, in order.
        """
        self._expire(now)
        return self._told()

    @property
    def deadline(self) -> float | None:
        """When to call L{expire}; L{None} if nothing waits for that."""
        waits = [each.until for each in self._servers.values() if not each.stored and each.until]
        return min(waits, default=None)

    def _expire(self, now: float) -> None:
        for name, server in list(self._servers.items()):
            if not server.stored and server.until <= now:
                server.until = 0.0
                if not self.reached(name):
                    self._leave(name, "the directory has it no more, and it can't be reached")

    def lost(self, name: str, now: float) -> list[Notice]:
        """
        The link to a server is down: let go of it, if it has been kept for that alone.

        @return: what that means, in order.
        """
        server = self._servers.get(name)
        if server is not None and not server.stored and server.until <= now:
            self._leave(name, "the directory has it no more, and the link to it is down")
        return self._told()

    @property
    def held(self) -> list[str]:
        """The servers that are kept although the store does not have them."""
        return [name for name, server in self._servers.items() if not server.stored]

    # one record

    def _note_own(self, path: str, name: Name, value: bytes | None) -> None:
        if value is None:
            self.own.pop(path, None)
        else:
            self.own[path] = kept(name, value)

    def _look_at_route(self, path: str, value: bytes | None) -> None:
        """Tell of routes of this server that are in the store now."""
        name = self._reader.name(path) if value is not None and path.startswith("routes/") else None
        if value is None or not isinstance(name, RouteKey) or not self._reader.is_own(name):
            return
        record = self._reader.decode(path, name, value)
        if isinstance(record, RouteRecord):
            other = next((each for each in self.routes.values() if each.conflicts(record)), None)
            self.on_own_route(record, other)

    def _put(self, record: Record) -> None:
        if isinstance(record, ServerRecord):
            self._put_server(record)
        else:
            self._put_host(record)

    def _put_server(self, record: ServerRecord) -> None:
        known = self._servers.get(record.id)
        if known is None:
            if len(self._servers) >= MAX_SERVERS:
                self._reader.complain(f"servers/{record.id}", f"there are {MAX_SERVERS} servers already")
                return
            self._servers[record.id] = _Server(record)
            self.servers[record.id] = record
            self._notice("server_came", record)
            for host in self._hosts.get(record.id, {}).values():
                self._came(host.record)
            return
        old, back = known.record, not known.stored
        known.record, known.stored, known.until = record, True, 0.0
        if back or record.incarnation != old.incarnation:
            hosts = self._hosts.get(record.id, {})
            for key in [key for key, host in hosts.items() if not host.stored]:
                self._forget(key, "its server has come back without it")
        if record != old:
            self.servers[record.id] = record
            self._notice("server_changed", record, old)

    def _put_host(self, record: HostRecord | RouteRecord) -> None:
        key = record.key
        hosts = self._hosts.setdefault(key.server, {})
        known = hosts.get(key)
        if known is None:
            if self._count >= MAX_HOSTS:
                self._reader.complain(f"hosts/.../{key.server}", f"there are {MAX_HOSTS} hosts already")
                if not hosts:
                    del self._hosts[key.server]
                return
            self._count += 1
            hosts[key] = _Host(record)
            if key.server in self._servers:
                self._came(record)
            return
        old = known.record
        known.record, known.stored = record, True
        if record != old and key.server in self._servers:
            self._known(record)
            self._notice(f"{_kind(record)}_changed", record, old)

    def _unstored(self, key: Key, keep: bool) -> None:
        """A host's record is gone."""
        host = self._hosts.get(key.server, {}).get(key)
        if host is None:
            return
        if keep and key.server in self._servers:
            host.stored = False
        else:
            self._forget(key, "its server has it no more")

    def _forget(self, key: Key, reason: str) -> None:
        hosts = self._hosts[key.server]
        del hosts[key]
        if not hosts:
            del self._hosts[key.server]
        self._count -= 1
        self._unknown(key, reason)

    def _came(self, record: HostRecord | RouteRecord) -> None:
        self._known(record)
        self._notice(f"{_kind(record)}_came", record)

    def _known(self, record: HostRecord | RouteRecord) -> None:
        if isinstance(record, HostRecord):
            self.hosts[record.key] = record
        else:
            self.routes[record.key] = record

    def _unknown(self, key: Key, reason: str) -> None:
        record = self.hosts.pop(key, None) if isinstance(key, HostKey) else self.routes.pop(key, None)
        if record is not None:
            self._notice(f"{_kind(record)}_left", record, reason)

    def _leave(self, name: str, reason: str) -> None:
        """A server is gone; of its hosts, those that the store has are put aside."""
        for key, host in list(self._hosts.get(name, {}).items()):
            if not host.stored:
                self._forget(key, reason)
            else:
                self._unknown(key, reason)
        del self._servers[name]
        self._notice("server_left", self.servers.pop(name), reason)

    # what it means

    def _notice(self, method: str, *arguments: object) -> None:
        self._notices.append(Notice(method, arguments))

    def _told(self) -> list[Notice]:
        notices, self._notices = self._notices, []
        return notices

    def replay(self) -> Iterator[Notice]:
        """What has to be told to somebody who knows nothing."""
        for server in self.servers.values():
            yield Notice("server_came", (server,))
        for host in self.hosts.values():
            yield Notice("host_came", (host,))
        for route in self.routes.values():
            yield Notice("route_came", (route,))


def _kind(record: HostRecord | RouteRecord) -> str:
    return "host" if isinstance(record, HostRecord) else "route"
