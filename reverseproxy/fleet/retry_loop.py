"""A loop of asynchronous steps, with waits and backoff, until it is stopped."""

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
    Runs a step again and again.

    @ivar alive: whether it has been started, and not stopped.
    @ivar backoff: the delays after failures; the step resets it when it has succeeded.
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
        @param step: one step of the loop.
        @param failed: called with the exception of a failed step; if this raises, the loop ends.
        @param lament: the message to log then.
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
        """Start the loop."""
        self.alive = True
        running = self._running = Deferred.fromCoroutine(self._run())
        running.addErrback(self._ended)

    def stop(self) -> None:
        """Stop the loop, and cancel the step that runs."""
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
                    return  # a cancelled request may fail with any exception
                await self._failed(error)

    # waiting

    async def wait(self, seconds: float, wakes: bool = True) -> None:
        """
        Wait some time; only for use within a step, or within C{failed}.

        @param wakes: whether L{wake} ends the wait.
        """
        waiting: Deferred[None] = Deferred(lambda _: self._hush())
        self._alarm = self._clock.callLater(max(seconds, 0.0), self._ring, waiting)
        self._sleep = waiting if wakes else None
        await waiting

    async def pause(self, lasting: bool = False) -> None:
        """
        Wait for the delay that follows a failure.

        @param lasting: see L{Backoff.failed}.
        """
        await self.wait(self.backoff.failed(lasting=lasting), wakes=False)

    def wake(self) -> None:
        """End the wait of a step, if it can be woken: there is work."""
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
