"""
One request and its response, on their way through the proxy.

An exchange belongs to one downstream connection and lasts until its response is
complete, or has failed.  It finds a route, a host and a connection, and passes
both bodies on as they come.  Nothing that happens later on a connection that it
has used can reach another exchange, as an exchange that has ended knows nobody.

    NEW: the head has come; nothing is decided
    WAITING: for a host, or for a connection to it
    ACTIVE: a connection carries it
    DONE: answered, failed or cancelled

The host that the cluster gave is kept in one place, and given back by the one
method that empties it.
"""

from __future__ import annotations

__all__ = ["MAX_ATTEMPTS", "REQUEST_BUFFER", "Exchange", "IDownstream"]

from math import inf
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.errors import ClusterUnknown, HttpError, PickFailed
from reverseproxy.interfaces import ConnectionInfo, PickContext
from reverseproxy.proxy.http1_upstream import POOL, Http1Client, Http1Pool, pool_of
from reverseproxy.routing import ClusterRoute, DirectResponse, Redirect, RequestFacts, normalize_path
from reverseproxy.wire.http1 import CHUNKED, End, Event, RequestHead, ResponseHead
from reverseproxy.wire.http1_headers import ForwardedBy, last_chunk, response_head_bytes

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host
    from reverseproxy.cluster.manager import Cluster
    from reverseproxy.proxy.http1 import Http1Settings

log = Logger()

MAX_ATTEMPTS: Final = 3
"""Hosts tried for one request at the most, as MOSN does (spec 4.3)."""

REQUEST_BUFFER: Final = 65536
"""Bytes of a request kept while there is no connection to send them on; reading pauses beyond them."""

# A request with one of these may be sent twice (RFC 9110 9.2.2).  PUT and DELETE
# could be as well, but who sends one twice and gets 404 or 412 is not amused.
_IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})

_NEW, _WAITING, _ACTIVE, _DONE = range(4)


class IDownstream(Protocol):
    """What an exchange needs of the connection that it belongs to."""

    settings: Http1Settings
    info: ConnectionInfo
    forwarded_by: ForwardedBy | None
    default_host: bytes
    draining: bool
    full: bool
    transport: Any

    def set_exchange_deadline(self, deadline: float) -> None:
        """End the exchange with 504 at some time of the clock; C{inf} for never."""

    def reply(
        self, exchange: Exchange, status: int, body: bytes, content_type: bytes, location: bytes
    ) -> None:
        """Answer without a host; the exchange is over."""

    def exchange_done(self, exchange: Exchange, keep_alive: bool) -> None:
        """The response is complete."""

    def exchange_broken(self, exchange: Exchange) -> None:
        """The response has begun, but can't be completed."""

    def upgraded(self, exchange: Exchange, client: Http1Client, early: bytes) -> None:
        """The host has accepted to switch protocols; its 101 is written."""

    def upgrade_declined(self) -> None:
        """The host has answered a request to switch protocols in HTTP."""

    def update_reading(self) -> None:
        """Look at L{Exchange.holds_back} again."""


