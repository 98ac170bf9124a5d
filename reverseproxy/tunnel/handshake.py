"""
Admission of agents to clusters: pure decisions.

L{Admission} judges an agent's init frame in MOSN's order: the credential first, the cluster second.
Beyond MOSN, a listener or a cluster can demand a credential policy; MOSN leaves the choice to the agent,
and lets in every agent that names none.
"""

from __future__ import annotations

__all__ = [
    "Accepted",
    "Admission",
    "Hangup",
    "Principal",
    "Refusal",
    "identify_refused",
    "quote",
]

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from reverseproxy.identity import AgentIdentity, shown_agent_id
from reverseproxy.identity.allowance import NOTHING, Allowance
from reverseproxy.interfaces import ConnectionInfo, IConnectionValidator, Identity, INaming
from reverseproxy.wire.mosn.extensions import (
    MAX_RETRY_AFTER,
    MAX_WORKERS,
    Announcement,
    CloseProof,
    ServerAnnouncement,
)
from reverseproxy.wire.mosn.frames import ConnectionInit, InitResponse, Status, effective_weight
from reverseproxy.wire.mosn.route_requests import BroughtRoutes, RouteRequest

MAX_HOST_NAME_LENGTH = 255
"""Characters of an agent's C{host_name} that are kept."""

_QUOTE_LENGTH = 80

NO_ROUTES: Final = RouteRequest()
"""A request for no routes."""


def quote(text: str) -> str:
    """Quote text of a peer for a log: shortened, and in ASCII."""
    return ascii(text if len(text) <= _QUOTE_LENGTH else text[:_QUOTE_LENGTH] + "...")


@dataclass(frozen=True, slots=True)
class Principal:
    """
    The identity that a credential has proved.

    @ivar policy: the policy of the validator that has accepted it.
    @ivar name: the name that the validator has returned; see L{Identity.name}.
    """

    policy: str
    name: str

    @classmethod
    def of(cls, policy: str, identity: Identity) -> Principal | None:
        """Return what an accepted credential proves; L{None} if it is valid, but has no name."""
        return cls(policy, identity.name) if identity.name else None

    def __str__(self) -> str:
        return f"{quote(self.name)} (policy {quote(self.policy)})"


@dataclass(frozen=True, slots=True)
class Refusal:
    """
    A refusal of an init frame, which is answered.

    @ivar status: the status of the response.
    @ivar reason: for the log.
    @ivar retry_after: seconds after which an agent of this project should try again; 0 if that is
        unknown.
    @ivar told: text for such an agent; empty for the status alone.
    @ivar cause: the result that is counted, where neither the status nor C{retry_after} determines it.
    """

    status: Status
    reason: str
    retry_after: float = 0.0
    told: str = ""
    cause: str = ""

    @property
    def result(self) -> str:
        """The result of the attempt to join, as a label of metrics."""
        return self.cause or ("too_many" if self.retry_after else self.status.name.lower())

    def response(self) -> InitResponse:
        """Return the response for the agent."""
        if not self.retry_after and not self.told:
            return InitResponse(self.status)
        milliseconds = 0
        if self.retry_after:
            milliseconds = min(max(round(self.retry_after * 1000), 1), MAX_RETRY_AFTER)
        return InitResponse(
            self.status, ServerAnnouncement(retry_after=milliseconds, reason=self.told).to_extra()
        )


