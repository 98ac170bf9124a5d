"""
What both ends of HTTP/2 share: the connection, its transport and its timers.

All frames of a read are handled before their results are written, in one write;
if the reactor delivers events in batches, there is one write for a batch.  DATA
frames are made only when the transport has room for them, so that bodies wait
in their streams, subject to their windows and to fair turns, rather than in one
long queue.
"""

from __future__ import annotations

__all__ = ["Http2Protocol"]

from collections.abc import Sequence
from math import inf
from typing import Any, Final

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.handover import Rebindable
from reverseproxy.limits.buffered_bytes import AccountedProtocol
from reverseproxy.logs import loss
from reverseproxy.proxy.lazy_timer import LazyTimer
from reverseproxy.proxy.relay import lose_connection
from reverseproxy.transport import batching_of
from reverseproxy.transport.backlog import NOTHING, Backlog, backlog_of
from reverseproxy.transport.closing import CloseLimits, UnreceivedBytes
from reverseproxy.transport.memory import HELD, HeldBytes
from reverseproxy.wire.http2.connection import ClientConnection, ServerConnection
from reverseproxy.wire.http2.events import Event
from reverseproxy.wire.http2.frames import ErrorCode
from reverseproxy.wire.http2.outbound import TURN
from reverseproxy.wire.window import TELL_EVERY

log = Logger()

MOST_QUEUED: Final = 1024 * 1024
"""
Bytes of heads, resets and the like that may wait for a transport that is full.

Windows bound what waits of bodies only.
"""

LINGER_BYTES = 1024 * 1024
"""
Bytes that are read and dropped behind our last frame.

A connection that is closed with unread bytes is reset, and the reset may destroy
the last frames on their way to the peer.
"""


