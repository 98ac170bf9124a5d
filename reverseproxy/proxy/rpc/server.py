"""
The downstream side of RPC protocols: one client connection, many requests at once.

L{RpcProxy} decodes frames and makes an L{RpcExchange} for each request.  Responses
are sent as they come, in whatever order (L{reverseproxy.proxy.rpc.answers}).

Buffers are bounded in both directions: reading is paused from a client that does
not read its responses, or has too much under way (L{UnderWay}).
"""

from __future__ import annotations

__all__ = ["RpcProxy"]

from functools import partial
from operator import methodcaller
from typing import Any, Final

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.handover import Rebindable
from reverseproxy.cluster.message_limits import HEAD_ROOM
from reverseproxy.config.durations import format_duration
from reverseproxy.interfaces import ConnectionInfo, IDrainable, IEndable, IExpendable
from reverseproxy.limits.buffered_bytes import FREE, TRUSTED, UNTRUSTED, AccountedProtocol, BufferAccount
from reverseproxy.limits.refusals import REFUSALS
from reverseproxy.logs import counted, loss
from reverseproxy.net.dead_peers import watch_for_reset
from reverseproxy.proxy.clients import account_of, say_cut_off
from reverseproxy.proxy.closing import note_loss
from reverseproxy.proxy.counting import count
from reverseproxy.proxy.flags import ResponseFlag, who_ended
from reverseproxy.proxy.lazy_timer import LazyTimer
from reverseproxy.proxy.rpc.answers import Answers
from reverseproxy.proxy.rpc.deadlines import Deadlines
from reverseproxy.proxy.rpc.decisions import rpc_exchange_class
from reverseproxy.proxy.rpc.draining import CLOSING, LOST, REFUSING, SERVING, ConnectionDrain, DrainStage
from reverseproxy.proxy.rpc.exchange import RpcExchange
from reverseproxy.proxy.rpc.interfaces import Batch
from reverseproxy.proxy.rpc.outgoing import Outgoing
from reverseproxy.proxy.rpc.read_timeouts import ExpiredTimeout, ReadTimeouts
from reverseproxy.proxy.rpc.settings import RpcSettings
from reverseproxy.proxy.rpc.timed import RpcTimed
from reverseproxy.proxy.rpc.under_way import UnderWay
from reverseproxy.transport.closing import CloseLimits, DelayedClose
from reverseproxy.wire.rpc.xprotocol import Frame, Kind, RpcFrameDecoder

log = Logger()

LINGER_BYTES: Final = 16 * 1024 * 1024
"""Bytes that are read and dropped after the last response, so that no reset destroys it."""


