"""
How many frames a peer may send that carry nothing, and how many streams it may open in vain.

None of that breaks the rules of yamux, and each frame may have its reason.  All of it together is
limited by a budget, which recovers with time and with useful data.
"""

from __future__ import annotations

__all__ = ["LATE", "MAX_USELESS", "REPEATED", "RESETS_PER_SECOND", "USELESS_PER_SECOND", "Abuse"]

from typing import Final

from reverseproxy.errors import MuxError
from reverseproxy.wire.budget import Budget
from reverseproxy.wire.yamux.events import GoAwayCode

RESETS_PER_SECOND: Final = 1000.0
"""
How many resets a second a peer may go on with once C{max_resets} of
L{MuxLimits<reverseproxy.wire.yamux.events.MuxLimits>} are used up, besides one for each complete stream.
"""

MAX_USELESS: Final = 1000
"""
Frames in a burst that serve no stream: pings, credit of nothing, data of no bytes, repeated GoAways.

Those that a correct peer may send now and then, before it knows of a reset or
a refusal, count as L{LATE} of one.
"""

USELESS_PER_SECOND: Final = 50.0
"""How many a second a peer may go on with once L{MAX_USELESS} are used up; each read with data adds one."""

LATE: Final = 0.1
"""The cost of a frame for a stream that is over, or that opens one which is refused."""

REPEATED: Final = 50
"""The cost of each GoAway but the first one."""


class Abuse:
    """
    The budgets of one peer.

    @ivar resets: how many streams the peer has opened and reset before they were complete, less those
        that were completed, and less what has recovered with time.
    @ivar useless: the budget for all other frames; a read with data earns some of it.
    """

    __slots__ = ("_max_resets", "_reset_at", "resets", "useless")

    def __init__(self, max_resets: int) -> None:
        """
        @param max_resets: see L{MuxLimits<reverseproxy.wire.yamux.events.MuxLimits>}.
        """
        self.resets = 0.0
        self._max_resets = max_resets
        self._reset_at = 0.0
        self.useless = Budget(MAX_USELESS, USELESS_PER_SECOND)

    def charge(self, what: str, now: float, cost: float = 1) -> None:
        """
        Charge the peer for a frame that carries nothing.

        @param what: names such frames in the error.
        @param now: seconds.
        @raise MuxError: if the budget is used up.
        """
        if not self.useless.spend(now, cost):
            raise MuxError(f"expected fewer {what}", GoAwayCode.PROTOCOL_ERROR)

    def charge_reset(self, now: float) -> None:
        """Count a stream that the peer has reset before it was complete."""
        if not self.resets:
            self._reset_at = now
        self.resets += 1

    def earn_stream(self) -> None:
        """Count a stream that was completed."""
        if self.resets > 0:
            self.resets -= 1

    def bars_streams(self, now: float) -> bool:
        """Return whether the peer has reset too many streams of late to open another one."""
        if self.resets < self._max_resets:
            return False
        self.resets = max(0.0, self.resets - (now - self._reset_at) * RESETS_PER_SECOND)
        self._reset_at = now
        return self.resets >= self._max_resets
