"""How an exchange failed: kept for those that did only."""

from __future__ import annotations

__all__ = ["STALLED", "Ending"]

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from reverseproxy.wire.http.unsent import Unsent

STALLED: Final = 499
"""What takes the place of a status if a client has not taken its answer."""


class Ending:
    """
    Why the host gave no complete response.

    @ivar reason: the reason, for the access log.
    @ivar unsent: why the request was sent to no host, for the server that forwarded
        it; L{None} if it was sent.
    @ivar code: the error code with which the host reset the response, in its
        version of HTTP; 0 if it did not.
    @ivar message: if the response was broken off, the text for the client.
    @ivar status: if the response was broken off, the status that the error would
        have had; L{STALLED} if the client did not read the response.
    """

    __slots__ = ("code", "message", "reason", "status", "unsent")

    def __init__(self) -> None:
        self.reason = self.message = ""
        self.code = self.status = 0
        self.unsent: Unsent | None = None

    @property
    def stalled(self) -> bool:
        """Whether the response was broken off because the client did not read it."""
        return self.status == STALLED
