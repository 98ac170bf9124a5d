"""
The upstream side of HTTP/2: connections to one host, many requests on each.

An L{Http2Client} is a connection; an L{Http2Call} is the L{IUpstream} of one
exchange, a stream once it has begun.  The L{Http2Pool} of a host makes calls on
the connection it has, and dials another one when that has no room.  A reverse
host has one connection, on which it carries as many requests at once as its
agent allows.

A host that sends GOAWAY gets no further request on that connection, which is
closed when its last stream is done; a reverse host leaves its cluster at once,
as its agent will dial again.  Requests that the host says it has not acted on
are sent again elsewhere.
"""

from __future__ import annotations

__all__ = ["MAX_STREAMS", "POOL", "Http2Call", "Http2Client", "Http2Pool", "HttpKeepalive"]

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from math import inf
from sys import maxsize
from typing import Any, Final, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.endpoints import CallableFactory
from reverseproxy.cluster.handover import IDetachable
from reverseproxy.cluster.host import Host, IHostPool
from reverseproxy.cluster.room import response_limits
from reverseproxy.errors import ConnectionUnavailable, HostGone, Http2Error, HttpError, QueueFull
from reverseproxy.logs import counted, said
from reverseproxy.mux.session import StreamRefused
from reverseproxy.patience import MOST_EXCUSES, lateness
from reverseproxy.proxy.farewell import Parting
from reverseproxy.proxy.flags import Flag
from reverseproxy.proxy.http.http2_connection import Http2Protocol
from reverseproxy.proxy.http.http2_tunnel import Http2Tunnel, switching_protocols
from reverseproxy.proxy.http.interfaces import IDirectReader, IExchange
from reverseproxy.proxy.pools import register_pool
from reverseproxy.proxy.relay import RelayEnd
from reverseproxy.sockets import keep_short, tune
from reverseproxy.tls import negotiated_protocol
from reverseproxy.transport.backlog import Backlog, backlog_of
from reverseproxy.transport.memory import WINDOWS
from reverseproxy.unfinished import KNOWN, Account
from reverseproxy.wire.http.forwarded import ForwardedBy
from reverseproxy.wire.http.message import End, Request, Response
from reverseproxy.wire.http.message import Event as HttpEvent
from reverseproxy.wire.http.upgrades import protocols_of
from reverseproxy.wire.http2.connection import ClientConnection
from reverseproxy.wire.http2.events import Event, GoAway, Http2Limits, PeerSettings, Pong, Reset
from reverseproxy.wire.http2.fields import list_size, request_fields, trailer_fields
from reverseproxy.wire.http2.frames import ErrorCode
from reverseproxy.wire.http2.upgrades import ClientUpgrade, connect_protocol, needs_upgrade

log = Logger()

POOL: Final = "Http2"
"""The name of our pools in L{Host.pools}."""

MAX_STREAMS: Final = 1000
"""Requests that may be under way on one connection, if the host allows that many."""

GREETING_TIME: Final = 15.0
"""Seconds that a host has for its first SETTINGS once a request was sent."""

LIMITS: Final = Http2Limits(max_concurrent_streams=MAX_STREAMS, max_control_frames=10_000)
"""
What hosts may do.

They were chosen by the configuration or have proved who they are, so that the
bounds are wider than those for clients; but for each stream they are the same.
A cluster's configuration says how large windows are.
"""


def _limits_of(host: Host) -> Http2Limits:
    """What a host may do."""
    size, fields = response_limits(host)
    if host.is_reverse:
        size += 32 * fields  # which an agent that has it in HTTP/1 does not count
    limits = replace(LIMITS, max_header_list_size=size, max_fields=fields)
    if host.cluster is None:
        return limits
    windows = host.cluster.config.http2_windows
    return replace(
        limits,
        stream_window=windows.initial_window_size,
        max_window=max(windows.initial_window_size, windows.max_window_size),
        receive_budget=windows.max_window_growth,
    )


@dataclass(frozen=True, slots=True)
class HttpKeepalive:
    """
    When to ask a host whether it is alive.

    @ivar interval: seconds between two PINGs; 0 for none.
    @ivar timeout: seconds for the answer, before the connection is closed.
    """

    interval: float = 0.0
    timeout: float = 1.0


