"""
Sending an RPC request to a host.

Whole frames are passed on, with another id, and with other headers if the route
changes them.
"""

from __future__ import annotations

__all__ = ["ACTIVE", "DONE", "WAITING", "RpcSending"]

from typing import TYPE_CHECKING, Any

from reverseproxy.cluster.message_limits import HEAD_ROOM
from reverseproxy.errors import RpcHeaderError
from reverseproxy.proxy.access import AccessNotes
from reverseproxy.proxy.http.attempts import Attempts, ExchangePhase
from reverseproxy.proxy.http.end_reporting import EndReporting
from reverseproxy.proxy.rpc.pool import RpcPool, rpc_pool_of
from reverseproxy.routing import Timeouts
from reverseproxy.tracing.context import TRACE_FIELDS
from reverseproxy.wire.rpc.xprotocol import Frame, Kind

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host
    from reverseproxy.proxy.rpc.client import RpcClient
    from reverseproxy.proxy.rpc.interfaces import IRpcOwner
    from reverseproxy.tracing.interfaces import IRequestTrace

NEW, WAITING, ACTIVE, DONE = ExchangePhase

_ANY_TIME = Timeouts(0.0, 0.0)


class RpcSending(EndReporting):
    """
    The layer of an exchange that has the request.

    @ivar downstream: the client's connection.
    @ivar frame: the request.
    @ivar id: its id on the client's connection.
    @ivar received: its size in bytes.
    @ivar started: when it was received, in the clock's seconds.
    @ivar status: the result as an HTTP status; 0 without a response.
    @ivar notes: facts for the access log; L{None} before the request is sent, and
        without an access log.
    """

    __slots__ = (
        "_client",
        "_number",
        "_position",
        "_times",
        "downstream",
        "frame",
        "id",
        "notes",
        "received",
        "started",
        "status",
    )

    downstream: IRpcOwner
    frame: Frame
    id: int
    notes: AccessNotes | None
    received: int
    started: float
    status: int
    _client: RpcClient | None
    _number: int  # the request's id on the host's connection
    _position: int  # how many bytes of output that connection had after the request
    _times: Timeouts  # of the request and its attempts

    def __init__(self, downstream: IRpcOwner, frame: Frame, now: float) -> None:
        settings = downstream.settings
        Attempts.__init__(self, settings.clock, settings.pool_key or downstream.protocol.name)
        self.downstream = downstream
        self.frame = frame
        self.id = frame.id
        self.received = len(frame.data)
        self.started = now
        self.status = self._number = self._position = 0
        self.notes = self._client = self._ending = None
        self._times = _ANY_TIME

    # what a subclass does

    def fail(self, status: int, reason: str, flags: int, remedy: str = "") -> None:
        """
        Answer with an error of our own.

        @param reason: a sentence for the access log.
        @param flags: the reason as codes; see L{reverseproxy.proxy.flags}.
        @param remedy: advice for the log; empty for that of the flags.
        """
        raise NotImplementedError

    def _time_attempt(self) -> None:
        """Note when an attempt begins whose duration is measured or bounded."""
        raise NotImplementedError

    def _finish(self) -> None:
        """End the exchange: it is complete."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """Service and operation of the request, as far as it has them."""
        frame = self.frame
        try:
            return ".".join(part for part in (frame.service, frame.method) if part)
        except RpcHeaderError:
            return ""

    # what goes to the host

    def _make_pool(self, host: Host, idle_timeout: float | None) -> RpcPool:
        return rpc_pool_of(self.protocol, self.downstream.protocol, host, self._clock, idle_timeout)

    @property
    def _announced_protocol(self) -> str:
        return self.downstream.protocol.name

    @property
    def _client_chose(self) -> bool:
        return self.downstream.settings.protocols_differ

    @property
    def _max_response(self) -> int:
        """The largest response in bytes; an agent may add some to its host's."""
        limit = self.downstream.settings.max_frame
        return limit + HEAD_ROOM if self.host is not None and self.host.is_reverse else limit

    def _send(self, client: RpcClient) -> None:
        self._phase = ACTIVE
        downstream, cluster = self.downstream, self.cluster
        if client.max_frame < self._max_response:
            client.admit(self._max_response)
        if downstream.settings.access_log is not None:
            self.notes = AccessNotes(self._clock.seconds(), client.local_address, client.connection_number)
        if self._trace is not None:
            self._with_trace(self._trace)
        whole: Any = self  # a subclass handles the response
        oneway = self.frame.kind is Kind.ONEWAY
        self._client = client
        self._number = client.send(None if oneway else whole, self.frame, downstream.batch)
        outgoing = client.outgoing
        self._position = outgoing.written
        if outgoing.full:
            downstream.block(outgoing)
        if oneway:
            self._client = None
            self._finish()
        elif self._times.attempt or (cluster is not None and cluster.watches_answers):
            self._time_attempt()

    def _with_trace(self, trace: IRequestTrace) -> None:
        """Add the trace's headers, if the protocol has headers."""
        added = self._begin_attempt(trace)
        try:
            fields = self.frame.fields()
            if fields is not None:
                kept = [field for field in fields if field[0].lower() not in TRACE_FIELDS]
                self.frame.set_fields(kept + added)
        except RpcHeaderError:
            pass  # the headers can't be read, or there is no room for more: they stay as they are
