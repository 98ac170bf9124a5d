"""
An agent's connection to a tunnel server: greeting, then hosting.

The link owns the connection until the server has accepted it, and hands it to
the hosting listener then, with whatever came behind the response.
"""

from __future__ import annotations

__all__ = ["AgentLink"]

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from random import random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.cluster.handover import Handover
from reverseproxy.errors import (
    ConnectionUnavailable,
    FrameError,
    HandshakePostponed,
    HandshakeRefused,
    ServerLeaves,
)
from reverseproxy.interfaces import ConnectionInfo, IConnectionSink, IDrainable
from reverseproxy.logs import loss
from reverseproxy.mux.session import GRACE, MuxSession
from reverseproxy.mux.stream import MuxStream
from reverseproxy.net.dead_peers import DEAD_PEER_TIMEOUT
from reverseproxy.net.formatting import format_address
from reverseproxy.net.lenient_timeouts import LenientTimeout
from reverseproxy.net.tcp_info import was_heard
from reverseproxy.net.tcp_options import tune
from reverseproxy.proxy.closing import LINGER, CloseLimits, DelayedClose, doing, end_session
from reverseproxy.proxy.relay import RelayEnd, lose_connection
from reverseproxy.tls import peer_identity
from reverseproxy.tls.wording import explain
from reverseproxy.tunnel.agent.redial import EndedUnused
from reverseproxy.tunnel.agent.service import HostedService
from reverseproxy.tunnel.streams import StreamSettings
from reverseproxy.wire.mosn.extensions import ServerAnnouncement
from reverseproxy.wire.mosn.frames import ConnectionInit, Flag, FrameDecoder, InitResponse, Status, encode
from reverseproxy.wire.mosn.route_requests import BroughtRoutes

log = Logger()


def _refusal(answer: InitResponse) -> HandshakeRefused:
    """Say why the server does not accept us."""
    announcement = ServerAnnouncement.from_extra(answer.extra)
    if announcement is not None and announcement.retry_after:
        return HandshakePostponed(answer.status, announcement.retry_after / 1000, announcement.reason)
    told = "" if announcement is None or not announcement.reason else f": {announcement.reason}"
    return HandshakeRefused(answer.status, f"{answer.status.meaning}{told}")


class Side(Enum):
    """Who has ended a connection, or its half of it, first."""

    WE = "we"
    SERVER = "server"


def _ignore(reason: Failure) -> None:
    """Stand in until somebody wants to hear of the loss."""


def _stay(link: AgentLink) -> None:
    """Stand in until somebody wants to know of a link that leaves."""


def _nothing() -> None:
    """Stand in until somebody wants to know of the end of the greeting."""


def _never() -> bool:
    """Stand in until somebody knows whether there may be another link in place of one that leaves."""
    return False


def _is_busy(protocol: Any) -> bool:
    return IDrainable.providedBy(protocol) and protocol.busy


class LinkHooks:
    """
    Whom an L{AgentLink} tells of what happens to it; each is there for one listener.

    @ivar lost: called once with the reason when the connection is lost.
    @ivar leaving: called with this link when the server wants another one in its place,
        because it is about to leave or wants no more of this one, but requests are
        under way, or may come; the slot is told that it is lost.
    @ivar may_leave: whether there may be another link in place of one that still
        has something under way.
    @ivar hosted: called once with this link when the hosting listener has it.
    @ivar greeted: called when the greeting is over, whatever has become of it; also
        again when the connection is lost.
    @ivar parted: called with this link when the connection is lost.
    """

    lost: Callable[[Failure], None] = staticmethod(_ignore)
    leaving: Callable[[AgentLink], object] = staticmethod(_stay)
    parted: Callable[[AgentLink], object] = staticmethod(_stay)
    may_leave: Callable[[], bool] = staticmethod(_never)
    hosted: Callable[[AgentLink], object] = staticmethod(_stay)
    greeted: Callable[[], object] = staticmethod(_nothing)


@dataclass(frozen=True, slots=True)
class LinkTerms:
    """
    How a link greets a server, and for whom.

    @ivar make_init: makes the init frame, given our own address on this
        connection.
    @ivar sink: the hosting listener.
    @ivar response_timeout: seconds that the server has for its answer.
    @ivar secure: whether the connection is encrypted.
    @ivar dead_peer_timeout: see L{tune}.
    @ivar streams: how to carry many streams, if that was offered in the init
        frame.
    @ivar service: what the server is told of, if that was offered in the init
        frame.
    @ivar marks: whether the hosting listener can mark what it sends, as offered
        in the init frame.
    """

    make_init: Callable[[str], ConnectionInit]
    sink: IConnectionSink
    response_timeout: float
    secure: bool
    dead_peer_timeout: float
    streams: StreamSettings | None
    service: HostedService | None
    marks: bool


