"""
Follows what the store has: reads all of it once, and is told of changes from then on.

A watch that is lost goes on where it was; when what has changed meanwhile can't be had
any more, everything is read again.  L{reverseproxy.fleet.watchdog} notices a watch that is
there, but tells nothing.
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
from reverseproxy.fleet.etcd_json import OUT_OF_RANGE, EtcdError, KeyValue, WatchMessage
from reverseproxy.fleet.retry_loop import RetryLoop
from reverseproxy.fleet.view import PART, Change, Notice, View
from reverseproxy.fleet.watchdog import Watchdog
from reverseproxy.fleet.work_queue import WorkQueue
from reverseproxy.tunnel.agent.backoff import Backoff

log = Logger()

LONGEST: Final = 3.0
"""The longest wait, in seconds, before a store is tried again that can't be reached."""

MOST_EVENTS: Final = 4_000_000
"""Changes of one revision that are gathered at the most."""


class _Resync(EtcdError):
    """What has changed can't be told: everything has to be read."""


class _Behind(EtcdError):
    """The endpoint has less than is known: it lags behind, or is another store."""


class _Part(NamedTuple):
    """
    A part of what has changed, which has been taken in.

    @ivar size: for how many steps it counts.
    @ivar tell: tells what it means.
    """

    size: int
    tell: Callable[[], object]


def _do(part: _Part) -> None:
    part.tell()


class Follower:
    """
    Keeps a view as the store is.

    @ivar resyncs: how often everything has been read.
    @ivar events: changes that have been told of.
    @ivar up: whether there is a watch.
    @ivar told: called with what changes mean, be it nothing for others.
    @ivar on_own: called with keys of this server that have been written, and with any that are gone;
        and since when.
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
        @param look: as for L{Watchdog.guard}, behind the prefix.
        """
        self.view = view
        self.resyncs = self.events = 0
        self.up = False
        self._told = told
        self._reactor = reactor
        self._prefix = prefix
        self._looks_for = look
        self._gathered: list[KeyValue] = []
        self._heard = 0
        self._turns = WorkQueue(reactor)
        self._stale = True
        self._expiry: IDelayedCall | None = None
        backoff = Backoff(0.2, LONGEST, random)
        self._routine = RetryLoop(
            reactor, backoff, self._step, self._failed, "fleet: the store is not followed any more"
        )
        self._watchdog = Watchdog(
            reactor, random, lambda: self._heard, self.resync, lambda reason: self.on_trouble(reason)
        )
        self.use(etcd)

    # from outside

    @property
    def etcd(self) -> Etcd:
        """Where the store is."""
        return self._watchdog.etcd

    def use(self, etcd: Etcd) -> None:
        """Follow another one, from the next watch on."""
        self._watchdog.use(etcd)

    def start(self) -> None:
        """Begin."""
        self._routine.start()

    def stop(self) -> None:
        """Follow nothing any more; what is known stays."""
        self._routine.stop()
        self._watchdog.stop()
        self._turns.clear()
        if self._expiry is not None and self._expiry.active():
            self._expiry.cancel()
        self.up = False

    def resync(self) -> None:
        """It may be another store: read everything."""
        self._stale = True
        self._watchdog.give_up()

    def expect(self, revision: int) -> None:
        """Something has been written, of which the watch should tell."""
        self._watchdog.expect(revision)

    def settle(self) -> None:
        """See to servers that are kept although the store does not have them, when it is time."""
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

    # running

    async def _step(self) -> None:
        # What is read may be in doubt again as soon as it has been.
        await (self._read() if self._stale else self._follow())

    async def _failed(self, error: Exception) -> None:
        if isinstance(error, _Resync):
            self._stale = True
            log.info("fleet: everything is read again: {reason}", reason=str(error))
            await self._routine.pause()  # others read it as well, and it may be so again
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
        await self._routine.pause()

    async def _compare(self, problem: str) -> str:
        """
        Find out whether an endpoint that has less than is known only lags behind.

        @return: what is wrong.
        """
        try:
            self._stale = await self.etcd.revision(self._prefix) < self.view.revision
        except EtcdError as error:
            return str(error)
        self.etcd.next_endpoint()
        return problem

    async def _read(self) -> None:
        self._stale = False  # unless somebody has doubts meanwhile
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
        # Bit by bit, as requests are served meanwhile.
        revision = await self.etcd.read(
            self._prefix,
            lambda page: everything.add((each.key[size:], each.value or b"") for each in page),
        )
        self._turns.clear()  # what was still to be taken in is in there, or no more
        for notices in self.view.snapshot(everything, revision, self._reactor.seconds()):
            self._tell(notices)
            await deferLater(self._reactor, 0)

    async def _follow(self) -> None:
        # What has been told before, and is not taken in yet, is told once more.
        self._turns.clear()
        self._gathered.clear()
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
            if not self._routine.alive:
                raise
        finally:
            self.up = False

    def _take(self, message: WatchMessage) -> None:
        """Take in a message of the watch."""
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
            self._routine.backoff.reset()
            self.on_trouble("")
            return
        if len(self._gathered) + len(message.events) > MOST_EVENTS:
            raise _Resync(f"there are more than {MOST_EVENTS} changes at once")
        self._gathered += message.events
        events, self._gathered = self._gathered, []
        if message.fragment:
            # There may be more of the last revision; the others are complete.
            last = events[-1].revision if events else 0
            self._gathered = [each for each in events if each.revision == last]
            events = events[: len(events) - len(self._gathered)]
            if not events:
                return
        self.events += len(events)
        if not events:
            # It only says that there is nothing up to this revision.
            self._heard = max(self._heard, message.revision)
            self._turns.add(self._nothing, [message.revision])
            return
        self._heard = max(self._heard, events[-1].revision)
        size = len(self._prefix)
        changes = [Change(each.key[size:], each.value, each.revision) for each in events]
        self._turns.add(_do, self._parts(changes), lambda part: part.size)

    def _nothing(self, revision: int) -> None:
        self.view.revision = max(self.view.revision, revision)

    def _parts(self, changes: list[Change]) -> Iterator[_Part]:
        """
        Take in changes, a part of them at a time, each when it is asked for.

        The end of a lease is one revision, with all that a server had.
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
