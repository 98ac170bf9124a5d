"""
The upstream side of RPC protocols: one connection to a host carries many requests.

An L{RpcClient} numbers the requests that it sends, from 1 as MOSN does (docs/mosn.rst
6.5), and knows by its number which exchange a response is for.  What it does
not know, such as the response to a request whose time was over, it drops.

It also finds out whether the connection is alive: when nothing has come for a
while it sends a heartbeat, and closes after several that nobody has answered
(docs/mosn.rst 3.4).

What is written while a read is handled goes out in one piece at the end of it:
whoever reads hands a list around, on which connections put themselves that are
to be flushed.
"""

from __future__ import annotations

__all__ = ["HEARTBEAT_FAILURES", "HEARTBEAT_IDLE", "RpcClient"]

from collections.abc import Hashable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.handover import IDetachable, Rebindable
from reverseproxy.errors import HostGone
from reverseproxy.logs import counted, loss
from reverseproxy.mux.session import StreamRefused
from reverseproxy.patience import Patience
from reverseproxy.proxy.farewell import Farewell, Parting
from reverseproxy.proxy.flags import NO_FLAGS, Flag
from reverseproxy.proxy.relay import lose_connection
from reverseproxy.proxy.rpc.interfaces import Batch, IRpcDownstream, IRpcExchange
from reverseproxy.sockets import own_address, tune
from reverseproxy.transport.backlog import NOTHING, Backlog, backlog_of
from reverseproxy.unfinished import KNOWN, Account, Counted
from reverseproxy.wire.rpc.xprotocol import Frame, FrameDecoder, Kind

if TYPE_CHECKING:
    from reverseproxy.proxy.rpc.pool import RpcPool

log = Logger()

HEARTBEAT_IDLE: Final = 15.0
"""Seconds in which nothing has come, after which a heartbeat is sent (docs/mosn.rst 3.4)."""

HEARTBEAT_FAILURES: Final = 6
"""Heartbeats in a row without an answer, after which a connection is closed (docs/mosn.rst 3.4)."""


class _Heartbeat:
    """A heartbeat that waits for its answer, in the place of an exchange."""

    __slots__ = ("_client", "_timer")

    def __init__(self, client: RpcClient, clock: IReactorTime, timeout: float, number: int) -> None:
        self._client = client
        self._timer = Patience(clock, timeout, partial(self._too_late, number))

    def upstream_response(self, frame: Frame, batch: Batch) -> None:
        """The connection is alive."""
        self.upstream_lost("", NO_FLAGS)

    def upstream_lost(self, reason: str, flags: int, unsent: bool = False) -> None:
        """There is nothing to wait for any more."""
        self._timer.cancel()

    def _too_late(self, number: int) -> None:
        self._client.heartbeat_failed(number)


class _Question(_Heartbeat):
    """A heartbeat whose answer somebody waits for."""

    __slots__ = ("_verdict",)

    def __init__(self, verdict: Deferred[None]) -> None:
        self._verdict = verdict

    def upstream_response(self, frame: Frame, batch: Batch) -> None:
        """The connection is alive."""
        self._verdict.callback(None)

    def upstream_lost(self, reason: str, flags: int, unsent: bool = False) -> None:
        """There will be no answer."""
        self._verdict.errback(HostGone(reason or "the connection is closed"))


