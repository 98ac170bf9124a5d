"""Requests for routes that are being decided, and the connections that wait for the decision."""

from __future__ import annotations

__all__ = ["GrantRequest", "candidates", "record_of", "satisfies"]

from collections.abc import Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from reverseproxy.fleet.record_fields import fit
from reverseproxy.fleet.records import RouteRecord, proved
from reverseproxy.identity import AgentIdentity
from reverseproxy.tunnel.server.claims import Denied
from reverseproxy.tunnel.server.route_interfaces import Wanted
from reverseproxy.wire.mosn.frames import Status

MOST_PORTS: Final = 8
"""Ports to try for an agent that accepts any port."""


class GrantRequest:
    """A request for a cluster's routes, for which several connections may wait; each of them may be lost."""

    def __init__(self, listener: str, wanted: Wanted) -> None:
        """@param listener: the tunnel listener at which the routes are requested."""
        self._cluster = wanted.claim.cluster
        self._wish = _wish(listener, wanted)
        self._waiting: list[tuple[Deferred[Denied | None], bool]] = []

    def add(self, listener: str, wanted: Wanted) -> Deferred[Denied | None]:
        """
        Add a connection that requests routes for the same cluster.

        @return: fires with L{None} if routes were granted, whichever these are. If they were denied, it
            fires with the reason; with another one, if this connection has requested other routes than
            the first one.
        """
        answer: Deferred[Denied | None] = Deferred()
        self._waiting.append((answer, _wish(listener, wanted) == self._wish))
        return answer

    def answer(self, result: Denied | Failure | None) -> None:
        """Answer all connections."""
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
    """Return the records that a server may propose, in the order in which to try them: one for each port."""
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
    """Return whether a record has the routes that are requested."""
    claim = wanted.claim
    if (record.port is None) != (claim.port is None):
        return False
    return (
        (record.listener, record.cluster, record.owner) == (listener, claim.cluster, claim.owner)
        and set(record.domains) == set(claim.domains)
        and (record.port is None or any(record.port == port for port, _ in wanted.ports))
    )


def record_of(server: str, claim: Mapping[str, Any]) -> RouteRecord:
    """
    Return the record of a claim that another process of this server has had.

    @param server: this server's id.
    @param claim: the claim as JSON, with C{identity}, if that is proved, beside what
        L{AgentRoutes.bequeath<reverseproxy.tunnel.server.agent_routes.AgentRoutes.bequeath>} returns.
    """
    identity = claim.get("identity")  # without a fleet there was none
    return RouteRecord(
        claim["cluster"],
        server,
        claim["listener"],
        claim["owner"],
        fit(claim["shown"]),
        tuple(claim["domains"]),
        claim["port"],
        None if identity is None else proved(AgentIdentity.from_json(identity)),
    )
