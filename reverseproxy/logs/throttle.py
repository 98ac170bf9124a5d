"""Lets so many lines pass that somebody else can cause."""

from __future__ import annotations

__all__ = ["LeftOut", "Throttle"]


from twisted.internet.interfaces import IReactorTime


class LeftOut(int):
    """A number of lines that were left out; in a line, a remark at its end, or nothing if it is 0."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        """Write the remark."""
        if spec:
            return format(int(self), spec)
        return f" ({self:d} such {'line' if self == 1 else 'lines'} left out before)" if self else ""


class Throttle:
    """
    Lets so many events pass and counts the rest: a token bucket.

    For lines that a peer can cause as often as it likes::

        if self._throttle.allow():
            log.warn("refused {peer}{suppressed}",
                     peer=peer, suppressed=self._throttle.suppressed)

    @ivar suppressed: after L{allow} returned true: how many times it had
        returned false since it last returned true; see L{LeftOut}.
    """

    def __init__(self, clock: IReactorTime, per_second: float, burst: int = 1) -> None:
        """
        @param clock: tells the time.
        @param per_second: events that pass in the long run; more than 0.
        @param burst: events that pass at once after a quiet time; 1 or more.
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
        """Ask for one event: whether it may pass."""
        now = self._clock.seconds()
        # A clock that was set back must not take tokens away.
        elapsed = max(now - self._updated, 0.0)
        self._tokens = min(self._tokens + elapsed * self._rate, self._burst)
        self._updated = now
        if self._tokens < 1.0:
            self._denied += 1
            return False
        self._tokens -= 1.0
        self.suppressed, self._denied = LeftOut(self._denied), 0
        return True
