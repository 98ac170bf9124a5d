"""What has been forwarded to other servers, and by them: counted, and nothing else."""

from __future__ import annotations

__all__ = ["PeerTraffic", "Traffic"]

from collections.abc import Mapping


class PeerTraffic:
    """
    What went to one server, and came from it.

    @ivar sent: streams that were opened to its agents.
    @ivar received: streams that it has opened to ours.
    @ivar refused: those of them that could not be served, and were told to be tried elsewhere.
    @ivar active: those that are under way.
    """

    __slots__ = ("active", "received", "refused", "sent")

    def __init__(self) -> None:
        self.sent = self.received = self.refused = self.active = 0


class Traffic:
    """The same for all servers, by their ids."""

    def __init__(self) -> None:
        self._peers: dict[str, PeerTraffic] = {}

    def of(self, server: str) -> PeerTraffic:
        """Find the counts of a server."""
        found = self._peers.get(server)
        if found is None:
            found = self._peers[server] = PeerTraffic()
        return found

    @property
    def peers(self) -> Mapping[str, PeerTraffic]:
        """All that there have been."""
        return self._peers

    def sent(self, server: str) -> None:
        """A stream was opened to an agent of a server."""
        self.of(server).sent += 1
