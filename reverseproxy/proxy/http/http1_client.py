"""
The upstream side of HTTP/1: connections to one host, one request on each.

A L{Http1Client} serves one exchange at a time.  Between exchanges it waits in
the L{Http1Pool} of its host, which lives in L{Host.pools}.  The connection of a
reverse host is the only one that host has: it goes through the same pool, and
can be taken back by the host while it is idle (L{IDetachable}).
"""

from __future__ import annotations

__all__ = ["MAX_IDLE", "POOL", "Http1Client", "Http1Pool"]

from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.endpoints import CallableFactory
from reverseproxy.cluster.handover import IDetachable
from reverseproxy.cluster.host import Host, IHostPool
from reverseproxy.cluster.room import response_limits
from reverseproxy.errors import ForeignAnswer, HttpError
from reverseproxy.logs import loss
from reverseproxy.mux.session import StreamRefused
from reverseproxy.proxy.http.http1_switch import Switchable
from reverseproxy.proxy.http.interfaces import IDirectReader, IExchange
from reverseproxy.proxy.http.leftover import Leftover
from reverseproxy.proxy.pools import register_pool
from reverseproxy.proxy.relay import BODY_TAIL, LINGER, LONG_BODY, RelayEnd, lose_connection
from reverseproxy.sockets import tune
from reverseproxy.transport.backlog import Backlog, backlog_of
from reverseproxy.wire.http.forwarded import ForwardedBy
from reverseproxy.wire.http.message import END, Event, Request
from reverseproxy.wire.http1.fields import CHUNKED
from reverseproxy.wire.http1.heads import RequestHead, ResponseHead, request_head_bytes
from reverseproxy.wire.http1.responses import ResponseParser
from reverseproxy.wire.http1.writing import write_body

log = Logger()

POOL = "Http1"
"""The name of our pools in L{Host.pools}."""

MAX_IDLE = 256
"""Idle connections that are kept for one host, whatever is going on."""

MOST_IDLE = 8192
"""Idle connections that are kept for one host, if so many were busy at once a moment ago."""

BUSY_PERIOD = 10.0
"""Seconds that such a moment lasts, or up to twice as long."""


