"""Where one is who is at neither an address nor a port."""

from __future__ import annotations

__all__ = ["ClusterAddress", "TunnelAddress"]

from dataclasses import dataclass

from twisted.internet.interfaces import IAddress
from zope.interface import implementer


@implementer(IAddress)
@dataclass(frozen=True, slots=True)
class TunnelAddress:
    """
    Where a program listens that listens through a tunnel.

    @ivar servers: the tunnel servers, each C{host:port} or C{unix:/path}.
    @ivar cluster: of which cluster of theirs it is a host.
    @ivar name: what it calls itself; may be empty.
    """

    servers: tuple[str, ...]
    cluster: str
    name: str = ""

    def __str__(self) -> str:
        name = f" as {self.name}" if self.name else ""
        return f"cluster {self.cluster} at {', '.join(self.servers)}{name}"


@implementer(IAddress)
@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """
    Whom a program connects to that connects to a cluster.

    @ivar cluster: its name.
    """

    cluster: str

    def __str__(self) -> str:
        return f"cluster {self.cluster}"
