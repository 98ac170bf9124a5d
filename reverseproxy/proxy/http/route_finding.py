"""Find a request's route, through the filters, and prepare what the route demands."""

from __future__ import annotations

__all__ = ["RouteFinding"]

from collections.abc import Sequence
from math import inf

from twisted.logger import Logger

from reverseproxy.errors import ClusterUnknown
from reverseproxy.limits.refusals import REFUSALS
from reverseproxy.proxy.filters import FilteredRequest, LocalReply, Passage
from reverseproxy.proxy.flags import ResponseFlag
from reverseproxy.proxy.http.deadlines import LOOKS
from reverseproxy.proxy.http.host_choice import REMEMBERING
from reverseproxy.proxy.http.mirror import Mirrored
from reverseproxy.proxy.http.reporting import begin_trace, variable
from reverseproxy.proxy.http.retrying import Retrying
from reverseproxy.proxy.http.sending import WAITING
from reverseproxy.proxy.pools import is_pooled
from reverseproxy.routing import (
    IMMUTABLE_FIELDS,
    ClusterRoute,
    DirectResponse,
    Redirect,
    RouteInput,
    RouteResult,
    normalize_path,
    shown,
    timeouts,
)
from reverseproxy.wire.http.border import FORWARDED, LOOKALIKE
from reverseproxy.wire.http.grpc import is_grpc

log = Logger(namespace="reverseproxy.proxy.http.exchange")  # where people look for them


