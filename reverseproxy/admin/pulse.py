"""What is looked at from time to time, as nobody counts it: the loop's lag, and how the last minutes were."""

from __future__ import annotations

__all__ = ["Pulse"]

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from reverseproxy.metrics import Histogram
from reverseproxy.metrics.history import PERIOD, History, Sample

BEAT: Final = 0.5
"""Seconds between two looks at the clock."""

LAG_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""Upper bounds of the buckets of lags, in seconds."""


class Pulse:
    """
    Beats, as long as the process runs.

    @ivar lag: by how much each beat was late: so long, whatever else had to be
        done has waited as well.
    @ivar history: how the last minutes were.
    """

    def __init__(self, clock: IReactorTime, sample: Callable[[], Sample]) -> None:
        """
        @param sample: says what there is.
        """
        self.lag = Histogram(LAG_BOUNDS)
        self.history = History()
        self._clock = clock
        self._sample = sample
        self._call: IDelayedCall | None = None
        self._due = self._next_sample = 0.0

    def start(self) -> None:
        """Begin."""
        if self._call is None:
            self._next_sample = self._clock.seconds() + PERIOD
            self._expect()

    def stop(self) -> None:
        """End."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _expect(self) -> None:
        self._due = self._clock.seconds() + BEAT
        self._call = self._clock.callLater(BEAT, self._beat)

    def _beat(self) -> None:
        now = self._clock.seconds()
        self.lag.note(max(0.0, now - self._due))
        if now >= self._next_sample:
            self._next_sample = now + PERIOD
            self.history.note(self._sample())
        self._expect()
