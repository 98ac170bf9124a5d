"""
How many connections may join in a second: pure, given the time.

When a server comes back, or a network does, all agents do at once.  To let a
connection join takes so much (the handshake, the credential, the bookkeeping)
that requests on those that have joined would wait for it.  So joins are spread:
one that is too early waits a little, or is told when to come back, each at
another time, so that the returns are as even as joins may be.
"""

from __future__ import annotations

__all__ = ["JoinGate"]


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
