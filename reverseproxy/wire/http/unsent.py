"""
How an agent tells its server that it has not sent a request on.

The server may then send the request to another agent, even if it is not
idempotent.  Agents do so only where both ends have agreed on it (C{tells} in
L{reverseproxy.wire.mosn.extensions}; docs/wire-protocol.rst).

In HTTP, a header beside the status says so.  RPC protocols have statuses for it
that none of their own implementations uses, and a stream is reset with a code
(L{reverseproxy.wire.yamux.frames.UNSENT}).
"""

from __future__ import annotations

__all__ = ["UNSENT_FIELD", "UNSENT_HEADER", "Unsent"]

from enum import IntEnum
from typing import Final


class Unsent(IntEnum):
    """Why a request was not sent on."""

    REQUEST = 1
    """The reason concerns this request alone; others may succeed."""

    SERVICE = 2
    """The agent can't reach its service, so that every request would fail."""

    @classmethod
    def of_text(cls, text: str | None) -> Unsent | None:
        """Parse the value of L{UNSENT_HEADER}; L{None} for every other value."""
        return _VALUES.get(text or "")

    @property
    def text(self) -> bytes:
        """The value of L{UNSENT_HEADER}."""
        return b"service" if self is Unsent.SERVICE else b"request"


_VALUES: Final = {"request": Unsent.REQUEST, "service": Unsent.SERVICE}

UNSENT_HEADER: Final = "x-reverseproxy-unsent"
"""The header of HTTP that says it, beside a status from 500 on."""

UNSENT_FIELD: Final = UNSENT_HEADER.encode("ascii")
