"""
The C{tunnel} network filter: an accepted connection turns into a host.

The decisions are in L{reverseproxy.tunnel.handshake}; here is what needs a
transport, a clock or a Deferred.
"""

from __future__ import annotations

__all__ = ["ServedTunnel", "TunnelConnection", "TunnelServer"]

from collections.abc import Callable, Collection, Coroutine, Hashable, Iterable, Mapping, Sequence
from functools import partial
from itertools import count
from random import random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IProtocol, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.addresses import host_of
from reverseproxy.cluster.host import MuxHost, ReverseHost
from reverseproxy.cluster.manager import ClusterManager
from reverseproxy.config.models import TunnelConfig
from reverseproxy.crowd import Crowd, Descriptors, crowd_address
from reverseproxy.errors import FrameError
from reverseproxy.folding import Folding
from reverseproxy.identity import AgentIdentity
from reverseproxy.interfaces import (
    ConnectionInfo,
    IConnectionValidator,
    Identity,
    IDrainable,
    IExpendable,
)
from reverseproxy.logs import Throttle
from reverseproxy.metrics import TunnelTally
from reverseproxy.mux.session import MuxSession
from reverseproxy.patience import Patience
from reverseproxy.proxy.relay import LINGER, lose_connection
from reverseproxy.refused import REFUSED
from reverseproxy.sockets import tune
from reverseproxy.tls import ServerTls, verify_again
from reverseproxy.tunnel.handshake import (
    Accepted,
    Admission,
    Refusal,
    Registry,
    Requester,
    Selection,
)
from reverseproxy.tunnel.server.brought import NO_ROUTES, AgentRoutes
from reverseproxy.tunnel.server.claims import Claim
from reverseproxy.tunnel.server.departure import Departure
from reverseproxy.tunnel.server.exclusions import Exclusions
from reverseproxy.tunnel.server.guesses import GuessGate
from reverseproxy.tunnel.server.holding import Bearer, Holding, Papers
from reverseproxy.tunnel.server.joins import JoinGate
from reverseproxy.tunnel.server.quotas import NOBODY, Quotas
from reverseproxy.tunnel.server.refusals import REMEDIES, note_refusal
from reverseproxy.tunnel.server.revocation import IJoined, Revocations
from reverseproxy.tunnel.streams import StreamSettings
from reverseproxy.unfinished import STRANGERS, Account, Counted
from reverseproxy.wire.mosn.extensions import Announcement, CloseProof
from reverseproxy.wire.mosn.frames import ConnectionInit, Flag, FrameDecoder, GracefulClose, Status, encode
from reverseproxy.wire.mosn.route_requests import BroughtRoutes

log = Logger(__package__)

LOG_RATE = 10.0
"""Lines a second about bad peers of one listener, in the long run."""

LOG_BURST = 50
"""Lines about bad peers that may come at once."""

MOST_FUTILE_CLOSES = 3
"""Graceful closes without any effect that one connection may send."""

PENDING_PART = 2
"""Connections that have not joined may be one in so many of those that strangers may hold."""

_EXPECTED = frozenset({Flag.INIT, Flag.GRACEFUL_CLOSE})

OWNER_SHARE = 0.75
"""As much of all connections that there can be may one agent, one credential or one address have."""

QUOTA_PAUSE = 30.0
"""Seconds after which an agent that has too many connections comes back with another one."""

PATIENCE = 1.0
"""Seconds that an agent of ours waits for its turn to join, rather than being told to come back."""

LONG_PATIENCE = 10.0
"""Seconds that other agents wait for it at the most; MOSN's wait 15 s for an answer."""

LONGEST_ABSENCE = 60.0
"""Seconds after which an agent that is kept out is to ask again, as the operator may think better of it."""

SHORTEST_ABSENCE = 0.05
"""Seconds after which an agent comes back at the earliest that has found a server about to leave."""

_unix_peers = count(1)