class RouteFinding(Retrying):
    """
    The part of an exchange that finds its route.

    @ivar usual: the route, as long as all is as with most requests: there is no body, there are no flags,
        and the status is 200, if there is one; else L{None}.  This is all that has to be looked at for such
        a request to be counted.
    """

    __slots__ = ("_facts", "_passage", "_rule", "usual")

    usual: ClusterRoute | None
    _rule: RouteResult | None  # in its place; set only where there has been something else
    _facts: RouteInput | None  # kept where the response is to be changed
    _passage: Passage | None  # through the listener's filters of requests

    # what a subclass does

    def _answer(self, status: int, body: bytes, location: bytes = b"") -> None:
        """Answer without a host."""
        raise NotImplementedError

    def _refuse(self, refusal: LocalReply) -> None:
        """Answer as a filter demands, or break the response off if it has begun."""
        raise NotImplementedError

    # what the request is for

    @property
    def rule(self) -> RouteResult | None:
        """What has taken the request: a route, or what answers without a host."""
        return getattr(self, "_rule", None) if self.usual is None else self.usual

    def _note_unusual(self) -> None:
        """Note that not all is as with most requests."""
        if self.usual is not None:
            self._rule, self.usual = self.usual, None

    def _find_route(self) -> None:
        downstream = self.downstream
        settings = downstream.settings
        head = self.head
        limit = downstream.max_request_body_size
        if limit and head.length > limit:
            self.fail(413, f"request body larger than {limit} bytes", ResponseFlag.DPE)
            return
        if settings.tracing is not None:
            self._trace = begin_trace(settings.tracing, self)
        if head.dropped:
            self._note_dropped(head.dropped)
        gate = downstream.gate
        if gate is not None and gate.misdirects(head.host, settings.sni_check == "always"):
            REFUSALS["misdirected"] += 1
            self.fail(421, "the TLS handshake of this connection was for another host", ResponseFlag.DPE)
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

    def _answer_for(self, result: RouteResult | None, facts: RouteInput) -> None:
        """Answer a request that goes to no host: a redirect, a direct response, or 404."""
        self._rule = result
        if isinstance(result, DirectResponse):
            self._answer(result.status, result.body)
        elif isinstance(result, Redirect):
            self._answer(result.status, b"", location=result.location.encode("ascii"))
        else:
            self._no_route(facts)

    def _no_route(self, facts: RouteInput) -> None:
        """Respond 404; the response has the Host that matches nothing, the log also which would match."""
        downstream = self.downstream
        settings = downstream.settings
        self.flag = "no route"
        self.flags |= ResponseFlag.NR
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

    def _note_dropped(self, marks: int) -> None:
        """Log that fields of a client were dropped, which may be a proxy that should be trusted."""
        REFUSALS["fields"] += 1
        downstream = self.downstream
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

    def _gather_facts(self) -> RouteInput:
        downstream, head = self.downstream, self.head
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

    def _variable(self, name: str) -> str | None:
        return variable(self, name)

    # filters

    def _filtered(self) -> FilteredRequest:
        """Return what filters see of this request."""
        head = self.head
        size = head.length
        if size < 0 and self.request_complete:
            size = self.received
        return FilteredRequest(self._gather_facts(), head.target.decode("ascii"), self.downstream.info, size)

    def _pass_filters(self) -> None:
        """Apply the filters, until one of them waits or answers."""
        self._pending = None
        passage = self._passage
        assert passage is not None
        step = passage.advance()
        request = passage.request
        downstream = self.downstream
        self._begun = self._clock.seconds()
        self.flags |= request.flags
        if isinstance(step, float):
            self._phase = WAITING
            self._pending = self._clock.callLater(step, self._pass_filters)
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

    def _may_grow(self) -> bool:
        return self._passage is None or not self._is_too_large(self._passage)

    def _is_too_large(self, passage: Passage) -> bool:
        """Refuse a request whose body has become larger than a filter allows."""
        limit = passage.request.limit
        if limit is None or self.received <= limit.size:
            return False
        self._refuse(limit.refusal)
        return True

    def _remove_headers(self, names: set[str]) -> None:
        """Remove headers from the request as the host gets it."""
        removed = frozenset(name.encode("ascii") for name in names) - IMMUTABLE_FIELDS
        head = self.head
        headers = [field for field in head.headers if field[0].lower() not in removed]
        self.head = self._outgoing = head.rewritten(head.target, head.host, headers, removed)

    # where it goes

    def _follow(self, route: ClusterRoute, facts: RouteInput | None) -> None:
        """
        Apply a route.

        @param facts: what the route was found by, if that had to be gathered.
        """
        downstream = self.downstream
        head = self.head
        try:
            cluster = self.cluster = downstream.settings.clusters.get(route.cluster_name)
        except ClusterUnknown as error:
            self._rule = route
            self.fail(error.status, str(error), ResponseFlag.NC)
            return
        self._route = route
        self.retry = route.retry
        if route.upstream_protocol:
            self.protocol = route.upstream_protocol
            if not is_pooled(self.protocol):
                self._rule = route
                self.fail(502, f"hosts can't be spoken to in {self.protocol}", ResponseFlag.UPE)
                return
        asks = head.mosn and head.may_have(b"x-mosn-")
        times = self._times = timeouts(route, head.lookup) if asks else route.times
        timeout = times.total or inf
        if self.received or not self.request_complete:
            self._rule = route
            timeout = self._until_look(route) if head.deadline else timeout / LOOKS
        else:
            self.usual = route
        period = downstream.settings.look_period
        if route.stream_idle is not None:
            period = self._look_period(route)
        downstream.set_look(self._begun + (timeout if timeout < period else period))
        lb_type = cluster.members.config.lb_type
        if not route.has_no_transforms or lb_type in REMEMBERING:
            self._prepare(route, facts or self._gather_facts(), lb_type)
        passage = self._passage
        if passage is not None:
            if self.flags:
                self._note_unusual()
            if passage.request.labels:
                self._require_labels(route, passage.request.labels)
        self._acquire()

    def _prepare(self, route: ClusterRoute, facts: RouteInput, lb_type: str) -> None:
        """Prepare what few routes and balancers need: hash keys, mutated heads, copies."""
        downstream = self.downstream
        head = self.head
        if route.metadata is not None or lb_type in REMEMBERING:
            self._set_balancing(route, facts, downstream.info.remote_ip, lb_type)
        if route.request_mutation is not None:
            mutation = route.request_mutation
            host = head.authority(downstream.default_host)
            self._outgoing = head.rewritten(
                *mutation.apply(facts, head.target, host, head.headers), mutation.names
            )
        if route.response_mutation is not None:
            self._facts = facts
        if head.upgrade or not route.mirrors:
            return  # there is no copy of a session
        copies = 1 if self._passage is None else self._passage.request.copies
        for cluster_name in route.mirrored_to(downstream.settings.random, copies):
            self._mirror(cluster_name)

    def _mirror(self, cluster_name: str) -> None:
        downstream = self.downstream
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
            self._client_chose,
            self._alternatives(),
        )
        self._mirrors = (*self._mirrors, mirrored)

    @property
    def _client_chose(self) -> bool:
        route = self._route
        return self.downstream.settings.protocols_differ and route is not None and not route.upstream_protocol

    def _alternatives(self) -> Sequence[str]:
        route = self._route
        if route is None or route.upstream_protocol:
            return ()
        return ("Http2",) if is_grpc(self.head.headers) else ("Http1", "Http2")
