"""
Announce the waiting requests of this worker to its siblings.

    {"want": cluster, "hosts": [[labels, 3, 0.012]]}    three requests wait, the oldest for 12 ms

The first waiting request is announced at once, and then all of them every L{TELL_EVERY} seconds
while there are any; at last, once, that there are none.
"""

from __future__ import annotations

__all__ = ["LEAST_GAP", "DemandAnnouncer"]

from functools import partial
from math import inf
from typing import Final
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from reverseproxy.cluster.balancers.factory import is_deterministic
from reverseproxy.cluster.manager import Cluster
from reverseproxy.workers.directory import Directory
from reverseproxy.workers.policy import LASTING, TELL_EVERY, Standing

LEAST_GAP: Final = 0.003
"""The least seconds between two announcements for a cluster, until requests have waited for long."""


SHORTAGE: Final = 1.0
"""Seconds without announcements after a connection was lost for lack of descriptors."""


class _ClusterDemand:
    """
    The announcements for one cluster.

    @ivar said: whether the last announcement had waiting requests.
    @ivar told: the time of the last announcement.
    @ivar waited: when a request last waited.
    @ivar began: since when requests have waited, with short pauses.
    @ivar standing: their waiting times.
    @ivar timer: the timer of the next announcement.
    """

    __slots__ = ("began", "said", "standing", "timer", "told", "waited")

    def __init__(self) -> None:
        self.said = False
        self.began = self.told = self.waited = -inf
        self.standing = Standing()
        self.timer: IDelayedCall | None = None


class DemandAnnouncer:
    """Announces the waiting requests of this worker."""

    def __init__(self, directory: Directory, clock: IReactorTime) -> None:
        self._directory = directory
        self._clock = clock
        # weak keys, as clusters that agents bring come and go
        self._needs: WeakKeyDictionary[Cluster, _ClusterDemand] = WeakKeyDictionary()
        self._held = -inf

    def share(self, cluster: Cluster) -> None:
        """Announce requests that wait for a cluster."""
        need = self._needs[cluster] = _ClusterDemand()
        cluster.on_wait = partial(self._waits, cluster, need)

    def stop(self) -> None:
        """Cancel all timers."""
        for need in self._needs.values():
            if need.timer is not None:
                need.timer.cancel()
                need.timer = None

    def hold(self) -> None:
        """Announce nothing for some time, as a connection would be lost for lack of descriptors."""
        self._held = self._clock.seconds() + SHORTAGE
        for cluster, need in list(self._needs.items()):
            if need.said:
                self._tell(cluster, need)

    def standing(self, cluster: Cluster) -> float:
        """Return the recent minimum of the waiting time; see L{Standing.least}."""
        return self._needs[cluster].standing.least(self._clock.seconds())

    def rested(self, cluster: Cluster) -> float:
        """Return the seconds since a request last waited."""
        return self._clock.seconds() - self._needs[cluster].waited

    def _waits(self, cluster: Cluster, need: _ClusterDemand) -> None:
        """Announce a waiting request, now or with the next announcement."""
        if need.timer is not None and cluster.waiting > 1:
            return  # as nearly always under load: the next announcement has it
        if is_deterministic(cluster.config):
            self._directory.settle(cluster)
            return
        # The first one after a pause: siblings have an old announcement.
        now = self._clock.seconds()
        if cluster.queued_demand():  # else it waits for a certain host
            if now - need.waited > LASTING:
                need.began = now
            need.waited = now
        # If requests wait again and again, siblings don't move anything at once.
        hurry = now - need.began <= LASTING or not self._directory.count_here(cluster)
        rest = need.told + (LEAST_GAP if hurry else TELL_EVERY) - now
        if rest <= 0:
            self._tell(cluster, need)
        elif need.timer is None:
            need.timer = self._clock.callLater(rest, self._tell, cluster, need)
        elif need.timer.getTime() - now > rest:
            need.timer.reset(rest)

    def _tell(self, cluster: Cluster, need: _ClusterDemand) -> None:
        """Announce the waiting requests, and again while there are any."""
        timer, need.timer = need.timer, None
        if timer is not None and timer.active():
            timer.cancel()
        now = self._clock.seconds()
        wants = [] if now < self._held else cluster.queued_demand()
        need.standing.note(now, now - min((want.since for want in wants), default=now))
        if wants:
            need.waited = now
        if not wants and not need.said:
            if now < self._held:
                need.timer = self._clock.callLater(self._held - now, self._tell, cluster, need)
            return
        need.said = bool(wants)
        need.told = now
        hosts = [[list(want.labels), want.number, now - want.since] for want in wants]
        for link in self._directory.links:
            if self._directory.has_plain(link, cluster) or not wants:
                link.send({"want": cluster.name, "hosts": hosts})
        if cluster.waiting:
            need.timer = self._clock.callLater(TELL_EVERY, self._tell, cluster, need)
