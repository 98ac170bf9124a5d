"""
Who has which of the routes that agents bring: pure decisions.

An agent asks for domains and a port for its cluster.  It gets what its identity
is allowed, as long as nobody else has it; what it has stays its own for a while
after its last connection, so that it finds it again when it comes back.
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
"""Ports that are tried for an agent that wants any."""


@dataclass(frozen=True, slots=True)
class Denied:
    """
    Why an agent does not get what it asks for.

    @ivar status: whether it may not have it, or somebody else has it.
    @ivar reason: for it, and for the log.
    """

    status: Status
    reason: str


@dataclass(slots=True)
class Claim:
    """
    What one cluster of an agent has.

    @ivar cluster: its name.
    @ivar owner: whose it is, as one word.
    @ivar domains: which requests go to it.
    @ivar port: from which port sessions go to it; 0 while any would do, L{None} for none.
    @ivar connections: how many connections hold it.
    @ivar until: when it ends, unless somebody takes it up again; L{None} while it is held.
    @ivar serial: what it is called by whoever decides for several workers; 0 without any.
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
    What the server's configuration says.

    @ivar zone: where subdomains are; empty for nowhere.
    @ivar url: how clients get to a domain, for agents; empty if that is not said.
    @ivar http: whether there is a router to take domains.
    @ivar ports: which ports may be had at all.
    @ivar grace: seconds that a claim stays after its last connection.
    @ivar most: how many claims there may be.
    @ivar most_of_one: how many domains and ports one identity may have.
    """

    zone: str = ""
    url: str = ""
    http: bool = True
    ports: Allowance = field(default_factory=Allowance)
    grace: float = 30.0
    most: int = 1000
    most_of_one: int = 16


class Claims:
    """All claims of one tunnel server."""

    def __init__(
        self,
        rules: Rules,
        configured_cluster: Callable[[str], bool] = lambda name: False,
        configured_domain: Callable[[str], bool] = lambda domain: False,
    ) -> None:
        """
        @param configured_cluster: whether the configuration has a cluster of a name.
        @param configured_domain: whether it has a virtual host of a domain.
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
        """The claim of a cluster."""
        return self._claims.get(cluster)

    def judge(self, owner: str, cluster: str, request: RouteRequest, allowance: Allowance) -> Claim | Denied:
        """
        Decide what an agent gets.

        @param owner: who has proved to be it; empty for nobody in particular.
        @param cluster: the one that it joins.
        @param request: what it asks for; nothing, if it only wants to join.
        @param allowance: what its identity may have.
        @return: the claim, which may be there already; if it is not, nothing has
            been changed, and L{open} does that.
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
        All domains that are asked for, each once.

        @raise ValueError: if one is none.
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
        """Each port that may be had, whoever has it now."""
        for first, last in allowance.ports:
            for lowest, highest in self.rules.ports.ports:
                yield from range(max(first, lowest), min(last, highest) + 1)

    def candidates(self, claim: Claim, allowance: Allowance) -> list[int]:
        """Ports to try for a claim that is not open yet, in this order."""
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
        Judge again what another worker has judged, with all that has been claimed by now.

        @return: why it can't be had after all.
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
        Keep a claim that L{judge} has made, now that everything of it is there.

        @raise ValueError: if somebody else has some of it by now.
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
        """A connection holds a claim from now on."""
        claim.connections += 1
        claim.until = None

    def let_go(self, claim: Claim, now: float) -> bool:
        """
        A connection holds it no more.

        @return: whether that was the last one, so that it will end.
        """
        claim.connections -= 1
        if not claim.connections:
            claim.until = now + self.rules.grace
        return not claim.connections

    def expire(self, now: float) -> list[Claim]:
        """Take out the claims that have ended."""
        ended = [each for each in self._claims.values() if each.until is not None and each.until <= now]
        for claim in ended:
            self.remove(claim)
        return ended

    def remove(self, claim: Claim) -> None:
        """Take out a claim."""
        del self._claims[claim.cluster]
        for domain in claim.domains:
            del self._domains[domain]
        if claim.port is not None:
            del self._ports[claim.port]

    @property
    def next_end(self) -> float | None:
        """When the next claim ends, as things are; L{None} if none does."""
        return min((each.until for each in self._claims.values() if each.until is not None), default=None)


def _forbidden(reason: str) -> Denied:
    return Denied(Status.ROUTE_FORBIDDEN, reason)
