"""
The downstream side of RPC protocols: one client connection, many requests at once.

L{RpcProxy} takes frames off the connection and gives each request to an
L{RpcExchange}.  Answers go back as they come, in whatever order.

What waits is bounded in both directions.  No more is read from a client that
has too many requests under way, or whose requests a host does not take, or that
does not take its answers.  Answers for such a client are kept up to
L{OUT_LIMIT} bytes; beyond that the connections that bring more of them are not
read either.  As these carry answers for others too, a client has L{STALL}
seconds then to take half of them, and is cut off else.  A reverse connection is
not: there the client is a tunnel server, whose own clients share it.
"""

from __future__ import annotations

__all__ = ["RpcProxy"]

from collections import deque
from functools import partial
from math import inf
from operator import methodcaller
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.handover import Rebindable
from reverseproxy.cluster.room import HEAD_ROOM
from reverseproxy.config.durations import format_duration
from reverseproxy.interfaces import ConnectionInfo, IDrainable, IEndable, IExpendable
from reverseproxy.logs import counted, loss
from reverseproxy.proxy.clients import account_of, say_cut_off
from reverseproxy.proxy.farewell import Farewell, LastBytes, Parting, note_loss
from reverseproxy.proxy.flags import Flag, who_ended
from reverseproxy.proxy.http.deadlines import LOOKS, Pace
from reverseproxy.proxy.rpc.client import RpcClient
from reverseproxy.proxy.rpc.deadlines import Deadlines
from reverseproxy.proxy.rpc.decisions import rpc_exchange_class
from reverseproxy.proxy.rpc.exchange import RpcExchange
from reverseproxy.proxy.rpc.interfaces import Batch
from reverseproxy.proxy.rpc.settings import RpcSettings
from reverseproxy.proxy.rpc.timed import RpcTimed
from reverseproxy.refused import REFUSED
from reverseproxy.sockets import heed_reset
from reverseproxy.transport.backlog import backlog_of
from reverseproxy.unfinished import FREE, KNOWN, STRANGERS, Account, Counted
from reverseproxy.wire.rpc.xprotocol import FrameDecoder, Kind

log = Logger()

MAX_REQUESTS: Final = 32768
"""Requests of one connection that may be under way."""

HELD_LIMIT: Final = 32 * 1024 * 1024
"""Bytes of requests under way of one connection."""

OUT_LIMIT: Final = 4 * 1024 * 1024
"""Bytes of answers that are kept for a client that does not take them."""

WRITE_SIZE: Final = 65536
"""Bytes that are given to the transport at once, when it has asked for more."""

LOG_RATE: Final = 10.0
"""Lines about the clients of one listener, in each second."""

LOG_BURST: Final = 50
"""How many of them may come at once."""

STALL: Final = 15.0
"""Seconds that a client may keep others from their answers."""

DRAIN_GRACE: Final = 5.0
"""Seconds in which a draining connection still takes requests, if it is not idle for a moment."""

QUIET: Final = 1.0
"""Seconds without a request after which a client that was told to go away is left."""

LINGER_BYTES: Final = 16 * 1024 * 1024
"""Bytes that are read and dropped behind the last answer, lest it be lost with a reset."""


