"""
One HTTP request and its response, on their way through the proxy.

An exchange belongs to one downstream connection, or to one stream of it, and
lasts until its response is complete, or has failed.  It finds a route, a host
and a connection, and passes both bodies on as they come.  Nothing that happens
later on a connection that it has used can reach another exchange, as an
exchange that has ended knows nobody.

It speaks no version of HTTP itself: what it passes on are events (heads, parts
of bodies, ends), which the L{IDownstream} on one side and the L{IUpstream} on
the other read and write.
"""

from __future__ import annotations

__all__ = ["REQUEST_BUFFER", "Exchange", "IDownstream", "IUpstream"]

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Final, Protocol

from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.errors import ClusterUnknown, HttpError
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.proxy.attempts import Attempts, Phase
from reverseproxy.routing import ClusterRoute, DirectResponse, Redirect, RequestFacts, normalize_path
from reverseproxy.wire.http1 import END, End, Event, RequestHead, ResponseHead
from reverseproxy.wire.http1_headers import ForwardedBy

if TYPE_CHECKING:
    from reverseproxy.proxy.http1 import Http1Settings

log = Logger()

REQUEST_BUFFER: Final = 65536
"""Bytes of a request kept while there is no connection to send them on; reading pauses beyond them."""

# A request with one of these may be sent twice (RFC 9110 9.2.2).  PUT and DELETE
# could be as well, but who sends one twice and gets 404 or 412 is not amused.
_IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})

NEW, WAITING, ACTIVE, DONE = Phase


class IUpstream(Protocol):
    """
    What an exchange needs of the connection to a host, or of one stream on it.

    @ivar reused: whether the host may have closed the connection before it saw
        the request, so that one that gets no answer may be sent again.
    @ivar full: whether it holds as much of a request as it should.
    @ivar closed: whether it can't be used any more.
    """

    reused: bool
    full: bool
    closed: bool

    @property
    def local_address(self) -> str:
        """Our address towards the host, for logs."""

    def begin(
        self,
        exchange: Exchange,
        head: RequestHead,
        events: Sequence[Event],
        forwarded_by: ForwardedBy | None,
        default_host: bytes,
    ) -> None:
        """
        Send a request, or as much of it as has come.

        @param events: what has come behind the head.
        @param forwarded_by: what to tell the host about the client.
        @param default_host: the authority of a request that names none.
        """

    def send(self, events: Sequence[Event]) -> None:
        """Send more of the request."""

    def pause(self) -> None:
        """Read no more of the response for now."""

    def resume(self) -> None:
        """Read on."""

    def finish(self, reusable: bool) -> None:
        """
        The exchange is over, and wants nothing more.

        @param reusable: whether both sides agree where the next one begins.
        """

    def abort(self, reason: str) -> None:
        """Break the exchange off; it hears nothing more."""


class IDownstream(Protocol):
    """
    What an exchange needs of the connection, or stream, that it belongs to.

    @ivar protocol: the protocol that the client speaks, as MOSN names it.
    @ivar full: whether it holds as much of a response as it should.
    """

    protocol: str
    settings: Http1Settings
    info: ConnectionInfo
    forwarded_by: ForwardedBy | None
    full: bool

    @property
    def default_host(self) -> bytes:
        """The Host of a request that names none."""

    def set_exchange_deadline(self, deadline: float) -> None:
        """End the exchange with 504 at a time of the clock."""

    def send(self, exchange: Exchange, events: Sequence[Event]) -> None:
        """Send a part of the response: heads, the last of which is final, body and end."""

    def reply(
        self, exchange: Exchange, status: int, body: bytes, content_type: bytes, location: bytes
    ) -> None:
        """Answer without a host; the exchange is over."""

    def exchange_done(self, exchange: Exchange) -> None:
        """The response is complete, and sent."""

    def exchange_broken(self, exchange: Exchange) -> None:
        """The response has begun, but can't be completed."""

    def upgraded(self, exchange: Exchange, client: IUpstream) -> None:
        """The host has accepted to switch protocols; its 101 is sent."""

    def update_reading(self) -> None:
        """Look at L{Exchange.holds_back} again."""


