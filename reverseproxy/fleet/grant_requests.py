"""What is being decided about routes that agents bring, and who waits for it."""

from __future__ import annotations

__all__ = ["GrantRequest", "candidates", "satisfies"]

from typing import Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from reverseproxy.fleet.records import RouteRecord, fit, proved
from reverseproxy.tunnel.server.agent_routes import Wanted
from reverseproxy.tunnel.server.claims import Denied
from reverseproxy.wire.mosn.frames import Status

MOST_PORTS: Final = 8
"""Ports that are tried for an agent that takes any."""


class GrantRequest:
    """Whether a cluster may have its routes; several connections may ask it, each of which may be lost."""

    def __init__(self, listener: str, wanted: Wanted) -> None:
        """
        @param listener: where that is asked for.
        """
        self._cluster = wanted.claim.cluster
        self._wish = _wish(listener, wanted)
        self._waiting: list[tuple[Deferred[Denied | None], bool]] = []

    def add(self, listener: str, wanted: Wanted) -> Deferred[Denied | None]:
        """
        Let somebody wait who asks about the same cluster.

        @return: called back as soon as that is decided: if routes were granted, L{None}, whichever
            these are; if they were not, the reason, or another one if somebody asks for others.
        """
        answer: Deferred[Denied | None] = Deferred()
        self._waiting.append((answer, _wish(listener, wanted) == self._wish))
        return answer

    def answer(self, result: Denied | Failure | None) -> None:
        """Tell everybody."""
        other: Denied | None = None
        if isinstance(result, Denied):
            other = Denied(
                Status.ROUTE_TAKEN, f"other routes of the cluster {self._cluster} were refused just now"
            )
        for waiting, same in self._waiting:
            if isinstance(result, Failure):
                waiting.errback(result)
            else:
                waiting.callback(result if same else other)


def _wish(listener: str, wanted: Wanted) -> tuple[object, ...]:
    claim = wanted.claim
    return listener, claim.owner, set(claim.domains), claim.port, wanted.ports


def candidates(server: str, listener: str, wanted: Wanted) -> list[RouteRecord]:
    """Say what a server might grant, in the order in which that is tried: one of several ports."""
    claim, identity = wanted.claim, proved(wanted.identity)
    ports: list[int | None] = [port for port, _ in wanted.ports[:MOST_PORTS]]
    if claim.port is None:
        ports = [None]
    shown = fit(wanted.shown)
    return [
        RouteRecord(claim.cluster, server, listener, claim.owner, shown, claim.domains, port, identity)
        for port in ports
    ]


def satisfies(record: RouteRecord, listener: str, wanted: Wanted) -> bool:
    """Say whether routes are what somebody asks for."""
    claim = wanted.claim
    if (record.port is None) != (claim.port is None):
        return False
    return (
        (record.listener, record.cluster, record.owner) == (listener, claim.cluster, claim.owner)
        and set(record.domains) == set(claim.domains)
        and (record.port is None or any(record.port == port for port, _ in wanted.ports))
    )
