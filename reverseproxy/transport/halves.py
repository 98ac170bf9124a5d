"""The two directions of a connection that can be half-closed."""

from __future__ import annotations

__all__ = ["Half"]

from enum import Enum, auto


class Half(Enum):
    """The state of one direction."""

    OPEN = auto()
    CLOSING = auto()
    """It ends soon: sending when everything is sent, receiving when the protocol resumes reading."""
    CLOSED = auto()
