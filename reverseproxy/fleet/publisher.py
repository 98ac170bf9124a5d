"""
Keeps in the store what a server publishes.

There is one lease for all of it, so that all of it goes when the server is gone.  What
changes is gathered for a moment and written at once, one request at a time: that
is slower when the store is, and no faster when a thousand agents come at once.
"""

from __future__ import annotations

__all__ = ["Publisher"]

from collections.abc import Callable
from random import Random
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.fleet.etcd import Etcd
from reverseproxy.fleet.etcd_json import NOT_FOUND, EtcdError
from reverseproxy.fleet.outbox import Outbox
from reverseproxy.fleet.retry_loop import RetryLoop
from reverseproxy.tunnel.agent.backoff import Backoff

log = Logger()

GATHER: Final = 0.05
"""Seconds for which changes are gathered before they are written."""

SPREAD: Final = 1.0
"""Within how many seconds servers that have lost their leases at the same moment begin to publish anew."""

LEFTOVERS: Final = 3.0
"""Seconds after which what the store has of this server, and this process has not published, is deleted."""

LONGEST: Final = 3.0
"""The longest wait, in seconds, before a store is tried again that can't be reached."""

LEAVE: Final = 3.0
"""Seconds that it may take to let go of a lease when the server stops."""


class Publisher:
    """
    Keeps a lease, and what goes with it.

    @ivar lease: its number; 0 if there is none at present.
    @ivar leases: how many there have been.
    @ivar puts: keys that have been written; C{deletes}: that have been deleted.
    @ivar silent: whether another process is this server now, so that this one publishes nothing.
    @ivar on_lost: called when the store does not know the lease any more: so it may be another store.
    @ivar on_written: called with the revision in which something has been written.
    @ivar on_trouble: called with a reason when the store can't be reached, and with an empty one when
        it can.
    """

    on_lost: Callable[[], object] = staticmethod(lambda: None)
    on_written: Callable[[int], object] = staticmethod(lambda revision: None)
    on_trouble: Callable[[str], object] = staticmethod(lambda reason: None)

    def __init__(
        self,
        reactor: Any,
        etcd: Etcd,
        prefix: str,
        ttl: int,
        outbox: Outbox,
        renew: Callable[[], object],
        random: Random,
    ) -> None:
        """
        @param renew: called when everything is about to be published anew, to say so in the
            server's own record.
        """
        self.etcd = etcd
        self.lease = 0
        self.leases = self.puts = self.deletes = 0
        self.silent = False
        self.outbox = outbox
        self._reactor = reactor
        self._prefix = prefix
        self._ttl = ttl
        self._renew = renew
        self._random = random
        self._kept = 0.0
        self._began = 0.0
        backoff = Backoff(0.2, LONGEST, random)
        self._routine = RetryLoop(
            reactor, backoff, self._work, self._failed, "fleet: nothing is published any more"
        )
        self._stored: Callable[[], Any] | None = None

    # from outside

    def start(self, stored: Callable[[], Any]) -> None:
        """
        Begin.

        @param stored: says which keys of this server the store has.
        """
        self._stored = stored
        self._routine.start()

    def wake(self) -> None:
        """There is something to be written."""
        self._routine.wake()

    def silence(self, silent: bool) -> None:
        """Publish nothing, or again."""
        if self.silent is not silent:
            self.silent = silent
            self.wake()

    def tidy_later(self) -> None:
        """The store has something of this server's that this process has not published: delete it soon."""
        if not self._began and not self.silent:
            self._began = self._reactor.seconds()
            self.wake()

    def change_ttl(self, ttl: int) -> None:
        """Get another lease, with another time to live; the old one ends with nothing to go with it."""
        self._ttl = ttl
        self.lease = 0
        self.wake()

    async def stop(self, stays: bool = False) -> None:
        """
        End, and let go of the lease, and so of everything that goes with it.

        @param stays: leave the lease to end by itself, as another process has all of it, or will have.
        """
        self._routine.stop()
        lease, self.lease = self.lease, 0
        if lease and not stays:
            leaving = Deferred.fromCoroutine(self._leave(lease)).addTimeout(LEAVE, self._reactor)
            try:
                await leaving
            except Exception as error:
                log.warn(
                    "fleet: what this server has published could not be taken away, and goes by itself "
                    "within {ttl} s: {reason}",
                    ttl=self._ttl,
                    reason=str(error) or type(error).__name__,
                )

    async def _leave(self, lease: int) -> None:
        if not self.silent:
            # That it leaves is said first: a lease that ends may have lapsed.
            await self.etcd.change(self._named(self.outbox.farewell()), (), lease)
        await self.etcd.revoke(lease)

    # running

    async def _failed(self, error: Exception) -> None:
        if not isinstance(error, EtcdError):
            log.failure("fleet: a mistake in what publishes this server's hosts", failure=Failure(error))
            await self._routine.wait(LONGEST, wakes=False)
        elif error.code == NOT_FOUND and self.lease:
            await self._lost()
        else:
            self.on_trouble(str(error))
            await self._routine.pause(lasting=True)

    async def _work(self) -> None:
        """Do the one thing that is due, or wait for one."""
        now = self._reactor.seconds()
        due = self._kept + self._ttl / 3
        if self.silent:
            self._began = 0.0  # it is the other process's
            lease, self.lease = self.lease, 0
            if lease:
                await self.etcd.revoke(lease)
            await self._routine.wait(self._ttl)
        elif not self.lease:
            await self._begin()
        elif now >= due:
            await self._keep(now)
        elif len(self.outbox):
            await self._write()
        else:
            self._note_well()
            if self._began:
                due = min(due, self._began + LEFTOVERS)
            await self._routine.wait(max(due - now, 0.0))
            if len(self.outbox):
                await self._routine.wait(GATHER, wakes=False)
        if self._began and self._reactor.seconds() - self._began >= LEFTOVERS:
            self._began = 0.0
            self._tidy()

    async def _begin(self) -> None:
        """Get a lease; everything goes with it from now on."""
        now = self._reactor.seconds()
        lease = await self.etcd.grant(self._ttl)
        self.lease = lease
        self.leases += 1
        self._kept = self._began = now
        self._renew()
        self.outbox.anew()

    async def _keep(self, now: float) -> None:
        if not await self.etcd.keep(self.lease):
            await self._lost()
            return
        self._kept = now
        self._note_well()

    async def _lost(self) -> None:
        """The lease is no more: the server was paused, or the store was, or it is another one."""
        log.warn(
            "fleet: etcd does not know this server's lease any more; everything is published again",
        )
        self.lease = 0
        self.on_lost()
        # All servers may have lost theirs.
        await self._routine.wait(self._random.uniform(0.0, SPREAD), wakes=False)

    async def _write(self) -> None:
        batch = self.outbox.take()
        try:
            _, revision = await self.etcd.change(
                self._named(batch.puts), self._paths(batch.deletes), self.lease
            )
        except BaseException:
            self.outbox.failed(batch)
            raise
        self.outbox.done(batch, revision)
        self.puts += len(batch.puts)
        self.deletes += len(batch.deletes)
        self._note_well()
        self.on_written(revision)

    def _tidy(self) -> None:
        if self._stored is not None:
            count = self.outbox.leftovers(self._stored())
            if count:
                log.info(
                    "fleet: {count} records of this server are none of this process's, and are deleted",
                    count=count,
                )

    def _note_well(self) -> None:
        self._routine.backoff.reset()
        self.on_trouble("")

    def _named(self, puts: dict[str, bytes]) -> list[tuple[str, bytes]]:
        return [(self._prefix + path, value) for path, value in puts.items()]

    def _paths(self, paths: Any) -> list[str]:
        return [self._prefix + path for path in paths]
