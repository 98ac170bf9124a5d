"""What ends by itself after a while, unless somebody comes back."""

from __future__ import annotations

__all__ = ["ExpiryTimers"]

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class ExpiryTimers:
    """When the routes of clusters end; those of each cluster once."""

    def __init__(self, clock: IReactorTime, ended: Callable[[str], object]) -> None:
        """
        @param ended: called with a cluster whose time is over.
        """
        self._clock = clock
        self._ended = ended
        self._calls: dict[str, IDelayedCall] = {}

    def later(self, cluster: str, seconds: float) -> None:
        """Let them end in a while, counted from now."""
        self.cancel(cluster)
        self._calls[cluster] = self._clock.callLater(seconds, self._end, cluster)

    def cancel(self, cluster: str) -> None:
        """Let them stay."""
        call = self._calls.pop(cluster, None)
        if call is not None:
            call.cancel()

    def stop(self) -> None:
        """Let nothing end any more."""
        for cluster in list(self._calls):
            self.cancel(cluster)

    def _end(self, cluster: str) -> None:
        del self._calls[cluster]
        self._ended(cluster)
