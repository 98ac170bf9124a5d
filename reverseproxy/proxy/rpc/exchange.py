"""
One RPC request and its response, on their way through the proxy.

What is passed on are whole frames, changed in nothing but their ids, unless the
route changes headers.

RPC has no methods that are known to be safe to repeat.  So a request that a
host may have acted upon is sent again only if the route's C{retry_policy} says
C{retry_on}: who writes that knows the service.
"""

from __future__ import annotations

__all__ = ["IRpcOwner", "RpcCopy", "RpcExchange"]

from math import inf
from typing import TYPE_CHECKING, Final, Protocol

from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.cluster.room import HEAD_ROOM
from reverseproxy.config.durations import format_duration
from reverseproxy.errors import ClusterUnknown, RpcHeaderError
from reverseproxy.interfaces import ConnectionInfo, PickContext
from reverseproxy.proxy.access import AccessNotes
from reverseproxy.proxy.failures import Failed
from reverseproxy.proxy.filters import FilteredRequest, Passage
from reverseproxy.proxy.flags import NO_FLAGS, Flag, short_names
from reverseproxy.proxy.http.attempts import Attempts, Phase
from reverseproxy.proxy.http.deadlines import LOOKS, Clock, FrameWatch, Limits, Stage, State
from reverseproxy.proxy.rpc.client import Batch, IRpcDownstream, RpcClient, RpcPool, make_rpc_pool
from reverseproxy.routing import (
    Cause,
    ClusterRoute,
    DirectResponse,
    Redirect,
    RouteInput,
    RouteResult,
    Timeouts,
    timeouts,
)
from reverseproxy.tracing.context import TRACE_FIELDS
from reverseproxy.transport.backlog import NOTHING
from reverseproxy.wire.http.border import FORWARDED, MOSN, mark_of, without
from reverseproxy.wire.http.unsent import Unsent
from reverseproxy.wire.rpc.xprotocol import Frame, Kind, XProtocol

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host
    from reverseproxy.cluster.manager import Cluster
    from reverseproxy.proxy.rpc.server import RpcSettings
    from reverseproxy.tracing.interfaces import IRequestTrace, ITracing

UNDECODABLE: Final = 0
"""The status of a request whose headers can't be read (docs/mosn.rst 4.5)."""

TERMINATED: Final = 500
"""The status of a request whose connection was lost (docs/mosn.rst 4.5)."""

TOO_LATE: Final = 504

LARGE: Final = 65536
"""Bytes of a request that may take long to be sent."""

_SHORTEST: Final = 0.001
"""Seconds until the next look, at the least."""

MIRROR_TIMEOUT: Final = 60.0
"""Seconds that a copy of a request may take."""

_FOREIGN: Final = MOSN | FORWARDED
"""The marks of headers that a stranger may not set; what only looks like them means nothing here."""

_INITIALS: Final = "xXfF"
"""How these begin."""

_HASHING: Final = frozenset({"LB_MAGLEV"})
"""Balancers that go by a request's hash key."""

WAITING, ACTIVE, DONE = Phase.WAITING, Phase.ACTIVE, Phase.DONE


class IRpcOwner(IRpcDownstream, Protocol):
    """
    What an exchange needs of the connection that it belongs to.

    @ivar batch: where connections wait to be flushed, while what was read from
        this one is handled.
    @ivar believed: whether to believe what requests say of themselves.
    """

    settings: RpcSettings
    info: ConnectionInfo
    protocol: XProtocol
    batch: Batch | None
    believed: bool

    def block(self, client: RpcClient) -> None:
        """A connection to a host is full: read no more until it is not."""

    def set_deadline(self, exchange: RpcExchange, seconds: float) -> None:
        """End the exchange after some time."""

    def set_try_deadline(self, exchange: RpcExchange, seconds: float) -> None:
        """End an attempt after some time."""

    def clear_try_deadline(self, exchange: RpcExchange) -> None:
        """Let an attempt have its time."""

    def respond(self, data: bytes | bytearray, batch: Batch | None, client: RpcClient | None) -> None:
        """Send a response, which came from this client."""

    def exchange_done(self, exchange: RpcExchange) -> None:
        """The exchange is over."""


