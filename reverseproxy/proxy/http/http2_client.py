"""
Connections to hosts that speak HTTP/2: many requests at once on each.

An L{Http2Client} is a connection; an L{Http2Call} is the L{IUpstream} of one
exchange, and a stream once it has begun.  The L{Http2Pool} of a host begins calls
on the connection that it has, and dials another one when that has no room.  A
reverse host has one connection, which carries as many requests at once as its
agent allows.

A connection whose host sent GOAWAY gets no further request, and is closed when
its last stream has ended; a reverse host leaves its cluster at once, as its agent
dials again.  Requests that the host did not process are retried elsewhere.
"""

from __future__ import annotations

__all__ = ["GREETING_TIME", "Http2Client"]

from collections.abc import Sequence
from math import inf
from sys import maxsize
from typing import TYPE_CHECKING, Final

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.handover import IDetachable
from reverseproxy.errors import ConnectionUnavailable, Http2Error, ProtocolRefused
from reverseproxy.logs import counted, said
from reverseproxy.mux.session import StreamRefused
from reverseproxy.net.tcp_options import limit_unsent
from reverseproxy.proxy.flags import ResponseFlag
from reverseproxy.proxy.host_connection import SharedConnection
from reverseproxy.proxy.http.http2_call import Http2Call
from reverseproxy.proxy.http.http2_connection import Http2Protocol
from reverseproxy.proxy.http.http2_pings import Pings
from reverseproxy.tls import negotiated_protocol
from reverseproxy.transport.backlog import backlog_of
from reverseproxy.transport.closing import CloseLimits
from reverseproxy.transport.memory import WINDOWS
from reverseproxy.wire.http.message import Event as HttpEvent
from reverseproxy.wire.http.message import Response
from reverseproxy.wire.http2.connection import ClientConnection
from reverseproxy.wire.http2.events import Event, GoAway, PeerSettings, PingAck, StreamReset
from reverseproxy.wire.http2.frames import ErrorCode

if TYPE_CHECKING:
    from reverseproxy.proxy.http.http2_pool import Http2Pool

log = Logger()

GREETING_TIME: Final = 15.0
"""Seconds that a host has for its first SETTINGS once a request was sent."""

_OF_CONNECTION: Final = (GoAway, PingAck, PeerSettings, Http2Error)
"""Events that concern a connection, and no stream of it."""


