"""
Connections of clients that speak HTTP/2: a stream for each request.

L{Http2Proxy} is the connection; an L{Http2Stream} is the L{IDownstream} of one
L{Exchange}.  A stream is kept until its response is sent, or until the client has
not read it for too long.
"""

from __future__ import annotations

__all__ = ["Http2Proxy"]

from collections.abc import Sequence
from math import inf
from sys import maxsize

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.message_limits import FIELD_ROOM, HEAD_ROOM
from reverseproxy.config.models import Http2Options
from reverseproxy.errors import Http2Error, HttpError
from reverseproxy.interfaces import ConnectionInfo, IDrainable, IEndable, IExpendable
from reverseproxy.limits.buffered_bytes import BufferAccount
from reverseproxy.limits.refusals import REFUSALS
from reverseproxy.logs import said
from reverseproxy.net.tcp_options import limit_unsent
from reverseproxy.proxy.clients import account_of, say_cut_off
from reverseproxy.proxy.flags import ResponseFlag
from reverseproxy.proxy.http.client_side import default_host, forwarded_by, note_mistake, record
from reverseproxy.proxy.http.deadlines import LOOKS
from reverseproxy.proxy.http.decisions import exchange_class
from reverseproxy.proxy.http.exchange import Exchange
from reverseproxy.proxy.http.http2_closing import WARNED, Http2Closing
from reverseproxy.proxy.http.http2_stream import Http2Stream, StreamUpgrade
from reverseproxy.proxy.http.http2_tunnel import Http2Tunnel, websocket_request
from reverseproxy.proxy.http.interfaces import IUpgraded
from reverseproxy.proxy.http.settings import HttpSettings
from reverseproxy.proxy.http.upgraded import Upgraded, is_websocket
from reverseproxy.tls import too_weak_for_http2
from reverseproxy.transport.memory import WINDOWS
from reverseproxy.wire.http.border import NOTHING
from reverseproxy.wire.http.grpc import is_grpc
from reverseproxy.wire.http.message import END, End, Request
from reverseproxy.wire.http2.connection import ServerConnection
from reverseproxy.wire.http2.events import (
    RESETS_PER_SECOND,
    SHARED_RESETS,
    SHARED_RESETS_PER_SECOND,
    Event,
    GoAway,
    Http2Limits,
    PingAck,
    StreamReset,
)
from reverseproxy.wire.http2.frames import ErrorCode
from reverseproxy.wire.http2.upgrades import Content

log = Logger()


def limits_of(options: Http2Options, reverse: bool = False, foreign: int = NOTHING) -> Http2Limits:
    """
    Return the limits of what clients may send.

    @param reverse: whether the client is a tunnel server, which adds something
        to what it has taken, perhaps in HTTP/1, within limits of its own.
    @param foreign: the marks of fields that they may not set.
    """
    size, fields = options.max_header_list_size, options.max_headers_count
    resets, per_second = options.max_resets, RESETS_PER_SECOND
    if reverse:
        # All clients of the server may cancel their requests, each within such a limit there.
        resets, per_second = max(resets, SHARED_RESETS), SHARED_RESETS_PER_SECOND
        size, fields = size + HEAD_ROOM + 32 * (fields + FIELD_ROOM), fields + FIELD_ROOM
    return Http2Limits(
        max_concurrent_streams=options.max_concurrent_streams,
        max_header_list_size=size,
        max_fields=fields,
        stream_window=options.initial_window_size,
        max_window=max(options.initial_window_size, options.max_window_size),
        receive_budget=options.max_window_growth,
        max_resets=resets,
        resets_per_second=per_second,
        max_control_frames=options.max_control_frames,
        foreign=foreign,
    )


