"""
How much a peer may do that is of no use to anybody.

Nothing of it is against the rules of yamux, and each frame of it may have its reason. All of
it together has a bound, which comes back with the time and with what is of use.
"""

from __future__ import annotations

__all__ = ["LATE", "MAX_USELESS", "REPEATED", "RESETS_PER_SECOND", "USELESS_PER_SECOND", "Abuse"]

from typing import Final

from reverseproxy.errors import MuxError
from reverseproxy.wire.budget import Budget
from reverseproxy.wire.yamux.events import GoAwayCode

RESETS_PER_SECOND: Final = 1000.0
"""
How fast used up resets come back, besides one for each stream that was of use; see C{max_resets} of
L{MuxLimits<reverseproxy.wire.yamux.events.MuxLimits>}.
"""

MAX_USELESS: Final = 1000
"""
Frames at once that serve no stream: pings, credit of nothing, data of no bytes, repeated GoAways.

Those that a peer may well send now and then, as it could not know better, count
for a L{LATE}th of one.
"""

USELESS_PER_SECOND: Final = 50.0
"""How fast used up L{MAX_USELESS} come back, besides one for each read with data."""

LATE: Final = 0.1
"""What a frame counts for that is for a stream that is over, or that opens one which is refused."""

REPEATED: Final = 50
"""What a GoAway counts for behind the first one."""


class Abuse:
    """
    What one peer has done of that.

    @ivar resets: streams that the peer has opened and broken off before they were of any use, over those
        that were of use, as of the last time that it was asked about.
    @ivar useless: what all else of it may cost; a read that has data earns some.
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
        The peer makes us work for nothing.

        @param what: what there should be less of.
        @param now: seconds.
        @raise MuxError: if that is too much.
        """
        if not self.useless.spend(now, cost):
            raise MuxError(f"expected fewer {what}", GoAwayCode.PROTOCOL_ERROR)

    def charge_reset(self, now: float) -> None:
        """The peer has broken a stream off that was of no use yet."""
        if not self.resets:
            self._reset_at = now
        self.resets += 1

    def earn_stream(self) -> None:
        """A stream was of use."""
        if self.resets > 0:
            self.resets -= 1

    def bars_streams(self, now: float) -> bool:
        """Find whether the peer has broken off too many streams, of late, to open another."""
        if self.resets < self._max_resets:
            return False
        self.resets = max(0.0, self.resets - (now - self._reset_at) * RESETS_PER_SECOND)
        self._reset_at = now
        return self.resets >= self._max_resets
