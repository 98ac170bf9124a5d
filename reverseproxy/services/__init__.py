"""
The services that C{twistd reverseproxy} and C{twist reverseproxy} run.

L{reverseproxy.tap} reads the options, and makes one of them.
"""

from __future__ import annotations

__all__: list[str] = []
