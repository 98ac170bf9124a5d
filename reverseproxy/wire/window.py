"""
How large a receive window has to be, for HTTP/2 and yamux alike.

A sender may have as many bytes in flight as the window has.  With a window smaller
than the bandwidth-delay product, the rate times the round trip, the sender pauses
until it gets more credit.  So a window grows where the round trip is long and the
rate high, and only there, and only while the receiver keeps up, measured by the
bytes that were passed on:

  - It is at least L{ENOUGH} times as large as what was passed on in a round trip.
    Where the round trip is long, and a third of the window was passed on in it, the
    window may be what limits the sender: it becomes L{RAMP} times as large, and is
    no limit after a few round trips.
  - If it is more than L{TOO_MUCH} times as large as what was passed on in a round
    trip, it shrinks again: no credit is given for most of what is passed on.  So
    what a slow reader makes us buffer comes down to a few round trips' worth,
    and at last to the initial window.

All windows of a connection share an allowance, and all connections of a process a
L{Reserve}.  A window grows by what is left of these.  When nothing is left, windows
with more than an equal share shrink until others have theirs.

A round trip measured too long makes windows larger than they need to be, within
these bounds; one measured too short makes transfers slow.  A peer that answers
late on purpose gains nothing else.  The minimum over some time counts, as answers
wait behind data.

Pure: knows no frames, and is given the time.
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
"""A window is large enough with so many times the bytes that are passed on in a round trip."""

TOO_MUCH: Final = 8
"""A window with more times than that shrinks."""

RAMP: Final = 32
"""
How many times the bytes passed on in a round trip a window becomes that may limit the sender.

For round trips of at least L{LONG}, and windows up to L{QUICK}.
"""

QUICK: Final = 32 * 1024 * 1024
"""
Bytes that a window may grow to by L{RAMP}, before it is certain that its reader keeps up.

The kernel buffers some of what is passed on, even to a reader that does not read.
"""

LONG: Final = 0.01
"""Seconds of a round trip from which on windows grow by L{RAMP}."""

SHORTEST: Final = 0.001
"""
The shortest round trip in seconds that is assumed.

An end may be busy for about that long before it reads.
"""

PROBE_EVERY: Final = 10.0
"""Seconds between two measurements of the round trip, which are made only while data comes."""

RTT_LASTS: Final = 60.0
"""Seconds after which a measured round trip is replaced by a longer one."""

SETTLES: Final = 4
"""Round trips after which a window that has grown can be judged."""

SCARCE: Final = 2.0
"""Seconds for which windows with more than their share shrink, after one could not grow as it should."""

TOLD_AFTER: Final = 256 * 1024
"""
Bytes that are passed on before the peer is given credit for them, however large the window is.

A frame costs next to nothing for so many bytes.  Some peers take a reader that
gives no credit for long for dead.
"""

TELL_EVERY: Final = 5.0
"""
Seconds after which a peer is given credit for what slow readers have taken, however little.

Some servers give up on clients that open no window for a minute.
"""

RESERVE: Final = 512 * 1024 * 1024
"""Bytes by which the windows of all streams of a process may be larger than the initial ones."""


class Reserve:
    """
    The bytes by which windows may grow, shared by all windows of a process or a connection.

    @ivar limit: how many there are.
    @ivar taken: how many windows have grown by.
    @ivar streams: how many streams have grown, or should have.
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
        """Return how many bytes one stream may take: an equal share while they are scarce, else the limit."""
        if now >= self._scarce_until:
            return self.limit
        return self.limit // max(1, self.streams)


class Round:
    """
    How much of one stream was passed on since a certain time.

    @ivar since: that time, in seconds.
    @ivar window: the window in bytes at that time.
    @ivar passed: bytes that were passed on since.
    @ivar settled: the time from which on the window can be found too large.
    """

    __slots__ = ("passed", "settled", "since", "window")

    def __init__(self, since: float, window: int) -> None:
        self.since = self.settled = since
        self.window = window
        self.passed = 0

    def restart(self, now: float, window: int) -> None:
        """Start a new measurement."""
        self.since = now
        self.window = window
        self.passed = 0


class Growth:
    """
    Decides how large the windows of one connection's streams are.

    @ivar rtt: the round trip in seconds; L{None} if it is not known: then no window grows.
    @ivar first: bytes of the initial window.
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
        @param most: bytes of the largest window.
        @param allowance: bytes by which all windows of the connection together may grow.
        @param reserve: the same for the whole process.
        """
        self.rtt: float | None = None
        self.first = first
        self.grown = 0
        self._most = max(first, most)
        self._shared = Reserve(allowance)  # of this connection's streams
        self._reserve = reserve
        self._wanting: dict[int, None] = {}  # streams that have grown, or should have
        self._rtt_at = -inf
        self._probed_at = -inf
        self._used = False  # data has come since then

    # the round trip

    def due(self, now: float) -> bool:
        """
        Return whether it is time to measure the round trip.

        If so, the caller has to do it.
        """
        if not self._used or now - self._probed_at < PROBE_EVERY:
            return False
        self._probed_at = now
        self._used = False
        return True

    def measured(self, rtt: float, now: float) -> None:
        """Note a measured round trip in seconds; the minimum over L{RTT_LASTS} counts."""
        if rtt > 0 and (self.rtt is None or rtt <= self.rtt or now - self._rtt_at > RTT_LASTS):
            self.rtt = max(rtt, SHORTEST)
            self._rtt_at = now

    # windows

    def threshold(self, window: int) -> int:
        """
        Return how many bytes of a window have to be passed on before credit is given.

        That is at most half of the window.
        """
        return max(1, min(window // 2, TOLD_AFTER))

    def change(self, number: int, window: int, part: Round, credit: int, now: float) -> int:
        """
        Decide how a window changes, when credit is given.

        @param number: the stream's number.
        @param window: the window in bytes.
        @param part: the stream's measurement, which is updated.
        @param credit: bytes that were passed on since the last call.
        @param now: the time in seconds.
        @return: by how many bytes the window is to grow; if negative, for how many bytes of
            C{credit} none is to be given, which are never all.
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
        # A little credit is given in any case: some senders give up without any for long.
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
        """Give back what the window of a stream has grown by, as the stream is over."""
        if number in self._wanting:
            del self._wanting[number]
            self._shared.streams -= 1
            self._reserve.streams -= 1
            self._give_back(window - self.first)

    def close(self) -> None:
        """Give back what all windows have grown by, as the connection is over."""
        self._reserve.streams -= len(self._wanting)
        self._shared.streams = 0
        self._wanting.clear()
        self._give_back(self.grown)
