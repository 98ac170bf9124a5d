"""
The process: its signals, its log, its service manager, reloads, and how another process takes its place.

What is here knows nothing of proxying.  The services that use it are in
L{reverseproxy.services}.
"""

from __future__ import annotations

__all__: list[str] = []
