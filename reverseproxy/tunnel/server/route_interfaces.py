"""Interfaces to what creates the routes of agents, and to what decides about them for several processes."""

from __future__ import annotations

__all__ = ["IRouteArbiter", "IRouteSurface", "Wanted", "owner_of"]

from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from reverseproxy.identity import AgentIdentity
from reverseproxy.listener import Listen
from reverseproxy.tunnel.server.claims import Claim, Denied


class IRouteSurface(Protocol):
    """Creates and removes what routes consist of: clusters, virtual hosts and listeners."""

    def take_over(self, newer: Any) -> None:
        """Use the settings of another one from now on."""

    def add_cluster(self, name: str) -> None:
        """
        Create a cluster.

        @raise ValueError: if there is one of this name.
        """

    def remove_cluster(self, name: str) -> None:
        """Remove a cluster; requests that wait for it fail."""

    def expect_host(self, name: str, seconds: float) -> None:
        """Let requests for a cluster wait for its agent, for so many seconds."""

    def add_domain(self, domain: str, cluster: str) -> None:
        """
        Route a domain's requests to a cluster.

        @raise ValueError: if the domain is routed already.
        """

    def remove_domain(self, domain: str) -> None:
        """Route a domain no more."""

    def address_of(self, port: int) -> str:
        """Return the address at which a port would be opened."""

    def open_port(self, port: int, cluster: str, listen: Listen | None = None) -> None:
        """
        Route a port's sessions to a cluster.

        @param listen: listens instead of binding the port, if another process has bound it.
        @raise ValueError: if the port can't be opened.
        """

    def close_port(self, port: int) -> None:
        """Accept no more sessions at a port; open ones continue."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    A claim that a worker asks an arbiter for.

    @ivar claim: the claim; its port is 0 if any of several will do.
    @ivar shown: the agent's identity as text.
    @ivar ports: ports that will do, each with its address; empty if none is requested.
    @ivar identity: the agent's identity; L{None} if the arbiter does not need it.
    """

    claim: Claim
    shown: str
    ports: tuple[tuple[int, str], ...]
    identity: AgentIdentity | None = None


class IRouteArbiter(Protocol):
    """Decides about claims for several workers, or servers, one request after the other."""

    def ask(self, listener: str, wanted: Wanted) -> Deferred[Denied | None]:
        """
        Ask for a claim.

        @return: fires with the reason if it is denied; with L{None} once all workers have the claim, or
            another one of the same cluster.
        """

    def count(self, claim: Claim, change: int, grace: float) -> None:
        """
        Count a connection that holds a claim at this worker.

        @param change: 1, or -1 if it is gone.
        @param grace: seconds for which the claim stays when no connection holds it anywhere.
        """


def owner_of(identity: AgentIdentity) -> str:
    """Return the owner of claims that an identity makes, as one word; empty if it has proved nothing."""
    if identity.name:
        return f"token:{identity.name} (policy {identity.policy})"
    if identity.certificate is not None:
        return f"certificate:{identity.certificate.key}"
    return ""
