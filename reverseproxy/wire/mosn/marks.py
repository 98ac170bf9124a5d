"""
How an agent that relays bytes tells its server whether anything of a session was passed on.

On a connection that carries no streams, all that a C{tcp_proxy} sends is its service's.
Where both ends have agreed on it (C{marks} in L{reverseproxy.wire.mosn.extensions};
docs/wire-protocol.rst), the agent puts one of these bytes in front, which the server
takes off.  So a service can't forge it.
"""

from __future__ import annotations

__all__ = ["CARRIED", "NOT_CARRIED"]

from typing import Final

CARRIED: Final = b"\x00"
"""The bytes behind it are the service's."""

NOT_CARRIED: Final = b"\x01"
"""Nothing that came was passed on, nor will be; the agent closes the connection."""