class Exchange:
    """
    See the module's text.

    @ivar head: the request.
    @ivar received: bytes of the request body so far.
    @ivar sent: bytes of the response body so far.
    @ivar status: the status of the response; 0 as long as there is none.
    @ivar request_complete: whether all of the request has come.
    @ivar flag: why there is no complete response of a host, for the access log.
    @ivar cluster: the cluster of the route.
    @ivar host: the last host that was picked, for the access log.
    """

    __slots__ = (
        "_answered",
        "_attempts",
        "_chunked",
        "_client",
        "_context",
        "_downstream",
        "_full",
        "_lease",
        "_out",
        "_pending",
        "_request_head",
        "_response_head",
        "_retried",
        "_state",
        "_timeout",
        "cluster",
        "flag",
        "head",
        "host",
        "keep_alive",
        "received",
        "request_complete",
        "request_sent_at",
        "response_at",
        "sent",
        "started",
        "status",
        "upstream_local",
    )

    def __init__(self, downstream: IDownstream, head: RequestHead, now: float) -> None:
        self.head = head
        self.started = now
        self.received = 0
        self.sent = 0
        self.status = 0
        self.request_complete = False
        self.keep_alive = head.keep_alive
        self.flag = ""
        self.cluster: Cluster | None = None
        self.host: Host | None = None
        self.upstream_local = ""
        self.request_sent_at: float | None = None
        self.response_at: float | None = None
        self._downstream = downstream
        self._state = _NEW
        self._timeout = inf
        self._request_head = b""
        self._out: list[bytes] = []  # of the request, not yet written
        self._lease: Host | None = None  # what is to be given back to the cluster
        self._pending: Deferred[Any] | None = None
        self._client: Http1Client | None = None
        self._context: PickContext | None = None
        self._attempts = 0
        self._retried = False
        self._answered = False  # the host has sent something
        self._full = False  # the transport to the host holds enough
        self._chunked = False  # the response body goes down in chunks of ours
        self._response_head: ResponseHead | None = None

    @property
    def response_started(self) -> bool:
        """Whether the head of the final response has been sent."""
        return self.status != 0

    @property
    def response_head(self) -> ResponseHead | None:
        """The head of the host's response."""
        return self._response_head

    @property
    def holds_back(self) -> bool:
        """Whether nothing more of the request should be read now."""
        return self._full or (
            self._state <= _WAITING and self.received > REQUEST_BUFFER and not self.request_complete
        )

    # the request

    def add_body(self, data: bytes) -> None:
        """A part of the request body has come."""
        size = len(data)
        self.received += size
        if self._state == _DONE:
            return
        limit = self._downstream.settings.options.max_request_body_size
        if limit and self.received > limit:
            self.fail(413, f"request body larger than {limit} bytes")
            return
        if self.head.length == CHUNKED:
            self._out += (b"%x\r\n" % size, data, b"\r\n")
        else:
            self._out.append(data)

    def end_request(self, end: End) -> None:
        """All of the request has come."""
        self.request_complete = True
        if self.head.length == CHUNKED:
            self._out.append(last_chunk(end.trailers))

    def flush(self) -> None:
        """Pass on what has come: called once for each read."""
        if self._state == _ACTIVE:
            out = self._out
            if out:
                self._out = []
                client = self._client
                assert client is not None
                client.transport.write(out[0] if len(out) == 1 else b"".join(out))
                downstream = self._downstream
                downstream.set_exchange_deadline(downstream.settings.clock.seconds() + self._timeout)
        elif self._state == _NEW:
            self._route()
        elif self.holds_back:
            self._downstream.update_reading()

    # finding a host

    def _route(self) -> None:
        downstream = self._downstream
        settings = downstream.settings
        head = self.head
        limit = settings.options.max_request_body_size
        if limit and head.length > limit:
            self.fail(413, f"request body larger than {limit} bytes")
            return
        path, _, query = head.target.decode("ascii").partition("?")
        result = settings.router.match(
            RequestFacts(
                head.method.decode("ascii"),
                normalize_path(path),
                query,
                (head.host or downstream.default_host).decode("ascii"),
                head.lookup,
                "https" if downstream.info.secure else "http",
            )
        )
        if isinstance(result, ClusterRoute):
            try:
                self.cluster = settings.clusters.get(result.cluster_name)
            except ClusterUnknown as error:
                self.fail(error.status, str(error))
                return
            timeout = self._timeout = result.timeout or inf
            downstream.set_exchange_deadline(self.started + timeout)
            self._request_head = head.forward(downstream.forwarded_by, downstream.default_host)
            self._out.insert(0, self._request_head)
            self._acquire()
        elif isinstance(result, DirectResponse):
            self._answer(result.status, result.body)
        elif isinstance(result, Redirect):
            self._answer(result.status, b"", location=result.location.encode("ascii"))
        else:
            self.flag = "no route"
            self._answer(404, b"no route matches this request\n")

    def _acquire(self) -> None:
        cluster = self.cluster
        assert cluster is not None
        self._state = _WAITING
        self._attempts += 1
        try:
            host = cluster.acquire(self._context)
        except PickFailed as error:
            self.fail(error.status, str(error))
            return
        if host is not None:
            self._connect(host)
            return
        pending = self._pending = cluster.wait(self._context, cluster.config.connect_timeout)
        pending.addCallbacks(self._acquired, self._not_acquired)
        if self._pending is not None:
            self._downstream.update_reading()

    def _acquired(self, host: Host) -> None:
        self._pending = None
        if self._state == _WAITING:
            self._connect(host)
        elif self.cluster is not None:
            self.cluster.release(host)

    def _not_acquired(self, reason: Failure) -> None:
        self._pending = None
        if self._state == _WAITING:
            error = reason.value
            self.fail(error.status if isinstance(error, PickFailed) else 502, str(error))

    def _connect(self, host: Host) -> None:
        self._lease = self.host = host
        cluster = self.cluster
        assert cluster is not None
        downstream = self._downstream
        pool: Http1Pool | None = host.pools.get(POOL)  # type: ignore[assignment]
        if pool is None:
            pool = pool_of(host, downstream.settings.clock, cluster.config.idle_timeout)
        # A request that is sent again goes out on a new connection: where one idle connection was closed,
        # others will be.
        client = None if self._retried else pool.take()
        if client is not None:
            self._send(client)
            return
        pending = self._pending = pool.connect()
        pending.addCallbacks(self._connected, self._not_connected)
        if self._pending is not None:
            downstream.update_reading()

    def _connected(self, client: Http1Client) -> None:
        self._pending = None
        if self._state != _WAITING:
            client.finish(True)  # cancelled meanwhile; another request will be glad of it
            self._release()
        elif client.closed:
            self._try_another("the connection was lost at once")
        else:
            self._send(client)

    def _not_connected(self, reason: Failure) -> None:
        self._pending = None
        if self._state == _WAITING:
            self._try_another(reason.getErrorMessage())
        else:
            self._release()

    def _try_another(self, reason: str) -> None:
        """The host could not be reached; nothing has been sent."""
        host, cluster = self.host, self.cluster
        assert host is not None
        assert cluster is not None
        log.warn(
            "cluster {cluster}: host {host} can't be reached: {reason}",
            cluster=cluster.name,
            host=host.address,
            reason=reason,
        )
        if self._context is None:
            self._context = PickContext()
        self._context.tried.add(host)
        self._release()
        if self._attempts >= MAX_ATTEMPTS:
            self.fail(502, f"{self._attempts} hosts of cluster {cluster.name} could not be reached")
        else:
            self._acquire()

    def _send(self, client: Http1Client) -> None:
        self._state = _ACTIVE
        self._client = client
        downstream = self._downstream
        client.start(self, self.head.method == b"HEAD")
        if downstream.settings.access_log is not None:
            self.request_sent_at = downstream.settings.clock.seconds()
            self.upstream_local = client.local_address
        if client.full:
            self._full = True
        if downstream.full:
            client.pause()
        out, self._out = self._out, []
        client.transport.write(out[0] if len(out) == 1 else b"".join(out))
        if not self.request_complete:
            downstream.update_reading()

    def _release(self) -> None:
        """Give the host back to the cluster: exactly once for each time it was taken."""
        lease, self._lease = self._lease, None
        if lease is not None:
            assert self.cluster is not None
            self.cluster.release(lease)

    # the response

    def upstream_full(self, full: bool) -> None:
        """See L{reverseproxy.proxy.http1_upstream.IExchange}."""
        self._full = full
        self._downstream.update_reading()

    def downstream_full(self, full: bool) -> None:
        """The client reads more slowly than the response comes, or has caught up."""
        client = self._client
        if client is not None:
            if full:
                client.pause()
            else:
                client.resume()

    def upstream_events(self, events: list[Event]) -> None:
        """See L{reverseproxy.proxy.http1_upstream.IExchange}."""
        self._answered = True
        downstream = self._downstream
        out: list[bytes] = []
        complete = False
        for event in events:
            if type(event) is bytes:
                size = len(event)
                self.sent += size
                if self._chunked:
                    out += (b"%x\r\n" % size, event, b"\r\n")
                else:
                    out.append(event)
            elif type(event) is ResponseHead:
                if event.status < 200:
                    self._interim(event, out)
                    if event.status == 101:
                        if self._state == _ACTIVE:
                            self._upgrade(b"".join(out))
                        return
                else:
                    self._respond(event, out)
            elif type(event) is End:
                if self._chunked:
                    out.append(last_chunk(event.trailers))
                complete = True
            else:
                assert isinstance(event, HttpError)
                if out:
                    downstream.transport.write(b"".join(out))
                self._upstream_failed(event.status, str(event))
                return
        if out:
            downstream.transport.write(out[0] if len(out) == 1 else b"".join(out))
        if complete:
            self._finish()

    def _interim(self, head: ResponseHead, out: list[bytes]) -> None:
        """Pass a 1xx response on, if the client can do something with it."""
        request = self.head
        if head.status == 101:
            if request.upgrade:
                self._response_head = head
                out.append(response_head_bytes(head, b"Upgrade", False))
            else:
                self._upstream_failed(502, "the host switched protocols without being asked")
        elif request.http11 and (head.status != 100 or request.expect_continue):
            out.append(response_head_bytes(head, b"", False))

    def _respond(self, head: ResponseHead, out: list[bytes]) -> None:
        """Begin the final response."""
        downstream = self._downstream
        request = self.head
        self._response_head = head
        self.status = head.status
        if downstream.settings.access_log is not None:
            self.response_at = downstream.settings.clock.seconds()
        if downstream.draining:
            self.keep_alive = False
        if head.length < 0:
            if request.http11:
                self._chunked = True
            else:
                self.keep_alive = False  # the end of the connection is the end of the body
        connection = b"" if request.http11 else b"keep-alive"
        if not self.keep_alive:
            connection = b"close"
        out.append(response_head_bytes(head, connection, self._chunked))
        if request.upgrade:
            downstream.upgrade_declined()

    def _finish(self) -> None:
        """The response is complete and written."""
        client, self._client = self._client, None
        head = self._response_head
        assert client is not None
        assert head is not None
        self._state = _DONE
        client.finish(head.keep_alive and self.request_complete)
        self._release()
        self._downstream.exchange_done(self, self.keep_alive and self.request_complete)

    def _upgrade(self, written: bytes) -> None:
        client, self._client = self._client, None
        assert client is not None
        self._state = _DONE
        self.status = 101
        downstream = self._downstream
        downstream.transport.write(written)
        downstream.upgraded(self, client, client.parser.take_rest())

    def tunnel_closed(self, reason: Failure) -> None:
        """The upstream connection of an accepted upgrade is lost."""
        self._release()

    # failures

    def upstream_lost(self, reason: str) -> None:
        """See L{reverseproxy.proxy.http1_upstream.IExchange}."""
        client, self._client = self._client, None
        if self._state != _ACTIVE or client is None:
            return
        if (
            client.reused
            and not self._answered
            and not self._retried
            and self.head.length == 0
            and self.head.method in _IDEMPOTENT
        ):
            self._retry()
        else:
            self._upstream_failed(502, f"the host's connection was lost: {reason}")

    def _retry(self) -> None:
        """Send the request again, as the host can't have seen it, or may see it twice."""
        host = self.host
        assert host is not None
        self._retried = True
        if host.capacity is not None:
            # A reverse host is gone with its connection; a static one is there to be dialled.
            if self._context is None:
                self._context = PickContext()
            self._context.tried.add(host)
        self._full = False
        self._out = [self._request_head]
        self._release()
        self._acquire()

    def _upstream_failed(self, status: int, reason: str) -> None:
        host, cluster = self.host, self.cluster
        log.warn(
            "cluster {cluster}: host {host}: {reason}",
            cluster="" if cluster is None else cluster.name,
            host="" if host is None else host.address,
            reason=reason,
        )
        if self.response_started:
            self._break(reason)
        else:
            self.fail(status, reason)

    def fail(self, status: int, reason: str) -> None:
        """
        Answer with an error of our own, or break off if an answer has begun.

        @param reason: a sentence for the client and the access log; it tells
            nothing of what the client sent.
        """
        if self._state == _DONE:
            return
        if self.response_started:
            self._break(reason)
            return
        self.flag = reason
        self._answer(status, reason.encode("utf-8", "replace") + b"\n")

    def _answer(self, status: int, body: bytes, location: bytes = b"") -> None:
        self._end()
        self.status = status
        self._downstream.reply(self, status, body, b"text/plain", location)

    def _break(self, reason: str) -> None:
        self.flag = reason
        self._end()
        self._downstream.exchange_broken(self)

    def timed_out(self) -> None:
        """The time for the exchange is over."""
        self.fail(504, "the request took too long")

    def cancel(self, reason: str) -> None:
        """The client is gone: whatever is under way for it is dropped."""
        if self._state != _DONE:
            self.flag = reason
            self._end()

    def _end(self) -> None:
        """Let go of everything upstream."""
        self._state = _DONE
        self._out = []
        self._full = False
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()
        client, self._client = self._client, None
        if client is not None:
            client.abort("the exchange was broken off")
        self._release()
