"""Periodic samples: the lag of the event loop, and the counters of the last minutes."""

from __future__ import annotations

__all__ = ["Sampler"]

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from reverseproxy.admin.slices import Steps, in_slices
from reverseproxy.metrics import Histogram
from reverseproxy.metrics.history import PERIOD, History, Sample

LAG_PERIOD: Final = 0.5
"""Seconds between two samples of the event loop's lag."""

LAG_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""Upper bounds of the buckets of lags, in seconds."""


class Sampler:
    """
    Takes samples periodically.

    @ivar lag: a histogram of the event loop's lag: how late a delayed call was, which is how long any other
        event had to wait at that moment.
    @ivar history: the counters of the last minutes.
    """

    def __init__(self, clock: IReactorTime, sample: Callable[[], Steps[Sample]]) -> None:
        """
        @param sample: returns the counters.
        """
        self.lag = Histogram(LAG_BOUNDS)
        self.history = History()
        self._clock = clock
        self._sample = sample
        self._call: IDelayedCall | None = None
        self._due = self._next_sample = 0.0

    def start(self) -> None:
        """Start to take samples; does nothing if started already."""
        if self._call is None:
            self._next_sample = self._clock.seconds() + PERIOD
            self._schedule()

    def stop(self) -> None:
        """Stop taking samples."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _schedule(self) -> None:
        self._due = self._clock.seconds() + LAG_PERIOD
        self._call = self._clock.callLater(LAG_PERIOD, self._take_samples)

    def _take_samples(self) -> None:
        now = self._clock.seconds()
        self.lag.note(max(0.0, now - self._due))
        if now >= self._next_sample:
            self._next_sample = now + PERIOD
            in_slices(self._sample(), self._clock).addCallback(self.history.note)
        self._schedule()
