"""
What a server wants the store to have of it, and what is still to be written; pure.

Keys are written in the order in which they were changed, each but once, however often
it has changed meanwhile.  When everything has to be written anew, the server's own
record comes after those of its hosts (L{reverseproxy.fleet.view} has the reason).
"""

from __future__ import annotations

__all__ = ["Batch", "Outbox"]

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

MOST: Final = 100
"""Keys that are written at once; etcd's default is 128 operations in a transaction."""

MOST_BYTES: Final = 512 * 1024
"""Bytes that are written at once; etcd takes 1.5 MiB."""


class Batch(NamedTuple):
    """
    What is to be written at once.

    @ivar puts: keys, and what they are to have.
    @ivar deletes: keys that are to go.
    """

    puts: dict[str, bytes]
    deletes: tuple[str, ...]


class Outbox:
    """
    What is to be written.

    @ivar wanted: what the store is to have.
    @ivar written: the revision in which each of these was written last, if that is known.
    """

    def __init__(self, own: str) -> None:
        """
        @param own: the key of the server's own record.
        """
        self.wanted: dict[str, bytes] = {}
        self.written: dict[str, int] = {}
        self._own = own
        self._dirty: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._dirty)

    def put(self, path: str, value: bytes) -> None:
        """The store is to have something."""
        if self.wanted.get(path) != value:
            self.wanted[path] = value
            self._dirty.setdefault(path)

    def drop(self, path: str) -> None:
        """The store is to have something no more."""
        if self.wanted.pop(path, None) is not None:
            self._dirty.setdefault(path)

    def anew(self) -> None:
        """The store has nothing of it: everything is to be written, and nothing deleted."""
        self.written.clear()
        self._dirty = dict.fromkeys(self.wanted)
        self._own_last()

    def missing(self, paths: Iterable[str], revision: int) -> bool:
        """
        The store has lost some keys.

        @param revision: when; what has been written after that is there.
        @return: whether there is something to be written because of that.
        """
        lost = [
            path
            for path in paths
            if path in self.wanted and path not in self._dirty and self.written.get(path, 0) < revision
        ]
        for path in lost:
            self._dirty[path] = None
        if lost:
            self._own_last()
        return bool(lost)

    def compare(self, stored: Mapping[str, bytes], revision: int) -> bool:
        """
        Make up for what the store does not have.

        @param stored: what it has.
        @param revision: when it had that.
        @return: as for L{missing}.
        """
        return self.missing([path for path in self.wanted if path not in stored], revision + 1)

    def leftovers(self, stored: Iterable[str]) -> int:
        """
        Let go of what another process of the same name has left behind.

        @param stored: keys that the store has.
        @return: how many.
        """
        found = [path for path in stored if path not in self.wanted and path not in self._dirty]
        self._dirty.update(dict.fromkeys(found))
        return len(found)

    def _own_last(self) -> None:
        if self._own in self.wanted:
            self._dirty.pop(self._own, None)
            self._dirty[self._own] = None

    def farewell(self) -> dict[str, bytes]:
        """The server's own record, to be written before all of it goes."""
        return {self._own: self.wanted[self._own]} if self._own in self.wanted else {}

    # writing

    def take(self) -> Batch:
        """Take out what is to be written next; to be given back with L{done} or L{failed}."""
        puts: dict[str, bytes] = {}
        deletes: list[str] = []
        size = 0
        for path in self._dirty:
            value = self.wanted.get(path)
            size += len(path) + len(value or b"")
            if len(puts) + len(deletes) >= MOST or (size > MOST_BYTES and puts):
                break
            if value is None:
                deletes.append(path)
            else:
                puts[path] = value
        for path in (*puts, *deletes):
            del self._dirty[path]
        return Batch(puts, tuple(deletes))

    def done(self, batch: Batch, revision: int) -> None:
        """It has been written."""
        for path in batch.puts:
            if path in self.wanted:
                self.written[path] = revision
        for path in batch.deletes:
            self.written.pop(path, None)

    def failed(self, batch: Batch) -> None:
        """It may not have been written: it comes first the next time."""
        self._dirty = {**dict.fromkeys((*batch.puts, *batch.deletes)), **self._dirty}