@implementer(IDrainable, IEndable, IExpendable, IHalfCloseableProtocol, IPushProducer)
class RpcProxy(Rebindable, Counted):
    """
    One client connection.

    @ivar batch: see L{reverseproxy.proxy.rpc.interfaces.IRpcOwner}.
    @ivar believed: the same.
    """

    transport: Any

    def __init__(self, settings: RpcSettings, info: ConnectionInfo) -> None:
        self.settings = settings
        self.info = info
        self.protocol = settings.protocol
        self.batch: Batch | None = None
        self.believed = settings.trust.believes(info)
        self._clock = settings.clock
        self._decoder = FrameDecoder(
            settings.protocol, settings.max_frame + (HEAD_ROOM if info.reverse else 0)
        )
        self._exchanges: dict[RpcExchange, None] = {}  # in their order
        self._held = 0
        self._books = KNOWN if info.reverse else STRANGERS
        self.deadlines: Deadlines[RpcTimed] = Deadlines(settings.clock, RpcTimed.timed_out)
        self.try_deadlines: Deadlines[RpcTimed] = Deadlines(settings.clock, methodcaller("try_timed_out"))
        self._out: deque[bytes | bytearray] = deque()
        self._out_size = 0
        self._full = False
        self._blocking: set[RpcClient] = set()  # they hold us up
        self._blocked: set[RpcClient] = set()  # we hold them up
        self._reading = True
        self._closing = False
        self._lost = False
        self._draining = False
        self._refusing = False
        self._said_goaway = False
        self._eof = False
        self._unwanted = 0
        self._last_byte = 0.0
        self._frame_began = 0.0  # when the first of a frame came that is not complete
        self._idle_timer: IDelayedCall | None = None
        self._write_timer: IDelayedCall | None = None
        self._stall_timer: IDelayedCall | None = None
        self._drain_timer: IDelayedCall | None = None
        self._quiet_timer: IDelayedCall | None = None
        self._farewell: Farewell | None = None
        self._pace = Pace()  # of a client that has much to take
        self._last: LastBytes | None = None  # of what was written when nothing is under way

    # IDrainable

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return (
            bool(self._exchanges)
            or bool(self._out)
            or self._full
            or self._decoder.in_frame
            or (self._closing and not self._lost)
        )

    @property
    def expendable(self) -> bool:
        """See L{IExpendable}."""
        return not self._exchanges and not self._out

    def drain(self) -> None:
        """
        See L{IDrainable}.

        A client that takes a hint is told to use another connection, and has
        L{QUIET} seconds for what it has sent before it was told.  For the
        others the connection is closed as soon as nothing is under way; if that
        does not come about by itself, further requests are refused after
        L{DRAIN_GRACE} seconds.
        """
        if self._draining or self._lost:
            return
        self._draining = True
        goaway = self.protocol.goaway(1)
        if goaway:
            self._said_goaway = True
            self.respond(goaway, None, None)
        if self.info.reverse:
            return
        self._last_byte = self._clock.seconds()
        self._close_if_done()
        if not self._closing:
            self._drain_timer = self._clock.callLater(DRAIN_GRACE, self._refuse)

    # IEndable

    @property
    def doing(self) -> str:
        """See L{IEndable}."""
        if self._exchanges:
            return f"{self.protocol.name} with {counted(len(self._exchanges), 'request')}"
        return f"{self.protocol.name} with something left to send" if self.busy else ""

    def end(self, reason: str) -> None:
        """See L{IEndable}: each request is answered with an error."""
        self._refusing = True
        for exchange in list(self._exchanges):
            exchange.fail(503, reason, Flag.LR)
        self._close_if_done()

    def _refuse(self) -> None:
        self._drain_timer = None
        self._refusing = True
        self._close_if_done()

    def _close_if_done(self) -> None:
        """Close, if that is what we wait for, and everything is answered."""
        if self._closing or not (self._draining or self._eof) or self.busy or self.batch is not None:
            return
        if self.info.reverse and not self._eof:
            return
        if self._said_goaway and not self._refusing and not self._eof:
            left = self._last_byte + QUIET - self._clock.seconds()
            if left > 0:
                if self._quiet_timer is None:
                    self._quiet_timer = self._clock.callLater(left, self._maybe_quiet)
                return
        self._close()

    def _maybe_quiet(self) -> None:
        self._quiet_timer = None
        self._close_if_done()

    # the connection

    def connectionMade(self) -> None:
        """Wait for the first request."""
        self.transport.registerProducer(self, True)
        self._last_byte = self._clock.seconds()
        self._watch_idle()

    def dataReceived(self, data: bytes) -> None:
        """Take what the client sends."""
        if self._closing:
            self._unwanted += len(data)
            if self._unwanted > LINGER_BYTES:
                self.transport.abortConnection()
            return
        self._last_byte = now = self._clock.seconds()
        decoder = self._decoder
        frames = decoder.feed(data)
        batch: Batch = []
        self.batch = batch
        try:
            for frame in frames:
                if self._closing:
                    break
                if frame.kind is Kind.REQUEST or frame.kind is Kind.ONEWAY:
                    exchange = rpc_exchange_class.kind(self, frame, now)
                    self._exchanges[exchange] = None
                    self._held += exchange.received
                    if self._refusing:
                        exchange.fail(503, "the proxy is stopping", Flag.LR)
                    else:
                        exchange.begin()
                elif frame.kind is Kind.HEARTBEAT:
                    answer = self.protocol.answer_heartbeat(frame)
                    if answer:
                        self.respond(answer, batch, None)
                # A client that wants to go closes; responses to what we have not asked are dropped.
        finally:
            self.batch = None
            for flushed in batch:
                flushed.flush()
                if isinstance(flushed, RpcClient) and flushed.full:
                    self.block(flushed)
        if decoder.error is not None:
            self._broken(str(decoder.error))
        else:
            if decoder.in_frame:
                if frames or not self._frame_began:
                    self._frame_began = now
                self._watch_frame()
            else:
                self._frame_began = 0.0
            if decoder.in_frame or self._held > FREE or self._counted is not None:
                self._count()
            self.update_reading()
            self._close_if_done()

    def _count(self) -> None:
        """Enter what we keep of this client in the books."""
        if not self._closing:
            self.count(self._decoder.unfinished + self._held + self._out_size)

    def open_account(self) -> Account:
        """See L{Counted}."""
        return account_of(self.info, self._made_room)

    def _made_room(self, reason: str) -> None:
        """This connection has to go for others."""
        self._cut_off(reason, "too much was kept for clients that do not finish", Flag.OM)

    def _broken(self, reason: str) -> None:
        """Nothing that comes can be understood any more."""
        if self._closing or self._lost:
            return
        REFUSED["rpc"] += 1
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
        self._abort(f"the client sent what is no {self.protocol.name}", Flag.DPE)

    def update_reading(self) -> None:
        """Read on, or pause, as what is under way demands."""
        if self._closing or self._lost or self._eof:
            return
        reading = not (
            self._full
            or self._blocking
            or len(self._exchanges) >= MAX_REQUESTS
            or self._held >= HELD_LIMIT
            or (self._held > FREE and self._books.tight)
        )
        if reading != self._reading:
            self._reading = reading
            if reading:
                self._last_byte = now = self._clock.seconds()
                if self._frame_began:
                    self._frame_began = now
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    # what exchanges tell us

    def block(self, client: RpcClient) -> None:
        """See L{reverseproxy.proxy.rpc.interfaces.IRpcOwner}."""
        self._blocking.add(client)
        client.block(self)
        if self.batch is None:
            self.update_reading()

    def upstream_full(self, client: RpcClient, full: bool) -> None:
        """See L{reverseproxy.proxy.rpc.interfaces.IRpcDownstream}."""
        if full:
            self._blocking.add(client)
        else:
            self._blocking.discard(client)
        self.update_reading()

    def exchange_done(self, exchange: RpcExchange) -> None:
        """See L{reverseproxy.proxy.rpc.interfaces.IRpcOwner}."""
        self._exchanges.pop(exchange, None)
        self._held -= exchange.received
        if exchange.deadline:
            self.deadlines.discard(exchange, exchange.deadline)
        self._record(exchange)
        if self._counted is not None:
            self._count()
        if not self._reading:
            self.update_reading()
        if self._draining or self._eof:
            self._close_if_done()

    def respond(self, data: bytes | bytearray, batch: Batch | None, client: RpcClient | None) -> None:
        """See L{reverseproxy.proxy.rpc.interfaces.IRpcOwner}."""
        if self._closing or self._lost:
            return
        out = self._out
        if self._out_size >= OUT_LIMIT and client is not None:
            self._hold_up(client)
        if not out and batch is not None:
            batch.append(self)
        out.append(data)
        self._out_size += len(data)
        if batch is None:
            self.flush()

    def flush(self) -> None:
        """See L{reverseproxy.proxy.rpc.interfaces.IFlushed}."""
        if self._full or self._lost:
            self._count()
            return
        out = self._out
        if not out:
            return
        if self._out_size <= WRITE_SIZE or len(out) == 1:
            data = bytes(out[0]) if len(out) == 1 else b"".join(out)
            out.clear()
            self._out_size = 0
            self.transport.write(data)
        else:
            self._write_some()
        if self._draining or self._eof:
            self._close_if_done()

    def _write_some(self) -> None:
        """Give the transport what it takes."""
        out = self._out
        while out and not self._full and not self._lost:
            some = [out.popleft()]
            size = len(some[0])
            while out and size < WRITE_SIZE:
                data = out.popleft()
                some.append(data)
                size += len(data)
            self._out_size -= size
            self.transport.write(b"".join(some))
        if self._blocked and self._out_size <= OUT_LIMIT // 2:
            self._let_go()
        if self._counted is not None:
            self._count()

    def _hold_up(self, client: RpcClient) -> None:
        """There is too much to send already: the client that brings more is not read."""
        if client not in self._blocked:
            self._blocked.add(client)
            client.pause(self)
            if self._stall_timer is None and not self.info.reverse:
                self._stall_timer = self._clock.callLater(STALL, self._stalled)

    def _let_go(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        blocked, self._blocked = self._blocked, set()
        for client in blocked:
            client.resume(self)

    def _stalled(self) -> None:
        self._stall_timer = None
        self._too_slow("it keeps others from their answers, as it does not take its own")

    # IPushProducer: we are the producer of what the client is to receive

    def pauseProducing(self) -> None:
        """The transport holds enough."""
        self._full = True
        if self._write_timer is None and self.settings.stream_idle < inf:
            self._pace = Pace()
            self._look_at_client()
        if self.batch is None:
            self.update_reading()

    def resumeProducing(self) -> None:
        """The transport wants more."""
        self._full = False
        self._last_byte = self._clock.seconds()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        self._write_some()
        self.update_reading()
        if self._draining or self._eof:
            self._close_if_done()

    def stopProducing(self) -> None:
        """The connection is lost; C{connectionLost} says so as well."""

    def _look_at_client(self) -> None:
        """See whether the client takes anything of what waits for it."""
        self._write_timer = None
        idle = self.settings.stream_idle
        if self._pace.look(backlog_of(self.transport).mark) < LOOKS:
            self._write_timer = self._clock.callLater(idle / LOOKS, self._look_at_client)
        else:
            self._too_slow(f"it has taken nothing for {format_duration(idle)}; see stream_idle_timeout")

    def _too_slow(self, reason: str) -> None:
        self._cut_off(reason, "the client reads too slowly", Flag.SI)

    def _cut_off(self, reason: str, flag: str, flags: int) -> None:
        say_cut_off(self.settings, self.info, reason)
        self._abort(flag, flags)

    # time

    def _watch_frame(self) -> None:
        """Look whether the rest of a frame comes, in what may be less than an idle connection has."""
        timer = self._idle_timer
        settings = self.settings
        due = min(self._last_byte + settings.stream_idle, self._frame_began + settings.request_time)
        if timer is not None and timer.getTime() > due:
            timer.cancel()
            timer = None
        if timer is None and not self._lost:
            self._watch_idle()

    def _watch_idle(self) -> None:
        """Look whether the connection is idle, and again when it could be."""
        self._idle_timer = None
        in_frame = self._decoder.in_frame
        timeout = self.settings.stream_idle if in_frame else self.settings.idle_timeout
        if timeout is None or self._closing:
            return
        now = self._clock.seconds()
        left = self._last_byte + timeout - now
        if self._exchanges or not self._reading:
            left = max(left, timeout)
        request_time = self.settings.request_time
        if in_frame and self._reading and self._frame_began + request_time <= now:
            what = f"not all of a frame has come within {format_duration(request_time)}; see request_timeout"
            self._cut_off(what, "the client sends too slowly", Flag.DT)
            return
        if in_frame:
            left = min(left, max(self._frame_began + request_time - now, request_time / LOOKS))
        elif left <= 0:
            left = self._still_taking(timeout)
        if left > 0:
            if left < inf:
                self._idle_timer = self._clock.callLater(left, self._watch_idle)
        elif in_frame:
            idle = format_duration(timeout)
            self._cut_off(
                f"nothing has come for {idle} in the midst of a frame; see stream_idle_timeout",
                "the client sends too slowly",
                Flag.SI,
            )
        elif self._last is not None and self._last.left:
            self._abort("the client reads too slowly", Flag.SI)
        else:
            self._close()

    def _still_taking(self, timeout: float) -> float:
        """
        Look whether the client still takes what it was answered, while nothing is under way.

        @return: seconds until the next look; 0.0 if there is no reason for one.
        """
        last = self._last
        if last is None:
            last = self._last = LastBytes(self._parting, self.transport)
            again = last.period if last.left else 0.0
        else:
            again = last.look()
        if not last.left:
            self._last = None
        return timeout if again and not last.left else again

    @property
    def _parting(self) -> Parting:
        """How this connection may end."""
        settings = self.settings
        told = partial(note_loss, settings.complaints, settings.listener, self.info.remote)
        return Parting(stall=settings.stream_idle, excused=self.info.reverse, told=told)

    # the end

    def _close(self) -> None:
        """Close after what was written; what the client may have sent still is dropped."""
        if self._closing or self._lost:
            return
        self._closing = True
        self._stop_timers()
        self._decoder.close()
        self.count_no_more()
        transport = self.transport
        self._farewell = Farewell(self._clock, transport, self._parting)
        transport.unregisterProducer()
        if not self._reading:
            self._reading = True
            transport.resumeProducing()
        if not self._eof and hasattr(transport, "loseWriteConnection"):
            transport.loseWriteConnection()
        else:
            transport.loseConnection()

    def _abort(self, reason: str, flags: int) -> None:
        """Close now, and drop everything."""
        if self._lost:
            return
        self._closing = True
        self._stop_timers()
        self._cancel_all(reason, flags)
        self.transport.abortConnection()

    def readConnectionLost(self) -> None:
        """The client sends no more; what it has asked for is answered."""
        if self._closing:
            self.transport.loseConnection()
            return
        self._eof = True
        self._decoder.close()
        if self.settings.abort_on_half_close:
            self._abort("the client closed the connection", Flag.DC)
        else:
            self._close_if_done()
            if not self._closing:
                heed_reset(self.transport)

    def writeConnectionLost(self) -> None:
        """Our half is closed, as we wanted it."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is lost."""
        self._lost = True
        self._closing = True
        self._stop_timers()
        if self._farewell is not None:
            self._farewell.stop()
        self._cancel_all(f"the client's connection was lost: {loss(reason)}", who_ended(reason))

    def _cancel_all(self, reason: str, flags: int) -> None:
        exchanges, self._exchanges = self._exchanges, {}
        for exchange in exchanges:
            exchange.cancel(reason, flags)
            self._record(exchange)
        self.deadlines.close()
        self.try_deadlines.close()
        self._decoder.close()
        self.count_no_more()
        self._out.clear()
        self._out_size = 0
        self._blocking.clear()
        self._let_go()

    def _stop_timers(self) -> None:
        for timer in (self._idle_timer, self._write_timer, self._stall_timer, self._quiet_timer):
            if timer is not None and timer.active():
                timer.cancel()
        self._idle_timer = self._write_timer = self._stall_timer = self._quiet_timer = None
        self._stop_drain_timer()

    def _stop_drain_timer(self) -> None:
        if self._drain_timer is not None and self._drain_timer.active():
            self._drain_timer.cancel()
        self._drain_timer = None

    # logs

    def _record(self, exchange: RpcExchange) -> None:
        settings = self.settings
        if settings.tracing is not None:
            exchange.end_trace()
        if settings.tally is not None:
            exchange.count(settings.tally, self._clock.seconds())
        if settings.access_log is not None:
            settings.access_log(exchange.record())
