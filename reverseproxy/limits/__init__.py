"""
Limits of a process for what strangers send: connections, buffered bytes, and counts of what was refused.

All of it is pure: no sockets, no clock.  L{reverseproxy.listener.connection_limiter}
applies the limits to connections that listeners accept.
"""

from __future__ import annotations

__all__: list[str] = []
