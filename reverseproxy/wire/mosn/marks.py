"""
How an agent says, on a connection that is lent as a whole, whether it has passed it on.

A C{tcp_proxy} relays what its service sends, so that there is no room for words of
its own, but for the first byte: where both ends have agreed on it (C{marks} in
L{reverseproxy.wire.mosn.extensions}), an agent begins with one of these two,
whatever the service sends.  So a service can't say it in the agent's place.
"""

from __future__ import annotations

__all__ = ["CARRIED", "NOT_CARRIED"]

from typing import Final

CARRIED: Final = b"\x00"
"""What follows is the service's."""

NOT_CARRIED: Final = b"\x01"
"""Nothing that came was passed on, nor will be; the connection is closed behind this."""
