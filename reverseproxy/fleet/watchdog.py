"""
Notices that a watch tells nothing, which by itself does not show.

A watch is given up, and made anew by whoever has it, when its endpoint does not answer other
requests, when what this server has written does not come back by it, and from time to time.
"""

from __future__ import annotations

__all__ = ["ECHO", "LOOK", "RENEW", "Watchdog"]

from collections.abc import Callable
from random import Random
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger

from reverseproxy.fleet.etcd import Etcd, EtcdWatch
from reverseproxy.fleet.etcd_json import EtcdError

# Under the name by which readers of the log know these lines.
log = Logger(namespace="reverseproxy.fleet.follower")

ECHO: Final = 3.0
"""Seconds after which the watch should have told of what has been written."""

RENEW: Final = 60.0
"""Seconds for which a watch is kept at the most."""

LOOK: Final = 5.0
"""Seconds between two looks of a process that asks for nothing else."""


class Watchdog:
    """
    Looks after one watch at a time.

    @ivar watch: which one; L{None} if there is none.
    @ivar etcd: where it is.
    """

    watch: EtcdWatch | None = None

    def __init__(
        self,
        reactor: Any,
        random: Random,
        heard: Callable[[], int],
        doubt: Callable[[], object],
        trouble: Callable[[str], object],
    ) -> None:
        """
        @param heard: up to which revision the watch has told of changes.
        @param doubt: called when what is known may not be what the store has.
        @param trouble: called with a reason when an endpoint does not answer.
        """
        self.etcd: Etcd
        self._reactor = reactor
        self._random = random
        self._heard = heard
        self._doubt = doubt
        self._trouble = trouble
        self._renewal: IDelayedCall | None = None
        self._echo: IDelayedCall | None = None
        self._expected = 0
        self._looking: Deferred[None] | None = None

    def use(self, etcd: Etcd) -> None:
        """Watches are there from now on."""
        self.etcd = etcd
        etcd.on_left = self._left

    def guard(self, watch: EtcdWatch, look: Callable[[], str], known: Callable[[], bytes | None]) -> None:
        """
        Look after a watch that begins.

        @param look: gives a key to look for from time to time, while nobody else would find out that an
            endpoint does not answer, or is another store; an empty one if somebody would.
        @param known: says what that key has, as far as the watch has told.
        """
        self.watch = watch
        seconds = RENEW * self._random.uniform(0.75, 1.0)
        self._renewal = self._reactor.callLater(seconds, watch.stop)
        self._looking = Deferred.fromCoroutine(self._look(look, known))
        watch.ended.addBoth(self._ended)

    def _ended(self, result: Any = None) -> Any:
        """The watch has ended."""
        self.watch = None
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
        if self._renewal is not None and self._renewal.active():
            self._renewal.cancel()
        return result

    def stop(self) -> None:
        """Look after nothing any more."""
        self._ended()
        if self._echo is not None and self._echo.active():
            self._echo.cancel()

    def give_up(self) -> None:
        """Have it made anew."""
        if self.watch is not None:
            self.watch.stop()

    def _left(self, endpoint: str) -> None:
        """An endpoint does not answer."""
        watch = self.watch
        if watch is not None and watch.endpoint == endpoint and watch.began:
            # Not from within what has found that out.
            self._reactor.callLater(0, watch.stop)

    # what has been written comes back

    def expect(self, revision: int) -> None:
        """Something has been written, of which the watch should tell."""
        self._expected = max(self._expected, revision)
        if self._echo is None:
            self._echo = self._reactor.callLater(ECHO, self._check_echo, self._expected)

    def _check_echo(self, revision: int) -> None:
        self._echo = None
        if self._heard() < revision and self.watch is not None:
            log.info("fleet: the watch is silent, and is renewed")
            self.etcd.next_endpoint()
        elif self._heard() < self._expected:
            self._echo = self._reactor.callLater(ECHO, self._check_echo, self._expected)

    # where nothing is written

    async def _look(self, look: Callable[[], str], known: Callable[[], bytes | None]) -> None:
        """
        Look whether the endpoint answers, and has what is known, as long as there is a watch.

        A store that has been emptied may have more revisions than there were before by now, so that
        the watch does not show it; but it has no record that has stayed the same.
        """
        different = False
        try:
            while True:
                await deferLater(self._reactor, LOOK * self._random.uniform(0.75, 1.0))
                key = look()
                found = await self.etcd.get(key) if key else None
                if not key or (None if found is None else found.value) == known():
                    different = False
                elif different:
                    log.info("fleet: the watch does not tell of everything, and all is read again")
                    self._doubt()
                    return
                else:
                    different = True  # it may be on its way
        except CancelledError:
            return
        except EtcdError as error:
            if self.watch is not None:
                self._trouble(str(error))
                self._reactor.callLater(0, self.give_up)