@implementer(IDrainable, IEndable, IExpendable, IHalfCloseableProtocol, IPushProducer)
class Http2Proxy(Http2Closing):
    """
    The connection of a client.

    @ivar default_host: the authority of a request that names none: the address
        that it was sent to.
    """

    http2: ServerConnection

    def __init__(self, settings: HttpSettings, info: ConnectionInfo) -> None:
        options = settings.http2
        # Extensions are for tunnel servers of this project only.
        ours = info.announced or not info.reverse
        # MOSN may acknowledge our SETTINGS before it has sent its own: it gets none before that.
        limits = limits_of(options, info.reverse, settings.trust.foreign(info))
        http2 = ServerConnection(limits, ours, silent=info.reverse, mosn=not ours, reserve=WINDOWS)
        super().__init__(http2, settings, info)
        self.gate = settings.gate_of(info)
        self.forwarded_by = forwarded_by(options, info)
        self.default_host = default_host(info)
        self._begun = False  # something has come
        self._waits = False  # nothing is read until the client takes what is there for it

    # the connection

    def connectionMade(self) -> None:
        """Wait for the client; on a reverse connection, say nothing before it does."""
        self.transport.registerProducer(self, True)
        limit_unsent(self.transport)
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
        if self.full and self.overfull and not (self._waits or self.ending):
            self._waits = True
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """The transport's buffer has room."""
        super().resumeProducing()
        self._read_on()

    def _close(self, reason: str, linger: bool) -> None:
        super()._close(reason, linger)
        self._read_on()

    def _read_on(self) -> None:
        if self._waits and not self.lost:
            self._waits = False
            self.transport.resumeProducing()

    def open_account(self) -> BufferAccount:
        """See L{reverseproxy.limits.buffered_bytes.AccountedProtocol}."""
        return account_of(self.info, self._made_room)

    def _made_room(self, reason: str) -> None:
        """Close this connection, as the buffers of all clients are full."""
        say_cut_off(self.settings, self.info, reason)
        self._end_flags = ResponseFlag.OM
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
            elif type(event) is StreamReset:
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
            upgrade = stream.upgrade = StreamUpgrade()
            if head.length:
                upgrade.content = Content(head.length)
            else:
                exchange.end_request(END)
                self.http2.hold(number)  # until the host has accepted, or declined
        return exchange

    def _passed_by(
        self, stream: Http2Stream | None, event: bytes | End, touched: dict[Exchange, None]
    ) -> None:
        """Take a part of a stream that carries, or may carry, another protocol."""
        if stream is None:
            return
        exchange, upgrade = stream.exchange, stream.upgrade
        if stream.tunnel is not None:
            stream.tunnel.received(event)
        elif exchange is None or upgrade is None:
            return
        elif upgrade.content is not None:
            self._add_content(stream, upgrade.content, exchange, event)
            touched[exchange] = None
        else:
            upgrade.early.append(event)

    def _add_content(
        self, stream: Http2Stream, content: Content, exchange: Exchange, event: bytes | End
    ) -> None:
        """Take a part of the body that precedes another protocol."""
        if type(event) is not bytes:
            exchange.fail(400, "the request ended before its body did", ResponseFlag.DPE)
            return
        try:
            events, rest = content.feed(event)
        except HttpError as error:
            exchange.fail(error.status, str(error), ResponseFlag.DPE)
            return
        for part in events:
            if isinstance(part, bytes):
                exchange.add_body(part)
            else:
                exchange.end_request(part)
        if content.complete:
            stream.content_ended(rest)

    def _refuse(self, number: int, error: HttpError) -> None:
        """Answer a well-formed request that breaks a limit."""
        note_mistake(log, self.settings, self.info, str(error))
        exchange = self._begin(number, Request(b"HEAD" if error.head_request else b"", b"", b"", []))
        self._streams[number].grpc = error.grpc
        exchange.fail(error.status, str(error), ResponseFlag.DPE)

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
        stream.was_reset(reason, ResponseFlag.OM)
        self._forget(stream)

    def _reset(self, number: int, reset: StreamReset) -> None:
        stream = self._streams.get(number)
        if not reset.remote and reset.code != ErrorCode.REFUSED_STREAM:
            note_mistake(log, self.settings, self.info, reset.reason)
        if stream is not None:
            if reset.remote:
                stream.was_reset("the client cancelled", ResponseFlag.DR)
            else:
                stream.was_reset("the client sent a bad request", ResponseFlag.DPE)
            self._forget(stream)

    def _on_connection(self, event: Event) -> None:
        if isinstance(event, Http2Error):
            REFUSALS["http2"] += 1
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
            self._end_flags = ResponseFlag.DPE
            self._close("the client broke the rules of HTTP/2", linger=True)
        elif isinstance(event, PingAck):
            if event.data == WARNED and self.draining:
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
        """Check the deadline of a stream at this time."""
        self._look_at(deadline)

    def stream_answered(self, stream: Http2Stream, exchange: Exchange) -> None:
        """Note that an exchange has ended; its response may still be buffered."""
        if self.http2.is_open(stream.number):
            idle = exchange.stream_idle
            stream.idle = self.settings.stream_idle if idle is None else idle
            stream.deadline = self.clock.seconds() + stream.idle / LOOKS
            self._look_at(stream.deadline)
        else:
            self._forget(stream)

    def begin_tunnel(self, stream: Http2Stream, exchange: Exchange, client: IUpgraded) -> None:
        """Turn a stream into a tunnel, as the host has accepted to switch protocols."""
        upgrade = stream.upgrade
        assert upgrade is not None
        tunnel = stream.tunnel = Http2Tunnel(self, stream.number)

        def closed(reason: Failure) -> None:
            self._forget(stream)
            exchange.session_ended(reason, ResponseFlag.DC)
            if upgrade.session is not None:
                upgrade.session.stop()
            exchange.received += tunnel.relay.received
            exchange.sent += 0 if tunnel.other is None else tunnel.other.received
            record(self.settings, exchange)

        stream.deadline = inf
        tunnel.join(client, closed, exchange.tunnel_closed, is_websocket(exchange))
        if tunnel.other is not None and not tunnel.relay.lost:
            upgrade.session = Upgraded(exchange, tunnel.relay, tunnel.other, self.settings, self.info)
        early, upgrade.early = upgrade.early, []
        for event in early:
            tunnel.received(event)
