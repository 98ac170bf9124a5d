"""
An agent's connection to a tunnel server: first the handshake, then a connection of the hosting listener.

The link is the connection's protocol until the server has accepted it; then the protocol of the hosting
listener takes over, with all data behind the response.
"""

from __future__ import annotations

__all__ = ["AgentLink", "AgentLinkPhase"]

from collections.abc import Callable
from enum import Enum
from random import random
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.cluster.handover import Handover
from reverseproxy.errors import (
    ConnectionUnavailable,
    FrameError,
    ServerLeaves,
)
from reverseproxy.interfaces import ConnectionInfo, IConnectionSink, IDrainable
from reverseproxy.logs import loss
from reverseproxy.mux.session import MuxSession
from reverseproxy.net.dead_peers import DEAD_PEER_TIMEOUT
from reverseproxy.net.formatting import format_address
from reverseproxy.net.tcp_info import was_heard
from reverseproxy.net.tcp_options import tune
from reverseproxy.proxy.closing import doing, end_session
from reverseproxy.proxy.relay import RelayEnd, lose_connection
from reverseproxy.tls import peer_identity
from reverseproxy.tls.wording import explain
from reverseproxy.transport.closing import LINGER, CloseLimits, DelayedClose
from reverseproxy.tunnel.agent.connection_end import ConnectionEnd, Side
from reverseproxy.tunnel.agent.greeting import Greeting, refusal_of
from reverseproxy.tunnel.agent.link_terms import LinkHooks, LinkTerms, ignore_loss
from reverseproxy.tunnel.agent.quiet_streams import QuietStreams, is_busy
from reverseproxy.tunnel.agent.redial import EndedUnused
from reverseproxy.tunnel.agent.service import HostedService
from reverseproxy.tunnel.streams import StreamSettings
from reverseproxy.wire.mosn.extensions import ServerAnnouncement
from reverseproxy.wire.mosn.frames import ConnectionInit, InitResponse, Status, encode
from reverseproxy.wire.mosn.route_requests import BroughtRoutes

log = Logger()


class AgentLinkPhase(Enum):
    """
    The state of an agent's connection.

    @cvar GREETING: the server has not accepted it yet.
    @cvar HOSTED: the protocol of the hosting listener has it.
    @cvar CLOSING: this end closes it behind what that has written.
    @cvar LOST: it is closed.
    """

    GREETING = "greeting"
    HOSTED = "hosted"
    CLOSING = "closing"
    LOST = "lost"