class RpcExchange(Attempts):
    """
    See the module's text.

    @ivar frame: the request.
    @ivar id: its id, as the client sent it.
    @ivar received: its size in bytes.
    @ivar started: when it came.
    @ivar deadline: what L{IRpcOwner.set_deadline} has to remember.
    @ivar try_deadline: the same for L{IRpcOwner.set_try_deadline}.
    @ivar response: what the host answered.
    @ivar sent: bytes of the answer.
    @ivar status: how it ended, in terms of HTTP; 0 if without an answer.
    @ivar flag: why the host's answer is none, for the access log.
    @ivar rule: what the router has said of it.
    """

    __slots__ = (
        "_asks",
        "_client",
        "_doubtful",
        "_downstream",
        "_facts",
        "_number",
        "_passage",
        "_position",
        "_route",
        "_said_by",
        "_sent_at",
        "_tried_at",
        "_try_timeout",
        "_unsent",
        "_watch",
        "deadline",
        "flag",
        "frame",
        "id",
        "notes",
        "received",
        "response",
        "rule",
        "sent",
        "started",
        "status",
        "try_deadline",
    )

    def __init__(self, downstream: IRpcOwner, frame: Frame, now: float) -> None:
        settings = downstream.settings
        super().__init__(settings.clock, settings.pool_key or downstream.protocol.name)
        self.frame = frame
        self.id = frame.id
        self.received = len(frame.data)
        self.started = now
        self.deadline = 0.0
        self.try_deadline = 0.0
        self.response: Frame | None = None
        self.sent = 0
        self.status = 0
        self.flag = ""
        self.notes: AccessNotes | None = None
        self._downstream = downstream
        self._client: RpcClient | None = None
        self._number = 0
        self.rule: RouteResult | None = None
        self._passage: Passage | None = None  # through the listener's filters of requests
        self._route: ClusterRoute | None = None
        self._facts: RouteInput | None = None  # kept where the response is to be changed
        self._try_timeout = 0.0
        self._sent_at = 0.0
        self._said_by: ClusterRoute | None = None  # how long it may take; L{None}: by the request itself
        self._asks: Timeouts | None = None  # if the request itself says how long it may take
        self._unsent: Unsent | None = None  # that it was sent to no host, and why
        self._doubtful = False  # a host may have seen it, although it is to be sent again
        self._watch: FrameWatch | None = None  # once it has taken so long that somebody looks

    def begin(self) -> None:
        """Find a route, and a host."""
        downstream = self._downstream
        settings = downstream.settings
        if not downstream.believed:
            try:
                self._drop_fields()
            except RpcHeaderError as error:
                self.fail(UNDECODABLE, str(error), Flag.DPE)
                return
        if settings.tracing is not None:
            self._begin_trace(settings.tracing)
        facts = RouteInput.of_rpc(self.frame.header, self.protocol, self._variable)
        if settings.filters is not None:
            request = FilteredRequest(facts, "", downstream.info, self.frame.body_size)
            self._passage = settings.filters.passage(request, settings.router)
            self._pass_filters()
            return
        try:
            result = settings.router.match(facts)
            if isinstance(result, ClusterRoute):
                self._follow(result, facts)
                return
        except RpcHeaderError as error:
            self.fail(UNDECODABLE, str(error), Flag.DPE)
            return
        self._answer_for(result)

    def _begin_trace(self, tracing: ITracing) -> None:
        """Make spans of what becomes of the request."""
        downstream = self._downstream
        self._trace = tracing.begin(
            self._header,
            downstream.believed,
            self.started,
            self._clock.seconds(),
            downstream.protocol.name,
            {
                "rpc.system": downstream.protocol.name,
                "client.address": downstream.info.remote_ip,
                "reverseproxy.listener": downstream.settings.listener,
            },
        )

    def _header(self, name: str) -> str | None:
        """Find a header of the request; of one that can't be read there is none."""
        try:
            return self.frame.header(name)
        except RpcHeaderError:
            return None

    def _with_trace(self, trace: IRequestTrace) -> None:
        """Have the host go on with the trace, where the protocol has headers for that."""
        added = self._begin_attempt(trace)
        try:
            fields = self.frame.fields()
        except RpcHeaderError:
            return
        if fields is not None:
            kept = [field for field in fields if field[0].lower() not in TRACE_FIELDS]
            self.frame.set_fields(kept + added)

    def end_trace(self) -> None:
        """The exchange is over."""
        trace, rule, frame = self._trace, self.rule, self.frame
        if trace is None:
            return
        attributes: dict[str, str | int | float | bool] = {"reverseproxy.bytes_sent": self.sent}
        name = self._downstream.protocol.name
        try:
            if frame.service:
                attributes["rpc.service"] = name = frame.service
            if frame.method:
                attributes["rpc.method"] = frame.method
                name = f"{name}/{frame.method}"
        except RpcHeaderError:
            pass
        if self.status:
            attributes["http.response.status_code"] = self.status
        if rule is not None:
            attributes["http.route"] = rule.route
        if self.flags:
            attributes["reverseproxy.flags"] = attributes["error.type"] = short_names(self.flags)
        error = self.flag or (f"status {self.status}" if self.status >= 500 else "")
        trace.end(self._clock.seconds(), name, error, attributes)

    def _pass_filters(self) -> None:
        """Go through the filters of requests, as far as they let it."""
        self._pending = None
        passage = self._passage
        assert passage is not None
        request = passage.request
        try:
            step = passage.advance()
            passage.over_at = self._clock.seconds()
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
            self.fail(UNDECODABLE, str(error), Flag.DPE)

    def _drop_fields(self) -> None:
        """Take out the headers that a stranger may not set."""
        frame = self.frame
        for name in frame.names():
            if name[:1] in _INITIALS and mark_of(name.lower().encode("utf-8", "surrogateescape")) & _FOREIGN:
                fields = frame.fields()
                assert fields is not None
                frame.set_fields(without(fields, _FOREIGN))
                return

    def _remove_headers(self, names: set[str]) -> None:
        """Send a request on without some of its headers."""
        removed = {name.encode("ascii") for name in names}
        fields = self.frame.fields()
        if fields is not None:
            self.frame.set_fields([field for field in fields if field[0].lower() not in removed])

    def _answer_for(self, result: RouteResult | None) -> None:
        """Answer a request that goes to no host."""
        self.rule = result
        if isinstance(result, DirectResponse):
            self._answer(result.status)
        elif isinstance(result, Redirect):
            self.fail(result.status, "an RPC client can't be redirected", NO_FLAGS)
        else:
            self.fail(404, "no route", Flag.NR)

    def _follow(self, route: ClusterRoute, facts: RouteInput) -> None:
        downstream = self._downstream
        settings = downstream.settings
        frame = self.frame
        self.rule = route
        try:
            cluster = self.cluster = settings.clusters.get(route.cluster_name)
        except ClusterUnknown as error:
            self.fail(error.status, str(error), Flag.NC)
            return
        if route.upstream_protocol not in ("", "X", downstream.protocol.name):
            reason = f"{downstream.protocol.name} can't be turned into {route.upstream_protocol}"
            self.fail(502, reason, Flag.UPE)
            return
        self.retry = route.retry
        self._set_limits(route)
        if cluster.config.lb_type in _HASHING:
            key = route.hash_key(facts, downstream.info.remote_ip)
            self._context = PickContext(hash_key=key, metadata=route.metadata)
        elif route.metadata is not None or cluster.config.lb_type == "LB_REQUEST_ROUNDROBIN":
            self._context = PickContext(metadata=route.metadata)
        passage = self._passage
        if passage is not None and passage.request.labels:
            if self._context is None:
                self._context = PickContext()
            self._context.metadata = {**(route.metadata or {}), **passage.request.labels}
        if route.response_mutation is not None:
            self._route, self._facts = route, facts
        mutation = route.request_mutation
        if mutation is not None:
            fields = frame.fields()
            if fields is not None:
                frame.set_fields(mutation.apply(facts, b"", b"", fields).headers)
        for mirror in route.mirrors:
            if mirror.takes(settings.random()):
                for _ in range(1 if passage is None else passage.request.copies):
                    self._mirror(mirror.cluster_name)
        self._acquire()

    def _set_limits(self, route: ClusterRoute) -> None:
        """Begin to count the time that the request and its tries may take."""
        downstream, frame = self._downstream, self.frame
        believed = downstream.believed
        times = timeouts(route, frame.header if believed else None, frame.timeout, believed)
        total, self._try_timeout = times[:2]
        if times.asked:
            self._asks = times
        if not times.total_asked and total == route.timeout:
            self._said_by = route
            if self.received > LARGE:
                total /= LOOKS  # to see when it is sent
        if total > 0:
            downstream.set_deadline(self, total)

    def _mirror(self, cluster_name: str) -> None:
        """Send a copy to another cluster as well."""
        downstream = self._downstream
        try:
            cluster = downstream.settings.clusters.get(cluster_name)
        except ClusterUnknown:
            return
        # Decoded anew: the ids of the copy and of the request are not the same.
        copy = downstream.protocol.decode(bytearray(self.frame.data), 0)
        assert isinstance(copy, Frame)
        RpcCopy(downstream.settings, cluster, copy)

    def _variable(self, name: str) -> str | None:
        """Find what MOSN's variable of this name is at present; see L{RouteInput.variables}."""
        match name:
            case "x-mosn-rpc-service":
                return self.frame.service or None
            case "x-mosn-rpc-method":
                return self.frame.method or None
            case "downstream_local_address":
                return self._downstream.info.local
            case "downstream_remote_address":
                return self._downstream.info.remote
            case "listener_name":
                return self._downstream.settings.listener
            case "upstream_cluster":
                return None if self.cluster is None else self.cluster.name
            case "upstream_host":
                return None if self.host is None else self.host.address
            case "upstream_local_address":
                return None if self.notes is None else self.notes.local_address or None
        return None

    def _make_pool(self, host: Host, idle_timeout: float | None) -> RpcPool:
        return make_rpc_pool(self.protocol, self._downstream.protocol, host, self._clock, idle_timeout)

    @property
    def _language(self) -> str:
        return self._downstream.protocol.name

    @property
    def _chosen(self) -> bool:
        return self._downstream.settings.protocols_differ

    def _send(self, client: RpcClient) -> None:
        self._phase = ACTIVE
        downstream = self._downstream
        cluster = self.cluster
        assert cluster is not None
        if client.max_frame < self._max_response:
            client.admit(self._max_response)
        if downstream.settings.access_log is not None:
            self.notes = AccessNotes(self._clock.seconds(), client.local_address)
        if cluster.watches_answers:
            self._sent_at = self._clock.seconds()
        if self._trace is not None:
            self._with_trace(self._trace)
        oneway = self.frame.kind is Kind.ONEWAY
        self._client = client
        self._number = client.send(None if oneway else self, self.frame, downstream.batch)
        self._position = client.written
        if client.full:
            downstream.block(client)
        if oneway:
            self._client = None
            self._finish()
        elif self._try_timeout:
            self._tried_at = self._clock.seconds()
            downstream.set_try_deadline(self, self._try_timeout)

    def upstream_response(self, frame: Frame, batch: Batch) -> None:
        """See L{reverseproxy.proxy.rpc.client.IRpcExchange}."""
        client, self._client = self._client, None
        downstream = self._downstream
        cluster = self.cluster
        assert cluster is not None
        if self.try_deadline:
            downstream.clear_try_deadline(self)
        host = self.host
        if host is not None:
            if not host.tells:
                if downstream.info.service is not None:
                    downstream.protocol.disclaim(frame)
            elif self._was_not_sent(frame):
                return
            if host.is_reverse:
                self._judge(host, frame)
        self.sent = size = len(frame.data)
        if size > downstream.settings.max_frame and size > self._max_response:
            self._too_large(size)
            return
        if self.notes is not None:
            self.notes.answered_at = self._clock.seconds()
        status = 0
        if self.retry.wants(599) or self.retry.status_codes or cluster.watches_answers:
            status = downstream.protocol.http_status(frame)
            if status != TOO_LATE or self._asks is None:
                self._report(Outcome.of_status(status))
            if self.retry.wants(status) and self._may_try_again(status, False, True):
                self._doubtful = True
                self._next_attempt(False)
                return
        frame.set_id(self.id)
        if self._facts is not None:
            self._change(frame)
            self.sent = len(frame.data)
        self.response = frame
        if downstream.settings.access_log is not None or self._trace is not None:
            self.status = status or downstream.protocol.http_status(frame)
            if self._trace is not None:
                self._trace.answered(self.status)
        downstream.respond(frame.data, batch, client)
        self._finish()

    def _judge(self, host: Host, frame: Frame) -> None:
        """See whether an agent answers for a service that is gone."""
        cluster = self.cluster
        assert cluster is not None
        status = self._downstream.protocol.gateway_status(frame)
        if status == TOO_LATE and self._asks is not None:
            return  # that is as long as it was to take
        if status or cluster.members.gateways.rows:
            cluster.members.gateways.note(host, status)

    def _was_not_sent(self, frame: Frame) -> bool:
        """See whether an agent says that it has not sent the request on; then go on from there."""
        why = self._downstream.protocol.unsent(frame)
        if why is None:
            return False
        self._go_on_unsent(why)
        return True

    def _go_on_unsent(self, why: Unsent) -> None:
        """Go to another agent, as one has not sent the request on, or say so."""
        host = self.host
        assert host is not None
        if self._has_others(host, why) and self._may_try_again(Cause.UNREACHABLE, True, True):
            self._next_attempt(True)
            return
        if not self._doubtful:
            self._unsent = why  # for a server of ours before us
        self.fail(502, "the agent could not send the request on", Flag.UF)

    @property
    def _max_response(self) -> int:
        """The most bytes of a response; an agent's may have been lengthened by it."""
        limit = self._downstream.settings.max_frame
        return limit + HEAD_ROOM if self.host is not None and self.host.is_reverse else limit

    def _too_large(self, size: int) -> None:
        """Refuse a response that others, on the same connection, would take."""
        reason = f"a response of {size} bytes is more than max_frame_size, which is {self._max_response}"
        self.fail(TERMINATED, reason, Flag.UPE, "raise max_frame_size, if the host is right")

    def _change(self, frame: Frame) -> None:
        """Change a response's headers as the route demands; one that can't be read is left alone."""
        assert self._route is not None
        assert self._facts is not None
        mutation = self._route.response_mutation
        assert mutation is not None
        try:
            fields = frame.fields()
            if fields is not None:
                frame.set_fields(mutation.apply(fields, self._facts))
        except RpcHeaderError:
            pass

    def _report(self, outcome: Outcome) -> None:
        cluster, host = self.cluster, self.host
        assert cluster is not None
        assert host is not None
        if cluster.watches_answers:
            cluster.report(host, outcome, self._clock.seconds() - self._sent_at)

    def _finish(self) -> None:
        self._phase = DONE
        self._release()
        self._downstream.exchange_done(self)

    # failures

    def upstream_lost(self, reason: str, flags: int, unsent: bool = False) -> None:
        """See L{reverseproxy.proxy.rpc.client.IRpcExchange}."""
        self._client = None
        if self.try_deadline:
            self._downstream.clear_try_deadline(self)
        if unsent:
            self._go_on_unsent(Unsent.REQUEST)
            return
        foreign = self._is_foreign()
        if foreign and flags & Flag.UPE:
            self._go_on_unsent(Unsent.REQUEST)  # it has taken the request for something else
            return
        if not foreign:
            self._report(Outcome.RESET)
        if not self._again(Cause.LOST):
            self.fail(TERMINATED, f"the host's connection was lost: {reason}", flags)

    def try_timed_out(self) -> None:
        """The time for one attempt is over."""
        self.try_deadline = 0.0
        client = self._client
        if client is None:
            return
        now = self._clock.seconds()
        left = self._watched().attempt_ends(now, self._try_timeout, self._tried_at, self._state(client)) - now
        if left > 0:
            self._downstream.set_try_deadline(self, left)
            return
        self._client = None
        reason = f"the host did not answer an attempt within {format_duration(self._try_timeout)}"
        client.forget(self._number)
        if self._asks is None or not self._asks.attempt_asked:
            self._report(Outcome.RESET)
        if not self._again(Cause.TRY_TIMEOUT):
            key = "see retry_timeout of the route's retry_policy, or x-mosn-try-timeout"
            self.fail(TOO_LATE, reason, Flag.UT, key)

    def _again(self, cause: Cause) -> bool:
        """Send the request again, to another host, if the route says that this may be."""
        host = self.host
        assert host is not None
        if not self._may_try_again(cause, False, True):
            return False
        self._doubtful = True
        self._postpone(host)
        self._next_attempt(False)
        return True

    def fail(self, status: int, reason: str, flags: int, remedy: str = "") -> None:
        """
        See L{Attempts.fail}.

        @param remedy: what to do about it, for the log; empty for what the flags
            say.
        """
        if self._phase != DONE:
            self.flag = reason
            self.flags |= flags
            if self._phase == WAITING and status in (502, 503, 504) and not self._doubtful:
                self._unsent = Unsent.REQUEST
            if status >= 500 or flags & Flag.NC:
                self._note_failure(status, reason, remedy)
            self._answer(status)

    def _note_failure(self, status: int, reason: str, remedy: str) -> None:
        downstream, host, cluster, frame = self._downstream, self.host, self.cluster, self.frame
        try:
            request = ".".join(part for part in (frame.service, frame.method) if part)
        except RpcHeaderError:
            request = ""
        downstream.settings.failures.note(
            Failed(
                f"{downstream.protocol.name} {request or 'request'}",
                downstream.info.remote,
                status,
                reason,
                self.flags,
                "" if cluster is None else cluster.name,
                "" if host is None else host.address,
                remedy,
                request_id=str(self.id),
                trace_id=self.trace_id,
            )
        )

    # time

    def _limits(self, route: ClusterRoute) -> Limits:
        settings = self._downstream.settings
        idle = settings.stream_idle if route.idle_timeout is None else route.idle_timeout
        to_the_end = route.timeout_to_end
        if to_the_end is None:
            to_the_end = settings.timeout_to_end
        return Limits(route.timeout or inf, idle, to_the_end)

    def _watched(self) -> FrameWatch:
        if self._watch is None:
            self._watch = FrameWatch()
        return self._watch

    def _state(self, client: RpcClient | None) -> State:
        """
        See how it goes.

        Not all protocols tell whose response a frame is before it is complete:
        then it may be ours, but the one behind it is not.
        """
        unsent, arriving = NOTHING, None
        if client is not None:
            unsent, arriving = client.backlog(self._position), client.arriving(self._number)
        mine = self._watched().follows(arriving)
        host = self.host
        return State(
            Stage.RESPONSE if mine else Stage.WAIT,
            self.started if self._passage is None else self._passage.over_at,
            self._attempts,
            arriving,
            unsent.mark,
            unsent.size > 0,
            unsent.size > 0 and host is not None and host.is_reverse,
        )

    def timed_out(self) -> None:
        """
        The time for the exchange is over, unless it begins later or something moves.

        What a frame or a header of it says is how long its client waits, whatever
        happens meanwhile.  What the route says is until the response begins.
        """
        route = self._said_by
        self.deadline = 0.0
        reason, key = "the response did not come in time", "it is the request's own timeout"
        flag = Flag.UT
        if route is not None:
            limits = self._limits(route)
            now = self._clock.seconds()
            found = self._watched().look(now, limits, self._state(self._client))
            if isinstance(found, float):
                self._downstream.set_deadline(self, max(found - now, _SHORTEST))
                return
            if found is Clock.IDLE:
                reason = f"the host sent nothing of the response for {format_duration(limits.idle)}"
                key = "see stream_idle_timeout of the proxy filter, or idle_timeout of the route"
                flag = Flag.SI
            else:
                reason = f"the response did not begin within {format_duration(limits.begin)}"
                key = "see timeout of the route"
        self.fail(TOO_LATE, reason, flag, key)

    def cancel(self, reason: str, flags: int) -> None:
        """
        The client is gone: whatever is under way for it is dropped.

        @param flags: the reason as codes; see L{reverseproxy.proxy.flags}.
        """
        if self._phase != DONE:
            self.flag = reason
            self.flags |= flags
            self._end()

    def _answer(self, status: int) -> None:
        self._end()
        self.status = status or 400
        downstream = self._downstream
        if self.frame.kind is not Kind.ONEWAY:
            self.frame.set_id(self.id)
            reply = self._say_unsent() or downstream.protocol.reply(self.frame, status)
            self.sent = len(reply)
            downstream.respond(reply, downstream.batch, None)
        downstream.exchange_done(self)

    def _say_unsent(self) -> bytes:
        """Make the answer for a server of ours, if the request was not sent on; else nothing."""
        downstream = self._downstream
        service = downstream.info.service
        if self._unsent is None or service is None:
            return b""
        return downstream.protocol.reply_unsent(self.frame, self._unsent if service.well else Unsent.SERVICE)

    def _end(self) -> None:
        """Let go of everything upstream."""
        client, self._client = self._client, None
        if client is not None:
            client.forget(self._number)
        if self.try_deadline:
            self._downstream.clear_try_deadline(self)
        self._give_up()


