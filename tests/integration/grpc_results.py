"""What L{tests.integration.grpc_client} prints if a proxy passes on all that gRPC needs, by scenario."""

from __future__ import annotations

from typing import Any, Final

KINDS: Final[dict[str, Any]] = {
    "unary": "hello",
    "initial": "42",
    "trailing": {"x-trailer": "42", "x-bin": [0, 255]},
    "large": True,
    "many": True,
    "sum": str(2 * 256 * 12_000 + 3),
    "chat": [str(i) for i in range(20)],
    "chat at once": True,
    "parallel": True,
}
"""Every kind of call, with metadata and large messages."""

ENDINGS: Final[dict[str, Any]] = {
    "deadline": "DEADLINE_EXCEEDED",
    "after the deadline": "1",
    "after the cancel": "2",
    "after a stream": "fine",
}
"""Deadlines, and calls that are cancelled."""
