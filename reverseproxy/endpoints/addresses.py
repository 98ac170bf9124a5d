"""The addresses of tunnel endpoints."""

from __future__ import annotations

__all__ = ["ClusterAddress", "TunnelAddress"]

from dataclasses import dataclass

from twisted.internet.interfaces import IAddress
from zope.interface import implementer


@implementer(IAddress)
@dataclass(frozen=True, slots=True)
class TunnelAddress:
    """
    The address of a program that listens through tunnel servers.

    @ivar servers: the tunnel servers, each C{host:port} or C{unix:/path}.
    @ivar cluster: the servers' cluster of which the program is a host.
    @ivar name: the name of the program as an agent; may be empty.
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
    The address of a cluster of this process, to connect to.

    @ivar cluster: its name.
    """

    cluster: str

    def __str__(self) -> str:
        return f"cluster {self.cluster}"
