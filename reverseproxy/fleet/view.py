"""
What this server knows of the other ones, from a store that can be watched; pure.

The store is like etcd: its keys have a common revision, which grows with each change; a I{snapshot} is
all of them at one revision, and a I{watch} reports the changes after one. A L{View} takes both, and
returns what they mean for listeners.

Three rules keep hosts from flapping, and remove those that are gone:

 - A host is announced only together with its server. Hosts of a server without a record are kept aside,
   and are announced when it comes.
 - A server whose record disappears without an announcement may be well: its lease has expired because
   it, or the store, was paused, or the store has been emptied. As long as it is I{reached} (the link to
   it is up), it is kept with its hosts. If it is missing in a snapshot, it is kept for a while in any
   case, as the link may not be up yet.
 - A server writes its own record after those of all its hosts. So when it comes back, those of its hosts
   that have not come before are gone.
"""

from __future__ import annotations

__all__ = ["Change", "View"]

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple, TypeVar

from reverseproxy.fleet.keys import Name
from reverseproxy.fleet.record_reader import Record, RecordReader, StoreContents, kept
from reverseproxy.fleet.record_table import Notice, RecordTable
from reverseproxy.fleet.records import HostKey, HostRecord, RouteKey, RouteRecord, ServerRecord

HOLD: Final = 10.0
"""Seconds for which servers are kept that are missing in a snapshot, until links are up."""

PART: Final = 100
"""Hosts of a snapshot, or changes of one revision, in one slice."""

T = TypeVar("T")


class Change(NamedTuple):
    """
    A change of a key.

    @ivar path: the key without the fleet's prefix.
    @ivar value: the record; L{None} if it was deleted.
    @ivar revision: of the change.
    """

    path: str
    value: bytes | None
    revision: int


