"""Failed attempts of a request, and the time that it waited: kept for requests that have any."""

from __future__ import annotations

__all__ = ["Setbacks", "WaitTimes"]


class Setbacks:
    """
    The failed attempts of a request.

    It is made when the first of them fails: most requests have none.

    @ivar uncounted: how many attempts don't count, as nothing was sent in them.
    @ivar passed_over: how many hosts were given back because they speak another protocol; see
        L{MOST_PASSED<reverseproxy.proxy.http.host_choice.MOST_PASSED>}.
    @ivar trouble: why the last attempt failed, if nothing was sent in it, and the same as flags.
    @ivar new_connection: whether the next attempt needs a new connection, as an idle one was closed.
    @ivar retrying: whether this attempt counts as a retry of the cluster.
    @ivar doubtful: whether a host may have seen the request, although it is to be sent again.
    """

    __slots__ = ("doubtful", "new_connection", "passed_over", "retrying", "trouble", "uncounted")

    def __init__(self) -> None:
        self.uncounted = self.passed_over = 0
        self.trouble: tuple[str, int] | None = None
        self.new_connection = self.retrying = self.doubtful = False


class WaitTimes:
    """
    How long a request has waited, in seconds.

    It is made when the request has to wait for the first time.

    @ivar since: since when, by the clock, it is waiting; L{None} if it is not.
    @ivar host: for a host that is free.
    @ivar connection: for new connections to hosts.
    """

    __slots__ = ("connection", "host", "since")

    def __init__(self) -> None:
        self.since: float | None = None
        self.host = self.connection = 0.0
