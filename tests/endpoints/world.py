"""A tunnel server in memory, and what programs of Twisted's do with it."""

from __future__ import annotations

__all__ = ["AGENTS", "CLIENTS", "Echo", "Talker", "server_document"]

from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

AGENTS = 9999
CLIENTS = 2222


def server_document(mux: bool = True, **tunnel: Any) -> dict[str, Any]:
    """A tunnel server that relays TCP to whoever serves the cluster C{app}."""

    def listener(name: str, port: int, each: dict[str, Any]) -> dict[str, Any]:
        return {
            "name": name,
            "address": f"127.0.0.1:{port}",
            "bind_port": True,
            "filter_chains": [{"filters": [each]}],
        }

    return {
        "servers": [
            {
                "default_log_path": "stdout",
                "listeners": [
                    listener("tunnels", AGENTS, {"type": "tunnel", "config": {"mux": mux, **tunnel}}),
                    listener("clients", CLIENTS, {"type": "tcp_proxy", "config": {"cluster": "app"}}),
                ],
            }
        ],
        "cluster_manager": {"clusters": [{"name": "app", "type": "SIMPLE", "lb_type": "LB_RANDOM"}]},
    }


class Talker(Protocol):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard = b""
        self.ended: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = reason


@implementer(IHalfCloseableProtocol)
class Echo(Talker):
    """Says back what it hears, and good-bye when there is no more."""

    transport: Any
    peer_ended = False

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.transport.write(data)

    def readConnectionLost(self) -> None:
        self.peer_ended = True
        self.transport.write(b"bye")
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        pass
