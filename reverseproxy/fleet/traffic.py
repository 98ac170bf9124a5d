"""Counters of streams that were forwarded to other servers, and by them."""

from __future__ import annotations

__all__ = ["PeerTraffic", "Traffic"]

from collections.abc import Mapping


class PeerTraffic:
    """
    The counters of one server.

    @ivar sent: streams that were opened to its agents.
    @ivar received: streams that it has opened to agents of this server.
    @ivar refused: those of them that this server has refused, so that they are tried elsewhere.
    @ivar active: those of them that are relayed as bytes, and have not ended.
    """

    __slots__ = ("active", "received", "refused", "sent")

    def __init__(self) -> None:
        self.sent = self.received = self.refused = self.active = 0


class Traffic:
    """The counters of all servers, by id."""

    def __init__(self) -> None:
        self._peers: dict[str, PeerTraffic] = {}

    def of(self, server: str) -> PeerTraffic:
        """Return the counters of a server."""
        found = self._peers.get(server)
        if found is None:
            found = self._peers[server] = PeerTraffic()
        return found

    @property
    def peers(self) -> Mapping[str, PeerTraffic]:
        """The counters of all servers that streams went to or came from."""
        return self._peers

    def sent(self, server: str) -> None:
        """Count a stream that is opened to an agent of a server."""
        self.of(server).sent += 1
