"""
Connections to hosts that speak HTTP/1: one request at a time on each.

An L{Http1Client} serves one exchange at a time, and is idle in the L{Http1Pool}
of its host between two of them (L{Host.pools}).  A reverse host without streams
has one connection only: it is in a pool like any other, and the host can take it
back while it is idle (L{IDetachable}).
"""

from __future__ import annotations

__all__ = ["Http1Client"]

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.handover import IDetachable
from reverseproxy.cluster.message_limits import response_limits
from reverseproxy.errors import ForeignAnswer, HttpError
from reverseproxy.logs import loss
from reverseproxy.mux.session import StreamRefused
from reverseproxy.proxy.host_connection import HostConnection
from reverseproxy.proxy.http.http1_switch import Switchable
from reverseproxy.proxy.http.interfaces import IDirectReader, IExchange
from reverseproxy.proxy.http.response_drain import ResponseDrain
from reverseproxy.proxy.relay import BODY_TAIL, LONG_BODY, RelayEnd, lose_connection
from reverseproxy.transport.backlog import Backlog, backlog_of
from reverseproxy.transport.closing import LINGER
from reverseproxy.wire.http.forwarded import ForwardedBy
from reverseproxy.wire.http.message import END, Event, Request, Response
from reverseproxy.wire.http1.fields import CHUNKED
from reverseproxy.wire.http1.heads import RequestHead, ResponseHead, request_head_bytes
from reverseproxy.wire.http1.responses import ResponseParser
from reverseproxy.wire.http1.writing import write_body

if TYPE_CHECKING:
    from reverseproxy.proxy.http.http1_pool import Http1Pool

log = Logger()


@implementer(IPushProducer, IHalfCloseableProtocol, IDetachable)
class Http1Client(HostConnection, Switchable):
    """
    One connection to a host.

    @ivar reused: whether the connection may have been closed by the host while
        it was idle, so that a request that gets no answer may be sent again.
    @ivar full: whether the transport holds as much of a request as it should.
    @ivar closed: whether the connection is lost, closing, or given up.
    @ivar persists: whether the host takes another request behind the response
        whose head has come.
    """

    speaks = "Http1"
    multiplexed = False

    _pool: Http1Pool

    def __init__(self, pool: Http1Pool) -> None:
        self.reused = pool.host.is_reverse
        self.full = False
        self.closed = False
        self.persists = True
        self.parser = ResponseParser(*response_limits(pool.host))
        self._pool = pool
        self._exchange: IExchange | None = None
        self._direct: IDirectReader | None = None  # the same, if it takes the shorter ways
        self._paused = False
        self._chunked = False  # the body of the current request goes out in chunks
        self._deadline: IDelayedCall | None = None
        self._served = 0
        self._spoke = False  # the host has answered in HTTP/1
        self._succeeded = False  # with success

    def connectionMade(self) -> None:
        """Join the pool, as a connection in use."""
        self.transport.registerProducer(self, True)
        self._tune()
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
        End the exchange, whose response is complete.

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
        """Stop reading."""
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
        """Close the connection now; if there is an exchange, it is not called any more."""
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
        self._exchange = ResponseDrain(self, self._pool.clock, release)
        self._direct = None
        self.resume()
        return True

    def drop(self, reason: str) -> None:
        """Close the connection now; if there is an exchange, the loss is reported to it."""
        self.closed = True
        self._pool.forget(self)
        self.transport.abortConnection()

    def _retire(self) -> None:
        self.closed = True
        self.parser.close()
        self._pool.forget(self)

    def detach(self) -> bool:
        """See L{IDetachable}."""
        if self._exchange is not None or self.closed or self.relay is not None:
            return False
        self._retire()
        self._pool.remove(self)
        self.transport.unregisterProducer()
        self.transport = None
        return True

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
        if exchange is None:
            if not self.closed:
                # No request asked for this: it must not become the answer to the next one.
                log.warn("{host} sent data without being asked", host=self._pool.host.address)
                self.abort("data came while the connection was idle")
            return
        found: ResponseHead | list[Event]
        try:
            found = self.parser.feed_one(data)
        except Exception:
            # An error of ours; the exchange ends as with any other bad response.
            log.failure("what {host} sent can't be parsed", host=self._pool.host.address)
            self.parser.close()
            found = [HttpError(502, "the response can't be parsed")]
        if not self._succeeded:
            found = self._hear(data, found)
        if isinstance(found, ResponseHead):
            self.persists = found.keep_alive
            begin = len(found.raw)
            if self._direct is not None:
                self._direct.upstream_whole(found, data, begin)
            else:
                exchange.upstream_events([found, data[begin:], END] if begin < len(data) else [found, END])
            return
        for event in found:
            if type(event) is ResponseHead:
                self.persists = event.keep_alive
        exchange.upstream_events(found)
        if self.parser.left > LONG_BODY:
            self._pass_on()

    def _hear(self, data: bytes, found: ResponseHead | list[Event]) -> ResponseHead | list[Event]:
        """Check a response before the first successful one, which may not be HTTP/1 at all."""
        events = [found] if isinstance(found, ResponseHead) else found
        if events and isinstance(events[0], HttpError):
            ours = self._spoke or data.startswith(b"HTTP/")
            return found if ours else [ForeignAnswer(502, str(events[0]))]
        for event in events:
            if isinstance(event, Response):
                self._spoke = True
                self._succeeded = 200 <= event.status < 400
                self._pool.heard(self._succeeded)
        return found

    def _pass_on(self) -> None:
        """Have most of a long body spliced to the client's socket."""
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
        """Close the connection, as the host sends no more, which may be the end of a response."""
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
        self._pool.remove(self)
        self.parser.close()
        if exchange is not None:
            exchange.upstream_lost(loss(reason), reason.check(StreamRefused) is not None)

    # IPushProducer: we are the producer of what the host is to receive

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self.full = True
        if self._exchange is not None:
            self._exchange.upstream_full(True)

    def resumeProducing(self) -> None:
        """The transport's buffer has room."""
        self.full = False
        if self._exchange is not None:
            self._exchange.upstream_full(False)

    def stopProducing(self) -> None:
        """The connection is lost; C{connectionLost} follows."""
