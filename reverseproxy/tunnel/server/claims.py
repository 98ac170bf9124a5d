"""
Claims to routes that agents bring: pure decisions.

An agent requests domains and a port for its cluster. It gets what its identity is allowed, unless
another one has it; it keeps that for a grace time after its last connection, and finds it again when it
reconnects.
"""

from __future__ import annotations

__all__ = ["Claim", "Claims", "Denied", "Rules"]

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from reverseproxy.identity.allowance import Allowance, clean_domain
from reverseproxy.wire.mosn.frames import Status
from reverseproxy.wire.mosn.route_requests import RouteRequest

MOST_TRIED: Final = 64
"""Ports to try for an agent that accepts any."""


@dataclass(frozen=True, slots=True)
class Denied:
    """
    A denied request.

    @ivar status: whether the routes are forbidden, or taken.
    @ivar reason: for the agent, and for the log.
    """

    status: Status
    reason: str


@dataclass(slots=True)
class Claim:
    """
    The routes of one cluster of an agent.

    @ivar cluster: the cluster's name.
    @ivar owner: the owner's identity, as one word.
    @ivar domains: whose requests go to the cluster.
    @ivar port: whose sessions go to it; 0 while any port would do, L{None} for none.
    @ivar connections: how many connections hold the claim.
    @ivar until: when it ends; L{None} while it is held.
    @ivar serial: the arbiter's number of it; 0 without an arbiter.
    """

    cluster: str
    owner: str
    domains: tuple[str, ...] = ()
    port: int | None = None
    connections: int = 0
    until: float | None = None
    serial: int = 0


@dataclass(frozen=True, slots=True)
class Rules:
    """
    The limits that the configuration sets.

    @ivar zone: the domain whose subdomains may be requested; empty for none.
    @ivar url: the URL pattern of domains, for agents; empty if it is not configured.
    @ivar http: whether there is a router for domains.
    @ivar ports: the ports that may be requested at all.
    @ivar grace: seconds for which a claim stays after its last connection.
    @ivar most: claims, at most.
    @ivar most_of_one: domains and ports of one owner, at most.
    """

    zone: str = ""
    url: str = ""
    http: bool = True
    ports: Allowance = field(default_factory=Allowance)
    grace: float = 30.0
    most: int = 1000
    most_of_one: int = 16


