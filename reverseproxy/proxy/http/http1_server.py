"""
Connections of clients that speak HTTP/1: their requests, in order.

L{Http1Proxy} parses what the client sends and gives each request to an
L{Exchange}, one at a time.  Pipelined requests are queued, and the connection is
not read while the queue is not empty, so that a client can have no more than one
read buffered.
"""

from __future__ import annotations

__all__ = ["Http1Proxy", "HttpSettings"]

from collections import deque
from math import inf

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.message_limits import FIELD_ROOM, HEAD_ROOM
from reverseproxy.config.models import Http1Options, Http2Options
from reverseproxy.errors import HttpError
from reverseproxy.interfaces import ConnectionInfo, IDrainable, IEndable, IExpendable, IPartable
from reverseproxy.limits.buffered_bytes import BufferAccount
from reverseproxy.limits.refusals import REFUSALS
from reverseproxy.logs import loss
from reverseproxy.metrics.latency import BUCKETS, GRID, GRID_END
from reverseproxy.net.dead_peers import watch_for_reset
from reverseproxy.proxy.clients import account_of, say_cut_off
from reverseproxy.proxy.counting import count
from reverseproxy.proxy.flags import ResponseFlag, who_ended
from reverseproxy.proxy.http.client_side import default_host, forwarded_by, note_mistake, tell
from reverseproxy.proxy.http.decisions import exchange_class
from reverseproxy.proxy.http.exchange import Exchange
from reverseproxy.proxy.http.http1_answering import Answering
from reverseproxy.proxy.http.http1_closing import CLOSING, HEAD, IDLE, OPEN
from reverseproxy.proxy.http.settings import HttpSettings
from reverseproxy.proxy.relay import BODY_TAIL, LONG_BODY
from reverseproxy.transport import stop_splice
from reverseproxy.wire.http.message import END, End, Event, Request
from reverseproxy.wire.http1.heads import RequestHead
from reverseproxy.wire.http1.requests import RequestParser

log = Logger()

DEFAULT_HEAD_SIZE = 8192
"""Bytes of a request head where the configuration says 0, as in MOSN."""

HELD_LIMIT = 65536
"""Bytes kept behind a request to switch protocols; reading pauses beyond them."""


_HTTP2_HEAD_SIZE = Http2Options().max_header_list_size


def head_limits(options: Http1Options, reverse: bool) -> tuple[int, int]:
    """
    Return the limits of request heads.

    @param reverse: whether the client is a tunnel server, which adds something
        to what it has taken, perhaps in HTTP/2, within limits of its own.
    @return: the most bytes, and the most fields.
    """
    size, fields = options.max_header_size or DEFAULT_HEAD_SIZE, options.max_headers_count
    if not reverse:
        return size, fields
    if "max_header_size" not in options.model_fields_set:
        size = _HTTP2_HEAD_SIZE
    return size + HEAD_ROOM, fields + FIELD_ROOM


