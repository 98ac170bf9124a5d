"""
One HTTP request and its response, on their way through the proxy.

An exchange belongs to one downstream connection, or to one stream of it, and
lasts until its response is complete, or has failed.  It finds a route, a host
and a connection, and passes both bodies on as they come.  Nothing that happens
later on a connection that it has used can reach another exchange, as an
exchange that has ended knows nobody.

It knows no version of HTTP: what it passes on are events (heads, parts of
bodies, ends), which the L{IDownstream} on one side and the L{IUpstream} on the
other read and write (L{reverseproxy.proxy.http.interfaces}).
"""

from __future__ import annotations

__all__ = ["REQUEST_BUFFER", "Exchange"]

from collections.abc import Sequence
from functools import partial
from math import inf
from sys import maxsize
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from reverseproxy.clock import wall_time
from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.config.durations import format_duration
from reverseproxy.errors import ClusterUnknown, ForeignAnswer, HttpError
from reverseproxy.interfaces import PickContext
from reverseproxy.logs import format_time, loss
from reverseproxy.proxy.access import AccessRecord
from reverseproxy.proxy.client_pools import header_of
from reverseproxy.proxy.counting import note_failure
from reverseproxy.proxy.failures import Failed
from reverseproxy.proxy.filters import FilteredRequest, Passage, Refusal
from reverseproxy.proxy.flags import NO_FLAGS, Flag, session_flags, short_names
from reverseproxy.proxy.http.attempts import Attempts, Phase
from reverseproxy.proxy.http.deadlines import LOOKS, Clock, Limits, Stage, State, Watch
from reverseproxy.proxy.http.discretion import is_inside
from reverseproxy.proxy.http.interfaces import IDirectAnswer, IDirectRequest, IDownstream, IUpstream
from reverseproxy.proxy.http.mirror import Mirrored
from reverseproxy.proxy.pools import is_pooled
from reverseproxy.refused import REFUSED
from reverseproxy.routing import (
    IMMUTABLE_FIELDS,
    Cause,
    ClusterRoute,
    DirectResponse,
    Redirect,
    RouteInput,
    RouteResult,
    Timeouts,
    normalize_path,
    patience,
    shown,
    timeouts,
)
from reverseproxy.tracing.context import TRACE_FIELDS
from reverseproxy.transport.backlog import NOTHING
from reverseproxy.wire.http.border import FORWARDED, LOOKALIKE
from reverseproxy.wire.http.grpc import is_grpc
from reverseproxy.wire.http.message import END, UNKNOWN_LENGTH, End, Event, Request, Response
from reverseproxy.wire.http.unsent import UNSENT_FIELD, UNSENT_HEADER, Unsent
from reverseproxy.wire.http.upgrades import agrees

if TYPE_CHECKING:
    from reverseproxy.metrics import RequestTally
    from reverseproxy.tracing.interfaces import IRequestTrace, ITracing

log = Logger()

REQUEST_BUFFER: Final = 65536
"""Bytes of a request kept while there is no connection to send them on; reading pauses beyond them."""

SWITCHED: Final = 101
"""The status of an exchange whose two sides speak another protocol from now on."""

TERMINATED: Final = 500
"""The status of a request that was lost with a connection of many requests (docs/mosn.rst 4.5)."""

STALLED: Final = 499
"""What takes the place of a status if a client has not taken its answer."""

# A request with one of these may be sent twice (RFC 9110 9.2.2).  PUT and DELETE
# could be as well, but who sends one twice and gets 404 or 412 is not amused.
_IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})

_HASHING: Final = frozenset({"LB_MAGLEV"})
"""Balancers that go by a request's hash key."""

_REMEMBERING: Final = frozenset({"LB_MAGLEV", "LB_REQUEST_ROUNDROBIN"})
"""Balancers that go by what they have picked for the request before."""

NEW, WAITING, ACTIVE, DONE = Phase


