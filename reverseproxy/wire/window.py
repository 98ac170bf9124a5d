"""
How large a window has to be: for HTTP/2 and for yamux alike.

A sender may have as much on its way as its window has.  One that is smaller than
what the way holds, its rate times its round trip, makes the sender rest until
it hears of more room.  So a window grows where the way is long and fast, and
only there, and only while whoever receives keeps up, as it is measured by what
was passed on:

  - It is at least L{ENOUGH} times as large as what was passed on within a round
    trip.  Where that takes long, and a third of a window was passed on, so that it
    may well be what holds the sender up, it becomes L{RAMP} times as large: it
    is ahead of the sender then within a few round trips.
  - If it is more than L{TOO_MUCH} times as large as what is passed on in a round
    trip, it shrinks again: no credit is given for most of what is passed on.
    What a slow reader has us keep so comes down to a few round trips' worth,
    and at last to what the window was at first.

All windows of a connection have an allowance in common, and all connections of
a process a L{Reserve}.  Whoever wants more takes of what is left.  When nothing
is, those that have more than their share shrink until others have theirs.

A round trip that is too long makes windows larger than they need to be, within
these bounds; one that is too short makes transfers slow.  A peer that lies
about it, by answering late, gains nothing else.  The least of some time counts,
as answers wait behind data.

Nothing here knows frames, or the time: both are given.
"""

from __future__ import annotations

__all__ = [
    "ENOUGH",
    "LONG",
    "PROBE_EVERY",
    "QUICK",
    "RAMP",
    "RESERVE",
    "RTT_LASTS",
    "SCARCE",
    "SETTLES",
    "SHORTEST",
    "TELL_EVERY",
    "TOLD_AFTER",
    "TOO_MUCH",
    "Growth",
    "Reserve",
    "Round",
]

from math import inf
from typing import Final

ENOUGH: Final = 4
"""A window is large enough with so many times what passes in a round trip."""

TOO_MUCH: Final = 8
"""One with more times than that shrinks."""

RAMP: Final = 32
"""
As many times what was passed on a window becomes that may be what holds the sender up.

That is for round trips of at least L{LONG}, and windows up to L{QUICK}.
"""

QUICK: Final = 32 * 1024 * 1024
"""
Bytes that a window may have before it is certain that its reader keeps up.

The kernel takes some of what is passed on, also to readers that take nothing.
"""

LONG: Final = 0.01
"""Seconds of a round trip from which on it matters how many of them it takes until windows have grown."""

SHORTEST: Final = 0.001
"""
Seconds of a round trip at the least.

Both ends are busy with something else for about so long before they look at what
has come; and what comes with one read may have been on its way for as long.
"""

PROBE_EVERY: Final = 10.0
"""Seconds between two questions for the round trip, which are asked only while data comes."""

RTT_LASTS: Final = 60.0
"""Seconds after which a round trip is replaced by one that takes longer."""

SETTLES: Final = 4
"""Round trips after which a window that has grown can be judged."""

SCARCE: Final = 2.0
"""Seconds for which those that have more shrink, after one has got less than it wanted."""

TOLD_AFTER: Final = 256 * 1024
"""
Bytes that are passed on of a window, however large it is, before the peer is told of them.

To be told costs next to nothing for so many bytes.  A peer that has been told
nothing for long takes it that its reader stands still.
"""

TELL_EVERY: Final = 5.0
"""
Seconds after which a peer hears what slow readers have taken of what it sent, however little.

Servers give up on clients that open no window for a minute.
"""

RESERVE: Final = 512 * 1024 * 1024
"""Bytes by which the windows of all streams of a process may be larger than at first."""


class Reserve:
    """
    A number of bytes that all windows of a process may be larger together.

    @ivar limit: the number.
    @ivar taken: how many of them they are.
    @ivar streams: how many have grown, or wanted to.
    """

    __slots__ = ("_scarce_until", "limit", "streams", "taken")

    def __init__(self, limit: int = RESERVE) -> None:
        self.limit = limit
        self.taken = 0
        self.streams = 0
        self._scarce_until = -inf

    def take(self, size: int, now: float) -> int:
        """Take some bytes, or what is left; return how many."""
        left = self.limit - self.taken
        if size > left:
            self._scarce_until = now + SCARCE
            size = max(0, left)
        self.taken += size
        return size

    def give_back(self, size: int) -> None:
        """Give some bytes back."""
        self.taken -= size

    def share(self, now: float) -> int:
        """How many bytes one stream may have; the limit, while nobody wants for them."""
        if now >= self._scarce_until:
            return self.limit
        return self.limit // max(1, self.streams)


class Round:
    """
    What has passed of one stream since a certain time.

    @ivar since: seconds.
    @ivar window: bytes that its window had then.
    @ivar passed: bytes.
    @ivar settled: when the window can be judged to be too large.
    """

    __slots__ = ("passed", "settled", "since", "window")

    def __init__(self, since: float, window: int) -> None:
        self.since = self.settled = since
        self.window = window
        self.passed = 0

    def restart(self, now: float, window: int) -> None:
        """Begin again."""
        self.since = now
        self.window = window
        self.passed = 0


