"""The outcomes of requests and connects, for load balancing and outlier detection."""

from __future__ import annotations

__all__ = ["Outcome"]

from enum import IntEnum


class Outcome(IntEnum):
    """
    The outcome of a request, or of a connect.

    The order matters: values from L{SERVER_ERROR} on are failures of the host, or of the
    network.
    """

    CONNECTED = 0
    """A connection was made; there is no response yet."""

    SUCCESS = 1
    """A response with a status below 400, or a session of a protocol without statuses."""

    CLIENT_ERROR = 2
    """A response with a status from 400 to 499."""

    SERVER_ERROR = 3
    """A response with a status of 500 or above."""

    RESET = 4
    """The connection was lost, or the timeout expired, before the response was complete."""

    UNREACHABLE = 5
    """No connection could be made."""

    @classmethod
    def of_status(cls, status: int) -> Outcome:
        """Classify the status of an HTTP response."""
        if status < 400:
            return cls.SUCCESS
        return cls.CLIENT_ERROR if status < 500 else cls.SERVER_ERROR
