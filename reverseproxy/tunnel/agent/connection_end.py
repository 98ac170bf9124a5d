"""Which end has closed a connection first."""

from __future__ import annotations

__all__ = ["ConnectionEnd", "Side"]

from enum import Enum

from twisted.internet.error import ConnectionAborted
from twisted.python.failure import Failure


class Side(Enum):
    """An end of a connection."""

    WE = "we"
    SERVER = "server"


class ConnectionEnd:
    """
    Remembers the end that has closed the connection, or its half of it, first.

    @ivar by: that end; L{None} before.
    """

    __slots__ = ("by",)

    def __init__(self) -> None:
        self.by: Side | None = None

    def note(self, side: Side) -> None:
        """Note that an end has closed its half."""
        self.by = self.by or side

    def lost(self, transport: object, reason: Failure) -> None:
        """Note that the connection is lost."""
        ours = getattr(transport, "disconnecting", False) or reason.check(ConnectionAborted)
        self.note(Side.WE if ours else Side.SERVER)