class Growth:
    """
    The windows of one connection's streams.

    @ivar rtt: seconds of a round trip; L{None} if not known: then nothing grows.
    @ivar first: bytes of a window to begin with.
    @ivar grown: bytes by which all windows together are larger than that.
    """

    __slots__ = (
        "_most",
        "_probed_at",
        "_reserve",
        "_rtt_at",
        "_shared",
        "_used",
        "_wanting",
        "first",
        "grown",
        "rtt",
    )

    def __init__(self, first: int, most: int, allowance: int, reserve: Reserve) -> None:
        """
        @param most: bytes that a window may have.
        @param allowance: bytes by which all windows together may grow.
        @param reserve: which bounds that for the whole process.
        """
        self.rtt: float | None = None
        self.first = first
        self.grown = 0
        self._most = max(first, most)
        self._shared = Reserve(allowance)  # of this connection's streams
        self._reserve = reserve
        self._wanting: dict[int, None] = {}  # streams that have grown, or wanted to
        self._rtt_at = -inf
        self._probed_at = -inf
        self._used = False  # since then

    # the round trip

    def due(self, now: float) -> bool:
        """
        Find whether it is time to ask the peer for the round trip.

        If so, it is assumed that it is asked.
        """
        if not self._used or now - self._probed_at < PROBE_EVERY:
            return False
        self._probed_at = now
        self._used = False
        return True

    def measured(self, rtt: float, now: float) -> None:
        """The peer took some seconds for its answer: the least of some time counts."""
        if rtt > 0 and (self.rtt is None or rtt <= self.rtt or now - self._rtt_at > RTT_LASTS):
            self.rtt = max(rtt, SHORTEST)
            self._rtt_at = now

    # windows

    def threshold(self, window: int) -> int:
        """
        How many bytes of a window have to be passed on before the peer is told of them.

        That is half of it at the most.
        """
        return max(1, min(window // 2, TOLD_AFTER))

    def change(self, number: int, window: int, part: Round, credit: int, now: float) -> int:
        """
        Find out how a window has to change.

        @param number: the stream's.
        @param window: bytes that it has.
        @param part: what was passed on of it so far; this brings it up to date.
        @param credit: bytes that were passed on since the last time.
        @param now: seconds.
        @return: by how many bytes it is to be larger; if less than nothing, of
            how many of C{credit} the peer is not to be told, which are never all.
        """
        self._used = True
        rtt = self.rtt
        elapsed = now - part.since
        if rtt is None or elapsed < 0:
            part.restart(now, window)
            return 0
        passed = part.passed + credit
        had = part.window
        whole = elapsed >= rtt
        if whole:
            part.restart(now, window)
            passed = int(passed * rtt / elapsed)
        else:
            part.passed = passed  # and more may come yet
        wanted = ENOUGH * passed
        if rtt >= LONG and 3 * passed >= had:
            wanted = max(wanted, min(RAMP * passed, QUICK))
        if wanted > window and (whole or rtt > SHORTEST):
            more = self._grow(number, window, wanted, now)
            if more:
                part.settled = now + SETTLES * rtt
                return more
        if window == self.first:
            return 0
        bound = self.first + min(self._shared.share(now), self._reserve.share(now))
        if whole and now >= part.settled:
            bound = min(bound, TOO_MUCH * passed)
        return -self._shrink(window - max(bound, self.first), credit)

    def _grow(self, number: int, window: int, wanted: int, now: float) -> int:
        shared, reserve = self._shared, self._reserve
        if number not in self._wanting:
            self._wanting[number] = None
            shared.streams += 1
            reserve.streams += 1
        bound = min(self._most, self.first + min(shared.share(now), reserve.share(now)))
        more = shared.take(max(0, min(wanted, bound) - window), now)
        if more:
            taken = reserve.take(more, now)
            shared.give_back(more - taken)
            more = taken
            self.grown += more
        return more

    def _shrink(self, size: int, credit: int) -> int:
        # A little is given in any case: some senders give up if they hear of nothing for long.
        size = min(size, credit - max(1, credit // 16))
        if size <= 0:
            return 0
        self._give_back(size)
        return size

    def _give_back(self, size: int) -> None:
        self.grown -= size
        self._shared.give_back(size)
        self._reserve.give_back(size)

    def forget(self, number: int, window: int) -> None:
        """A stream is over, whose window had so many bytes."""
        if number in self._wanting:
            del self._wanting[number]
            self._shared.streams -= 1
            self._reserve.streams -= 1
            self._give_back(window - self.first)

    def close(self) -> None:
        """All streams are over."""
        self._reserve.streams -= len(self._wanting)
        self._shared.streams = 0
        self._wanting.clear()
        self._give_back(self.grown)
