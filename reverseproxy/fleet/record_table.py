"""The records of other servers, their hosts and routes that are known; and notices of changes; pure."""

from __future__ import annotations

__all__ = ["MAX_HOSTS", "MAX_SERVERS", "KnownServer", "Notice", "RecordTable"]

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from reverseproxy.fleet.record_reader import Key, Record
from reverseproxy.fleet.records import HostKey, HostRecord, RouteKey, RouteRecord, ServerRecord

MAX_SERVERS: Final = 1000
"""Other servers that are known, at most."""

MAX_HOSTS: Final = 2_000_000
"""Hosts and routes that are known, at most."""


class Notice(NamedTuple):
    """
    An event for listeners.

    @ivar method: the name of a method of L{reverseproxy.fleet.interfaces.IDirectoryListener}, or
        C{route_came}, C{route_changed} or C{route_left}.
    @ivar arguments: its arguments.
    """

    method: str
    arguments: tuple[object, ...]


@dataclass(slots=True)
class KnownServer:
    """
    A server that is known.

    @ivar stored: whether the store has its record.
    @ivar until: if not, the time until which it is kept even if it is not reached; 0.0 if that has
        passed.
    """

    record: ServerRecord
    stored: bool = True
    until: float = 0.0


@dataclass(slots=True)
class _Host:
    """
    A host, or an agent's routes; not known to others until its server is.

    @ivar stored: whether the store has its record.
    """

    record: HostRecord | RouteRecord
    stored: bool = True


class RecordTable:
    """
    Records, and whether the store still has them.

    @ivar servers: the records of known servers, by id.
    @ivar hosts: the records of the hosts of known servers.
    @ivar routes: the records of the routes of known servers.
    @ivar known: the servers, by id, with their state in the store.
    """

    def __init__(self, complain: Callable[[str, str], object]) -> None:
        """
        @param complain: called with a path and a problem, if a record exceeds a limit.
        """
        self.servers: dict[str, ServerRecord] = {}
        self.hosts: dict[HostKey, HostRecord] = {}
        self.routes: dict[RouteKey, RouteRecord] = {}
        self.known: dict[str, KnownServer] = {}
        self._complain = complain
        self._hosts: dict[str, dict[Key, _Host]] = {}
        self._count = 0
        self._notices: list[Notice] = []

    def put(self, record: Record) -> None:
        """Add or update a record that the store has."""
        if isinstance(record, ServerRecord):
            self._put_server(record)
        else:
            self._put_host(record)

    def _put_server(self, record: ServerRecord) -> None:
        known = self.known.get(record.id)
        if known is None:
            if len(self.known) >= MAX_SERVERS:
                self._complain(f"servers/{record.id}", f"there are {MAX_SERVERS} servers already")
                return
            self.known[record.id] = KnownServer(record)
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
                self._complain(f"hosts/.../{key.server}", f"there are {MAX_HOSTS} hosts already")
                if not hosts:
                    del self._hosts[key.server]
                return
            self._count += 1
            hosts[key] = _Host(record)
            if key.server in self.known:
                self._came(record)
            return
        old = known.record
        known.record, known.stored = record, True
        if record != old and key.server in self.known:
            self._known(record)
            self._notice(f"{_kind(record)}_changed", record, old)

    def unstore(self, key: Key, keep: bool) -> None:
        """
        Note that the store does not have a host or routes any more.

        @param keep: whether to keep it, if its server is known.
        """
        host = self._hosts.get(key.server, {}).get(key)
        if host is None:
            return
        if keep and key.server in self.known:
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

    def leave(self, name: str, reason: str) -> None:
        """Remove a server; its hosts that the store has stay in the table, until it comes back."""
        for key, host in list(self._hosts.get(name, {}).items()):
            if not host.stored:
                self._forget(key, reason)
            else:
                self._unknown(key, reason)
        del self.known[name]
        self._notice("server_left", self.servers.pop(name), reason)

    def _notice(self, method: str, *arguments: object) -> None:
        self._notices.append(Notice(method, arguments))

    def take_notices(self) -> list[Notice]:
        """Return the notices of all changes since the last call, in order."""
        notices, self._notices = self._notices, []
        return notices

    def replay(self) -> Iterator[Notice]:
        """Return notices of all records, for a new listener."""
        for server in self.servers.values():
            yield Notice("server_came", (server,))
        for host in self.hosts.values():
            yield Notice("host_came", (host,))
        for route in self.routes.values():
            yield Notice("route_came", (route,))

    def keep_only(self, keys: set[Key], servers: set[str]) -> Iterator[None]:
        """
        Note which hosts and routes the store has, one server's at a time.

        @param keys: those that it has.
        @param servers: the servers that it has; those of other servers are not removed.
        """
        for name, known in list(self._hosts.items()):
            for key, host in list(known.items()):
                if key in keys:
                    host.stored = True  # or it would be removed when its server comes back
                else:
                    self.unstore(key, keep=name not in servers)
            yield


def _kind(record: HostRecord | RouteRecord) -> str:
    return "host" if isinstance(record, HostRecord) else "route"
