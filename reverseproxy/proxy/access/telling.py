"""
From a request that has ended, in whatever protocol, to what the access log says of it.
"""

from __future__ import annotations

__all__ = ["AccessNotes", "IToldRequest", "access_record"]

from typing import TYPE_CHECKING, Protocol

from reverseproxy.metrics import NOWHERE
from reverseproxy.proxy.access.record import AccessRecord, Asked, IClient, Lookup, Served, Times

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host
    from reverseproxy.cluster.narrowed import ICluster
    from reverseproxy.metrics import IPlace


class AccessNotes:
    """
    What only the access log wants to know of a request while it is under way.

    @ivar sent_at: when it was sent to the last host, by the clock that says when it began.
    @ivar local_address: our address towards that host.
    @ivar connection: the number of the connection to that host.
    @ivar answered_at: when its response began; L{None} if it did not.
    """

    __slots__ = ("answered_at", "connection", "local_address", "sent_at")

    def __init__(self, sent_at: float, local_address: str, connection: int) -> None:
        self.sent_at = sent_at
        self.local_address = local_address
        self.connection = connection
        self.answered_at: float | None = None


class IToldRequest(Protocol):
    """
    A request that has ended: what all protocols know of one.

    @ivar rule: what has taken it; L{None} for nothing.
    @ivar cluster: the cluster of the route; L{None} if it went to none.
    @ivar host: who has had it last; L{None} for nobody.
    @ivar notes: what was noted for the access log; L{None} if it was sent to nobody.
    @ivar started: when it began.
    @ivar status: the status that was sent, in terms of HTTP; 0 for none.
    @ivar received: bytes of its body.
    @ivar sent: bytes of the body of the response.
    @ivar flag: why there is no complete answer of a host, for people; empty if there is one.
    @ivar flags: the same as codes; see L{reverseproxy.proxy.flags}.
    @ivar attempts: how many hosts were taken for it.
    @ivar waited: seconds in which it waited for a host.
    @ivar dialled: seconds in which connections were made for it.
    @ivar trace_id: the trace that spans were made for; empty for none.
    """

    cluster: ICluster | None
    host: Host | None
    flags: int

    @property
    def waited(self) -> float:
        """See above."""

    @property
    def dialled(self) -> float:
        """See above."""

    @property
    def rule(self) -> IPlace | None:
        """See above."""

    @property
    def notes(self) -> AccessNotes | None:
        """See above."""

    @property
    def started(self) -> float:
        """See above."""

    @property
    def status(self) -> int:
        """See above."""

    @property
    def received(self) -> int:
        """See above."""

    @property
    def sent(self) -> int:
        """See above."""

    @property
    def flag(self) -> str:
        """See above."""

    @property
    def attempts(self) -> int:
        """See above."""

    @property
    def trace_id(self) -> str:
        """See above."""


def access_record(
    request: IToldRequest,
    protocol: str,
    client: IClient,
    asked: Asked,
    response_headers: Lookup | None,
    now: float,
) -> AccessRecord:
    """
    Describe a request that has ended, for the access log.

    @param protocol: what the client speaks.
    @param client: whose it is.
    @param asked: what it was for, as far as that could be read.
    @param response_headers: looks headers of the response up; L{None} if there was none.
    @param now: the time, by the clock that says when the request began.
    """
    host, cluster, notes, started = request.host, request.cluster, request.notes, request.started
    name = "" if cluster is None else cluster.name
    attempts = request.attempts
    sent = answered = None
    local, connection = "", 0
    if notes is not None:
        local, connection, sent = notes.local_address, notes.connection, notes.sent_at - started
        if notes.answered_at is not None:
            answered = notes.answered_at - started
    if host is None:
        served = Served(name, attempts=attempts)
    else:
        served = Served(name, host.address, host.server, host.identity, local, attempts, connection)
    return AccessRecord(
        protocol,
        client,
        asked,
        request.rule or NOWHERE,
        served,
        Times(request.waited, request.dialled, sent, answered),
        0.0,
        now - started,
        request.status,
        request.received,
        request.sent,
        response_headers,
        request.flag,
        request.flags,
        request.trace_id,
    )
