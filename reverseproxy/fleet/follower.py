"""
Follows what the store has: reads all of it once, and is told of changes from then on.

A watch that is lost goes on where it was; when what has changed meanwhile can't be had
any more, everything is read again.  A watch that is there, but tells nothing, would not
be noticed by itself: so it is made anew elsewhere when its endpoint does not answer other
requests, or what this server has written does not come back by it; and from time to time.
"""

from __future__ import annotations

__all__ = ["Follower"]

from collections.abc import Callable
from random import Random
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger

from reverseproxy.fleet.etcd import Etcd, Watch
from reverseproxy.fleet.gateway import OUT_OF_RANGE, EtcdError, KeyValue, WatchMessage
from reverseproxy.fleet.view import Change, Everything, Notice, View
from reverseproxy.tunnel.agent.backoff import Backoff

log = Logger()

ECHO: Final = 3.0
"""Seconds after which the watch should have told of what has been written."""

RENEW: Final = 60.0
"""Seconds for which a watch is kept at the most."""

LOOK: Final = 5.0
"""Seconds between two looks of a process that asks for nothing else."""

LONGEST: Final = 3.0
"""The longest wait, in seconds, before a store is tried again that can't be reached."""

MOST_EVENTS: Final = 4_000_000
"""Changes of one revision that are gathered at the most."""


class _Resync(EtcdError):
    """What has changed can't be told: everything has to be read."""


class _Behind(EtcdError):
    """The endpoint has less than is known: it lags behind, or is another store."""


