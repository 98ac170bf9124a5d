"""
Rules that limit how many requests may pass in an interval.

The rules are Sentinel's, which MOSN uses: it counts in
C{core/stat/base/leap_array.go}, and decides in C{core/flow/tc_default.go},
C{tc_throttling.go} and C{tc_warm_up.go} of C{github.com/alibaba/sentinel-golang}.
All functions are given the time.
"""

from __future__ import annotations

__all__ = ["BLOCKED", "FlowRule", "Window", "buckets_of"]

from math import ceil, nextafter
from math import inf as infinity
from typing import Final

from reverseproxy.config.models import FlowRuleConfig

BLOCKED: Final = -1.0
"""What a rule says of a request that may not pass."""

_BUCKET: Final = 500
"""The milliseconds of Sentinel's buckets, where an interval is a multiple of them."""

_DEFAULT_INTERVAL: Final = 1000
_LONGEST: Final = 10_000
"""The longest interval in milliseconds that is counted in buckets."""

_COLD_FACTOR: Final = 3


def buckets_of(interval: int) -> int:
    """
    Return the number of buckets for an interval.

    @param interval: milliseconds.
    """
    if _BUCKET <= interval <= _LONGEST and interval % _BUCKET == 0:
        return interval // _BUCKET
    return 1


class Window:
    """
    A sliding window that counts requests.

    It moves by a bucket at a time, so that what it counts goes back for at least
    the interval less one bucket.
    """

    def __init__(self, interval: int) -> None:
        """
        @param interval: milliseconds.
        """
        self.interval = interval
        self._buckets = buckets_of(interval)
        self._length = interval / 1000 / self._buckets
        # One more than is counted, as rules that warm up look a bucket back.
        self._indices = [-1] * (self._buckets + 1)
        self._counts = [0] * (self._buckets + 1)

    def add(self, now: float) -> None:
        """Count a request."""
        index = int(now // self._length)
        slot = index % len(self._counts)
        if self._indices[slot] != index:
            self._indices[slot] = index
            self._counts[slot] = 0
        self._counts[slot] += 1

    def count(self, now: float, back: int = 0) -> int:
        """
        Return how many there were.

        @param back: by how many buckets to look back, 0 or 1.
        """
        last = int(now // self._length) - back
        first = last - self._buckets
        return sum(
            count for index, count in zip(self._indices, self._counts, strict=True) if first < index <= last
        )

    def previous_rate(self, now: float) -> float:
        """Return the requests per second, up to one bucket ago."""
        return self.count(now, 1) / (self.interval / 1000)


class _WarmUp:
    """
    A threshold that starts lower, and grows while requests come.

    There is a store of tokens, which fills while few requests come and empties
    while many do; the more there are in it above a mark, the colder it is.
    """

    def __init__(self, config: FlowRuleConfig, threshold: float) -> None:
        self._threshold = threshold
        self._cold = config.warm_up_cold_factor or _COLD_FACTOR
        period = config.warm_up_period_sec
        self._mark = int(period * threshold / (self._cold - 1))
        self._most = self._mark + int(2 * period * threshold / (1 + self._cold))
        span = self._most - self._mark
        self._slope = (self._cold - 1) / threshold / span if span else 0.0
        self._stored = 0
        self._filled_at: int | None = None  # seconds

    def allowed(self, rate: float, now: float) -> float:
        """
        Return the present threshold.

        @param rate: requests that passed in each second lately.
        """
        self._fill(rate, int(now))
        if self._stored < self._mark:
            return self._threshold
        above = self._stored - self._mark
        return nextafter(1.0 / (above * self._slope + 1.0 / self._threshold), infinity)

    def _fill(self, rate: float, second: int) -> None:
        """Update the stored tokens, once a second."""
        if self._filled_at is not None and second <= self._filled_at:
            return
        stored = self._stored
        if stored < self._mark or (stored > self._mark and rate < int(self._threshold) // self._cold):
            # It is full at first, as if there had never been a request.
            stored = (
                self._most
                if self._filled_at is None
                else int(stored + (second - self._filled_at) * self._threshold)
            )
        self._stored = max(min(stored, self._most) - int(rate), 0)
        self._filled_at = second


class FlowRule:
    """
    A rule.

    @ivar counted: the resource whose requests it counts.
    @ivar interval: for how long it counts them, in milliseconds.
    """

    def __init__(self, config: FlowRuleConfig, share: int = 1) -> None:
        """
        @param share: how many processes there are.  Each gets its part of the
            threshold, or, where that is less than one request, all of it for as
            many times the interval.
        """
        self.counted = config.ref_resource if config.relation_strategy else config.resource
        self.interval = config.stat_interval_in_ms or _DEFAULT_INTERVAL
        self._threshold = config.threshold / share
        if self._threshold < 1.0 <= config.threshold:
            self.interval *= share
            self._threshold = config.threshold
        self._warm_up = _WarmUp(config, self._threshold) if config.token_calculate_strategy else None
        self._spreads = config.control_behavior == 1
        self._patience = config.max_queueing_time_ms / 1000
        self._passed_at = -infinity

    @property
    def looks_back(self) -> bool:
        """Whether the rule needs the count of requests that have passed."""
        return not self._spreads or self._warm_up is not None

    def check(self, window: Window | None, now: float) -> float:
        """
        Decide about a request.

        @param window: what has passed; needed if L{looks_back}.
        @return: seconds that it has to wait, or L{BLOCKED}.
        """
        threshold = self._threshold
        if self._warm_up is not None:
            assert window is not None
            threshold = self._warm_up.allowed(window.previous_rate(now), now)
        if self._spreads:
            return self._turn(threshold, now)
        assert window is not None
        return BLOCKED if window.count(now) + 1 > threshold else 0.0

    def _turn(self, threshold: float, now: float) -> float:
        """Space requests evenly."""
        if threshold < 1.0:
            return BLOCKED
        gap = ceil(1e9 / threshold * self.interval / 1000) / 1e9
        turn = self._passed_at + gap
        if turn <= now:
            self._passed_at = now
            return 0.0
        if turn - now > self._patience:
            return BLOCKED
        self._passed_at = turn
        return turn - now
