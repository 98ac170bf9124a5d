"""Connections between an agent and a server that the test plays."""

from __future__ import annotations

__all__ = ["INIT", "SUCCESS", "AgentWire"]

from typing import Any

from twisted.internet.address import IPv4Address

from reverseproxy.wire.mosn.frames import Frame, FrameDecoder
from tests.proxy.memory import Wire

INIT = b"\x20\x88\x01\x01\x01\x00\x00\x6f" + (
    b'{"cluster_name":"clientCluster","weight":10,"host_name":"",'
    b'"credential_policy":"","credential":"","extra":null}'
)
"""What a MOSN agent sends first."""

SUCCESS = b'\x20\x88\x01\x02\x02\x00\x00\x0c{"status":1}'
"""What a MOSN server answers."""


class AgentWire(Wire):
    """The agent's end of a TCP connection to a tunnel server."""

    def __init__(self, clock: Any, port: int = 50000, automatic: bool = True) -> None:
        super().__init__(clock, automatic)
        self.port = port

    def getHost(self) -> Any:
        return IPv4Address("TCP", "192.168.0.2", self.port)

    def getPeer(self) -> Any:
        return IPv4Address("TCP", "10.0.0.1", 9999)

    @property
    def closed(self) -> bool:
        """Whether the agent has closed it, or begun to."""
        return self.disconnecting or self.aborted or self.lost

    def frame(self) -> Frame:
        """The one frame that the agent has sent."""
        frame = FrameDecoder().feed(bytes(self.written))
        assert frame is not None, bytes(self.written)
        return frame
