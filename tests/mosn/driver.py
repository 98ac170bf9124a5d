"""Puts the ends of a conversation on real connections."""

from __future__ import annotations

__all__ = ["TalkProtocol"]

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from tests.mosn.http2 import Http2Asker
from tests.mosn.rpc import RpcAsker
from tests.mosn.talk import Answerer, Asker, Talk, Unexpected

HASTE = 0.005
"""Seconds after which the rest of an HTTP/2 beginning follows, if the other end has not spoken by then."""


class TalkProtocol(Protocol):
    """
    Writes the pieces of a L{Talk} as pieces.

    Each piece has a turn of the reactor of its own, as each is a system call of
    MOSN's; what the other end makes of them, one read or several, is up to it.

    @ivar failed: why this connection could not be used as it should.
    @ivar lost: whether it is closed.
    @ivar changed: called with this connection whenever it may be usable again, or is closed.
    """

    transport: Any

    def __init__(self, clock: IReactorTime, talk: Talk, hurried: bool = False, haste: float = HASTE) -> None:
        """
        @param hurried: whether the first piece goes out with what was written before.
        @param haste: see L{HASTE}.
        """
        self.talk = talk
        self._haste = haste
        self._hurried = hurried
        self.failed: Failure | None = None
        self.lost = False
        self.changed: Callable[[TalkProtocol], object] = lambda _: None
        self._clock = clock
        self._queue: deque[bytes] = deque()
        self._writing = False
        self._dropped = False
        self._waiting: set[Deferred[bytes]] = set()

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        if isinstance(self.talk, Asker):
            self.talk.begin()
        if self._hurried:
            self._flush()
        else:
            self._writing = True
            self._clock.callLater(0, self._first_turn)
        if isinstance(self.talk, Http2Asker) and self.talk.hesitates:
            self._clock.callLater(self._haste, self._say_the_rest)

    def _first_turn(self) -> None:
        self._writing = False
        self._flush()

    def _say_the_rest(self) -> None:
        assert isinstance(self.talk, Http2Asker)
        self.talk.say_the_rest()
        self._flush()
        self.changed(self)

    @property
    def usable(self) -> bool:
        """Whether a request may be sent."""
        talk = self.talk
        assert isinstance(talk, Asker)
        if self.lost or talk.spent or (isinstance(talk, Http2Asker) and talk.hesitates):
            return False
        return talk.under_way < talk.at_once

    def dataReceived(self, data: bytes) -> None:
        try:
            self.talk.feed(data)
        except Exception:
            self.fail(Failure())
        else:
            self._flush()
            self.changed(self)

    def fail(self, reason: Failure) -> None:
        """Give up on this connection."""
        self.failed = self.failed or reason
        self.transport.abortConnection()

    def _flush(self) -> None:
        self._queue.extend(self.talk.take())
        if not self._writing:
            self._write()

    def _write(self) -> None:
        self._writing = False
        if self.lost:
            return
        if self._queue:
            self.transport.write(self._queue.popleft())
            self._writing = True
            self._clock.callLater(0, self._write)
        elif self.talk.spent and not (isinstance(self.talk, Asker) and self.talk.under_way):
            self.transport.loseConnection()

    def ask(self, body: bytes) -> Deferred[bytes]:
        """Send a request; fires with the body of the answer."""
        assert isinstance(self.talk, Asker)
        answer: Deferred[bytes] = Deferred()
        if self.lost:
            answer.errback(self.failed or Failure(Unexpected("the connection is closed")))
            return answer
        self._waiting.add(answer)
        self.talk.ask(body, partial(self._answered, answer))
        self._flush()
        return answer

    def _answered(self, answer: Deferred[bytes], body: bytes) -> None:
        self._waiting.remove(answer)
        answer.callback(body)

    def drop(self) -> None:
        """Close the connection in mid-request, on purpose."""
        self._dropped = True
        self.transport.abortConnection()

    def release(self) -> None:
        """Send the answers that wait."""
        assert isinstance(self.talk, Answerer)
        self.talk.release()
        self._flush()

    def go_away(self) -> None:
        """Say that no more requests should come."""
        assert isinstance(self.talk, Answerer)
        self.talk.go_away()
        self._flush()

    def heartbeat(self) -> Deferred[bytes]:
        """Send a heartbeat, where the protocol has any; fires with nothing once it is answered."""
        assert isinstance(self.talk, RpcAsker)
        answer: Deferred[bytes] = Deferred()
        self._waiting.add(answer)
        self.talk.beat(partial(self._answered, answer))
        self._flush()
        return answer

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True
        try:
            self.talk.ended()
        except Unexpected:
            if not self._dropped:
                self.failed = self.failed or Failure()
        waiting, self._waiting = self._waiting, set()
        for answer in waiting:
            answer.errback(self.failed or reason)
        self.changed(self)
