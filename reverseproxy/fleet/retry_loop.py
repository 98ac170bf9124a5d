"""What is done over and over: one thing after the other, with waits between them, until it is stopped."""

from __future__ import annotations

__all__ = ["RetryLoop"]

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from reverseproxy.tunnel.agent.backoff import Backoff

log = Logger()


class RetryLoop:
    """
    Does the next thing again and again.

    @ivar alive: whether it goes on.
    @ivar backoff: how long it waits after a failure; to be reset when all is well.
    """

    def __init__(
        self,
        clock: Any,
        backoff: Backoff,
        step: Callable[[], Coroutine[Any, Any, None]],
        failed: Callable[[Exception], Coroutine[Any, Any, None]],
        lament: str,
    ) -> None:
        """
        @param step: does the next thing.
        @param failed: called with what that has raised; what this raises ends the routine.
        @param lament: what is said in the log then.
        """
        self.alive = False
        self.backoff = backoff
        self._clock = clock
        self._step = step
        self._failed = failed
        self._lament = lament
        self._running: Deferred[None] | None = None
        self._sleep: Deferred[None] | None = None
        self._alarm: IDelayedCall | None = None

    def start(self) -> None:
        """Begin."""
        self.alive = True
        running = self._running = Deferred.fromCoroutine(self._run())
        running.addErrback(self._ended)

    def stop(self) -> None:
        """End; what is under way is cancelled."""
        self.alive = False
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
        self._hush()

    def _ended(self, failure: Any) -> None:
        if not failure.check(CancelledError):
            log.failure("{lament}", failure=failure, lament=self._lament)

    async def _run(self) -> None:
        while self.alive:
            try:
                await self._step()
            except CancelledError:
                raise
            except Exception as error:
                if not self.alive:
                    return  # what a request that is cancelled may fail with
                await self._failed(error)

    # waiting

    async def wait(self, seconds: float, wakes: bool = True) -> None:
        """
        Wait; for a step, and for nobody else.

        @param wakes: whether L{wake} ends that.
        """
        waiting: Deferred[None] = Deferred(lambda _: self._hush())
        self._alarm = self._clock.callLater(max(seconds, 0.0), self._ring, waiting)
        self._sleep = waiting if wakes else None
        await waiting

    async def pause(self, lasting: bool = False) -> None:
        """
        Wait after a failure.

        @param lasting: see L{Backoff.failed}.
        """
        await self.wait(self.backoff.failed(lasting=lasting), wakes=False)

    def wake(self) -> None:
        """There is something to be done."""
        sleep, self._sleep = self._sleep, None
        if sleep is not None:
            self._hush()
            sleep.callback(None)

    def _ring(self, waiting: Deferred[None]) -> None:
        self._alarm = None
        if self._sleep is waiting:
            self._sleep = None
        waiting.callback(None)

    def _hush(self) -> None:
        self._sleep = None
        alarm, self._alarm = self._alarm, None
        if alarm is not None and alarm.active():
            alarm.cancel()