@dataclass(frozen=True, slots=True)
class Hangup:
    """
    A refusal by closing the connection without a response.

    A MOSN agent treats every response with a refusal as final, and dials again only after a connection
    that has ended without one (docs/mosn.rst 8.1): so it gets none if it may join later.

    @ivar reason: for the log.
    @ivar result: the result of the attempt to join, as a label of metrics.
    """

    reason: str
    result: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """
    An init frame that was accepted.

    @ivar cluster: the cluster to join.
    @ivar host_name: the host name that the agent claims, made safe for logs.
    @ivar weight: 1 to 128.
    @ivar principal: the identity that its credential has proved; L{None} without one.
    @ivar announcement: the extensions that an agent of this project announces; L{None} for others.
    @ivar policy: the credential policy that was demanded; empty if none was.
    @ivar used_policy: the policy by which its credential was validated; empty without a credential.
    @ivar allowance: the routes that its credential allows it to bring.
    @ivar named: whether its credential names this cluster.
    """

    cluster: str
    host_name: str
    weight: int
    principal: Principal | None
    announcement: Announcement | None
    policy: str = ""
    used_policy: str = ""
    allowance: Allowance = NOTHING
    named: bool = False

    @property
    def request(self) -> RouteRequest:
        """The routes that the agent requests."""
        return NO_ROUTES if self.announcement is None else self.announcement.routes

    def identify(self, info: ConnectionInfo) -> AgentIdentity:
        """
        Return the agent's identity: what it has proved, and what it claims.

        @param info: its connection.
        """
        name = "" if self.principal is None else self.principal.name
        return _identify(info, name, self.used_policy, self.host_name, self.announcement)

    def response(
        self,
        mux: str = "",
        window: int = 0,
        routes: BroughtRoutes = BroughtRoutes(),  # noqa: B008 - immutable
        workers: int = 1,
    ) -> InitResponse:
        """
        Return the response for the agent; with extensions only for an agent of this project.

        @param mux: the protocol that carries streams from now on, one of those that the agent has
            offered; empty for none.
        @param window: the initial window of streams in bytes; 0 for the protocol's default.
        @param routes: the routes that were granted to it.
        @param workers: how many processes share the server's work.
        """
        extra = None
        if self.announcement is not None:
            told = self.announcement
            extra = ServerAnnouncement(
                mux=mux,
                window=window,
                tells=told.tells,
                moves=bool(mux) and told.moves,
                marks=told.marks and not mux,
                routes=routes,
                workers=min(workers, MAX_WORKERS) if mux and workers > 1 else 0,
            ).to_extra()
        return InitResponse(Status.SUCCESS, extra)


def _identify(
    info: ConnectionInfo, name: str, policy: str, claim: str, announcement: Announcement | None
) -> AgentIdentity:
    return AgentIdentity(
        name=name,
        policy=policy,
        certificate=info.subject,
        claim=claim,
        agent_id="" if announcement is None else shown_agent_id(announcement.agent),
        version=0 if announcement is None else announcement.version,
    )


def identify_refused(info: ConnectionInfo, init: ConnectionInit, identity: Identity) -> AgentIdentity:
    """
    Return the identity of an agent whose credential is valid, and that may not join nevertheless.

    @param info: its connection.
    @param identity: what the validator has returned.
    """
    announcement = Announcement.from_extra(init.extra)
    return _identify(info, identity.name, init.credential_policy, _clean(init.host_name), announcement)