@implementer(IDetachable, IHalfCloseableProtocol, IPushProducer)
class Http2Client(SharedConnection, Http2Protocol):
    """
    One connection to a host.

    @ivar scheme: of requests that go out on it.
    @ivar other_protocol: what the host has agreed to speak, if that is not HTTP/2.
    """

    http2: ClientConnection
    speaks = "Http2"
    _pool: Http2Pool

    def __init__(self, pool: Http2Pool) -> None:
        # A plain reverse connection may be MOSN's.
        http2 = ClientConnection(pool.limits, mosn=pool.exclusive, reserve=WINDOWS)
        super().__init__(http2, pool.clock, CloseLimits(excused=pool.host.is_reverse))
        self._end_flags = int(ResponseFlag.UC)  # why what is under way fails when the connection ends
        self.reused = pool.host.is_reverse
        self.scheme = b"http"
        self._pool = pool
        self._calls: dict[int, Http2Call] = {}
        self._reserved: set[Http2Call] = set()  # not begun
        self._early_calls: list[Http2Call] = []  # that wait for the host's settings
        self._draining = False
        self._served = False  # the host has answered with success
        self.other_protocol = ""
        self._uncarried = False  # nothing of what was sent has got anywhere
        self._begun = 0
        self._greeted_by = inf
        self._pings = Pings(pool.settings.keepalive)

    def connectionMade(self) -> None:
        """Greet the host, and join the pool."""
        transport = self.transport
        protocol = negotiated_protocol(transport)
        if protocol is not None:
            self.scheme = b"https"
        transport.registerProducer(self, True)
        limit_unsent(transport)
        self._tune()
        now = self.clock.seconds()
        self._greeted_by = now + GREETING_TIME
        self._look_at(self._greeted_by)
        self._pings.start(now)
        self._look_at(self._pings.due)
        self._pool.add(self)
        if protocol not in (None, "h2"):
            self.other_protocol = str(protocol)
            self._abort(f"the host wants to speak {protocol}")
        else:
            self.http2.greeted(now)
            self.flush()

    # calls

    @property
    def active(self) -> int:
        """How many requests are active, or about to begin."""
        return len(self._calls) + len(self._reserved)

    @property
    def has_room(self) -> bool:
        """Whether another request may be sent."""
        if self.ending or self._draining or (self.full and self.overfull):
            return False
        reserved = len(self._reserved)
        most = self._pool.settings.max_requests
        return self.http2.room > reserved and (not most or self._begun + reserved < most)

    def reserve(self) -> Http2Call:
        """See L{SharedConnection.reserve}."""
        self._pool.mark_busy(self, None)
        call = Http2Call(self)
        self._reserved.add(call)
        return call

    def wait_for_settings(self, call: Http2Call) -> None:
        """Have a call wait for the host's SETTINGS."""
        self._early_calls.append(call)

    def begun(self, call: Http2Call) -> None:
        """Enter a call that has got a stream."""
        self._reserved.discard(call)
        self._calls[call.number] = call
        self._begun += 1
        if self._begun == self._pool.settings.max_requests:
            self._draining = True
            self._pool.forget(self)

    def forget(self, call: Http2Call) -> None:
        """Remove a call that has ended."""
        call.closed = True
        self._reserved.discard(call)
        if self._calls.get(call.number) is call:
            del self._calls[call.number]
        self._look_idle()

    def _look_idle(self) -> None:
        if self.active or self.ending:
            return
        if self._draining or self.http2.going:
            self.close("the last request is answered")
        else:
            self._pool.mark_idle(self)

    # the connection

    @property
    def refusal(self) -> ConnectionUnavailable:
        """See L{SharedConnection.refusal}."""
        other = self.other_protocol
        return ProtocolRefused(f"the host wants to speak {other}") if other else super().refusal

    def _handle(self, events: Sequence[tuple[int, Event]]) -> None:
        calls = self._calls
        # All that came for one stream goes on in one piece.
        batches: dict[int, list[HttpEvent]] = {}
        for number, event in events:
            if number == 0 or isinstance(event, _OF_CONNECTION):
                self._on_connection(event)
            elif isinstance(event, StreamReset):
                self._deliver(number, batches.pop(number, None))
                self._reset(number, event)
            elif number in calls:
                batch = batches.get(number)
                if batch is None:
                    batches[number] = [event]
                else:
                    batch.append(event)
        for number, batch in batches.items():
            self._deliver(number, batch)

    def _deliver(self, number: int, batch: list[HttpEvent] | None) -> None:
        call = self._calls.get(number)
        if call is not None and batch is not None:
            if not self._served:
                first = batch[0]
                if isinstance(first, Response) and 200 <= first.status < 400:
                    self._served = True
                    self._pool.heard(True)
            call.received(batch)

    def _reset(self, number: int, reset: StreamReset) -> None:
        if not reset.remote:
            log.warn(
                "{host} sent a bad response: {reason}", host=self._pool.host.address, reason=reset.reason
            )
        call = self._calls.get(number)
        if call is not None:
            self.forget(call)
            code, flags = (reset.code, ResponseFlag.UR) if reset.remote else (0, ResponseFlag.UPE)
            call.lost(reset.reason, not reset.processed, code, flags=flags)

    def _waiting(self, number: int) -> int:
        call = self._calls.get(number)
        return maxsize if call is None else call.waiting

    def _shed(self, number: int, reason: str) -> None:
        call = self._calls.get(number)
        if call is not None:
            self.forget(call)
            call.lost(reason, False, flags=ResponseFlag.OM)

    def _on_connection(self, event: Event) -> None:
        if isinstance(event, Http2Error):
            log.warn(
                "{host} broke the rules of HTTP/2: {reason} ({code})",
                host=self._pool.host.address,
                reason=str(event),
                code=ErrorCode.name_of(event.code),
            )
            self._end_flags = ResponseFlag.UPE
            self._pool.retire(self, str(event))
            self._close(str(event), linger=True)
        elif isinstance(event, GoAway):
            self._go_away(event)
        elif isinstance(event, PeerSettings):
            self._settings_came()
        elif isinstance(event, PingAck):
            self._pings.answered()

    def _settings_came(self) -> None:
        self.reused = True
        self._greeted_by = inf
        self._pool.settings_came(self)
        waiting, self._early_calls = self._early_calls, []
        for call in waiting:
            call.settings_came()

    def _go_away(self, event: GoAway) -> None:
        log.info(
            "{host} wants no more requests on this connection, which carries {requests} now: {code}{debug}",
            host=self._pool.host.address,
            requests=counted(len(self._calls), "request"),
            code=ErrorCode.name_of(event.code),
            debug=said(event.debug),
        )
        self._pool.retire(self, "the host said GOAWAY")
        self._look_idle()

    # the end

    def drain(self) -> None:
        """Take no more requests, and close the connection when the active ones are answered."""
        self._draining = True

    def close(self, reason: str) -> None:
        """Close the connection after what was written; no request may be active."""
        self._finish(ErrorCode.NO_ERROR, "", linger=False)

    def drop(self, reason: str) -> None:
        """Close the connection now; its active requests fail."""
        self._abort(reason)

    def detach(self) -> bool:
        """
        See L{IDetachable}.

        No other protocol can use the connection afterwards, as it is in the midst of HTTP/2:
        it is given up to be closed.
        """
        if self.active or self.ending or self.lost:
            return False
        self.http2.close(ErrorCode.NO_ERROR)
        data = self.http2.take(0)
        if data:
            self.transport.write(data)
        self.transport.unregisterProducer()
        self._ended("given up")
        self.ending = self.lost = True
        self._timer.stop()
        self.transport = None
        return True

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is lost, and perhaps nothing of what was sent on it has got anywhere."""
        self._uncarried = reason.check(StreamRefused) is not None
        super().connectionLost(reason)

    def _ended(self, reason: str) -> None:
        pool = self._pool
        pool.remove(self)
        calls = [*self._calls.values(), *self._reserved]
        self._calls.clear()
        self._reserved.clear()
        self._early_calls.clear()
        # A reverse host goes with it, and must not be picked any more from now on.
        pool.retire(self, reason)
        for call in calls:
            call.reused = self.reused
            # What has not begun can't have been seen.
            begun = call.number > 0
            terminated = begun and self.http2.established
            unsent = not begun or self._uncarried
            call.lost(reason, unsent, terminated=terminated, flags=self._end_flags)

    def _stream_drained(self, number: int) -> None:
        call = self._calls.get(number)
        if call is not None:
            call.drained()

    def _flushed(self) -> None:
        calls = self._calls
        if len(calls) > self.http2.streams:
            for call in list(calls.values()):
                if call.tunnel is not None and not self.http2.is_open(call.number):
                    call.tunnel.look()
                    self.forget(call)

    # timers

    def _next_deadline(self, now: float) -> float:
        pool = self._pool
        if self._greeted_by <= now:
            self._abort(f"the host sent no SETTINGS within {GREETING_TIME:g} s")
            return inf
        pings, mark = self._pings, backlog_of(self.transport).mark
        if pings.is_dead(now, mark, self.heard):
            log.warn(
                "{host} has not answered a PING within {timeout:g} s: its connection is closed",
                host=pool.host.address,
                timeout=pool.settings.keepalive.timeout,
            )
            self._abort("the host answers no PING")
            return inf
        if pings.asks(now, mark):
            self.http2.ping(b"are you?")
        return min(self._greeted_by, pings.due)
