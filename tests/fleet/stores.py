"""A directory of a fleet in memory, with the same contract as the one that a store keeps."""

from __future__ import annotations

__all__ = ["MemoryDirectory", "MemoryStore"]

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from reverseproxy.fleet.interfaces import IDirectory
from reverseproxy.fleet.records import HostKey, HostRecord, ServerRecord


class MemoryStore:
    """What all servers of a fleet have published."""

    def __init__(self) -> None:
        self.directories: list[MemoryDirectory] = []


@implementer(IDirectory)
class MemoryDirectory:
    """
    The directory of one server.

    @ivar cut: whether the store can't be reached: nothing is told, nor heard.
    """

    up = True

    def __init__(self, store: MemoryStore, who: Callable[[], ServerRecord], server_id: str) -> None:
        self.server_id = server_id
        self.servers: dict[str, ServerRecord] = {}
        self.hosts: dict[HostKey, HostRecord] = {}
        self.own: dict[HostKey, HostRecord] = {}
        self.me: ServerRecord | None = None
        self.reached: Callable[[str], bool] = lambda server: False
        self.lost_links: list[str] = []
        self.cut = False
        self._store = store
        self._who = who
        self._listeners: list[Any] = []

    def _others(self) -> list[MemoryDirectory]:
        return [each for each in self._store.directories if each is not self and not (each.cut or self.cut)]

    def listen(self, listener: Any) -> None:
        self._listeners.append(listener)
        for server in self.servers.values():
            listener.server_came(server)
        for host in self.hosts.values():
            listener.host_came(host)

    def unlisten(self, listener: Any) -> None:
        self._listeners.remove(listener)

    def hear_server(self, server: ServerRecord | None, name: str) -> None:
        old = self.servers.get(name)
        if server is None:
            if old is not None:
                for key in [key for key in self.hosts if key.server == name]:
                    self.hear_host(None, key)
                del self.servers[name]
                for each in self._listeners:
                    each.server_left(old, "it has left")
            return
        self.servers[name] = server
        for each in self._listeners:
            if old is None:
                each.server_came(server)
            elif old != server:
                each.server_changed(server, old)

    def hear_host(self, host: HostRecord | None, key: HostKey) -> None:
        old = self.hosts.get(key)
        if host is None:
            if old is not None:
                del self.hosts[key]
                for each in self._listeners:
                    each.host_left(old, "it has left")
            return
        self.hosts[key] = host
        for each in self._listeners:
            if old is None:
                each.host_came(host)
            elif old != host:
                each.host_changed(host, old)

    def publish(self, host: HostRecord) -> None:
        # As a store would have it.
        self.own[host.key] = host = HostRecord.decode(host.key, host.encode())
        if self.me is not None:
            for each in self._others():
                each.hear_host(host, host.key)

    def withdraw(self, key: HostKey) -> None:
        self.own.pop(key, None)
        for each in self._others():
            each.hear_host(None, key)

    def drain(self) -> None:
        if self.me is not None:
            self.me = ServerRecord(self.me.id, self.me.address, self.me.version, draining=True)
            for each in self._others():
                each.hear_server(self.me, self.me.id)

    def judge(self, reached: Callable[[str], bool]) -> None:
        self.reached = reached

    def lost(self, server: str) -> None:
        self.lost_links.append(server)

    def start(self) -> None:
        self.me = ServerRecord.decode(self.server_id, self._who().encode())
        self._store.directories.append(self)
        for each in self._others():
            self._tell_all(each)
            each._tell_all(self)

    def _tell_all(self, other: MemoryDirectory) -> None:
        if self.me is not None:
            other.hear_server(self.me, self.me.id)
            for host in list(self.own.values()):
                other.hear_host(host, host.key)

    def stop(self, stays: bool = False) -> Deferred[None]:
        if self in self._store.directories:
            for each in self._others():
                each.hear_server(None, self.server_id)
            self._store.directories.remove(self)
        return succeed(None)
