"""
Active health checks.

A checker (L{IHealthChecker}) performs a check; this module decides when to check, and
what follows from the results, as MOSN does (docs/mosn.rst, section 4.6).  The state of a
host's check is kept in the host (C{HostHealth.check}).
"""

from __future__ import annotations

__all__ = ["CheckState", "HealthMonitor", "HostCheck", "IHealthChecker"]

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from reverseproxy.cluster.host import Fault, Host
from reverseproxy.cluster.manager import IClusterTask
from reverseproxy.logs import loss
from reverseproxy.net.lenient_timeouts import add_lenient_timeout

if TYPE_CHECKING:
    from reverseproxy.cluster.manager import Cluster
    from reverseproxy.config.models import HealthCheckConfig


class IHealthChecker(Interface):
    """A kind of health check, such as a TCP connect or an HTTP request."""

    def wants(host: Host) -> bool:  # noqa: N805
        """
        Return whether this host can be checked now.

        Called when a host joins, where false means that it is never checked, and before
        each check.
        """

    def check(host: Host) -> Deferred[None]:  # noqa: N805
        """
        Check a host.

        A reverse host is not given to requests meanwhile; the checker leaves its connection
        as it was, or closed.

        @return: fails if the host is unhealthy; the message is the reason.  Cancelled at the
            timeout, which counts as a failure unless it fires with a result then.
        """


class CheckState:
    """
    Whether a host is healthy by its last checks.

    A host is healthy at first, as in MOSN.  C{fall} failures in a row make it unhealthy,
    and C{rise} successes in a row healthy again.

    @ivar healthy: whether it is healthy now.
    """

    __slots__ = ("_fall", "_rise", "_row", "healthy")

    def __init__(self, rise: int = 1, fall: int = 1) -> None:
        """
        @param rise: at least one.
        @param fall: at least one.
        """
        self.healthy = True
        self._rise = rise
        self._fall = fall
        self._row = 0  # results in a row that contradict the present state

    def note(self, passed: bool) -> bool:
        """
        Add a result.

        @return: whether the state has changed.
        """
        if passed is self.healthy:
            self._row = 0
            return False
        self._row += 1
        if self._row < (self._fall if self.healthy else self._rise):
            return False
        self._row = 0
        self.healthy = passed
        return True


class HostCheck:
    """
    The periodic check of one host.

    @ivar state: the host's health by its results.
    @ivar next: the delayed call that begins the next check; L{None} during a check.
    @ivar running: the check in progress; L{None} between checks.
    """

    __slots__ = ("next", "running", "state")

    def __init__(self, state: CheckState) -> None:
        self.state = state
        self.next: IDelayedCall | None = None
        self.running: Deferred[None] | None = None

    def stop(self) -> None:
        """Cancel the check in progress and the next one."""
        if self.next is not None:
            self.next.cancel()
            self.next = None
        if self.running is not None:
            self.running.cancel()


@implementer(IClusterTask)
class HealthMonitor:
    """
    The task that checks all hosts of a cluster.

    @ivar passed: the number of checks that have passed.
    @ivar failed: the number of checks that have failed.
    """

    def __init__(
        self,
        cluster: Cluster,
        config: HealthCheckConfig,
        checker: IHealthChecker,
        clock: IReactorTime,
        random: Callable[[], float],
    ) -> None:
        """
        @param random: returns numbers from 0 to 1, for the jitter between checks.
        """
        self._cluster = cluster
        self._config = config
        self._checker = checker
        self._clock = clock
        self._random = random
        self._running = False
        self.passed = 0
        self.failed = 0

    def start(self) -> None:
        """Start checking all members; see L{IClusterTask}."""
        self._running = True
        for host in self._cluster.hosts.values():
            self.joined(host)

    def stop(self) -> None:
        """Stop all checks; see L{IClusterTask}."""
        self._running = False
        for host in list(self._cluster.hosts.values()):
            self.left(host)

    def joined(self, host: Host) -> None:
        """Start checking a host; see L{IClusterTask}."""
        # Hosts of other servers are checked there.
        if self._running and not host.server and self._checker.wants(host):
            config = self._config
            state = CheckState(config.healthy_threshold, config.unhealthy_threshold)
            # A result of previous checks holds until these have another.
            state.healthy = Fault.CHECK not in host.health.faults
            host.health.check = HostCheck(state)
            self._plan(host, host.health.check, config.initial_delay_seconds)

    def left(self, host: Host) -> None:
        """Stop checking a host; see L{IClusterTask}."""
        check, host.health.check = host.health.check, None
        if check is not None:
            check.stop()

    def _plan(self, host: Host, check: HostCheck, delay: float) -> None:
        check.next = self._clock.callLater(delay, self._begin, host, check)

    def _again(self, host: Host, check: HostCheck) -> None:
        self._plan(host, check, self._config.interval + self._config.interval_jitter * self._random())

    def _begin(self, host: Host, check: HostCheck) -> None:
        check.next = None
        acquired = host.exclusive
        if not self._checker.wants(host) or (acquired and not self._cluster.acquire_for_check(host)):
            # It may be busy; the outcome of its requests shows its health.
            self._again(host, check)
            return
        running = check.running = maybeDeferred(self._checker.check, host)
        add_lenient_timeout(running, self._config.longest, self._clock, self._too_late)
        running.addBoth(self._ended, host, check, acquired)

    def _too_late(self, result: object, timeout: float) -> None:
        if not isinstance(result, Failure):
            return
        raise TimeoutError(f"no answer within {timeout:g} s")

    def _ended(self, result: object, host: Host, check: HostCheck, acquired: bool) -> None:
        check.running = None
        if host.health.check is check:
            self._take_in(result, host, check)
        if acquired:
            # After its health is updated, so that no request gets an unhealthy host.
            self._cluster.release(host)
        if host.health.check is check:
            self._again(host, check)

    def _take_in(self, result: object, host: Host, check: HostCheck) -> None:
        if isinstance(result, Failure):
            self.failed += 1
            reason = f"a health check has failed: {loss(result)}"
        else:
            self.passed += 1
            reason = "a health check has passed"
        if check.state.note(not isinstance(result, Failure)):
            self._cluster.set_health(host, check.state.healthy, reason, Fault.CHECK)
