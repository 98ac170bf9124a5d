"""The stream of one request of a client that speaks HTTP/2."""

from __future__ import annotations

__all__ = ["Http2Stream", "StreamUpgrade"]

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

from reverseproxy.proxy.flags import ResponseFlag
from reverseproxy.proxy.http.client_side import record
from reverseproxy.proxy.http.deadlines import LOOKS
from reverseproxy.proxy.http.exchange import Exchange
from reverseproxy.proxy.http.http2_tunnel import Http2Tunnel, accepts, answer_to_connect
from reverseproxy.proxy.http.interfaces import IUpgraded
from reverseproxy.proxy.http.sending import SWITCHED
from reverseproxy.proxy.http.upgraded import Upgraded
from reverseproxy.transport.backlog import Backlog, Pace
from reverseproxy.wire.http.fields import METHOD_NOT_ALLOWED, RESET_CONTENT
from reverseproxy.wire.http.grpc import error_fields, error_trailers
from reverseproxy.wire.http.message import End, Response
from reverseproxy.wire.http.message import Event as HttpEvent
from reverseproxy.wire.http.unsent import UNSENT_FIELD
from reverseproxy.wire.http2.fields import trailer_fields
from reverseproxy.wire.http2.frames import ErrorCode
from reverseproxy.wire.http2.responses import response_fields
from reverseproxy.wire.http2.upgrades import Content

if TYPE_CHECKING:
    from reverseproxy.proxy.http.http2_server import Http2Proxy


def _not_switched(exchange: Exchange, head: Response) -> Response:
    """Replace the head of a response that a client would take for an accepted switch of protocols."""
    exchange.status = 502
    exchange.flag = f"the host did not switch protocols, but answered with {head.status}"
    exchange.flags |= ResponseFlag.UPE
    return Response(502, head.headers, head.length, head.options)


class StreamUpgrade:
    """
    What is kept of a request to switch protocols.

    @ivar content: the body of the request, as long as it has not come to its end.
    @ivar early: what the client sent behind the request, before the host has accepted.
    @ivar session: watches the session once both sides are joined.
    """

    __slots__ = ("content", "early", "session")

    def __init__(self) -> None:
        self.content: Content | None = None
        self.early: list[bytes | End] = []
        self.session: Upgraded | None = None


class Http2Stream:
    """
    The stream of one request.

    @ivar number: the stream's number.
    @ivar exchange: the exchange of the request, until it has ended.
    @ivar deadline: when to look at the exchange, or at what the client has taken.
    @ivar grpc: whether it carries a call of gRPC, which ends with trailers if
        there is an error of ours.
    @ivar idle: seconds in which the client must take something of a response
        that is complete here; infinity for any time.
    @ivar upgrade: what is kept of a request to switch protocols; L{None} for any other request.
    @ivar tunnel: the other protocol, once the host has accepted to switch.
    """

    protocol = "Http2"
    version = "2"

    __slots__ = (
        "_held",
        "_http2",
        "_pace",
        "_proxy",
        "deadline",
        "default_host",
        "exchange",
        "forwarded_by",
        "full",
        "gate",
        "grpc",
        "idle",
        "info",
        "max_request_body_size",
        "number",
        "settings",
        "tunnel",
        "upgrade",
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
        self.upgrade: StreamUpgrade | None = None
        self.tunnel: Http2Tunnel | None = None
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
                if event.status < 200 or exchange.head.upgrade:
                    adapted = self._adapt(exchange, event)
                    if adapted is None:
                        continue
                    event = adapted
                following = events[index + 1] if index < last else None
                ended = type(following) is End and not following.trailers
                http2.send_head(number, response_fields(event, http2.peer_upgrades), ended)
            elif type(event) is End:
                http2.send_end(number, trailer_fields(event.trailers) if event.trailers else [])
        if not self.full and http2.is_full(number):
            self.full = True
            exchange.downstream_full(True)
        self._proxy.flush()

    def _adapt(self, exchange: Exchange, head: Response) -> Response | None:
        """
        Adapt an interim response, or one to a request for another protocol.

        @return: what to send; L{None} if there is nothing more to send.
        """
        request, http2 = exchange.head, self._http2
        if head.status == SWITCHED:
            if request.options:
                return head
            if accepts(request, head):
                http2.send_head(self.number, answer_to_connect(head), False)
            else:
                reason = "the host took a request for a WebSocket for something else"
                exchange.fail(502, reason, ResponseFlag.UPE)
            return None
        if head.status < 200:
            # A client that reads nothing would not hear of it either.
            return None if self._proxy.full and self._proxy.overfull else head
        http2.decline_tunnel(self.number)
        return _not_switched(exchange, head) if head.status < 300 and not request.options else head

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
        if status == RESET_CONTENT:
            body = b""
        if status == 204 or status == 304:
            body = b""
        else:
            if body:
                fields.append((b"content-type", content_type))
            fields.append((b"content-length", b"%d" % len(body)))
        if status == METHOD_NOT_ALLOWED:
            fields.append((b"allow", b""))
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
        record(self.settings, exchange)
        self._proxy.stream_answered(self, exchange)

    def upgraded(self, exchange: Exchange, client: IUpgraded) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IDownstream}."""
        self.exchange = None
        if self.upgrade is not None:
            self.upgrade.content = None
        self.full = False
        self._proxy.begin_tunnel(self, exchange, client)

    def update_reading(self) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IDownstream}."""
        exchange, upgrade = self.exchange, self.upgrade
        if exchange is not None and upgrade is not None and upgrade.content is None:
            return
        if exchange is not None and exchange.holds_back:
            if not self._held:
                self._held = True
                self._http2.hold(self.number)
        else:
            self._release()

    def content_ended(self, rest: bytes) -> None:
        """
        Take the end of the body that precedes another protocol.

        @param rest: what came of that protocol.
        """
        upgrade = self.upgrade
        assert upgrade is not None
        upgrade.content = None
        self._release()
        self._http2.hold(self.number)  # until the host has accepted, or declined
        if rest and self.exchange is not None:
            upgrade.early.append(rest)

    def _release(self) -> None:
        if self._held:
            self._held = False
            self._proxy.release(self.number)

    def takes(self) -> bool:
        """Return whether the client goes on reading a response that is complete here."""
        if self._pace is None:
            self._pace = Pace()
        return self._pace.look(self.backlog().mark, self.info.reverse) < LOOKS

    # what the connection tells us

    def drained(self) -> None:
        """The stream's buffer has room."""
        if self.tunnel is not None:
            self.tunnel.drained()
        elif self.full:
            self.full = False
            if self.exchange is not None:
                self.exchange.downstream_full(False)

    def was_reset(self, reason: str, flags: int) -> None:
        """End the exchange, as the client reset the stream, or made us reset it."""
        if self.tunnel is not None:
            self.tunnel.lose(reason)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.cancel(reason, flags)
            record(self.settings, exchange)
