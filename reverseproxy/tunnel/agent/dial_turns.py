"""
A limit of concurrent attempts to connect to one server.

Dialling and handshakes cost CPU time at both ends, and messages on connections that serve, such as
pongs, wait behind them. Ten thousand connections that are dialled at once are answered at once, too;
meanwhile the serving ones seem dead to their server. So an attempt waits for its turn, and has it until
it has succeeded or failed.

The limit is for one server: one that does not answer delays no other.
"""

from __future__ import annotations

__all__ = ["AT_ONCE", "DialTurns", "DialTurn"]

from typing import Final

from twisted.internet.defer import Deferred, succeed

AT_ONCE: Final = 64
"""
Attempts in progress at one server.

With a round trip of 100 ms and TLS that is some 150 connections per second.
"""


class DialTurn:
    """
    The turn of one attempt.

    C{end} may be called again: an attempt can fail in several ways at once.
    """

    __slots__ = ("_turns",)

    def __init__(self, turns: DialTurns) -> None:
        self._turns: DialTurns | None = turns

    def end(self) -> None:
        """End the turn: the attempt has succeeded or failed."""
        turns, self._turns = self._turns, None
        if turns is not None:
            turns._ended()


class DialTurns:
    """
    A semaphore whose turns are given in the order of requests.

    @ivar taken: how many turns are given.
    """

    def __init__(self, most: int = AT_ONCE) -> None:
        self._most = most
        self._waiting: dict[Deferred[DialTurn], None] = {}  # in order, with removal in constant time
        self._giving = False
        self._closed = False
        self.taken = 0

    @property
    def waiting(self) -> int:
        """How many attempts wait for their turn."""
        return len(self._waiting)

    def take(self) -> Deferred[DialTurn]:
        """
        Ask for a turn.

        @return: fires with the turn. Cancelling leaves the queue.
        """
        if self.taken < self._most:
            self.taken += 1
            return succeed(DialTurn(self))
        turn: Deferred[DialTurn] = Deferred(lambda turn: self._waiting.pop(turn, None))
        self._waiting[turn] = None
        return turn

    def close(self) -> None:
        """Give no more turns; waiting attempts are cancelled by their owners."""
        self._closed = True

    def _ended(self) -> None:
        self.taken -= 1
        if self._giving or self._closed:
            return  # if giving: an attempt has failed at once, and the loop below continues
        self._giving = True
        while self._waiting and self.taken < self._most:
            turn = next(iter(self._waiting))
            del self._waiting[turn]
            self.taken += 1
            turn.callback(DialTurn(self))
        self._giving = False
