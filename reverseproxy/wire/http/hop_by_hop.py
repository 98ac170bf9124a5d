"""Fields that concern one connection only (RFC 9110, 7.6.1)."""

from __future__ import annotations

__all__ = ["HOP_BY_HOP", "OF_THE_MESSAGE"]

from typing import Final

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""
Fields that are not forwarded.

Transfer-Encoding is written anew where it applies; HTTP2-Settings belongs to the h2c
upgrade, which we ignore.
"""

OF_THE_MESSAGE: Final = HOP_BY_HOP | {b"content-length", b"expect", b"host"}
"""These, and those that say where a message ends, which authority it is for, and what precedes its body."""