class Follower:
    """
    Keeps a view as the store is.

    @ivar resyncs: how often everything has been read.
    @ivar events: changes that have been told of.
    @ivar up: whether there is a watch.
    @ivar told: called with what changes mean, be it nothing for others.
    @ivar on_own: called with the keys of this server that are gone, and since when.
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
        look: str = "",
    ) -> None:
        """
        @param look: a key to look for from time to time, where nobody else would find out that an
            endpoint does not answer, or is another store; empty for none.
        """
        self._watch: Watch | None = None
        self.use(etcd)
        self._looks_for = look
        self.view = view
        self.resyncs = self.events = 0
        self.up = False
        self._told = told
        self._reactor = reactor
        self._prefix = prefix
        self._random = random
        self._backoff = Backoff(0.2, LONGEST, random)
        self._gathered: list[KeyValue] = []
        self._stale = True
        self._renewal: IDelayedCall | None = None
        self._echo: IDelayedCall | None = None
        self._expiry: IDelayedCall | None = None
        self._expected = 0
        self._running: Deferred[None] | None = None
        self._alive = False

    # from outside

    def use(self, etcd: Etcd) -> None:
        """Follow another one, from the next watch on."""
        self.etcd = etcd
        etcd.on_left = self._left

    def _left(self, endpoint: str) -> None:
        """An endpoint does not answer."""
        watch = self._watch
        if watch is not None and watch.endpoint == endpoint and watch.began:
            # Not from within what has found that out.
            self._reactor.callLater(0, watch.stop)

    def start(self) -> None:
        """Begin."""
        self._alive = True
        running = self._running = Deferred.fromCoroutine(self._run())
        running.addErrback(self._ended)

    def stop(self) -> None:
        """Follow nothing any more; what is known stays."""
        self._alive = False
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
        for each in (self._renewal, self._echo, self._expiry):
            if each is not None and each.active():
                each.cancel()
        self.up = False

    def resync(self) -> None:
        """It may be another store: read everything."""
        self._stale = True
        if self._watch is not None:
            self._watch.stop()

    def expect(self, revision: int) -> None:
        """Something has been written, of which the watch should tell."""
        self._expected = max(self._expected, revision)
        if self._echo is None:
            self._echo = self._reactor.callLater(ECHO, self._check_echo, self._expected)

    def _check_echo(self, revision: int) -> None:
        self._echo = None
        if self.view.revision < revision and self._watch is not None:
            log.info("fleet: the watch is silent, and is renewed")
            self.etcd.next_endpoint()
        elif self.view.revision < self._expected:
            self._echo = self._reactor.callLater(ECHO, self._check_echo, self._expected)

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

    def _ended(self, failure: Any) -> None:
        if not failure.check(CancelledError):
            log.failure("fleet: the store is not followed any more", failure=failure)

    async def _run(self) -> None:
        while self._alive:
            try:
                if self._stale:
                    await self._read()
                await self._follow()
                continue
            except _Resync as error:
                self._stale = True
                log.info("fleet: everything is read again: {reason}", reason=str(error))
                continue
            except _Behind as error:
                problem = await self._compare(str(error))
            except EtcdError as error:
                self._stale = self._stale or error.code == OUT_OF_RANGE
                problem = str(error)
            except CancelledError:
                raise
            except Exception:
                log.failure("fleet: a mistake in what follows the store; everything is read again")
                self._stale = True
                problem = "a mistake in this program"
            if not self._alive:
                return  # what a request that is cancelled may fail with
            self.on_trouble(problem)
            await deferLater(self._reactor, self._backoff.failed())

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
        size = len(self._prefix)
        everything = Everything(self.view)
        # Bit by bit, as requests are served meanwhile.
        revision = await self.etcd.read(
            self._prefix,
            lambda page: everything.add((each.key[size:], each.value or b"") for each in page),
        )
        self._stale = False
        self.resyncs += 1
        self._tell(self.view.snapshot(everything, revision, self._reactor.seconds()))
        self.on_read()

    async def _follow(self) -> None:
        self._gathered.clear()
        watch = self._watch = self.etcd.watch(self._prefix, self.view.revision + 1, self._take)
        seconds = RENEW * self._random.uniform(0.75, 1.0)
        self._renewal = self._reactor.callLater(seconds, watch.stop)
        if self._looks_for:
            looking: Deferred[None] = Deferred.fromCoroutine(self._look())
            watch.ended.addBoth(self._end_looking, looking)
        try:
            await watch.ended
        except CancelledError:
            if not self._alive:
                raise
        finally:
            self._watch = None
            self.up = False
            if self._renewal.active():
                self._renewal.cancel()

    def _end_looking(self, result: Any, looking: Deferred[None]) -> Any:
        looking.cancel()
        return result

    async def _look(self) -> None:
        """
        Look whether the endpoint answers, and has what is known, as long as there is a watch.

        A store that has been emptied may have more revisions than there were before by now, so that
        the watch does not show it; but it has no record that has stayed the same.
        """
        different = False
        try:
            while True:
                await deferLater(self._reactor, LOOK * self._random.uniform(0.75, 1.0))
                found = await self.etcd.get(self._prefix + self._looks_for)
                value = None if found is None else found.value
                if value == self.view.own.get(self._looks_for):
                    different = False
                elif different:
                    log.info("fleet: the watch does not tell of everything, and all is read again")
                    self.resync()
                    return
                else:
                    different = True  # it may be on its way
        except CancelledError:
            return
        except EtcdError as error:
            if self._alive:
                self.on_trouble(str(error))
                self._reactor.callLater(0, self._give_up)

    def _give_up(self) -> None:
        """Watch anew."""
        if self._watch is not None:
            self._watch.stop()

    def _take(self, message: WatchMessage) -> None:
        """Take in a message of the watch."""
        if message.compacted:
            raise _Resync(f"etcd has compacted what was up to revision {message.compacted}")
        if message.canceled:
            raise EtcdError(message.canceled)
        view = self.view
        if message.created:
            if message.revision < view.revision:
                raise _Behind(
                    "etcd has less than it had: it lags behind, is another one, or has been restored"
                )
            self.up = True
            self._backoff.reset()
            self.on_trouble("")
            return
        if len(self._gathered) + len(message.events) > MOST_EVENTS:
            raise _Resync(f"there are more than {MOST_EVENTS} changes at once")
        self._gathered += message.events
        if message.fragment:
            return
        events, self._gathered = self._gathered, []
        if not events:
            # It only says that there is nothing up to this revision.
            view.revision = max(view.revision, message.revision)
            return
        self.events += len(events)
        self._changed(events)

    def _changed(self, events: list[KeyValue]) -> None:
        size = len(self._prefix)
        before = self.view.revision
        changes = [Change(each.key[size:], each.value, each.revision) for each in events]
        notices = self.view.changed(changes, self._reactor.seconds())
        lost: dict[str, int] = {}
        for change in changes:
            if change.revision > before and change.value is None:
                lost[change.path] = change.revision
        self._tell(notices)
        if lost:
            self.on_own([path for path in lost if path not in self.view.own], max(lost.values()))
