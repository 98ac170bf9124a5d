"""
The upstream side of RPC protocols: one connection to a host carries many requests.

An L{RpcClient} gives each request an id (L{InFlight}) and finds the exchange of a
response by it.  It drops responses with unknown ids, such as those that come after
the request's timeout.

L{Heartbeats} find out whether the connection is alive; its pool closes it when it
has been idle for too long.
"""

from __future__ import annotations

__all__ = ["RpcClient", "RpcClientStage"]

from collections.abc import Hashable
from enum import IntEnum
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.handover import IDetachable, Rebindable
from reverseproxy.limits.buffered_bytes import AccountedProtocol
from reverseproxy.logs import counted, loss
from reverseproxy.mux.session import StreamRefused
from reverseproxy.proxy.flags import ResponseFlag
from reverseproxy.proxy.host_connection import SharedConnection
from reverseproxy.proxy.relay import lose_connection
from reverseproxy.proxy.rpc.heartbeats import Heartbeats
from reverseproxy.proxy.rpc.in_flight import InFlight
from reverseproxy.proxy.rpc.interfaces import Batch, IRpcExchange
from reverseproxy.proxy.rpc.outgoing import Outgoing
from reverseproxy.transport.closing import CloseLimits, DelayedClose
from reverseproxy.wire.rpc.xprotocol import Frame, Kind, RpcFrameDecoder

if TYPE_CHECKING:
    from reverseproxy.proxy.rpc.pool import RpcPool

log = Logger()


class RpcClientStage(IntEnum):
    """The state of a connection, in its order."""

    OPEN = 0
    """It takes requests."""

    LEAVING = 1
    """It takes no more requests, and is closed when those under way are answered."""

    ENDING = 2
    """It is being closed, or was given back: nothing is read or written."""

    LOST = 3
    """The connection is lost."""


OPEN, LEAVING, ENDING, LOST = RpcClientStage


