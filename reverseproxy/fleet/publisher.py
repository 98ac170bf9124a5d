"""
Keeps in the store what a server publishes.

All records are attached to one lease, so that they disappear when the server does. Changes are collected
for a moment and written in batches, one request at a time: the slower the store is, the larger are the
batches.
"""

from __future__ import annotations

__all__ = ["Publisher"]

from collections.abc import Callable
from enum import Enum
from random import Random
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.fleet.etcd import Etcd
from reverseproxy.fleet.etcd_json import NOT_FOUND, EtcdError
from reverseproxy.fleet.lease import Lease
from reverseproxy.fleet.outbox import Outbox
from reverseproxy.fleet.retry_loop import RetryLoop
from reverseproxy.tunnel.agent.backoff import Backoff

log = Logger()

GATHER: Final = 0.05
"""Seconds for which changes are collected before they are written."""

SPREAD: Final = 1.0
"""
Seconds over which servers spread that have lost their leases at the same moment, before they publish
again.
"""

STALE_RECORDS_DELAY: Final = 3.0
"""Seconds after which records of this server are deleted that this process has not published."""

LONGEST: Final = 3.0
"""Seconds between two attempts to reach the store, at most."""

LEAVE: Final = 3.0
"""Seconds that revoking the lease may take when the server stops."""


class Duty(Enum):
    """
    What a publisher has to do, the most urgent first.

    @cvar YIELD: another process is the server now: revoke the lease, and wait.
    @cvar ACQUIRE: there is no lease: get one.
    @cvar RENEW: the lease has to be renewed.
    @cvar WRITE: changes have to be written.
    @cvar REST: nothing, until one of the others is due.
    """

    YIELD = "yield"
    ACQUIRE = "acquire"
    RENEW = "renew"
    WRITE = "write"
    REST = "rest"


