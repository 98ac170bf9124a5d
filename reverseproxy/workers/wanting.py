"""
What this worker's requests wait for, and that its siblings hear of it.

    {"want": cluster, "hosts": [[labels, 3, 0.012]]}    three requests wait, the oldest for 12 ms

The first one that waits is told of at once, and then all of them each L{TELL_EVERY} seconds for as
long as there are any; then, once, that there are none.
"""

from __future__ import annotations

__all__ = ["LEAST_GAP", "Wanting"]

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
"""Seconds between two messages about the same cluster, at the least, until requests have waited for long."""


SHORTAGE: Final = 1.0
"""Seconds for which a worker wants nothing that could not take what it was given."""


class _Need:
    """
    What the requests for one cluster wait for.

    @ivar said: whether siblings have heard that we want something.
    @ivar told: when they have heard something.
    @ivar waited: when a request has last been seen to wait.
    @ivar began: when requests have begun to wait, now and then, without a longer pause.
    @ivar standing: for how long.
    @ivar timer: until they hear the next thing.
    """

    __slots__ = ("began", "said", "standing", "timer", "told", "waited")

    def __init__(self) -> None:
        self.said = False
        self.began = self.told = self.waited = -inf
        self.standing = Standing()
        self.timer: IDelayedCall | None = None


class Wanting:
    """What this worker's requests wait for."""

    def __init__(self, directory: Directory, clock: IReactorTime) -> None:
        self._directory = directory
        self._clock = clock
        # Clusters come and go, as those that agents bring; nothing here keeps one that is gone.
        self._needs: WeakKeyDictionary[Cluster, _Need] = WeakKeyDictionary()
        self._held = -inf

    def share(self, cluster: Cluster) -> None:
        """Let siblings hear of requests that wait for a cluster."""
        need = self._needs[cluster] = _Need()
        cluster.on_wait = partial(self._waits, cluster, need)

    def stop(self) -> None:
        """Ask for nothing more."""
        for need in self._needs.values():
            if need.timer is not None:
                need.timer.cancel()
                need.timer = None

    def hold(self) -> None:
        """Want nothing for some time: what is given would be lost."""
        self._held = self._clock.seconds() + SHORTAGE
        for cluster, need in list(self._needs.items()):
            if need.said:
                self._tell(cluster, need)

    def standing(self, cluster: Cluster) -> float:
        """Say how long requests have waited lately, at the least; see L{Standing.least}."""
        return self._needs[cluster].standing.least(self._clock.seconds())

    def rested(self, cluster: Cluster) -> float:
        """Say for how many seconds no request has been seen to wait."""
        return self._clock.seconds() - self._needs[cluster].waited

    def _waits(self, cluster: Cluster, need: _Need) -> None:
        """A request waits."""
        if need.timer is not None and cluster.waiting > 1:
            return  # as nearly always under load: it is told of with the others
        if is_deterministic(cluster.config):
            self._directory.settle(cluster)
            return
        # The first one, after there was none: what others think we want is what we did before.
        now = self._clock.seconds()
        if cluster.queued_demand():  # else it waits for a certain host
            if now - need.waited > LASTING:
                need.began = now
            need.waited = now
        # Where they come and go all the time, nobody gives anything at once.
        hurry = now - need.began <= LASTING or not self._directory.count_here(cluster)
        rest = need.told + (LEAST_GAP if hurry else TELL_EVERY) - now
        if rest <= 0:
            self._tell(cluster, need)
        elif need.timer is None:
            need.timer = self._clock.callLater(rest, self._tell, cluster, need)
        elif need.timer.getTime() - now > rest:
            need.timer.reset(rest)

    def _tell(self, cluster: Cluster, need: _Need) -> None:
        """Say what we want, again and again as long as we do."""
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
