"""
What Twisted leaves to its users about TCP and names.

Options of TCP connections, what the kernel knows of them, detection of dead peers,
names that are resolved again and again, and timeouts that don't blame a peer for
the time that this process was late itself.
"""

from __future__ import annotations

__all__: list[str] = []
