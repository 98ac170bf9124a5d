"""
The downstream side of HTTP/2: one client connection, a stream for each request.

L{Http2Proxy} has the connection; an L{Http2Stream} is the L{IDownstream} of one
L{Exchange}.  A stream stays known until its response is sent, or has waited too
long for a client that does not take it.

A connection that is to close tells its client so twice (RFC 9113 6.8): first
that no stream should be opened any more, and when that has certainly arrived,
which streams are the last ones.  In between, requests that were under way are
still served, so that none is lost.  A reverse connection is not told: who sends
on it has been told by other means, or is a MOSN that could not go on.
"""

from __future__ import annotations

__all__ = ["Http2Proxy", "Http2Stream"]

from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from sys import maxsize
from typing import Final

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.addresses import is_unix
from reverseproxy.cluster.room import FIELD_ROOM, HEAD_ROOM
from reverseproxy.config.durations import format_duration
from reverseproxy.config.models import Http2Options
from reverseproxy.errors import Http2Error, HttpError
from reverseproxy.interfaces import ConnectionInfo, IDrainable, IEndable, IExpendable
from reverseproxy.logs import counted, said
from reverseproxy.proxy.clients import account_of, say_cut_off
from reverseproxy.proxy.farewell import FRESH, QUIET, LastBytes, Parting, note_loss
from reverseproxy.proxy.flags import Flag, who_ended
from reverseproxy.proxy.http.deadlines import LOOKS, Pace
from reverseproxy.proxy.http.decisions import exchange_class
from reverseproxy.proxy.http.exchange import Exchange
from reverseproxy.proxy.http.http2_connection import Http2Protocol
from reverseproxy.proxy.http.http2_tunnel import Http2Tunnel, accepts, answer_to_connect, websocket_request
from reverseproxy.proxy.http.interfaces import IUpgraded
from reverseproxy.proxy.http.settings import HttpSettings
from reverseproxy.proxy.http.upgraded import Upgraded, is_websocket
from reverseproxy.refused import REFUSED
from reverseproxy.sockets import heed_reset, keep_short
from reverseproxy.tls import too_weak_for_http2
from reverseproxy.transport.backlog import Backlog
from reverseproxy.transport.memory import WINDOWS
from reverseproxy.unfinished import Account
from reverseproxy.wire.http.border import NOTHING
from reverseproxy.wire.http.forwarded import ForwardedBy
from reverseproxy.wire.http.grpc import error_fields, error_trailers, is_grpc
from reverseproxy.wire.http.message import END, End, Request, Response
from reverseproxy.wire.http.message import Event as HttpEvent
from reverseproxy.wire.http.unsent import UNSENT_FIELD
from reverseproxy.wire.http2.connection import ServerConnection
from reverseproxy.wire.http2.events import Event, GoAway, Http2Limits, Pong, Reset
from reverseproxy.wire.http2.fields import response_fields, trailer_fields
from reverseproxy.wire.http2.frames import ErrorCode
from reverseproxy.wire.http2.upgrades import Content

log = Logger()

WARNING_TIME: Final = 5.0
"""Seconds after which a client that answers no PING has heard that the connection will close."""

_WARNED: Final = b"draining"
"""The PING behind the first GOAWAY: its answer says that that has arrived."""


def limits_of(options: Http2Options, reverse: bool = False, foreign: int = NOTHING) -> Http2Limits:
    """
    Say what clients may do, as it is configured.

    @param reverse: whether the client is a tunnel server, which adds something
        to what it has taken, perhaps in HTTP/1, within limits of its own.
    @param foreign: the marks of fields that they may not set.
    """
    size, fields = options.max_header_list_size, options.max_headers_count
    if reverse:
        size, fields = size + HEAD_ROOM + 32 * (fields + FIELD_ROOM), fields + FIELD_ROOM
    return Http2Limits(
        max_concurrent_streams=options.max_concurrent_streams,
        max_header_list_size=size,
        max_fields=fields,
        stream_window=options.initial_window_size,
        max_window=max(options.initial_window_size, options.max_window_size),
        receive_budget=options.max_window_growth,
        max_resets=options.max_resets,
        max_control_frames=options.max_control_frames,
        foreign=foreign,
    )