@implementer(IPushProducer, IHalfCloseableProtocol, IDetachable)
class Http1Client(Switchable):
    """
    One connection to a host.

    @ivar reused: whether the connection may have been closed by the host while
        it was idle, so that a request that gets no answer may be sent again.
    @ivar full: whether the transport holds as much of a request as it should.
    @ivar closed: whether the connection is lost, closing, or given up.
    @ivar persists: whether the host takes another request behind the response
        whose head has come.
    @ivar counted: whether it is one of the host's connections, as far as limits go.
    """

    counted = False
    speaks = "Http1"
    multiplexed = False

    def __init__(self, pool: Http1Pool) -> None:
        self.reused = pool.host.is_reverse
        self.full = False
        self.closed = False
        self.persists = True
        self.parser = ResponseParser(*response_limits(pool.host))
        self.idle_since = 0.0
        self._pool = pool
        self._exchange: IExchange | None = None
        self._direct: IDirectReader | None = None  # the same, if it takes the shorter ways
        self._paused = False
        self._chunked = False  # the body of the current request goes out in chunks
        self._deadline: IDelayedCall | None = None
        self._local_address: str | None = None
        self._served = 0
        self._heard = False  # the host has answered in HTTP/1

    def connectionMade(self) -> None:
        """Join the pool, busy until told otherwise."""
        transport = self.transport
        transport.registerProducer(self, True)
        if not self._pool.exclusive:
            tune(transport)
        self.counted = True
        self._pool.add(self)

    # exchanges

    def start(self, exchange: IExchange, head_request: bool) -> None:
        """
        Begin an exchange.

        @param head_request: whether the response will have no body.
        """
        self._exchange = exchange
        self._direct = None
        self.parser.expect(head_request)

    def begin(
        self,
        exchange: IExchange,
        head: Request,
        events: Sequence[Event],
        forwarded_by: ForwardedBy | None,
        default_host: bytes,
        direct: IDirectReader | None = None,
    ) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IUpstream}: one write for all of it."""
        self._exchange = exchange
        self._direct = direct
        self.parser.expect(head.method == b"HEAD")
        data = (
            head.raw
            if forwarded_by is None and type(head) is RequestHead and head.forwardable_verbatim
            else request_head_bytes(head, forwarded_by, default_host)
        )
        if head.length == 0:
            self.transport.write(data)
        else:
            self._chunked = head.length == CHUNKED or head.trails
            self._write([data], events)

    def send(self, events: Sequence[Event]) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IUpstream}."""
        self._write([], events)

    def _write(self, out: list[bytes], events: Sequence[Event]) -> None:
        for event in events:
            write_body(event, self._chunked, out)
        if out:
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))

    def finish(self, reusable: bool) -> None:
        """
        End the exchange; its response is complete.

        @param reusable: whether all of the request has come and been sent, too.
        """
        self._exchange = self._direct = None
        if self._paused:
            self.resume()
        self._served += 1
        if (
            not (reusable and self.persists)
            or self.full
            or self.parser.surplus
            or self._served == self._pool.max_requests
        ):
            self.close("not reusable")
        elif not self.closed:
            self.reused = True
            self._pool.put(self)

    def backlog(self) -> Backlog:
        """See L{reverseproxy.proxy.http.interfaces.IUpstream}."""
        return backlog_of(self.transport)

    def pause(self) -> None:
        """Read no more for now."""
        if not self._paused and not self.closed:
            self._paused = True
            self.transport.pauseProducing()

    def resume(self) -> None:
        """Read again."""
        if self._paused:
            self._paused = False
            if not self.closed:
                self.transport.resumeProducing()

    def close(self, reason: str) -> None:
        """Close the connection after what was written; no exchange may be under way."""
        if self.closed:
            return
        if self.full:
            self.abort(reason)
            return
        self._retire()
        self._deadline = self._pool.clock.callLater(LINGER, self.transport.abortConnection)
        lose_connection(self.transport)

    def abort(self, reason: str) -> None:
        """Close the connection now; the exchange, if any, hears nothing of it."""
        if self.closed:
            return
        self._exchange = self._direct = None
        self._retire()
        if self._pool.exclusive:
            # The host goes with it, and must not be picked any more from now on.
            self._pool.host.close(reason)
        self.transport.abortConnection()

    def leave(self, release: Callable[[], None]) -> bool:
        """See L{IUpstream}: a connection that is a host has a moment to go on."""
        if self.closed or self.full or not self._pool.exclusive:
            return False
        self._exchange = Leftover(self, self._pool.clock, release)
        self._direct = None
        self.resume()
        return True

    def drop(self) -> None:
        """Close the connection now; the exchange, if any, hears of the loss."""
        self.closed = True
        self._pool.forget_idle(self)
        self._pool.uncount(self)
        self.transport.abortConnection()

    def _retire(self) -> None:
        self.closed = True
        self.parser.close()
        self._pool.forget_idle(self)
        self._pool.uncount(self)

    def detach(self) -> bool:
        """See L{IDetachable}."""
        if self._exchange is not None or self.closed or self.relay is not None:
            return False
        self._retire()
        self._pool.remove(self)
        self.transport.unregisterProducer()
        self.transport = None
        return True

    @property
    def local_address(self) -> str:
        """Our own address on this connection; empty if it has none that is worth logging."""
        if self._local_address is None:
            host = self.transport.getHost()
            self._local_address = ""
            if isinstance(host, IPv4Address):
                self._local_address = f"{host.host}:{host.port}"
            elif isinstance(host, IPv6Address):
                self._local_address = f"[{host.host}]:{host.port}"
        return self._local_address

    # the connection

    def take_rest(self) -> bytes:
        """See L{reverseproxy.proxy.http.interfaces.IUpgraded}."""
        return self.parser.take_rest()

    def become_relay(self, clock: IReactorTime, early: bytes) -> RelayEnd:
        """See L{Switchable}; the exchange has ended with that."""
        self._exchange = self._direct = None
        return super().become_relay(clock, early)

    def dataReceived(self, data: bytes) -> None:
        """Parse a part of the response."""
        exchange = self._exchange
        if exchange is not None:
            try:
                found = self.parser.feed_one(data)
            except Exception:
                # An error of ours; the exchange ends as with any other bad response.
                log.failure("what {host} sent can't be parsed", host=self._pool.host.address)
                self.parser.close()
                found = [HttpError(502, "the response can't be parsed")]
            if not self._heard:
                found = self._hear(data, found)
            if type(found) is list:
                for event in found:
                    if type(event) is ResponseHead:
                        self.persists = event.keep_alive
                exchange.upstream_events(found)
                if self.parser.left > LONG_BODY:
                    self._pass_on()
            else:
                assert type(found) is ResponseHead
                self.persists = found.keep_alive
                begin = len(found.raw)
                if self._direct is not None:
                    self._direct.upstream_whole(found, data, begin)
                else:
                    exchange.upstream_events(
                        [found, data[begin:], END] if begin < len(data) else [found, END]
                    )
        elif not self.closed:
            # Whatever this is, nobody asked for it: it must not become an answer.
            log.warn("{host} sent data without being asked", host=self._pool.host.address)
            self.abort("data came while the connection was idle")

    def _hear(self, data: bytes, found: Any) -> Any:
        """Look at the first that has ever come, which may be no HTTP/1 at all."""
        if type(found) is list and found and isinstance(found[0], HttpError):
            return found if data.startswith(b"HTTP/") else [ForeignAnswer(502, str(found[0]))]
        if found:
            self._heard = True
            self._pool.heard()
        return found

    def _pass_on(self) -> None:
        """Have most of a long body sent to the client without a look at it."""
        direct = self._direct
        if direct is None:
            return
        sink = direct.response_sink()
        size = self.parser.left - BODY_TAIL
        if sink is not None and self.splice_to(sink, size, direct.response_passed):
            self.parser.skip_body(size)

    def request_sink(self) -> Any:
        """See L{reverseproxy.proxy.http.interfaces.IDirectRequest}."""
        return None if self._chunked or self.closed else self.transport

    def http_read_closed(self) -> None:
        """The host sends no more: that may end a response, and closes the connection."""
        exchange = self._exchange
        if exchange is not None:
            if self.parser.eof() == [END]:
                exchange.upstream_events([END])
            else:
                self._exchange = self._direct = None
                self.abort("the host closed its side")
                exchange.upstream_lost("the connection was closed before the end of the response")
        self.close("the host closed its side")

    def http_lost(self, reason: Failure) -> None:
        """The connection is lost."""
        exchange, self._exchange, self._direct = self._exchange, None, None
        self.closed = True
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._pool.forget_idle(self)
        self._pool.uncount(self)
        self._pool.remove(self)
        self.parser.close()
        if exchange is not None:
            exchange.upstream_lost(loss(reason), reason.check(StreamRefused) is not None)

    # IPushProducer: we are the producer of what the host is to receive

    def pauseProducing(self) -> None:
        """The transport holds enough."""
        self.full = True
        if self._exchange is not None:
            self._exchange.upstream_full(True)

    def resumeProducing(self) -> None:
        """The transport wants more."""
        self.full = False
        if self._exchange is not None:
            self._exchange.upstream_full(False)

    def stopProducing(self) -> None:
        """The connection is lost; C{connectionLost} says so as well."""


