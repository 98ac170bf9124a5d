"""
Who has been refused lately, and how long it waits before it is judged again: pure, given the time.

A credential can be guessed as fast as it is judged, and a graceful close can
name thousands of connections that are somebody else's.  So whoever is refused
more often than by mistake is judged more slowly, by address: on whichever
connection it comes, and however many of them it has.
"""

from __future__ import annotations

__all__ = ["FREE", "LONGEST_WAIT", "MAX_ADDRESSES", "GuessGate"]

from typing import Final

FREE: Final = 10
"""Refusals that cost an address nothing."""

FORGET: Final = 10.0
"""Seconds after which one refusal is forgotten."""

FIRST_WAIT: Final = 0.1
"""Seconds before the next judgement, doubled by each further refusal."""

LONGEST_WAIT: Final = 5.0
"""Seconds between two judgements at the most, so that a mistake that is mended does not last."""

MAX_ADDRESSES: Final = 4096
"""How many addresses are remembered; the one that was refused longest ago is forgotten first."""


class GuessGate:
    """Makes those wait who have been refused."""

    def __init__(self) -> None:
        # by address, refused last at the end: refusals, when they were counted, and
        # until when the turns of this address are given away
        self._refused: dict[str, tuple[float, float, float]] = {}

    def _level(self, address: str, now: float) -> tuple[float, float]:
        level, counted, booked = self._refused.get(address, (0.0, now, now))
        return max(level - max(now - counted, 0.0) / FORGET, 0.0), booked

    def wait(self, address: str, now: float) -> float:
        """
        Take a turn to be judged.

        @param now: the time in seconds.
        @return: in how many seconds it comes.
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
