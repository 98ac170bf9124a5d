"""
Track the response times and error rates of hosts, for LB_PEAK_EWMA.

The numbers of a host are kept in it (C{Host.load}), and are forgotten with it.
"""

from __future__ import annotations

__all__ = ["DECAY", "HostLoad", "EwmaTracker"]

from math import exp
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IReactorTime

from reverseproxy.cluster.health.outcome import Outcome

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host

DECAY: Final = 5 / 30
"""The exponent of decay for one second: after 30 s, C{exp(-5)} is left (docs/mosn.rst, section 5)."""

_SHARE: Final = 1 - exp(-DECAY)
"""What one event adds to a rate, as in MOSN: with one event each second the rate is 1."""

_MOST_KEPT: Final = 0.999
"""The largest weight of the old average, however soon one response follows another."""

_FADED: Final = 30.0
"""Seconds after which numbers decay no further."""

_FORGOTTEN: Final = 60.0
"""Seconds after which numbers are ignored."""

_FARTHEST: Final = 100.0
"""The largest factor by which a host's turn is delayed or advanced, relative to the average."""

_LOWEST_SUCCESS: Final = 0.1
"""The least success rate that counts: errors raise a score at most tenfold (docs/mosn.rst, section 5)."""


class HostLoad:
    """
    The moving averages of one host, or of all hosts together.

    @ivar at: when it was last updated, in the clock's seconds.
    @ivar duration: the moving average of the response time, in seconds; 0 as long as
        there was no response.
    @ivar total: requests per second, decaying.
    @ivar client_errors: those of them that ended with a client error.
    @ivar server_errors: those of them that failed in another way.
    """

    __slots__ = ("at", "client_errors", "duration", "server_errors", "total")

    def __init__(self, now: float) -> None:
        self.at = now
        self.duration = 0.0
        self.total = 0.0
        self.client_errors = 0.0
        self.server_errors = 0.0

    def age(self, now: float) -> float:
        """Return the seconds since the last update; 0 if the clock has been set back since."""
        return max(0.0, now - self.at)

    def note(self, now: float, outcome: Outcome, seconds: float) -> None:
        """Add one request."""
        kept = exp(-DECAY * self.age(now))
        self.at = now
        self.total = self.total * kept + _SHARE
        self.client_errors *= kept
        self.server_errors *= kept
        if outcome is Outcome.CLIENT_ERROR:
            self.client_errors += _SHARE
        elif outcome >= Outcome.SERVER_ERROR:
            self.server_errors += _SHARE
        if outcome <= Outcome.SERVER_ERROR:
            if not self.duration:
                self.duration = seconds
            else:
                self.duration = seconds + (self.duration - seconds) * min(kept, _MOST_KEPT)


class EwmaTracker:
    """
    Computes the scores of a cluster's hosts.

    MOSN's formula (docs/mosn.rst, section 5), with a mean as the average.  The numbers of an
    idle host decay, and are ignored after a minute: so a host that was slow is tried
    again after a while, with one request at first, and keeps its share if it has become
    fast.  Unlike in MOSN, requests in progress on reverse hosts are counted correctly.
    """

    def __init__(
        self,
        clock: IReactorTime,
        default: float = 10.0,
        active_bias: float = 1.0,
        client_error_bias: float = 1.0,
        server_error_bias: float = 1.0,
    ) -> None:
        """
        @param default: the assumed response time in seconds before there is any response.
        @param active_bias: the exponent of requests in progress; 0 to ignore them.
        @param client_error_bias: the exponent of client errors.
        @param server_error_bias: the exponent of other errors.
        """
        self._seconds = clock.seconds
        self._default = default or 10.0
        self._active_bias = max(0.0, active_bias)
        self._client_bias = max(0.0, client_error_bias)
        self._server_bias = max(0.0, server_error_bias)
        self._all = HostLoad(clock.seconds())

    def note(self, host: Host, outcome: Outcome, seconds: float) -> None:
        """
        Take in the outcome of a request.

        @param seconds: the response time.
        """
        if outcome is Outcome.CONNECTED:
            return
        now = self._seconds()
        load = host.load
        if load is None:
            load = host.load = HostLoad(now)
        load.note(now, outcome, seconds)
        self._all.note(now, outcome, seconds)

    def score(self, host: Any) -> float:
        """
        Return the cost of a host; the lowest score is the best.

        It is C{duration * (active + 1) ** active_bias / success}, where success
        is C{(1 - client errors) ** client_error_bias * (1 - server errors) **
        server_error_bias}, but at least 0.1.  A host without responses
        has the score 0 while it is idle, and otherwise the average response time of the
        cluster, unless its round-trip time is longer.

        @param host: a L{Host}.
        """
        load, age = self._known(host)
        if host.active:
            return self._cost(host, load, age)
        if load is None:
            return 0.0
        # One request is enough to measure an idle host again.
        return self._cost(host, load, age) * exp(-DECAY * min(age, _FADED))

    def scale(self, host: Any) -> float:
        """
        Return the cost of a host relative to the average of the cluster.

        For round robin, which plans turns ahead: the factor is bounded, so that no turn is so
        far away that newer response times come too late.

        @param host: a L{Host}.
        @return: 1 for an average host.
        """
        usual = self._all.duration or self._default
        return min(_FARTHEST, max(1 / _FARTHEST, self._cost(host, *self._known(host)) / usual))

    def _known(self, host: Any) -> tuple[HostLoad | None, float]:
        """Return the numbers of a host, if they are not too old, and their age in seconds."""
        load: HostLoad | None = host.load
        if load is None:
            return None, 0.0
        age = load.age(self._seconds())
        return (None, 0.0) if age > _FORGOTTEN else (load, age)

    def _cost(self, host: Any, load: HostLoad | None, age: float) -> float:
        active = host.active
        cost: float = (active + 1) ** self._active_bias if active else 1.0
        usual = self._all.duration or self._default
        if load is None:
            # A response takes at least one round trip.
            return cost * max(usual, host.rtt or 0.0)
        cost *= load.duration or usual
        if not (load.client_errors or load.server_errors):
            return cost
        kept = exp(-DECAY * min(age, _FADED))
        total = load.total * kept + 1
        success: float = (1 - load.client_errors * kept / total) ** self._client_bias
        success *= (1 - load.server_errors * kept / total) ** self._server_bias
        return cost / max(_LOWEST_SUCCESS, success)
