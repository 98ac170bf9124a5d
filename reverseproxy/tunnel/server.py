"""
The C{tunnel} network filter: an accepted connection turns into a host.

The decisions are in L{reverseproxy.tunnel.handshake}; here is what needs a
transport, a clock or a Deferred.
"""

from __future__ import annotations

__all__ = ["TunnelConnection", "TunnelServer"]

from collections.abc import Callable, Coroutine, Mapping
from itertools import count
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.cluster.handover import Handover
from reverseproxy.cluster.host import ReverseHost
from reverseproxy.cluster.manager import ClusterManager
from reverseproxy.config.models import TunnelConfig
from reverseproxy.errors import FrameError
from reverseproxy.interfaces import ConnectionInfo, IConnectionValidator, Identity
from reverseproxy.logs import Throttle
from reverseproxy.proxy.relay import LINGER, lose_connection
from reverseproxy.sockets import tune
from reverseproxy.tunnel.handshake import Accepted, Admission, HeldConnection, Refusal, Registry, Requester
from reverseproxy.wire.extra import CloseProof
from reverseproxy.wire.tunnel import ConnectionInit, Flag, FrameDecoder, GracefulClose, encode

log = Logger()

LOG_RATE = 10.0
"""Lines a second about bad peers of one listener, in the long run."""

LOG_BURST = 50
"""Lines about bad peers that may come at once."""

_unix_peers = count(1)


class TunnelServer:
    """
    What all tunnel connections of one listener share.

    @ivar pending: connections that have not joined a cluster, oldest first:
        those in the handshake, and the silent ones that MOSN's agents keep
        aside for a graceful close.
    @ivar registry: the connections that are hosts now.  Those of this listener
        only: another one may have other authorities, and other names for agents.
    """

    def __init__(
        self,
        listener: str,
        config: TunnelConfig,
        clusters: ClusterManager,
        clock: IReactorTime,
        find_validator: Callable[[str, Mapping[str, Any]], IConnectionValidator],
    ) -> None:
        """
        @param find_validator: makes the validator of a credential policy, given
            its configuration.
        @raise ValueError: if a policy is unknown or its configuration is wrong.
        """
        demanded = {config.credential_policy, *config.cluster_credential_policies.values()} - {""}
        validators = {
            policy: find_validator(policy, config.validators.get(policy, {}))
            for policy in sorted(demanded | set(config.validators))
        }
        self.listener = listener
        self.config = config
        self.clusters = clusters
        self.clock = clock
        self.registry: Registry[ReverseHost] = Registry()
        self.admission = Admission(
            cluster_known=lambda name: name in clusters,
            validators=validators,
            policy=config.credential_policy,
            cluster_policies=config.cluster_credential_policies,
        )
        self.pending: dict[TunnelConnection, None] = {}
        self._throttle = Throttle(clock, LOG_RATE, LOG_BURST)

    def build_protocol(self, info: ConnectionInfo) -> TunnelConnection:
        """Make the protocol of one accepted connection."""
        return TunnelConnection(self, info)

    def admit(self, connection: TunnelConnection) -> None:
        """
        Count a connection that has not joined yet; the oldest one must make
        room if there are too many.
        """
        self.pending[connection] = None
        if len(self.pending) > self.config.max_pending_connections:
            next(iter(self.pending)).drop("too many connections that have not joined a cluster")

    def complain(self, message: str, **fields: object) -> None:
        """Log something about a bad peer, but let no flood of them fill the disk."""
        if self._throttle.allow():
            log.warn(message, listener=self.listener, **fields)


