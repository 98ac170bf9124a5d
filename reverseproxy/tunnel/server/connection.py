"""A connection to a tunnel listener."""

from __future__ import annotations

__all__ = ["TunnelConnection"]

from collections.abc import Coroutine
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.addresses import host_of
from reverseproxy.cluster.host import MuxHost, ReverseHost
from reverseproxy.errors import FrameError
from reverseproxy.identity import AgentIdentity
from reverseproxy.interfaces import ConnectionInfo, IDrainable, IExpendable
from reverseproxy.limits.buffered_bytes import UNTRUSTED, AccountedProtocol, BufferAccount
from reverseproxy.limits.connection_limit import address_key
from reverseproxy.limits.refusals import REFUSALS
from reverseproxy.net.lenient_timeouts import LenientTimeout
from reverseproxy.net.tcp_options import tune
from reverseproxy.proxy.relay import lose_connection
from reverseproxy.transport.closing import LINGER
from reverseproxy.tunnel.handshake import Accepted, Hangup, Refusal
from reverseproxy.tunnel.server.graceful_closes import GracefulCloses
from reverseproxy.tunnel.server.joined import JoinedConnection, JoinRecord, TunnelProtocol
from reverseproxy.tunnel.server.joining import JoinAttempt
from reverseproxy.tunnel.server.new_hosts import Publication, Terms, make_host, make_session
from reverseproxy.tunnel.server.refusals import REMEDIES, note_refusal
from reverseproxy.wire.mosn.frames import ConnectionInit, Flag, FrameDecoder, GracefulClose, Status, encode

if TYPE_CHECKING:
    from reverseproxy.tunnel.server.filter import TunnelServer

log = Logger(__package__)

_EXPECTED = frozenset({Flag.INIT, Flag.GRACEFUL_CLOSE})


class HandshakePhase(Enum):
    """
    How far a connection has come.

    @cvar SILENT: no byte of a frame has come, perhaps since a graceful close; MOSN's agents keep such
        connections in reserve.
    @cvar READING: a frame is incomplete.
    @cvar JUDGING: a frame waits for a decision, and reading is paused.
    @cvar JOINED: it is a host.
    @cvar CLOSING: it is being closed, with the reason in the log.
    @cvar LOST: it is closed.
    """

    SILENT = "silent"
    READING = "reading"
    JUDGING = "judging"
    JOINED = "joined"
    CLOSING = "closing"
    LOST = "lost"


