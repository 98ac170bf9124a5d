"""
Detects a watch that has gone silent, which a connection alone does not show.

A watch is replaced when its endpoint does not answer other requests, when it does not report what this
server has written, and regularly.
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

log = Logger()

ECHO: Final = 3.0
"""Seconds after which a watch should have reported a write of this server."""

RENEW: Final = 60.0
"""Seconds after which a watch is replaced in any case."""

LOOK: Final = 5.0
"""Seconds between two comparisons of a record with the store, in a process that sends no other requests."""


class Watchdog:
    """
    Guards one watch at a time.

    @ivar watch: the watch; L{None} if there is none.
    @ivar etcd: the client.
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
        @param heard: returns the last revision that the watch has reported.
        @param doubt: called when the view may differ from the store.
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
        """Use another client for watches from now on."""
        self.etcd = etcd
        etcd.on_left = self._left

    def guard(self, watch: EtcdWatch, look: Callable[[], str], known: Callable[[], bytes | None]) -> None:
        """
        Guard a watch that begins.

        @param look: returns a key to compare with the store from time to time, if no other request would
            show that an endpoint does not answer, or is another store; otherwise an empty text.
        @param known: returns the value of that key as far as the watch has reported it.
        """
        self.watch = watch
        seconds = RENEW * self._random.uniform(0.75, 1.0)
        self._renewal = self._reactor.callLater(seconds, watch.stop)
        self._looking = Deferred.fromCoroutine(self._look(look, known))
        watch.ended.addBoth(self._ended)

    def _ended(self, result: Any = None) -> Any:
        """Cancel all timers of the watch."""
        self.watch = None
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
        if self._renewal is not None and self._renewal.active():
            self._renewal.cancel()
        return result

    def stop(self) -> None:
        """Guard nothing any more."""
        self._ended()
        if self._echo is not None and self._echo.active():
            self._echo.cancel()

    def give_up(self) -> None:
        """Stop the watch; its owner makes another one."""
        if self.watch is not None:
            self.watch.stop()

    def _left(self, endpoint: str) -> None:
        """Stop the watch at an endpoint that does not answer."""
        watch = self.watch
        if watch is not None and watch.endpoint == endpoint and watch.began:
            # Not from within the request that has found that out.
            self._reactor.callLater(0, watch.stop)

    # writes that come back

    def expect(self, revision: int) -> None:
        """Expect the watch to report a revision that was written."""
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

    # comparisons

    async def _look(self, look: Callable[[], str], known: Callable[[], bytes | None]) -> None:
        """
        Compare a record with the store from time to time, as long as there is a watch.

        A store that was emptied may have reached higher revisions than before, so that the watch does
        not show it; but the record is gone.
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
                    different = True  # the watch may still report it
        except CancelledError:
            return
        except EtcdError as error:
            if self.watch is not None:
                self._trouble(str(error))
                self._reactor.callLater(0, self.give_up)