class TunnelConnection(Handover):
    """
    An accepted connection, from its first byte to its last.

    It may stay silent for as long as there is room: MOSN's agents hold such a
    connection in reserve.  Once it has sent a byte, the handshake has a deadline.
    """

    transport: Any

    def __init__(self, server: TunnelServer, info: ConnectionInfo) -> None:
        super().__init__()
        self._server = server
        self._info = info
        self._decoder = FrameDecoder(expect=frozenset({Flag.INIT, Flag.GRACEFUL_CLOSE}))
        self._deadline: IDelayedCall | None = None
        self._judging: Deferred[None] | None = None
        self._surplus: list[bytes] = []
        self._closing: IDelayedCall | None = None
        self._held: HeldConnection[ReverseHost] | None = None
        self._publishing: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Wait for the agent to introduce itself."""
        tune(self.transport, self._server.config.dead_peer_timeout)
        self._server.admit(self)

    def dataReceived(self, data: bytes) -> None:
        """Take part of a handshake."""
        if self._over:
            return
        if self._judging is not None:
            self._surplus.append(data)  # at most what was read before reading was paused
            return
        if self._deadline is None:
            self._deadline = self._server.clock.callLater(
                self._server.config.handshake_timeout, self.drop, "the handshake took too long"
            )
        self._take(data)

    def _take(self, data: bytes) -> None:
        """Act on one frame after the other, until one takes time to judge."""
        while not self._over:
            try:
                frame = self._decoder.feed(data)
            except FrameError as error:
                self.drop(str(error))
                return
            if frame is None:
                return
            if isinstance(frame, ConnectionInit):
                # What follows this frame belongs to whoever uses the connection later.
                self._judge(self._admit(frame))
                return
            if isinstance(frame, GracefulClose):
                self._judge(self._evict(frame))
            if self._judging is not None:
                return
            data = b""

    @property
    def _over(self) -> bool:
        return self._lost or self._closing is not None

    def _judge(self, judging: Coroutine[Deferred[Any], Any, None]) -> None:
        done = Deferred.fromCoroutine(judging)
        done.addErrback(self._judging_failed)
        if not done.called:
            self._judging = done
            self.transport.pauseProducing()
            done.addCallback(self._judged)

    def _judged(self, _: None) -> None:
        self._judging = None
        if self.inner is None and not self._over:
            self.transport.resumeProducing()
            self._take(self._surplus_so_far())

    def _surplus_so_far(self) -> bytes:
        surplus, self._surplus = self._surplus, []
        return b"".join(surplus)

    def _judging_failed(self, reason: Failure) -> None:
        if self._lost:
            return
        log.failure(
            "{listener}: handshake of {peer} failed",
            reason,
            listener=self._server.listener,
            peer=self._info.remote,
        )
        self.drop("the handshake failed on our side")

    async def _validate(
        self, validator: IConnectionValidator | None, credential: str, host_name: str, cluster: str
    ) -> Identity | None:
        if validator is None:
            return None
        try:
            verdict = validator.validate(credential, host_name, cluster)
            return await verdict if isinstance(verdict, Deferred) else verdict
        except CancelledError:
            return None  # the agent has gone
        except Exception:
            log.failure("{listener}: a credential validator failed", listener=self._server.listener)
            return None

    # joining

    async def _admit(self, init: ConnectionInit) -> None:
        admission = self._server.admission
        checked = admission.check_policy(init)
        if isinstance(checked, Refusal):
            self._refuse(checked)
            return
        identity = await self._validate(checked, init.credential, init.host_name, init.cluster_name)
        if self._over:
            return
        verdict = admission.conclude(init, identity)
        if isinstance(verdict, Refusal):
            self._refuse(verdict)
        else:
            self._join(verdict)

    def _refuse(self, refusal: Refusal) -> None:
        self.transport.write(encode(refusal.response()))
        self.drop(f"refused with status {refusal.status.value}: {refusal.reason}")

    def _join(self, accepted: Accepted) -> None:
        server = self._server
        self._settle()
        self.transport.write(encode(accepted.response()))
        announcement = accepted.announcement
        address = self._info.remote
        if address == "unix:":
            address = f"unix:#{next(_unix_peers)}"  # clients of a Unix socket have no address
        host = ReverseHost(
            address,
            accepted.host_name,
            accepted.weight,
            None if announcement is None else announcement.metadata,
            self.transport,
            self._gone,
            clock=server.clock,
        )
        self._held = HeldConnection(host, accepted.cluster, self._info, accepted.principal, announcement)
        server.registry.add(self._held)
        host.kin = server.registry.kin(self._held)
        # A MOSN agent loses what arrives in one read with the response (spec 1.3.9).
        self._publishing = server.clock.callLater(
            server.config.publish_delay, self._publish, accepted.cluster, host
        )
        surplus = self._decoder.take_surplus() + self._surplus_so_far()
        if self._judging is not None:
            self.transport.resumeProducing()  # before it changes hands
        host.attach(self, surplus)

    def _publish(self, cluster: str, host: ReverseHost) -> None:
        self._publishing = None
        if host.usable():
            self._server.clusters.get(cluster).add_host(host)

    def _gone(self, host: ReverseHost, reason: str) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._server.registry.remove(held)
            self._server.clusters.get(held.cluster).remove_host(host, reason)
        self._cancel_publishing()

    def _cancel_publishing(self) -> None:
        if self._publishing is not None:
            self._publishing.cancel()
            self._publishing = None

    # a graceful close, of other connections than this one

    async def _evict(self, frame: GracefulClose) -> None:
        server = self._server
        proof = CloseProof.from_extra(frame.extra)
        validator = server.admission.close_validator(proof)
        identity = None
        if proof is not None:
            identity = await self._validate(validator, proof.credential, "", frame.cluster_name)
        if self._over:
            return
        selection = server.registry.select_evictable(
            frame.cluster_name, frame.addresses, Requester.of(self._info, proof, identity)
        )
        for held in selection.evict:
            server.clusters.get(held.cluster).remove_host(held.host, "the agent closes it gracefully")
            held.host.retire()
        if selection.refused:
            server.complain(
                "{listener}: graceful close from {peer}: {reason}",
                peer=self._info.remote,
                reason=selection.describe_refused(),
            )
        self._cancel_deadline()

    # ending

    def drop(self, reason: str) -> None:
        """Close the connection, with the reason in the log."""
        if self._over:
            return
        self._settle()
        self._server.complain("{listener}: {peer} closed: {reason}", peer=self._info.remote, reason=reason)
        self.transport.resumeProducing()
        self._closing = self._server.clock.callLater(LINGER, self.transport.abortConnection)
        lose_connection(self.transport)

    def _settle(self) -> None:
        """The handshake is over, one way or the other."""
        self._server.pending.pop(self, None)
        self._cancel_deadline()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Let go of the handshake, or of the host."""
        self._settle()
        self._cancel_publishing()
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        super().connectionLost(reason)
        judging, self._judging = self._judging, None
        if judging is not None:
            judging.cancel()