@implementer(IDrainable, IEndable, IExpendable, IHalfCloseableProtocol)
class RpcProxy(Rebindable, AccountedProtocol):
    """
    One client connection; for the attributes see L{reverseproxy.proxy.rpc.interfaces.IRpcOwner}.
    """

    transport: Any

    def __init__(self, settings: RpcSettings, info: ConnectionInfo) -> None:
        clock = settings.clock
        self.settings = settings
        self.info = info
        self.protocol = settings.protocol
        self.batch: Batch | None = None
        self.believed = settings.trust.believes(info)
        self.answers = Answers(settings, self, patient=info.reverse)
        self.deadlines: Deadlines[RpcTimed] = Deadlines(clock, RpcTimed.timed_out)
        self.try_deadlines: Deadlines[RpcTimed] = Deadlines(clock, methodcaller("try_timed_out"))
        self._decoder = RpcFrameDecoder(
            settings.protocol, settings.max_frame + (HEAD_ROOM if info.reverse else 0)
        )
        self._under_way = UnderWay(TRUSTED if info.reverse else UNTRUSTED)
        self._reading = True
        self._unwanted = 0
        self._draining = ConnectionDrain(clock, self._close_if_done)
        self._timeouts = ReadTimeouts(settings)
        self._timer = LazyTimer(clock, self._check_timeouts)
        self._delayed_close: DelayedClose | None = None

    # IDrainable, IExpendable

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return (
            bool(self._under_way.exchanges)
            or bool(self.answers)
            or self.answers.full
            or self._decoder.in_frame
            or self._draining.stage is CLOSING
        )

    @property
    def expendable(self) -> bool:
        """See L{IExpendable}: whether nothing is under way."""
        return not self._under_way.exchanges and not self.answers

    def drain(self) -> None:
        """
        See L{IDrainable}.

        The client is sent GOAWAY, if the protocol has it; see
        L{reverseproxy.proxy.rpc.draining} for when the connection is closed.
        """
        if self._draining.stage is not SERVING:
            return
        goaway = self.protocol.goaway(1)
        self._draining.begin(bool(goaway), not self.info.reverse, self._timeouts.heard_at)
        if goaway:
            self.answers.add(goaway, None, None)
        self._close_if_done()

    # IEndable

    @property
    def doing(self) -> str:
        """See L{IEndable}."""
        if self._under_way.exchanges:
            return f"{self.protocol.name} with {counted(len(self._under_way.exchanges), 'request')}"
        return f"{self.protocol.name} with something left to send" if self.busy else ""

    def end(self, reason: str) -> None:
        """See L{IEndable}: each request is answered with an error."""
        for exchange in list(self._under_way.exchanges):
            exchange.fail(503, reason, ResponseFlag.LR)
        self._draining.hurry()
        self._close_if_done()

    def _close_if_done(self) -> None:
        """Close the connection if it is draining, and everything is answered."""
        draining = self._draining
        if self.batch is not None or self.busy or (self.info.reverse and not draining.eof):
            return
        if draining.is_due(self._timeouts.heard_at):
            self._close()

    # reading

    def connectionMade(self) -> None:
        """Start the idle timeout."""
        self.answers.open(self.transport)
        self._timeouts.heard_at = self.settings.clock.seconds()
        self._check_timeouts()

    def dataReceived(self, data: bytes) -> None:
        """Decode frames, and handle each."""
        if self._draining.stage >= CLOSING:
            self._drop(data)
            return
        self._timeouts.heard_at = now = self.settings.clock.seconds()
        decoder = self._decoder
        frames = decoder.feed(data)
        batch: Batch = []
        self.batch = batch
        try:
            self._handle(frames, now, batch)
        finally:
            self.batch = None
            self._flush(batch)
        if decoder.error is not None:
            self._broken(str(decoder.error))
            return
        if decoder.in_frame:
            self._timer.look_at(self._timeouts.in_frame(now, bool(frames)))
        else:
            self._timeouts.between_frames()
        if decoder.in_frame or self._under_way.held > FREE or self._counted is not None:
            self._count()
        self.update_reading()
        if self._draining.wanted:
            self._close_if_done()

    def _drop(self, data: bytes) -> None:
        """Drop what the client still sends while the connection is being closed, up to a limit."""
        self._unwanted += len(data)
        if self._unwanted > LINGER_BYTES:
            self.transport.abortConnection()

    def _handle(self, frames: list[Frame], now: float, batch: Batch) -> None:
        """Begin an exchange for each request; reply to heartbeats, and drop all other frames."""
        draining = self._draining
        for frame in frames:
            if draining.stage >= CLOSING:
                break
            if frame.kind is Kind.REQUEST or frame.kind is Kind.ONEWAY:
                exchange = rpc_exchange_class.kind(self, frame, now)
                self._under_way.add(exchange)
                if draining.stage is REFUSING:
                    exchange.fail(503, "the proxy is stopping", ResponseFlag.LR)
                else:
                    exchange.begin()
            elif frame.kind is Kind.HEARTBEAT:
                self._answer_heartbeat(frame, batch)

    def _flush(self, batch: Batch) -> None:
        """Write what was buffered while a read was handled, and note which hosts do not read."""
        for flushed in batch:
            flushed.flush()
            if isinstance(flushed, Outgoing) and flushed.full:
                self.block(flushed)

    def _answer_heartbeat(self, frame: Frame, batch: Batch) -> None:
        answer = self.protocol.answer_heartbeat(frame)
        if answer:
            self.answers.add(answer, batch, None)

    def _broken(self, reason: str) -> None:
        """Close the connection, as the client does not speak the protocol."""
        if self._draining.over:
            return
        REFUSALS["rpc"] += 1
        complaints = self.settings.complaints
        if complaints.allow():
            log.warn(
                "{listener}: {peer} sent what is no {protocol}: {reason}{suppressed}",
                listener=self.settings.listener,
                peer=self.info.remote,
                protocol=self.protocol.name,
                reason=reason,
                suppressed=complaints.suppressed,
            )
        self._abort(f"the client sent what is no {self.protocol.name}", ResponseFlag.DPE)

    # bounded memory and backpressure

    def _count(self) -> None:
        """Account for the memory that this client takes."""
        if not self._draining.over:
            self.count(self._decoder.unfinished + self._under_way.held + self.answers.size)

    def open_account(self) -> BufferAccount:
        """See L{AccountedProtocol}."""
        return account_of(self.info, self._made_room)

    def _made_room(self, reason: str) -> None:
        """Close the connection, as the process keeps too much for clients."""
        self._cut_off(reason, "too much was kept for clients that do not finish", ResponseFlag.OM)

    def update_reading(self) -> None:
        """Resume or pause reading, by what is under way."""
        draining = self._draining
        if draining.eof or draining.stage >= CLOSING:
            return
        reading = not (self.answers.full or self._under_way.full)
        if reading != self._reading:
            self._reading = reading
            if reading:
                self._timeouts.excuse(self.settings.clock.seconds())
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    # IRpcOwner

    def block(self, outgoing: Outgoing) -> None:
        """See L{reverseproxy.proxy.rpc.interfaces.IRpcOwner}."""
        self._under_way.blocking.add(outgoing)
        outgoing.block(self)
        if self.batch is None:
            self.update_reading()

    def upstream_taken(self, outgoing: Outgoing) -> None:
        """See L{reverseproxy.proxy.rpc.interfaces.IRpcDownstream}."""
        self._under_way.blocking.discard(outgoing)
        self.update_reading()

    def exchange_done(self, exchange: RpcExchange) -> None:
        """See L{reverseproxy.proxy.rpc.interfaces.IRpcOwner}."""
        self._under_way.remove(exchange)
        if exchange.deadline:
            self.deadlines.discard(exchange, exchange.deadline)
        self._record(exchange)
        if self._counted is not None:
            self._count()
        if not self._reading:
            self.update_reading()
        if not self._under_way.exchanges and self._draining.wanted:
            if exchange.attempts:
                self._draining.answered()
            self._close_if_done()

    def _record(self, exchange: RpcExchange) -> None:
        settings = self.settings
        if settings.tracing is not None:
            exchange.end_trace()
        if settings.tally is not None:
            count(settings.tally, exchange, settings.clock.seconds())
        if settings.access_log is not None:
            settings.access_log(exchange.record())

    # IAnswered

    def answers_flushed(self) -> None:
        """See L{reverseproxy.proxy.rpc.answers.IAnswered}."""
        if self.answers.full or self._counted is not None:
            self._count()
        if self._draining.wanted:
            self._close_if_done()

    def answers_full(self, full: bool) -> None:
        """See L{reverseproxy.proxy.rpc.answers.IAnswered}."""
        if not full:
            self._timeouts.heard_at = self.settings.clock.seconds()
        if self._counted is not None:
            self._count()
        if self.batch is None:
            self.update_reading()
        if self._draining.wanted:
            self._close_if_done()

    def answers_stalled(self, reason: str) -> None:
        """See L{reverseproxy.proxy.rpc.answers.IAnswered}."""
        self._cut_off(reason, "the client reads too slowly", ResponseFlag.SI)

    # timeouts

    def _check_timeouts(self) -> None:
        """Check the read timeouts, and set the timer for the next check."""
        settings = self.settings
        if self._draining.over:
            return
        now = settings.clock.seconds()
        found = self._timeouts.look(
            now, bool(self._under_way.exchanges), self._reading, self._close_limits, self.transport
        )
        if not isinstance(found, ExpiredTimeout):
            self._timer.look_at(now + found)
        elif found is ExpiredTimeout.REQUEST:
            allowed = format_duration(settings.request_time)
            what = f"not all of a frame has come within {allowed}; see request_timeout"
            self._cut_off(what, "the client sends too slowly", ResponseFlag.DT)
        elif found is ExpiredTimeout.STREAM_IDLE:
            idle = format_duration(settings.stream_idle)
            what = f"nothing has come for {idle} in the midst of a frame; see stream_idle_timeout"
            self._cut_off(what, "the client sends too slowly", ResponseFlag.SI)
        elif found is ExpiredTimeout.IDLE_UNREAD:
            self._abort("the client reads too slowly", ResponseFlag.SI)
        else:
            self._close()

    @property
    def _close_limits(self) -> CloseLimits:
        """How long closing the connection may take."""
        settings = self.settings
        told = partial(note_loss, settings.complaints, settings.listener, self.info.remote)
        return CloseLimits(stall=settings.stream_idle, excused=self.info.reverse, told=told)

    # closing

    def _cut_off(self, reason: str, flag: str, flags: int) -> None:
        say_cut_off(self.settings, self.info, reason)
        self._abort(flag, flags)

    def _close(self) -> None:
        """Close after what was written; what the client still sends is dropped."""
        draining, transport = self._draining, self.transport
        if draining.over:
            return
        self._stop(CLOSING)
        self.answers.close()
        self._delayed_close = DelayedClose(self.settings.clock, transport, self._close_limits)
        transport.unregisterProducer()
        if not self._reading:
            self._reading = True
            transport.resumeProducing()
        if not draining.eof and hasattr(transport, "loseWriteConnection"):
            transport.loseWriteConnection()
        else:
            transport.loseConnection()

    def _abort(self, reason: str, flags: int) -> None:
        """Close now; the requests under way are cancelled."""
        if self._draining.stage < LOST:
            self._stop(CLOSING)
            self._cancel_all(reason, flags)
            self.transport.abortConnection()

    def _stop(self, stage: DrainStage) -> None:
        """Stop reading requests."""
        self._draining.end(stage)
        self._timer.stop()
        self._decoder.close()
        self.count_no_more()

    def readConnectionLost(self) -> None:
        """Close the connection when everything is answered, as the client sends no more."""
        draining = self._draining
        if draining.over:
            self.transport.loseConnection()
            return
        draining.eof = True
        self._decoder.close()
        self._timeouts.between_frames()
        if self.settings.abort_on_half_close:
            self._abort("the client closed the connection", ResponseFlag.DC)
        else:
            self._close_if_done()
            if not draining.over:
                watch_for_reset(self.transport)

    def writeConnectionLost(self) -> None:
        """Do nothing: we have closed our half."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cancel the requests under way."""
        self._stop(LOST)
        if self._delayed_close is not None:
            self._delayed_close.stop()
        self._cancel_all(f"the client's connection was lost: {loss(reason)}", who_ended(reason))

    def _cancel_all(self, reason: str, flags: int) -> None:
        for exchange in self._under_way.take_all():
            exchange.cancel(reason, flags)
            self._record(exchange)
        self.deadlines.close()
        self.try_deadlines.close()
        self.answers.close()
