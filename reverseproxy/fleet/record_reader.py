"""
Decodes what the store holds; pure.

A bad record is reported and ignored, whatever else stands beside it.
"""

from __future__ import annotations

__all__ = ["MAX_BAD", "StoreContents", "Key", "RecordReader", "Record", "kept"]

from collections.abc import Callable, Iterable
from typing import Final

from reverseproxy.fleet.keys import Name, read_path
from reverseproxy.fleet.record_fields import MAX_RECORD, BadRecord
from reverseproxy.fleet.records import HostKey, HostRecord, RouteKey, RouteRecord, ServerRecord

MAX_BAD: Final = 100
"""Bad records that are reported of one page of a snapshot, or of one message of a watch."""

Key = HostKey | RouteKey
Record = ServerRecord | HostRecord | RouteRecord


class RecordReader:
    """Decodes keys and records, and reports those that are bad."""

    def __init__(self, own: str, bad: Callable[[str, str], object]) -> None:
        """
        @param own: this server's id.
        @param bad: called with the path of a bad key or record, and what is wrong with it.
        """
        self._own = own
        self._bad = bad
        self._told = 0

    def begin(self) -> None:
        """Begin a new page or message, with a fresh limit for reports."""
        self._told = 0

    def is_own(self, name: Name) -> bool:
        """Return whether a key belongs to this server."""
        return (name if isinstance(name, str) else name.server) == self._own

    def name(self, path: str) -> Name | None:
        """Parse a path; return L{None} if its kind is unknown, or it is malformed."""
        try:
            return read_path(path)
        except ValueError as error:
            self.complain(path, str(error))
            return None

    def decode(self, path: str, name: Name, value: bytes) -> Record | None:
        """Decode a record; report it and return L{None} if it is bad."""
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
        """Report a bad record, up to L{MAX_BAD} of them."""
        if self._told < MAX_BAD:
            self._told += 1
            self._bad(path, problem)


def kept(name: Name, value: bytes) -> bytes:
    """
    Return what to keep of a record of this server's own: of a host, only that it exists.

    Other clients of the store can write values of any size under this server's keys.
    """
    return b"" if isinstance(name, HostKey) or len(value) > MAX_RECORD else value


class StoreContents:
    """
    All records of the store, collected page by page.

    @ivar servers: records of the other servers.
    @ivar others: records of their hosts and routes.
    @ivar keys: the keys of C{others}.
    @ivar own: what the store holds of this server, by path; see L{kept}.
    """

    def __init__(self, reader: RecordReader) -> None:
        self.servers: list[ServerRecord] = []
        self.others: list[HostRecord | RouteRecord] = []
        self.keys: set[Key] = set()
        self.own: dict[str, bytes] = {}
        self._reader = reader

    def add(self, entries: Iterable[tuple[str, bytes]]) -> None:
        """
        Add a page.

        @param entries: paths and encoded records.
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
