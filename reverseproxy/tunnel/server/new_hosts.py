"""An agent that may join becomes a host: what both ends agree on, and what is made of it."""

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
"""What an agent becomes."""


@dataclass(frozen=True, slots=True)
class Terms:
    """
    What both ends agree on.

    @ivar mux: how the connection carries streams; empty if it is leased as a whole.
    @ivar window: with how many bytes streams begin; 0 for what that way has by itself.
    """

    mux: str = ""
    window: int = 0

    @classmethod
    def agree(cls, streams: StreamSettings | None, announcement: Announcement | None) -> Terms:
        """
        Choose among what an agent offers.

        @param streams: how this server wants streams carried; L{None} if it does not.
        @param announcement: what the agent says of itself; L{None} for one of MOSN's.
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
    Make the host that an agent becomes.

    @param address: by which it is known.
    @param on_gone: called with the host and a reason once it can take no further request.
    @param session: carries its streams, if it does.
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
    """Make what carries the streams of a connection, by the terms that were agreed on."""
    return MuxSession(
        True,
        clock,
        streams.limits_with(terms.window, announcement.tells, announcement.moves),
        ping_interval=streams.ping_interval,
        ping_timeout=streams.ping_timeout,
        jitter=random,
    )


class Publication:
    """A host becomes a member of its cluster, at once or a little later."""

    __slots__ = ("_cluster", "_clusters", "_host", "_timer")

    def __init__(self, clusters: ClusterManager, cluster: str, host: NewHost) -> None:
        self._clusters = clusters
        self._cluster = cluster
        self._host = host
        self._timer: IDelayedCall | None = None

    def publish_later(self, clock: IReactorTime, delay: float) -> None:
        """
        Publish the host when its agent has read the response.

        A MOSN agent loses what arrives in one read with it (docs/mosn.rst 1.3.9).

        @param delay: seconds.
        """
        self._timer = clock.callLater(delay, self.publish)

    def publish(self) -> None:
        """Publish the host now; close it if there is no such cluster any more."""
        self._timer = None
        if self._cluster not in self._clusters:
            self._host.close(f"there is no cluster {self._cluster} any more")
        elif self._host.usable():
            self._clusters.get(self._cluster).add_host(self._host)

    def cancel(self) -> None:
        """Don't publish the host, if that has not been done."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def listen(self, clock: IReactorTime) -> None:
        """Let the cluster hear what the agent says of its service."""
        if self._host.tells and isinstance(self._host, MuxHost):
            self._host.listen(partial(_note_service, self._clusters, self._cluster), clock)


def _note_service(clusters: ClusterManager, cluster: str, host: MuxHost, well: bool) -> None:
    """Note whether an agent can reach its service."""
    if cluster in clusters:
        clusters.get(cluster).service_health.report(host, well)
