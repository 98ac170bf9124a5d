"""How it went with a host, in the few words that balancing and ejection need."""

from __future__ import annotations

__all__ = ["Outcome"]

from enum import IntEnum


class Outcome(IntEnum):
    """
    What became of a request, or of an attempt to connect.

    The order is meant: from L{SERVER_ERROR} on the host, or the way to it, is
    to blame.
    """

    CONNECTED = 0
    """A connection was made; nothing is known of requests yet."""

    SUCCESS = 1
    """An answer with a status below 400, or a session of a protocol without such a thing."""

    CLIENT_ERROR = 2
    """An answer with a status from 400 to 499."""

    SERVER_ERROR = 3
    """An answer with a status of 500 or above."""

    RESET = 4
    """The connection was lost, or the time was over, before there was a whole answer."""

    UNREACHABLE = 5
    """No connection could be made."""

    @classmethod
    def of_status(cls, status: int) -> Outcome:
        """Classify the status of an HTTP response."""
        if status < 400:
            return cls.SUCCESS
        return cls.CLIENT_ERROR if status < 500 else cls.SERVER_ERROR
