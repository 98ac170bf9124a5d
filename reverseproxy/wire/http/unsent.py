"""
How an agent of ours says that it has not sent a request on.

A server that knows so may give the request to another agent, whatever it is: an
order that was sent to nobody is not placed twice.  It is said where both ends
have agreed on it (C{tells} in L{reverseproxy.wire.mosn.extensions}), and to nobody else.

In HTTP, a header beside the status says so.  RPC protocols have numbers for it
among their statuses, which none of their own implementations uses, and a stream
is reset in a way of its own (L{reverseproxy.wire.yamux.frames.UNSENT}).
"""

from __future__ import annotations

__all__ = ["UNSENT_FIELD", "UNSENT_HEADER", "Unsent"]

from enum import IntEnum
from typing import Final


class Unsent(IntEnum):
    """Why a request was not sent on."""

    REQUEST = 1
    """There is a reason for this request; others may fare better."""

    SERVICE = 2
    """The agent can't reach its service, so that no request gets there."""

    @classmethod
    def of_text(cls, text: str | None) -> Unsent | None:
        """Read the value of L{UNSENT_HEADER}; L{None} if there is none, or it is of no known kind."""
        return _VALUES.get(text or "")

    @property
    def text(self) -> bytes:
        """The value of L{UNSENT_HEADER}."""
        return b"service" if self is Unsent.SERVICE else b"request"


_VALUES: Final = {"request": Unsent.REQUEST, "service": Unsent.SERVICE}

UNSENT_HEADER: Final = "x-reverseproxy-unsent"
"""The header of HTTP that says it, beside a status from 500 on."""

UNSENT_FIELD: Final = UNSENT_HEADER.encode("ascii")