class RpcCopy(Attempts):
    """
    A copy of a request, for C{request_mirror_policies}.

    Whatever becomes of it is no concern of the client's.
    """

    __slots__ = ("_client", "_frame", "_number", "_settings", "_timer")

    def __init__(self, settings: RpcSettings, cluster: Cluster, frame: Frame) -> None:
        super().__init__(settings.clock, settings.pool_key or settings.protocol.name)
        self.cluster = cluster
        self._settings = settings
        self._frame = frame
        self._client: RpcClient | None = None
        self._number = 0
        self._timer = settings.clock.callLater(MIRROR_TIMEOUT, self._too_late)
        self._acquire()

    def _make_pool(self, host: Host, idle_timeout: float | None) -> RpcPool:
        return make_rpc_pool(self.protocol, self._settings.protocol, host, self._clock, idle_timeout)

    @property
    def _language(self) -> str:
        return self._settings.protocol.name

    @property
    def _chosen(self) -> bool:
        return self._settings.protocols_differ

    def _send(self, client: RpcClient) -> None:
        self._phase = ACTIVE
        if client.max_frame < self._settings.max_frame:
            client.admit(self._settings.max_frame)
        if client.full:
            self._end()  # it is not worth waiting
            return
        oneway = self._frame.kind is Kind.ONEWAY
        self._client = client
        self._number = client.send(None if oneway else self, self._frame, None)
        if oneway:
            self._client = None
            self._end()

    def upstream_response(self, frame: Frame, batch: Batch) -> None:
        """See L{reverseproxy.proxy.rpc.client.IRpcExchange}."""
        self._client = None
        self._end()

    def upstream_lost(self, reason: str, flags: int, unsent: bool = False) -> None:
        """See L{reverseproxy.proxy.rpc.client.IRpcExchange}."""
        self._client = None
        if not unsent:
            self._is_foreign()
        self._end()

    def fail(self, status: int, reason: str, flags: int) -> None:
        """See L{Attempts.fail}."""
        self._end()

    def _too_late(self) -> None:
        self._end()

    def _end(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.forget(self._number)
        if self._timer.active():
            self._timer.cancel()
        self._give_up()
