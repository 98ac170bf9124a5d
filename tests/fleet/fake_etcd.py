"""An etcd in memory: leases, transactions, compaction and watches, as far as a fleet uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from reverseproxy.fleet.etcd_json import NOT_FOUND, EtcdError, KeyValue, WatchMessage


class Watching:
    """A watch."""

    def __init__(self, prefix: str, start: int, told: Callable[[WatchMessage], object]) -> None:
        self.prefix = prefix
        self.next = start
        self.told = told
        self.began = True
        self.endpoint = "127.0.0.1:2379"
        self.ended: Deferred[None] = Deferred()

    def stop(self) -> None:
        """Watch no longer."""
        self.ended.cancel()


class Store:
    """What all clients of one etcd share."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.revision = 1
        self.compacted = 0
        self.keys: dict[str, KeyValue] = {}
        self.history: list[KeyValue] = []
        self.leases: dict[int, tuple[int, float]] = {}
        self.granted = 0
        self.watches: list[Watching] = []
        self.down = False
        self.muted = False
        self.back = 0
        """From how many revisions before each watch tells of changes once more."""
        self.pieces = 1
        """In how many pieces at the most."""
        self.log: list[tuple[list[str], list[str]]] = []
        """What has been put and deleted, for each transaction."""

    def commit(self, puts: dict[str, bytes], deletes: Iterable[str] = (), lease: int = 0) -> int:
        """Change keys in one revision."""
        deletes = [key for key in deletes if key in self.keys]
        if puts or deletes:
            self.revision += 1
            changed = [KeyValue(k, v, self.revision, self.revision, lease) for k, v in puts.items()]
            changed += [KeyValue(key, None, self.revision) for key in deletes]
            self.history += changed
            self.keys.update((each.key, each) for each in changed if each.value is not None)
            for key in deletes:
                del self.keys[key]
            self.pump()
        return self.revision

    def pump(self) -> None:
        """Tell watches."""
        if self.muted:
            return
        for watch in list(self.watches):
            new = [e for e in self.history if e.revision >= watch.next and e.key.startswith(watch.prefix)]
            start = watch.next - self.back
            found = [e for e in self.history if e.revision >= start and e.key.startswith(watch.prefix)]
            watch.next = self.revision + 1
            if not new:
                continue
            size = -(-len(found) // self.pieces)
            try:
                for first in range(0, len(found), size):
                    part = tuple(found[first : first + size])
                    watch.told(WatchMessage(self.revision, part, fragment=first + size < len(found)))
            except EtcdError as error:
                self.end(watch, error)

    def progress(self) -> None:
        """Tell watches that there is nothing but what they have been told."""
        for watch in list(self.watches):
            if not self.muted and watch.next > self.revision:
                watch.told(WatchMessage(self.revision))

    def end(self, watch: Watching, error: Exception | None = None) -> None:
        """End a watch."""
        if watch in self.watches:
            self.watches.remove(watch)
            if not watch.ended.called:
                watch.ended.errback(error or EtcdError("the watch is over"))

    def lapse(self, lease: int) -> None:
        """End a lease, with all that goes with it."""
        self.leases.pop(lease, None)
        self.commit({}, sorted(key for key, found in self.keys.items() if found.lease == lease))

    def tick(self, seconds: float) -> None:
        """Let time pass, and leases end."""
        self.clock.advance(seconds)
        for lease, (_, until) in list(self.leases.items()):
            if until <= self.clock.seconds() and not self.down:
                self.lapse(lease)

    def go_down(self) -> None:
        """Answer nobody."""
        self.down = True
        for watch in list(self.watches):
            self.end(watch)

    def come_back(self) -> None:
        """Answer again; leases go on for as long as they did."""
        self.down = False
        now = self.clock.seconds()
        self.leases = {lease: (ttl, now + ttl) for lease, (ttl, _) in self.leases.items()}

    def wipe(self, revision: int = 1) -> None:
        """
        Be another one.

        @param revision: how many changes it has had.
        """
        self.keys.clear()
        self.history.clear()
        self.leases.clear()
        self.compacted = 0
        self.revision = revision
        for watch in list(self.watches):
            self.end(watch)

    def compact(self) -> None:
        """Forget what has been."""
        self.compacted = self.revision
        self.history = [each for each in self.history if each.revision >= self.revision]


class FakeEtcd:
    """A client, as L{reverseproxy.fleet.etcd.Etcd} is one."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.requests = self.failures = 0
        self.closed = False
        self.reachable = True
        self.unheard = 0
        """Of how many changes the answers are lost."""
        self.endpoint = "127.0.0.1:2379"
        self.on_left: Callable[[str], object] = lambda endpoint: None

    def _check(self) -> None:
        self.requests += 1
        if self.store.down or not self.reachable:
            self.failures += 1
            raise EtcdError("nothing listens there (connection refused)")

    def next_endpoint(self) -> None:
        """There is but one; whoever watches is told all the same."""
        self.on_left(self.endpoint)

    def close(self) -> Deferred[None]:
        """Nothing is open."""
        self.closed = True
        return Deferred.fromCoroutine(self._closed())

    async def _closed(self) -> None:
        """Nothing to wait for."""

    async def read(self, prefix: str, took: Callable[[list[KeyValue]], object]) -> int:
        """Read all."""
        self._check()
        found = [each for key, each in sorted(self.store.keys.items()) if key.startswith(prefix)]
        took(found[:1])
        took(found[1:])
        return self.store.revision

    async def range(self, prefix: str) -> tuple[list[KeyValue], int]:
        """Read all at once."""
        found: list[KeyValue] = []
        return found, await self.read(prefix, found.extend)

    async def get(self, key: str) -> KeyValue | None:
        """Read one."""
        self._check()
        return self.store.keys.get(key)

    async def revision(self, prefix: str) -> int:
        """Read the revision."""
        self._check()
        return self.store.revision

    async def change(
        self, puts: Any, deletes: Any = (), lease: int = 0, absent: Any = ()
    ) -> tuple[bool, int]:
        """Change keys."""
        self._check()
        if lease and lease not in self.store.leases:
            raise EtcdError("requested lease not found", NOT_FOUND)
        if any(key in self.store.keys for key in absent):
            return False, self.store.revision
        puts, deletes = dict(puts), list(deletes)
        self.store.log.append((list(puts), deletes))
        revision = self.store.commit(puts, deletes, lease)
        if self.unheard:
            self.unheard -= 1
            raise EtcdError("no answer within 3 s")
        return True, revision

    async def grant(self, ttl: int) -> int:
        """Get a lease."""
        self._check()
        self.store.granted += 1
        lease = 7000 + self.store.granted
        self.store.leases[lease] = ttl, self.store.clock.seconds() + ttl
        return lease

    async def keep(self, lease: int) -> float:
        """Keep a lease."""
        self._check()
        if lease not in self.store.leases:
            return 0.0
        ttl, _ = self.store.leases[lease]
        self.store.leases[lease] = ttl, self.store.clock.seconds() + ttl
        return float(ttl)

    async def revoke(self, lease: int) -> None:
        """End a lease."""
        self._check()
        self.store.lapse(lease)

    def watch(self, prefix: str, start: int, told: Callable[[WatchMessage], object]) -> Watching:
        """Watch."""
        store = self.store
        watching = Watching(prefix, start, told)
        try:
            self._check()
            told(WatchMessage(store.revision, created=True))
            if start < store.compacted:
                told(WatchMessage(store.revision, canceled="compacted", compacted=store.compacted))
        except EtcdError as error:
            watching.ended.errback(error)
            return watching
        store.watches.append(watching)
        watching.ended.addErrback(self._over, watching)
        store.pump()
        return watching

    def _over(self, reason: Any, watching: Watching) -> Any:
        if watching in self.store.watches:
            self.store.watches.remove(watching)
        return reason
