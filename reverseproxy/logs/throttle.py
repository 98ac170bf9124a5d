"""A rate limit for log lines that peers cause."""

from __future__ import annotations

__all__ = ["LeftOut", "Throttle"]


from twisted.internet.interfaces import IReactorTime


class LeftOut(int):
    """The number of lines that were left out; formatted, it is a remark for the end of a line, or empty."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        """Return the remark, empty for 0; with a format specification, the formatted number."""
        if spec:
            return format(int(self), spec)
        return f" ({self:d} such {'line' if self == 1 else 'lines'} left out before)" if self else ""


class Throttle:
    """
    A token bucket that limits the rate of events, and counts those that it denies.

    It is for log lines that a peer can cause as often as it likes::

        if self._throttle.allow():
            log.warn("refused {peer}{suppressed}",
                     peer=peer, suppressed=self._throttle.suppressed)

    @ivar suppressed: after L{allow} has returned true: how many times it had
        returned false since it returned true before; see L{LeftOut}.
    """

    def __init__(self, clock: IReactorTime, per_second: float, burst: int = 1) -> None:
        """
        @param per_second: the rate in the long run, in events per second; more than 0.
        @param burst: the maximum number of events at once; 1 or more.
        """
        if not per_second > 0 or burst < 1:
            raise ValueError("a throttle must let something pass")
        self.suppressed = LeftOut()
        self._clock = clock
        self._rate = per_second
        self._burst = burst
        self._tokens = float(burst)
        self._updated = clock.seconds()
        self._denied = 0

    def allow(self) -> bool:
        """Return whether an event may pass now."""
        now = self._clock.seconds()
        # A clock that was set back must not remove tokens.
        elapsed = max(now - self._updated, 0.0)
        self._tokens = min(self._tokens + elapsed * self._rate, self._burst)
        self._updated = now
        if self._tokens < 1.0:
            self._denied += 1
            return False
        self._tokens -= 1.0
        self.suppressed, self._denied = LeftOut(self._denied), 0
        return True
