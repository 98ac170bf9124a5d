"""
How the access log describes a request that has ended, whatever its protocol.
"""

from __future__ import annotations

__all__ = ["AccessNotes", "IFinishedRequest", "access_record"]

from typing import TYPE_CHECKING, Protocol

from reverseproxy.metrics import NOWHERE
from reverseproxy.proxy.access.record import (
    AccessRecord,
    IClient,
    Lookup,
    RequestDetails,
    Times,
    UpstreamDetails,
)

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host
    from reverseproxy.cluster.narrowed import ICluster
    from reverseproxy.metrics import IDestination


class AccessNotes:
    """
    What only the access log needs of a request that is under way.

    @ivar sent_at: when the request was sent to the last host, by the clock that C{started} goes by.
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


class IFinishedRequest(Protocol):
    """
    A request that has ended: what exchanges of all protocols know.

    @ivar cluster: the cluster of the route; L{None} if there is none.
    @ivar host: the host that was picked last; L{None} if none was.
    @ivar flags: why the host gave no complete response; see L{reverseproxy.proxy.flags}.
    """

    cluster: ICluster | None
    host: Host | None
    flags: int

    @property
    def rule(self) -> IDestination | None:
        """The rule of the router that matched; L{None} for no match."""

    @property
    def notes(self) -> AccessNotes | None:
        """What was noted for the access log; L{None} if the request was sent to no host."""

    @property
    def started(self) -> float:
        """When the request began."""

    @property
    def status(self) -> int:
        """The status of the response, as one of HTTP; 0 for none."""

    @property
    def received(self) -> int:
        """How many bytes the request's body had."""

    @property
    def sent(self) -> int:
        """How many bytes the response's body had."""

    @property
    def flag(self) -> str:
        """Why the host gave no complete response, in words; empty if it did."""

    @property
    def attempts(self) -> int:
        """How many hosts were tried."""

    @property
    def waited(self) -> float:
        """Seconds that the request waited for a host to be free."""

    @property
    def dialled(self) -> float:
        """Seconds that connections to hosts took."""

    @property
    def trace_id(self) -> str:
        """The trace that spans were made for; empty for none."""


def access_record(
    request: IFinishedRequest,
    protocol: str,
    client: IClient,
    details: RequestDetails,
    response_headers: Lookup | None,
    now: float,
) -> AccessRecord:
    """
    Describe a request that has ended, for the access log.

    @param protocol: the client's protocol.
    @param client: the client's connection.
    @param details: what the request was for, as far as that could be read.
    @param response_headers: looks up headers of the response; L{None} if there was none.
    @param now: the time, by the clock that C{started} goes by.
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
        upstream = UpstreamDetails(name, attempts=attempts)
    else:
        upstream = UpstreamDetails(
            name, host.address, host.server, host.identity, local, attempts, connection
        )
    return AccessRecord(
        protocol,
        client,
        details,
        request.rule or NOWHERE,
        upstream,
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
