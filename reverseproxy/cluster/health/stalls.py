"""
Hosts of agents from which nothing comes any more, long before they count as gone.

Until a connection is given up, requests would go on being sent into the void, and
those that may not be sent twice are lost.  So a host on whose connection something
waits for an acknowledgement, or a question for its answer, is left out as long as
others are well.  What was sent is not sent again for that: it may have arrived, and
only the acknowledgement been lost.
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
"""Seconds without an acknowledgement after which a host is left out; one, until the next look."""

LOOKS: Final = 0.25
"""Seconds between two looks."""

HEARD: Final = 1.0
"""Seconds in which something must have come from a host at rest, if it is to be let in again."""

BORNE: Final = 2.0
"""Seconds for which a host at rest has not answered, as nobody waits for it; somebody shall not have to."""

AT_ONCE: Final = 500
"""Hosts that are looked at in one look."""


@implementer(IClusterTask)
class Stalls:
    """
    Watches the connections of one cluster's agents, as long as there are any.

    Looked at are those with requests under way, as the others have nothing that
    could wait, those that are left out, and those that have been asked in vain.
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
        """See L{IClusterTask}; the connections of other workers are theirs to watch, until they come here."""
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
            # What has come meanwhile has not been read yet.
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
                self._suspect_kin(host)
        elif host in service_health.stalled and not (since is None and self._shares(host, info)):
            service_health.stall(host, "")

    def _shares(self, host: Host, info: TcpInfo | None) -> bool:
        """Whether a host at rest is left out for others of its agent, and nothing speaks for it."""
        if host.active:
            return False
        if info is not None:
            return info.silence > HEARD
        return any(each in self._waits for each in host.same_agent)

    def _suspect_kin(self, host: Host) -> None:
        """Leave those out, too, that are at rest on the same way."""
        same_agent = [
            each for each in host.same_agent if each is not host and not each.active and each in self._hosts
        ]
        self._cluster.service_health.stall_all(same_agent, "nothing comes from its agent")
