"""
Send a request to a host, buffering it until there is a connection.

Once there is a connection, the request is streamed; what was sent is kept while
it is small, for a retry.
"""

from __future__ import annotations

__all__ = ["REQUEST_BUFFER", "SWITCHED", "Sending"]

from collections.abc import Sequence
from functools import partial
from sys import maxsize
from typing import TYPE_CHECKING, Any, Final

from reverseproxy.proxy.access import AccessNotes
from reverseproxy.proxy.client_pools import header_of
from reverseproxy.proxy.flags import ResponseFlag
from reverseproxy.proxy.http.attempts import Attempts, ExchangePhase
from reverseproxy.proxy.http.end_reporting import EndReporting
from reverseproxy.proxy.http.interfaces import IDirectRequest, IDownstream, IUpstream
from reverseproxy.proxy.http.mirror import Mirrored
from reverseproxy.routing import ClusterRoute, Timeouts
from reverseproxy.tracing.context import TRACE_FIELDS
from reverseproxy.wire.http.message import END, End, Event, Request

if TYPE_CHECKING:
    from reverseproxy.tracing.interfaces import IRequestTrace

REQUEST_BUFFER: Final = 65536
"""Bytes of a request kept while there is no connection to send them on; reading pauses beyond them."""

SWITCHED: Final = 101
"""The status of an exchange whose two sides speak another protocol from now on."""

NEW, WAITING, ACTIVE, DONE = ExchangePhase


