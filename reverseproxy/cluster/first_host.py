"""
Let requests wait for a cluster's first host after a start of the process.

A server that has just been started has no agents yet: they are about to dial.
Requests wait for the first one as they wait for a lost one
(L{Cluster.expect<reverseproxy.cluster.manager.Cluster.expect>}), so that a
restart fails none of them.  This ends after a while, so that requests for a
device that is switched off fail at once.
"""

from __future__ import annotations

__all__ = ["FirstHost"]

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from reverseproxy.cluster.host import Host
from reverseproxy.cluster.manager import IClusterTask

if TYPE_CHECKING:
    from reverseproxy.cluster.manager import Cluster


@implementer(IClusterTask)
class FirstHost:
    """A task of one cluster that lets requests wait for its first host, for a limited time."""

    def __init__(self, cluster: Cluster, clock: IReactorTime, seconds: float) -> None:
        """
        @param seconds: for how long after the start a first host is expected.
        """
        self._cluster = cluster
        self._clock = clock
        self._seconds = seconds

    def start(self) -> None:
        """See L{IClusterTask}."""
        if not self._cluster.joined:
            self._cluster.first_host_until = self._clock.seconds() + self._seconds

    def stop(self) -> None:
        """See L{IClusterTask}."""
        self._cluster.first_host_until = 0.0

    def joined(self, host: Host) -> None:
        """See L{IClusterTask}."""
        self._cluster.first_host_until = 0.0

    def left(self, host: Host) -> None:
        """See L{IClusterTask}."""
