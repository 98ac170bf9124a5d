"""
Keeps a view up to date: reads the whole store once, and watches it from then on.

After a watch is lost, the next one continues at the last known revision; if the store has compacted
that, everything is read again. L{reverseproxy.fleet.watchdog} detects a watch that has gone silent.
"""

from __future__ import annotations

__all__ = ["Follower"]

from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from operator import attrgetter
from random import Random
from typing import Any, Final, NamedTuple

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.fleet.etcd import Etcd
from reverseproxy.fleet.etcd_json import OUT_OF_RANGE, EtcdError, WatchMessage
from reverseproxy.fleet.record_table import Notice
from reverseproxy.fleet.retry_loop import RetryLoop
from reverseproxy.fleet.view import PART, Change, View
from reverseproxy.fleet.watch_events import TooManyEvents, WatchEvents
from reverseproxy.fleet.watchdog import Watchdog
from reverseproxy.fleet.work_queue import WorkQueue
from reverseproxy.tunnel.agent.backoff import Backoff

log = Logger()

LONGEST: Final = 3.0
"""Seconds between two attempts to reach the store, at most."""


class _Resync(EtcdError):
    """The changes can't be had: everything has to be read again."""


class _Behind(EtcdError):
    """The endpoint has an older revision than is known: it lags behind, or is another store."""


class _Part(NamedTuple):
    """
    A slice of changes that the view has taken.

    @ivar size: how many steps it counts for.
    @ivar tell: delivers its notices.
    """

    size: int
    tell: Callable[[], object]


def _do(part: _Part) -> None:
    part.tell()


