"""
Connections that have joined a cluster, and what of their state moves to another worker with them.

A L{JoinedConnection} is in the registry, where a graceful close finds it, and counts towards quotas.
When the connection moves, its L{JoinRecord} and L{ConnectionState} go with it, and it becomes a
L{MovedConnection} in the other worker.
"""

from __future__ import annotations

__all__ = ["ConnectionState", "JoinedConnection", "MovedConnection", "JoinRecord"]

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.handover import Handover
from reverseproxy.cluster.host import MuxHost, ReverseHost, clamp_weight
from reverseproxy.identity import CertificateSubject
from reverseproxy.interfaces import ConnectionInfo, IDrainable, IRevoking
from reverseproxy.limits.connection_limit import address_key
from reverseproxy.net.dead_peers import watch_over
from reverseproxy.tunnel.handshake import Accepted, Principal, Refusal
from reverseproxy.tunnel.server.claims import Claim
from reverseproxy.tunnel.server.quotas import NOBODY, QuotaPlace
from reverseproxy.tunnel.server.registry import RegisteredConnection
from reverseproxy.wire.mosn.extensions import Announcement
from reverseproxy.wire.mosn.frames import ConnectionInit

if TYPE_CHECKING:
    from reverseproxy.tunnel.server.filter import TunnelServer


@dataclass(frozen=True, slots=True)
class JoinRecord:
    """
    The agent that has brought a connection.

    @ivar listener: the listener that has accepted it.
    @ivar init: the init frame with the credential, by which the agent may be judged again.
    @ivar accepted: the result of the handshake.
    @ivar info: the connection.
    """

    listener: str
    init: ConnectionInit
    accepted: Accepted
    info: ConnectionInfo

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON."""
        accepted, info = self.accepted, self.info
        principal, announcement, subject = accepted.principal, accepted.announcement, info.subject
        init = self.init
        return {
            "init": [
                init.cluster_name,
                init.weight,
                init.host_name,
                init.credential_policy,
                init.credential,
                init.extra,
            ],
            "listener": self.listener,
            "cluster": accepted.cluster,
            "host_name": accepted.host_name,
            "weight": accepted.weight,
            "principal": None if principal is None else [principal.policy, principal.name],
            "announcement": None if announcement is None else announcement.to_extra(),
            "policy": accepted.policy,
            "used_policy": accepted.used_policy,
            "remote": info.remote,
            "local": info.local,
            "secure": info.secure,
            "identity": info.identity,
            "subject": None if subject is None else [subject.key, subject.subject, list(subject.names)],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> JoinRecord:
        """Restore what L{to_json} has returned."""
        principal, subject = value["principal"], value["subject"]
        accepted = Accepted(
            cluster=value["cluster"],
            host_name=value["host_name"],
            weight=value["weight"],
            principal=None if principal is None else Principal(*principal),
            announcement=Announcement.from_extra(value["announcement"]),
            policy=value["policy"],
            used_policy=value["used_policy"],
        )
        info = ConnectionInfo(
            remote=value["remote"],
            local=value["local"],
            secure=value["secure"],
            identity=value["identity"],
            subject=None
            if subject is None
            else CertificateSubject(subject[0], subject[1], tuple(subject[2])),
        )
        return cls(value["listener"], ConnectionInit(*value["init"]), accepted, info)


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """
    The state of an idle connection.

    @ivar early: bytes that have come before its first use.
    @ivar used: whether it has been used.
    @ivar marked: whether the agent's mark is still to come, or to be consumed.
    """

    early: bytes = b""
    used: bool = False
    marked: bool = False

    @classmethod
    def of(cls, host: ReverseHost) -> ConnectionState:
        """Return the state of a host's connection."""
        return cls(host.early, host.used, host.marked)

    def restore(
        self, host: ReverseHost, connection: Handover, holding: JoinedConnection, rest: bytes = b""
    ) -> None:
        """
        Attach a connection to its host.

        @param rest: further bytes that have come, and that no protocol has seen.
        @raise ConnectionUnavailable: if the connection is lost.
        """
        host.arrive(connection, holding.gone, self.early + rest, self.used, self.marked)

    def to_json(self) -> list[Any]:
        """Return all fields as JSON."""
        return [base64.b64encode(self.early).decode("ascii"), self.used, self.marked]

    @classmethod
    def from_json(cls, value: Sequence[Any]) -> ConnectionState:
        """Restore what L{to_json} has returned."""
        early, used, marked = value
        return cls(base64.b64decode(early), used, marked)


