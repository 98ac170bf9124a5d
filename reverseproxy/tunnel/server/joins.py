"""
How many connections may join in a second: pure, given the time.

When a server comes back, or a network does, all agents do at once.  To let a
connection join takes so much (the handshake, the credential, the bookkeeping)
that requests on those that have joined would wait for it.  So joins are spread:
one that is too early waits a little, or is told when to come back, each at
another time, so that the returns are as even as joins may be.
"""

from __future__ import annotations

__all__ = ["LONG_PATIENCE", "PATIENCE", "JoinGate", "JoinRate"]

from typing import Final

from reverseproxy.tunnel.handshake import Hangup, Refusal
from reverseproxy.wire.mosn.frames import Status

PATIENCE: Final = 1.0
"""Seconds that an agent of ours waits for its turn to join, rather than being told to come back."""

LONG_PATIENCE: Final = 10.0
"""Seconds that other agents wait for it at the most; MOSN's wait 15 s for an answer."""


class JoinGate:
    """
    A token bucket that promises tokens of the future.

    It holds no queue, only until when the tokens are given away: to those that
    have joined or wait to (C{_booked}), and to those that were sent away
    (C{_promised}).  A promise is not kept for anyone: others may come in the
    meantime, and then it is made again, for a later time.
    """

    def __init__(self, per_second: float, burst: float = 1.0) -> None:
        """
        @param per_second: joins in a second, in the long run; 0 for any number.
        @param burst: for how many seconds joins may be saved up in a quiet time.
        """
        self._interval = 1.0 / per_second if per_second > 0 else 0.0
        self._saved = burst
        self._booked = self._promised = float("-inf")

    def credit(self) -> None:
        """
        Let one more join, as one has left that will be replaced.

        For connections that are used up, as TCP sessions do with those of plain
        agents: however many there are of these in a second, they are no storm.
        When many leave at one moment, that counts for no more than what is
        saved up in a quiet time.
        """
        self._booked -= self._interval

    def ask(self, now: float, patience: float) -> float:
        """
        Ask to join.

        @param now: the time in seconds.
        @param patience: how long the connection can wait, in seconds.
        @return: in how many seconds it may join; or, if that would be longer
            than it can wait, minus the number of seconds after which it should
            come back.
        """
        if not self._interval:
            return 0.0
        booked = max(self._booked, now - self._saved)
        wait = max(booked + self._interval - now, 0.0)
        if wait <= patience:
            self._booked = booked + self._interval
            return wait
        self._promised = max(self._promised, now + wait) + self._interval
        return now - self._promised


class JoinRate:
    """
    When an agent may join, or when it is to come back.

    @ivar longest_wait: how long an agent that can't be told to come back is kept
        waiting, in seconds.
    """

    def __init__(self, per_second: float, handshake_timeout: float, most_pending: int) -> None:
        """
        @param per_second: joins in a second, in the long run; 0 for any number.
        @param handshake_timeout: seconds for a whole handshake.
        @param most_pending: how many connections may be in their handshakes; those that wait are
            no more than half of them.
        """
        self._per_second = per_second
        self._gate = JoinGate(per_second)
        waiting = most_pending / 2
        self.longest_wait = min(LONG_PATIENCE, handshake_timeout / 2, waiting / (per_second or waiting))

    def take_over(self, newer: JoinRate) -> None:
        """Have the limits of another one; who has a turn keeps it, unless the rate is another."""
        if newer._per_second != self._per_second:
            self._per_second, self._gate = newer._per_second, newer._gate
        self.longest_wait = newer.longest_wait

    def credit(self) -> None:
        """See L{JoinGate.credit}."""
        self._gate.credit()

    def ask(self, now: float, ours: bool) -> float | Refusal | Hangup:
        """
        Ask to join.

        An agent of ours is told when to come back, if its turn is not soon.  One of
        MOSN's is kept waiting, and if that would take too long, it is cut off.

        @param now: the time in seconds.
        @param ours: whether the agent is one of ours.
        @return: in how many seconds it may join, or why it may not.
        """
        wait = self._gate.ask(now, PATIENCE if ours else self.longest_wait)
        if wait >= 0:
            return wait
        if ours:
            return Refusal(
                Status.UNKNOWN, f"too many join at once, it is to come back in {-wait:.1f} s", -wait
            )
        return Hangup("too many join at once", "too_many")