class AgentLink(LinkHooks, Handover):
    """
    A L{SlotLink<reverseproxy.tunnel.agent.slot_interfaces.SlotLink>}.

    @ivar used: whether the server has sent anything after its response, or has opened a stream.
    @ivar session: the connection's streams, if the server has agreed to them.
    @ivar workers: how many connections with streams the server can share among its processes; 0 if it
        does not announce that.
    """

    transport: Any
    used = False
    session: MuxSession | None = None
    workers = 0
    _announcement: ServerAnnouncement | None = None

    def __init__(
        self,
        make_init: Callable[[str], ConnectionInit],
        sink: IConnectionSink,
        clock: IReactorTime,
        response_timeout: float,
        secure: bool,
        dead_peer_timeout: float = DEAD_PEER_TIMEOUT,
        streams: StreamSettings | None = None,
        service: HostedService | None = None,
        marks: bool = False,
    ) -> None:
        """The parameters are those of L{LinkTerms}."""
        super().__init__()
        self._terms = LinkTerms(
            make_init, sink, response_timeout, secure, dead_peer_timeout, streams, service, marks
        )
        self._quiet = QuietStreams(clock)
        self._end = ConnectionEnd()
        self._clock = clock
        self._greeting = Greeting(
            clock,
            response_timeout,
            lambda: was_heard(self.transport, 0.0),
            self.close,
            lambda: self.greeted(),
        )
        self._delayed_close: DelayedClose | None = None
        self._phase = AgentLinkPhase.GREETING

    def connectionMade(self) -> None:
        """Set socket options; the handshake begins with L{greet}."""
        tune(self.transport, self._terms.dead_peer_timeout)

    @property
    def gone(self) -> bool:
        """Whether the connection is lost."""
        return self._phase is AgentLinkPhase.LOST

    @property
    def _is_hosted(self) -> bool:
        """Whether the protocol of the hosting listener has the connection."""
        return self._phase in (AgentLinkPhase.HOSTED, AgentLinkPhase.CLOSING)

    @property
    def local_address(self) -> str:
        """The connection's own address, which the server sees as its peer unless there is NAT."""
        return format_address(self.transport.getHost())

    @property
    def server_announced(self) -> bool:
        """Whether the server is one of this project, so that extensions of MOSN's protocol may be used."""
        return self._announcement is not None

    @property
    def routes(self) -> BroughtRoutes:
        """The routes that the server has granted, once it has accepted the connection."""
        return BroughtRoutes() if self._announcement is None else self._announcement.routes

    @property
    def _moves(self) -> bool:
        """Whether the server announces that it is about to leave."""
        return self._announcement is not None and self._announcement.moves

    @property
    def busy(self) -> bool:
        """Whether a request or a session is in progress."""
        if self.session is not None:
            return any(is_busy(stream.protocol) for stream in self.session.all)
        return is_busy(self.inner)

    def greet(self) -> Deferred[None]:
        """Send the init frame; see L{reverseproxy.tunnel.agent.slot_interfaces.SlotLink.greet}."""
        if self.gone:
            return fail(ConnectionUnavailable("connection lost before the handshake"))
        greeting = self._greeting.begin()
        try:
            frame = encode(self._terms.make_init(self.local_address))
        except Exception as error:
            # For example, a credential that does not fit into a frame: the next one may.
            self._greeting.fail(error)
        else:
            self.transport.write(frame)
        return greeting

    def dataReceived(self, data: bytes) -> None:
        """Expect the server's response; the hosted protocol takes over after it."""
        try:
            answer = self._greeting.feed(data)
        except FrameError as error:
            self._greeting.fail(error)
            return
        if answer is None:
            return
        if not self._greeting.waits:
            self.close()  # cancelled, or the server spoke before it was greeted
        elif answer.status != Status.SUCCESS:
            self._greeting.fail(refusal_of(answer))
        else:
            self._host(answer)

    def _host(self, answer: InitResponse) -> None:
        announcement = self._announcement = ServerAnnouncement.from_extra(answer.extra)
        mux, window = "", 0
        if announcement is not None:
            mux, window = announcement.mux, announcement.window
            self.workers = announcement.workers if mux else 0
        if mux and (self._terms.streams is None or mux not in self._terms.streams.offer):
            self._greeting.fail(
                ConnectionUnavailable(
                    f"the server wants to carry streams in a way that was not offered: {mux!r}"
                )
            )
            return
        info = ConnectionInfo(
            remote=format_address(self.transport.getPeer()),
            local=self.local_address,
            secure=self._terms.secure,
            identity=peer_identity(self.transport) if self._terms.secure else None,
            reverse=True,
            announced=self.server_announced,
            service=self._terms.service if announcement is not None and announcement.tells else None,
            marked=announcement is not None and announcement.marks and self._terms.marks and not mux,
        )
        # Concluded first: the hosted protocol may close the connection at once, and the slot must be
        # told of the success before the loss.
        self._phase = AgentLinkPhase.HOSTED
        self._greeting.conclude(None)
        surplus = self._greeting.take_surplus()
        try:
            self.hand_over(
                self._carry(info, window) if mux else self._terms.sink.build_protocol(info), surplus
            )
            self.hosted(self)
            self._tell_of_service(info)
        except Exception:
            self._hosted_failed()
            self.close()

    def _carry(self, info: ConnectionInfo, window: int) -> MuxSession:
        """Make the session that gives streams to the hosting listener."""
        streams = self._terms.streams
        assert streams is not None

        def accept() -> IProtocol:
            self.used = True
            return self._terms.sink.build_protocol(info)

        self.session = MuxSession(
            False,
            self._clock,
            streams.limits_with(window, info.service is not None, self._moves),
            accept,
            streams.ping_interval,
            streams.ping_timeout,
            on_going=self._server_goes,
            jitter=random,
        )
        self.session.on_leaving = self._server_leaves
        return self.session

    def _server_leaves(self, seconds: float) -> None:
        """Have the connection replaced, as the server is about to leave; it serves on."""
        going = self.session is not None and self.session.going  # the agent leaves as well
        if self._phase is AgentLinkPhase.HOSTED and not going:
            self.leaving(self)
            self._tell_lost(Failure(ServerLeaves(seconds)))

    def _tell_of_service(self, info: ConnectionInfo) -> None:
        """Report the health of the service to the server, now and from now on."""
        service, session = self._terms.service, self.session
        if service is not None and info.service is not None and session is not None and not self.gone:
            service.watch(session.tell)
            if not service.well:
                session.tell(False)

    def _server_goes(self) -> None:
        """Have the connection replaced, as the server opens no more streams; open ones are finished."""
        session = self.session
        assert session is not None
        if session.going:
            return  # the server answers this agent's GOAWAY
        session.go_away()
        if self._phase is AgentLinkPhase.HOSTED:
            self.leaving(self)
            self._tell_lost(Failure(ConnectionDone("the server opens no more streams")))

    def _hosted_failed(self) -> None:
        log.failure(
            "listener {listener}: the protocol of a connection to {peer} failed",
            listener=self._terms.sink.name,
            peer=format_address(self.transport.getPeer()),
        )

    @property
    def _fresh(self) -> bool:
        """Whether the next byte is the first one for a hosted protocol."""
        return self._is_hosted and not self.used and self.session is None

    def rebind(self, receive: Callable[[bytes], None]) -> None:
        """Pass reads to the hosted protocol; the first one marks the link as used."""
        if not self._fresh:
            super().rebind(receive)
            return

        def first(data: bytes) -> None:
            self.used = True
            self.rebind(receive)
            receive(data)

        super().rebind(first)

    def wrap_spliced(self, on_spliced: Callable[[int], object]) -> Callable[[int], object]:
        """Wrap a callback for spliced bytes: the first ones mark the link as used, as others do."""
        if not self._fresh:
            return super().wrap_spliced(on_spliced)

        def first(size: int) -> None:
            self.used = True
            on_spliced(size)

        return super().wrap_spliced(first)

    def drain(self) -> None:
        """Let the hosted protocols finish their requests, and have no more streams opened."""
        session = self.session
        if session is None:
            if IDrainable.providedBy(self.inner):
                self.inner.drain()
            return
        session.go_away()
        for stream in session.all:
            if IDrainable.providedBy(stream.protocol):
                stream.protocol.drain()

    def close_quiet(self, seconds: float) -> None:
        """
        Close streams that have been idle for so many seconds.

        Called again and again while the link drains. The connection closes by itself when there are no
        more streams, and the server has announced that there will be none.
        """
        session = self.session
        if session is None or not session.peer_going:
            return
        self._quiet.close(session.all, seconds)

    @property
    def held(self) -> int:
        """How many connections the hosting listener has of it: its streams, or itself."""
        if self.session is not None:
            return len(self.session.all)
        return int(self._is_hosted)

    @property
    def doing(self) -> list[str]:
        """What is in progress, in a word or two each."""
        return [doing(each) for each in self._busy]

    def end(self, reason: str) -> None:
        """End what is in progress in the way of its protocol; for a link that drains."""
        for each in self._busy:
            end_session(each, reason)

    @property
    def _busy(self) -> list[Any]:
        session = self.session
        hosted = [self.inner] if session is None else [stream.protocol for stream in session.all]
        return [each for each in hosted if is_busy(each)]

    def close(self) -> None:
        """Close the connection once everything that the hosted protocol has written is sent."""
        if self._phase is AgentLinkPhase.GREETING:
            self.transport.abortConnection()
        elif self._phase is AgentLinkPhase.HOSTED:
            self._phase = AgentLinkPhase.CLOSING
            if self.session is not None:
                self.session.close("the agent closes the connection")
            else:
                self._delayed_close = DelayedClose(self._clock, self.transport, CloseLimits(stall=LINGER))
                lose_connection(self.transport)

    def writeConnectionLost(self) -> None:
        """Note that this end has closed its half."""
        self._end.note(Side.WE)
        super().writeConnectionLost()

    def _explain(self, reason: Failure) -> Failure:
        """Return a more precise reason for the loss of the connection, if one is known."""
        if self.session is not None:
            return Failure(ConnectionLost(self.session.reason)) if self.session.reason else reason
        if self._end.by is Side.SERVER and not self.used:
            return Failure(EndedUnused())
        return reason

    def _tell_lost(self, reason: Failure) -> None:
        lost, self.lost = self.lost, ignore_loss
        lost(reason)

    def readConnectionLost(self) -> None:
        """
        Note that the server has closed its half: requests in progress are answered, and the connection
        is replaced meanwhile.

        The server may pass on the half-close of a client, or may be gone; in the latter case the slot
        should have another connection.
        """
        self._end.note(Side.SERVER)
        busy = self.busy  # it would also be true of a protocol that closes because of this
        super().readConnectionLost()
        if (
            busy
            and self._phase is AgentLinkPhase.HOSTED
            and self.busy
            and not isinstance(self.inner, RelayEnd)
            and self.may_leave()
        ):
            self.leaving(self)
            self._tell_lost(Failure(ConnectionDone("the server sends no more")))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End the hosted protocol, then tell the slot."""
        hosted = self._is_hosted
        self._phase = AgentLinkPhase.LOST
        self._end.lost(self.transport, reason)  # before the hosted protocol closes the transport
        if self._delayed_close is not None:
            self._delayed_close.stop()
        self._quiet.clear()
        if self._terms.service is not None and self.session is not None:
            self._terms.service.unwatch(self.session.tell)
        try:
            super().connectionLost(reason)
        except Exception:
            self._hosted_failed()  # the slot must hear of the loss nevertheless
        self._greeting.conclude(
            Failure(ConnectionUnavailable(f"lost during the handshake: {explain(loss(reason))}"))
        )
        self._greeting.forget()
        if hosted:
            self._tell_lost(self._explain(reason))
        else:
            self.lost = ignore_loss
        self.parted(self)
