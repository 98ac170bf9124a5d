"""
Hosts that fail what is sent to them are left out for a while.

What they fail with is reported to the cluster (L{Cluster.report}); nothing is
sent to find out.  However many fail, there is a floor: a part of the hosts
stays, and of the healthy ones at least one, because a host that fails often is
better than none.
"""

from __future__ import annotations

__all__ = ["Ejector", "FailureRecord", "may_eject"]

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.cluster.host import Fault, Host

if TYPE_CHECKING:
    from reverseproxy.cluster.manager import Cluster
    from reverseproxy.config.models import OutlierDetectionConfig


def may_eject(members: int, ejected: int, healthy: int, percent: int) -> bool:
    """
    Say whether a host may be left out.

    @param members: how many hosts there are.
    @param ejected: how many would be left out then.
    @param healthy: how many could be picked then.
    @param percent: how many of a hundred hosts may be left out.
    """
    return ejected * 100 <= members * percent and healthy > 0


class FailureRecord:
    """
    How a host has failed.

    @ivar unreachable: connects that have failed in a row.
    @ivar server_errors: answers in a row with a status of 500 or above.
    @ivar resets: answers in a row that were cut off or did not come.
    @ivar ejections: how often it was left out, one time soon after the other.
    @ivar readmitted: when it was last let in again, in the clock's seconds.
    """

    __slots__ = ("ejections", "readmitted", "resets", "server_errors", "unreachable")

    def __init__(self) -> None:
        self.unreachable = 0
        self.server_errors = 0
        self.resets = 0
        self.ejections = 0
        self.readmitted = 0.0

    def note(self, outcome: Outcome, config: OutlierDetectionConfig) -> str:
        """
        Take in how it went.

        @return: why the host should be left out now; empty if it should not.
        """
        if outcome is Outcome.UNREACHABLE:
            self.unreachable += 1
            if 0 < config.consecutive_connect_failures <= self.unreachable:
                return f"{self.unreachable} connects in a row have failed"
            return ""
        self.unreachable = 0
        if outcome is Outcome.SERVER_ERROR:
            self.server_errors += 1
            self.resets = 0
            if 0 < config.consecutive_5xx <= self.server_errors:
                return f"{self.server_errors} answers in a row were server errors"
        elif outcome is Outcome.RESET:
            self.resets += 1
            if 0 < config.consecutive_resets <= self.resets:
                return f"{self.resets} requests in a row have got no whole answer"
        elif outcome is not Outcome.CONNECTED:
            self.server_errors = self.resets = 0
        return ""

    def begin_probation(self, now: float, config: OutlierDetectionConfig) -> None:
        """Let the host in again: one more failure is enough, until it has done better."""
        self.readmitted = now
        self.unreachable = max(0, config.consecutive_connect_failures - 1)
        self.server_errors = max(0, config.consecutive_5xx - 1)
        self.resets = max(0, config.consecutive_resets - 1)


class Ejector:
    """
    Leaves hosts of one cluster out, and lets them in again.

    @ivar ejected: the hosts that are left out now, longest first, with what
        will let them in.
    @ivar watches_answers: whether it needs to know of answers, rather than of
        connects only.
    @ivar total: how often hosts were left out.
    """

    def __init__(self, cluster: Cluster, config: OutlierDetectionConfig, clock: IReactorTime) -> None:
        self._cluster = cluster
        self._clock = clock
        self.ejected: dict[Host, IDelayedCall] = {}
        self.total = 0
        self.configure(config)

    def configure(self, config: OutlierDetectionConfig) -> None:
        """Go by this from now on; who is left out stays so for its time."""
        self._config = config
        self.watches_answers = config.consecutive_5xx > 0 or config.consecutive_resets > 0

    def note(self, host: Host, outcome: Outcome) -> None:
        """Take in how it went with a member."""
        if outcome is Outcome.UNREACHABLE and host.is_reverse:
            return  # nobody has dialled: it was busy, or is gone
        record = host.health.failures
        if record is None:
            if outcome < Outcome.SERVER_ERROR:
                return
            record = host.health.failures = FailureRecord()
        reason = record.note(outcome, self._config)
        if reason and host not in self.ejected and self._may_eject(host):
            self._eject(host, record, reason)

    def _may_eject(self, host: Host) -> bool:
        cluster = self._cluster
        return may_eject(
            len(cluster.hosts),
            len(self.ejected) + 1,
            cluster.healthy - host.healthy,
            self._config.max_ejection_percent,
        )

    def rest(self, host: Host, first: float, reason: str) -> None:
        """
        Leave a host out because of what it answers, unless too many are.

        @param first: for how many seconds, the first time; no longer than the
            cluster's C{base_ejection_time} at any.
        """
        if host.cluster is self._cluster and host not in self.ejected and self._may_eject(host):
            record = host.health.failures = host.health.failures or FailureRecord()
            longest = self._config.base_ejection_time
            self._eject(host, record, reason, min(first, longest), longest)

    def _eject(
        self, host: Host, record: FailureRecord, reason: str, base: float = 0.0, longest: float = 0.0
    ) -> None:
        config, now = self._config, self._clock.seconds()
        base = base or config.base_ejection_time
        longest = longest or max(base, config.max_ejection_time)
        if now - record.readmitted > longest:
            record.ejections = 0
        # The exponent is bounded so that the number stays one.
        duration = min(longest, base * 2 ** min(record.ejections, 32))
        record.ejections += 1
        self.total += 1
        self.ejected[host] = self._clock.callLater(duration, self._time_is_over, host)
        self._cluster.set_health(host, False, f"left out for {duration:g} s: {reason}", Fault.EJECTED)

    def remaining(self, host: Host) -> float | None:
        """For how many seconds a host is left out still; L{None} if it is not."""
        call = self.ejected.get(host)
        return None if call is None else max(0.0, call.getTime() - self._clock.seconds())

    def _time_is_over(self, host: Host) -> None:
        self._readmit(host, "let in again to be tried")

    def _readmit(self, host: Host, reason: str) -> None:
        call = self.ejected.pop(host)
        if call.active():
            call.cancel()
        assert host.health.failures is not None
        host.health.failures.begin_probation(self._clock.seconds(), self._config)
        self._cluster.set_health(host, True, reason, Fault.EJECTED)

    def forget(self, host: Host) -> None:
        """A host has left the cluster."""
        call = self.ejected.pop(host, None)
        if call is not None:
            call.cancel()

    def settle(self) -> None:
        """Keep to the floor, after other hosts have left or become unhealthy."""
        while self.ejected:
            members = len(self._cluster.hosts)
            if not may_eject(members, len(self.ejected), 1, self._config.max_ejection_percent):
                host = next(iter(self.ejected))
            elif not self._cluster.healthy:
                # One that is left out for this reason alone.
                only = [host for host in self.ejected if host.health.faults == Fault.EJECTED]
                if not only:
                    return
                host = only[0]
            else:
                return
            self._readmit(host, "let in again because too few hosts are left")