def _not_switched(exchange: Exchange, head: Response) -> Response:
    """Make an error of an answer that a client would take for the beginning of the other protocol."""
    exchange.status = 502
    exchange.flag = f"the host did not switch protocols, but answered with {head.status}"
    exchange.flags |= Flag.UPE
    return Response(502, head.headers, head.length, head.options)


class Http2Stream:
    """
    One request of a connection.

    @ivar number: the stream's number.
    @ivar exchange: who serves it, until that is over.
    @ivar deadline: when to look at the exchange, or at what the client has taken.
    @ivar grpc: whether it carries a call of gRPC, which ends with trailers if
        there is an error of ours.
    @ivar idle: seconds in which the client must take something of a response
        that is complete here; infinity for any time.
    @ivar content: the body of a request to switch protocols, as long as it has
        not come to its end.
    @ivar early: what a client sent behind such a request.
    @ivar tunnel: what it carries after that.
    """

    protocol = "Http2"
    version = "2"

    __slots__ = (
        "_held",
        "_http2",
        "_pace",
        "_proxy",
        "content",
        "deadline",
        "default_host",
        "early",
        "exchange",
        "forwarded_by",
        "full",
        "gate",
        "grpc",
        "idle",
        "info",
        "max_request_body_size",
        "number",
        "session",
        "settings",
        "tunnel",
    )

    def __init__(self, proxy: Http2Proxy, number: int) -> None:
        self.settings = proxy.settings
        self.info = proxy.info
        self.forwarded_by = proxy.forwarded_by
        self.gate = proxy.gate
        self.default_host = proxy.default_host
        self.max_request_body_size = proxy.settings.http2.max_request_body_size
        self.full = False
        self.number = number
        self.exchange: Exchange | None = None
        self.deadline = inf
        self.grpc = False
        self.idle = inf
        self.content: Content | None = None
        self.early: list[bytes | End] = []
        self.tunnel: Http2Tunnel | None = None
        self.session: Upgraded | None = None
        self._proxy = proxy
        self._http2 = proxy.http2
        self._held = False
        self._pace: Pace | None = None

    # what an exchange tells us

    def set_look(self, when: float) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IDownstream}."""
        self.deadline = when
        self._proxy.look_at(when)

    def backlog(self) -> Backlog:
        """See L{reverseproxy.proxy.http.interfaces.IDownstream}."""
        return self._proxy.backlog_of(self.number)

    def send(self, exchange: Exchange, events: Sequence[HttpEvent]) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IDownstream}."""
        http2 = self._http2
        number = self.number
        last = len(events) - 1
        for index, event in enumerate(events):
            if type(event) is bytes:
                http2.send_data(number, event)
            elif isinstance(event, Response):
                request = exchange.head
                if event.status == 101 and not request.options:
                    if not accepts(request, event):
                        exchange.fail(
                            502, "the host took a request for a WebSocket for something else", Flag.UPE
                        )
                        return
                    http2.send_head(number, answer_to_connect(event), False)
                    continue
                if request.upgrade and event.status >= 200:
                    http2.decline_tunnel(number)
                    if event.status < 300 and not request.options:
                        event = _not_switched(exchange, event)
                following = events[index + 1] if index < last else None
                ended = type(following) is End and not following.trailers
                http2.send_head(number, response_fields(event, http2.peer_upgrades), ended)
            elif type(event) is End:
                http2.send_end(number, trailer_fields(event.trailers) if event.trailers else [])
        if not self.full and http2.is_full(number):
            self.full = True
            exchange.downstream_full(True)
        self._proxy.flush()

    def reply(
        self, exchange: Exchange, status: int, body: bytes, content_type: bytes, location: bytes
    ) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IDownstream}."""
        http2 = self._http2
        http2.decline_tunnel(self.number)
        unsent = exchange.unsent_field()
        if self.grpc and status >= 400 and not unsent:
            http2.send_head(self.number, error_fields(status, body.strip()), True)
            self.exchange_done(exchange)
            self._proxy.flush()
            return
        fields = [(b":status", b"%d" % status)]
        if status == 204 or status == 304:
            body = b""
        else:
            if body:
                fields.append((b"content-type", content_type))
            fields.append((b"content-length", b"%d" % len(body)))
        if location:
            fields.append((b"location", location))
        if unsent:
            fields.append((UNSENT_FIELD, unsent))
        if exchange.head.method == b"HEAD":
            body = b""
        http2.send_head(self.number, fields, not body)
        http2.send_data(self.number, body)
        http2.send_end(self.number, [])
        exchange.sent = len(body)
        self.exchange_done(exchange)
        self._proxy.flush()

    def exchange_done(self, exchange: Exchange) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IDownstream}."""
        self._over(exchange)

    def exchange_broken(self, exchange: Exchange) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IDownstream}."""
        ending = exchange.ending
        if self.grpc and not ending.code and not ending.stalled:
            # A client of gRPC takes a reset for an error in its call.
            trailers = error_trailers(ending.status, ending.message.encode("utf-8", "replace"))
            self._http2.send_end(self.number, trailers)
        else:
            code = ErrorCode.CANCEL if ending.stalled else ErrorCode.INTERNAL_ERROR
            self._http2.reset(self.number, ending.code or code)
        self._over(exchange)
        self._proxy.flush()

    def _over(self, exchange: Exchange) -> None:
        self.exchange = None
        self.full = False
        self._proxy.record(exchange)
        self._proxy.stream_answered(self, exchange)

    def upgraded(self, exchange: Exchange, client: IUpgraded) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IDownstream}."""
        self.exchange = self.content = None
        self.full = False
        self._proxy.begin_tunnel(self, exchange, client)

    def update_reading(self) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IDownstream}."""
        exchange = self.exchange
        if exchange is not None and exchange.head.upgrade and self.content is None:
            return
        if exchange is not None and exchange.holds_back:
            if not self._held:
                self._held = True
                self._http2.hold(self.number)
        else:
            self._release()

    def content_ended(self, rest: bytes) -> None:
        """
        The body in front of another protocol has come to its end.

        @param rest: what came of that protocol.
        """
        self.content = None
        self._release()
        self._http2.hold(self.number)  # until there is somebody to give it to
        if rest and self.exchange is not None:
            self.early.append(rest)

    def _release(self) -> None:
        if self._held:
            self._held = False
            self._proxy.release(self.number)

    def takes(self) -> bool:
        """Look whether the client goes on to take a response that is complete here."""
        if self._pace is None:
            self._pace = Pace()
        return self._pace.look(self.backlog().mark, self.info.reverse) < LOOKS

    # what the connection tells us

    def drained(self) -> None:
        """The client takes more."""
        if self.tunnel is not None:
            self.tunnel.drained()
        elif self.full:
            self.full = False
            if self.exchange is not None:
                self.exchange.downstream_full(False)

    def was_reset(self, reason: str, flags: int) -> None:
        """The client has broken the request off, or has made us do so."""
        if self.tunnel is not None:
            self.tunnel.lose(reason)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.cancel(reason, flags)
            self._proxy.record(exchange)


@implementer(IDrainable, IEndable, IExpendable, IHalfCloseableProtocol, IPushProducer)
class Http2Proxy(Http2Protocol):
    """
    One client connection.

    @ivar default_host: the authority of a request that names none: the address
        that it was sent to.
    @ivar draining: whether no new request is wanted.
    """

    http2: ServerConnection

    def __init__(self, settings: HttpSettings, info: ConnectionInfo) -> None:
        options = settings.http2
        # A tunnel server that is not one of ours hears nothing that it does not know.
        ours = info.announced or not info.reverse
        told = partial(note_loss, settings.complaints, settings.listener, info.remote)
        parting = Parting(settings.linger, settings.stream_idle, info.reverse, told)
        # MOSN may acknowledge our SETTINGS before it has sent its own: it gets none before that.
        limits = limits_of(options, info.reverse, settings.trust.foreign(info))
        http2 = ServerConnection(limits, ours, silent=info.reverse, mosn=not ours, reserve=WINDOWS)
        super().__init__(http2, settings.clock, parting)
        self._end_flags = int(Flag.DC)  # why what is under way is given up when the connection ends
        self.settings = settings
        self.info = info
        self.gate = settings.gate_of(info)
        self.draining = False
        self.forwarded_by: ForwardedBy | None = None
        if options.via or options.x_forwarded != "off":
            self.forwarded_by = ForwardedBy(
                options.via, options.x_forwarded, info.remote_ip, "https" if info.secure else "http"
            )
        self.default_host = b"localhost" if is_unix(info.local) else info.local.encode("ascii")
        self._streams: dict[int, Http2Stream] = {}
        self._begun = False  # something has come
        self._greeted_by = inf  # when the client must have said hello
        self._idle_since = 0.0
        self._warned_until = inf  # when the last streams are named
        self._named = False
        self._eof = False  # the client sends no more

    # IDrainable

    @property
    def busy(self) -> bool:
        """Whether a request or session is under way."""
        return bool(self._streams) or (self.ending and not self.lost)

    @property
    def expendable(self) -> bool:
        """See L{IExpendable}."""
        return not self._streams

    def drain(self) -> None:
        """See L{IDrainable}."""
        if self.draining or self.info.reverse:
            return
        self.draining = True
        now = self.clock.seconds()
        if not self.http2.established and now - self._idle_since >= FRESH:
            self._finish(ErrorCode.NO_ERROR, "", linger=True)
            return
        self.http2.warn()
        self.http2.ping(_WARNED)
        self._warned_until = now + (WARNING_TIME if self.http2.established else QUIET)
        self._look_at(self._warned_until)
        self.flush()

    # IEndable

    @property
    def doing(self) -> str:
        """See L{IEndable}."""
        sessions = sum(stream.tunnel is not None for stream in self._streams.values())
        parts = [counted(sessions, "session")] if sessions else []
        if len(self._streams) > sessions:
            parts.append(counted(len(self._streams) - sessions, "stream"))
        return f"HTTP/2 with {' and '.join(parts)}" if parts else ""

    def end(self, reason: str) -> None:
        """See L{IEndable}; the last stream has been named by now."""
        if not self.info.reverse:
            self._name_last_stream()
        for stream in list(self._streams.values()):
            if stream.session is not None:
                stream.session.end(reason)
            elif stream.exchange is not None:
                stream.exchange.fail(503, reason, Flag.LR)

    def _name_last_stream(self) -> None:
        """The client knows that it should open no more streams: those that came are the last."""
        self._warned_until = inf
        if not self._named:
            self._named = True
            self.http2.refuse_new()
            self.flush()

    # the connection

    def connectionMade(self) -> None:
        """Wait for the client; on a reverse connection, say nothing before it does."""
        self.transport.registerProducer(self, True)
        keep_short(self.transport)
        self._idle_since = self.clock.seconds()
        if self.settings.idle_timeout is not None:
            self._look_at(self._idle_since + self.settings.idle_timeout)
        if not self.info.reverse:
            self.http2.greeted(self._idle_since)
            self.flush()

    def dataReceived(self, data: bytes) -> None:
        """Take what the client sends."""
        if not self._begun:
            self._begun = True
            self._greeted_by = self.clock.seconds() + self.settings.head_timeout
            self._look_at(self._greeted_by)
            weak = too_weak_for_http2(self.transport) if self.info.secure else ""
            if weak:
                log.warn(
                    "{listener}: {peer} wants HTTP/2 with {weak}, which is too weak for it",
                    listener=self.settings.listener,
                    peer=self.info.remote,
                    weak=weak,
                )
                self._finish(ErrorCode.INADEQUATE_SECURITY, f"{weak} is too weak for HTTP/2", linger=True)
                return
        super().dataReceived(data)

    def open_account(self) -> Account:
        """See L{reverseproxy.unfinished.Counted}."""
        return account_of(self.info, self._made_room)

    def _made_room(self, reason: str) -> None:
        """This connection has to go for others."""
        say_cut_off(self.settings, self.info, reason)
        self._end_flags = Flag.OM
        self._abort(reason)

    def _handle(self, events: Sequence[tuple[int, Event]]) -> None:
        streams = self._streams
        touched: dict[Exchange, None] = {}
        for number, event in events:
            stream = streams.get(number)
            exchange = None if stream is None else stream.exchange
            if type(event) is bytes:
                if exchange is None or exchange.head.upgrade:
                    self._passed_by(stream, event, touched)
                else:
                    exchange.add_body(event)
                    touched[exchange] = None
            elif type(event) is Request:
                touched[self._begin(number, event)] = None
            elif type(event) is End:
                if exchange is None or exchange.head.upgrade:
                    self._passed_by(stream, event, touched)
                else:
                    exchange.end_request(event)
                    touched[exchange] = None
            elif type(event) is HttpError:
                self._refuse(number, event)
            elif type(event) is Reset:
                self._reset(number, event)
            elif number == 0:
                self._on_connection(event)
        if not self.ending:
            for exchange in touched:
                exchange.flush()

    def _begin(self, number: int, head: Request) -> Exchange:
        stream = self._streams[number] = Http2Stream(self, number)
        if head.upgrade and not head.options:
            head = websocket_request(head)
        exchange = stream.exchange = exchange_class.kind(stream, head, self.clock.seconds())
        stream.grpc = (b"te", b"trailers") in head.headers and is_grpc(head.headers)
        if head.upgrade:
            if head.length:
                stream.content = Content(head.length)
            else:
                exchange.end_request(END)
                self.http2.hold(number)  # until there is somebody to give it to
        return exchange

    def _passed_by(
        self, stream: Http2Stream | None, event: bytes | End, touched: dict[Exchange, None]
    ) -> None:
        """Something came that belongs to no ordinary request, but perhaps to another protocol."""
        if stream is None:
            return
        exchange = stream.exchange
        if stream.tunnel is not None:
            stream.tunnel.received(event)
        elif exchange is not None and stream.content is not None:
            self._add_content(stream, stream.content, exchange, event)
            touched[exchange] = None
        elif exchange is not None:
            stream.early.append(event)

    def _add_content(
        self, stream: Http2Stream, content: Content, exchange: Exchange, event: bytes | End
    ) -> None:
        """A part of the body came that stands before another protocol."""
        if type(event) is not bytes:
            exchange.fail(400, "the request ended before its body did", Flag.DPE)
            return
        try:
            events, rest = content.feed(event)
        except HttpError as error:
            exchange.fail(error.status, str(error), Flag.DPE)
            return
        for part in events:
            if isinstance(part, bytes):
                exchange.add_body(part)
            else:
                exchange.end_request(part)
        if content.complete:
            stream.content_ended(rest)

    def _refuse(self, number: int, error: HttpError) -> None:
        """A request is well-formed, but not to be served."""
        self._note_mistake(str(error))
        head = Request(b"", b"", b"", [])
        self._begin(number, head).fail(error.status, str(error), Flag.DPE)

    def _waiting(self, number: int) -> int:
        stream = self._streams.get(number)
        if stream is not None and stream.tunnel is not None:
            return stream.tunnel.waiting
        exchange = None if stream is None else stream.exchange
        return maxsize if exchange is None else exchange.request_waiting

    def _shed(self, number: int, reason: str) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        complaints = self.settings.complaints
        if complaints.allow():
            log.warn(
                "{listener}: a request of {peer} is broken off: {reason}{suppressed}",
                listener=self.settings.listener,
                peer=self.info.remote,
                reason=reason,
                suppressed=complaints.suppressed,
            )
        stream.was_reset(reason, Flag.OM)
        self._forget(stream)

    def _note_mistake(self, reason: str) -> None:
        complaints = self.settings.complaints
        if complaints.allow():
            log.info(
                "{listener}: {peer} sent a bad request: {reason}{suppressed}",
                listener=self.settings.listener,
                peer=self.info.remote,
                reason=reason,
                suppressed=complaints.suppressed,
            )

    def _reset(self, number: int, reset: Reset) -> None:
        stream = self._streams.get(number)
        if not reset.remote and reset.code != ErrorCode.REFUSED_STREAM:
            self._note_mistake(reset.reason)
        if stream is not None:
            if reset.remote:
                stream.was_reset("the client cancelled", Flag.DR)
            else:
                stream.was_reset("the client sent a bad request", Flag.DPE)
            self._forget(stream)

    def _on_connection(self, event: Event) -> None:
        if isinstance(event, Http2Error):
            REFUSED["http2"] += 1
            complaints = self.settings.complaints
            if complaints.allow():
                log.warn(
                    "{listener}: {peer} broke the rules of HTTP/2: {reason} ({code}){suppressed}",
                    listener=self.settings.listener,
                    peer=self.info.remote,
                    reason=str(event),
                    code=ErrorCode.name_of(event.code),
                    suppressed=complaints.suppressed,
                )
            self._end_flags = Flag.DPE
            self._close("the client broke the rules of HTTP/2", linger=True)
        elif isinstance(event, Pong):
            if event.data == _WARNED and self.draining:
                self._name_last_stream()
        elif isinstance(event, GoAway) and event.code:
            # It opens no more streams: the connection is closed when those that are open are done.
            log.info(
                "{listener}: {peer} opens no more streams: {code}{debug}",
                listener=self.settings.listener,
                peer=self.info.remote,
                code=ErrorCode.name_of(event.code),
                debug=said(event.debug),
            )

    # streams

    def look_at(self, deadline: float) -> None:
        """A stream has a deadline."""
        self._look_at(deadline)

    def record(self, exchange: Exchange) -> None:
        """Write an exchange that has ended to the access log."""
        settings = self.settings
        if settings.tracing is not None:
            exchange.end_trace()
        if settings.tally is not None:
            exchange.count(settings.tally, self.clock.seconds())
        if settings.access_log is not None:
            settings.access_log(exchange.record())

    def stream_answered(self, stream: Http2Stream, exchange: Exchange) -> None:
        """An exchange is over; its response may not be sent."""
        if self.http2.is_open(stream.number):
            idle = exchange.idle_timeout
            stream.idle = self.settings.stream_idle if idle is None else idle
            stream.deadline = self.clock.seconds() + stream.idle / LOOKS
            self._look_at(stream.deadline)
        else:
            self._forget(stream)

    def begin_tunnel(self, stream: Http2Stream, exchange: Exchange, client: IUpgraded) -> None:
        """A host has accepted to switch protocols: pass on bytes from now on."""
        tunnel = stream.tunnel = Http2Tunnel(self, stream.number)

        def closed(reason: Failure) -> None:
            self._forget(stream)
            exchange.session_ended(reason, Flag.DC)
            if stream.session is not None:
                stream.session.stop()
            exchange.received += tunnel.relay.received
            exchange.sent += 0 if tunnel.other is None else tunnel.other.received
            self.record(exchange)

        stream.deadline = inf
        tunnel.join(client, closed, exchange.tunnel_closed, is_websocket(exchange))
        if tunnel.other is not None and not tunnel.relay.lost:
            stream.session = Upgraded(exchange, tunnel.relay, tunnel.other, self.settings, self.info)
        early, stream.early = stream.early, []
        for event in early:
            tunnel.received(event)

    def _forget(self, stream: Http2Stream) -> None:
        if self._streams.pop(stream.number, None) is not None and not self._streams:
            self._idle_since = self.clock.seconds()
            if self._named or self._eof or self.http2.going:
                self.flush()  # and close behind it
            elif self.settings.idle_timeout is not None:
                self._look_at(self._idle_since + self.settings.idle_timeout)

    def _stream_drained(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            stream.drained()

    def _flushed(self) -> None:
        streams = self._streams
        if len(streams) > self.http2.streams:
            # Some have been sent completely.
            for stream in list(streams.values()):
                if stream.exchange is None and not self.http2.is_open(stream.number):
                    if stream.tunnel is not None:
                        stream.tunnel.look()
                    self._forget(stream)
        if self._eof and not self.full:
            self._give_up_what_waits()
        if not streams and (self._named or self._eof or self.http2.going) and not self.ending:
            self._finish(ErrorCode.NO_ERROR, "", linger=not (self._eof or self.http2.going))

    # timers

    def _next_deadline(self, now: float) -> float:
        if self._warned_until <= now:
            self._name_last_stream()
        if self._greeted_by <= now:
            self._greeted_by = inf
            if not (self.http2.established and self.http2.acknowledged):
                self._finish(ErrorCode.SETTINGS_TIMEOUT, "no SETTINGS, or no answer to ours", linger=True)
                return inf
        deadline = min(self._warned_until, self._greeted_by)
        for stream in list(self._streams.values()):
            if stream.deadline <= now:
                self._stream_late(stream, now)
            if stream.deadline < deadline and stream.number in self._streams:
                deadline = stream.deadline
        timeout = self.settings.idle_timeout
        if timeout is not None and not self._streams:
            if self._idle_since + timeout <= now:
                self._idle_since = self._idle_too_long(now) - timeout
            deadline = min(deadline, self._idle_since + timeout)
        return deadline

    def _idle_too_long(self, now: float) -> float:
        """
        Close, if the client has taken everything.

        @return: when to look again.
        """
        last = self._last
        if last is None:
            last = self._last = LastBytes(self.parting, self.transport)
            again = last.period if last.left else 0.0
        else:
            again = last.look()
        if again and last.left:
            return now + again
        self._last = None
        if again:
            return now + (self.settings.idle_timeout or 0.0)  # that was the end of it
        if last.left:
            self._abort("the client takes nothing")
        else:
            self._finish(ErrorCode.NO_ERROR, "idle", linger=True)
        return inf

    def _stream_late(self, stream: Http2Stream, now: float) -> None:
        stream.deadline = inf
        if stream.exchange is not None:
            again = stream.exchange.look(now)
            if stream.exchange is not None:
                stream.deadline = again
        elif stream.tunnel is None and stream.takes():
            stream.deadline = now + stream.idle / LOOKS
        elif stream.tunnel is None:
            reason = f"it took nothing of a response for {format_duration(stream.idle)}"
            note_loss(self.settings.complaints, self.settings.listener, self.info.remote, reason)
            self.http2.reset(stream.number, ErrorCode.CANCEL)
            self._forget(stream)

    # the end

    def readConnectionLost(self) -> None:
        """The client sends no more: what it has asked for in full is answered."""
        if self.ending or self.settings.abort_on_half_close:
            super().readConnectionLost()
            return
        self._eof = True
        self._greeted_by = inf
        self._break_off("the client closed the connection", lambda number: not self.http2.has_ended(number))
        if self._streams:
            heed_reset(self.transport)
        else:
            super().readConnectionLost()

    def _give_up_what_waits(self) -> None:
        """Nothing more opens the windows of a client that sends no more: what has no room in them is lost."""
        self._break_off("the client opens no window any more", lambda number: self.http2.unsent(number) > 0)

    def _break_off(self, reason: str, which: Callable[[int], bool]) -> None:
        streams = [stream for number, stream in self._streams.items() if which(number)]
        for stream in streams:
            self.http2.reset(stream.number, ErrorCode.CANCEL)
            stream.was_reset(reason, Flag.DC)
            self._streams.pop(stream.number, None)
        if streams and self._streams:
            self.flush()

    def _ended(self, reason: str) -> None:
        streams = list(self._streams.values())
        self._streams.clear()
        for stream in streams:
            stream.was_reset(reason, self._end_flags)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is lost."""
        if not self.ending:
            self._end_flags = who_ended(reason)
        super().connectionLost(reason)