@implementer(IHostPool)
class Http1Pool:
    """
    The connections of one host.

    @ivar host: the host.
    @ivar exclusive: whether the host has but one connection, which is the host.
    @ivar max_requests: requests after which a connection is closed; 0 for any
        number.
    @ivar dial: makes a connection, given a factory.
    """

    def __init__(
        self, host: Host, clock: IReactorTime, idle_timeout: float | None = None, max_idle: int = MAX_IDLE
    ) -> None:
        """
        @param idle_timeout: seconds after which an idle connection is closed;
            L{None} or 0 for never.  Reverse connections are not closed for
            that, as an idle one is what a tunnel is for.
        """
        self.host = host
        self.clock = clock
        self.exclusive = host.exclusive
        self.max_requests = 0
        cluster = host.cluster
        if host.single_use:
            self.max_requests = 1
        elif cluster is not None and not self.exclusive:
            self.max_requests = cluster.config.requests_per_connection
            if host.max_connections:
                # Each request takes a connection: those beyond wait, or go elsewhere.
                cluster.set_capacity(host, host.max_connections)
        self._idle_timeout = None if self.exclusive else idle_timeout or None
        self._max_idle = max_idle
        self._clients: set[Http1Client] = set()
        self._idle: dict[Http1Client, None] = {}  # as an ordered set: the last one was used last
        self._busiest = 0  # how many were busy at once in this period, if more than max_idle
        self._busiest_before = 0  # and in the one before
        self._trimming: IDelayedCall | None = None
        self._draining = host.retired or host.closed
        self._timer: IDelayedCall | None = None
        self._factory = CallableFactory(lambda: Http1Client(self))
        self.dial = host.connect

    @property
    def busy(self) -> bool:
        """Whether a connection is in use."""
        return len(self._clients) > len(self._idle)

    @property
    def idle(self) -> int:
        """How many connections wait for a request."""
        return len(self._idle)

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._clients)

    def take(self) -> Http1Client | None:
        """Take the idle connection that was used last, if there is one."""
        return self._idle.popitem()[0] if self._idle else None

    def connect(self) -> Deferred[Http1Client]:
        """Make a new connection; it is not idle, but the caller's."""
        host = self.host
        while self._idle and not host.may_connect():
            next(iter(self._idle)).close("makes room for a new one")
        host.connection_opened()
        connected = self.dial(self._factory).addErrback(self._not_connected)
        return cast("Deferred[Http1Client]", connected)

    def _not_connected(self, reason: Failure) -> Failure:
        self.host.connection_closed()
        return reason

    # called by clients

    def heard(self) -> None:
        """The host has answered on a connection for the first time."""
        cluster = self.host.cluster
        if cluster is not None:
            cluster.members.tongues.heard(self.host, POOL)

    def add(self, client: Http1Client) -> None:
        """A connection is made."""
        self._clients.add(client)

    def put(self, client: Http1Client) -> None:
        """Keep an idle connection, or close it."""
        if self._draining or (len(self._idle) >= self._max_idle and not self._keeps_many()):
            client.close("not needed any more")
            return
        self._idle[client] = None
        if self._idle_timeout is not None:
            client.idle_since = self.clock.seconds()
            if self._timer is None:
                self._timer = self.clock.callLater(self._idle_timeout, self._expire, self._idle_timeout)

    def _keeps_many(self) -> bool:
        """
        Look whether more idle connections are to be kept than always.

        Where that many requests come at once, they will again: to make a
        connection for each of them, and close it, costs more than the requests.
        """
        # Those that are idle by now may have been busy, too.
        busy = len(self._clients) - len(self._idle) + self._max_idle
        self._busiest = max(self._busiest, min(busy, MOST_IDLE))
        if self._trimming is None:
            self._trimming = self.clock.callLater(BUSY_PERIOD, self._trim)
        return len(self._idle) < max(self._busiest, self._busiest_before)

    def _trim(self) -> None:
        """Close the idle connections that were not needed in the last period."""
        self._trimming = None
        keep = max(self._busiest, self._max_idle)
        self._busiest_before, self._busiest = self._busiest, 0
        idle = list(self._idle)
        for client in idle[: max(0, len(idle) - keep)]:
            client.close("not needed any more")
        if len(self._idle) > self._max_idle:
            self._trimming = self.clock.callLater(BUSY_PERIOD, self._trim)

    def forget_idle(self, client: Http1Client) -> None:
        """An idle connection is about to close."""
        self._idle.pop(client, None)

    def uncount(self, client: Http1Client) -> None:
        """A connection is lost, is closing, or not ours any more: it is no longer in the way of others."""
        if client.counted:
            client.counted = False
            self.host.connection_closed()

    def remove(self, client: Http1Client) -> None:
        """A connection is lost, or not ours any more."""
        self._clients.discard(client)
        if not self._clients:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._trimming is not None:
                self._trimming.cancel()
                self._trimming = None

    def _expire(self, timeout: float) -> None:
        self._timer = None
        now = self.clock.seconds()
        # In the order of idle_since: the last one in is the first one out.
        for client in list(self._idle):
            left = client.idle_since + timeout - now
            if left > 0:
                self._timer = self.clock.callLater(left, self._expire, timeout)
                return
            client.close("idle timeout")

    # IHostPool

    def drain(self) -> None:
        """See L{IHostPool}."""
        self._draining = True
        for client in list(self._idle):
            client.close("drained")

    def close(self) -> None:
        """See L{IHostPool}; the exchanges under way fail."""
        self._draining = True
        for client in list(self._clients):
            client.drop()


register_pool(POOL, Http1Pool)
