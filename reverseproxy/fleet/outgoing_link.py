"""
One link to another server: the connection over which this server forwards requests to it.

Every process of a server (each worker, where there are several) keeps one connection to
each other server, and opens a stream on it for each request that it forwards.  What the
other server forwards comes over the connection that it has dialled itself
(L{reverseproxy.fleet.incoming_links}): servers negotiate nothing about links, and where
the network lets connections through in one direction only, that direction is used.  Any
worker of the other server can accept the connection; it reaches agents of its siblings
through them.

The first stream of a link is its control stream.  Both ends identify themselves on it,
and exchange messages from then on::

    {"v": 1, "hello": "a", "knows": ["orders"]}     -->
                                        <--     {"v": 1, "hello": "b", "knows": ["orders"]}
                                        <--     {"well": false, "cluster": ..., "agent": ...}
                                        <--     {"gone": true, "cluster": ..., "agent": ...}
                                        <--     {"leaving": true}
    {"outcome": 3, "cluster": ..., }    -->

C{knows} has a peer's capabilities beyond what all versions understand
(L{CAPABILITIES<reverseproxy.fleet.link_frames.CAPABILITIES>}): a peer gets no message that needs
another one.  Messages of an unknown kind are ignored.

An C{outcome} reports a forwarded request that failed, or the first that succeeded after
failures: the server that has the agent decides whether to eject it.

A peer from which nothing comes is pinged, ahead of all other data, and given up within
5 s (L{reverseproxy.mux.session}).
"""

from __future__ import annotations

__all__ = [
    "DIAL_TIMEOUT",
    "HELLO_TIMEOUT",
    "LIMITS",
    "ILinkUser",
    "LinkContext",
    "LinkPhase",
    "OutgoingLink",
]

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IProtocol, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.cluster.endpoints import CallableFactory
from reverseproxy.errors import WireError
from reverseproxy.fleet.link_frames import CAPABILITIES, LINK_VERSION, LinkFrameReader, frame
from reverseproxy.fleet.records import ServerRecord
from reverseproxy.logs import loss, shorten
from reverseproxy.mux.session import MuxSession
from reverseproxy.tunnel.agent.backoff import Backoff
from reverseproxy.wire.yamux.events import MuxLimits
from reverseproxy.wire.yamux.frames import HEADER_SIZE

log = Logger()

DIAL_TIMEOUT: Final = 4.0
"""Seconds to connect to a server, with the TLS handshake."""

HELLO_TIMEOUT: Final = 4.0
"""Seconds after that for the peer's first message, and for the first message of each further stream."""

MOST_UNREAD: Final = 262144
"""Bytes of messages that may wait for a slow peer; further ones are dropped."""

LIMITS: Final = MuxLimits(
    max_streams=65536,
    accept_backlog=65536,
    max_resets=1_000_000,
    tells=True,
    window=1024 * 1024,
    max_frame=4 * 16384 - HEADER_SIZE,
)
"""
Limits of links, which carry as many requests as all clients of a server together.

Between the two ends of a forwarded request are two more processes, each of which works through a batch
of input before it yields: with the default window, its sender would have used up the window by then. A
frame fills four TLS records; with its header in front of whole records, each frame would need one more
record of a few bytes.
"""


class LinkPhase(Enum):
    """
    The state of a link.

    @cvar IDLE: it has not been dialled yet.
    @cvar DIALLING: a connection is being established.
    @cvar GREETING: the peer's hello has not come yet.
    @cvar UP: streams can be opened.
    @cvar WAITING: it is dialled again after a delay.
    @cvar ENDED: it is not dialled any more.
    """

    IDLE = "idle"
    DIALLING = "dialling"
    GREETING = "greeting"
    UP = "up"
    WAITING = "waiting"
    ENDED = "ended"


class ILinkUser(Protocol):
    """What handles the events of links."""

    def link_up(self, link: OutgoingLink) -> None:
        """Use a link: streams can be opened on it from now on."""

    def link_down(self, link: OutgoingLink, reason: str) -> None:
        """Use a link no longer: it takes no more streams."""

    def link_message(self, link: OutgoingLink, message: Mapping[str, Any]) -> None:
        """
        Handle a message of the peer.

        @raise WireError: if it is malformed, which ends the link.
        """


