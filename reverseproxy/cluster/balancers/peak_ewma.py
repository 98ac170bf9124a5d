"""
How quickly hosts answer, and how often they fail: what LB_PEAK_EWMA goes by.

Each host carries its own numbers (C{Host.load}), which are gone with it.
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
"""What is 30 s old counts C{exp(-5)} of what is new (docs/mosn.rst 5): the exponent for one second."""

_SHARE: Final = 1 - exp(-DECAY)
"""What one event adds to a rate, as MOSN has it: with one event each second the rate is 1."""

_MOST_KEPT: Final = 0.999
"""What an average keeps of itself at the most, however soon one answer follows another."""

_FADED: Final = 30.0
"""Seconds after which numbers do not fade any further."""

_FORGOTTEN: Final = 60.0
"""Seconds after which numbers no longer count at all."""

_FARTHEST: Final = 100.0
"""A host's turn is put off no more than this many times what is usual, nor brought nearer."""

_LOWEST_SUCCESS: Final = 0.1
"""A score is not raised more than tenfold for errors (docs/mosn.rst 5)."""


class HostLoad:
    """
    What is remembered of one host, or of all hosts together.

    @ivar at: when it was last brought up to date, in the clock's seconds.
    @ivar duration: the moving average of the time to an answer, in seconds; 0
        as long as there was none.
    @ivar total: requests a second, decaying.
    @ivar client_errors: those of them that were answered with a client error.
    @ivar server_errors: those of them that failed in another way.
    """

    __slots__ = ("at", "client_errors", "duration", "server_errors", "total")

    def __init__(self, now: float) -> None:
        self.at = now
        self.duration = 0.0
        self.total = 0.0
        self.client_errors = 0.0
        self.server_errors = 0.0

    def note(self, now: float, outcome: Outcome, seconds: float) -> None:
        """Take one request in."""
        kept = exp((self.at - now) * DECAY)
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
    Keeps the scores of a cluster's hosts.

    MOSN's formula (docs/mosn.rst 5), with a mean as the average.  What is known of a host
    that has nothing to do counts less and less, and after a minute nothing is
    known of it: so a host that was slow is tried again after a while, with one
    request at first, and keeps its share if it has become quick.  What counts
    as under way on a reverse host is what really is.
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
        @param default: seconds that a host takes before anything is known of any.
        @param active_bias: how much requests under way count; 0 for not at all.
        @param client_error_bias: how much client errors count.
        @param server_error_bias: how much other errors count.
        """
        self._seconds = clock.seconds
        self._default = default or 10.0
        self._active_bias = max(0.0, active_bias)
        self._client_bias = max(0.0, client_error_bias)
        self._server_bias = max(0.0, server_error_bias)
        self._all = HostLoad(clock.seconds())

    def note(self, host: Host, outcome: Outcome, seconds: float) -> None:
        """
        Take in how a request went.

        @param seconds: the time from the request to its answer.
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
        Say how costly a host is; the lowest score is the best.

        It is C{duration * (active + 1) ** active_bias / success}, where success
        is C{(1 - client errors) ** client_error_bias * (1 - server errors) **
        server_error_bias}, but at least 0.1.  A host of which nothing is known
        costs nothing as long as it has nothing to do, and is taken to be as
        quick as the cluster then, unless it is known to be farther away.

        @param host: a L{Host}.
        """
        load, age = self._known(host)
        if host.active:
            return self._cost(host, load, age)
        if load is None:
            return 0.0
        # One request is enough to find out how quick an idle host is now.
        return self._cost(host, load, age) * exp(-DECAY * min(age, _FADED))

    def scale(self, host: Any) -> float:
        """
        Say how costly a host is in comparison with what is usual in the cluster.

        For turns, which are planned ahead by what is known at the time: nobody's
        may be so far away that what is learnt meanwhile comes too late.

        @param host: a L{Host}.
        @return: 1 for a host that is usual.
        """
        usual = self._all.duration or self._default
        return min(_FARTHEST, max(1 / _FARTHEST, self._cost(host, *self._known(host)) / usual))

    def _known(self, host: Any) -> tuple[HostLoad | None, float]:
        """What is known of a host, if it still counts, and its age in seconds."""
        load: HostLoad | None = host.load
        if load is None:
            return None, 0.0
        age = self._seconds() - load.at
        return (None, 0.0) if age > _FORGOTTEN else (load, age)

    def _cost(self, host: Any, load: HostLoad | None, age: float) -> float:
        active = host.active
        cost: float = (active + 1) ** self._active_bias if active else 1.0
        usual = self._all.duration or self._default
        if load is None:
            # It can't answer before a request has come to it, and the answer back.
            return cost * max(usual, host.rtt or 0.0)
        cost *= load.duration or usual
        if not (load.client_errors or load.server_errors):
            return cost
        kept = exp(-DECAY * min(age, _FADED))
        total = load.total * kept + 1
        success: float = (1 - load.client_errors * kept / total) ** self._client_bias
        success *= (1 - load.server_errors * kept / total) ** self._server_bias
        return cost / max(_LOWEST_SUCCESS, success)