class Admission:
    """
    Judges init frames.

    Where no credential policy is demanded, an agent may use any that is available, as with MOSN: it
    would be let in without a credential, too.

    The caller validates the credential between L{check_policy} and L{conclude}, as that may take time.
    """

    def __init__(
        self,
        cluster_known: Callable[[str], bool],
        validators: Mapping[str, IConnectionValidator],
        policy: str = "",
        cluster_policies: Mapping[str, str] | None = None,
        find_other: Callable[[str], IConnectionValidator | None] = lambda policy: None,
    ) -> None:
        """
        @param cluster_known: returns whether a cluster exists.
        @param validators: the validators, by policy.
        @param policy: the policy that is demanded of all agents; empty for none.
        @param cluster_policies: the policy that is demanded instead, by cluster; empty for none.
        @param find_other: returns the validator of a policy that is not in C{validators}, where none is
            demanded.
        @raise ValueError: if a policy is demanded that has no validator.
        """
        self._cluster_known = cluster_known
        self._find_other = find_other
        self._validators = dict(validators)
        self._policy = policy
        self._cluster_policies = dict(cluster_policies or {})
        for demanded in (policy, *self._cluster_policies.values()):
            if demanded and demanded not in self._validators:
                known = ", ".join(sorted(self._validators)) or "none"
                raise ValueError(
                    f"the credential policy {demanded!r} is demanded of agents but has no validator; "
                    f"there are validators for: {known}"
                )

    @property
    def validators(self) -> Iterable[IConnectionValidator]:
        """The configured validators."""
        return self._validators.values()

    def demanded_policy(self, cluster: str) -> str:
        """Return the policy that is demanded for a cluster; empty if none is."""
        return self._cluster_policies.get(cluster, self._policy)

    def _validator(self, policy: str, cluster: str) -> IConnectionValidator | None:
        """Return the validator of a policy that an agent uses to join a cluster."""
        validator = self._validators.get(policy) if policy else None
        if validator is None and policy and not self.demanded_policy(cluster):
            validator = self._find_other(policy)
        return validator

    def objection(self, policy: str, name: str, cluster: str, brought: bool = False) -> str:
        """
        Return why an agent that another server has let in would not be let in here.

        @param policy: the policy by which the other server has validated its credential; empty without
            one.
        @param name: the name of its credential.
        @param brought: whether the agent has brought the cluster.
        @return: empty if there is no objection.
        """
        demanded = self.demanded_policy(cluster)
        if demanded and policy != demanded:
            used = f"has been let in by {quote(policy)}" if policy else "has shown no credential"
            return f"cluster {quote(cluster)} demands the credential policy {demanded!r}, and it {used}"
        naming = INaming(self._validators.get(policy), None) if policy and name else None
        if naming is None:
            return ""
        good = naming.allowance_of(name) is not None if brought else naming.may_join(name, cluster)
        if not good:
            return f"no token of {quote(name)} is good for cluster {quote(cluster)} here"
        return ""

    def allowance_of(self, policy: str, name: str) -> Allowance | None:
        """
        Return which routes an agent may bring that another server has let in.

        @param policy: as for L{objection}, as is C{name}.
        @return: L{None} if the validator of the policy does not know agents by their names.
        """
        naming = INaming(self._validators.get(policy), None) if policy and name else None
        return None if naming is None else naming.allowance_of(name) or NOTHING

    def judges(self, policy: str, cluster: str) -> bool:
        """Return whether there is a validator of a policy for agents that join a cluster."""
        return self._validator(policy, cluster) is not None

    def check_policy(self, init: ConnectionInit) -> IConnectionValidator | Refusal | None:
        """
        Choose how an agent's credential is validated.

        @return: the validator to ask; L{None} if there is no credential to validate; or a refusal.
        """
        policy = init.credential_policy
        validator = self._validator(policy, init.cluster_name)
        if policy and validator is None:
            return Refusal(
                Status.VALIDATOR_MISSING, f"there is no validator for its credential policy {quote(policy)}"
            )
        demanded = self.demanded_policy(init.cluster_name)
        if demanded and policy != demanded:
            used = f"uses {quote(policy)}" if policy else "uses none"
            return Refusal(
                Status.CREDENTIAL_REJECTED,
                f"cluster {quote(init.cluster_name)} demands the credential policy {demanded!r}, "
                f"the agent {used}",
            )
        return validator

    def conclude(
        self, init: ConnectionInit, identity: Identity | None, brings_cluster: bool = False
    ) -> Accepted | Refusal:
        """
        Judge an init frame whose credential has been validated.

        Everything is checked again, so that no agent is accepted if a caller leaves out L{check_policy}.

        @param identity: what the validator has returned; L{None} also if it has failed, or there was
            none.
        @param brings_cluster: whether the agent may join a cluster that does not exist, as it would be
            created for it.
        """
        checked = self.check_policy(init)
        if isinstance(checked, Refusal):
            return checked
        principal, named = None, False
        weight = effective_weight(init.weight)
        if checked is not None:
            policy = quote(init.credential_policy)
            if identity is None:
                return Refusal(
                    Status.CREDENTIAL_REJECTED, f"the validator of policy {policy} rejected its credential"
                )
            named = identity.clusters is not None and init.cluster_name in identity.clusters
            # A cluster that it brings is created for it, or refused as another agent's.
            if identity.clusters is not None and not named and not brings_cluster:
                return Refusal(
                    Status.CREDENTIAL_REJECTED,
                    f"its credential belongs to {quote(identity.name)}, who may not join cluster "
                    f"{quote(init.cluster_name)}",
                    cause="cluster_forbidden",
                )
            if identity.max_weight is not None:
                weight = max(1, min(weight, identity.max_weight))
            principal = Principal.of(init.credential_policy, identity)
        if not brings_cluster and not self._cluster_known(init.cluster_name):
            return Refusal(Status.CLUSTER_UNKNOWN, f"there is no cluster {quote(init.cluster_name)}")
        return Accepted(
            cluster=init.cluster_name,
            host_name=_clean(init.host_name),
            weight=weight,
            principal=principal,
            announcement=Announcement.from_extra(init.extra),
            policy=self.demanded_policy(init.cluster_name),
            used_policy="" if checked is None else init.credential_policy,
            allowance=NOTHING if checked is None or identity is None else identity.routes,
            named=named,
        )

    def close_validator(self, proof: CloseProof | None, cluster: str) -> IConnectionValidator | None:
        """
        Return the validator for the credential of a graceful close.

        @param cluster: the cluster of the hosts that the frame names.
        @return: L{None} if there is none to ask, so that the frame proves no principal.
        """
        if proof is None or not proof.credential_policy:
            return None
        return self._validator(proof.credential_policy, cluster)


def _clean(host_name: str) -> str:
    """Make a host name that a peer claims safe for logs, metrics and pages."""
    return "".join(
        character if character.isprintable() else "?" for character in host_name[:MAX_HOST_NAME_LENGTH]
    )
