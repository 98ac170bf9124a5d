"""
How many connections to one server are being made at a time.

To dial and to greet takes work at both ends, and what both ends say of each
connection once it serves, such as that they are there, has to wait behind that.
Ten thousand connections that are dialled at one moment are answered in one
moment, too, in which nobody hears from those that serve already, and their
server takes them for dead.  So an attempt waits for its turn, and has it until
it has succeeded or failed.

Turns are those of one server: one that does not answer keeps nobody from
another.
"""

from __future__ import annotations

__all__ = ["AT_ONCE", "DialTurns", "DialTurn"]

from typing import Final

from twisted.internet.defer import Deferred, succeed

AT_ONCE: Final = 64
"""
Attempts under way at one server.

With a round trip of 100 ms and TLS that is some 150 connections in a second.
"""


class DialTurn:
    """
    One attempt's.

    C{end} may be called again: an attempt can fail in several ways at one time.
    """

    __slots__ = ("_turns",)

    def __init__(self, turns: DialTurns) -> None:
        self._turns: DialTurns | None = turns

    def end(self) -> None:
        """The attempt is over, one way or the other."""
        turns, self._turns = self._turns, None
        if turns is not None:
            turns._ended()


class DialTurns:
    """
    Lets so many have a turn at a time, in the order in which they have asked.

    @ivar taken: how many have one.
    """

    def __init__(self, most: int = AT_ONCE) -> None:
        self._most = most
        self._waiting: dict[Deferred[DialTurn], None] = {}  # in order, and each found at once
        self._giving = False
        self._closed = False
        self.taken = 0

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._waiting)

    def take(self) -> Deferred[DialTurn]:
        """
        Ask for a turn.

        @return: fires once it has come.  Cancelling gives up the place in the queue.
        """
        if self.taken < self._most:
            self.taken += 1
            return succeed(DialTurn(self))
        turn: Deferred[DialTurn] = Deferred(lambda turn: self._waiting.pop(turn, None))
        self._waiting[turn] = None
        return turn

    def close(self) -> None:
        """Give nobody a turn any more: those who have one end, and those who wait give up, one by one."""
        self._closed = True

    def _ended(self) -> None:
        self.taken -= 1
        if self._giving or self._closed:
            return  # if giving: an attempt that has failed at once; whoever has given it its turn goes on
        self._giving = True
        while self._waiting and self.taken < self._most:
            turn = next(iter(self._waiting))
            del self._waiting[turn]
            self.taken += 1
            turn.callback(DialTurn(self))
        self._giving = False