class Exchange(Attempts):
    """
    See the module's text.

    @ivar head: the request.
    @ivar received: bytes of the request body so far.
    @ivar sent: bytes of the response body so far.
    @ivar status: the status of the response; 0 as long as there is none.
    @ivar request_complete: whether all of the request has come.
    @ivar flag: why there is no complete response of a host, for the access log.
    @ivar unsent: that the request was sent to no host, and why, if so; a server of
        ours is told.
    @ivar reset_code: the error code with which the host broke the response off, in its version of HTTP.
    @ivar message: of a response that was broken off: what the client may be told of the reason.
    @ivar failure: the status that would have been the answer, had none begun;
        L{STALLED} if it is the client that has not taken it.
    """

    __slots__ = (
        "_answered",
        "_asked_at",
        "_asks",
        "_client",
        "_direct",
        "_doubtful",
        "_downstream",
        "_facts",
        "_full",
        "_mirrors",
        "_out",
        "_outgoing",
        "_passage",
        "_response_head",
        "_route",
        "_sent",
        "_sent_at",
        "_timeout",
        "_tried_at",
        "_try_timeout",
        "_try_timer",
        "_watch",
        "failure",
        "flag",
        "head",
        "message",
        "received",
        "request_complete",
        "request_sent_at",
        "reset_code",
        "response_at",
        "rule",
        "sent",
        "started",
        "status",
        "unsent",
        "upstream_local",
    )

    unsent: Unsent | None
    request_sent_at: float | None
    response_at: float | None
    _out: list[Event]  # of the request, not yet sent
    _sent: list[Event] | None  # behind the head, to be sent again; None: too much to be kept
    _client: IUpstream | None
    _route: ClusterRoute | None
    rule: RouteResult | None  # what has taken it: a route, or what answers without a host
    _facts: RouteInput | None  # kept where the response is to be changed
    _outgoing: Request  # the request as it goes on
    _mirrors: Sequence[Mirrored]
    _passage: Passage | None  # through the listener's filters of requests
    _try_timer: IDelayedCall | None
    _answered: bool  # the host has sent something
    _doubtful: bool  # a host may have seen the request, although it is to be sent again
    _full: bool  # the connection to the host holds enough
    _asked_at: float  # when all of the request had come; 0.0 if that was at once
    _tried_at: float  # when the attempt has begun, if there is a time for one
    _asks: Timeouts | None  # if the request itself says how long it may take
    _watch: Watch | None  # once it has taken so long that somebody looks
    _response_head: Response | None

    def __init__(
        self, downstream: IDownstream, head: Request, now: float, direct: IDirectAnswer | None = None
    ) -> None:
        """
        @param direct: what sends the response by the shorter ways, if the downstream does.
        """
        Attempts.__init__(self, downstream.settings.clock, downstream.protocol)
        self.head = self._outgoing = head
        self.started = now
        self.received = self.sent = self.status = self.reset_code = 0
        self.flag = self.upstream_local = ""
        self._downstream = downstream
        self._direct = direct
        self._timeout = inf
        self._try_timeout = self._asked_at = self._sent_at = 0.0
        self._out = []
        self._sent = []
        self._mirrors = ()
        self.request_complete = self._answered = self._full = self._doubtful = False
        self.unsent = self.request_sent_at = self.response_at = self._client = self._route = self.rule = None
        self._facts = self._try_timer = self._response_head = self._passage = self._watch = None
        self._asks = None

    @property
    def client_address(self) -> str:
        """See L{Attempts.client_address}: connections of HTTP/2 are shared."""
        return self._downstream.info.remote if self.protocol == "Http1" else ""

    @property
    def response_started(self) -> bool:
        """Whether the head of the final response has been sent."""
        return self.status != 0

    @property
    def response_head(self) -> Response | None:
        """The head of the host's response."""
        return self._response_head

    @property
    def holds_back(self) -> bool:
        """Whether nothing more of the request should be read now."""
        return self._full or (
            self._phase <= WAITING and self.received > REQUEST_BUFFER and not self.request_complete
        )

    @property
    def waiting(self) -> int:
        """Bytes of the body that are kept until there is a connection to send them on."""
        return self.received if self._phase <= WAITING else 0

    # the request

    def add_body(self, data: bytes) -> None:
        """A part of the request body has come."""
        size = len(data)
        self.received += size
        if self._phase == DONE:
            return
        limit = self._downstream.max_request_body_size
        if limit and self.received > limit:
            self.fail(413, f"request body larger than {limit} bytes", Flag.DPE)
            return
        if self._passage is not None and self._is_too_large(self._passage):
            return
        self._out.append(data)
        for mirror in self._mirrors:
            mirror.add(data)

    def end_request(self, end: End) -> None:
        """All of the request has come."""
        self.request_complete = True
        if self._phase != NEW:
            self._asked_at = self._clock.seconds()
        self._out.append(end)
        for mirror in self._mirrors:
            mirror.add(end)

    def begin_whole(self) -> None:
        """Go ahead: the request has no body."""
        self.request_complete = True
        self._out = [END]
        self._find_route()

    def flush(self) -> None:
        """Pass on what has come: called once for each read."""
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
            self._downstream.update_reading()

    def request_sink(self) -> Any:
        """
        Say where the body that is coming can be sent as it comes.

        @return: a transport, until the exchange is over; L{None} if there is
            none: all that has come must have been sent, and nothing of it be
            needed again.
        """
        client = self._client
        if client is None or self._out or self._sent is not None or self._mirrors:
            return None
        return client.request_sink() if isinstance(client, IDirectRequest) else None

    def request_passed(self, size: int) -> None:
        """Bytes of the body have been sent there."""
        self.received += size

    # finding a host

    def _find_route(self) -> None:
        downstream = self._downstream
        settings = downstream.settings
        head = self.head
        limit = downstream.max_request_body_size
        if limit and head.length > limit:
            self.fail(413, f"request body larger than {limit} bytes", Flag.DPE)
            return
        if settings.tracing is not None:
            self._begin_trace(settings.tracing)
        if head.dropped:
            self._note_dropped(head.dropped)
        gate = downstream.gate
        if gate is not None and gate.misdirects(head.host, settings.sni_check == "always"):
            REFUSED["misdirected"] += 1
            self.fail(421, "the TLS handshake of this connection was for another host", Flag.DPE)
            return
        router = settings.router
        if settings.filters is not None:
            self._passage = settings.filters.passage(self._filtered(), router)
            self._pass_filters()
            return
        facts: RouteInput | None = None
        result = router.unconditional_route
        if result is None or head.target[:1] != b"/":
            facts = self._gather_facts()
            result = router.match(facts)
        if isinstance(result, ClusterRoute):
            self._follow(result, facts)
        else:
            self._answer_for(result, facts or self._gather_facts())

    def _begin_trace(self, tracing: ITracing) -> None:
        """Make spans of what becomes of the request."""
        downstream, head = self._downstream, self.head
        info = downstream.info
        method = head.method.decode("ascii", "replace")
        self._trace = tracing.begin(
            head.lookup,
            downstream.settings.trust.believes(info),
            self.started,
            self._clock.seconds(),
            method,
            {
                "http.request.method": method,
                "url.path": head.target.partition(b"?")[0].decode("ascii", "replace"),
                "url.scheme": "https" if info.secure else "http",
                "server.address": head.host.decode("ascii", "replace"),
                "client.address": info.remote_ip,
                "network.protocol.name": "http",
                "network.protocol.version": downstream.version,
                "reverseproxy.listener": downstream.settings.listener,
            },
        )

    def _with_trace(self, trace: IRequestTrace, head: Request) -> Request:
        """Have the host go on with the trace."""
        fields = [field for field in head.headers if field[0].lower() not in TRACE_FIELDS]
        return head.rewritten(head.target, head.host, fields + self._begin_attempt(trace), TRACE_FIELDS)

    def end_trace(self) -> None:
        """The exchange is over."""
        trace, rule = self._trace, self.rule
        if trace is None:
            return
        flags = short_names(self.flags)
        error = self.flag if self.flags or self.status >= 500 else ""
        attributes: dict[str, str | int | float | bool] = {
            "reverseproxy.bytes_received": self.received,
            "reverseproxy.bytes_sent": self.sent,
        }
        name = self.head.method.decode("ascii", "replace")
        if self.status:
            attributes["http.response.status_code"] = self.status
        if rule is not None:
            attributes["http.route"] = rule.route
            name = f"{name} {rule.route}"
        if flags:
            attributes["reverseproxy.flags"] = flags
            attributes["error.type"] = flags
        if self.status >= 500:
            error = error or f"status {self.status}"
        trace.end(self._clock.seconds(), name, error, attributes)

    def _note_dropped(self, marks: int) -> None:
        """Say that the client is not believed, which may be a proxy that should be."""
        REFUSED["fields"] += 1
        downstream = self._downstream
        settings = downstream.settings
        if settings.strips.allow():
            fields = "lookalikes of fields that proxies set, such as X_Forwarded_For"
            if marks != LOOKALIKE:
                fields = "X-Forwarded-... or similar fields" if marks & FORWARDED else "x-mosn-... fields"
            log.info(
                "{listener}: {fields} of {peer} are left out, as it is not one of trusted_proxies of the "
                "proxy filter{suppressed}",
                listener=settings.listener,
                fields=fields,
                peer=downstream.info.remote,
                suppressed=settings.strips.suppressed,
            )

    def _answer_for(self, result: RouteResult | None, facts: RouteInput) -> None:
        """Answer a request that goes to no host."""
        self.rule = result
        if isinstance(result, DirectResponse):
            self._answer(result.status, result.body)
        elif isinstance(result, Redirect):
            self._answer(result.status, b"", location=result.location.encode("ascii"))
        else:
            self._no_route(facts)

    def _filtered(self) -> FilteredRequest:
        """What filters of requests may know of this one."""
        head = self.head
        size = head.length
        if size < 0 and self.request_complete:
            size = self.received
        return FilteredRequest(self._gather_facts(), head.target.decode("ascii"), self._downstream.info, size)

    def _pass_filters(self) -> None:
        """Go through the filters of requests, as far as they let it."""
        self._pause = None
        passage = self._passage
        assert passage is not None
        step = passage.advance()
        request = passage.request
        downstream = self._downstream
        passage.over_at = self._clock.seconds()
        self.flags |= request.flags
        if isinstance(step, float):
            self._phase = WAITING
            self._pause = self._clock.callLater(step, self._pass_filters)
            # What a filter takes is not the route's time.
            downstream.set_look(inf)
            downstream.update_reading()
        elif step is not None:
            self._refuse(step)
        elif self._is_too_large(passage):
            pass  # it has been refused
        elif isinstance(request.result, ClusterRoute):
            if request.removed:
                self._remove_headers(request.removed)
            self._follow(request.result, request.facts)
        else:
            self._answer_for(request.result, request.facts)

    def _is_too_large(self, passage: Passage) -> bool:
        """Refuse a request whose body has become larger than a filter allows."""
        limit = passage.request.limit
        if limit is None or self.received <= limit.size:
            return False
        self._refuse(limit.refusal)
        return True

    def _refuse(self, refusal: Refusal) -> None:
        """Answer as a filter says, or break off if an answer has begun."""
        self.flags |= refusal.flags
        if self.response_started:
            self._break(refusal.status, refusal.flag)
        else:
            self.flag = refusal.flag
            if is_inside(refusal.status):
                self._downstream.settings.discretion.failures.note(
                    self._failed(refusal.status, refusal.flag, "", False)
                )
            self._answer(refusal.status, refusal.body)

    def _remove_headers(self, names: set[str]) -> None:
        """Send a request on without some of its headers."""
        removed = frozenset(name.encode("ascii") for name in names) - IMMUTABLE_FIELDS
        head = self.head
        headers = [field for field in head.headers if field[0].lower() not in removed]
        self.head = self._outgoing = head.rewritten(head.target, head.host, headers, removed)

    def _no_route(self, facts: RouteInput) -> None:
        """Answer with 404; the client is told which Host is at fault, the log also what would not be."""
        downstream = self._downstream
        settings = downstream.settings
        self.flag = "no route"
        self.flags |= Flag.NR
        body = b"no route matches this request\n"
        reason = settings.router.explain(facts.host)
        if reason:
            if facts.host:
                body = f"no virtual host takes the Host {shown(facts.host)}\n".encode("ascii")
            if settings.misses.allow():
                log.info(
                    "{listener}: a request of {peer} gets 404 from the router {router}: {reason}{suppressed}",
                    listener=settings.listener,
                    peer=downstream.info.remote,
                    router=settings.router.name,
                    reason=reason,
                    suppressed=settings.misses.suppressed,
                )
        self._answer(404, body)

    @property
    def _chosen(self) -> bool:
        route = self._route
        return (
            self._downstream.settings.protocols_differ and route is not None and not route.upstream_protocol
        )

    def _alternatives(self) -> Sequence[str]:
        route = self._route
        if route is None or route.upstream_protocol:
            return ()
        return ("Http2",) if is_grpc(self.head.headers) else ("Http1", "Http2")

    def _gather_facts(self) -> RouteInput:
        downstream, head = self._downstream, self.head
        path, _, query = head.target.decode("ascii").partition("?")
        return RouteInput(
            head.method.decode("ascii"),
            normalize_path(path),
            query,
            (head.host or downstream.default_host).decode("ascii"),
            head.lookup,
            "https" if downstream.info.secure else "http",
            downstream.protocol,
            self._variable,
        )

    def _follow(self, route: ClusterRoute, facts: RouteInput | None) -> None:
        """
        Do what a route says.

        @param facts: what the route was found by, if that had to be gathered.
        """
        downstream = self._downstream
        head = self.head
        self.rule = route
        try:
            cluster = self.cluster = downstream.settings.clusters.get(route.cluster_name)
        except ClusterUnknown as error:
            self.fail(error.status, str(error), Flag.NC)
            return
        self._route = route
        self.retry = route.retry
        if route.upstream_protocol:
            self.protocol = route.upstream_protocol
        if not is_pooled(self.protocol):
            self.fail(502, f"hosts can't be spoken to in {self.protocol}", Flag.UPE)
            return
        lookup = head.lookup if head.mosn and head.may_have(b"x-mosn-") else None
        times = route.times
        if lookup is not None:
            times = self._asks = timeouts(route, lookup)
        total, self._try_timeout = times[:2]
        timeout = self._timeout = total or inf
        if self.received or not self.request_complete:
            timeout /= LOOKS  # to see when it is sent
        period = downstream.settings.look_period
        if route.idle_timeout is not None:
            period = min(route.idle_timeout / LOOKS, downstream.settings.request_time)
        passage = self._passage
        begun = self.started if passage is None else passage.over_at
        downstream.set_look(begun + (timeout if timeout < period else period))
        lb_type = cluster.config.lb_type
        if not route.has_no_transforms or lb_type in _REMEMBERING:
            self._prepare(route, facts or self._gather_facts(), lb_type)
        if passage is not None and passage.request.labels:
            if self._context is None:
                self._context = PickContext()
            self._context.metadata = {**(route.metadata or {}), **passage.request.labels}
        self._acquire()

    def _prepare(self, route: ClusterRoute, facts: RouteInput, lb_type: str) -> None:
        """Do what few routes, and few balancers, demand."""
        downstream = self._downstream
        head = self.head
        if route.metadata is not None or lb_type in _REMEMBERING:
            key = route.hash_key(facts, downstream.info.remote_ip) if lb_type in _HASHING else None
            self._context = PickContext(hash_key=key, metadata=route.metadata)
        if route.request_mutation is not None:
            mutation = route.request_mutation
            host = head.authority(downstream.default_host)
            self._outgoing = head.rewritten(
                *mutation.apply(facts, head.target, host, head.headers), mutation.names
            )
        if route.response_mutation is not None:
            self._facts = facts
        if head.upgrade:
            return  # there is no copy of a session
        copies = 1 if self._passage is None else self._passage.request.copies
        for mirror in route.mirrors:
            if mirror.takes(downstream.settings.random()):
                for _ in range(copies):
                    self._mirror(mirror.cluster_name)

    def _mirror(self, cluster_name: str) -> None:
        downstream = self._downstream
        settings = downstream.settings
        try:
            cluster = settings.clusters.get(cluster_name)
        except ClusterUnknown as error:
            log.warn("{listener}: {reason}: no copy is sent", listener=settings.listener, reason=str(error))
            return
        mirrored = Mirrored(
            settings.clock,
            self.protocol,
            cluster,
            self._outgoing,
            list(self._out),
            (downstream.forwarded_by, downstream.default_host),
            self._chosen,
            self._alternatives(),
        )
        self._mirrors = (*self._mirrors, mirrored)

    def _introduction(self) -> bytes:
        downstream = self._downstream
        info = downstream.info
        assert self.cluster is not None
        forwarded = None
        if downstream.settings.trust.believes(info):
            forwarded = self.head.lookup("x-forwarded-for")
        return header_of(self.cluster.config.proxy_protocol, info, forwarded)

    def _variable(self, name: str) -> str | None:
        """Find what a variable of MOSN's is at present; see L{RouteInput.variables}."""
        downstream = self._downstream
        info = downstream.info
        response = self._response_head
        match name:
            case "downstream_local_address":
                return info.local
            case "downstream_remote_address":
                return info.remote
            case "listener_name":
                return downstream.settings.listener
            case "x-mosn-path-original":
                return self.head.target.partition(b"?")[0].decode("ascii")
            case "start_time":
                age = self._clock.seconds() - self.started
                return format_time(wall_time() - age)
            case (
                "duration"
                | "process_time_duration"
                | "request_received_duration"
                | "request_finished_duration"
                | "response_received_duration"
            ):
                return format_duration(self._clock.seconds() - self.started)
            case "bytes_received":
                return str(self.received)
            case "bytes_sent":
                return str(self.sent)
            case "response_code" | "x-mosn-status":
                return str(self.status) if self.status else None
            case "response_flag" | "response_flags":
                return "true" if self.flag else "false"
            case "upstream_cluster":
                return None if self.cluster is None else self.cluster.name
            case "upstream_host":
                return None if self.host is None else self.host.hostname or self.host.address
            case "upstream_local_address":
                return self.upstream_local or None
        header = name.removeprefix("response_header_")
        if header != name and response is not None:
            return response.lookup(header)
        return None

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
        cluster = self.cluster
        if cluster is not None and cluster.watches_answers:
            self._sent_at = self._clock.seconds()
        if self._try_timeout:
            self._tried_at = self._clock.seconds()
            self._try_timer = self._clock.callLater(self._try_timeout, self._try_timed_out)
        head = self._outgoing
        if self._route is not None and self._route.auto_host_rewrite:
            head = self._with_hostname(head)
        if self._trace is not None:
            head = self._with_trace(self._trace, head)
        out, self._out = self._out, []
        if self._sent is not None:
            self._keep(out)
        client.begin(self, head, out, downstream.forwarded_by, downstream.default_host, self)
        if downstream.full:
            client.pause()
        if not self.request_complete:
            downstream.update_reading()

    def _keep(self, out: list[Event]) -> None:
        """Keep what is sent, so that it can be sent again, as long as it is little."""
        if self.received > REQUEST_BUFFER:
            self._sent = None
        elif not self._sent:
            self._sent = out
        else:
            self._sent = self._sent + out

    def _with_hostname(self, head: Request) -> Request:
        """Put the host's name into the Host header, as MOSN does where names are resolved."""
        host, cluster = self.host, self.cluster
        if host is None or cluster is None or cluster.config.type != "STRICT_DNS" or not host.hostname:
            return head
        name = host.hostname.encode("ascii", "replace")
        return head.rewritten(head.target, name, head.headers, frozenset())

    # the response

    def upstream_full(self, full: bool) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IExchange}."""
        self._full = full
        self._downstream.update_reading()

    def downstream_full(self, full: bool) -> None:
        """The client reads more slowly than the response comes, or has caught up."""
        client = self._client
        if client is not None and self.status != SWITCHED:
            if full:
                client.pause()
            else:
                client.resume()

    def upstream_events(self, events: list[Event]) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IExchange}."""
        self._answered = True
        complete = False
        for index, event in enumerate(events):
            if type(event) is bytes:
                self.sent += len(event)
            elif isinstance(event, Response):
                if event.status < 200:
                    self._interim(events, index)
                    return
                if event.status >= 500 and self._heed_unsent(events, index):
                    return
                if self._stop_try(event.status, type(events[-1]) is End):
                    return
                event = events[index]
                assert isinstance(event, Response)
                self._response_head = event
                self.status = event.status
                if self._downstream.settings.access_log is not None:
                    self.response_at = self._clock.seconds()
                if self._facts is not None and self._route is not None:
                    mutation = self._route.response_mutation
                    if mutation is not None:
                        events[index] = event.rewritten(
                            mutation.apply(event.headers, self._facts), mutation.names
                        )
            elif type(event) is End:
                complete = True
            else:
                assert isinstance(event, HttpError)
                if isinstance(event, ForeignAnswer) and self._heed_foreign():
                    return
                if index:
                    self._downstream.send(self, events[:index])
                self.fail(event.status, str(event), Flag.UPE)
                return
        self._downstream.send(self, events)
        if complete:
            self._finish()

    def upstream_whole(self, head: Response, data: bytes, begin: int) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IDirectReader}."""
        cluster, direct = self.cluster, self._direct
        status = head.status
        if (
            direct is None
            or self._facts is not None
            or self._trace is not None
            or self._try_timer is not None
            or status >= 500
            or self.retry.status_codes
            or cluster is None
            or cluster.watches_answers
        ):
            body = data[begin:]
            self.upstream_events([head, body, END] if body else [head, END])
            return
        # As upstream_events does, for the answers that there is nothing to say about.
        self._answered = True
        self._response_head = head
        self.status = status
        self.sent += len(data) - begin
        if self._downstream.settings.access_log is not None:
            self.response_at = self._clock.seconds()
        direct.send_whole(self, head, data, begin)
        self._finish()

    def response_sink(self) -> Any:
        """See L{reverseproxy.proxy.http.interfaces.IDirectReader}."""
        direct = self._direct
        return None if direct is None or self._phase != ACTIVE else direct.response_sink()

    @property
    def request_waiting(self) -> int:
        """How many bytes of what has come of the request wait for the host, at the most."""
        client = self._client
        return maxsize if client is None or self._out else client.backlog().size

    @property
    def response_waiting(self) -> int:
        """See L{reverseproxy.proxy.http.interfaces.IExchange}."""
        return self._downstream.backlog().size

    def response_passed(self, size: int) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IDirectReader}."""
        self.sent += size

    def _stop_try(self, status: int, complete: bool) -> bool:
        """
        A host has answered: the time for an attempt counts no more.

        @param complete: whether the answer has come to its end.
        @return: whether the answer is to be forgotten, as the request is sent again.
        """
        self._stop_try_timer()
        if self._trace is not None:
            self._trace.answered(status)
        cluster, host = self.cluster, self.host
        if cluster is None or host is None:
            return False
        if (cluster.watches_answers or status >= 500) and not (
            status == 504 and self._asks is not None and self._asks.asked
        ):
            if cluster.watches_answers:
                cluster.report(host, Outcome.of_status(status), self._clock.seconds() - self._sent_at)
            if host.is_reverse:
                cluster.members.gateways.note(host, status)
        if (status < 500 and not self.retry.status_codes) or not self.retry.wants(status):
            return False
        client = self._client
        if client is None or not self._may_try_again(status, False, self._repeatable):
            return False
        self._client = None
        self._doubtful = True
        if complete and client.persists:
            client.finish(True)
        else:
            client.abort("its answer is not wanted")
        self._begin_again(False)
        return True

    def _heed_unsent(self, events: list[Event], index: int) -> bool:
        """
        See whether an agent says that it has not sent the request on.

        Whoever else says so is not believed, nor is it passed on.

        @param index: where the head of the response is.
        @return: whether the response is to be forgotten.
        """
        head, host, client = events[index], self.host, self._client
        assert isinstance(head, Response)
        text = head.lookup(UNSENT_HEADER)
        if text is None:
            return False
        headers = [field for field in head.headers if field[0].lower() != UNSENT_FIELD]
        events[index] = head.rewritten(headers, frozenset({UNSENT_FIELD}))
        why = Unsent.of_text(text)
        if why is None or host is None or not host.tells or client is None:
            return False
        self._stop_try_timer()
        others = self._has_others(host, why)
        whole = client.persists and type(events[-1]) is End
        if (
            others
            and self._sent is not None
            and self._may_try_again(Cause.UNREACHABLE, True, self._repeatable)
        ):
            self._client = None
            if whole and self.request_complete:
                client.finish(True)
            else:
                client.abort("its agent has not sent the request on")
            self._begin_again(True)
            return True
        if not self._doubtful:
            self.unsent = why  # for a server of ours before us
        if not (whole or client.multiplexed):
            return False
        self._client = None
        if whole:
            client.finish(self.request_complete)
        else:
            client.abort("its agent has not sent the request on")
        reason = b"".join([event for event in events if type(event) is bytes]).decode("utf-8", "replace")
        text = reason.strip()
        self.fail(head.status, f"the agent could not send the request on{text and f': {text}'}", Flag.UF)
        return True

    def _heed_foreign(self) -> bool:
        """
        See whether a host has not even taken the request for one, as it speaks another protocol.

        @return: whether the request is sent again, in another protocol or elsewhere.
        """
        client = self._client
        if client is None or not self._is_foreign():
            return False
        self._stop_try_timer()
        self._client = None
        client.abort("it does not speak HTTP/1")
        return self._again(Cause.STALE, True)

    def _interim(self, events: list[Event], index: int) -> None:
        """Pass a 1xx response on, if the client can do something with it, and go on behind it."""
        head = events[index]
        assert isinstance(head, Response)
        self._watched().interims += 1
        request = self.head
        if head.status == SWITCHED:
            chosen = (head.lookup("upgrade") or "").encode("utf-8", "surrogateescape")
            if not request.upgrade:
                self.fail(502, "the host switched protocols without being asked", Flag.UPE)
            elif not agrees(request.upgrade, chosen):
                self.fail(502, "the host switched to a protocol that was not asked for", Flag.UPE)
            else:
                self._upgrade(head)
            return
        info = self._downstream.info
        # A MOSN server takes the first head for the final one, and loses track of what follows.
        wanted = info.announced or not info.reverse
        if wanted and request.takes_interim and (head.status != 100 or request.awaits_continue):
            self._downstream.send(self, [head])
        if events[index + 1 :] and self._phase == ACTIVE:
            self.upstream_events(events[index + 1 :])

    def _finish(self) -> None:
        """The response is complete and sent."""
        client, self._client = self._client, None
        assert client is not None
        self._phase = DONE
        client.finish(self.request_complete)
        self._release()
        self._downstream.exchange_done(self)

    def _upgrade(self, head: Response) -> None:
        """
        The host has switched protocols, and so does the client, behind its request.

        What is left of a body of known length goes to the host as it comes, as
        does what follows it: there is no need to tell them apart.  A chunked
        one has to come to its end first, and what the host sends waits for that.
        """
        if self._stop_try(head.status, False):
            return
        self._downstream.send(self, [head])
        client = self._client
        if self._phase != ACTIVE or client is None:
            return
        self._response_head = head
        self.status = SWITCHED
        if self.request_complete or self.head.length != UNKNOWN_LENGTH:
            self._switch()
        else:
            client.pause()

    def _switch(self) -> None:
        client, self._client = self._client, None
        assert client is not None
        self._phase = DONE
        self._downstream.upgraded(self, client)

    def tunnel_closed(self, reason: Failure) -> None:
        """The upstream connection of an accepted upgrade is lost."""
        self.session_ended(reason, Flag.UC)
        self._release()

    def session_ended(self, reason: Failure, lost: int) -> None:
        """
        One side of an accepted upgrade is over.

        @param lost: what stands for a connection that broke off.
        """
        flags = NO_FLAGS if self.flag else session_flags(reason, lost)
        if flags:
            self.flags |= flags
            self.flag = f"the {'host' if lost == Flag.UC else 'client'}'s connection was lost: {loss(reason)}"

    # failures

    def upstream_lost(
        self,
        reason: str,
        unsent: bool = False,
        code: int = 0,
        terminated: bool = False,
        flags: int = Flag.UC,
    ) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IExchange}."""
        client, self._client = self._client, None
        if self._phase != ACTIVE or client is None:
            return
        self._stop_try_timer()
        cluster, host = self.cluster, self.host
        foreign = not self._answered and self._is_foreign()
        if not foreign and cluster is not None and host is not None and cluster.watches_answers:
            cluster.report(host, Outcome.RESET)
        cause = Cause.STALE if (client.reused or foreign) and not self._answered else Cause.LOST
        if foreign and flags & Flag.UPE:
            unsent = True  # it has taken the request for something else
        begun = self.response_started or (self._answered and not unsent)
        if begun or not self._again(cause, unsent):
            self.reset_code = code
            if unsent and not self._doubtful:
                self.unsent = Unsent.REQUEST
            status = TERMINATED if terminated else 502
            self.fail(status, f"the host's connection was lost: {reason}", flags)

    @property
    def _repeatable(self) -> bool:
        """Whether the request may be acted upon twice, and all of it is at hand."""
        head = self.head
        if head.upgrade and head.length:
            return False  # it begins something, whatever its method is
        return self._sent is not None and head.method in _IDEMPOTENT

    def _again(self, cause: Cause, unsent: bool) -> bool:
        """Send the request again, if the host can't have seen it, or may see it twice."""
        if self._sent is None or not self._may_try_again(cause, unsent, self._repeatable):
            return False
        host = self.host
        if not unsent:
            self._doubtful = True
        if cause is Cause.STALE:
            # Where one idle connection was closed, others will be.
            self._fresh = True
        if host is not None and (
            host.exclusive
            or host.closed
            or (unsent and host.is_reverse)
            or not (unsent or cause is Cause.STALE)
        ):
            # One that has a single connection is gone with it, and an agent that has refused a stream will
            # refuse the next; others can be connected to again.
            self._postpone(host)
        self._begin_again(unsent or cause is Cause.STALE)
        return True

    def _begin_again(self, at_once: bool) -> None:
        self._full = False
        self._answered = False
        if self._sent:
            self._out = self._sent + self._out
            self._sent = []
        self._next_attempt(at_once)

    def _try_timed_out(self) -> None:
        """One attempt has taken its time, if that has begun; the exchange may have some left."""
        self._try_timer = None
        client = self._client
        if self._phase != ACTIVE or client is None:
            return
        now = self._clock.seconds()
        left = self._watched().attempt_ends(now, self._try_timeout, self._tried_at, self._state(client)) - now
        if left > 0:
            self._try_timer = self._clock.callLater(left, self._try_timed_out)
            return
        if self._asks is not None and self._asks.attempt_asked:
            self._leave(client)
        else:
            cluster, host = self.cluster, self.host
            if cluster is not None and host is not None and cluster.watches_answers:
                cluster.report(host, Outcome.RESET)
            client.abort("an attempt took too long")
        self._client = None
        reason = (
            f"the host did not answer within {format_duration(self._try_timeout)}, the time for one attempt"
        )
        if not self._again(Cause.TRY_TIMEOUT, False):
            key = "see retry_timeout of the route's retry_policy, or x-mosn-try-timeout"
            self.fail(504, reason, Flag.UT, key)

    def _leave(self, client: IUpstream) -> None:
        """Let go of a connection, as the client wants no answer any more: that is not the host's fault."""
        lease, cluster = self._lease, self.cluster
        if lease is not None and cluster is not None and lease.exclusive and self.request_complete:
            self._client = None
            if client.leave(partial(cluster.release, lease)):
                self._lease = None
                return
        client.abort("nobody waits for the answer")

    def _stop_try_timer(self) -> None:
        timer, self._try_timer = self._try_timer, None
        if timer is not None:
            timer.cancel()

    def fail(self, status: int, reason: str, flags: int, remedy: str = "") -> None:
        """
        Answer with an error of our own, or break off if an answer has begun.

        @param reason: a sentence for the access log, and for the client as far as
            it is about its request; it tells nothing of what the client sent.
        @param flags: the same as codes; see L{reverseproxy.proxy.flags}.
        @param remedy: what to do about it, for the log; empty for what the flags
            say.
        """
        if self._phase == DONE:
            return
        self.flags |= flags
        if self.response_started:
            self._break(status, reason, remedy)
            return
        self.flag = reason
        if self._phase == WAITING and status in (502, 503, 504) and not self._doubtful:
            self.unsent = Unsent.REQUEST
        told = self._tell(status, reason, remedy, False)
        self._answer(status, told.encode("utf-8", "replace") + b"\n")

    def _failed(self, status: int, reason: str, remedy: str, broken: bool) -> Failed:
        """Describe what has happened, for the log."""
        head, host, cluster = self.head, self.host, self.cluster
        target = head.target.partition(b"?")[0]
        return Failed(
            (head.method + b" " + target).decode("ascii", "replace").strip(),
            self._downstream.info.remote,
            status,
            reason,
            self.flags,
            "" if cluster is None else cluster.name,
            "" if host is None else host.address,
            remedy,
            "",
            head.lookup("x-request-id"),
            self.trace_id,
            broken=broken,
        )

    def _tell(self, status: int, reason: str, remedy: str, broken: bool) -> str:
        """Log an error, if that is for us to care about; say what the client is told of it."""
        failed = self._failed(status, reason, remedy, broken)
        discretion = self._downstream.settings.discretion
        if (remedy or broken) and not is_inside(status):
            discretion.failures.note(failed, LogLevel.info)
        return discretion.text(failed)

    def _answer(self, status: int, body: bytes, location: bytes = b"") -> None:
        self._end()
        self.status = status
        self._downstream.reply(self, status, body, b"text/plain", location)

    def _break(self, status: int, reason: str, remedy: str = "") -> None:
        self.flag = reason
        self.failure = status
        self.message = self._tell(status, reason, remedy, True)
        self._end()
        self._downstream.exchange_broken(self)

    def unsent_field(self) -> bytes:
        """Say what a server of ours is to be told: the value of the header, or nothing."""
        service = self._downstream.info.service
        if self.unsent is None or service is None:
            return b""
        return self.unsent.text if service.well else Unsent.SERVICE.text

    @property
    def stalled(self) -> bool:
        """Of a response that was broken off: whether that is because the client has not taken it."""
        return self.failure == STALLED

    def record(self) -> AccessRecord:
        """Describe an exchange that has ended, for the access log."""
        head = self.head
        path, _, query = head.target.decode("ascii", "replace").partition("?")
        host, cluster, response, started = self.host, self.cluster, self._response_head, self.started
        downstream, rule = self._downstream, self.rule
        info = downstream.info
        return AccessRecord(
            protocol=downstream.protocol,
            duration=self._clock.seconds() - started,
            method=head.method.decode("ascii", "replace"),
            path=path,
            query=query,
            host=head.host.decode("ascii", "replace"),
            scheme="https" if info.secure else "http",
            status=self.status,
            bytes_received=self.received,
            bytes_sent=self.sent,
            remote=info.remote,
            local=info.local,
            upstream_host="" if host is None else host.address,
            upstream_server="" if host is None else host.server,
            upstream_local=self.upstream_local,
            cluster="" if cluster is None else cluster.name,
            agent=None if host is None else host.identity,
            flag=self.flag,
            flags=self.flags,
            route="" if rule is None else rule.route,
            virtual_host="" if rule is None else rule.virtual_host,
            attempts=self.attempts,
            waited=self.waited,
            dialled=self.dialled,
            trace_id=self.trace_id,
            request_received=None if self.request_sent_at is None else self.request_sent_at - started,
            response_received=None if self.response_at is None else self.response_at - started,
            request_headers=head.lookup,
            response_headers=None if response is None else response.lookup,
        )

    def count(self, tally: RequestTally, now: float) -> None:
        """
        Count an exchange that has ended.

        @param now: the time.
        """
        tally.end(self, now)
        if self.flags:
            note_failure(tally, self, self.flags, self.flag)

    # time

    @property
    def clock(self) -> IReactorTime:
        """What tells the time."""
        return self._clock

    @property
    def idle_timeout(self) -> float | None:
        """Seconds without a byte that the route allows; L{None} if it does not say."""
        return None if self._route is None else self._route.idle_timeout

    @property
    def _begun(self) -> float:
        """When the route's time began: with the request, or when its filters were done with it."""
        return self.started if self._passage is None else self._passage.over_at

    @property
    def _idle(self) -> float:
        """Seconds without a byte that are allowed."""
        idle = self.idle_timeout
        return self._downstream.settings.stream_idle if idle is None else idle

    def _watched(self) -> Watch:
        if self._watch is None:
            self._watch = Watch()
        return self._watch

    def _limits(self, route: ClusterRoute) -> Limits:
        idle = self._idle
        downstream = self._downstream
        believed = downstream.settings.trust.believes(downstream.info)
        begin = patience(route, self.head.lookup, idle, believed)
        if begin is None:
            begin = self._timeout
        elif self.received > REQUEST_BUFFER:
            # Kernels, and proxies behind us, may hold the end of a large body for long.
            begin = max(begin, idle)
        to_the_end = route.timeout_to_end
        if to_the_end is None:
            to_the_end = downstream.settings.timeout_to_end
        return Limits(begin, idle, to_the_end, self._begun + downstream.settings.request_time)

    def _state(self, client: IUpstream | None) -> State:
        downstream, host = self._downstream, self.host
        waits = downstream.backlog()
        # What has no body is as good as sent.
        unsent = client.backlog() if client is not None and self.received else NOTHING
        is_reverse = host is not None and host.is_reverse
        interims = self._watched().interims
        stage, asked_at = Stage.RESPONSE, inf
        if self.request_complete:
            asked_at = self._asked_at or self._begun
        if not self.status:
            stage = Stage.WAIT if self.request_complete else Stage.REQUEST
            if self.head.awaits_continue and not (self.received or interims):
                stage, asked_at = Stage.WAIT, self._begun
        return State(
            stage,
            asked_at,
            self._attempts,
            (self.received, self.sent, interims, self._attempts, waits.mark, unsent.mark),
            (interims, unsent.mark),
            interims > 0 or unsent.size > 0,
            (stage is Stage.REQUEST and self._phase == WAITING)
            or (is_reverse and (self._full or unsent.size > 0))
            or (downstream.info.reverse and (downstream.full or waits.size > 0)),
            self._phase == WAITING or self._full or unsent.size > 0,
        )

    def look(self, now: float) -> float:
        """
        See whether a time is over, and end the exchange if so.

        @return: when to look again; infinity for never.
        """
        route = self._route
        if self._phase == DONE or route is None:
            return inf
        limits, state = self._limits(route), self._state(self._client)
        found = self._watched().look(now, limits, state)
        if isinstance(found, float):
            return found
        self._time_is_over(found, state, limits)
        return inf

    def _time_is_over(self, clock: Clock, state: State, limits: Limits) -> None:
        status, flag = 504, Flag.UT
        if clock is Clock.IDLE:
            flag = Flag.SI
            reason, key = f"for {format_duration(limits.idle)}", "stream_idle_timeout of the proxy filter"
            if self._route is not None and self._route.idle_timeout is not None:
                key = "idle_timeout of the route"
            if state.stage is Stage.REQUEST and not state.unsettled:
                status = 408
                reason = f"the client sent nothing of the request {reason}"
            elif state.stage is Stage.REQUEST:
                reason = f"the host took nothing of the request {reason}"
            elif self._downstream.full or self._downstream.backlog().size:
                status = STALLED
                reason = f"the client took nothing of the response {reason}"
            else:
                reason = f"the host sent nothing of the response {reason}"
        elif clock is Clock.REQUEST:
            status, flag = 408, Flag.DT
            key = "request_timeout of the proxy filter"
            allowed = format_duration(self._downstream.settings.request_time)
            reason = f"not all of the request came within {allowed}"
        else:
            key = "timeout of the route, or x-mosn-global-timeout"
            what = "begin" if clock is Clock.BEGIN else "come to its end"
            reason = f"the response did not {what} within {format_duration(limits.begin)}"
        client, asks = self._client, self._asks
        if clock is Clock.BEGIN and client is not None and asks is not None and asks.total_asked:
            self._client = None
            self._leave(client)
        self.fail(status, reason, flag, f"see {key}")

    def cancel(self, reason: str, flags: int) -> None:
        """
        The client is gone: whatever is under way for it is dropped.

        @param flags: the reason as codes; see L{reverseproxy.proxy.flags}.
        """
        if self._phase != DONE:
            self.flag = reason
            self.flags |= flags
            client = self._client
            if client is not None and not self.response_started:
                self._client = None
                self._leave(client)
            self._end()

    def _end(self) -> None:
        """Let go of everything upstream."""
        self._phase = DONE
        self._stop_try_timer()
        for mirror in self._mirrors:
            mirror.cut_off(self.request_complete)
        self._out = []
        self._full = False
        client, self._client = self._client, None
        if client is not None:
            client.abort("the exchange was broken off")
        self._give_up()
