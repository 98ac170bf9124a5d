"""
Streams between workers: each opens with a message, and what follows is up to that.

    worker that opens it                      worker that accepts it
    {"hello": 1, "worker": 0}                 {"hello": 1, "worker": 1}, then messages both ways
    {"open": address, "cluster": ...}         {"ok": true}, then bytes both ways
    {"lease": address or null, ...}           {"ok": address, "loan": 7}; see L{reverseproxy.workers.lending}

Instead of C{ok} there may be C{{"refused": reason}}, and the stream ends.
"""

from __future__ import annotations

__all__ = ["Asking", "Incoming", "VERSION"]

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.cluster.handover import Handover
from reverseproxy.errors import WireError
from reverseproxy.workers.messages import Message, MessageReader, encode

log = Logger()

VERSION: Final = 1
"""The version of what workers say to one another; they are restarted together, if it changes."""


class Incoming(Handover):
    """A stream that a sibling has opened, until it has said what for."""

    transport: Any

    def __init__(self, opened: Callable[[Incoming, Message], object]) -> None:
        """
        @param opened: takes the stream over, given its first message; for the
            bytes behind it, see L{rest}.
        """
        self._opened = opened
        self._reader = MessageReader()

    def dataReceived(self, data: bytes) -> None:
        """Wait for the first message."""
        self._reader.feed(data)
        message = self._reader.next()
        if message is not None:
            self._opened(self, message)

    def rest(self) -> bytes:
        """Take what has come behind the first message."""
        return self._reader.rest()

    def refuse(self, reason: str) -> None:
        """Say why not, and end the stream."""
        self.transport.write(encode({"refused": reason}))
        self.transport.loseConnection()


class Asking(Handover):
    """A stream that asks a sibling for something, and waits for the answer."""

    transport: Any

    def __init__(
        self,
        question: Message,
        answered: Callable[[Message, bytes], object],
        refused: Callable[[str], object],
    ) -> None:
        """
        @param answered: called with the answer and the bytes behind it, if it
            is C{ok}.
        @param refused: called with the reason, if it is not, or the stream is
            lost before.  One of the two is called, once, unless the stream is
            given up with L{cancel}.
        """
        self._question = question
        self._answered = answered
        self._refused = refused
        self._reader = MessageReader()
        self._over = False

    def connectionMade(self) -> None:
        """Ask."""
        self.transport.write(encode(self._question))

    def dataReceived(self, data: bytes) -> None:
        """Wait for the answer."""
        if self._over:
            return
        self._reader.feed(data)
        try:
            answer = self._reader.next()
        except WireError as error:
            log.error("{reason}", reason=str(error))
            self._end(str(error))
            return
        if answer is None:
            return
        if "ok" in answer:
            self._over = True
            self._answered(answer, self._reader.rest())
        else:
            self._end(str(answer.get("refused", "no answer")))

    def _end(self, reason: str) -> None:
        self._over = True
        self.transport.abortConnection()
        self._refused(reason)

    def cancel(self) -> None:
        """Want no answer any more."""
        if not self._over:
            self._over = True
            if self.connected:
                self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """There will be no answer, or what followed it is over."""
        super().connectionLost(reason)
        if not self._over:
            self._over = True
            self._refused(reason.getErrorMessage())
