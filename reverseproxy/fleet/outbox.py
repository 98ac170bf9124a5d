"""
What a server wants the store to hold, and which of it is still to be written; pure.

Keys are written in the order in which they were changed, each once, however often it has changed in the
meantime. When everything has to be written again, the server's own record comes after those of its hosts
(L{reverseproxy.fleet.view} says why).
"""

from __future__ import annotations

__all__ = ["Batch", "Outbox"]

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

MOST: Final = 100
"""Keys in one batch; etcd's default limit is 128 operations in a transaction."""

MOST_BYTES: Final = 512 * 1024
"""Bytes in one batch; etcd's default limit is 1.5 MiB for a request."""


class Batch(NamedTuple):
    """
    Keys to be written in one transaction.

    @ivar puts: keys with their new values.
    @ivar deletes: keys to delete.
    """

    puts: dict[str, bytes]
    deletes: tuple[str, ...]


class Outbox:
    """
    The wanted state, and the keys whose state in the store differs from it.

    @ivar wanted: what the store is to hold, by path.
    @ivar written: the revision in which each path was written last, if that is known.
    """

    def __init__(self, own: str) -> None:
        """@param own: the path of the server's own record."""
        self.wanted: dict[str, bytes] = {}
        self.written: dict[str, int] = {}
        self._own = own
        self._dirty: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._dirty)

    def put(self, path: str, value: bytes) -> None:
        """Want a value at a path."""
        if self.wanted.get(path) != value:
            self.wanted[path] = value
            self._dirty.setdefault(path)

    def drop(self, path: str) -> None:
        """Want nothing at a path."""
        if self.wanted.pop(path, None) is not None:
            self._dirty.setdefault(path)

    def anew(self) -> None:
        """Write everything again, and delete nothing: the store has lost all of it."""
        self.written.clear()
        self._dirty = dict.fromkeys(self.wanted)
        self._own_last()

    def missing(self, paths: Iterable[str], revision: int) -> bool:
        """
        Write paths again that the store has lost.

        @param revision: of the loss; what was written later is there.
        @return: whether any of them has to be written.
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
        Write again what the store lacks.

        @param stored: what it holds, by path.
        @param revision: as of which.
        @return: as for L{missing}.
        """
        return self.missing([path for path in self.wanted if path not in stored], revision + 1)

    def delete_stale(self, stored: Iterable[str]) -> int:
        """
        Delete records of a former process with the same id from the store.

        @param stored: the paths of this server that the store holds.
        @return: how many are deleted.
        """
        found = [path for path in stored if path not in self.wanted and path not in self._dirty]
        self._dirty.update(dict.fromkeys(found))
        return len(found)

    def _own_last(self) -> None:
        if self._own in self.wanted:
            self._dirty.pop(self._own, None)
            self._dirty[self._own] = None

    def final_records(self) -> dict[str, bytes]:
        """Return what is written before the lease is revoked: the server's own record, by its path."""
        return {self._own: self.wanted[self._own]} if self._own in self.wanted else {}

    # writing

    def take(self) -> Batch:
        """Take the next batch out; call L{done} or L{failed} with it afterwards."""
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
        """Note that a batch has been written."""
        for path in batch.puts:
            if path in self.wanted:
                self.written[path] = revision
        for path in batch.deletes:
            self.written.pop(path, None)

    def failed(self, batch: Batch) -> None:
        """Put a batch back to the front: it may not have been written."""
        self._dirty = {**dict.fromkeys((*batch.puts, *batch.deletes)), **self._dirty}