@implementer(IHalfCloseableProtocol, IDetachable)
class RpcClient(SharedConnection, Rebindable, AccountedProtocol):
    """
    One connection to a host.

    @ivar outgoing: the output buffer.
    @ivar in_flight: the requests and heartbeats under way.
    @ivar heartbeats: find out whether the connection is alive.
    @ivar stage: the state of the connection.
    @ivar dropped: the number of responses that no exchange waited for.
    @ivar sent: the number of requests sent so far.
    """

    reused = False  # no matter here
    _pool: RpcPool

    def __init__(self, pool: RpcPool) -> None:
        self.outgoing = Outgoing()
        self.in_flight = InFlight(pool.protocol.max_id)
        self.heartbeats = Heartbeats(pool.clock, pool.settings.keepalive, self.in_flight, self)
        self.stage = OPEN
        self.dropped = 0
        self.sent = 0
        self._pool = pool
        self._decoder = RpcFrameDecoder(pool.protocol, pool.max_frame)
        self._served = False  # the host has answered with success
        self._pausers: set[object] = set()
        self._cause: tuple[str, int] = (
            "",
            int(ResponseFlag.UC),
        )  # why it ends; without a reason, the transport has one
        self._delayed_close: DelayedClose | None = None

    def connectionMade(self) -> None:
        """Join the pool."""
        pool = self._pool
        self.outgoing.open(self.transport)
        self._tune()
        if pool.heartbeats:
            self.heartbeats.begin()
        pool.add(self)

    # state

    @property
    def closed(self) -> bool:
        """Whether the connection takes no more requests."""
        return self.stage is not OPEN

    @property
    def full(self) -> bool:
        """Whether the transport's buffer is full."""
        return self.outgoing.full

    @property
    def active(self) -> int:
        """How many requests are under way."""
        return len(self.in_flight.requests)

    @property
    def has_room(self) -> bool:
        """Whether another request may be sent."""
        return self.stage is OPEN and len(self.in_flight.requests) < self._pool.capacity

    def reserve(self) -> RpcClient:
        """See L{SharedConnection.reserve}: a request takes its place when it is sent."""
        return self

    @property
    def max_frame(self) -> int:
        """The largest frame in bytes that is accepted; see L{admit}."""
        return self._decoder.max_frame

    @property
    def speaks(self) -> str:
        """The protocol with those of its options that matter to the host: the key of the pool."""
        pool = self._pool
        return next((key for key, each in pool.host.pools.items() if each is pool), pool.protocol.name)

    # requests

    def send(self, exchange: IRpcExchange | None, frame: Frame, batch: Batch | None) -> int:
        """
        Send a request.

        @param exchange: gets the response; L{None} for a one-way request.
        @param frame: the request; its id is replaced.
        @param batch: collects what is to be flushed later; L{None} to write at once.
        @return: the id, for L{forget}.
        """
        number = self.in_flight.next_id()
        frame.set_id(number)
        pool, requests = self._pool, self.in_flight.requests
        if not requests:
            pool.mark_busy(self, None)
        if exchange is not None:
            requests[number] = exchange
        elif not requests:
            pool.mark_idle(self)  # anew
        self.outgoing.add(frame.data, batch)
        self.sent += 1
        if self.sent == pool.settings.max_requests:
            pool.forget(self)
            self.drain()
        return number

    def admit(self, max_frame: int) -> None:
        """
        Accept frames of this size from now on, if that is more than before.

        Listeners that share the connection may have different limits: each
        exchange refuses by itself what is too large for it.
        """
        self._pool.admit(max_frame)

    def widen(self, max_frame: int) -> None:
        """Accept frames of this size from now on."""
        self._decoder.max_frame = max_frame

    def arriving(self, number: int) -> tuple[int, int] | None:
        """Return how much of a response has come, if it has begun; see L{RpcFrameDecoder.begun}."""
        return self._decoder.begun(number)

    def forget(self, number: int) -> None:
        """Drop the response to this request when it comes."""
        if self.in_flight.requests.pop(number, None) is not None:
            self._one_less()

    def _one_less(self) -> None:
        if self.in_flight.requests:
            return
        if self.stage is OPEN:
            self._pool.mark_idle(self)
        elif self.stage is LEAVING:
            self.close("the last request is answered")

    def finish(self, reusable: bool) -> None:
        """Do nothing: the connection is shared, and an exchange has nothing to give back."""

    # what comes

    def dataReceived(self, data: bytes) -> None:
        """Give each response to its exchange."""
        if self.stage >= ENDING:
            return
        self.heartbeats.heard()
        decoder = self._decoder
        frames = decoder.feed(data)
        if frames and not self._served:
            self._hear(frames)
        batch: Batch = []
        requests = self.in_flight.requests
        try:
            for frame in frames:
                if frame.kind is Kind.RESPONSE and (exchange := requests.pop(frame.id, None)) is not None:
                    exchange.upstream_response(frame, batch)
                    if not requests:
                        self._one_less()
                else:
                    self._unusual(frame, batch)
        finally:
            for flushed in batch:
                flushed.flush()
        if decoder.in_frame or self._counted is not None:
            self.count(decoder.unfinished)
        error = decoder.error
        if error is not None and self.stage < ENDING:
            log.warn(
                "{host} sent what is no {protocol}: {reason}",
                host=self._pool.host.address,
                protocol=self._pool.protocol.name,
                reason=str(error),
            )
            self.abort(str(error), ResponseFlag.UPE)

    def _hear(self, frames: list[Frame]) -> None:
        """Note which protocol the host speaks, until it has answered with success once."""
        status = self._pool.protocol.http_status
        self._served = any(frame.kind is Kind.RESPONSE and status(frame) < 400 for frame in frames)
        self._pool.heard(self._served)

    def _unusual(self, frame: Frame, batch: Batch) -> None:
        """Handle a frame that is no response to a request under way."""
        if self.stage >= ENDING:
            return
        protocol, kind = self._pool.protocol, frame.kind
        if kind is Kind.RESPONSE or kind is Kind.HEARTBEAT_ACK:
            heartbeat = self.in_flight.heartbeats.pop(frame.id, None)
            if heartbeat is None:
                self.dropped += 1
            else:
                heartbeat.answered()
        elif kind is Kind.HEARTBEAT:
            answer = protocol.answer_heartbeat(frame)
            if answer:
                self.outgoing.reply(answer, batch)
        elif kind is Kind.GOAWAY:
            self._go_away()
        elif kind is Kind.REQUEST:
            # Hosts may call their clients; the frame does not say which of ours it is for.
            self.outgoing.reply(protocol.reply(frame, 404), batch)

    def _go_away(self) -> None:
        if self.stage is OPEN:
            log.info(
                "{host} wants no more requests on this connection, which carries {requests} now",
                host=self._pool.host.address,
                requests=counted(self.active, "request"),
            )
            self.stage = LEAVING
            self._pool.retire(self, "the host said goaway")
        if not self.active:
            self.close("the host said goaway")

    def pause(self, who: object) -> None:
        """Pause reading until each caller of this has called L{resume}."""
        if not self._pausers and self.stage < ENDING:
            self.transport.pauseProducing()
        self._pausers.add(who)

    def resume(self, who: object) -> None:
        """End the pause of one caller; does nothing if it has not paused."""
        if who in self._pausers:
            self._pausers.remove(who)
            if not self._pausers and self.stage < ENDING:
                self.heartbeats.excuse()
                self.transport.resumeProducing()

    def _cut_off(self, reason: str) -> None:
        self.abort(reason, ResponseFlag.OM)

    # heartbeats

    def ask(self) -> Deferred[None]:
        """See L{Heartbeats.ask}."""
        return self.heartbeats.ask()

    def send_heartbeat(self, number: int) -> None:
        """See L{reverseproxy.proxy.rpc.heartbeats.IBeating}."""
        self.outgoing.add(self._pool.protocol.heartbeat(number), None)

    @property
    def taken(self) -> Hashable:
        """See L{reverseproxy.proxy.rpc.heartbeats.IBeating}."""
        return self.outgoing.waits.mark

    @property
    def unread(self) -> bool:
        """See L{reverseproxy.proxy.rpc.heartbeats.IBeating}."""
        return bool(self._pausers)

    def dead(self, failures: int) -> None:
        """See L{reverseproxy.proxy.rpc.heartbeats.IBeating}."""
        log.warn(
            "{host} has not answered {count} heartbeats: its connection is closed",
            host=self._pool.host.address,
            count=failures,
        )
        self.abort("no heartbeat is answered")

    # the end

    def drain(self) -> None:
        """Take no more requests, and close when those under way are answered."""
        self.stage = max(self.stage, LEAVING)
        if not self.active:
            self.close("drained")

    def close(self, reason: str) -> None:
        """Close the connection after what was written; no request may be under way."""
        if self.stage >= ENDING:
            return
        self.outgoing.flush()
        self._end()
        close_limits = CloseLimits(excused=self._pool.host.is_reverse)
        self._delayed_close = DelayedClose(self._pool.clock, self.transport, close_limits)
        lose_connection(self.transport)

    def drop(self, reason: str) -> None:
        """See L{HostConnection.drop}."""
        self.abort(reason)

    def abort(self, reason: str, flags: int = ResponseFlag.UC) -> None:
        """
        Close the connection now; the requests under way on it fail.

        @param flags: the reason as codes; see L{reverseproxy.proxy.flags}.
        """
        if self.stage >= ENDING:
            return
        self._cause = reason, flags
        self._end()
        if self._pool.exclusive:
            # The host has no other connection, and must not be picked any more from now on.
            self._pool.host.close(reason)
        self.transport.abortConnection()

    def detach(self) -> bool:
        """See L{IDetachable}."""
        if self.active or self.stage >= ENDING:
            return False
        self._end()
        self.stage = LOST
        self._pool.remove(self)
        self.transport.unregisterProducer()
        if self._pausers:
            self._pausers.clear()
            self.transport.resumeProducing()
        self.transport = None
        return True

    def _end(self) -> None:
        """Stop reading and writing."""
        self.stage = ENDING
        self._decoder.close()
        self.count_no_more()
        self.outgoing.close()
        self._pool.forget(self)
        self.heartbeats.stop()

    def readConnectionLost(self) -> None:
        """Close the connection: the host sends no more, so nothing under way can be answered."""
        self.abort("the host closed its side")

    def writeConnectionLost(self) -> None:
        """Do nothing: only the whole connection is ever closed."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail the requests under way."""
        if self.stage is LOST:
            return
        if self.stage < ENDING:
            self._end()
        self.stage = LOST
        if self._delayed_close is not None:
            self._delayed_close.stop()
        self._pool.remove(self)
        self._pausers.clear()
        self.outgoing.lost()
        exchanges = self.in_flight.take_all()
        why, flags = self._cause
        why = why or loss(reason)
        if exchanges:
            log.warn(
                "{host}: a connection was lost with {requests} under way: {reason}",
                host=self._pool.host.address,
                requests=counted(len(exchanges), "request"),
                reason=why,
            )
        unsent = reason.check(StreamRefused) is not None
        for exchange in exchanges:
            exchange.upstream_lost(why, flags, unsent)
