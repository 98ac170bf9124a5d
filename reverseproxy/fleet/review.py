"""Regular checks of what may turn against links and agents: certificates, and this server's configuration."""

from __future__ import annotations

__all__ = ["REVIEW", "FleetReview"]

from collections.abc import Callable, Hashable
from typing import Any, Final

from twisted.internet.task import LoopingCall

from reverseproxy.fleet.incoming_links import IncomingLinks
from reverseproxy.fleet.outgoing_links import OutgoingLinks
from reverseproxy.tls import ClientTls, ServerTls, verify_again

REVIEW: Final = 1.0
"""Seconds between two checks."""


class FleetReview:
    """Reloads certificates, ends links with peers that are not accepted any more, and notices objections."""

    def __init__(
        self,
        clock: Any,
        incoming: IncomingLinks,
        outgoing: OutgoingLinks,
        tls: ServerTls | None,
        dial_tls: ClientTls | None,
        standing: Callable[[], Hashable],
        changed: Callable[[], object],
    ) -> None:
        """
        @param tls: for incoming links, and for checking the peers of all links; L{None} for plaintext.
        @param dial_tls: for outgoing links.
        @param standing: returns a value that differs whenever there may be other objections to agents.
        @param changed: called when it differs.
        """
        self._incoming = incoming
        self._outgoing = outgoing
        self._tls, self._dial_tls = tls, dial_tls
        self._version = 0 if tls is None else tls.version
        self._standing = standing
        self._stood: Hashable = None
        self._changed = changed
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def start(self) -> None:
        """Check every L{REVIEW} seconds from now on."""
        self._loop.start(REVIEW, now=False)

    def stop(self) -> None:
        """Check no more."""
        if self._loop.running:
            self._loop.stop()

    def _look(self) -> None:
        tls = self._tls
        if tls is not None:
            tls.reload_if_changed()
            if self._dial_tls is not None:
                self._dial_tls.reload_if_changed()
            if tls.version != self._version:
                self._version = tls.version
                self._judge_links(tls)
        standing = self._standing()
        if standing != self._stood:
            self._stood = standing
            self._changed()

    def _judge_links(self, tls: ServerTls) -> None:
        """End links whose peers have certificates that are not valid any more."""
        for incoming in list(self._incoming.all):
            reason = verify_again(incoming.transport, tls)
            if reason:
                incoming.complain(reason)
                incoming.session.abort(reason)
        for outgoing in self._outgoing:
            session = outgoing.session
            reason = "" if session is None else verify_again(session.transport, tls)
            if reason:
                outgoing.revoke(reason)