class Claims:
    """All claims at one tunnel listener."""

    def __init__(
        self,
        rules: Rules,
        configured_cluster: Callable[[str], bool] = lambda name: False,
        configured_domain: Callable[[str], bool] = lambda domain: False,
    ) -> None:
        """
        @param configured_cluster: returns whether the configuration has a cluster of a name.
        @param configured_domain: returns whether it has a virtual host for a domain.
        """
        self.rules = rules
        self._configured_cluster = configured_cluster
        self._configured_domain = configured_domain
        self._claims: dict[str, Claim] = {}
        self._domains: dict[str, Claim] = {}
        self._ports: dict[int, Claim] = {}

    def __iter__(self) -> Iterator[Claim]:
        return iter(self._claims.values())

    def __len__(self) -> int:
        return len(self._claims)

    def find(self, cluster: str) -> Claim | None:
        """Return the claim of a cluster."""
        return self._claims.get(cluster)

    def judge(self, owner: str, cluster: str, request: RouteRequest, allowance: Allowance) -> Claim | Denied:
        """
        Decide about a request.

        @param owner: the proved identity; empty for none.
        @param cluster: the cluster that the agent joins.
        @param request: the routes that it requests; none, if it only joins.
        @param allowance: what its identity is allowed.
        @return: the claim. If it is new, nothing has changed yet, and L{open} adds it.
        """
        known = self._claims.get(cluster)
        if known is not None and known.owner != owner:
            return Denied(Status.ROUTE_TAKEN, f"the cluster {cluster} is another agent's")
        if not request:
            if known is None:
                raise ValueError("there is nothing to decide")
            return known
        if not owner:
            return _forbidden("only an agent that has proved who it is may bring routes")
        if known is None and self._configured_cluster(cluster):
            return _forbidden(f"the cluster {cluster} is the configuration's, which alone gives it routes")
        try:
            domains = self._wanted(request)
        except ValueError as error:
            return _forbidden(str(error))
        denied = self._judge_domains(domains, cluster, allowance) or self._judge_port(
            request.port, cluster, allowance
        )
        if denied is not None:
            return denied
        if known is not None:
            return self._same(known, domains, request.port)
        return self._judge_number(owner, len(domains) + (request.port is not None)) or Claim(
            cluster, owner, domains, request.port
        )

    def _same(self, known: Claim, domains: tuple[str, ...], port: int | None) -> Claim | Denied:
        same_port = port == known.port or (port == 0 and known.port is not None)
        if set(domains) != set(known.domains) or not same_port:
            return Denied(
                Status.ROUTE_TAKEN,
                f"the cluster {known.cluster} has other routes now; they can be changed "
                f"{self.rules.grace:g} s after its last connection has ended",
            )
        return known

    def _wanted(self, request: RouteRequest) -> tuple[str, ...]:
        """
        Return all requested domains, each once.

        @raise ValueError: if one is invalid.
        """
        wanted = [clean_domain(each) for each in request.domains]
        if request.subdomains and not self.rules.zone:
            raise ValueError("this server has no zone of which there could be subdomains")
        wanted += [clean_domain(f"{each}.{self.rules.zone}") for each in request.subdomains]
        return tuple(dict.fromkeys(wanted))

    def _judge_domains(self, domains: tuple[str, ...], cluster: str, allowance: Allowance) -> Denied | None:
        if domains and not self.rules.http:
            return _forbidden("this server takes no domains from agents")
        for domain in domains:
            if not allowance.permits_domain(domain):
                return _forbidden(f"its identity may not have the domain {domain}")
            if self._configured_domain(domain):
                return Denied(Status.ROUTE_TAKEN, f"the domain {domain} is the configuration's")
            holder = self._domains.get(domain)
            if holder is not None and holder.cluster != cluster:
                return Denied(
                    Status.ROUTE_TAKEN, f"the domain {domain} belongs to the cluster {holder.cluster}"
                )
        return None

    def _judge_port(self, port: int | None, cluster: str, allowance: Allowance) -> Denied | None:
        if port is None:
            return None
        if port == 0:
            if any(self._may_have(allowance)):
                return None
            return _forbidden("its identity may not have any port")
        if not (allowance.permits_port(port) and self.rules.ports.permits_port(port)):
            return _forbidden(f"its identity may not have the port {port}")
        holder = self._ports.get(port)
        if holder is not None and holder.cluster != cluster:
            return Denied(Status.ROUTE_TAKEN, f"the port {port} belongs to the cluster {holder.cluster}")
        return None

    def _may_have(self, allowance: Allowance) -> Iterator[int]:
        """Return the ports that an identity may have, taken ones included."""
        for first, last in allowance.ports:
            for lowest, highest in self.rules.ports.ports:
                yield from range(max(first, lowest), min(last, highest) + 1)

    def candidates(self, claim: Claim, allowance: Allowance) -> list[int]:
        """Return the ports to try for a claim that has not been opened yet, in order."""
        if claim.port:
            return [claim.port]
        free: list[int] = []
        for port in self._may_have(allowance):
            if port not in self._ports and port not in free:
                free.append(port)
                if len(free) == MOST_TRIED:
                    break
        return free

    def _judge_number(self, owner: str, more: int) -> Denied | None:
        if len(self._claims) >= self.rules.most:
            return Denied(Status.ROUTE_TAKEN, f"this server has {self.rules.most} clusters of agents already")
        have = sum(len(c.domains) + (c.port is not None) for c in self._claims.values() if c.owner == owner)
        if have + more > self.rules.most_of_one:
            return _forbidden(
                f"one identity may have {self.rules.most_of_one} domains and ports, and this one has {have}"
            )
        return None

    def find_problem(self, claim: Claim) -> Denied | None:
        """
        Check a claim that another worker or server has judged against the claims that exist by now.

        @return: why it can't be added.
        """
        if claim.cluster in self._claims:
            return Denied(Status.ROUTE_TAKEN, f"the cluster {claim.cluster} is another agent's")
        if self._configured_cluster(claim.cluster):
            return _forbidden(
                f"the cluster {claim.cluster} is the configuration's, which alone gives it routes"
            )
        everything = Allowance.of(("*",), ())
        return self._judge_domains(claim.domains, claim.cluster, everything) or self._judge_number(
            claim.owner, len(claim.domains) + (claim.port is not None)
        )

    def open(self, claim: Claim) -> None:
        """
        Add a claim that L{judge} has returned, now that everything of it has been created.

        @raise ValueError: if another claim has some of it by now.
        """
        if (
            claim.cluster in self._claims
            or any(domain in self._domains for domain in claim.domains)
            or claim.port in self._ports
        ):
            raise ValueError("it is somebody's by now")
        self._claims[claim.cluster] = claim
        self._domains |= dict.fromkeys(claim.domains, claim)
        if claim.port is not None:
            self._ports[claim.port] = claim

    def hold(self, claim: Claim) -> None:
        """Count a connection that holds a claim."""
        claim.connections += 1
        claim.until = None

    def let_go(self, claim: Claim, now: float) -> bool:
        """
        Count a connection that held a claim no more.

        @return: whether it was the last one, so that the claim will end.
        """
        claim.connections -= 1
        if not claim.connections:
            claim.until = now + self.rules.grace
        return not claim.connections

    def expire(self, now: float) -> list[Claim]:
        """Remove the claims that have ended, and return them."""
        ended = [each for each in self._claims.values() if each.until is not None and each.until <= now]
        for claim in ended:
            self.remove(claim)
        return ended

    def remove(self, claim: Claim) -> None:
        """Remove a claim."""
        del self._claims[claim.cluster]
        for domain in claim.domains:
            del self._domains[domain]
        if claim.port is not None:
            del self._ports[claim.port]

    @property
    def next_end(self) -> float | None:
        """When the next claim ends; L{None} if all are held."""
        return min((each.until for each in self._claims.values() if each.until is not None), default=None)


def _forbidden(reason: str) -> Denied:
    return Denied(Status.ROUTE_FORBIDDEN, reason)