@dataclass(frozen=True, slots=True)
class LinkContext:
    """
    What all links of this server share.

    @ivar server_id: this server's id.
    @ivar clock: the reactor.
    @ivar user: handles their events.
    @ivar endpoint: makes the endpoint for a server's address; may raise L{ValueError}.
    @ivar prove: returns why a connection's peer is not the server with an id; empty if it is.
    """

    server_id: str
    clock: IReactorTime
    user: ILinkUser
    endpoint: Callable[[str], IStreamClientEndpoint]
    prove: Callable[[Any, str], str]


class _DialledControlStream(StreamProtocol):
    """The control stream of a link, at the end that has dialled."""

    transport: Any

    def __init__(self, heard: Callable[[Mapping[str, Any]], object], failed: Callable[[str], object]) -> None:
        self._received = heard
        self._failed = failed
        self._reader = LinkFrameReader()

    def dataReceived(self, data: bytes) -> None:
        """Parse messages, and pass them on."""
        try:
            self._reader.feed(data)
            while (message := self._reader.next()) is not None:
                self._received(message)
        except WireError as error:
            self._failed(str(error))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail the link: without its control stream it is of no use."""
        self._failed(f"it speaks no more: {loss(reason)}")


class OutgoingLink:
    """
    The connection to another server, which is dialled again whenever it is lost.

    @ivar record: the other server's record.
    @ivar phase: its state.
    @ivar session: the session whose streams it carries; L{None} while there is no connection.
    @ivar leaving: whether the peer has announced that it is about to leave.
    @ivar losses: how often it was up, and has been lost.
    @ivar problem: why it is not up; empty if it is.
    """

    def __init__(self, context: LinkContext, record: ServerRecord, backoff: Backoff) -> None:
        self.record = record
        self.phase = LinkPhase.IDLE
        self.session: MuxSession | None = None
        self.leaving = False
        self.losses = 0
        self.problem = "it has not been dialled yet"
        self._context = context
        self._backoff = backoff
        self._dial: Deferred[IProtocol] | None = None
        self._timer: IDelayedCall | None = None
        self._control: _DialledControlStream | None = None
        self._retiring: set[MuxSession] = set()

    def __repr__(self) -> str:
        return f"<OutgoingLink to {self.server}: {self.phase.value}>"

    @property
    def server(self) -> str:
        """The other server's id."""
        return self.record.id

    @property
    def usable(self) -> bool:
        """Whether a stream can be opened."""
        return self.phase is LinkPhase.UP and self.session is not None and self.session.usable

    @property
    def failed(self) -> bool:
        """Whether an attempt to connect has failed since it was last up."""
        return self._backoff.failures > 0

    @property
    def rtt(self) -> float | None:
        """The round-trip time of the last ping, in seconds."""
        return None if self.session is None else self.session.rtt

    def dial(self) -> None:
        """Dial, unless it is connected or ended."""
        self._cancel_timer()
        if self.phase not in (LinkPhase.IDLE, LinkPhase.WAITING):
            return
        self.phase = LinkPhase.DIALLING
        try:
            endpoint = self._context.endpoint(self.record.address)
        except ValueError as error:
            self._dial_failed(Failure(error))
            return
        dial = self._dial = endpoint.connect(CallableFactory(self._make))
        dial.addTimeout(DIAL_TIMEOUT, self._context.clock)
        dial.addCallbacks(self._connected, self._dial_failed)

    def _make(self) -> MuxSession:
        return MuxSession(client=True, clock=self._context.clock, limits=LIMITS)

    def _connected(self, protocol: IProtocol) -> None:
        assert isinstance(protocol, MuxSession)
        self._dial = None
        self.session = session = protocol
        if session.lost:
            self._lost("the connection was lost at once")
            return
        session.on_lost = lambda reason: self._session_lost(session, reason)
        session.on_going = self._peer_leaves
        reason = self._context.prove(session.transport, self.server)
        if reason:
            log.warn(
                "fleet: {address} is not taken for server {server}: {reason}",
                address=self.record.address,
                server=self.server,
                reason=reason,
            )
            self._fail(reason)
            return
        self.phase = LinkPhase.GREETING
        self._timer = self._context.clock.callLater(HELLO_TIMEOUT, self._fail, "it does not say who it is")
        control = self._control = _DialledControlStream(self._received, self._fail)
        session.open(CallableFactory(lambda: control)).addErrback(
            lambda failure: self._fail(f"no stream could be opened: {loss(failure)}")
        )
        if self._control is control and control.transport is not None:
            control.transport.write(
                frame({"v": LINK_VERSION, "hello": self._context.server_id, "knows": CAPABILITIES})
            )

    def _dial_failed(self, reason: Failure) -> None:
        self._dial = None
        if self.phase is not LinkPhase.ENDED:
            self._lost(f"it can't be reached at {self.record.address}: {loss(reason)}")

    def _received(self, message: Mapping[str, Any]) -> None:
        if self.phase is LinkPhase.GREETING:
            self._hello_received(message)
        else:
            self.leaving = self.leaving or message.get("leaving") is True
            self._context.user.link_message(self, message)

    def _hello_received(self, message: Mapping[str, Any]) -> None:
        self._cancel_timer()
        problem = message.get("refused")
        if isinstance(problem, str):
            self._fail(f"it refuses us: {shorten(problem)}")
        elif message.get("v") != LINK_VERSION:
            self._fail("it is of another version; all servers of a fleet have to be able to speak one")
        elif message.get("hello") != self.server:
            self._fail(f"it says that it is {message.get('hello')!s:.64}")
        else:
            self.phase = LinkPhase.UP
            self.problem = ""
            self.leaving = False
            self._backoff.reset()
            log.info(
                "fleet: linked to server {server} at {address}",
                server=self.server,
                address=self.record.address,
            )
            self._context.user.link_up(self)

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message, unless the peer does not read what it was sent before."""
        control, session = self._control, self.session
        if self.phase is not LinkPhase.UP or control is None or session is None:
            return
        if session.mux.pending(control.transport.number) < MOST_UNREAD:
            control.transport.write(frame(message))

    def _peer_leaves(self) -> None:
        """
        Handle the peer's GOAWAY: open streams are finished, and a new connection is dialled.

        Another process may have taken the peer's place.
        """
        if self.phase is not LinkPhase.UP:
            return  # its reason may still follow
        self._retire()
        self.phase, self.problem = LinkPhase.WAITING, "it leaves"
        self._cancel_timer()
        self._timer = self._context.clock.callLater(self._backoff.failed(), self.dial)
        log.info("fleet: server {server} leaves", server=self.server)
        self._context.user.link_down(self, "it leaves")

    def _retire(self) -> None:
        """Open no more streams on the connection, which closes when the last one has ended."""
        session, self.session = self.session, None
        control, self._control = self._control, None
        if session is None or session.lost:
            return
        self._retiring.add(session)
        session.on_lost = lambda reason: self._retiring.discard(session)
        session.go_away()
        if control is not None and control.transport is not None:
            control.transport.loseConnection()

    def _session_lost(self, session: MuxSession, reason: Failure) -> None:
        if session is self.session:
            self._lost(loss(reason))

    def revoke(self, reason: str) -> None:
        """Abort the connection: the peer's certificate is not valid any more."""
        self._fail(reason)

    def _fail(self, reason: str) -> None:
        """Abort the connection, and dial again later."""
        session = self.session
        if session is None:
            return  # it has been aborted, or is being retired
        self._lost(reason)
        session.abort(reason)

    def _lost(self, reason: str) -> None:
        """Note that there is no connection any more, and dial again after a delay."""
        self._cancel_timer()
        was, self.phase = self.phase, LinkPhase.WAITING
        first = not self.problem or self._backoff.failures == 0
        self.problem = reason
        self.session = self._control = None
        pause = self._backoff.failed()
        self._timer = self._context.clock.callLater(pause, self.dial)
        if was is LinkPhase.UP:
            self.losses += 1
            log.warn(
                "fleet: the link to server {server} is lost: {reason}", server=self.server, reason=reason
            )
            self._context.user.link_down(self, reason)
        elif first:
            log.warn("fleet: no link to server {server}: {reason}", server=self.server, reason=reason)

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def changed(self, record: ServerRecord) -> None:
        """Update the server's record; dial at once if its address or its process is another one."""
        old, self.record = self.record, record
        if (old.address, old.process) == (record.address, record.process):
            return
        self._backoff.reset()
        if self.phase is LinkPhase.WAITING:
            self.dial()

    def end(self, reason: str) -> None:
        """Dial no more; open streams are finished."""
        was, self.phase = self.phase, LinkPhase.ENDED
        self._cancel_timer()
        dial, self._dial = self._dial, None
        if dial is not None:
            dial.cancel()
        if was is LinkPhase.UP:
            self._context.user.link_down(self, reason)
        self._retire()

    def abort(self, reason: str) -> None:
        """Dial no more, and abort all connections."""
        self.end(reason)
        for session in list(self._retiring):
            session.abort(reason)