@implementer(IPushProducer, IHalfCloseableProtocol, IDetachable)
class RpcClient(Rebindable, Counted):
    """
    One connection to a host.

    @ivar full: whether the transport holds as many requests as it should.
    @ivar closed: whether the connection takes no more requests: it is lost,
        closing, or the host said goaway.
    @ivar reused: see L{reverseproxy.proxy.http.interfaces.IUpstream}; no matter here.
    @ivar active: how many requests are under way.
    @ivar dropped: how many responses came that nobody waited for.
    @ivar exhausted: whether it has carried as many requests as it may.
    @ivar max_frame: the largest frame in bytes that is taken; see L{admit}.
    @ivar written: bytes of all requests so far.
    """

    transport: Any
    reused = False

    def __init__(self, pool: RpcPool) -> None:
        self.full = False
        self.closed = False
        self.active = 0
        self.dropped = 0
        self.exhausted = False
        self.written = 0
        self._sent = 0
        self._heard = False  # the host has answered in our protocol
        self._beat_mark: Hashable = None
        self._pool = pool
        self._clock = pool.clock
        self._protocol = pool.protocol
        self._max_id = pool.protocol.max_id
        self.max_frame = pool.max_frame
        self._decoder = FrameDecoder(pool.protocol, pool.max_frame)
        self._waiting: dict[int, IRpcExchange] = {}
        self._number = 0
        self._out: list[bytes | bytearray] = []
        self._lost = False
        self._ending = False  # it is being closed, or given back
        self._why = ""  # if it is for that reason that we end it
        self._end_flags = int(Flag.UC)
        self._blocked: set[IRpcDownstream] = set()
        self._pausers: set[object] = set()
        self._last_read = 0.0
        self._idle_since = 0.0
        self._failures = 0
        self._watch: IDelayedCall | None = None
        self._schedule: IDelayedCall | None = None
        self._farewell: Farewell | None = None
        self._local_address: str | None = None

    def connectionMade(self) -> None:
        """Join the pool."""
        transport = self.transport
        transport.registerProducer(self, True)
        if not self._pool.exclusive:
            tune(transport)
        self._last_read = self._idle_since = self._clock.seconds()
        self._watch_idle()
        if self._pool.keepalive.interval > 0 and self._protocol.heartbeat(1):
            self._schedule = self._clock.callLater(self._pool.keepalive.interval, self._scheduled_heartbeat)
        self._pool.add(self)

    # requests

    @property
    def has_room(self) -> bool:
        """Whether another request may be sent."""
        return not self.closed and self.active < self._pool.capacity

    def send(self, exchange: IRpcExchange | None, frame: Frame, batch: Batch | None) -> int:
        """
        Send a request.

        @param exchange: who gets the response; L{None} if there is none.
        @param frame: is given the next number as its id.
        @param batch: where to put this connection, to be flushed; L{None} to
            write at once.
        @return: the number, for L{forget}.
        """
        number = self._next_number()
        frame.set_id(number)
        if exchange is not None:
            self._waiting[number] = exchange
            self.active += 1
        else:
            self._idle_since = self._clock.seconds()
        self._write(frame.data, batch)
        self.written += len(frame.data)
        self._sent += 1
        if self._sent == self._pool.max_requests:
            self.exhausted = self.closed = True
            self._pool.forget(self)
            if batch is None and not self.active:
                self.close("it has carried as many requests as it may")
        return number

    @property
    def speaks(self) -> str:
        """What is spoken on the connection, with options that count, as pools are called."""
        pool = self._pool
        return next((key for key, each in pool.host.pools.items() if each is pool), self._protocol.name)

    def admit(self, max_frame: int) -> None:
        """
        Take frames of this size from now on, if that is more than before.

        Those who share the connection may differ in what they take: each of
        them refuses by itself what is too large for it.
        """
        self._pool.admit(max_frame)

    def widen(self, max_frame: int) -> None:
        """What the pool takes has changed."""
        self.max_frame = self._decoder.max_frame = max_frame

    def backlog(self, position: int) -> Backlog:
        """
        Find what the host has not taken of all requests up to one.

        @param position: what L{written} was behind it.
        """
        waits = backlog_of(self.transport)
        left = position - (self.written - waits.size - sum(map(len, self._out)))
        return NOTHING if left <= 0 else Backlog(left, left)

    def arriving(self, number: int) -> tuple[int, int] | None:
        """Look whether the response to a request is coming; see L{FrameDecoder.begun}."""
        return self._decoder.begun(number)

    def forget(self, number: int) -> None:
        """Nobody waits for the response to this request any more."""
        if self._waiting.pop(number, None) is not None:
            self._one_less()

    def _one_less(self) -> None:
        self.active -= 1
        if not self.active:
            self._idle_since = self._clock.seconds()
            if self.closed and not self._lost:
                self.close("the last request is answered")

    def _next_number(self) -> int:
        number = self._number
        while True:
            number = number + 1 if number < self._max_id else 1
            if number not in self._waiting:
                self._number = number
                return number

    def _write(self, data: bytes | bytearray, batch: Batch | None) -> None:
        if batch is None:
            if not self._ending:
                self.transport.write(bytes(data))
            return
        if not self._out:
            batch.append(self)
        self._out.append(data)

    def flush(self) -> None:
        """See L{IFlushed}."""
        out, self._out = self._out, []
        if out and not self._ending:
            self.transport.write(bytes(out[0]) if len(out) == 1 else b"".join(out))
            if self.exhausted and not self.active:
                self.close("it has carried as many requests as it may")

    def block(self, downstream: IRpcDownstream) -> None:
        """Tell somebody when L{full} is over."""
        self._blocked.add(downstream)

    def pause(self, who: object) -> None:
        """Read no more until everybody who has called this has called L{resume}."""
        if not self._pausers and not self._ending:
            self.transport.pauseProducing()
        self._pausers.add(who)

    def resume(self, who: object) -> None:
        """Read again, as far as somebody is concerned; no matter if he had not paused."""
        if who in self._pausers:
            self._pausers.remove(who)
            if not self._pausers and not self._ending:
                self._last_read = self._clock.seconds()
                self.transport.resumeProducing()

    def finish(self, reusable: bool) -> None:
        """An exchange that got this connection has no use for it any more; others have."""

    @property
    def local_address(self) -> str:
        """Our own address on this connection; empty if it has none that is worth logging."""
        if self._local_address is None:
            self._local_address = own_address(self.transport)
        return self._local_address

    # the connection

    def dataReceived(self, data: bytes) -> None:
        """Give responses to the exchanges that wait for them."""
        if self._ending:
            return
        self._last_read = self._clock.seconds()
        self._failures = 0
        frames = self._decoder.feed(data)
        if frames and not self._heard:
            self._heard = True
            self._pool.heard()
        batch: Batch = []
        waiting = self._waiting
        try:
            for frame in frames:
                kind = frame.kind
                if kind is Kind.RESPONSE or kind is Kind.HEARTBEAT_ACK:
                    exchange = waiting.get(frame.id)
                    if exchange is None or (
                        kind is not Kind.RESPONSE and not isinstance(exchange, _Heartbeat)
                    ):
                        self.dropped += 1
                        continue
                    del waiting[frame.id]
                    exchange.upstream_response(frame, batch)
                    if not isinstance(exchange, _Heartbeat):
                        self._one_less()
                else:
                    self._unusual(frame, batch)
        finally:
            for flushed in batch:
                flushed.flush()
        if self._decoder.in_frame or self._counted is not None:
            self.count(self._decoder.unfinished)
        error = self._decoder.error
        if error is not None and not self._ending:
            log.warn(
                "{host} sent what is no {protocol}: {reason}",
                host=self._pool.host.address,
                protocol=self._protocol.name,
                reason=str(error),
            )
            self._end_flags = Flag.UPE
            self.abort(str(error))

    def open_account(self) -> Account:
        """See L{Counted}."""
        return KNOWN.account(self._pool.host.address, self._made_room)

    def _made_room(self, reason: str) -> None:
        """This connection has to go for others."""
        log.warn("{host} is cut off: {reason}", host=self._pool.host.address, reason=reason)
        self._end_flags = Flag.OM
        self.abort(reason)

    def _unusual(self, frame: Frame, batch: Batch) -> None:
        """Handle what is no response."""
        if self._ending:
            return
        if frame.kind is Kind.HEARTBEAT:
            answer = self._protocol.answer_heartbeat(frame)
            if answer:
                self._write(answer, batch)
        elif frame.kind is Kind.GOAWAY:
            self._go_away()
        elif frame.kind is Kind.REQUEST:
            # Hosts may call their clients; which of ours it means nobody can tell.
            self._write(self._protocol.reply(frame, 404), batch)

    def _go_away(self) -> None:
        if not self.closed:
            log.info(
                "{host} wants no more requests on this connection, which carries {requests} now",
                host=self._pool.host.address,
                requests=counted(self.active, "request"),
            )
            self.closed = True
            self._pool.retire(self, "the host said goaway")
        if not self.active:
            self.close("the host said goaway")

    def drain(self) -> None:
        """Take no more requests, and close when those under way are answered."""
        self.closed = True
        if not self.active:
            self.close("drained")

    def close(self, reason: str) -> None:
        """Close the connection after what was written; no request may be under way."""
        if self._ending:
            return
        self.flush()
        self._end()
        self._farewell = Farewell(self._clock, self.transport, Parting(excused=self._pool.host.is_reverse))
        lose_connection(self.transport)

    def abort(self, reason: str) -> None:
        """Close the connection now; what is under way on it fails."""
        if self._ending:
            return
        self._why = reason
        self._end()
        if self._pool.exclusive:
            # The host goes with it, and must not be picked any more from now on.
            self._pool.host.close(reason)
        self.transport.abortConnection()

    def detach(self) -> bool:
        """See L{IDetachable}."""
        if self.active or self._ending:
            return False
        self._end()
        self._lost = True
        self._pool.remove(self)
        self.transport.unregisterProducer()
        if self._pausers:
            self._pausers.clear()
            self.transport.resumeProducing()
        self.transport = None
        return True

    def _end(self) -> None:
        """Nothing is read or written from now on."""
        self.closed = self._ending = True
        self._stop_watching()
        self._decoder.close()
        self.count_no_more()
        self._pool.forget(self)
        for number, exchange in list(self._waiting.items()):
            if isinstance(exchange, _Heartbeat):
                exchange.upstream_lost("", NO_FLAGS)
                del self._waiting[number]

    def readConnectionLost(self) -> None:
        """The host sends no more: nothing under way can be answered."""
        self.abort("the host closed its side")

    def writeConnectionLost(self) -> None:
        """Our half is closed, which we never do alone."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is lost."""
        if self._lost:
            return
        if not self._ending:
            self._end()
        self._lost = True
        if self._farewell is not None:
            self._farewell.stop()
        self._pool.remove(self)
        self._out = []
        waiting, self._waiting = self._waiting, {}
        blocked, self._blocked = self._blocked, set()
        self._pausers.clear()
        for downstream in blocked:
            downstream.upstream_full(self, False)
        why = self._why or loss(reason)
        if waiting:
            log.warn(
                "{host}: a connection was lost with {requests} under way: {reason}",
                host=self._pool.host.address,
                requests=counted(len(waiting), "request"),
                reason=why,
            )
        unsent = reason.check(StreamRefused) is not None
        for exchange in waiting.values():
            exchange.upstream_lost(why, self._end_flags, unsent)
        self.active = 0

    # heartbeats

    def _watch_idle(self) -> None:
        """Look again when the connection may have been idle for too long."""
        self._watch = None
        now = self._clock.seconds()
        pool = self._pool
        if self._pausers:
            self._last_read = now  # it is us who do not read
        idle_timeout = pool.idle_timeout
        delays = []
        if idle_timeout is not None:
            left = idle_timeout if self.active else self._idle_since + idle_timeout - now
            if left <= 0:
                self.close("idle timeout")
                return
            delays.append(left)
        if pool.heartbeats:
            left = self._last_read + HEARTBEAT_IDLE - now
            if left <= 0:
                self._send_heartbeat()
                left = HEARTBEAT_IDLE
            delays.append(left)
        if delays and not self._ending:
            self._watch = self._clock.callLater(min(delays), self._watch_idle)

    def _scheduled_heartbeat(self) -> None:
        self._send_heartbeat()
        self._schedule = self._clock.callLater(self._pool.keepalive.interval, self._scheduled_heartbeat)

    def _send_heartbeat(self) -> None:
        number = self._next_number()
        self._beat_mark = backlog_of(self.transport).mark
        self._waiting[number] = _Heartbeat(self, self._clock, self._pool.keepalive.timeout, number)
        self._write(self._protocol.heartbeat(number), None)

    def ask(self) -> Deferred[None]:
        """
        Ask with a heartbeat whether the host is well, whatever else is under way.

        @return: fires when the host has answered, and fails when the connection
            is lost.  May be cancelled; if it is us who do not read, that is no
            failure.
        """
        number = self._next_number()
        verdict: Deferred[None] = Deferred(partial(self._not_asking, number))
        self._waiting[number] = _Question(verdict)
        self._write(self._protocol.heartbeat(number), None)
        return verdict

    def _not_asking(self, number: int, verdict: Deferred[None]) -> None:
        self._waiting.pop(number, None)
        if self._pausers:
            verdict.callback(None)

    def heartbeat_failed(self, number: int) -> None:
        """Nobody has answered a heartbeat in time."""
        del self._waiting[number]
        if self._pausers or backlog_of(self.transport).mark != self._beat_mark:
            return  # it waits behind answers that we do not read, or requests that are on their way
        self._failures += 1
        if self._failures >= HEARTBEAT_FAILURES:
            log.warn(
                "{host} has not answered {count} heartbeats: its connection is closed",
                host=self._pool.host.address,
                count=self._failures,
            )
            self.abort("no heartbeat is answered")

    def _stop_watching(self) -> None:
        for timer in (self._watch, self._schedule):
            if timer is not None and timer.active():
                timer.cancel()
        self._watch = self._schedule = None

    # IPushProducer: we are the producer of what the host is to receive

    def pauseProducing(self) -> None:
        """The transport holds enough."""
        self.full = True

    def resumeProducing(self) -> None:
        """The transport wants more."""
        self.full = False
        blocked, self._blocked = self._blocked, set()
        for downstream in blocked:
            downstream.upstream_full(self, False)

    def stopProducing(self) -> None:
        """The connection is lost; C{connectionLost} says so as well."""
