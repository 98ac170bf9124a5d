"""
Outlier detection: eject hosts that fail too many requests, for a time.

It is passive: outcomes of requests are reported to the cluster (L{Cluster.report}).  The
number of ejected hosts is bounded: C{max_ejection_percent} limits it, and at least one
healthy host stays, because a host that fails often is better than none.
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
    Return whether a host may be ejected.

    @param members: the number of hosts.
    @param ejected: the number of ejected hosts, this one included.
    @param healthy: the number of healthy hosts that would be left.
    @param percent: the largest percentage of ejected hosts.
    """
    return ejected * 100 <= members * percent and healthy > 0


class FailureRecord:
    """
    The failures of a host.

    @ivar unreachable: failed connects in a row.
    @ivar server_errors: responses in a row with a status of 500 or above.
    @ivar resets: responses in a row that were incomplete or missing.
    @ivar ejections: recent ejections, which make the next one longer.
    @ivar readmitted: when the last ejection ended, in the clock's seconds.
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
        Add an outcome.

        @return: the reason to eject the host now; empty if there is none.
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
        """End an ejection: one more failure ejects the host again, until a request has succeeded."""
        self.readmitted = now
        self.unreachable = max(0, config.consecutive_connect_failures - 1)
        self.server_errors = max(0, config.consecutive_5xx - 1)
        self.resets = max(0, config.consecutive_resets - 1)


class Ejector:
    """
    Ejects hosts of one cluster, and readmits them.

    @ivar ejected: the ejected hosts, the longest first, with the delayed calls that
        readmit them.
    @ivar watches_answers: whether it needs the outcomes of responses, rather than of
        connects only.
    @ivar total: the number of ejections so far.
    """

    def __init__(self, cluster: Cluster, config: OutlierDetectionConfig, clock: IReactorTime) -> None:
        self._cluster = cluster
        self._clock = clock
        self.ejected: dict[Host, IDelayedCall] = {}
        self.total = 0
        self.configure(config)

    def configure(self, config: OutlierDetectionConfig) -> None:
        """Apply another configuration; ejected hosts stay so for their time."""
        self._config = config
        self.watches_answers = config.consecutive_5xx > 0 or config.consecutive_resets > 0

    def note(self, host: Host, outcome: Outcome) -> None:
        """Add the outcome of a connect or a request to a member."""
        if outcome is Outcome.UNREACHABLE and host.is_reverse:
            return  # not dialled: its only connection was busy, or is lost
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
        Eject a host because of its responses, unless too many are ejected.

        @param first: seconds of the first ejection; at most the cluster's
            C{base_ejection_time}.
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
        # Bound the exponent, so that the result does not overflow.
        duration = min(longest, base * 2 ** min(record.ejections, 32))
        record.ejections += 1
        self.total += 1
        self.ejected[host] = self._clock.callLater(duration, self._time_is_over, host)
        self._cluster.set_health(host, False, f"left out for {duration:g} s: {reason}", Fault.EJECTED)

    def remaining(self, host: Host) -> float | None:
        """Return the seconds for which a host stays ejected; L{None} if it is not."""
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
        """Forget a host that has left the cluster."""
        call = self.ejected.pop(host, None)
        if call is not None:
            call.cancel()

    def settle(self) -> None:
        """Readmit hosts, if too many are ejected after others have left or become unhealthy."""
        while self.ejected:
            members = len(self._cluster.hosts)
            if not may_eject(members, len(self.ejected), 1, self._config.max_ejection_percent):
                host = next(iter(self.ejected))
            elif not self._cluster.healthy:
                # Only one that is ejected for no other reason.
                only = [host for host in self.ejected if host.health.faults == Fault.EJECTED]
                if not only:
                    return
                host = only[0]
            else:
                return
            self._readmit(host, "let in again because too few hosts are left")
