"""The factory for protocols of a tunnel listener's connections."""

from __future__ import annotations

__all__ = ["ServedTunnel"]

from typing import TYPE_CHECKING

from reverseproxy.interfaces import ConnectionInfo

if TYPE_CHECKING:
    from reverseproxy.tunnel.server.connection import TunnelConnection
    from reverseproxy.tunnel.server.filter import TunnelServer


class ServedTunnel:
    """
    The factory for protocols of a listener's connections.

    @ivar server: what they share.
    """

    def __init__(self, server: TunnelServer) -> None:
        self.server = server

    def __call__(self, info: ConnectionInfo) -> TunnelConnection:
        """Build the protocol of a connection."""
        return self.server.build_protocol(info)

    def take_over(self, newer: object) -> bool:
        """
        Use the configuration of another factory.

        @return: whether that is of this class.
        """
        if not isinstance(newer, ServedTunnel):
            return False
        self.server.take_over(newer.server)
        return True