class AgentLink(LinkHooks, Handover):
    """
    See L{reverseproxy.tunnel.agent.slot_interfaces.SlotLink}.

    @ivar used: whether the server has sent anything after its answer, or has
        opened a stream.
    @ivar gone: whether the connection is lost.
    @ivar server_announced: whether the server is one of ours, so that what it
        understands beyond MOSN may be used.
    @ivar routes: those that the server has given to us, once it has accepted us.
    @ivar session: the connection's streams, if the server has agreed to them.
    @ivar workers: how many connections with streams the server can share among its
        processes; 0 if it says nothing of that.
    """

    transport: Any
    used = False
    gone = False
    server_announced = False
    routes = BroughtRoutes()
    session: MuxSession | None = None
    workers = 0
    _end_seen: Side | None = None
    _moves = False

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
        """See L{LinkTerms}."""
        super().__init__()
        self._terms = LinkTerms(
            make_init, sink, response_timeout, secure, dead_peer_timeout, streams, service, marks
        )
        self._quiet_since: dict[MuxStream, float] = {}
        self._clock = clock
        self._decoder = FrameDecoder(expect=frozenset({Flag.INIT_RESPONSE}))
        self._greeting: Deferred[None] | None = None
        self._deadline: LenientTimeout | None = None
        self._closing: DelayedClose | None = None
        self._hosted = False

    def connectionMade(self) -> None:
        """Tune the connection; the greeting waits until it is asked for."""
        tune(self.transport, self._terms.dead_peer_timeout)

    @property
    def local_address(self) -> str:
        """Our address on this connection, as the server sees it without NAT."""
        return format_address(self.transport.getHost())

    @property
    def busy(self) -> bool:
        """Whether a request or a session is under way."""
        if self.session is not None:
            return any(_is_busy(stream.protocol) for stream in self.session.all)
        return _is_busy(self.inner)

    def greet(self) -> Deferred[None]:
        """Send the init frame; see L{reverseproxy.tunnel.agent.slot_interfaces.SlotLink.greet}."""
        greeting: Deferred[None] = Deferred(lambda _: self._abandon())
        if self.gone:
            greeting.errback(Failure(ConnectionUnavailable("connection lost before the handshake")))
            return greeting
        self._greeting = greeting
        self._deadline = LenientTimeout(self._clock, self._terms.response_timeout, self._too_late)
        try:
            frame = encode(self._terms.make_init(self.local_address))
        except Exception as error:
            # Such as a credential that does not fit into a frame: the next one may.
            self._refuse(error)
        else:
            self.transport.write(frame)
        return greeting

    def _abandon(self) -> None:
        # Forgotten first: the loss of the connection must not conclude what is cancelled.
        self._greeting = None
        self._conclude(None)
        self.close()

    def _too_late(self) -> None:
        if was_heard(self.transport, 0.0):
            # It is us who are late: the answer waits to be read.
            self._deadline = LenientTimeout(self._clock, GRACE, self._too_late)
            return
        self._refuse(
            ConnectionUnavailable(f"no answer to the handshake within {self._terms.response_timeout:g} s")
        )

    def dataReceived(self, data: bytes) -> None:
        """Wait for the answer; the hosted protocol takes over after it."""
        try:
            answer = self._decoder.feed(data)
        except FrameError as error:
            self._refuse(error)
            return
        if answer is None:
            return
        assert isinstance(answer, InitResponse)
        if self._greeting is None:
            self.close()  # cancelled, or the server spoke before it was greeted
        elif answer.status != Status.SUCCESS:
            self._refuse(_refusal(answer))
        else:
            self._host(answer)

    def _host(self, answer: InitResponse) -> None:
        announcement = ServerAnnouncement.from_extra(answer.extra)
        self.server_announced = announcement is not None
        mux, window = "", 0
        if announcement is not None:
            self.routes = announcement.routes
            mux, window = announcement.mux, announcement.window
            self._moves = announcement.moves
            self.workers = announcement.workers if mux else 0
        if mux and (self._terms.streams is None or mux not in self._terms.streams.offer):
            self._refuse(
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
        # Concluded first: the hosted protocol may close the connection at once,
        # and a slot must hear of the success before it hears of the loss.
        self._hosted = True
        self._conclude(None)
        surplus = self._decoder.take_surplus()
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
        """Make the session that feeds the hosting listener with streams."""
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
        """The server is about to leave: this connection serves on, and another one is needed."""
        going = self.session is not None and self.session.going  # as we leave, too
        if self._closing is None and not self.gone and not going:
            self.leaving(self)
            self._tell_lost(Failure(ServerLeaves(seconds)))

    def _tell_of_service(self, info: ConnectionInfo) -> None:
        """Tell the server now, and from now on, whether our service can be reached."""
        service, session = self._terms.service, self.session
        if service is not None and info.service is not None and session is not None and not self.gone:
            service.watch(session.tell)
            if not service.well:
                session.tell(False)

    def _server_goes(self) -> None:
        """The server opens no more streams: those that are open finish, and another connection is needed."""
        session = self.session
        assert session is not None
        if session.going:
            return  # it has heard that we go, and there is nothing more to come
        session.go_away()
        if self._closing is None:
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
        return self._hosted and not self.used and self.session is None

    def rebind(self, receive: Callable[[bytes], None]) -> None:
        """Give reads to the hosted protocol; the first one marks the link as used."""
        if not self._fresh:
            super().rebind(receive)
            return

        def first(data: bytes) -> None:
            self.used = True
            self.rebind(receive)
            receive(data)

        super().rebind(first)

    def telling(self, told: Callable[[int], object]) -> Callable[[int], object]:
        """Bytes that the hosted protocol does not see mark the link as used just so."""
        if not self._fresh:
            return super().telling(told)

        def first(size: int) -> None:
            self.used = True
            told(size)

        return super().telling(first)

    def _refuse(self, error: Exception) -> None:
        self._conclude(Failure(error))
        self.close()

    def _conclude(self, result: Failure | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        greeting, self._greeting = self._greeting, None
        if greeting is not None:
            if result is None:
                greeting.callback(None)
            else:
                greeting.errback(result)
        self.greeted()

    def drain(self) -> None:
        """Let what is hosted finish what it has begun, and have no more streams opened."""
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
        Close streams on which nothing has been under way for so long.

        Called again and again while the link drains.  It closes by itself when
        there are no more streams, and the server has said that there will be none.
        """
        session = self.session
        if session is None or not session.peer_going:
            return
        now = self._clock.seconds()
        since, self._quiet_since = self._quiet_since, {}
        for stream in session.all:
            if not _is_busy(stream.protocol):
                began = self._quiet_since[stream] = since.get(stream, now)
                if now - began >= seconds:
                    stream.loseConnection()

    @property
    def held(self) -> int:
        """How many connections the hosting listener has of it: its streams, or itself."""
        if self.session is not None:
            return len(self.session.all)
        return int(self._hosted and not self.gone)

    @property
    def doing(self) -> list[str]:
        """What is under way, in a word or two for each of it."""
        return [doing(each) for each in self._busy]

    def end(self, reason: str) -> None:
        """End what is under way as its protocol has it; for a link that drains."""
        for each in self._busy:
            end_session(each, reason)

    @property
    def _busy(self) -> list[Any]:
        session = self.session
        hosted = [self.inner] if session is None else [stream.protocol for stream in session.all]
        return [each for each in hosted if _is_busy(each)]

    def close(self) -> None:
        """Close the connection, once what the hosted protocol wrote is sent."""
        if self.gone or self._closing is not None:
            return
        if not self._hosted:
            self.transport.abortConnection()
            return
        self._closing = DelayedClose(self._clock, self.transport, CloseLimits(stall=LINGER))
        if self.session is not None:
            self.session.close("the agent closes the connection")
        else:
            lose_connection(self.transport)

    def writeConnectionLost(self) -> None:
        """We send no more."""
        self._end_seen = self._end_seen or Side.WE
        super().writeConnectionLost()

    def _see_end(self, reason: Failure) -> None:
        """The connection is lost: find out who has ended it, unless that was seen before."""
        if self._end_seen is None:
            ours = getattr(self.transport, "disconnecting", False) or reason.check(ConnectionAborted)
            self._end_seen = Side.WE if ours else Side.SERVER

    def _explain(self, reason: Failure) -> Failure:
        """Say more of the end of the connection, if we know more."""
        if self.session is not None:
            return Failure(ConnectionLost(self.session.reason)) if self.session.reason else reason
        if self._end_seen is Side.SERVER and not self.used:
            return Failure(EndedUnused())
        return reason

    def _tell_lost(self, reason: Failure) -> None:
        lost, self.lost = self.lost, _ignore
        lost(reason)

    def readConnectionLost(self) -> None:
        """
        The server sends no more: what it has asked for is answered, but not waited for.

        It may be a client at the other end of a session, or the server may be
        gone, and then the slot should not be.
        """
        self._end_seen = self._end_seen or Side.SERVER
        busy = self.busy  # which is also said of one that closes because of this
        super().readConnectionLost()
        if (
            busy
            and self._hosted
            and self._closing is None
            and not self.gone
            and self.busy
            and not isinstance(self.inner, RelayEnd)
            and self.may_leave()
        ):
            self.leaving(self)
            self._tell_lost(Failure(ConnectionDone("the server sends no more")))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End the hosted protocol, then tell the slot."""
        self.gone = True
        self._see_end(reason)  # before the hosted protocol closes what is closed
        if self._closing is not None:
            self._closing.stop()
        self._quiet_since.clear()
        if self._terms.service is not None and self.session is not None:
            self._terms.service.unwatch(self.session.tell)
        try:
            super().connectionLost(reason)
        except Exception:
            self._hosted_failed()  # which must not keep the slot from hearing of the loss
        self._conclude(Failure(ConnectionUnavailable(f"lost during the handshake: {explain(loss(reason))}")))
        if self._hosted:
            self._tell_lost(self._explain(reason))
        else:
            self.lost = _ignore
        self.parted(self)
