"""The results of attempts to connect to a server, for operators."""

from __future__ import annotations

__all__ = ["DialResults"]

from typing import Final

from reverseproxy.clock import wall_time

MAX_REASON: Final = 300
"""Characters of the reason for a failed attempt that are kept."""


class DialResults:
    """
    How attempts have ended.

    @ivar counts: the number of attempts, by result.
    @ivar last_error: when the last failure was, in seconds since 1970, and its reason; L{None} before one.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.last_error: tuple[float, str] | None = None

    def note(self, result: str, reason: str) -> None:
        """
        Count an attempt.

        @param result: one of those of L{SlotCore<reverseproxy.tunnel.agent.slot_core.SlotCore>}.
        @param reason: why it has failed; empty if it has not.
        """
        self.counts[result] = self.counts.get(result, 0) + 1
        if reason:
            self.last_error = (wall_time(), reason[:MAX_REASON])
