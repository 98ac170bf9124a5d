"""
Delays for addresses that were refused often: pure, given the time.

Credentials can be guessed as fast as they are validated, and a graceful close can name thousands of
connections of others. So an address that is refused more often than by mistake is judged more slowly, on
all of its connections together.
"""

from __future__ import annotations

__all__ = ["FREE", "LONGEST_WAIT", "MAX_ADDRESSES", "GuessGate"]

from typing import Final

FREE: Final = 10
"""Refusals that cause no delay."""

FORGET: Final = 10.0
"""Seconds after which one refusal is forgotten."""

FIRST_WAIT: Final = 0.1
"""Seconds of the first delay, doubled by each further refusal."""

LONGEST_WAIT: Final = 5.0
"""Seconds of one delay, at most, so that a mistake that was corrected has no lasting effect."""

MAX_ADDRESSES: Final = 4096
"""Addresses that are remembered; the one whose last refusal is the oldest is forgotten first."""


class GuessGate:
    """Delays addresses that were refused."""

    def __init__(self) -> None:
        # by address, the last refused at the end: the number of refusals, when that was counted, and
        # until when delays of this address are assigned
        self._refused: dict[str, tuple[float, float, float]] = {}

    def _level(self, address: str, now: float) -> tuple[float, float]:
        level, counted, booked = self._refused.get(address, (0.0, now, now))
        return max(level - max(now - counted, 0.0) / FORGET, 0.0), booked

    def wait(self, address: str, now: float) -> float:
        """
        Reserve the next time at which an address is judged.

        @param now: the time in seconds.
        @return: seconds until then.
        """
        level, booked = self._level(address, now)
        if level <= FREE:
            return 0.0
        pause: float = min(FIRST_WAIT * 2.0 ** min(level - FREE - 1, 16.0), LONGEST_WAIT)
        turn = max(booked, now) + pause
        self._refused[address] = (level, now, turn)
        return turn - now

    def refuse(self, address: str, now: float) -> None:
        """Count a refusal."""
        level, booked = self._level(address, now)
        self._refused.pop(address, None)
        self._refused[address] = (level + 1.0, now, booked)
        if len(self._refused) > MAX_ADDRESSES:
            del self._refused[next(iter(self._refused))]