class Http2Call:
    """
    One request to a host: room on a connection, and then a stream.

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
        """Send nothing, and answer so."""
        exchange, self._exchange = self._exchange, None
        self._client.forget(self)
        if exchange is not None:
            exchange.upstream_events([error])

    def settings_came(self) -> None:
        """The host's settings are known."""
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
        """How many bytes of what has come wait for the client to take them, at the most."""
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
        """See L{IUpstream}: the rest of a request is not wanted by anybody."""
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
        """Something of the response has come."""
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
        """Make a 101 of the answer that accepts a switch of protocols, and keep what comes behind it."""
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
        """The host takes more of the request."""
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
        flags: int = Flag.UC,
    ) -> None:
        """The stream has ended early, or the connection has."""
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
        """Let the stream carry another protocol; what came for it is given on when it is coupled."""
        self._exchange = None
        self.full = False
        self._paused = False
        self.tunnel = Http2Tunnel(self._client, self.number)
        return self.tunnel.relay

    def take_rest(self) -> bytes:
        """Nothing: it is given to the relay in its order, with an end if there is one."""
        return b""

    def rebind(self, receive: Callable[[bytes], None]) -> None:
        """Give the relay what has come; it has its further reads from us anyway."""
        early, self._early = self._early, []
        assert self.tunnel is not None
        for event in early:
            self.tunnel.received(event)
        self._client.release(self.number)


