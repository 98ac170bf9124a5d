"""The links to all other servers of the fleet."""

from __future__ import annotations

__all__ = ["OutgoingLinks"]

from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from reverseproxy.fleet.outgoing_link import ILinkUser, LinkContext, LinkPhase, OutgoingLink
from reverseproxy.fleet.records import ServerRecord
from reverseproxy.tunnel.agent.backoff import Backoff

FIRST_PAUSE: Final = 0.25
"""Seconds before the first attempt to dial again, at most; doubled after each failure."""

LONGEST_PAUSE: Final = 5.0
"""Seconds between two attempts, at most."""


class OutgoingLinks:
    """
    The links to all other servers.

    @ivar all: by the server's id.
    """

    def __init__(
        self,
        server_id: str,
        clock: IReactorTime,
        random: Random,
        user: ILinkUser,
        endpoint: Callable[[str], IStreamClientEndpoint],
        prove: Callable[[Any, str], str],
    ) -> None:
        """
        @param server_id: as for L{LinkContext}, as are C{clock}, C{user}, C{endpoint} and C{prove}.
        @param random: for the delays before servers are dialled.
        """
        self._context = LinkContext(server_id, clock, user, endpoint, prove)
        self.all: dict[str, OutgoingLink] = {}
        self._random = random
        self._running = False

    def __iter__(self) -> Iterator[OutgoingLink]:
        return iter(list(self.all.values()))

    def get(self, server: str) -> OutgoingLink | None:
        """Return the link to a server."""
        return self.all.get(server)

    def reaches(self, server: str) -> bool:
        """Return whether the link to a server is up."""
        link = self.all.get(server)
        return link is not None and link.phase is LinkPhase.UP

    def start(self) -> None:
        """Dial all servers that are known, and those that are added from now on."""
        self._running = True
        for link in self:
            self._begin(link)

    def _begin(self, link: OutgoingLink) -> None:
        """Dial after a random delay, as many servers may learn of a new one at the same moment."""
        if link.phase is LinkPhase.IDLE:
            self._context.clock.callLater(self._random.uniform(0.0, FIRST_PAUSE / 2), self._first, link)

    def _first(self, link: OutgoingLink) -> None:
        if link.phase is LinkPhase.IDLE:
            link.dial()

    def add(self, record: ServerRecord) -> None:
        """Add a server."""
        if record.id == self._context.server_id or record.id in self.all:
            return
        link = OutgoingLink(self._context, record, Backoff(FIRST_PAUSE, LONGEST_PAUSE, self._random))
        self.all[record.id] = link
        if self._running:
            self._begin(link)

    def change(self, record: ServerRecord) -> None:
        """Update the record of a server."""
        link = self.all.get(record.id)
        if link is not None:
            link.changed(record)

    def remove(self, server: str, reason: str) -> None:
        """Remove a server, and end the link to it; streams that are open on it are finished."""
        link = self.all.pop(server, None)
        if link is not None:
            link.end(reason)

    def stop(self) -> None:
        """Abort all links."""
        self._running = False
        for server in list(self.all):
            self.all.pop(server).abort("stopping")
