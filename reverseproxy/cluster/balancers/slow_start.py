"""Slow start: the weight of new hosts grows gradually."""

from __future__ import annotations

__all__ = ["SlowStart"]

from dataclasses import dataclass
from typing import Final

_YOUNGEST: Final = 1.0
"""The least age of a host that is assumed, in seconds, as in MOSN (docs/mosn.rst, section 5)."""


@dataclass(frozen=True, slots=True)
class SlowStart:
    """
    The growth of a host's weight with its age (docs/mosn.rst, section 5).

    The age is the time since the host joined, or became healthy again after
    that.  MOSN counts from the last health check that was passed, so that slow
    start has no effect for its tunnel hosts.

    @ivar window: seconds until a host has its whole weight.
    @ivar aggression: 1 for a weight that grows evenly; above 1 it grows faster
        at first, below 1 more slowly.
    @ivar least: the part of its weight that a host has from the beginning, from
        0 to 1.
    """

    window: float
    aggression: float = 1.0
    least: float = 0.1

    def factor(self, age: float) -> float:
        """
        Return the fraction of its weight that a host has; it never shrinks with age.

        @param age: in seconds.
        @return: above 0 and up to 1.
        """
        if age >= self.window or self.window <= _YOUNGEST:
            return 1.0
        part: float = (max(_YOUNGEST, age) / self.window) ** (1 / self.aggression)
        return min(1.0, max(self.least, part))