@implementer(IDrainable, IExpendable)
class TunnelConnection(TunnelProtocol, AccountedProtocol):
    """
    A connection to a tunnel listener: first the handshake, then a host.

    It may be silent for as long as there is room: MOSN's agents keep such a connection in reserve. Once
    its first byte has come, the handshake has a deadline.

    @ivar holding: its state as a host, once it is one.
    """

    transport: Any
    holding: JoinedConnection | None = None

    def __init__(self, server: TunnelServer, info: ConnectionInfo) -> None:
        super().__init__()
        self._server = server
        self._info = info
        self.address_key = address_key(host_of(info.remote))
        self._decoder: FrameDecoder | None = FrameDecoder(expect=_EXPECTED)
        self._deadline: LenientTimeout | None = None
        self._judging: Deferred[None] | None = None
        self._surplus: list[bytes] = []
        self._closing: IDelayedCall | None = None
        self._began = 0.0
        self._attempt: JoinAttempt | None = None
        self._closes: GracefulCloses | None = None
        self._publication: Publication | None = None

    # IExpendable

    @property
    def expendable(self) -> bool:
        """Whether it may be closed to make room: it has not joined, and no validator is judging it."""
        return self.holding is None and self._judging is None

    @property
    def phase(self) -> HandshakePhase:
        """How far it has come."""
        if self._lost:
            return HandshakePhase.LOST
        if self._closing is not None:
            return HandshakePhase.CLOSING
        if self.holding is not None:
            return HandshakePhase.JOINED
        if self._judging is not None:
            return HandshakePhase.JUDGING
        return HandshakePhase.SILENT if self._deadline is None else HandshakePhase.READING

    # IDrainable

    def drain(self) -> None:
        """Let requests finish, and tell the agent that no more will come; see L{IDrainable}."""
        if self.holding is not None:
            super().drain()
        elif self.phase is HandshakePhase.SILENT:
            lose_connection(self.transport)  # kept in reserve by a MOSN agent
        else:
            self.drop("the server stops", "leaving")

    # frames

    def connectionMade(self) -> None:
        """Expect the agent's init frame."""
        tune(self.transport, self._server.config.dead_peer_timeout)
        self._server.pending.add(self)

    def dataReceived(self, data: bytes) -> None:
        """Process a part of the handshake."""
        phase = self.phase
        if phase in (HandshakePhase.CLOSING, HandshakePhase.LOST):
            return
        if phase in (HandshakePhase.JUDGING, HandshakePhase.JOINED):
            self._surplus.append(data)  # no more than one read, as reading is paused
            return
        if phase is HandshakePhase.SILENT:
            self._began = self._server.clock.seconds()
            self._deadline = LenientTimeout(
                self._server.clock,
                self._server.config.handshake_timeout,
                partial(self.drop, "the handshake took too long"),
            )
        self._take(data)
        if self._decoder is not None and not self._over:
            self.count(self._decoder.buffered)

    def open_account(self) -> BufferAccount:
        """See L{Counted}."""
        return UNTRUSTED.account(self.address_key, self.drop)

    def _take(self, data: bytes) -> None:
        """Process frame after frame, until one has to wait for a decision."""
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
                # What follows belongs to the protocol that uses the connection later.
                self._judge(self._admit(frame))
                return
            if isinstance(frame, GracefulClose):
                self._judge(self._evict(frame))
            if self._judging is not None:
                return
            data = b""

    @property
    def _over(self) -> bool:
        return self.phase in (HandshakePhase.CLOSING, HandshakePhase.LOST)

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

    async def _evict(self, frame: GracefulClose) -> None:
        """Execute a graceful close, which concerns other connections than this one."""
        if self._closes is None:
            self._closes = GracefulCloses(self._server, self._info, self.address_key)
        reason = await self._closes.carry_out(frame)
        if not self._over:
            self._cancel_deadline()
        if reason:
            self.drop(reason)

    # joining

    async def _admit(self, init: ConnectionInit) -> None:
        attempt = self._attempt = JoinAttempt(self._server, self._info, self.address_key, init)
        verdict = await attempt.decide()
        if self._over or verdict is None:
            return
        match verdict:
            case Accepted():
                self._join(attempt, verdict)
            case Refusal():
                self._refuse(verdict)
            case Hangup(reason, result):
                self.drop(reason, result)

    def _refuse(self, refusal: Refusal) -> None:
        if refusal.status is Status.CREDENTIAL_REJECTED:
            self._server.judge.count_refusal(self.address_key)
        self.transport.write(encode(refusal.response()))
        self.drop(f"refused with status {refusal.status.value}: {refusal.reason}", refusal.result)

    def _join(self, attempt: JoinAttempt, accepted: Accepted) -> None:
        server, announcement = self._server, accepted.announcement
        self._settle()
        server.tally.joined(accepted.cluster)
        server.tally.handshakes.note(server.clock.seconds() - self._began)
        self.vouched()
        terms = Terms.agree(server.streams, announcement)
        workers = server.workers.connections_wanted(server.config.max_hosts_per_agent)
        response = accepted.response(terms.mux, terms.window, attempt.given_routes, workers)
        self.transport.write(encode(response))
        session = None
        if terms.mux and server.streams is not None and announcement is not None:
            session = make_session(terms, server.streams, announcement, server.clock)
        address = server.workers.address_of(self._info.remote)
        host = make_host(
            accepted, self._info, address, self.transport, self._gone, session, clock=server.clock
        )
        join_record = JoinRecord(server.listener, attempt.init, accepted, self._info)
        self.holding = JoinedConnection(
            server, join_record, host, self, attempt.take_place(), claimed=attempt.claim is not None
        )
        publication = self._publication = Publication(server.clusters, accepted.cluster, host)
        publication.listen(server.clock)
        if attempt.outdated:
            server.revocations.review_one(self.holding)
        decoder, self._decoder = self._decoder, None  # the handshake is over
        assert decoder is not None
        surplus = decoder.take_surplus() + self._surplus_so_far()
        if self._judging is not None:
            self.transport.resumeProducing()  # before it gets another protocol
        if session is None:
            publication.publish_later(server.clock, server.config.publish_delay)
            host.attach(self, surplus)
        else:
            host.attach(self, surplus)
            publication.publish()

    def _gone(self, host: ReverseHost | MuxHost, reason: str) -> None:
        self._release()
        if self.holding is not None:
            self.holding.gone(host, reason)

    def _release(self) -> None:
        """Give back what it has taken for joining."""
        if self._attempt is not None:
            self._attempt.release()
        if self._publication is not None:
            self._publication.cancel()

    # ending

    def transport_objection(self) -> str:
        """See L{IPending<reverseproxy.tunnel.server.pending.IPending>}."""
        return self._server.transport_policy.objection(self._info, self.transport)

    def drop(self, reason: str, result: str = "failed") -> None:
        """
        Close the connection, with the reason in the log.

        @param result: the result of its attempt to join, as a label of metrics.
        """
        if self._over:
            return
        self._settle()
        self._abandon()
        self._decoder = None  # and its buffer
        REFUSALS["tunnel"] += 1
        self._note_refusal(reason, result)
        self.transport.resumeProducing()
        self._closing = self._server.clock.callLater(LINGER, self.transport.abortConnection)
        lose_connection(self.transport)

    def _note_refusal(self, reason: str, result: str) -> None:
        """Count, record and log why it is closed."""
        server, attempt = self._server, self._attempt
        init = None if attempt is None else attempt.init
        identity = None if attempt is None else attempt.identity
        if identity is None:
            claim = "" if init is None else init.host_name
            identity = AgentIdentity(certificate=self._info.subject, claim=claim)
        note_refusal(
            server.tally, server.clusters, server.listener, self._info, init, identity, result, reason
        )
        # Errors of framing quote what was sent, which differs each time.
        server.peer_log.warn_folded(
            (self.address_key, identity.principal, result, "" if result == "failed" else reason),
            "{listener}: {peer}{who} closed: {reason}{remedy}",
            peer=self._info.remote,
            who="" if init is None else f" of {identity}",
            reason=reason,
            remedy=f"; {remedy}" if (remedy := REMEDIES.get(result, "")) else "",
        )

    def _abandon(self) -> None:
        """Cancel the next steps of what is being decided."""
        if self._attempt is not None:
            self._attempt.abandon()
        if self._closes is not None:
            self._closes.abandon()

    def _settle(self) -> None:
        """End the handshake."""
        self._server.pending.discard(self)
        self.count_no_more()
        self._cancel_deadline()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Clean up the handshake, or the host."""
        self._settle()
        self._abandon()
        self._release()
        if self.holding is not None:
            self.holding.leave_place()
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        super().connectionLost(reason)
        judging, self._judging = self._judging, None
        if judging is not None:
            judging.cancel()