@implementer(IDrainable, IEndable, IExpendable, IHalfCloseableProtocol, IPartable, IPushProducer)
class Http1Proxy(Answering):
    """
    The connection of a client; the L{IDownstream} of one exchange after the other.

    @ivar default_host: the Host of a request that names none: the address that
        it was sent to.
    @ivar gate: see L{reverseproxy.proxy.http.interfaces.IDownstream}.
    @ivar max_request_body_size: see L{reverseproxy.proxy.http.interfaces.IDownstream}.
    """

    protocol = "Http1"
    version = "1.1"

    def __init__(self, settings: HttpSettings, info: ConnectionInfo) -> None:
        super().__init__(settings, info)
        options = settings.options
        self.max_request_body_size = options.max_request_body_size
        self.gate = settings.gate_of(info)
        self.forwarded_by = forwarded_by(options, info)
        self.default_host = default_host(info)
        self._parser = RequestParser(*head_limits(options, info.reverse), settings.trust.foreign(info))
        self._events: deque[Event] = deque()
        self._passing = False  # most of the body of a request goes to its host unseen
        self._running = False
        self._reading = True

    # IDrainable

    @property
    def busy(self) -> bool:
        """Whether a request or session is active."""
        return (
            self._exchange is not None
            or self._tunnel is not None
            or bool(self._events)
            or self._parser.in_head
            or self._closing_phase is CLOSING
        )

    @property
    def expendable(self) -> bool:
        """See L{IExpendable}."""
        return self._exchange is None and self._tunnel is None and not self._events

    # the connection

    def connectionMade(self) -> None:
        """Wait for the first request."""
        self.transport.registerProducer(self, True)
        self._set_idle_deadline(self._seconds())

    def dataReceived(self, data: bytes) -> None:
        """Parse what the client sends."""
        if self._closing_phase >= CLOSING:
            self._drop(data)
            return
        found: RequestHead | list[Event]
        try:
            found = self._parser.feed_one(data)
        except Exception:
            found = [self._parser_failed()]
        if isinstance(found, RequestHead):
            if self._exchange is None and not (self._events or self.full or self._running):
                self._writer.persists = found.keep_alive
                exchange = self._exchange = exchange_class.kind(self, found, self._seconds(), self)
                exchange.begin_whole()
                if not self._reading or self._parser.held:
                    self.update_reading()
                return
            self._events.append(found)
            self._events.append(END)
        else:
            self._events.extend(found)
        if not self._running:
            self._run()
            if self._parser.left > LONG_BODY:
                self._pass_on()
        if self._exchange is None and self._parser.in_head and self._awaited is not HEAD:
            self._set_deadline(self._seconds() + self.settings.head_timeout, HEAD)
        if self._closing_phase < CLOSING:
            self._count(data)

    def _count(self, data: bytes) -> None:
        """Account for the bytes that are buffered for this client."""
        parser, exchange = self._parser, self._exchange
        size = parser.unfinished + parser.held_size
        if self._events:
            size += len(data)  # it is all that was read, as no more is while these wait
        if exchange is not None:
            size += exchange.waiting
        self.count(size)

    def open_account(self) -> BufferAccount:
        """See L{AccountedProtocol}."""
        return account_of(self.info, self._made_room)

    def _made_room(self, reason: str) -> None:
        """Close this connection, as the buffers of all clients are full."""
        say_cut_off(self.settings, self.info, reason)
        self._cancel(reason, ResponseFlag.OM)
        self.transport.abortConnection()

    def _run(self) -> None:
        """Handle the events that are queued, until one has to wait for the current exchange to end."""
        events = self._events
        self._running = True
        while True:
            while events and self._accept(events[0]):
                if self._closing_phase >= CLOSING:
                    events.clear()
                    break
                events.popleft()
            exchange = self._exchange
            if exchange is None:
                break
            exchange.flush()
            if self._exchange is not None or not events:
                break
        self._running = False
        if self._eof:
            self._look_at_end()
        elif events or not self._reading or self._parser.held:
            self.update_reading()

    def _accept(self, event: Event) -> bool:
        """
        Handle an event, unless it belongs to a request that has to wait.

        @return: whether it is handled.
        """
        exchange = self._exchange
        if type(event) is bytes:
            if exchange is not None:
                exchange.add_body(event)
        elif type(event) is End:
            if exchange is not None:
                exchange.end_request(event)
        elif type(event) is RequestHead:
            if exchange is not None or self.full:
                return False
            self._begin(event)
        elif isinstance(event, HttpError):
            if exchange is not None and exchange.request_complete:
                return False
            self._malformed(event)
        return True

    def _begin(self, head: RequestHead) -> None:
        """Begin the exchange of a request."""
        self._writer.persists = head.keep_alive
        self._exchange = exchange_class.kind(self, head, self._seconds(), self)

    def _pass_on(self) -> None:
        """Have most of a long body spliced to the host's socket."""
        exchange = self._exchange
        if exchange is None or self._events or exchange.head.upgrade:
            return
        sink = exchange.request_sink()
        size = self._parser.left - BODY_TAIL
        if sink is not None and self.splice_to(sink, size, exchange.request_passed):
            self._parser.skip_body(size)
            self._passing = True

    def update_reading(self) -> None:
        """Pause or resume reading, by what is queued and what the exchange demands."""
        if self._closing_phase >= CLOSING or self._eof or self._tunnel is not None:
            return
        exchange = self._exchange
        reading = not (
            (self._events and not self._running)
            or (exchange is not None and exchange.holds_back)
            or self._parser.held_size > HELD_LIMIT
        )
        if reading != self._reading:
            self._reading = reading
            if reading:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def _parser_failed(self) -> HttpError:
        """Log an error of our own in the parser; the client gets a 400."""
        log.failure(
            "{listener}: what {peer} sent can't be parsed",
            listener=self.settings.listener,
            peer=self.info.remote,
        )
        self._parser.close()
        return HttpError(400, "the request can't be parsed")

    def _malformed(self, error: HttpError) -> None:
        """Answer a violation of the protocol; what follows it can't be parsed."""
        REFUSALS["http1"] += 1
        note_mistake(log, self.settings, self.info, str(error))
        exchange = self._exchange
        if exchange is not None:
            exchange.fail(error.status, str(error), ResponseFlag.DPE)
            return
        self._writer.persists = False
        head = Request(b"HEAD" if error.head_request else b"", b"", b"", [])
        exchange = self._exchange = exchange_class.kind(self, head, self._seconds(), self)
        exchange.fail(error.status, str(error), ResponseFlag.DPE)

    # what an exchange tells us

    def exchange_done(self, exchange: Exchange) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IDownstream}."""
        keep_alive = self._writer.keep_alive and exchange.request_complete
        self._exchange = None
        if self._counted is not None:
            self._count(b"")
        settings = self.settings
        now = self._seconds()
        tally = settings.tally
        if tally is not None:
            host = exchange.host
            if (
                exchange.usual is tally.rule
                and host is not None
                and (counters := host.counters).cell is tally.cell
                and (seconds := now - exchange.started) >= 0.0
                and seconds < GRID_END
            ):
                # As RequestTally.end would do, but for its call, which takes as long as a third of this.
                counters.ends[BUCKETS[(seconds * GRID).__trunc__()]] += 1.0
                counters.seconds += seconds
                counters.sent += exchange.sent
            else:
                count(tally, exchange, now)
        if settings.observed:
            tell(settings, exchange)
        if not keep_alive or self._closing_phase is not OPEN:
            # A client that asked for the close, and has sent everything, sends no more.
            self._close(linger=self._writer.persists or not exchange.request_complete)
            return
        if self._eof:
            if not self._running:
                self._run()
            return
        if self._parser.in_head:
            self._set_deadline(now + settings.head_timeout, HEAD)
        else:
            timeout = settings.idle_timeout
            self._deadline = deadline = inf if timeout is None else now + timeout
            self._awaited = IDLE
            if deadline < self._timer.fires_at:
                self._timer.look_at(deadline)
        if self._running:
            return
        if self._events:
            self._run()
        elif not self._reading:
            self.update_reading()

    def _upgrade_declined(self) -> None:
        """Read on in HTTP behind a request to switch protocols that was answered otherwise."""
        try:
            self._events.extend(self._parser.resume())
        except Exception:
            self._events.append(self._parser_failed())
        if self._eof:
            self._drop_incomplete()

    # the end

    def _head_too_slow(self) -> None:
        if self._exchange is None:
            self._malformed(HttpError(408, "the head of the request took too long"))

    def _take_held(self) -> bytes:
        return self._parser.take_held()

    def _forget_requests(self) -> None:
        self._parser.close()
        self._events.clear()

    def _read_anything(self) -> None:
        if not self._reading:
            self._reading = True
            self.transport.resumeProducing()

    def _pass_nothing(self) -> None:
        if self._passing:
            stop_splice(self.transport)

    def http_read_closed(self) -> None:
        """
        The client sends no more.

        What it has asked for is answered.  Whether it still wants the answers
        can't be known before they are sent.
        """
        self._eof = True
        if self._closing_phase < CLOSING and not self.settings.abort_on_half_close:
            self._drop_incomplete()
            self._look_at_end()
            if self._closing_phase < CLOSING:
                watch_for_reset(self.transport)
        else:
            self._leave()

    def _drop_incomplete(self) -> None:
        """Drop a queued request of which no more will come."""
        events = self._events
        while events and type(events[-1]) is not End and type(events[-1]) is not HttpError:
            events.pop()

    def _look_at_end(self) -> None:
        """Close the connection, once the client sends no more and everything is answered."""
        exchange = self._exchange
        if (
            self._closing_phase < CLOSING
            and not self._events
            and (exchange is None or not exchange.request_complete)
        ):
            self._leave()

    @property
    def _goes_on(self) -> bool:
        """Whether another request may follow the current one."""
        if self._closing_phase is not OPEN:
            return False
        return not self._eof or bool(self._events) or self._parser.held_size > 0

    def http_lost(self, reason: Failure) -> None:
        """The connection is lost."""
        self._lose()
        self._cancel(f"the client's connection was lost: {loss(reason)}", who_ended(reason))
        self._forget_requests()
        self.count_no_more()

    def resumeProducing(self) -> None:
        """The transport's buffer has room."""
        self.full = False
        if self._exchange is not None:
            self._exchange.downstream_full(False)
        elif self._events and not self._running:
            self._run()
            self.update_reading()
