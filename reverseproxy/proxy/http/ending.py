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

    @ivar reason: a sentence for the access log.
    @ivar unsent: that the request was sent to no host, and why, if so; a server of
        ours is told.
    @ivar code: the error code with which the host broke the response off, in its
        version of HTTP; 0 if it did not.
    @ivar message: of a response that was broken off: what the client may be told of the reason.
    @ivar status: the status that would have been the answer, had none begun;
        L{STALLED} if it is the client that has not taken it.
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
