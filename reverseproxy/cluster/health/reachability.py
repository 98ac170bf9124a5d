"""
Track whether the hosts of a cluster can be reached, for an agent's reports to its servers.

Requests show that: a connect that is refused shows it at once.  An idle host
without an open connection, whose loss would show it, is probed periodically, and so is
one that could not be reached.  A probe is a connect that is closed without a byte.
"""

from __future__ import annotations

__all__ = ["Reach"]

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.endpoints import CallableFactory
from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.cluster.host import Fault, Host
from reverseproxy.cluster.manager import IClusterTask
from reverseproxy.logs import loss
from reverseproxy.net.lenient_timeouts import add_lenient_timeout

if TYPE_CHECKING:
    from reverseproxy.cluster.manager import Cluster

log = Logger()

AGAIN: Final = 0.5
"""Seconds between probes of a host that can't be reached."""

PROBE_TIMEOUT: Final = 3.0
"""The timeout of a probe, in seconds."""

AT_ONCE: Final = 4
"""The most hosts of a cluster that are probed at the same time."""

_LOOKS: Final = 4
"""How often hosts are looked at within the interval of probes."""


class _ReachProbe(Protocol):
    """A protocol that closes its connection as soon as it is made."""

    transport: Any

    def connectionMade(self) -> None:
        """Close the connection: the host can be reached."""
        self.transport.loseConnection()


@implementer(IClusterTask)
class Reach:
    """
    The task that tracks which hosts of one cluster can be reached.

    Hosts count as reachable until a connect has failed: after the start of the process,
    requests may find that out sooner than probes.
    """

    def __init__(self, cluster: Cluster, clock: IReactorTime, interval: float) -> None:
        """
        @param interval: seconds without a request after which a host is probed; 0 to probe
            only hosts that could not be reached.
        """
        self._cluster = cluster
        self._clock = clock
        self._interval = interval
        self._down: set[Host] = set()
        self._heard: dict[Host, float] = {}
        self._probes: dict[Host, Deferred[Any]] = {}
        self._watchers: list[Callable[[], object]] = []
        self._timer: IDelayedCall | None = None
        self._running = False
        self._last = True
        cluster.on_connect = self._noted

    @property
    def well(self) -> bool:
        """Whether any host can be reached."""
        return any(
            host not in self._down and not host.health.faults & (Fault.CHECK | Fault.ORDERED)
            for host in self._cluster.hosts.values()
        )

    def watch(self, changed: Callable[[], object]) -> None:
        """Add a callback for changes of C{well}."""
        self._watchers.append(changed)

    def unwatch(self, changed: Callable[[], object]) -> None:
        """Remove a callback."""
        if changed in self._watchers:
            self._watchers.remove(changed)

    def want(self, interval: float) -> None:
        """Probe as often as one more agent demands; see the class."""
        self.set_intervals([self._interval, interval])

    def set_intervals(self, intervals: Iterable[float]) -> None:
        """Probe as often as these agents demand; see the class."""
        self._interval = min((each for each in intervals if each), default=0.0)

    def end(self) -> None:
        """Leave the cluster's tasks, as no agent needs it any more."""
        self._cluster.on_connect = None
        for host in list(self._down):
            self._cluster.service_health.report(host, True)
        self._cluster.remove_task(self)

    # IClusterTask

    def start(self) -> None:
        """Start probing; see L{IClusterTask}."""
        self._running = True
        for host in self._cluster.hosts.values():
            self.joined(host)
        self._plan()

    def stop(self) -> None:
        """Stop probing, and call no more callbacks when hosts leave; see L{IClusterTask}."""
        self._running = False
        self._watchers = []
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        for probe in list(self._probes.values()):
            probe.cancel()

    def joined(self, host: Host) -> None:
        """See L{IClusterTask}."""
        if self._running:
            self._heard[host] = self._clock.seconds()
            self._changed()

    def left(self, host: Host) -> None:
        """See L{IClusterTask}."""
        self._down.discard(host)
        self._heard.pop(host, None)
        probe = self._probes.pop(host, None)
        if probe is not None:
            probe.cancel()
        self._changed()

    # probing

    def _plan(self) -> None:
        self._timer = self._clock.callLater((self._interval or _LOOKS * AGAIN) / _LOOKS, self._look)

    def _look(self) -> None:
        self._plan()
        now = self._clock.seconds()
        for host in self._due(now):
            self._probe(host)
        self._changed()

    def _due(self, now: float) -> list[Host]:
        """Return the hosts that are to be probed now."""
        due = [host for host in self._down if now - self._heard.get(host, 0.0) >= AGAIN * 0.9]
        hosts = [
            host for host in self._cluster.hosts.values() if not host.is_reverse and host not in self._down
        ]
        patience = self._interval * (_LOOKS - 1) / _LOOKS * 0.99
        if self._interval and not any(
            host.connections or now - self._heard.get(host, 0.0) < patience for host in hosts
        ):
            hosts.sort(key=lambda host: self._heard.get(host, 0.0))
            due += hosts[:AT_ONCE]
        return due

    def _probe(self, host: Host) -> None:
        if host in self._probes:
            return
        connecting: Deferred[Any] = host.connect(CallableFactory(_ReachProbe))
        add_lenient_timeout(connecting, PROBE_TIMEOUT, self._clock)
        self._probes[host] = connecting
        connecting.addCallbacks(partial(self._reached, host), partial(self._not_reached, host))

    def _reached(self, host: Host, _: object) -> None:
        self._probes.pop(host, None)
        self._note(host, True, "")

    def _not_reached(self, host: Host, reason: Failure) -> None:
        if self._probes.pop(host, None) is not None and not (
            reason.check(CancelledError) and not self._running
        ):
            self._note(host, False, loss(reason))

    def _noted(self, host: Host, outcome: Outcome) -> None:
        """Take in the outcome of a request's connect to a host."""
        if host.is_reverse:
            return
        reached = outcome is Outcome.CONNECTED
        fresh = not reached and host not in self._down
        self._note(host, reached, "a request could not be sent to it")
        if fresh and self._running:
            self._probe(host)

    def _note(self, host: Host, reached: bool, reason: str) -> None:
        if host.cluster is not self._cluster:
            return
        self._heard[host] = self._clock.seconds()
        if reached and host in self._down:
            self._down.discard(host)
            self._cluster.service_health.report(host, True)
        elif not reached and host not in self._down:
            self._down.add(host)
            self._cluster.service_health.report(host, False, reason)
        self._changed()

    def _changed(self) -> None:
        now = self.well
        if now is not self._last:
            self._last = now
            for changed in list(self._watchers):
                changed()
