"""A request to a host that speaks HTTP/2: a place on a connection, then a stream of it."""

from __future__ import annotations

__all__ = ["Http2Call"]

from collections.abc import Callable, Sequence
from sys import maxsize
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from reverseproxy.errors import HttpError
from reverseproxy.proxy.flags import ResponseFlag
from reverseproxy.proxy.http.http2_tunnel import Http2Tunnel, switching_protocols
from reverseproxy.proxy.http.interfaces import IDirectReader, IExchange
from reverseproxy.proxy.relay import RelayEnd
from reverseproxy.transport.backlog import Backlog
from reverseproxy.wire.http.forwarded import ForwardedBy
from reverseproxy.wire.http.message import End, Request, Response
from reverseproxy.wire.http.message import Event as HttpEvent
from reverseproxy.wire.http.upgrades import protocols_of
from reverseproxy.wire.http2.fields import list_size, trailer_fields
from reverseproxy.wire.http2.frames import ErrorCode
from reverseproxy.wire.http2.requests import request_fields
from reverseproxy.wire.http2.upgrades import ClientUpgrade, connect_protocol, needs_upgrade

if TYPE_CHECKING:
    from reverseproxy.proxy.http.http2_client import Http2Client


class Http2Call:
    """
    A request to a host: a place on a connection, then a stream of it.

    @ivar reused: whether the connection is lost, and it may be that the host
        has closed it before it saw the request.
    @ivar full: whether it holds as much of a request as it should.
    @ivar closed: whether it can't be used any more.
    @ivar number: the stream's number; 0 before it has begun.
    @ivar tunnel: what it carries after a switch of protocols.
    """

    persists = True
    multiplexed = True

    __slots__ = (
        "_client",
        "_early",
        "_exchange",
        "_http2",
        "_paused",
        "_request",
        "_unsent",
        "_upgrade",
        "_waiting",
        "closed",
        "full",
        "number",
        "reused",
        "tunnel",
    )

    def __init__(self, client: Http2Client) -> None:
        self.reused = False
        self.full = False
        self.closed = False
        self.number = 0
        self.tunnel: Http2Tunnel | None = None
        self._client = client
        self._http2 = client.http2
        self._exchange: IExchange | None = None
        self._request: Request | None = None  # if it is an extended CONNECT
        self._upgrade: ClientUpgrade | None = None  # if it is an upgrade in our own way
        self._waiting: Callable[[], None] | None = None  # to begin, when the host's settings are known
        self._unsent: list[HttpEvent] = []  # what has come of the request until then
        self._early: list[bytes | End] = []
        self._paused = False

    @property
    def local_address(self) -> str:
        """See L{reverseproxy.proxy.http.interfaces.IUpstream}."""
        return self._client.local_address

    @property
    def connection_number(self) -> int:
        """See L{reverseproxy.proxy.http.interfaces.IUpstream}."""
        return self._client.connection_number

    # what an exchange tells us

    def begin(
        self,
        exchange: IExchange,
        head: Request,
        events: Sequence[HttpEvent],
        forwarded_by: ForwardedBy | None,
        default_host: bytes,
        direct: IDirectReader | None = None,
    ) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IUpstream}: all of the response comes as events."""
        self._exchange = exchange
        if head.upgrade and not self._http2.established:
            waiting = list(events)
            self._unsent = waiting
            self._waiting = lambda: self._begin(head, waiting, forwarded_by, default_host)
            self._client.wait_for_settings(self)
            exchange.upstream_full(True)
        else:
            self._begin(head, events, forwarded_by, default_host)

    def _begin(
        self,
        head: Request,
        events: Sequence[HttpEvent],
        forwarded_by: ForwardedBy | None,
        default_host: bytes,
    ) -> None:
        http2 = self._http2
        connect = b""
        if head.upgrade:
            connect = self._begin_upgrade(head)
            if self._exchange is None:
                return
        headers = head.headers if forwarded_by is None else forwarded_by.rewrite(head)
        ours = self._upgrade is not None
        fields = request_fields(head, headers, self._client.scheme, default_host, connect, ours)
        most = http2.peer_max_header_list_size
        if most is not None and list_size(fields) > most:
            self._refuse(HttpError(431, f"the host takes no request head larger than {most} bytes"))
            return
        first = events[0] if events else None
        ended = not connect and type(first) is End and not first.trailers
        self.number = http2.request(fields, ended, head.method == b"HEAD", self._request is not None)
        self._client.begun(self)
        if not ended:
            self._send(events)
        self._client.flush()

    def _begin_upgrade(self, head: Request) -> bytes:
        """
        Choose how to ask the host for a switch of protocols.

        @return: the C{:protocol} of an extended CONNECT; empty if it is not asked.
        """
        http2 = self._http2
        if http2.peer_upgrades:
            self._upgrade = ClientUpgrade(head)
            return protocols_of(head.upgrade)[0]
        connect = connect_protocol(head) if http2.peer_connect_protocol else b""
        if connect:
            self._request = head
        elif needs_upgrade(head):
            known = (
                "extended CONNECT is not enough for it" if http2.peer_connect_protocol else "it can't upgrade"
            )
            self._refuse(
                HttpError(501, f"the upgrade can't be passed on: the host speaks HTTP/2, where {known}")
            )
        return connect

    def _refuse(self, error: HttpError) -> None:
        """Answer the request with an error, without sending it."""
        exchange, self._exchange = self._exchange, None
        self._client.forget(self)
        if exchange is not None:
            exchange.upstream_events([error])

    def settings_came(self) -> None:
        """Go on, as the host's SETTINGS have come."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting()
            self._unsent = []
            if self._exchange is not None and not self.full:
                self._exchange.upstream_full(False)

    def send(self, events: Sequence[HttpEvent]) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IUpstream}."""
        if self._waiting is not None:
            self._unsent += events
            return
        self._send(events)
        self._client.flush()

    def _send(self, events: Sequence[HttpEvent]) -> None:
        http2 = self._http2
        number = self.number
        if self._request is not None:
            return  # the other protocol begins at once
        if self._upgrade is not None:
            events = self._upgrade.sends(events)
        for event in events:
            if type(event) is bytes:
                http2.send_data(number, event)
            elif type(event) is End:
                http2.send_end(number, trailer_fields(event.trailers) if event.trailers else [])
        if not self.full and http2.is_full(number):
            self.full = True
            if self._exchange is not None:
                self._exchange.upstream_full(True)

    def backlog(self) -> Backlog:
        """See L{reverseproxy.proxy.http.interfaces.IUpstream}."""
        return self._client.backlog_of(self.number)

    @property
    def waiting(self) -> int:
        """How many bytes of the response are buffered for the client, at most."""
        if self.tunnel is not None:
            return self.tunnel.waiting
        return maxsize if self._exchange is None else self._exchange.response_waiting

    def pause(self) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IUpstream}."""
        if not self._paused:
            self._paused = True
            self._http2.hold(self.number)

    def resume(self) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IUpstream}."""
        if self._paused:
            self._paused = False
            self._client.release(self.number)

    def finish(self, reusable: bool) -> None:
        """See L{IUpstream}; the rest of the request is not sent."""
        self._exchange = None
        self._http2.reset(self.number, ErrorCode.NO_ERROR)
        self._client.forget(self)
        self._client.flush()

    def leave(self, release: Callable[[], None]) -> bool:
        """See L{reverseproxy.proxy.http.interfaces.IUpstream}: a stream is broken off without harm."""
        return False

    def abort(self, reason: str) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IUpstream}."""
        self._exchange = None
        self._waiting = None
        self._http2.reset(self.number, ErrorCode.CANCEL)
        self._client.forget(self)
        self._client.flush()

    # what the connection tells us

    def received(self, events: list[HttpEvent]) -> None:
        """Take a part of the response."""
        exchange = self._exchange
        if exchange is None:
            self._received_early(events)
            return
        if self._request is not None:
            events = self._accepted(self._request, events)
        elif self._upgrade is not None:
            events, early = self._upgrade.receives(events)
            self._received_early(early)
            if self._upgrade.declined:
                self._send(())
        if events:
            exchange.upstream_events(events)

    def _accepted(self, request: Request, events: list[HttpEvent]) -> list[HttpEvent]:
        """Turn the response that accepts a switch of protocols into a 101, and keep what follows it."""
        for index, event in enumerate(events):
            if type(event) is Response and event.status >= 200:
                self._request = None
                if event.status >= 300:
                    break
                self._received_early(events[index + 1 :])
                return [*events[:index], switching_protocols(request, event)]
        return events

    def _received_early(self, events: list[HttpEvent]) -> None:
        for event in events:
            if type(event) is bytes or type(event) is End:
                if self.tunnel is not None:
                    self.tunnel.received(event)
                else:
                    self._early.append(event)

    def drained(self) -> None:
        """The stream's buffer has room."""
        if self.tunnel is not None:
            self.tunnel.drained()
        elif self.full:
            self.full = False
            if self._exchange is not None:
                self._exchange.upstream_full(False)

    def lost(
        self,
        reason: str,
        unsent: bool,
        code: int = 0,
        terminated: bool = False,
        flags: int = ResponseFlag.UC,
    ) -> None:
        """End the call, as its stream or connection ended early."""
        self.closed = True
        self._waiting = None
        if self.tunnel is not None:
            self.tunnel.lose(reason)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.upstream_lost(reason, unsent, code, terminated, flags)

    # a switch of protocols; see IUpgraded

    @property
    def relay(self) -> RelayEnd | None:
        """Who has the stream since then."""
        return None if self.tunnel is None else self.tunnel.relay

    def become_relay(self, clock: IReactorTime, early: bytes) -> RelayEnd:
        """Turn the stream into a relay; what came for it is delivered once it is coupled."""
        self._exchange = None
        self.full = False
        self._paused = False
        self.tunnel = Http2Tunnel(self._client, self.number)
        return self.tunnel.relay

    def take_rest(self) -> bytes:
        """Return nothing: the relay gets what came in order, with an end if there is one."""
        return b""

    def rebind(self, receive: Callable[[bytes], None]) -> None:
        """Deliver to the relay what has come; it gets everything further from this call anyway."""
        early, self._early = self._early, []
        assert self.tunnel is not None
        for event in early:
            self.tunnel.received(event)
        self._client.release(self.number)