class Publisher:
    """
    Keeps a lease, and the records that are attached to it.

    @ivar etcd: the client.
    @ivar lease: the lease.
    @ivar outbox: what is to be written.
    @ivar puts: records written.
    @ivar deletes: records deleted.
    @ivar silent: whether another process is the server now, so that this one publishes nothing.
    @ivar on_lost: called when the store does not know the lease any more: it may be another store.
    @ivar on_written: called with the revision of each write.
    @ivar on_trouble: called with a reason when the store can't be reached, and with an empty text when
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
        @param renew: called when everything is about to be published again, to update the server's own
            record.
        """
        self.etcd = etcd
        self.lease = Lease(ttl)
        self.puts = self.deletes = 0
        self.silent = False
        self.outbox = outbox
        self._reactor = reactor
        self._prefix = prefix
        self._renew = renew
        self._random = random
        self._tidy_at: float | None = None
        backoff = Backoff(0.2, LONGEST, random)
        self._loop = RetryLoop(
            reactor, backoff, self._work, self._failed, "fleet: nothing is published any more"
        )
        self._stored: Callable[[], Any] | None = None

    @property
    def leases(self) -> int:
        """How many leases there have been."""
        return self.lease.count

    # interface

    def start(self, stored: Callable[[], Any]) -> None:
        """
        Start publishing.

        @param stored: returns the paths of this server that the store has.
        """
        self._stored = stored
        self._loop.start()

    def wake(self) -> None:
        """Write what has changed."""
        self._loop.wake()

    def silence(self, silent: bool) -> None:
        """Stop publishing, or resume it."""
        if self.silent is not silent:
            self.silent = silent
            self.wake()

    def tidy_later(self) -> None:
        """Delete records soon that the store has of this server, and this process has not published."""
        if self._tidy_at is None and not self.silent:
            self._tidy_at = self._reactor.seconds() + STALE_RECORDS_DELAY
            self.wake()

    def change_ttl(self, ttl: int) -> None:
        """Get another lease with another time to live; the old one expires without records."""
        self.lease.ttl = ttl
        self.lease.drop()
        self.wake()

    async def stop(self, stays: bool = False) -> None:
        """
        Stop, and revoke the lease and with it all records.

        @param stays: leave the lease to expire by itself, as another process publishes the same, or
            will.
        """
        self._loop.stop()
        lease = self.lease.drop()
        if lease and not stays:
            leaving = Deferred.fromCoroutine(self._leave(lease)).addTimeout(LEAVE, self._reactor)
            try:
                await leaving
            except Exception as error:
                log.warn(
                    "fleet: what this server has published could not be taken away, and goes by itself "
                    "within {ttl} s: {reason}",
                    ttl=self.lease.ttl,
                    reason=str(error) or type(error).__name__,
                )

    async def _leave(self, lease: int) -> None:
        if not self.silent:
            # The announcement comes first: others take a record that just disappears for an expired
            # lease.
            await self.etcd.change(self._named(self.outbox.final_records()), (), lease)
        await self.etcd.revoke(lease)

    # the loop

    async def _failed(self, error: Exception) -> None:
        if not isinstance(error, EtcdError):
            log.failure("fleet: a mistake in what publishes this server's hosts", failure=Failure(error))
            await self._loop.wait(LONGEST, wakes=False)
        elif error.code == NOT_FOUND and self.lease.id:
            await self._lost()
        else:
            self.on_trouble(str(error))
            await self._loop.pause(lasting=True)

    def _duty(self, now: float) -> Duty:
        """Return what is to be done."""
        if self.silent:
            return Duty.YIELD
        if not self.lease.id:
            return Duty.ACQUIRE
        if now >= self.lease.renewal_due:
            return Duty.RENEW
        return Duty.WRITE if len(self.outbox) else Duty.REST

    async def _work(self) -> None:
        """Do what is to be done, or wait until something is."""
        now = self._reactor.seconds()
        match self._duty(now):
            case Duty.YIELD:
                await self._yield()
            case Duty.ACQUIRE:
                await self._acquire(now)
            case Duty.RENEW:
                await self._keep(now)
            case Duty.WRITE:
                await self._write()
            case Duty.REST:
                await self._rest(now)
        if self._tidy_at is not None and self._reactor.seconds() >= self._tidy_at:
            self._tidy_at = None
            self._tidy()

    async def _yield(self) -> None:
        """Give up the lease: the records are the other process's, and so is tidying up."""
        self._tidy_at = None
        lease = self.lease.drop()
        if lease:
            await self.etcd.revoke(lease)
        await self._loop.wait(self.lease.ttl)

    async def _acquire(self, now: float) -> None:
        """Get a lease, and write everything again, attached to it."""
        self.lease.granted(await self.etcd.grant(self.lease.ttl), now)
        self._tidy_at = now + STALE_RECORDS_DELAY
        self._renew()
        self.outbox.anew()

    async def _keep(self, now: float) -> None:
        if not await self.etcd.keep(self.lease.id):
            await self._lost()
            return
        self.lease.renewed(now)
        self._note_well()

    async def _rest(self, now: float) -> None:
        """Wait until the lease is to be renewed, something is to be tidied up, or there are changes."""
        self._note_well()
        until = self.lease.renewal_due
        if self._tidy_at is not None:
            until = min(until, self._tidy_at)
        await self._loop.wait(until - now)
        if len(self.outbox):
            await self._loop.wait(GATHER, wakes=False)

    async def _lost(self) -> None:
        """Note that the lease has expired: this server or the store was paused, or it is another store."""
        log.warn(
            "fleet: etcd does not know this server's lease any more; everything is published again",
        )
        self.lease.drop()
        self.on_lost()
        # All servers may have lost theirs at once.
        await self._loop.wait(self._random.uniform(0.0, SPREAD), wakes=False)

    async def _write(self) -> None:
        batch = self.outbox.take()
        try:
            _, revision = await self.etcd.change(
                self._named(batch.puts), self._paths(batch.deletes), self.lease.id
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
            count = self.outbox.delete_stale(self._stored())
            if count:
                log.info(
                    "fleet: {count} records of this server are none of this process's, and are deleted",
                    count=count,
                )

    def _note_well(self) -> None:
        self._loop.backoff.reset()
        self.on_trouble("")

    def _named(self, puts: dict[str, bytes]) -> list[tuple[str, bytes]]:
        return [(self._prefix + path, value) for path, value in puts.items()]

    def _paths(self, paths: Any) -> list[str]:
        return [self._prefix + path for path in paths]
