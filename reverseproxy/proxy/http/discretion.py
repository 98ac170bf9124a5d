"""
Decide how much of an internal error a response reveals.

Names of clusters, addresses of hosts and their number would reveal the internal
network.  So the response has a general sentence and a number, and the line of
the log with this number has the reason.  A client's own errors are explained to
it.
"""

from __future__ import annotations

__all__ = ["Discretion", "is_inside"]

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from twisted.internet.interfaces import IReactorTime

from reverseproxy.proxy.failures import Failed, FailureLog

_OWN: Final = frozenset({501, 505})
"""Statuses of 500 and above that are about the request."""


def is_inside(status: int) -> bool:
    """
    Whether an error of ours is about the hosts behind us; a 404 may be, if the cluster of a route is missing.
    """
    return status == 404 or (status >= 500 and status not in _OWN)


class Discretion:
    """Decides what responses to clients of one listener reveal of errors."""

    def __init__(
        self, listener: str, clock: IReactorTime, random: Callable[[], float], details: bool
    ) -> None:
        """
        @param random: numbers from 0 to 1, less than 1, that the numbers of errors are made of.
        @param details: whether responses have all details.
        """
        self._random = random
        self._details = details
        self.failures = FailureLog(listener, clock)

    def text(self, failed: Failed) -> str:
        """
        Return the client's text for a request that failed on our side, and log the details that it leaves
        out.
        """
        if not is_inside(failed.status):
            return failed.reason
        if self._details:
            self.failures.note(failed)
            return failed.reason
        number = f"{int(self._random() * 2**32):08x}"
        self.failures.note(failed._replace(number=number))
        return f"{HTTPStatus(failed.status).phrase.lower()} (error {number})"
