"""What there is to say of few exchanges only: how one has failed, and what the access log asks."""

from __future__ import annotations

__all__ = ["STALLED", "AccessNotes", "Ending"]

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from reverseproxy.wire.http.unsent import Unsent

STALLED: Final = 499
"""What takes the place of a status if a client has not taken its answer."""


class Ending:
    """
    Why there is no complete response of a host.

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
        """Of a response that was broken off: whether that is because the client has not taken it."""
        return self.status == STALLED


class AccessNotes:
    """
    What only the access log wants to know.

    @ivar sent_at: when the request was sent to the last host.
    @ivar local_address: our address towards it.
    @ivar answered_at: when its response began; L{None} if it did not.
    """

    __slots__ = ("answered_at", "local_address", "sent_at")

    def __init__(self, sent_at: float, local_address: str) -> None:
        self.sent_at = sent_at
        self.local_address = local_address
        self.answered_at: float | None = None
