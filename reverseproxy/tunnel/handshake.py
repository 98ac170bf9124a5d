"""
Who may join which cluster: pure decisions.

L{Admission} judges an agent's init frame in MOSN's order: the credential first,
the cluster second.  Beyond MOSN, a listener or a cluster can demand a
credential policy, where MOSN leaves the choice to the agent and lets in every
agent that names none.
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
"""How many characters of an agent's C{host_name} are kept."""

_QUOTE_LENGTH = 80

NO_ROUTES: Final = RouteRequest()
"""Asks for nothing."""


def quote(text: str) -> str:
    """Quote what a peer sent so that it can't garble or fill a log."""
    return ascii(text if len(text) <= _QUOTE_LENGTH else text[:_QUOTE_LENGTH] + "...")


@dataclass(frozen=True, slots=True)
class Principal:
    """
    Whom a credential proved an agent to be.

    @ivar policy: the policy of the validator that said so.
    @ivar name: the name that it gave; see L{Identity.name}.
    """

    policy: str
    name: str

    @classmethod
    def of(cls, policy: str, identity: Identity) -> Principal | None:
        """What an accepted credential proves; L{None} if it is good, but nobody's in particular."""
        return cls(policy, identity.name) if identity.name else None

    def __str__(self) -> str:
        return f"{quote(self.name)} (policy {quote(self.policy)})"


@dataclass(frozen=True, slots=True)
class Refusal:
    """
    An init frame was refused.

    @ivar status: the answer.
    @ivar reason: for the log.
    @ivar retry_after: after how many seconds an agent of ours should try again;
        0 if there is no telling.
    @ivar told: what such an agent is told besides; empty for no more than the status.
    @ivar cause: why, in a word that is counted, where neither the status nor C{retry_after} says it.
    """

    status: Status
    reason: str
    retry_after: float = 0.0
    told: str = ""
    cause: str = ""

    @property
    def result(self) -> str:
        """What has become of the attempt to join, in a word that is counted."""
        return self.cause or ("too_many" if self.retry_after else self.status.name.lower())

    def response(self) -> InitResponse:
        """What to answer the agent."""
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
    The server closes a connection without an answer.

    A MOSN agent takes every refusal for final, and dials again only after a connection that
    ended without an answer (docs/mosn.rst 8.1): so that is what it gets where it may join later.

    @ivar reason: for the log.
    @ivar result: what has become of the attempt to join, in a word that is counted.
    """

    reason: str
    result: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """
    An init frame was accepted.

    @ivar cluster: the cluster to join.
    @ivar host_name: the agent's name for itself, fit for a log.
    @ivar weight: 1 to 128.
    @ivar principal: whom a credential proved the agent to be; L{None} without one.
    @ivar announcement: what the agent says of itself if it is one of ours.
    @ivar policy: the credential policy that the agent had to use; empty if none was demanded.
    @ivar used_policy: the one by which its credential was judged; empty without a credential.
    @ivar allowance: which routes its credential lets it bring.
    @ivar named: whether its credential is for this very cluster.
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
        """The routes that the agent asks for."""
        return NO_ROUTES if self.announcement is None else self.announcement.routes

    def identify(self, info: ConnectionInfo) -> AgentIdentity:
        """
        Put together who the agent is: what it has proved, and what it says.

        @param info: the connection that it came over.
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
        What to answer the agent: nothing but MOSN's own, unless it is one of ours.

        @param mux: how the connection carries streams from now on, if it does;
            one of those that the agent has offered.
        @param window: with how many bytes streams begin, if not with as many as
            that way has by itself.
        @param routes: those that it was given of its own.
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
    Put together who an agent is that may not join, although its credential is good.

    @param info: the connection that it came over.
    @param identity: what the validator said.
    """
    announcement = Announcement.from_extra(init.extra)
    return _identify(info, identity.name, init.credential_policy, _clean(init.host_name), announcement)


class Admission:
    """
    Judges init frames.

    Where no credential policy is demanded, an agent may use any that there is,
    as with MOSN: one that it need not use lets nobody in who would not get in
    without.

    The credential is judged between L{check_policy} and L{conclude}, by the
    caller, since that may take time.
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
        @param cluster_known: whether there is a cluster of a name.
        @param validators: the validators by policy.
        @param policy: the policy demanded of every agent; empty for none.
        @param cluster_policies: the policy demanded of agents that join a
            cluster, by cluster, instead of C{policy}; empty for none.
        @param find_other: finds the validator of a policy that is not among
            C{validators}, where none is demanded.
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
        """Those that are configured."""
        return self._validators.values()

    def demanded_policy(self, cluster: str) -> str:
        """The policy that an agent has to use to join a cluster; empty if any will do, or none."""
        return self._cluster_policies.get(cluster, self._policy)

    def _validator(self, policy: str, cluster: str) -> IConnectionValidator | None:
        """The validator of a policy that an agent uses to join a cluster."""
        validator = self._validators.get(policy) if policy else None
        if validator is None and policy and not self.demanded_policy(cluster):
            validator = self._find_other(policy)
        return validator

    def objection(self, policy: str, name: str, cluster: str, brought: bool = False) -> str:
        """
        Say what speaks against an agent that another server has let in.

        @param policy: by which that one has judged its credential; empty without one.
        @param name: whose that is.
        @param brought: whether it has brought the cluster, which is its own then.
        @return: empty if nothing does.
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
        Say which routes an agent may bring that another server has let in.

        @param policy: as in L{objection}, as is C{name}.
        @return: L{None} if what judges such credentials here does not know agents by their names.
        """
        naming = INaming(self._validators.get(policy), None) if policy and name else None
        return None if naming is None else naming.allowance_of(name) or NOTHING

    def judges(self, policy: str, cluster: str) -> bool:
        """Whether there is anything here that judges credentials of a policy, to join a cluster."""
        return self._validator(policy, cluster) is not None

    def check_policy(self, init: ConnectionInit) -> IConnectionValidator | Refusal | None:
        """
        See how an agent's credential is to be judged.

        @return: the validator to ask; L{None} if there is no credential to
            judge; or a refusal, in which case there is nothing left to do.
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
        Judge an init frame, its credential having been judged.

        Everything is checked again here, so that leaving out L{check_policy}
        lets nobody in.

        @param identity: what the validator said; L{None} too if it failed, or
            if there was none to ask.
        @param brings_cluster: whether the agent may join a cluster that there is
            not, as it would be made for it.
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
            # A cluster that it brings is its own, or refused as one of the others.
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
        The validator to ask about the credential of a graceful close.

        @param cluster: the cluster whose hosts it is about.
        @return: L{None} if there is nothing to judge, so that the frame proves
            no principal.
        """
        if proof is None or not proof.credential_policy:
            return None
        return self._validator(proof.credential_policy, cluster)


def _clean(host_name: str) -> str:
    """Make a peer's name for itself fit for logs, metrics and pages."""
    return "".join(
        character if character.isprintable() else "?" for character in host_name[:MAX_HOST_NAME_LENGTH]
    )
