"""
Routing of RPC requests: filters, the route, and what the route says.
"""

from __future__ import annotations

__all__ = ["RpcRouteFinding"]

from typing import Final

from reverseproxy.errors import ClusterUnknown, RpcHeaderError
from reverseproxy.proxy.filters import FilteredRequest, Passage
from reverseproxy.proxy.flags import NO_FLAGS, ResponseFlag
from reverseproxy.proxy.http.host_choice import REMEMBERING
from reverseproxy.proxy.rpc.mirror import RpcCopy
from reverseproxy.proxy.rpc.reporting import begin_trace, variable
from reverseproxy.proxy.rpc.retrying import RpcRetrying
from reverseproxy.proxy.rpc.sending import WAITING
from reverseproxy.routing import ClusterRoute, DirectResponse, Redirect, RouteInput, RouteResult
from reverseproxy.wire.http.border import FORWARDED, MOSN, mark_of, without
from reverseproxy.wire.rpc.xprotocol import Frame

UNDECODABLE: Final = 0
"""The status of a request whose headers can't be read (docs/mosn.rst 4.5)."""

_FOREIGN: Final = MOSN | FORWARDED
"""The marks of headers that an untrusted client may not set."""

_INITIALS: Final = "xXfF"
"""The first characters of these headers."""


class RpcRouteFinding(RpcRetrying):
    """
    The layer of an exchange that finds its route.

    @ivar rule: the router's result; L{None} if no route matches.
    """

    __slots__ = ("_facts", "_passage", "rule")

    rule: RouteResult | None
    _facts: RouteInput | None  # if the route changes response headers
    _passage: Passage | None  # through the listener's filters of requests

    # what a subclass does

    def _answer(self, status: int) -> None:
        """Answer with a status of our own."""
        raise NotImplementedError

    # the route

    @property
    def now(self) -> float:
        """The time, in the clock's seconds."""
        return self._clock.seconds()

    def begin(self) -> None:
        """Find the route, and send the request to a host."""
        try:
            self._find_route()
        except RpcHeaderError as error:
            self.fail(UNDECODABLE, str(error), ResponseFlag.DPE)

    def _find_route(self) -> None:
        downstream = self.downstream
        settings = downstream.settings
        if not downstream.believed:
            self._drop_fields()
        if settings.tracing is not None:
            self._trace = begin_trace(settings.tracing, self)
        facts = RouteInput.of_rpc(self.frame.header, self.protocol, self._variable)
        if settings.filters is not None:
            request = FilteredRequest(facts, "", downstream.info, self.frame.body_size)
            self._passage = settings.filters.passage(request, settings.router)
            self._pass_filters()
            return
        result = settings.router.match(facts)
        if isinstance(result, ClusterRoute):
            self._follow(result, facts)
        else:
            self._answer_for(result)

    def _drop_fields(self) -> None:
        """Remove the headers that an untrusted client may not set."""
        frame = self.frame
        for name in frame.names():
            if name[:1] in _INITIALS and mark_of(name.lower().encode("utf-8", "surrogateescape")) & _FOREIGN:
                fields = frame.fields()
                assert fields is not None
                frame.set_fields(without(fields, _FOREIGN))
                return

    def _answer_for(self, result: RouteResult | None) -> None:
        """Answer a request that no cluster is for."""
        self.rule = result
        if isinstance(result, DirectResponse):
            self._answer(result.status)
        elif isinstance(result, Redirect):
            self.fail(result.status, "an RPC client can't be redirected", NO_FLAGS)
        else:
            self.fail(404, "no route", ResponseFlag.NR)

    def _variable(self, name: str) -> str | None:
        return variable(self, name)

    # filters

    def _pass_filters(self) -> None:
        """Apply the filters up to one that delays, answers or ends."""
        self._pending = None
        passage = self._passage
        assert passage is not None
        request = passage.request
        try:
            step = passage.advance()
            self._begun = self._clock.seconds()
            self.flags |= request.flags
            if isinstance(step, float):
                self._phase = WAITING
                self._pending = self._clock.callLater(step, self._pass_filters)
            elif step is not None:
                self.fail(step.status, step.flag, step.flags)
            elif isinstance(request.result, ClusterRoute):
                if request.removed:
                    self._remove_headers(request.removed)
                self._follow(request.result, request.facts)
            else:
                self._answer_for(request.result)
        except RpcHeaderError as error:
            self.fail(UNDECODABLE, str(error), ResponseFlag.DPE)

    def _remove_headers(self, names: set[str]) -> None:
        """Remove headers, by lower-case name."""
        removed = {name.encode("ascii") for name in names}
        fields = self.frame.fields()
        if fields is not None:
            self.frame.set_fields([field for field in fields if field[0].lower() not in removed])

    # what the route says

    def _follow(self, route: ClusterRoute, facts: RouteInput) -> None:
        """
        Send the request to a route's cluster.

        @param facts: what the route was found by.
        """
        downstream = self.downstream
        self.rule = route
        try:
            cluster = self.cluster = downstream.settings.clusters.get(route.cluster_name)
        except ClusterUnknown as error:
            self.fail(error.status, str(error), ResponseFlag.NC)
            return
        name = downstream.protocol.name
        if route.upstream_protocol not in ("", "X", name):
            self.fail(502, f"{name} can't be turned into {route.upstream_protocol}", ResponseFlag.UPE)
            return
        self.retry = route.retry
        self._set_limits(route)
        lb_type = cluster.config.lb_type
        passage = self._passage
        if not route.has_no_transforms or lb_type in REMEMBERING or passage is not None:
            self._prepare(route, facts, lb_type)
        self._acquire()

    def _prepare(self, route: ClusterRoute, facts: RouteInput, lb_type: str) -> None:
        """Apply what few routes have: header changes, mirrors, hashes and labels for the balancer."""
        downstream, passage, frame = self.downstream, self._passage, self.frame
        self._set_balancing(route, facts, downstream.info.remote_ip, lb_type)
        if passage is not None and passage.request.labels:
            self._require_labels(route, passage.request.labels)
        if route.response_mutation is not None:
            self._facts = facts
        if route.request_mutation is not None:
            fields = frame.fields()
            if fields is not None:
                frame.set_fields(route.request_mutation.apply(facts, b"", b"", fields).headers)
        copies = 1 if passage is None else passage.request.copies
        for cluster_name in route.mirrored_to(downstream.settings.random, copies):
            self._mirror(cluster_name)

    def _mirror(self, cluster_name: str) -> None:
        """Send a copy to another cluster."""
        downstream = self.downstream
        try:
            cluster = downstream.settings.clusters.get(cluster_name)
        except ClusterUnknown:
            return
        # Decoded anew: the ids of the copy and of the request are not the same.
        copy = downstream.protocol.decode(bytearray(self.frame.data), 0)
        assert isinstance(copy, Frame)
        RpcCopy(downstream.settings, cluster, copy)
