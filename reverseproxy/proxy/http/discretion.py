"""
What a client is told of an error that is not its own.

Names of clusters, addresses of hosts and how many of them there are would tell
a stranger how the inside is built.  So the answer has a general sentence and a
number, and the line of the log with that number has the reason.  What a client
has done wrong itself it is told.
"""

from __future__ import annotations

__all__ = ["Discretion", "is_inside"]

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from reverseproxy.logs import Throttle

log = Logger()

LOG_RATE: Final = 5.0
"""Lines about errors in answers of one listener, in each second."""

LOG_BURST: Final = 50
"""How many of them may come at once."""

_OWN: Final = frozenset({501, 505})
"""Statuses of 500 and above that are about the request."""


def is_inside(status: int) -> bool:
    """Whether an error of ours is about what is behind us; a 404 is, if the cluster of a route is missing."""
    return status == 404 or (status >= 500 and status not in _OWN)


class Discretion:
    """Decides for one listener."""

    def __init__(
        self, listener: str, clock: IReactorTime, random: Callable[[], float], details: bool
    ) -> None:
        """
        @param random: numbers from 0 to 1, less than 1, that the numbers of errors are made of.
        @param details: whether clients are told everything.
        """
        self._listener = listener
        self._random = random
        self._details = details
        self._throttle = Throttle(clock, LOG_RATE, LOG_BURST)

    def text(self, status: int, reason: str, peer: str, request_id: str | None = None) -> str:
        """
        Say what to tell a client, and log what it is not told.

        @param reason: a sentence for people.
        @param peer: the client's address.
        @param request_id: what the request calls itself (C{X-Request-Id}), if it does.
        """
        if self._details or not is_inside(status):
            return reason
        number = f"{int(self._random() * 2**32):08x}"
        throttle = self._throttle
        if throttle.allow():
            log.info(
                "{listener}: error {number}: a request of {peer}{own} gets {status}: {reason}"
                " ({suppressed} such lines left out before)",
                listener=self._listener,
                number=number,
                peer=peer,
                own="" if request_id is None else f" (X-Request-Id {request_id[:80]!a})",
                status=status,
                reason=reason,
                suppressed=throttle.suppressed,
            )
        return f"{HTTPStatus(status).phrase.lower()} (error {number})"
