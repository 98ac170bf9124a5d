"""
What a server of a fleet waits for after its start: the exclusions that the other servers know.

Each of them sends these as soon as there is a link to it (L{reverseproxy.fleet.orders}). An agent that an
operator has excluded would be let in before that, and would stay. So agents wait in the handshake until
there is a link to any other server, or none of them can be asked; for L{PATIENCE} at the most.
"""

from __future__ import annotations

__all__ = ["MARGIN", "PATIENCE", "CatchUp"]

from collections.abc import Callable
from itertools import islice
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from reverseproxy.fleet.outgoing_links import OutgoingLinks
from reverseproxy.tunnel.server.exclusions import Exclusions

log = Logger()

PATIENCE: Final = 5.0
"""Seconds after the start for which agents wait, at most; MOSN's expect a response within 15 s."""

MARGIN: Final = 0.1
"""Seconds after a link is up in which the exclusions arrive that are sent behind its first message."""

LOOK: Final = 0.05
"""Seconds between two looks at the directory and the links."""

_MOST_NAMED: Final = 5


class CatchUp:
    """Lets agents wait until this process knows the exclusions of the fleet, once."""

    def __init__(
        self,
        clock: IReactorTime,
        links: OutgoingLinks,
        is_read: Callable[[], bool],
        exclusions: Exclusions,
    ) -> None:
        """
        @param links: the links to all other servers that are known.
        @param is_read: returns whether the directory has been read, so that all servers are known.
        @param exclusions: gets L{Exclusions.until_known} for this time.
        """
        self._clock = clock
        self._links = links
        self._is_read = is_read
        self._exclusions = exclusions
        self._waiting: dict[Deferred[None], None] = {}
        self._timer: IDelayedCall | None = None
        self._until = 0.0
        self._linked: float | None = None

    def start(self) -> None:
        """Let agents wait from now on, unless there is nothing to wait for."""
        self._exclusions.until_known = self._wait
        self._until = self._clock.seconds() + PATIENCE
        self._look()

    def stop(self) -> None:
        """Cancel the timer; agents that wait are left to whoever closes their connections."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def linked(self) -> None:
        """Note that a link to another server is up."""
        if self._linked is None:
            self._linked = self._clock.seconds()

    def _wait(self) -> Deferred[None]:
        waiting: Deferred[None] = Deferred(lambda waiting: self._waiting.pop(waiting, None))
        self._waiting[waiting] = None
        return waiting

    def _look(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        if self._linked is not None:
            over = now >= self._linked + MARGIN
        else:
            over = now >= self._until or (self._is_read() and all(link.failed for link in self._links))
        if not over:
            self._timer = self._clock.callLater(LOOK, self._look)
            return
        if self._linked is None:
            self._say_unknown()
        self._exclusions.until_known = None
        waiting, self._waiting = self._waiting, {}
        for each in waiting:
            if not each.called:
                each.callback(None)

    def _say_unknown(self) -> None:
        """Log why no other server has sent its exclusions, unless there is no other server."""
        links = list(self._links)
        if not self._is_read():
            reason = f"the directory has not been read within {PATIENCE:g} s"
        elif links:
            named = [f"{link.server}: {link.problem}" for link in islice(links, _MOST_NAMED)]
            rest = len(links) - len(named)
            reason = "; ".join([*named, f"and {rest} more"] if rest else named)
        else:
            return
        log.warn(
            "fleet: agents may join, although no other server has said whom operators keep out: {reason}",
            reason=reason,
        )
