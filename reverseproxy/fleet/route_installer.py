"""Installs the routes of records of the fleet in this server's tunnel listeners."""

from __future__ import annotations

__all__ = ["RouteInstaller", "describe", "matches"]

from collections.abc import Callable
from itertools import count
from typing import Any

from reverseproxy.fleet.records import RouteRecord
from reverseproxy.tunnel.server.agent_routes import AgentRoutes
from reverseproxy.tunnel.server.claims import Claim, Denied
from reverseproxy.wire.mosn.frames import Status


class RouteInstaller:
    """Adds claims to listeners, and removes them."""

    def __init__(
        self, routes_of: Callable[[str], AgentRoutes | None], objection: Callable[[RouteRecord], str]
    ) -> None:
        """
        @param routes_of: returns the routes of a tunnel listener; L{None} where agents may bring none.
        @param objection: returns why this server's configuration does not allow an agent of another server
            its routes; empty if it does.
        """
        self.objection = objection
        self._routes_of = routes_of
        self._serials = count(1)

    def find(self, listener: str, cluster: str) -> Claim | None:
        """Return the claim of a cluster at a listener."""
        routes = self._routes_of(listener)
        return None if routes is None else routes.claims.find(cluster)

    def has(self, record: RouteRecord) -> bool:
        """Return whether the routes of a record are installed."""
        claim = self.find(record.listener, record.cluster)
        return claim is not None and matches(claim, record)

    def grace(self, record: RouteRecord) -> float:
        """Return for how many seconds routes stay after the last connection of their agent."""
        routes = self._routes_of(record.listener)
        return 0.0 if routes is None else routes.claims.rules.grace

    def install(self, record: RouteRecord, remote: bool) -> Denied | None:
        """
        Install the routes of a record that is not installed.

        @param remote: whether another server has granted them.
        @return: why that is not possible; L{None} if it has been done.
        """
        routes = self._routes_of(record.listener)
        if routes is None:
            return Denied(Status.ROUTE_FORBIDDEN, f"agents may bring none to the listener {record.listener}")
        if routes.claims.find(record.cluster) is not None:
            return Denied(
                Status.ROUTE_TAKEN, f"{record.cluster} is another agent's, or has other routes, here"
            )
        objection = self.objection(record) if remote else ""
        if objection:
            return Denied(Status.ROUTE_FORBIDDEN, objection)
        claim = Claim(record.cluster, record.owner, record.domains, record.port, serial=next(self._serials))
        denied = routes.claims.find_problem(claim) if remote else None
        if record.port is not None and not routes.claims.rules.ports.permits_port(record.port):
            denied = Denied(Status.ROUTE_FORBIDDEN, f"agents may not have the port {record.port} here")
        return denied or routes.bring(claim, record.shown, None, remote)

    def remove(self, listener: str, cluster: str) -> None:
        """Remove the routes of a cluster from a listener, if there are any."""
        routes = self._routes_of(listener)
        claim = None if routes is None else routes.claims.find(cluster)
        if routes is not None and claim is not None:
            routes.take_away(cluster, claim.serial)


def matches(claim: Claim, record: RouteRecord) -> bool:
    """Return whether a claim has exactly the routes of a record."""
    return (claim.owner, claim.port, set(claim.domains)) == (record.owner, record.port, set(record.domains))


def describe(routes: RouteRecord | Claim) -> str:
    """Return routes as text for people."""
    found: list[Any] = list(routes.domains)
    if routes.port is not None:
        found.append(f"port {routes.port}")
    return ", ".join(map(str, found)) or "nothing"