class JoinedConnection:
    """
    A connection that has joined, for as long as this process has it.

    @ivar join_record: the agent that has brought it.
    @ivar host: the host that it is.
    @ivar connection: its protocol.
    @ivar server: the tunnel server.
    @ivar claimed: whether it holds a claim to routes.
    """

    def __init__(
        self,
        server: TunnelServer,
        join_record: JoinRecord,
        host: ReverseHost | MuxHost,
        connection: TunnelProtocol,
        place: QuotaPlace = NOBODY,
        relayed: bool = False,
        claimed: bool = False,
    ) -> None:
        """
        @param place: what it takes of the quotas.
        @param relayed: whether another worker has its TLS, and checks its certificate.
        @param claimed: whether it holds a claim to routes.
        """
        accepted = join_record.accepted
        self.join_record = join_record
        self.host = host
        self.connection = connection
        self.server = server
        self._place = place
        self._over = False
        self._held = RegisteredConnection(
            host,
            accepted.cluster,
            join_record.info,
            accepted.principal,
            accepted.announcement,
            accepted.policy,
        )
        server.registry.add(self._held)
        server.revocations.add(self)
        self._relayed = relayed
        self.claimed = claimed
        host.same_agent = server.registry.same_agent(self._held)

    @property
    def busy(self) -> bool:
        """Whether a request is in progress on it."""
        return bool(self.host.active) and not self._over

    def drain(self) -> None:
        """Let requests finish, and tell the agent that no more will come, as the server stops."""
        if self._over:
            return  # another worker has it, or it is lost
        if self.host.cluster is not None:
            self.host.cluster.remove_host(self.host, "the server stops")
        self.host.retire()

    def gone(self, host: ReverseHost | MuxHost, reason: str) -> None:
        """Remove the host, which can take no further request."""
        self.end()
        if host.cluster is not None:
            host.cluster.remove_host(host, reason)
        if isinstance(host, ReverseHost) and host.used:
            self.server.join_rate.credit()

    def end(self) -> None:
        """Deregister the connection, which is lost, or another worker's."""
        self._over = True
        self.server.registry.remove(self._held)
        self.server.revocations.discard(self)
        self.leave_place()

    # IJoined

    def judge_again(self, credentials: bool) -> Deferred[str]:
        """See L{IJoined<reverseproxy.tunnel.server.revocation.IJoined>}."""
        return Deferred.fromCoroutine(self._judge_again(credentials))

    async def _judge_again(self, credentials: bool) -> str:
        server, join_record = self.server, self.join_record
        init, info, before = join_record.init, join_record.info, join_record.accepted
        reason = "" if self._relayed else server.transport_policy.objection(info, self.connection.transport)
        if reason:
            return reason
        checked = server.admission.check_policy(init)
        if isinstance(checked, Refusal):
            return checked.reason
        identity = None
        if checked is not None:
            revoking = IRevoking(checked, None)
            if revoking is None and not credentials:
                return "" if before.cluster in server.clusters else f"there is no cluster {before.cluster}"
            judge = checked.validate if revoking is None else revoking.judge_again
            judging: Deferred[Any] = maybeDeferred(judge, init.credential, init.host_name, init.cluster_name)
            identity = await judging
        verdict = server.admission.conclude(init, identity, server.brings_cluster(init))
        if isinstance(verdict, Refusal):
            return verdict.reason
        if verdict.principal != before.principal:
            return "its credential is another one's now"
        if self.claimed and server.routes is not None:
            reason = server.routes.judge_again(verdict, info)
        if verdict.weight != before.weight and not self._over:
            self.join_record = replace(join_record, accepted=verdict)
            host = self.host
            if host.cluster is None:  # it joins in a moment
                host.weight = clamp_weight(verdict.weight, host.max_weight)
            else:
                host.cluster.weigh(host, verdict.weight)
                server.workers.announce_weight(host)
        return reason

    def revoke(self, reason: str, grace: float) -> None:
        """See L{IJoined<reverseproxy.tunnel.server.revocation.IJoined>}."""
        if self._over:
            return
        host, server = self.host, self.server
        server.peer_log.warn(
            "{listener}: {peer} of {identity} is revoked, and closed within {seconds:g} s: {reason}",
            peer=self.join_record.info.remote,
            identity=str(host.identity),
            seconds=grace,
            reason=reason,
        )
        if host.cluster is not None:
            host.cluster.remove_host(host, f"revoked: {reason}")
        else:
            host.retire()
        if not host.closed:
            server.clock.callLater(grace, host.close, reason)

    def take_place(self) -> QuotaPlace:
        """Return the place in the quotas, which the caller has to give back."""
        place, self._place = self._place, NOBODY
        return place

    def leave_place(self) -> None:
        """Give back the place in the quotas."""
        self.server.quotas.give_back(self.take_place())


@implementer(IDrainable)
class TunnelProtocol(Handover):
    """
    A connection that is a host, or may become one.

    @ivar holding: its state as a host; L{None} before it is one.
    """

    holding: JoinedConnection | None = None

    @property
    def busy(self) -> bool:
        """Whether it is a host with a request in progress."""
        return self.holding is not None and self.holding.busy

    def drain(self) -> None:
        """Let requests finish, and tell the agent that no more will come; see L{IDrainable}."""
        if self.holding is not None:
            self.holding.drain()


class MovedConnection(TunnelProtocol):
    """
    A connection that another worker has had before.

    @ivar counted: whether it takes a place in the quotas here, rather than where it was accepted.
    """

    transport: Any

    def __init__(
        self,
        server: TunnelServer,
        join_record: JoinRecord,
        host: ReverseHost,
        state: ConnectionState,
        counted: bool,
    ) -> None:
        """
        @param host: its host, which has no connection yet.
        @param state: its state.
        @param counted: as the attribute.
        """
        super().__init__()
        self._server = server
        self._join_record = join_record
        self._host = host
        self._state = state
        self._claim: Claim | None = None
        self.counted = counted

    def connectionMade(self) -> None:
        """Attach the connection to its host."""
        server, join_record = self._server, self._join_record
        watch_over(self.transport, server.config.dead_peer_timeout)
        place = NOBODY
        if self.counted:
            place = server.quotas.place(
                join_record.accepted, join_record.info, address_key(join_record.info.remote_ip)
            )
            server.quotas.count(place)
        relayed = join_record.info.secure  # otherwise the socket itself would have moved
        if server.routes is not None:
            self._claim = server.routes.hold(join_record.accepted.cluster)
        self.holding = JoinedConnection(
            server, join_record, self._host, self, place, relayed, self._claim is not None
        )
        # First it gets its connection, so that this is closed if it is not wanted any more.
        self._state.restore(self._host, self, self.holding)
        server.revocations.arrived(self.holding)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Release its claim and its place in the quotas."""
        claim, self._claim = self._claim, None
        if claim is not None and self._server.routes is not None:
            self._server.routes.let_go(claim)
        if self.holding is not None:
            self.holding.leave_place()
        super().connectionLost(reason)