class Sending(EndReporting):
    """
    The part of an exchange that has the request.

    @ivar downstream: where it comes from.
    @ivar head: the request, as it came.
    @ivar received: bytes of the request body so far.
    @ivar request_complete: whether all of the request has come.
    @ivar status: the status of the response; 0 as long as there is none.
    @ivar notes: what only the access log wants to know, if there is one.
    """

    __slots__ = (
        "_asked_at",
        "_client",
        "_full",
        "_mirrors",
        "_out",
        "_outgoing",
        "_route",
        "_sent",
        "_times",
        "downstream",
        "head",
        "notes",
        "received",
        "request_complete",
        "started",
        "status",
    )

    downstream: IDownstream
    head: Request
    notes: AccessNotes | None
    received: int
    request_complete: bool
    started: float
    status: int
    _out: list[Event]  # of the request, not yet sent
    _sent: Sequence[Event] | None  # behind the head, to be sent again; None: too much to be kept
    _client: IUpstream | None
    _route: ClusterRoute | None
    _times: Timeouts  # how long it may take; set with the route
    _outgoing: Request  # the request as it goes on
    _mirrors: Sequence[Mirrored]
    _full: bool  # the connection to the host holds enough
    _asked_at: float  # when all of the request had come; 0.0 if that was at once

    def __init__(self, downstream: IDownstream, head: Request, now: float) -> None:
        Attempts.__init__(self, downstream.settings.clock, downstream.protocol)
        self.head = self._outgoing = head
        self.started = now
        self.received = self.status = 0
        self.downstream = downstream
        self.request_complete = self._full = False
        self._asked_at = 0.0
        self._out = []
        self._sent = self._mirrors = ()
        self.notes = self._client = self._ending = self._route = None

    # what a subclass does

    def fail(self, status: int, reason: str, flags: int, remedy: str = "") -> None:
        """
        Answer with an error of our own, or break the response off if it has begun.

        @param reason: a sentence for the access log, and for the client as far as
            it is about its request; it tells nothing of what the client sent.
        @param flags: the same as codes; see L{reverseproxy.proxy.flags}.
        @param remedy: what to do about it, for the log; empty for what the flags
            say.
        """
        raise NotImplementedError

    def _find_route(self) -> None:
        """Find the route of the request, whose head has come."""
        raise NotImplementedError

    def _may_grow(self) -> bool:
        """Return whether the body may be as large as it is; if not, the request has been refused."""
        raise NotImplementedError

    def _look_for_response(self) -> None:
        """Set the next look, as the response has to begin in time from now on."""
        raise NotImplementedError

    def _time_attempt(self) -> None:
        """Start the timeout of an attempt."""
        raise NotImplementedError

    def _switch(self) -> None:
        """Turn both connections into a relay."""
        raise NotImplementedError

    # what is known of it

    @property
    def response_started(self) -> bool:
        """Whether the head of the final response has been sent."""
        return self.status != 0

    @property
    def client_address(self) -> str:
        """See L{Attempts.client_address}: connections of HTTP/2 are shared."""
        return self.downstream.info.remote if self.protocol == "Http1" else ""

    @property
    def holds_back(self) -> bool:
        """Whether reading of the request should pause."""
        return self._full or (
            self._phase <= WAITING and self.received > REQUEST_BUFFER and not self.request_complete
        )

    @property
    def waiting(self) -> int:
        """Bytes of the body that are buffered until there is a connection."""
        return self.received if self._phase <= WAITING else 0

    @property
    def request_waiting(self) -> int:
        """How many bytes of the request are buffered for the host, at most."""
        client = self._client
        return maxsize if client is None or self._out else client.backlog().size

    # what comes of it

    def add_body(self, data: bytes) -> None:
        """Take a part of the request's body."""
        size = len(data)
        self.received += size
        if self._phase == DONE:
            return
        limit = self.downstream.max_request_body_size
        if limit and self.received > limit:
            self.fail(413, f"request body larger than {limit} bytes", ResponseFlag.DPE)
            return
        if not self._may_grow():
            return
        self._out.append(data)
        for mirror in self._mirrors:
            mirror.add(data)

    def end_request(self, end: End) -> None:
        """Take the end of the request."""
        self.request_complete = True
        if self._phase != NEW:
            self._asked_at = self._clock.seconds()
            self._look_for_response()
        self._out.append(end)
        for mirror in self._mirrors:
            mirror.add(end)

    def begin_whole(self) -> None:
        """Begin an exchange whose request has no body."""
        self.request_complete = True
        self._out.append(END)
        self._find_route()

    def flush(self) -> None:
        """Forward what has come; called once for each read."""
        if self._phase == ACTIVE:
            out = self._out
            if out:
                self._out = []
                client = self._client
                assert client is not None
                if self._sent is not None:
                    self._keep(out)
                client.send(out)
                if self.status == SWITCHED and self.request_complete:
                    self._switch()
        elif self._phase == NEW:
            self._find_route()
        elif self.holds_back:
            self.downstream.update_reading()

    def request_sink(self) -> Any:
        """
        Return the transport to which the body can be spliced.

        @return: a transport, until the exchange is over; L{None} if there is
            none: all that has come must have been sent, and nothing of it be
            needed again.
        """
        client = self._client
        if client is None or self._out or self._sent is not None or self._mirrors:
            return None
        return client.request_sink() if isinstance(client, IDirectRequest) else None

    def request_passed(self, size: int) -> None:
        """Note that bytes of the body have been spliced."""
        self.received += size

    # what goes to the host

    def _connecting(self) -> None:
        self.downstream.update_reading()

    def _introduction(self) -> bytes:
        downstream = self.downstream
        info = downstream.info
        assert self.cluster is not None
        forwarded = None
        if downstream.settings.trust.believes(info):
            forwarded = self.head.lookup("x-forwarded-for")
        return header_of(self.cluster.config.proxy_protocol, info, forwarded)

    def _send(self, client: IUpstream) -> None:
        self._phase = ACTIVE
        self._client = client
        downstream, cluster = self.downstream, self.cluster
        if self._times.attempt or (cluster is not None and cluster.watches_answers):
            self._time_attempt()
        if downstream.settings.access_log is not None:
            self.notes = AccessNotes(self._clock.seconds(), client.local_address, client.connection_number)
        if client.full:
            self._full = True
        head = self._outgoing
        route = self._route
        if route is not None and route.auto_host_rewrite:
            head = self._with_hostname(head)
        if self._trace is not None:
            head = self._with_trace(self._trace, head)
        out, self._out = self._out, []
        kept = self._sent
        if kept is not None:
            if kept or self.received:
                self._keep(out)
            else:
                self._sent = out
        whole: Any = self  # subclasses have what reads the response
        client.begin(whole, head, out, downstream.forwarded_by, downstream.default_host, whole)
        if downstream.full:
            client.pause()
        if not self.request_complete:
            downstream.update_reading()

    def _keep(self, out: list[Event]) -> None:
        """Keep what is sent for a retry, up to L{REQUEST_BUFFER}."""
        if self.received > REQUEST_BUFFER:
            self._sent = None
        elif not self._sent:
            self._sent = out
        else:
            self._sent = [*self._sent, *out]

    def _with_hostname(self, head: Request) -> Request:
        """Put the host's name into the Host header, as MOSN does for resolved names."""
        host, cluster = self.host, self.cluster
        if host is None or cluster is None or cluster.config.type != "STRICT_DNS" or not host.hostname:
            return head
        name = host.hostname.encode("ascii", "replace")
        return head.rewritten(head.target, name, head.headers, frozenset())

    def _with_trace(self, trace: IRequestTrace, head: Request) -> Request:
        """Add the fields that continue the trace."""
        fields = [field for field in head.headers if field[0].lower() not in TRACE_FIELDS]
        return head.rewritten(head.target, head.host, fields + self._begin_attempt(trace), TRACE_FIELDS)

    def upstream_full(self, full: bool) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IExchange}."""
        self._full = full
        self.downstream.update_reading()

    def downstream_full(self, full: bool) -> None:
        """Pause or resume reading of the response, as the client's buffer is full or has room."""
        client = self._client
        if client is not None and self.status != SWITCHED:
            if full:
                client.pause()
            else:
                client.resume()

    def _leave(self, client: IUpstream) -> None:
        """Let go of a connection whose response the client does not wait for any more."""
        lease, cluster = self._lease, self.cluster
        if lease is not None and cluster is not None and lease.exclusive and self.request_complete:
            self._client = None
            if client.leave(partial(cluster.release, lease)):
                self._lease = None
                return
        client.abort("nobody waits for the answer")
