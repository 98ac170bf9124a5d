"""
What builds the protocols of a listener's connections, and can change while they are open.

All connections of one filter share its settings.  These are never changed while a
request looks at them, but when the configuration does, they take over what new
ones have: so what is new counts from the next request on, on every connection, and
none need be closed.  What a connection was made with, such as the limits of its
parser, stays until it ends.
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
    Give settings, a dataclass, the values of others of its kind.

    @param leaving: fields that stay as they are.
    """
    for each in fields(old):
        if each.name not in leaving:
            object.__setattr__(old, each.name, getattr(new, each.name))  # for everybody else it is frozen


class ProtocolBuilder:
    """
    Builds protocols of one kind.

    @ivar kind: what clients speak; L{take_over} works among those with the same.
    @ivar parts: what builds the protocols of some of the connections, once it is known which.
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
        @param accepted: the settings of accepted connections; a dataclass.
        @param reverse: those of connections that an agent hands in.
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
        """Whether what it builds is of the same kind."""
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
        Go on as another one would, for the connections that there are as well.

        @return: whether that could be done; if not, nothing has changed.
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
