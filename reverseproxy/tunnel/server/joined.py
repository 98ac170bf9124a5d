"""
What a tunnel server knows of a connection that is a host, and what of that goes along to another worker.

A L{JoinedConnection} is in the registry, where a graceful close finds it, and takes a place
in the quotas.  When the connection moves, its L{JoinRecord} go with it, and a
L{MovedConnection} has it where it arrives.
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
from reverseproxy.cluster.host import MuxHost, ReverseHost
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
    Who has brought a connection, as another worker has to know.

    @ivar listener: where it was accepted.
    @ivar init: its handshake, with its credential, by which it may be judged again.
    @ivar accepted: what was made of its handshake.
    @ivar info: the connection.
    """

    listener: str
    init: ConnectionInit
    accepted: Accepted
    info: ConnectionInfo

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON has it."""
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
        """Take back what L{to_json} gave."""
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
    What has happened on a connection.

    @ivar early: what has come before the first use.
    @ivar used: whether there was one.
    @ivar marked: whether the agent's mark has still to come, or to be taken.
    """

    early: bytes = b""
    used: bool = False
    marked: bool = False

    @classmethod
    def of(cls, host: ReverseHost) -> ConnectionState:
        """Say it of a host's that is not in use."""
        return cls(host.early, host.used, host.marked)

    def restore(
        self, host: ReverseHost, connection: Handover, holding: JoinedConnection, rest: bytes = b""
    ) -> None:
        """
        Give the connection to its host.

        @param rest: what has come besides, and nobody has had.
        @raise ConnectionRefusedByPeer: if the connection is lost.
        """
        host.arrive(connection, holding.gone, self.early + rest, self.used, self.marked)

    def to_json(self) -> list[Any]:
        """All of it as JSON has it."""
        return [base64.b64encode(self.early).decode("ascii"), self.used, self.marked]

    @classmethod
    def from_json(cls, value: Sequence[Any]) -> ConnectionState:
        """Take back what L{to_json} gave."""
        early, used, marked = value
        return cls(base64.b64decode(early), used, marked)


class JoinedConnection:
    """
    A connection that is a host, for as long as this process has it.

    @ivar join_record: who has brought it.
    @ivar host: what it is.
    @ivar connection: the protocol that has it, and that the host has it from.
    @ivar server: what it has joined.
    @ivar claimed: whether it has brought routes.
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
        @param relayed: whether another worker has its TLS, and judges that.
        @param claimed: whether it has brought routes.
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
        """Whether a request is under way on it."""
        return bool(self.host.active) and not self._over

    def drain(self) -> None:
        """The server stops: finish what is under way, and let the agent know that nothing more comes."""
        if self._over:
            return  # another worker has it, or nobody
        if self.host.cluster is not None:
            self.host.cluster.remove_host(self.host, "the server stops")
        self.host.retire()

    def gone(self, host: ReverseHost | MuxHost, reason: str) -> None:
        """The host can take no further request."""
        self.end()
        if host.cluster is not None:
            host.cluster.remove_host(host, reason)
        if isinstance(host, ReverseHost) and host.used:
            self.server.join_rate.credit()

    def end(self) -> None:
        """The connection is nobody's any more, or another worker's."""
        self._over = True
        self.server.registry.remove(self._held)
        self.server.revocations.discard(self)
        self.leave_place()

    # IJoined: whether it would be let in again

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
            if self.host.cluster is not None:
                self.host.cluster.weigh(self.host, verdict.weight)
        return reason

    def revoke(self, reason: str, grace: float) -> None:
        """See L{IJoined<reverseproxy.tunnel.server.revocation.IJoined>}."""
        if self._over:
            return
        host, server = self.host, self.server
        server.peer_log.warn(
            "{listener}: {peer} of {identity} is let go, at the latest in {seconds:g} s: {reason}",
            peer=self.join_record.info.remote,
            identity=str(host.identity),
            seconds=grace,
            reason=reason,
        )
        if host.cluster is not None:
            host.cluster.remove_host(host, reason)
        else:
            host.retire()
        if not host.closed:
            server.clock.callLater(grace, host.close, reason)

    def take_place(self) -> QuotaPlace:
        """Let somebody else see to the place that the connection takes."""
        place, self._place = self._place, NOBODY
        return place

    def leave_place(self) -> None:
        """Somebody else may have a connection in place of this one."""
        self.server.quotas.give_back(self.take_place())


@implementer(IDrainable)
class TunnelProtocol(Handover):
    """
    A connection that is a host, or may become one.

    @ivar holding: what is known of it as a host; L{None} as long as it is none.
    """

    holding: JoinedConnection | None = None

    @property
    def busy(self) -> bool:
        """Whether it is a host, and a request is under way on it."""
        return self.holding is not None and self.holding.busy

    def drain(self) -> None:
        """See L{IDrainable}: what is under way is finished, and the agent knows that nothing more comes."""
        if self.holding is not None:
            self.holding.drain()


class MovedConnection(TunnelProtocol):
    """
    A connection that another worker had before.

    @ivar counted: whether it takes a place here, rather than where it was accepted.
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
        @param host: what it is; away until we are connected.
        @param state: what has happened on it.
        @param counted: see above.
        """
        super().__init__()
        self._server = server
        self._papers = join_record
        self._host = host
        self._state = state
        self._claim: Claim | None = None
        self.counted = counted

    def connectionMade(self) -> None:
        """Give the host its connection."""
        server, join_record = self._server, self._papers
        watch_over(self.transport, server.config.dead_peer_timeout)
        place = NOBODY
        if self.counted:
            place = server.quotas.place(
                join_record.accepted, join_record.info, address_key(join_record.info.remote_ip)
            )
            server.quotas.count(place)
        relayed = join_record.info.secure  # or else the socket itself would not have come
        if server.routes is not None:
            self._claim = server.routes.hold(join_record.accepted.cluster)
        self.holding = JoinedConnection(
            server, join_record, self._host, self, place, relayed, self._claim is not None
        )
        server.revocations.arrived(self.holding)
        self._state.restore(self._host, self, self.holding)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Let go of it."""
        claim, self._claim = self._claim, None
        if claim is not None and self._server.routes is not None:
            self._server.routes.let_go(claim)
        if self.holding is not None:
            self.holding.leave_place()
        super().connectionLost(reason)
