"""One ping, and how long its answer takes."""

from __future__ import annotations

__all__ = ["Ping"]


class Ping:
    """
    The last ping of a session.

    @ivar rtt: seconds that the last answer took; L{None} before.
    """

    __slots__ = ("_at", "_token", "rtt")

    def __init__(self) -> None:
        self.rtt: float | None = None
        self._at = 0.0
        self._token = 0

    def sent(self, now: float) -> int:
        """
        Note that another ping is sent.

        @param now: the clock's seconds.
        @return: its token, which distinguishes its answer from those to earlier pings.
        """
        self._at = now
        self._token = (self._token + 1) & 0xFFFFFFFF
        return self._token

    def answered(self, token: int, now: float) -> float | None:
        """
        Take an answer.

        @return: how many seconds it took; L{None} if it is not to the last ping.
        """
        if token != self._token:
            return None
        self.rtt = now - self._at
        return self.rtt
