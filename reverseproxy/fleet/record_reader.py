"""
Records as a store has them, by their keys; pure.

What is none is complained of, and left alone: it costs itself.
"""

from __future__ import annotations

__all__ = ["MAX_BAD", "StoreContents", "Key", "RecordReader", "Record", "kept"]

from collections.abc import Callable, Iterable
from typing import Final

from reverseproxy.fleet.keys import Name, read_path
from reverseproxy.fleet.records import (
    MAX_RECORD,
    BadRecord,
    HostKey,
    HostRecord,
    RouteKey,
    RouteRecord,
    ServerRecord,
)

MAX_BAD: Final = 100
"""Bad records that are told of one snapshot, or of one message of a watch."""

Key = HostKey | RouteKey
Record = ServerRecord | HostRecord | RouteRecord


class RecordReader:
    """Reads keys and records."""

    def __init__(self, own: str, bad: Callable[[str, str], object]) -> None:
        """
        @param own: this server's id.
        @param bad: called with a path, and what is wrong with it or its record.
        """
        self._own = own
        self._bad = bad
        self._told = 0

    def begin(self) -> None:
        """Other bad records are told of from now on."""
        self._told = 0

    def is_own(self, name: Name) -> bool:
        """Whether a record is this server's."""
        return (name if isinstance(name, str) else name.server) == self._own

    def name(self, path: str) -> Name | None:
        """Say whose record a key has; L{None} if it is of a kind that is not known, or is none."""
        try:
            return read_path(path)
        except ValueError as error:
            self.complain(path, str(error))
            return None

    def decode(self, path: str, name: Name, value: bytes) -> Record | None:
        """Read a record; a bad one is told."""
        try:
            if isinstance(name, str):
                return ServerRecord.decode(name, value)
            if isinstance(name, RouteKey):
                return RouteRecord.decode(name, value)
            return HostRecord.decode(name, value)
        except BadRecord as error:
            self.complain(path, str(error))
            return None

    def complain(self, path: str, problem: str) -> None:
        """Tell of a bad record, unless there have been many."""
        if self._told < MAX_BAD:
            self._told += 1
            self._bad(path, problem)


def kept(name: Name, value: bytes) -> bytes:
    """
    Say what is kept of a record of this server's own: of a host, that it is there.

    Others can write what is called like ours, of any size.
    """
    return b"" if isinstance(name, HostKey) or len(value) > MAX_RECORD else value


class StoreContents:
    """
    All that a store has, read bit by bit.

    @ivar servers: records of the other servers; C{others}: of their hosts and routes.
    @ivar keys: those of the latter.
    @ivar own: what there is of this server, by path; see L{kept}.
    """

    def __init__(self, reader: RecordReader) -> None:
        self.servers: list[ServerRecord] = []
        self.others: list[HostRecord | RouteRecord] = []
        self.keys: set[Key] = set()
        self.own: dict[str, bytes] = {}
        self._reader = reader

    def add(self, entries: Iterable[tuple[str, bytes]]) -> None:
        """
        Take in some.

        @param entries: paths and records.
        """
        reader = self._reader
        reader.begin()
        for path, value in entries:
            name = reader.name(path)
            if name is None:
                continue
            if reader.is_own(name):
                self.own[path] = kept(name, value)
                continue
            record = reader.decode(path, name, value)
            if isinstance(record, ServerRecord):
                self.servers.append(record)
            elif record is not None:
                self.others.append(record)
                self.keys.add(record.key)