class TunnelServer:
    """
    What all tunnel connections of one listener share.

    @ivar pending: connections that have not joined a cluster: those in the
        handshake, and the silent ones that MOSN's agents keep aside for a
        graceful close.
    @ivar gate: when another connection may join.
    @ivar quotas: how many connections one party may have.
    @ivar guesses: makes addresses wait that have been refused too often.
    @ivar longest_wait: how long an agent that can't be told to come back is kept
        waiting for that, in seconds.
    @ivar registry: the connections that are hosts now.  Those of this listener
        only: another one may have other authorities, and other names for agents.
    @ivar adopt: takes a protocol for a connection that another worker has accepted into
        those of the listener, and gives what is to be connected.
    @ivar evict_elsewhere: lets other workers close what is not held here, given
        a cluster, addresses, and who asks; gives the addresses that were.
        L{None} if there are none.
    @ivar exclusions: whom an operator keeps out.
    @ivar joined: the connections that have joined.
    @ivar revocations: judges them again.
    @ivar tls: that of the listener; L{None} for plaintext.
    @ivar takes_plaintext: whether it takes plaintext as well.
    @ivar departure: how it leaves its agents, once it does.
    @ivar tally: counts joins, and keeps those that were refused.
    @ivar routes: those that agents bring; L{None} if they may not.
    @ivar workers: how many processes share the work of this server.
    @ivar unix_prefix: tells this worker's clients of Unix sockets, which have no
        address, from those of others.
    """

    evict_elsewhere: Callable[[str, Sequence[str], Requester], Deferred[set[str]]] | None = None
    adopt: Callable[[IProtocol], IProtocol] = staticmethod(lambda connection: connection)
    unix_prefix = ""
    workers = 1
    routes: AgentRoutes | None = None
    departure: Departure | None = None
    tls: ServerTls | None = None
    takes_plaintext = False

    def __init__(
        self,
        listener: str,
        config: TunnelConfig,
        clusters: ClusterManager,
        clock: IReactorTime,
        find_validator: Callable[[str, Mapping[str, Any]], IConnectionValidator],
        policies: Collection[str] = (),
    ) -> None:
        """
        @param find_validator: makes the validator of a credential policy, given
            its configuration.
        @param policies: the policies that agents may use where none is demanded,
            if their validators need no configuration.
        @raise ValueError: if a policy is unknown or its configuration is wrong.
        """
        demanded = {config.credential_policy, *config.cluster_credential_policies.values()} - {""}
        validators = {
            policy: find_validator(policy, config.validators.get(policy, {}))
            for policy in sorted(demanded | set(config.validators))
        }
        self.listener = listener
        self.config = config
        self.tally = TunnelTally()
        self.exclusions = Exclusions(clock.seconds)
        self.clusters = clusters
        self.clock = clock
        self.registry: Registry[ReverseHost | MuxHost] = Registry()
        self.admission = Admission(
            cluster_known=lambda name: name in clusters,
            validators=validators,
            policy=config.credential_policy,
            cluster_policies=config.cluster_credential_policies,
            find_other=self._find_other,
        )
        self._find_validator = find_validator
        self._policies = frozenset(policies)
        self._others: dict[str, IConnectionValidator | None] = {}
        self.streams = StreamSettings.of(config)
        descriptors = Descriptors.current().for_strangers
        self.pending: Crowd[TunnelConnection] = Crowd(
            min(config.max_pending_connections, descriptors // PENDING_PART)
        )
        self.quotas = Quotas.of(config, max(int(descriptors * OWNER_SHARE), 1))
        self.joined: dict[IJoined, None] = {}
        self._seen: tuple[ServerTls, int] | None = None
        self.revocations = Revocations(
            listener,
            lambda: self.joined,
            lambda: [*self.admission.validators, *filter(None, self._others.values())],
            clock,
        )
        self._throttle = Throttle(clock, LOG_RATE, LOG_BURST)
        self._folding = Folding(clock)
        self.gate = JoinGate(config.max_joins_per_second)
        self.guesses = GuessGate()
        # Those that wait are pending: no more of them than half of what may be.
        room = self.pending.most / 2
        self.longest_wait = min(
            LONG_PATIENCE, config.handshake_timeout / 2, room / (config.max_joins_per_second or room)
        )

    def take_over(self, newer: TunnelServer) -> None:
        """
        Go on as another one would that is new; the connections that there are stay.

        Whether these still may be here is another matter.
        """
        if newer.config.max_joins_per_second != self.config.max_joins_per_second:
            self.gate = newer.gate
        if self.routes is None:
            self.routes = newer.routes
        else:
            self.routes.take_over(newer.routes)
        self.config = newer.config
        self.admission = newer.admission
        self.streams = newer.streams
        self.quotas.take_over(newer.quotas)
        self.pending.most = newer.pending.most
        self.longest_wait = newer.longest_wait
        self._others = newer._others

    def _find_other(self, policy: str) -> IConnectionValidator | None:
        """Make the validator of a policy that is not configured, at its first use."""
        if policy not in self._policies:
            return None
        if policy not in self._others:
            try:
                self._others[policy] = self._find_validator(policy, {})
            except ValueError as error:
                self._others[policy] = None
                log.warn(
                    "{listener}: agents use the credential policy {policy}, which is not configured here: "
                    "{reason}",
                    listener=self.listener,
                    policy=policy,
                    reason=str(error),
                )
            else:
                log.warn(
                    "{listener}: agents use the credential policy {policy}, which is not demanded: those "
                    "without any credential are let in too",
                    listener=self.listener,
                    policy=policy,
                )
        return self._others[policy]

    def brought(self, cluster: str) -> bool:
        """Say whether an agent has brought a cluster."""
        return self.routes is not None and self.routes.claims.find(cluster) is not None

    def look(self) -> None:
        """See whether anything has changed by which agents may not stay, and if so, let go of them."""
        tls = self.tls
        seen = None if tls is None else (tls, tls.version)
        changed, self._seen = seen != self._seen, seen
        if changed:
            for connection in list(self.pending):
                reason = connection.stands()
                if reason:
                    connection.drop(reason)
        self.revocations.look(changed)

    def serve_with(self, tls: ServerTls | None, takes_plaintext: bool) -> None:
        """Say what the listener demands of connections from now on."""
        self.tls = tls
        self.takes_plaintext = takes_plaintext

    def transport_stands(self, info: ConnectionInfo, transport: object) -> str:
        """
        Find out whether a connection may be as it is.

        @return: why not; empty if it may.
        """
        tls = self.tls
        if tls is None or tls.plaintext:
            return ""
        if info.secure:
            return verify_again(transport, tls)
        return "" if self.takes_plaintext else "it is not encrypted, and has to be now"

    def brings_cluster(self, init: ConnectionInit) -> bool:
        """Say whether an agent asks for routes, so that its cluster may be made for it."""
        announcement = Announcement.from_extra(init.extra)
        return announcement is not None and bool(announcement.routes)

    @property
    def workers_told(self) -> int:
        """How many connections an agent with streams is to hold: one for each worker, as far as it may."""
        return min(self.workers, self.config.max_hosts_per_agent or self.workers)

    def build_protocol(self, info: ConnectionInfo) -> TunnelConnection:
        """Make the protocol of one accepted connection."""
        return TunnelConnection(self, info)

    def admit(self, connection: TunnelConnection) -> None:
        """
        Count a connection that has not joined yet; if there are too many, the
        oldest one of the address that has most of them must make room.
        """
        self.pending.add(connection.crowd, connection)
        if len(self.pending) > self.pending.most:
            found = self.pending.victim(connection.crowd)
            victim = connection if found is None else found[1]
            victim.drop("too many connections that have not joined a cluster")

    def evict(
        self, cluster: str, addresses: Iterable[str], requester: Requester
    ) -> Selection[ReverseHost | MuxHost]:
        """
        Let go of connections that an agent closes gracefully, as far as it may.

        @param requester: who asks, as far as that is proven.
        @return: what could be let go of, and what could not.
        """
        selection = self.registry.select_evictable(cluster, addresses, requester)
        for held in selection.evict:
            if held.host.cluster is not None:
                held.host.cluster.remove_host(held.host, "the agent closes it gracefully")
            held.host.retire()
        return selection

    def leave(self, after: float) -> Departure:
        """
        Begin to leave: agents are told, and none may join any more.

        @param after: seconds after which they are to dial again.
        """
        if self.departure is None:
            self.departure = Departure(self, after)
            self.departure.tell()
        return self.departure

    def complain(self, message: str, **fields: object) -> None:
        """Log something about a bad peer, but let no flood of them fill the disk."""
        if self._throttle.allow():
            log.warn(message, listener=self.listener, **fields)

    def stop(self) -> None:
        """Say what is still to be said of bad peers."""
        self._folding.stop()

    def complain_once(self, key: Hashable, message: str, **fields: object) -> None:
        """The same, in one line for a minute where somebody is the reason again and again."""
        self._folding.note(
            key, lambda left_out: self.complain(f"{message}{{left_out}}", left_out=left_out, **fields)
        )


class ServedTunnel:
    """
    Builds the protocols of a listener's connections.

    @ivar server: what they share.
    """

    def __init__(self, server: TunnelServer) -> None:
        self.server = server

    def __call__(self, info: ConnectionInfo) -> TunnelConnection:
        """Build the protocol of one connection."""
        return self.server.build_protocol(info)

    def take_over(self, newer: object) -> bool:
        """
        Go on as another one would.

        @return: whether that is one of this kind.
        """
        if not isinstance(newer, ServedTunnel):
            return False
        self.server.take_over(newer.server)
        return True


@implementer(IDrainable, IExpendable)
class TunnelConnection(Bearer, Counted):
    """
    An accepted connection, from its first byte to its last.

    It may stay silent for as long as there is room: MOSN's agents hold such a
    connection in reserve.  Once it has sent a byte, the handshake has a deadline.

    @ivar crowd: whom it is counted with, until it has joined.
    @ivar holding: what is known of the host that it is, once it is one.
    """

    transport: Any
    holding: Holding | None = None

    def __init__(self, server: TunnelServer, info: ConnectionInfo) -> None:
        super().__init__()
        self._server = server
        self._info = info
        self.crowd = crowd_address(host_of(info.remote))
        self._decoder: FrameDecoder | None = FrameDecoder(expect=_EXPECTED)
        self._deadline: Patience | None = None
        self._judging: Deferred[None] | None = None
        self._surplus: list[bytes] = []
        self._closing: IDelayedCall | None = None
        self._place = NOBODY
        self._claim: Claim | None = None
        self._publishing: IDelayedCall | None = None
        self._futile = 0
        self._began = 0.0
        self._reviews = 0
        self._init: ConnectionInit | None = None
        self._result = ""
        self._identity: AgentIdentity | None = None  # once it is proved, whether or not it may join

    # IExpendable

    @property
    def expendable(self) -> bool:
        """Whether nobody is finding out whether it may join, and it has not."""
        return self.holding is None and self._judging is None

    # IDrainable

    def drain(self) -> None:
        """See L{IDrainable}: what is under way is finished, and the agent knows that nothing more comes."""
        if self.holding is not None:
            super().drain()
        elif self._deadline is None and not self._over:
            lose_connection(self.transport)  # it was kept in reserve, and has said nothing
        else:
            self.drop("the server stops", "leaving")

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
            self._began = self._server.clock.seconds()
            self._deadline = Patience(
                self._server.clock,
                self._server.config.handshake_timeout,
                partial(self.drop, "the handshake took too long"),
            )
        self._take(data)
        if self._decoder is not None and not self._over:
            self.count(self._decoder.buffered)

    def open_account(self) -> Account:
        """See L{Counted}."""
        return STRANGERS.account(self.crowd, self.drop)

    def _take(self, data: bytes) -> None:
        """Act on one frame after the other, until one takes time to judge."""
        while not self._over:
            decoder = self._decoder
            if decoder is None:
                return
            try:
                frame = decoder.feed(data)
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
        self._init = init
        self._reviews = self._server.revocations.reviews
        if self._server.departure is not None:
            self._turn_away(init, self._server.departure)
            return
        checked = admission.check_policy(init)
        if isinstance(checked, Refusal):
            self._refuse(checked)
            return
        if checked is not None:
            await self._wait_to_be_judged()
            if self._over:
                return
        identity = await self._validate(checked, init.credential, init.host_name, init.cluster_name)
        if self._over:
            return
        verdict = admission.conclude(init, identity, self._server.brings_cluster(init))
        if isinstance(verdict, Accepted):
            self._identity = verdict.identify(self._info)
            # Asked last, so that nobody who may not join takes the place of somebody who may.
            refusal = self._keep_out(verdict)
            if refusal is None and not self._over:
                refusal = self._take_place(verdict)
            if refusal is None and not self._over:
                refusal = await self._turn(verdict)
            if refusal is None and not self._over:
                refusal = await self._take_routes(verdict)
            if self._over:
                return
            verdict = refusal or verdict
        if isinstance(verdict, Refusal):
            self._refuse(verdict)
        else:
            self._join(verdict)

    def _turn_away(self, init: ConnectionInit, departure: Departure) -> None:
        """
        Send an agent away, as the server is about to leave.

        MOSN's would take no for an answer for ever: for it the connection ends without one.
        """
        reason = "the server is about to leave"
        if Announcement.from_extra(init.extra) is None:
            self.drop(reason, "leaving")
            return
        self._result = "leaving"
        self._refuse(Refusal(Status.UNKNOWN, reason, max(departure.after, SHORTEST_ABSENCE)))

    async def _wait_to_be_judged(self) -> None:
        """Wait as long as it takes an address that guesses."""
        wait = self._server.guesses.wait(self.crowd, self._server.clock.seconds())
        if wait > 0:
            await deferLater(self._server.clock, wait)

    def _count_refusal(self) -> None:
        self._server.guesses.refuse(self.crowd, self._server.clock.seconds())

    def _keep_out(self, accepted: Accepted) -> Refusal | None:
        """
        Refuse whom an operator keeps out.

        Agents of ours are told when to come back, in a minute at the latest.  To a
        MOSN agent the connection ends without an answer, as no is for ever to it.
        """
        found = self._server.exclusions.find(accepted.identify(self._info), self._info.remote_ip)
        if found is None:
            return None
        seconds, why = found
        reason = f"{why}; it is kept out for {seconds:.0f} s more"
        if accepted.announcement is not None:
            self._result = "banned"
            return Refusal(Status.UNKNOWN, reason, min(seconds, LONGEST_ABSENCE))
        self.drop(reason, "banned")
        return None

    def _take_place(self, accepted: Accepted) -> Refusal | None:
        """
        Count the connection with whose it is, unless these have too many.

        Agents of ours are told so, and come back, as some may have left by then.
        A MOSN agent would take no for an answer for ever: for it the connection
        ends without one.
        """
        server = self._server
        place = server.quotas.place(accepted, self._info, self.crowd)
        reason = server.quotas.take(place)
        if not reason:
            self._place = place
        elif accepted.announcement is not None:
            return Refusal(Status.UNKNOWN, reason, QUOTA_PAUSE, reason)
        else:
            self.drop(reason, "too_many")
        return None

    def _leave_place(self) -> None:
        place, self._place = self._place, NOBODY
        self._server.quotas.give_back(place)
        claim, self._claim = self._claim, None
        if claim is not None:
            assert self._server.routes is not None
            self._server.routes.let_go(claim)

    async def _take_routes(self, accepted: Accepted) -> Refusal | None:
        """Make the routes that the agent brings, unless it may not have them."""
        server = self._server
        routes = server.routes
        if accepted.named and accepted.cluster in server.clusters and not server.brought(accepted.cluster):
            return None  # it has its routes by the configuration, and need not bring any
        if routes is None:
            if accepted.request:
                return Refusal(Status.ROUTE_FORBIDDEN, NO_ROUTES, told=NO_ROUTES)
        elif routes.concerns(accepted):
            verdict = await routes.ask(accepted, self._info)
            if isinstance(verdict, Refusal):
                return verdict
            self._claim = verdict
        return None

    async def _turn(self, accepted: Accepted) -> Refusal | None:
        """
        Wait until another connection may join, if that is soon.

        Agents of ours are told when to come back, if it is not.  MOSN's would
        take no for an answer for ever (docs/mosn.rst 8.1): they are kept waiting, and
        if that would take too long, the connection ends without an answer, after
        which they dial again.
        """
        server = self._server
        ours = accepted.announcement is not None
        wait = server.gate.ask(server.clock.seconds(), PATIENCE if ours else server.longest_wait)
        if wait > 0:
            await deferLater(server.clock, wait)
        elif wait < 0 and ours:
            return Refusal(
                Status.UNKNOWN, f"too many join at once, it is to come back in {-wait:.1f} s", -wait
            )
        elif wait < 0:
            self.drop("too many join at once", "too_many")
        return None

    def _refuse(self, refusal: Refusal) -> None:
        if refusal.status is Status.CREDENTIAL_REJECTED:
            self._count_refusal()
        self.transport.write(encode(refusal.response()))
        result = self._result or ("too_many" if refusal.retry_after else refusal.status.name.lower())
        self.drop(f"refused with status {refusal.status.value}: {refusal.reason}", result)

    def _join(self, accepted: Accepted) -> None:
        server = self._server
        self._settle()
        server.tally.joined(accepted.cluster)
        server.tally.handshakes.note(server.clock.seconds() - self._began)
        self.vouched()
        announcement = accepted.announcement
        mux, window = "", 0
        if server.streams is not None and announcement is not None:
            mux = server.streams.choose(announcement.mux)
            if mux:
                window = server.streams.agree(announcement.window)
        given = BroughtRoutes()
        if self._claim is not None and server.routes is not None:
            given = server.routes.given(self._claim)
        self.transport.write(encode(accepted.response(mux, window, given, server.workers_told)))
        address = self._info.remote
        if address == "unix:":
            address = (
                f"unix:#{server.unix_prefix}{next(_unix_peers)}"  # clients of a Unix socket have no address
            )
        metadata = None if announcement is None else announcement.metadata
        tells = announcement is not None and announcement.tells
        moves = announcement is not None and announcement.moves
        host: ReverseHost | MuxHost
        if mux:
            assert server.streams is not None
            session = MuxSession(
                True,
                server.clock,
                server.streams.limits_with(window, tells, moves),
                ping_interval=server.streams.ping_interval,
                ping_timeout=server.streams.ping_timeout,
                jitter=random,
            )
            host = MuxHost(address, accepted.host_name, accepted.weight, metadata, session, self._gone)
        else:
            host = ReverseHost(
                address,
                accepted.host_name,
                accepted.weight,
                metadata,
                self.transport,
                self._gone,
                clock=server.clock,
            )
        place, self._place = self._place, NOBODY
        assert self._init is not None
        papers = Papers(server.listener, self._init, accepted, self._info)
        claimed = self._claim is not None
        self.holding = Holding(server, papers, host, self, place, claimed=claimed)
        host.identity = accepted.identify(self._info)
        host.tells = tells
        if announcement is not None and announcement.speaks:
            host.announced = frozenset(announcement.speaks)
        if isinstance(host, ReverseHost) and announcement is not None and announcement.marks:
            host.expect_mark()
        if tells and isinstance(host, MuxHost):
            host.listen(partial(self._told, accepted.cluster), server.clock)
        if server.revocations.reviews != self._reviews:
            server.revocations.review_one(self.holding)
        decoder, self._decoder = self._decoder, None  # there is nothing left for it to do
        assert decoder is not None
        surplus = decoder.take_surplus() + self._surplus_so_far()
        if self._judging is not None:
            self.transport.resumeProducing()  # before it changes hands
        if isinstance(host, ReverseHost):
            # A MOSN agent loses what arrives in one read with the response (docs/mosn.rst 1.3.9).
            self._publishing = server.clock.callLater(
                server.config.publish_delay, self._publish, accepted.cluster, host
            )
            host.attach(self, surplus)
        else:
            self.hand_over(session, surplus)
            self._publish(accepted.cluster, host)

    def _publish(self, cluster: str, host: ReverseHost | MuxHost) -> None:
        self._publishing = None
        if cluster not in self._server.clusters:
            host.close(f"there is no cluster {cluster} any more")
        elif host.usable():
            self._server.clusters.get(cluster).add_host(host)

    def _told(self, cluster: str, host: MuxHost, well: bool) -> None:
        """The agent says whether it can reach its service."""
        if cluster in self._server.clusters:
            self._server.clusters.get(cluster).wellness.said(host, well)

    def _gone(self, host: ReverseHost | MuxHost, reason: str) -> None:
        self._leave_place()
        if self.holding is not None:
            self.holding.gone(host, reason)
        self._cancel_publishing()

    def _cancel_publishing(self) -> None:
        if self._publishing is not None:
            self._publishing.cancel()
            self._publishing = None

    def stands(self) -> str:
        """See L{TunnelServer.transport_stands}."""
        return self._server.transport_stands(self._info, self.transport)

    # a graceful close, of other connections than this one

    async def _evict(self, frame: GracefulClose) -> None:
        server = self._server
        proof = CloseProof.from_extra(frame.extra)
        validator = server.admission.close_validator(proof, frame.cluster_name)
        await self._wait_to_be_judged()
        if self._over:
            return
        identity = None
        if proof is not None:
            identity = await self._validate(validator, proof.credential, "", frame.cluster_name)
        if self._over:
            return
        requester = Requester.of(self._info, proof, identity)
        selection = server.evict(frame.cluster_name, frame.addresses, requester)
        elsewhere: set[str] = set()
        if selection.refused and server.evict_elsewhere is not None:
            refused = [each.address for each in selection.refused]
            elsewhere = await server.evict_elsewhere(frame.cluster_name, refused, requester)
            selection = selection.without(elsewhere)
        if selection.refused:
            self._count_refusal()
            server.complain(
                "{listener}: graceful close from {peer}: {reason}",
                peer=self._info.remote,
                reason=selection.describe_refused(),
            )
        self._cancel_deadline()
        if not (selection.evict or elsewhere):
            self._futile += 1
            if self._futile >= MOST_FUTILE_CLOSES:
                self.drop("its graceful closes name no connection of its own")

    # ending

    def drop(self, reason: str, result: str = "failed") -> None:
        """
        Close the connection, with the reason in the log.

        @param result: what has become of its attempt to join, in a word.
        """
        if self._over:
            return
        self._settle()
        self._decoder = None  # and what it keeps
        REFUSED["tunnel"] += 1
        server = self._server
        init, identity = self._init, self._identity
        if identity is None:
            claim = "" if init is None else init.host_name
            identity = AgentIdentity(certificate=self._info.subject, claim=claim)
        known = server.clusters
        note_refusal(server.tally, known, server.listener, self._info, init, identity, result, reason)
        # What was sent instead of a frame is different each time.
        self._server.complain_once(
            (self.crowd, identity.principal, result, "" if result == "failed" else reason),
            "{listener}: {peer}{who} closed: {reason}{remedy}",
            peer=self._info.remote,
            who="" if init is None else f" of {identity}",
            reason=reason,
            remedy=f"; {remedy}" if (remedy := REMEDIES.get(result, "")) else "",
        )
        self.transport.resumeProducing()
        self._closing = self._server.clock.callLater(LINGER, self.transport.abortConnection)
        lose_connection(self.transport)

    def _settle(self) -> None:
        """The handshake is over, one way or the other."""
        self._server.pending.discard(self.crowd, self)
        self.count_no_more()
        self._cancel_deadline()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Let go of the handshake, or of the host."""
        self._settle()
        self._leave_place()
        if self.holding is not None:
            self.holding.leave_place()
        self._cancel_publishing()
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        super().connectionLost(reason)
        judging, self._judging = self._judging, None
        if judging is not None:
            judging.cancel()