class Follower:
    """
    Keeps a view up to date with the store.

    @ivar view: the view.
    @ivar resyncs: how often everything has been read.
    @ivar events: changes that watches have reported.
    @ivar up: whether there is a watch.
    @ivar on_own: called with the paths of this server that were written or deleted unexpectedly, and
        with the revision.
    @ivar on_read: called when everything has been read.
    @ivar on_trouble: as for L{reverseproxy.fleet.publisher.Publisher}.
    """

    on_own: Callable[[list[str], int], object] = staticmethod(lambda paths, revision: None)
    on_read: Callable[[], object] = staticmethod(lambda: None)
    on_trouble: Callable[[str], object] = staticmethod(lambda reason: None)

    def __init__(
        self,
        reactor: Any,
        etcd: Etcd,
        prefix: str,
        view: View,
        told: Callable[[list[Notice]], object],
        random: Random,
        look: Callable[[], str],
    ) -> None:
        """
        @param told: called with the notices of each slice, which may be none.
        @param look: returns the path of a record to compare with the store; see L{Watchdog.guard}.
        """
        self.view = view
        self.resyncs = self.events = 0
        self.up = False
        self._told = told
        self._reactor = reactor
        self._prefix = prefix
        self._looks_for = look
        self._incoming = WatchEvents()
        self._heard = 0
        self._work = WorkQueue(reactor)
        self._stale = True
        self._expiry: IDelayedCall | None = None
        backoff = Backoff(0.2, LONGEST, random)
        self._loop = RetryLoop(
            reactor, backoff, self._step, self._failed, "fleet: the store is not followed any more"
        )
        self._watchdog = Watchdog(
            reactor, random, lambda: self._heard, self.resync, lambda reason: self.on_trouble(reason)
        )
        self.use(etcd)

    # interface

    @property
    def etcd(self) -> Etcd:
        """The client."""
        return self._watchdog.etcd

    def use(self, etcd: Etcd) -> None:
        """Use another client, from the next watch on."""
        self._watchdog.use(etcd)

    def start(self) -> None:
        """Start following."""
        self._loop.start()

    def stop(self) -> None:
        """Stop following; the view keeps what it has."""
        self._loop.stop()
        self._watchdog.stop()
        self._work.clear()
        if self._expiry is not None and self._expiry.active():
            self._expiry.cancel()
        self.up = False

    def resync(self) -> None:
        """Read everything again: it may be another store."""
        self._stale = True
        self._watchdog.give_up()

    def expect(self, revision: int) -> None:
        """Expect a watch to report a revision that was written."""
        self._watchdog.expect(revision)

    def settle(self) -> None:
        """Set the timer for servers that are kept although the store does not have them."""
        if self._expiry is not None and self._expiry.active():
            self._expiry.cancel()
        self._expiry = None
        deadline = self.view.deadline
        if deadline is not None:
            delay = max(deadline - self._reactor.seconds(), 0.0)
            self._expiry = self._reactor.callLater(delay, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        self._tell(self.view.expire(self._reactor.seconds()))

    def _tell(self, notices: list[Notice]) -> None:
        self._told(notices)
        self.settle()

    # the loop

    async def _step(self) -> None:
        # A resync may be requested again while everything is read.
        await (self._read() if self._stale else self._follow())

    async def _failed(self, error: Exception) -> None:
        if isinstance(error, _Resync):
            self._stale = True
            log.info("fleet: everything is read again: {reason}", reason=str(error))
            await self._loop.pause()  # other servers read everything as well, perhaps again and again
            return
        if isinstance(error, _Behind):
            problem = await self._compare(str(error))
        elif isinstance(error, EtcdError):
            self._stale = self._stale or error.code == OUT_OF_RANGE
            problem = str(error)
        else:
            log.failure(
                "fleet: a mistake in what follows the store; everything is read again",
                failure=Failure(error),
            )
            self._stale = True
            problem = "a mistake in this program"
        self.on_trouble(problem)
        await self._loop.pause()

    async def _compare(self, problem: str) -> str:
        """
        Find out whether an endpoint that is behind only lags.

        @return: what is wrong.
        """
        try:
            if await self.etcd.revision(self._prefix) < self.view.revision:
                self._stale = True  # and it stays, if a resync was requested meanwhile
        except EtcdError as error:
            return str(error)
        self.etcd.next_endpoint()
        return problem

    async def _read(self) -> None:
        self._stale = False  # unless a resync is requested meanwhile
        try:
            await self._read_all()
        except BaseException:
            self._stale = True
            raise
        self.resyncs += 1
        self.on_read()

    async def _read_all(self) -> None:
        size = len(self._prefix)
        everything = self.view.everything()
        # Page by page, as requests are served in between.
        revision = await self.etcd.read(
            self._prefix,
            lambda page: everything.add((each.key[size:], each.value or b"") for each in page),
        )
        self._work.clear()  # pending changes are contained in the snapshot
        for notices in self.view.snapshot(everything, revision, self._reactor.seconds()):
            self._tell(notices)
            await deferLater(self._reactor, 0)

    async def _follow(self) -> None:
        # The new watch reports pending changes again.
        self._work.clear()
        self._incoming.clear()
        self._heard = self.view.revision
        watch = self.etcd.watch(self._prefix, self.view.revision + 1, self._take)
        look = self._looks_for
        self._watchdog.guard(
            watch,
            lambda: (path := look()) and self._prefix + path,
            lambda: self.view.own.get(look()),
        )
        try:
            await watch.ended
        except CancelledError:
            if not self._loop.alive:
                raise
        finally:
            self.up = False

    def _take(self, message: WatchMessage) -> None:
        """Take a message of the watch."""
        if message.compacted:
            raise _Resync(f"etcd has compacted what was up to revision {message.compacted}")
        if message.canceled:
            raise EtcdError(message.canceled)
        if message.created:
            if message.revision < self.view.revision:
                raise _Behind(
                    "etcd has less than it had: it lags behind, is another one, or has been restored"
                )
            self.up = True
            self._loop.backoff.reset()
            self.on_trouble("")
            return
        try:
            events = self._incoming.take(message)
        except TooManyEvents as error:
            raise _Resync(str(error)) from None
        if message.fragment and not events:
            return
        self.events += len(events)
        if not events:
            # A progress notification: there are no changes up to this revision.
            self._heard = max(self._heard, message.revision)
            self._work.add(self._nothing, [message.revision])
            return
        self._heard = max(self._heard, events[-1].revision)
        size = len(self._prefix)
        changes = [Change(each.key[size:], each.value, each.revision) for each in events]
        self._work.add(_do, self._parts(changes), lambda part: part.size)

    def _nothing(self, revision: int) -> None:
        self.view.revision = max(self.view.revision, revision)

    def _parts(self, changes: list[Change]) -> Iterator[_Part]:
        """
        Take changes slice by slice, as the work queue asks for them.

        The expiry of a lease is a single revision, with all records of a server.
        """
        for revision, group in groupby(changes, attrgetter("revision")):
            found = list(group)
            try:
                yield from self._of_one(revision, found)
            except Exception:
                log.failure("fleet: a mistake in what follows the store; everything is read again")
                self.resync()
                return

    def _of_one(self, revision: int, changes: list[Change]) -> Iterator[_Part]:
        before = self.view.revision
        size = min(len(changes), PART)
        for notices in self.view.changed(changes, self._reactor.seconds()):
            yield _Part(size, partial(self._tell, notices))
        own = self.view.own
        paths = [each.path for each in changes if (each.value is None) is not (each.path in own)]
        if paths and revision > before:
            yield _Part(0, partial(self.on_own, paths, revision))