@implementer(IHalfCloseableProtocol, IPushProducer)
class Http2Protocol(Rebindable, AccountedProtocol):
    """
    One connection.

    @ivar http2: the frames and streams.
    @ivar clock: the time.
    @ivar full: whether the transport holds as much as it should.
    @ivar ending: whether nothing more is read, but for the peer's close.
    @ivar lost: whether the connection is lost.
    @ivar close_limits: how it may end.
    @ivar heard: when something has come the last time.
    @ivar memory: bounds what streams of all connections hold while they are not
        to be passed on.
    """

    transport: Any
    memory: HeldBytes = HELD

    def __init__(
        self, http2: ServerConnection | ClientConnection, clock: IReactorTime, close_limits: CloseLimits
    ) -> None:
        self.http2 = http2
        self.full = False
        self.ending = False
        self.lost = False
        self.clock = clock
        self.close_limits = close_limits
        self.heard = 0.0
        self._last: UnreceivedBytes | None = None  # of what is left for a peer when the connection closes
        self._handling = 0
        self._at_turn_end = batching_of(clock)
        self._to_flush = False  # at the end of the turn
        self._unwanted = 0
        self._held = 0  # as it was reported
        self._tell_at = inf  # when to see what slow readers have taken
        self._timer = LazyTimer(clock, self._timer_fired)
        self._end_by = inf

    # what a subclass does

    def _handle(self, events: Sequence[tuple[int, Event]]) -> None:
        """Handle the events of a read."""
        raise NotImplementedError

    def _stream_drained(self, number: int) -> None:
        """The buffer of a stream has room."""
        raise NotImplementedError

    def _flushed(self) -> None:
        """Everything that may be sent now has been sent."""

    def _next_deadline(self, now: float) -> float:
        """
        Handle the timeouts that have expired, and return when the next one does.

        @return: a time of the clock, or infinity.
        """
        raise NotImplementedError

    def _ended(self, reason: str) -> None:
        """End all streams, as the connection is lost or given up."""
        raise NotImplementedError

    def _waiting(self, number: int) -> int:
        """Return how many bytes that came on a stream are buffered, at most."""
        raise NotImplementedError

    def _shed(self, number: int, reason: str) -> None:
        """End a stream that was reset, as all streams together buffer too much."""
        raise NotImplementedError

    # reading and writing

    def dataReceived(self, data: bytes) -> None:
        """Take what the peer sends."""
        if self.ending:
            self._unwanted += len(data)
            if self._unwanted > LINGER_BYTES:
                self.transport.abortConnection()
            return
        self._handling += 1
        self.heard = now = self.clock.seconds()
        try:
            self._handle(self.http2.feed(data, now))
        finally:
            self._handling -= 1
        if not self.ending:
            self.count(self.http2.unfinished)
        self.flush()

    def flush(self) -> None:
        """
        Write what may be sent, at the end of the reactor's turn.

        Does nothing while something is being handled, after which it is called
        anyway.
        """
        if self._handling or self.lost or self._to_flush:
            return
        if self._at_turn_end is None:
            self._write_out()
        else:
            self._to_flush = True
            self._at_turn_end(self._flush_now)

    def _flush_now(self) -> None:
        self._to_flush = False
        if not (self._handling or self.lost or self.ending):
            self._write_out()

    def _write_out(self) -> None:
        self._handling += 1
        try:
            http2 = self.http2
            while not self.full:
                data = http2.take()
                if data:
                    self.transport.write(data)
                drained = http2.drained
                if drained:
                    http2.drained = []
                    for number in drained:
                        self._stream_drained(number)
                elif len(data) < TURN:
                    break  # that was all
        finally:
            self._handling -= 1
        if http2.held != self._held:
            self._report_held()
        self._flushed()

    @property
    def overfull(self) -> bool:
        """Whether more than L{MOST_QUEUED} bytes wait for the transport, which is full, beside bodies."""
        return self.http2.queued() > MOST_QUEUED

    def backlog_of(self, number: int) -> Backlog:
        """
        Return what of a body the peer has not taken; see L{reverseproxy.transport.backlog}.

        What is on its way, within the stream's window, counts as taken: the peer
        opens the window for it now and then.
        """
        size = self.http2.unsent(number)
        if not size:
            return NOTHING
        # While the connection takes nothing, a stream waits for it, and no matter for which of them.
        below = backlog_of(self.transport).mark if self.full else 0
        return Backlog(size, (size, self.http2.credit(number), below))

    def release(self, number: int) -> None:
        """Deliver what came on a stream since it was held."""
        self.http2.release(number, self.clock.seconds())
        self.flush()

    # IHolder: what waits here for those who do not take it

    def _report_held(self) -> None:
        held = self.http2.held
        more, self._held = held - self._held, held
        if more > 0:
            if self._tell_at == inf:
                self._tell_at = self.clock.seconds() + TELL_EVERY
                self._look_at(self._tell_at)
            self.memory.add(self, more)
        else:
            self.memory.remove(self, -more)

    @property
    def held(self) -> int:
        """See L{reverseproxy.transport.memory.IHolder}."""
        return max(self.http2.holding.values()) if self.http2.held else 0

    def reset(self, reason: str) -> None:
        """See L{reverseproxy.transport.memory.IHolder}; its owner is called in the next reactor turn."""
        holding = self.http2.holding
        if holding:
            number = max(holding, key=lambda each: holding[each])
            self.http2.reset(number, ErrorCode.ENHANCE_YOUR_CALM)
            self._report_held()
            self.clock.callLater(0, self._tell_shed, number, reason)

    def _tell_passed(self, now: float) -> None:
        """
        Open the windows of the peer for what slow readers have taken.

        It goes on to them in one piece, and that all of it was taken may become
        known late, while the peer counts the seconds since it heard of us.
        """
        http2 = self.http2
        for number in http2.holding:
            http2.passed(number, self._waiting(number), now)
        self._tell_at = now + TELL_EVERY if http2.held else inf

    def _tell_shed(self, number: int, reason: str) -> None:
        if not self.ending:
            self._shed(number, reason)
            self.flush()

    def _finish(self, code: ErrorCode, reason: str, linger: bool) -> None:
        """
        Send GOAWAY, and close.

        @param linger: whether the peer may be sending still: the connection is
            then closed in our direction first.
        """
        if self.ending or self.lost:
            return
        self._write_before_end()
        self.http2.close(code, reason)
        self._close(reason, linger)

    def _write_before_end(self) -> None:
        """Write what was left to the end of the turn, bodies among it, as there will be no such end."""
        if self._to_flush:
            self._to_flush = False
            while not self.full and (data := self.http2.take()):
                self.transport.write(data)

    def _close(self, reason: str, linger: bool) -> None:
        """Close behind what is to be sent, but send no more of bodies."""
        if self.ending or self.lost:
            return
        self._write_before_end()
        self.ending = True
        self.count_no_more()
        data = self.http2.take(0)
        transport = self.transport
        if data:
            transport.write(data)
        self._ended(reason)
        if self.lost:
            return
        self._begin_end()
        if linger and hasattr(transport, "loseWriteConnection"):
            transport.unregisterProducer()
            transport.loseWriteConnection()
        else:
            lose_connection(transport)

    def _abort(self, reason: str) -> None:
        """Close now."""
        if not self.lost:
            self.ending = True
            self.count_no_more()
            self.http2.let_go()
            self._ended(reason)
            self.transport.abortConnection()

    def _begin_end(self) -> None:
        last = self._last = UnreceivedBytes(self.close_limits, self.transport)
        last.look()
        self._set_end(self.clock.seconds() + last.period)

    def _set_end(self, deadline: float) -> None:
        self._end_by = deadline
        self._look_at(deadline)

    # timers: one for all streams, which is not moved for each of them

    def _look_at(self, deadline: float) -> None:
        """Check the deadlines at this time, at the latest."""
        if deadline < self._timer.fires_at:
            self._timer.look_at(deadline)

    def _timer_fired(self) -> None:
        now = self.clock.seconds()
        if self._end_by <= now:
            assert self._last is not None
            again = self._last.look()
            if again:
                self._set_end(now + again)
            else:
                self.transport.abortConnection()
            return
        deadline = self._end_by
        if not self.ending:
            self._handling += 1
            try:
                if self._tell_at <= now:
                    self._tell_passed(now)
                deadline = min(deadline, self._tell_at, self._next_deadline(now))
            finally:
                self._handling -= 1
            self.flush()
        if deadline < inf:
            self._look_at(deadline)

    # the transport

    def readConnectionLost(self) -> None:
        """End the streams, as the peer sends no more."""
        if not self.ending:
            self._close("the peer closed its side", linger=False)
        else:
            lose_connection(self.transport)

    def writeConnectionLost(self) -> None:
        """Our direction of the connection is closed; the peer's is awaited."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is lost."""
        if self.lost:
            return
        self.lost = True
        self.count_no_more()
        self.http2.let_go()
        self._timer.stop()
        if not self.ending:
            self.ending = True
            self._ended(f"the connection was lost: {loss(reason)}")
        self.http2.close_windows()
        if self._held:
            self._report_held()

    # IPushProducer: we are the producer of what the peer is to receive

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self.full = True

    def resumeProducing(self) -> None:
        """The transport's buffer has room."""
        self.full = False
        self._flush_now()

    def stopProducing(self) -> None:
        """The connection is lost; C{connectionLost} follows."""
