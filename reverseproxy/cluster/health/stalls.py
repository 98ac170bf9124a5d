"""
Detect agents that don't respond, long before their connections time out.

Until a connection is closed, further requests would be sent on it, and those that must
not be sent twice would be lost.  So a host with unacknowledged bytes, or with an
unanswered ping, on its connection is marked unhealthy as long as others are well.
Requests are not retried for that: they may have arrived, and only the acknowledgement
been lost.
"""

from __future__ import annotations

__all__ = ["STALL", "Stalls"]

from typing import TYPE_CHECKING, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from reverseproxy.cluster.host import Host
from reverseproxy.cluster.manager import IClusterTask
from reverseproxy.net.dead_peers import waits_since
from reverseproxy.net.lenient_timeouts import MAX_EXTENSIONS, timer_lag
from reverseproxy.net.tcp_info import TcpInfo, tcp_info

if TYPE_CHECKING:
    from reverseproxy.cluster.manager import Cluster

STALL: Final = 0.7
"""Seconds without an acknowledgement after which a host is marked; at most one, with L{LOOKS}."""

LOOKS: Final = 0.25
"""Seconds between two looks at the connections."""

HEARD: Final = 1.0
"""Seconds within which something must have arrived on a marked host that is idle, to clear it."""

BORNE: Final = 2.0
"""Seconds after which an unanswered ping marks an idle host, so that no request has to wait for it."""

AT_ONCE: Final = 500
"""The most hosts that one look covers."""


@implementer(IClusterTask)
class Stalls:
    """
    The task that watches the connections of one cluster's agents.

    It looks at hosts with requests in progress, as idle ones have nothing unacknowledged,
    at marked hosts, and at hosts with unanswered pings.
    """

    def __init__(self, cluster: Cluster, clock: IReactorTime) -> None:
        self._cluster = cluster
        self._clock = clock
        self._waits: dict[Host, float] = {}
        self._hosts: dict[Host, None] = {}
        self._round: list[Host] = []
        self._timer: IDelayedCall | None = None
        self._running = False
        self._due = 0.0
        self._excuses = 0

    def start(self) -> None:
        """See L{IClusterTask}."""
        self._running = True
        self._plan()

    def stop(self) -> None:
        """See L{IClusterTask}."""
        self._running = False
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def joined(self, host: Host) -> None:
        """See L{IClusterTask}; connections in other workers are watched there, until they move here."""
        if host.is_reverse and (host.exclusive or not host.is_remote):
            self._hosts[host] = None
            self._plan()

    def left(self, host: Host) -> None:
        """See L{IClusterTask}."""
        self._hosts.pop(host, None)
        self._waits.pop(host, None)

    def _plan(self) -> None:
        if self._running and self._hosts and self._timer is None:
            self._due = self._clock.seconds() + LOOKS
            self._timer = self._clock.callLater(LOOKS, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        if timer_lag(self._due, now) and self._excuses < MAX_EXTENSIONS:
            # Data may have arrived that has not been read yet.
            self._excuses += 1
            self._plan()
            return
        self._excuses = 0
        if not self._round:
            stalled = self._cluster.service_health.stalled
            self._round = [
                host
                for host in self._hosts
                if host.active or host in self._waits or host in stalled or host.unanswered >= BORNE
            ]
        part = self._round[-AT_ONCE:]
        del self._round[-AT_ONCE:]
        for host in part:
            if host in self._hosts and not host.is_remote:
                self._judge(host, now)
        self._plan()

    def _judge(self, host: Host, now: float) -> None:
        info = tcp_info(host.transport)
        since = None if info is None else waits_since(info, self._waits.get(host), now)
        if since is not None:
            self._waits[host] = since
            host.note_wait(True)
        elif self._waits.pop(host, None) is not None:
            host.note_wait(False)
        waited = max(0.0 if since is None else now - since, host.unanswered)
        service_health = self._cluster.service_health
        if waited >= STALL:
            if host not in service_health.stalled:
                service_health.stall(host, f"nothing has come from it for {waited:.1f} s")
                self._suspect_same_agent(host)
        elif host in service_health.stalled and not (since is None and self._shares(host, info)):
            service_health.stall(host, "")

    def _shares(self, host: Host, info: TcpInfo | None) -> bool:
        """Return whether an idle host is marked along with others of its agent, and has received nothing."""
        if host.active:
            return False
        if info is not None:
            return info.silence > HEARD
        return any(each in self._waits for each in host.same_agent)

    def _suspect_same_agent(self, host: Host) -> None:
        """Mark the idle hosts of the same agent, too."""
        same_agent = [
            each for each in host.same_agent if each is not host and not each.active and each in self._hosts
        ]
        self._cluster.service_health.stall_all(same_agent, "nothing comes from its agent")
