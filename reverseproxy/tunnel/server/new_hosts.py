"""What happens when an agent has been accepted: negotiation, the host, and its publication."""

from __future__ import annotations

__all__ = ["Publication", "Terms", "make_host"]

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import random
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from reverseproxy.cluster.host import MuxHost, ReverseHost
from reverseproxy.cluster.manager import ClusterManager
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.mux.session import MuxSession
from reverseproxy.tunnel.handshake import Accepted
from reverseproxy.tunnel.streams import StreamSettings
from reverseproxy.wire.mosn.extensions import Announcement

NewHost = ReverseHost | MuxHost
"""The host that an agent's connection becomes."""


@dataclass(frozen=True, slots=True)
class Terms:
    """
    What was negotiated.

    @ivar mux: the protocol that carries streams; empty if the connection carries one request or session
        at a time.
    @ivar window: the initial window of streams in bytes; 0 for the protocol's default.
    """

    mux: str = ""
    window: int = 0

    @classmethod
    def agree(cls, streams: StreamSettings | None, announcement: Announcement | None) -> Terms:
        """
        Choose among what an agent offers.

        @param streams: the server's settings; L{None} if it accepts no streams.
        @param announcement: what the agent announces; L{None} for a MOSN agent.
        """
        if streams is None or announcement is None:
            return cls()
        mux = streams.choose(announcement.mux)
        return cls(mux, streams.agree(announcement.window)) if mux else cls()


def make_host(
    accepted: Accepted,
    info: ConnectionInfo,
    address: str,
    transport: Any,
    on_gone: Callable[[NewHost, str], object],
    session: MuxSession | None,
    clock: IReactorTime,
) -> NewHost:
    """
    Make the host that an agent's connection becomes.

    @param address: the host's address in its cluster.
    @param on_gone: called with the host and a reason once it can take no further request.
    @param session: carries its streams; L{None} for none.
    """
    announcement = accepted.announcement
    metadata = None if announcement is None else announcement.metadata
    host: NewHost
    if session is not None:
        host = MuxHost(address, accepted.host_name, accepted.weight, metadata, session, on_gone)
    else:
        host = ReverseHost(
            address, accepted.host_name, accepted.weight, metadata, transport, on_gone, clock=clock
        )
    host.identity = accepted.identify(info)
    if announcement is not None:
        host.tells = announcement.tells
        if announcement.speaks:
            host.announced = frozenset(announcement.speaks)
        if announcement.marks and isinstance(host, ReverseHost):
            host.expect_mark()
    return host


def make_session(
    terms: Terms, streams: StreamSettings, announcement: Announcement, clock: IReactorTime
) -> MuxSession:
    """Make the session that carries the streams of a connection, with what was negotiated."""
    return MuxSession(
        True,
        clock,
        streams.limits_with(terms.window, announcement.tells, announcement.moves),
        ping_interval=streams.ping_interval,
        ping_timeout=streams.ping_timeout,
        jitter=random,
    )


class Publication:
    """Adds a host to its cluster, at once or a little later."""

    __slots__ = ("_cluster", "_clusters", "_host", "_timer")

    def __init__(self, clusters: ClusterManager, cluster: str, host: NewHost) -> None:
        self._clusters = clusters
        self._cluster = cluster
        self._host = host
        self._timer: IDelayedCall | None = None

    def publish_later(self, clock: IReactorTime, delay: float) -> None:
        """
        Add the host when its agent has read the response.

        A MOSN agent loses what arrives in one read with the response (docs/mosn.rst 1.3.9).

        @param delay: seconds.
        """
        self._timer = clock.callLater(delay, self.publish)

    def publish(self) -> None:
        """Add the host now; close it if its cluster does not exist any more."""
        self._timer = None
        if self._cluster not in self._clusters:
            self._host.close(f"there is no cluster {self._cluster} any more")
        elif self._host.usable():
            self._clusters.get(self._cluster).add_host(self._host)

    def cancel(self) -> None:
        """Do not add the host, if that has not been done."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def listen(self, clock: IReactorTime) -> None:
        """Pass reports of the agent's service health to the cluster."""
        if self._host.tells and isinstance(self._host, MuxHost):
            self._host.listen(partial(_note_service, self._clusters, self._cluster), clock)


def _note_service(clusters: ClusterManager, cluster: str, host: MuxHost, well: bool) -> None:
    """Note whether an agent can reach its service."""
    if cluster in clusters:
        clusters.get(cluster).service_health.report(host, well)
