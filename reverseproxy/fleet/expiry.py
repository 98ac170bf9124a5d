"""Timers after which the routes of a cluster expire."""

from __future__ import annotations

__all__ = ["ExpiryTimers"]

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class ExpiryTimers:
    """At most one timer for each cluster."""

    def __init__(self, clock: IReactorTime, ended: Callable[[str], object]) -> None:
        """@param ended: called with the name of a cluster when its timer expires."""
        self._clock = clock
        self._ended = ended
        self._calls: dict[str, IDelayedCall] = {}

    def later(self, cluster: str, seconds: float) -> None:
        """
        Start the timer of a cluster, or start it anew.

        @param seconds: from now on.
        """
        self.cancel(cluster)
        self._calls[cluster] = self._clock.callLater(seconds, self._end, cluster)

    def cancel(self, cluster: str) -> None:
        """Cancel the timer of a cluster, if there is one."""
        call = self._calls.pop(cluster, None)
        if call is not None:
            call.cancel()

    def stop(self) -> None:
        """Cancel all timers."""
        for cluster in list(self._calls):
            self.cancel(cluster)

    def _end(self, cluster: str) -> None:
        del self._calls[cluster]
        self._ended(cluster)