@implementer(IDetachable, IHalfCloseableProtocol, IPushProducer)
class Http2Client(Http2Protocol):
    """
    One connection to a host.

    @ivar reused: whether the host may have closed the connection before it sees
        a request that is sent now.
    @ivar scheme: of requests that go out on it.
    """

    http2: ClientConnection
    speaks = "Http2"

    def __init__(self, pool: Http2Pool) -> None:
        # A plain reverse connection may be MOSN's.
        http2 = ClientConnection(pool.limits, mosn=pool.exclusive, reserve=WINDOWS)
        super().__init__(http2, pool.clock, Parting(excused=pool.host.is_reverse))
        self._end_flags = int(Flag.UC)  # why what is under way fails when the connection ends
        self.reused = pool.host.is_reverse
        self.scheme = b"http"
        self._pool = pool
        self._calls: dict[int, Http2Call] = {}
        self._reserved: set[Http2Call] = set()  # not begun
        self._early_calls: list[Http2Call] = []  # that wait for the host's settings
        self._draining = False
        self._uncarried = False  # nothing of what was sent has got anywhere
        self._begun = 0
        self._greeted_by = inf
        self._idle_since = 0.0
        self._ping_at = inf
        self._pong_by = inf
        self._pinged_at = 0.0
        self._ping_mark: Hashable = None
        self._excuses = 0
        self._local_address: str | None = None

    def connectionMade(self) -> None:
        """Greet the host, and join the pool."""
        transport = self.transport
        protocol = negotiated_protocol(transport)
        if protocol is not None:
            self.scheme = b"https"
        transport.registerProducer(self, True)
        keep_short(transport)
        if not self._pool.exclusive:
            tune(transport)
        now = self._idle_since = self.clock.seconds()
        self._greeted_by = now + GREETING_TIME
        self._look_at(self._greeted_by)
        if self._pool.keepalive.interval > 0:
            self._ping_at = now + self._pool.keepalive.interval
            self._look_at(self._ping_at)
        self._pool.add(self)
        if protocol not in (None, "h2"):
            self._abort(f"the host wants to speak {protocol}")
        else:
            self.http2.greeted(now)
            self.flush()

    # calls

    @property
    def active(self) -> int:
        """How many requests are under way, or about to begin."""
        return len(self._calls) + len(self._reserved)

    @property
    def has_room(self) -> bool:
        """Whether another request may be sent."""
        if self.ending or self._draining:
            return False
        reserved = len(self._reserved)
        most = self._pool.max_requests
        return self.http2.room > reserved and (not most or self._begun + reserved < most)

    def reserve(self) -> Http2Call:
        """Make a call, for which there must be room."""
        call = Http2Call(self)
        self._reserved.add(call)
        return call

    def wait_for_settings(self, call: Http2Call) -> None:
        """Tell a call when the host's settings are known."""
        self._early_calls.append(call)

    def begun(self, call: Http2Call) -> None:
        """A call has become a stream."""
        self._reserved.discard(call)
        self._calls[call.number] = call
        self._begun += 1
        if self._begun == self._pool.max_requests:
            self._draining = True
            self._pool.leave(self)

    def forget(self, call: Http2Call) -> None:
        """A call is over."""
        call.closed = True
        self._reserved.discard(call)
        if self._calls.get(call.number) is call:
            del self._calls[call.number]
        self._look_idle()

    def _look_idle(self) -> None:
        if self.active or self.ending:
            return
        self._idle_since = self.clock.seconds()
        if self._draining or self.http2.going:
            self.shut("the last request is answered")
        elif self._pool.idle_timeout is not None:
            self._look_at(self._idle_since + self._pool.idle_timeout)

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

    def open_account(self) -> Account:
        """See L{reverseproxy.unfinished.Counted}."""
        return KNOWN.account(self._pool.host.address, self._made_room)

    def _made_room(self, reason: str) -> None:
        """This connection has to go for others."""
        log.warn("{host} is cut off: {reason}", host=self._pool.host.address, reason=reason)
        self._abort(reason)

    def _handle(self, events: Sequence[tuple[int, Event]]) -> None:
        calls = self._calls
        # All that came for one stream goes on in one piece.
        batches: dict[int, list[HttpEvent]] = {}
        for number, event in events:
            kind = type(event)
            if number == 0:
                self._on_connection(event)
            elif kind is Reset:
                self._deliver(number, batches.pop(number, None))
                self._reset(number, event)  # type: ignore[arg-type]
            elif number in calls:
                batch = batches.get(number)
                if batch is None:
                    batches[number] = [event]  # type: ignore[list-item]
                else:
                    batch.append(event)  # type: ignore[arg-type]
        for number, batch in batches.items():
            self._deliver(number, batch)

    def _deliver(self, number: int, batch: list[HttpEvent] | None) -> None:
        call = self._calls.get(number)
        if call is not None and batch is not None:
            call.received(batch)

    def _reset(self, number: int, reset: Reset) -> None:
        if not reset.remote:
            log.warn(
                "{host} sent a bad response: {reason}", host=self._pool.host.address, reason=reset.reason
            )
        call = self._calls.get(number)
        if call is not None:
            self.forget(call)
            code, flags = (reset.code, Flag.UR) if reset.remote else (0, Flag.UPE)
            call.lost(reset.reason, not reset.processed, code, flags=flags)

    def _waiting(self, number: int) -> int:
        call = self._calls.get(number)
        return maxsize if call is None else call.waiting

    def _shed(self, number: int, reason: str) -> None:
        call = self._calls.get(number)
        if call is not None:
            self.forget(call)
            call.lost(reason, False, flags=Flag.OM)

    def _on_connection(self, event: Event) -> None:
        if isinstance(event, Http2Error):
            log.warn(
                "{host} broke the rules of HTTP/2: {reason} ({code})",
                host=self._pool.host.address,
                reason=str(event),
                code=ErrorCode.name_of(event.code),
            )
            self._end_flags = Flag.UPE
            self._leave(str(event))
            self._close(str(event), linger=True)
        elif isinstance(event, GoAway):
            self._go_away(event)
        elif isinstance(event, PeerSettings):
            self._settings_came()
        elif isinstance(event, Pong):
            self._pong_by = inf

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
        self._leave("the host said GOAWAY")
        self._look_idle()

    def _leave(self, reason: str) -> None:
        """Take no more requests; with its connection goes a reverse host."""
        self._pool.retire(self, reason)

    # the end

    def drain(self) -> None:
        """Take no more requests, and close when those under way are answered."""
        self._draining = True
        if not self.active:
            self.shut("drained")

    def shut(self, reason: str) -> None:
        """Close the connection after what was written; no request may be under way."""
        self._finish(ErrorCode.NO_ERROR, "", linger=False)

    def drop(self, reason: str) -> None:
        """Close the connection now; what is under way on it fails."""
        self._abort(reason)

    def detach(self) -> bool:
        """
        See L{IDetachable}.

        Nobody can use the connection after us, as it is in the midst of HTTP/2:
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
        self._stop_timer()
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

    def _still_alive(self, now: float) -> bool:
        """
        Look whether a host that has not answered a PING is merely slow.

        The PING waits behind what else is on its way there, and the answer behind
        what is on its way here.
        """
        mark = backlog_of(self.transport).mark
        if lateness(self._pong_by, now) and self._excuses < MOST_EXCUSES:
            self._excuses += 1  # it is us who are slow: its answer may wait to be read
        elif mark == self._ping_mark and self.heard < self._pinged_at:
            return False
        else:
            self._excuses = 0
        self._pinged_at, self._ping_mark = now, mark
        self._pong_by = now + self._pool.keepalive.timeout
        return True

    def _next_deadline(self, now: float) -> float:
        pool = self._pool
        if self._greeted_by <= now:
            self._abort(f"the host sent no SETTINGS within {GREETING_TIME:g} s")
            return inf
        if self._pong_by <= now and not self._still_alive(now):
            log.warn(
                "{host} has not answered a PING within {timeout:g} s: its connection is closed",
                host=pool.host.address,
                timeout=pool.keepalive.timeout,
            )
            self._abort("the host answers no PING")
            return inf
        if self._ping_at <= now:
            self._ping_at = now + pool.keepalive.interval
            if self._pong_by == inf:
                self._pong_by = now + pool.keepalive.timeout
                self._pinged_at, self._ping_mark = now, backlog_of(self.transport).mark
                self.http2.ping(b"are you?")
        deadline = min(self._greeted_by, self._pong_by, self._ping_at)
        if pool.idle_timeout is not None and not self.active:
            idle_until = self._idle_since + pool.idle_timeout
            if idle_until <= now:
                self.shut("idle timeout")
                return inf
            deadline = min(deadline, idle_until)
        return deadline


@implementer(IHostPool)
class Http2Pool:
    """
    The connections of one host.

    @ivar host: the host.
    @ivar exclusive: whether the host has but one connection, which is the host.
    @ivar idle_timeout: seconds without a request after which a connection is
        closed; L{None} for never.
    @ivar keepalive: when to ask whether the host is alive.
    @ivar limits: what the host may do.
    @ivar max_requests: requests after which a connection is closed; 0 for any
        number.
    @ivar dial: makes a connection, given a factory.
    """

    def __init__(self, host: Host, clock: IReactorTime, idle_timeout: float | None = None) -> None:
        self.host = host
        self.limits = _limits_of(host)
        self.clock = clock
        self.exclusive = host.exclusive
        self.idle_timeout = None if self.exclusive else idle_timeout or None
        self.keepalive = HttpKeepalive()
        self.max_requests = 0
        cluster = host.cluster
        if cluster is not None:
            if not host.is_reverse:
                self.max_requests = cluster.config.requests_per_connection
            keepalive = cluster.config.keepalive
            self.keepalive = HttpKeepalive(keepalive.interval, keepalive.timeout)
        self._clients: list[Http2Client] = []  # that take requests, as far as they have room
        self._leaving: set[Http2Client] = set()  # that have carried as many as they may
        self._waiting: dict[Deferred[Http2Call], None] = {}
        self._dialling = False
        self._dial: Deferred[Any] | None = None
        self._ended = host.retired or host.closed
        self._factory = CallableFactory(lambda: Http2Client(self))
        self.dial = host.connect
        self._set_capacity(MAX_STREAMS)

    @property
    def busy(self) -> bool:
        """Whether a request is under way, or waits for a connection."""
        return self._dialling or any(client.active for client in self._clients)

    @property
    def connections(self) -> int:
        """How many connections there are that take requests."""
        return len(self._clients)

    def take(self) -> Http2Call | None:
        """Make a call on a connection that has room, if there is one."""
        for client in self._clients:
            if client.has_room:
                return client.reserve()
        return None

    def connect(self) -> Deferred[Http2Call]:
        """Make a connection, and a call on it; all that wait share the next one that is made."""
        if self.exclusive:
            call = self.take()
            if call is not None:
                return succeed(call)
            if self._clients or self._dialling:
                return fail(QueueFull(f"{self.host.address} has no room for another request"))
        for client in self._clients:
            if client.has_room and not client.reused:
                return succeed(client.reserve())  # it is new
        if not self._dialling and not self.host.may_connect():
            return fail(self._too_many())
        waiter: Deferred[Http2Call] = Deferred(self._cancelled)
        self._waiting[waiter] = None
        if not self._dialling:
            self._begin_dial()
        return waiter

    def _too_many(self) -> QueueFull:
        return QueueFull(f"every connection to {self.host.address} has as many requests as it takes")

    def _cancelled(self, waiter: Deferred[Http2Call]) -> None:
        self._waiting.pop(waiter, None)

    def _begin_dial(self) -> None:
        self._dialling = True
        self.host.connection_opened()
        dial = self._dial = self.dial(self._factory)
        dial.addBoth(self._dialled)

    def _dialled(self, result: Any) -> None:
        self._dialling = False
        self._dial = None
        if isinstance(result, Failure):
            self.host.connection_closed()
            self._fail_waiting(result)
            return
        client = cast(Http2Client, result)
        if client.ending:
            self._fail_waiting(Failure(ConnectionUnavailable("the connection was lost at once")))
            return
        for waiter in list(self._waiting):
            if not client.has_room:
                break
            if self._waiting.pop(waiter, self) is None:
                waiter.callback(client.reserve())
        if self._waiting and not self._dialling:
            if self.host.may_connect():
                self._begin_dial()
            else:
                self._fail_waiting(Failure(self._too_many()))

    def _fail_waiting(self, reason: Failure) -> None:
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting:
            waiter.errback(reason)

    def _set_capacity(self, streams: int) -> None:
        """
        Let requests wait that the host's connections have no room for.

        @param streams: how many there may be on one connection.
        """
        cluster = self.host.cluster
        connections = 1 if self.exclusive else self.host.max_connections
        if self.host.introduces:
            streams = 1  # as others can't use what one client has not
        if connections and cluster is not None:
            cluster.set_capacity(self.host, connections * streams)

    # called by clients

    def add(self, client: Http2Client) -> None:
        """A connection is made."""
        self._clients.append(client)
        if self._ended:
            client.drain()

    def settings_came(self, client: Http2Client) -> None:
        """A host has said how many requests it takes at once."""
        cluster = self.host.cluster
        if cluster is not None:
            cluster.members.tongues.heard(self.host, POOL)
        wanted = client.http2.peer_max_streams
        self._set_capacity(MAX_STREAMS if wanted is None else max(1, min(wanted, MAX_STREAMS)))

    def retire(self, client: Http2Client, reason: str) -> None:
        """A connection takes no more requests; with it goes a reverse host."""
        cluster = self.host.cluster
        if self.exclusive and cluster is not None:
            cluster.remove_host(self.host, reason)

    def leave(self, client: Http2Client) -> None:
        """A connection takes no more requests, and so does not count any more."""
        self.remove(client)
        self._leaving.add(client)

    def remove(self, client: Http2Client) -> None:
        """A connection is lost, is being closed, or not ours any more."""
        self._leaving.discard(client)
        if client in self._clients:
            self._clients.remove(client)
            self.host.connection_closed()

    # IHostPool

    def drain(self) -> None:
        """See L{IHostPool}."""
        self._ended = True
        for client in list(self._clients):
            client.drain()

    def close(self) -> None:
        """See L{IHostPool}; the exchanges under way fail."""
        self._ended = True
        self._fail_waiting(Failure(HostGone(f"{self.host.address} is gone")))
        if self._dial is not None:
            self._dial.cancel()
        for client in [*self._clients, *self._leaving]:
            client.drop("the host is gone")


register_pool(POOL, Http2Pool)