class View:
    """
    The servers, hosts and routes that are known.

    @ivar revision: the last known revision of the store; 0 before the first snapshot.
    @ivar reached: returns whether the link to a server is up.
    @ivar on_own_route: called with a record of this server that is in the store now, and with a
        conflicting record of another server that was there before, if there is one.
    @ivar own: what the store has of this server, by path, as far as it is kept (L{kept}).
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
        @param reached: returns whether the link to a server is up.
        @param hold: see L{HOLD}.
        @param bad: called with a path, and what is wrong with it or its record.
        """
        self.revision = 0
        self.reached = reached
        self.own: dict[str, bytes] = {}
        self._reader = RecordReader(own, bad)
        self._hold = hold
        self._table = RecordTable(self._reader.complain)

    @property
    def servers(self) -> dict[str, ServerRecord]:
        """The records of the other servers, by id."""
        return self._table.servers

    @property
    def hosts(self) -> dict[HostKey, HostRecord]:
        """The records of their hosts."""
        return self._table.hosts

    @property
    def routes(self) -> dict[RouteKey, RouteRecord]:
        """The records of their agents' routes."""
        return self._table.routes

    def replay(self) -> Iterator[Notice]:
        """Return notices of all records, for a new listener."""
        return self._table.replay()

    # snapshots and changes

    def everything(self) -> StoreContents:
        """Return an empty snapshot to be filled, and given to L{snapshot}."""
        return StoreContents(self._reader)

    def snapshot(self, everything: StoreContents, revision: int, now: float) -> Iterator[list[Notice]]:
        """
        Take a snapshot, slice by slice; no changes may be taken in between.

        @param revision: of the snapshot; may be lower than before, if it is another store.
        @param now: the time, in seconds.
        @return: the notices of each slice, in order.
        """
        self.revision = revision
        self.own = everything.own
        servers = {each.id for each in everything.servers}
        for name, server in self._table.known.items():
            if name not in servers and server.stored:
                server.stored = False
                server.until = now if server.record.draining else now + self._hold
        for _ in self._table.keep_only(everything.keys, servers):
            yield self._table.take_notices()
        # Servers come first, so that each of their hosts is announced at once.
        for record in everything.servers:
            self._table.put(record)
        for start in range(0, len(everything.others), PART):
            for each in everything.others[start : start + PART]:
                self._table.put(each)
            yield self._table.take_notices()
        for path, value in list(self.own.items()):
            self._look_at_route(path, value)
        self._expire(now)
        yield self._table.take_notices()

    def changed(self, changes: Iterable[Change], now: float) -> Iterator[list[Notice]]:
        """
        Take changes, slice by slice; no others may be taken in between.

        Changes of known revisions are ignored. A revision becomes known when all of its changes have
        been taken: if that is interrupted, it may come again from its beginning.

        @param changes: in the order of their revisions, all changes of each.
        @param now: the time, in seconds.
        @return: the notices of each slice, in order; a single slice if there are no more than L{PART}
            changes.
        """
        self._reader.begin()
        known = self.revision
        for revision, group in groupby(changes, attrgetter("revision")):
            if revision > known:
                yield from self._take(list(group))
                self.revision = max(self.revision, revision)
        self._expire(now)
        yield self._table.take_notices()

    def _take(self, changes: list[Change]) -> Iterator[list[Notice]]:
        """Take all changes of one revision; the notices of the last slice are left in the table."""
        gone: list[Name] = []
        records: list[Record] = []
        yield from self._in_parts(changes, lambda change: self._read(change, gone, records))
        lapsed = {name for name in gone if isinstance(name, str) and self._lapses(name)}
        kept = lapsed.union(self.held)
        hosts = [name for name in gone if not isinstance(name, str)]
        yield from self._in_parts(hosts, lambda name: self._table.unstore(name, keep=name.server in kept))
        for name in gone:
            if isinstance(name, str):
                self._server_gone(name, name in lapsed)
        # This server's routes come first: of two that conflict, the one that was first in the store
        # wins.
        for change in changes:
            self._look_at_route(change.path, change.value)
        # A server writes its own record last, in the same transaction as well.
        records.sort(key=lambda record: isinstance(record, ServerRecord))
        yield from self._in_parts(records, self._table.put)

    def _in_parts(self, items: list[T], step: Callable[[T], object]) -> Iterator[list[Notice]]:
        """Run a step for each item; return the notices of each slice but the last."""
        for number, item in enumerate(items):
            if number and number % PART == 0:
                yield self._table.take_notices()
            step(item)

    def _read(self, change: Change, gone: list[Name], records: list[Record]) -> None:
        """Decode a change."""
        name = self._reader.name(change.path)
        if name is None:
            return
        if self._reader.is_own(name):
            self._note_own(change.path, name, change.value)
            return
        record = None if change.value is None else self._reader.decode(change.path, name, change.value)
        if record is None:
            # A bad record counts as none: what the key had before is gone.
            gone.append(name)
        else:
            records.append(record)

    def _lapses(self, name: str) -> bool:
        """
        Return whether to keep a server whose record is gone: it is reached, and has not announced that
        it leaves.
        """
        server = self._table.known.get(name)
        return server is not None and not server.record.draining and self.reached(name)

    def _server_gone(self, name: str, keep: bool) -> None:
        server = self._table.known.get(name)
        if server is None or not server.stored:
            return
        server.stored = False
        server.until = 0.0
        if not keep:
            self._table.leave(name, "it has left" if server.record.draining else "its lease has ended")

    # expiry

    def expire(self, now: float) -> list[Notice]:
        """
        Remove servers that have been kept for long enough, and are not reached.

        @param now: the time, in seconds.
        @return: the notices, in order.
        """
        self._expire(now)
        return self._table.take_notices()

    @property
    def deadline(self) -> float | None:
        """When to call L{expire}, in seconds; L{None} if it need not be called."""
        waits = [each.until for each in self._table.known.values() if not each.stored and each.until]
        return min(waits, default=None)

    def _expire(self, now: float) -> None:
        for name, server in list(self._table.known.items()):
            if not server.stored and server.until <= now:
                server.until = 0.0
                if not self.reached(name):
                    self._table.leave(name, "the directory has it no more, and it can't be reached")

    def lost(self, name: str, now: float) -> list[Notice]:
        """
        Note that the link to a server is down: remove it, if only the link kept it.

        @return: the notices, in order.
        """
        server = self._table.known.get(name)
        if server is not None and not server.stored and server.until <= now:
            self._table.leave(name, "the directory has it no more, and the link to it is down")
        return self._table.take_notices()

    @property
    def held(self) -> list[str]:
        """The servers that are kept although the store does not have them."""
        return [name for name, server in self._table.known.items() if not server.stored]

    # own records

    def _note_own(self, path: str, name: Name, value: bytes | None) -> None:
        if value is None:
            self.own.pop(path, None)
        else:
            self.own[path] = kept(name, value)

    def _look_at_route(self, path: str, value: bytes | None) -> None:
        """Report routes of this server that are in the store now."""
        name = self._reader.name(path) if value is not None and path.startswith("routes/") else None
        if value is None or not isinstance(name, RouteKey) or not self._reader.is_own(name):
            return
        record = self._reader.decode(path, name, value)
        if isinstance(record, RouteRecord):
            other = next((each for each in self.routes.values() if each.conflicts(record)), None)
            self.on_own_route(record, other)
