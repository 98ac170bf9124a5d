"""
Builders of the protocols of a listener's connections, with settings that can be replaced.

All connections of one filter share its settings.  When the configuration changes, the
values of the new settings are copied into the old ones, between requests: so they
apply to the next request on every connection, and no connection need be closed.  What
a connection was made with, such as the limits of its parser, stays until it is closed.
"""

from __future__ import annotations

__all__ = ["ProtocolBuilder", "take_over"]

from collections.abc import Callable, Collection
from dataclasses import fields
from typing import Any

from twisted.internet.interfaces import IProtocol

from reverseproxy.interfaces import ConnectionInfo


def take_over(old: Any, new: Any, leaving: Collection[str] = ()) -> None:
    """
    Copy the values of settings, a dataclass, into others of the same class.

    @param leaving: fields that keep their values.
    """
    for each in fields(old):
        if each.name not in leaving:
            object.__setattr__(old, each.name, getattr(new, each.name))  # frozen, except for this


class ProtocolBuilder:
    """
    Builds protocols of one kind.

    @ivar kind: the clients' protocol; L{take_over} needs two of the same kind.
    @ivar parts: the builders of the protocols that a detector chooses among.
    """

    def __init__(
        self,
        kind: str,
        protocol: Callable[[Any, ConnectionInfo], IProtocol],
        accepted: Any,
        reverse: Any,
        parts: Collection[Any] = (),
        own: Collection[str] = (),
    ) -> None:
        """
        @param protocol: makes a protocol of settings and a connection's facts.
        @param accepted: the settings of accepted connections; a dataclass.
        @param reverse: the settings of connections that an agent hands in.
        @param own: fields of the settings that hold the parts.
        """
        self.kind = kind
        self.parts = tuple(parts)
        self._protocol = protocol
        self._accepted = accepted
        self._reverse = reverse
        self._own = own

    def __call__(self, info: ConnectionInfo) -> IProtocol:
        """Build the protocol of one connection."""
        return self._protocol(self._reverse if info.reverse else self._accepted, info)

    def _fits(self, newer: object) -> bool:
        """Return whether the other builder is of the same kind, with the same parts."""
        return (
            isinstance(newer, ProtocolBuilder)
            and newer.kind == self.kind
            and len(newer.parts) == len(self.parts)
            and all(
                isinstance(mine, ProtocolBuilder) and mine._fits(its)
                for mine, its in zip(self.parts, newer.parts, strict=True)
            )
        )

    def take_over(self, newer: object) -> bool:
        """
        Take over the settings of another builder, for open connections as well.

        @return: whether that was possible; if not, nothing has changed.
        """
        if not self._fits(newer):
            return False
        assert isinstance(newer, ProtocolBuilder)
        take_over(self._accepted, newer._accepted, self._own)
        if self._reverse is not self._accepted:
            take_over(self._reverse, newer._reverse, self._own)
        for mine, its in zip(self.parts, newer.parts, strict=True):
            mine.take_over(its)
        return True
