"""
The rate limit of joins: pure, given the time.

When a server or a network comes back, all agents come back at once. Joining takes so much CPU time (the
handshake, the credential, the bookkeeping) that requests on connections that have joined would be
delayed. So joins are spread: a connection that is too early waits a little, or is told when to come
back, each at another time.
"""

from __future__ import annotations

__all__ = ["LONG_PATIENCE", "PATIENCE", "JoinGate", "JoinRate"]

from typing import Final

from reverseproxy.tunnel.handshake import Hangup, Refusal
from reverseproxy.wire.mosn.frames import Status

PATIENCE: Final = 1.0
"""Seconds that an agent of this project waits in the handshake, rather than being told to come back."""

LONG_PATIENCE: Final = 10.0
"""Seconds that other agents wait in the handshake, at most; MOSN's expect a response within 15 s."""


class JoinGate:
    """
    A token bucket that assigns future tokens.

    It has no queue, only the times until which tokens are assigned: to connections that have joined or
    wait (C{_booked}), and to those that were told to come back (C{_promised}). The latter are not
    reserved: if others have come in the meantime, the agent is told to come back again.
    """

    def __init__(self, per_second: float, burst: float = 1.0) -> None:
        """
        @param per_second: joins per second in the long run; 0 for no limit.
        @param burst: seconds of quiet time for which tokens are saved.
        """
        self._interval = 1.0 / per_second if per_second > 0 else 0.0
        self._saved = burst
        self._booked = self._promised = float("-inf")

    def credit(self) -> None:
        """
        Let one more connection join, as one has left that will be replaced.

        For connections that are used up, as TCP sessions do with those of agents without streams:
        however many of these there are in a second, they are no storm. If many leave at once, no more is
        credited than is saved in a quiet time.
        """
        self._booked -= self._interval

    def ask(self, now: float, patience: float) -> float:
        """
        Ask for a token.

        @param now: the time in seconds.
        @param patience: how long the connection can wait, in seconds.
        @return: seconds until it may join; or, if that is longer than it can wait, minus the number of
            seconds after which it should come back.
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
    Decides when an agent may join, or comes back.

    @ivar longest_wait: seconds for which an agent is kept waiting that can't be told to come back.
    """

    def __init__(self, per_second: float, handshake_timeout: float, most_pending: int) -> None:
        """
        @param per_second: joins per second in the long run; 0 for no limit.
        @param handshake_timeout: seconds for a whole handshake.
        @param most_pending: connections that may be in their handshakes; no more than half of them wait
            for a token.
        """
        self._per_second = per_second
        self._gate = JoinGate(per_second)
        waiting = most_pending / 2
        self.longest_wait = min(LONG_PATIENCE, handshake_timeout / 2, waiting / (per_second or waiting))

    def take_over(self, newer: JoinRate) -> None:
        """Use the limits of another one; assigned tokens stay, unless the rate differs."""
        if newer._per_second != self._per_second:
            self._per_second, self._gate = newer._per_second, newer._gate
        self.longest_wait = newer.longest_wait

    def credit(self) -> None:
        """See L{JoinGate.credit}."""
        self._gate.credit()

    def ask(self, now: float, ours: bool) -> float | Refusal | Hangup:
        """
        Ask to join.

        An agent of this project that would have to wait for long is told when to come back. A MOSN agent
        is kept waiting, and its connection is closed if that would take too long.

        @param now: the time in seconds.
        @param ours: whether it is an agent of this project.
        @return: seconds until it may join, or the refusal.
        """
        wait = self._gate.ask(now, PATIENCE if ours else self.longest_wait)
        if wait >= 0:
            return wait
        if ours:
            return Refusal(
                Status.UNKNOWN, f"too many join at once, it is to come back in {-wait:.1f} s", -wait
            )
        return Hangup("too many join at once", "too_many")