class Exchange(Attempts):
    """
    See the module's text.

    @ivar head: the request.
    @ivar received: bytes of the request body so far.
    @ivar sent: bytes of the response body so far.
    @ivar status: the status of the response; 0 as long as there is none.
    @ivar request_complete: whether all of the request has come.
    @ivar flag: why there is no complete response of a host, for the access log.
    """

    __slots__ = (
        "_answered",
        "_client",
        "_downstream",
        "_full",
        "_out",
        "_response_head",
        "_retried",
        "_timeout",
        "flag",
        "head",
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
        super().__init__(downstream.settings.clock, downstream.protocol)
        self.head = head
        self.started = now
        self.received = 0
        self.sent = 0
        self.status = 0
        self.request_complete = False
        self.flag = ""
        self.upstream_local = ""
        self.request_sent_at: float | None = None
        self.response_at: float | None = None
        self._downstream = downstream
        self._timeout = inf
        self._out: list[Event] = []  # of the request, not yet sent
        self._client: IUpstream | None = None
        self._retried = False
        self._answered = False  # the host has sent something
        self._full = False  # the connection to the host holds enough
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
            self._phase <= WAITING and self.received > REQUEST_BUFFER and not self.request_complete
        )

    # the request

    def add_body(self, data: bytes) -> None:
        """A part of the request body has come."""
        size = len(data)
        self.received += size
        if self._phase == DONE:
            return
        limit = self._downstream.settings.options.max_request_body_size
        if limit and self.received > limit:
            self.fail(413, f"request body larger than {limit} bytes")
            return
        self._out.append(data)

    def end_request(self, end: End) -> None:
        """All of the request has come."""
        self.request_complete = True
        self._out.append(end)

    def flush(self) -> None:
        """Pass on what has come: called once for each read."""
        if self._phase == ACTIVE:
            out = self._out
            if out:
                self._out = []
                client = self._client
                assert client is not None
                client.send(out)
                downstream = self._downstream
                downstream.set_exchange_deadline(self._clock.seconds() + self._timeout)
        elif self._phase == NEW:
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
            self._acquire()
        elif isinstance(result, DirectResponse):
            self._answer(result.status, result.body)
        elif isinstance(result, Redirect):
            self._answer(result.status, b"", location=result.location.encode("ascii"))
        else:
            self.flag = "no route"
            self._answer(404, b"no route matches this request\n")

    def _connecting(self) -> None:
        self._downstream.update_reading()

    def _send(self, client: IUpstream) -> None:
        self._phase = ACTIVE
        self._client = client
        downstream = self._downstream
        if downstream.settings.access_log is not None:
            self.request_sent_at = self._clock.seconds()
            self.upstream_local = client.local_address
        if client.full:
            self._full = True
        out, self._out = self._out, []
        client.begin(self, self.head, out, downstream.forwarded_by, downstream.default_host)
        if downstream.full:
            client.pause()
        if not self.request_complete:
            downstream.update_reading()

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
        complete = False
        for index, event in enumerate(events):
            if type(event) is bytes:
                self.sent += len(event)
            elif type(event) is ResponseHead:
                if event.status < 200:
                    self._interim(events, index)
                    return
                self._response_head = event
                self.status = event.status
                if self._downstream.settings.access_log is not None:
                    self.response_at = self._clock.seconds()
            elif type(event) is End:
                complete = True
            else:
                assert isinstance(event, HttpError)
                if index:
                    self._downstream.send(self, events[:index])
                self._upstream_failed(event.status, str(event))
                return
        self._downstream.send(self, events)
        if complete:
            self._finish()

    def _interim(self, events: list[Event], index: int) -> None:
        """Pass a 1xx response on, if the client can do something with it, and go on behind it."""
        head = events[index]
        assert isinstance(head, ResponseHead)
        request = self.head
        if head.status == 101 and not request.upgrade:
            self._upstream_failed(502, "the host switched protocols without being asked")
            return
        if head.status == 101 or (request.http11 and (head.status != 100 or request.expect_continue)):
            self._downstream.send(self, [head])
        if head.status == 101:
            self._upgrade(head)
        elif events[index + 1 :] and self._phase == ACTIVE:
            self.upstream_events(events[index + 1 :])

    def _finish(self) -> None:
        """The response is complete and sent."""
        client, self._client = self._client, None
        head = self._response_head
        assert client is not None
        assert head is not None
        self._phase = DONE
        client.finish(head.keep_alive and self.request_complete)
        self._release()
        self._downstream.exchange_done(self)

    def _upgrade(self, head: ResponseHead) -> None:
        client, self._client = self._client, None
        if self._phase != ACTIVE or client is None:
            return
        self._phase = DONE
        self._response_head = head
        self.status = 101
        self._downstream.upgraded(self, client)

    def tunnel_closed(self, reason: Failure) -> None:
        """The upstream connection of an accepted upgrade is lost."""
        self._release()

    # failures

    def upstream_lost(self, reason: str) -> None:
        """See L{reverseproxy.proxy.http1_upstream.IExchange}."""
        client, self._client = self._client, None
        if self._phase != ACTIVE or client is None:
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
        # Where one idle connection was closed, others will be.
        self._fresh = True
        if host.capacity is not None:
            # A reverse host is gone with its connection; a static one is there to be dialled.
            self._avoid(host)
        self._full = False
        if self.request_complete:
            self._out = [END]
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
        if self._phase == DONE:
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
        if self._phase != DONE:
            self.flag = reason
            self._end()

    def _end(self) -> None:
        """Let go of everything upstream."""
        self._phase = DONE
        self._out = []
        self._full = False
        client, self._client = self._client, None
        if client is not None:
            client.abort("the exchange was broken off")
        self._give_up()
