"""
Links to the other servers of the fleet: who dials has them for the requests that it forwards.

Every process of a server (each worker, where there are several) keeps one connection
to each other server, and opens streams on it; what comes the other way comes over
connections that the others have dialled (L{reverseproxy.fleet.incoming_links}).  So nobody
has to agree on anything with anybody, and a way that works in one direction only is
used in that direction.  Whichever worker of the other server accepts a connection
reaches all agents of that server, through its siblings if need be.

The first stream of a link stays: over it both ends say who they are, and the server
that was dialled then says what is new there::

    {"v": 1, "hello": "a", "knows": ["orders"]}     -->
                                        <--     {"v": 1, "hello": "b", "knows": ["orders"]}
                                        <--     {"well": false, "cluster": ..., "agent": ...}
                                        <--     {"gone": true, "cluster": ..., "agent": ...}
                                        <--     {"leaving": true}
    {"outcome": 3, "cluster": ..., }    -->

What a peer does not know it is not told: C{knows} has what not all versions understand
(L{reverseproxy.fleet.link_frames.CAPABILITIES}).  And of what is told nevertheless, what has no known
kind is left alone.

The last says how requests went that have been forwarded, where they failed: whether the
agent is to be left out for that is decided where it is.

A peer from which nothing comes is asked, in front of everything else that is to be
sent, and given up within 5 s (L{reverseproxy.mux.session}).
"""

from __future__ import annotations

__all__ = [
    "DIAL_TIMEOUT",
    "HELLO_TIMEOUT",
    "LIMITS",
    "LinkPhase",
    "ILinkUser",
    "OutgoingLink",
    "OutgoingLinks",
]

from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from random import Random
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
"""Seconds for a server to be reached, TLS included."""

HELLO_TIMEOUT: Final = 4.0
"""Seconds for it to say who it is after that."""

MOST_UNREAD: Final = 262144
"""Bytes of what is said to a peer that may wait for it."""

FIRST_PAUSE: Final = 0.25
"""Seconds before a server is dialled again, at the most; twice as many after each failure."""

LONGEST_PAUSE: Final = 5.0
"""The most that these come to."""

LIMITS: Final = MuxLimits(
    max_streams=65536,
    accept_backlog=65536,
    max_resets=1_000_000,
    tells=True,
    window=1024 * 1024,
    max_frame=4 * 16384 - HEADER_SIZE,
)
"""
Another server carries as many requests as we do, and says which of them it has not passed on.

There are two more processes on the way of a byte, each of which does what there is to do at
once, and then waits for its turn: with the usual window its sender has nothing left to send
by then, and sends what little it is allowed to.  A frame fills four records of TLS; with
its head in front of whole records, each would be followed by one of a few bytes.
"""


class LinkPhase(Enum):
    """How far a link has come."""

    IDLE = "idle"
    DIALLING = "dialling"
    GREETING = "greeting"
    UP = "up"
    WAITING = "waiting"
    ENDED = "ended"


class ILinkUser(Protocol):
    """Who has a use for links."""

    def link_up(self, link: OutgoingLink) -> None:
        """A server can be reached from now on."""

    def link_down(self, link: OutgoingLink, reason: str) -> None:
        """It can't be any more, or is not to be: it takes no more streams."""

    def link_told(self, link: OutgoingLink, message: Mapping[str, Any]) -> None:
        """It has said something; L{WireError} ends the link."""


class _ControlStream(StreamProtocol):
    """The stream of a link that stays, at the end that has dialled."""

    transport: Any

    def __init__(self, heard: Callable[[Mapping[str, Any]], object], failed: Callable[[str], object]) -> None:
        self._heard = heard
        self._failed = failed
        self._reader = LinkFrameReader()

    def dataReceived(self, data: bytes) -> None:
        """Pass on what has been said."""
        try:
            self._reader.feed(data)
            while (message := self._reader.next()) is not None:
                self._heard(message)
        except WireError as error:
            self._failed(str(error))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nothing more will be said."""
        self._failed(f"it speaks no more: {loss(reason)}")


class OutgoingLink:
    """
    Our connection to another server.

    @ivar server: the other server's id.
    @ivar phase: how far it has come.
    @ivar session: its streams; L{None} while there is no connection.
    @ivar leaving: whether the server has said that it is about to leave.
    @ivar opened: how many streams for requests have been opened on it, ever.
    @ivar losses: how often it was up, and has been lost.
    @ivar problem: why it is not up; empty if it is.
    """

    def __init__(self, links: OutgoingLinks, record: ServerRecord, backoff: Backoff) -> None:
        self.server = record.id
        self.record = record
        self.phase = LinkPhase.IDLE
        self.session: MuxSession | None = None
        self.leaving = False
        self.opened = 0
        self.losses = 0
        self.problem = "it has not been dialled yet"
        self._links = links
        self._backoff = backoff
        self._dial: Deferred[IProtocol] | None = None
        self._timer: IDelayedCall | None = None
        self._talk: _ControlStream | None = None
        self._departing: set[MuxSession] = set()

    def __repr__(self) -> str:
        return f"<OutgoingLink to {self.server}: {self.phase.value}>"

    @property
    def usable(self) -> bool:
        """Whether a stream can be opened."""
        return self.phase is LinkPhase.UP and self.session is not None and self.session.usable

    @property
    def rtt(self) -> float | None:
        """Seconds that the last ping took."""
        return None if self.session is None else self.session.rtt

    def dial(self) -> None:
        """Begin, or begin anew."""
        self._cancel_timer()
        if self.phase not in (LinkPhase.IDLE, LinkPhase.WAITING):
            return
        self.phase = LinkPhase.DIALLING
        try:
            endpoint = self._links.endpoint(self.record.address)
        except ValueError as error:
            self._dialled_in_vain(Failure(error))
            return
        dial = self._dial = endpoint.connect(CallableFactory(self._make))
        dial.addTimeout(DIAL_TIMEOUT, self._links.clock)
        dial.addCallbacks(self._connected, self._dialled_in_vain)

    def _make(self) -> MuxSession:
        return MuxSession(client=True, clock=self._links.clock, limits=LIMITS)

    def _connected(self, protocol: IProtocol) -> None:
        assert isinstance(protocol, MuxSession)
        self._dial = None
        self.session = session = protocol
        if session.lost:
            self._lost("the connection was lost at once")
            return
        session.on_lost = lambda reason: self._session_lost(session, reason)
        session.on_going = self._going
        reason = self._links.prove(session.transport, self.server)
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
        self._timer = self._links.clock.callLater(HELLO_TIMEOUT, self._fail, "it does not say who it is")
        talk = self._talk = _ControlStream(self._heard, self._fail)
        session.open(CallableFactory(lambda: talk)).addErrback(
            lambda failure: self._fail(f"no stream could be opened: {loss(failure)}")
        )
        if self._talk is talk and talk.transport is not None:
            talk.transport.write(frame({"v": LINK_VERSION, "hello": self._links.id, "knows": CAPABILITIES}))

    def _dialled_in_vain(self, reason: Failure) -> None:
        self._dial = None
        if self.phase is not LinkPhase.ENDED:
            self._lost(f"it can't be reached at {self.record.address}: {loss(reason)}")

    def _heard(self, message: Mapping[str, Any]) -> None:
        if self.phase is LinkPhase.GREETING:
            self._greeted(message)
        else:
            self.leaving = self.leaving or message.get("leaving") is True
            self._links.user.link_told(self, message)

    def _greeted(self, message: Mapping[str, Any]) -> None:
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
            self._links.user.link_up(self)

    def say(self, message: Mapping[str, Any]) -> None:
        """Tell the server something, unless it reads nothing of what it is told."""
        talk, session = self._talk, self.session
        if self.phase is not LinkPhase.UP or talk is None or session is None:
            return
        if session.mux.pending(talk.transport.number) < MOST_UNREAD:
            talk.transport.write(frame(message))

    def _going(self) -> None:
        """
        The server takes no more streams; those that are open are finished.

        Another process may have taken its place, which is to be found.
        """
        if self.phase is not LinkPhase.UP:
            return  # it may be about to say why
        self._let_finish()
        self.phase, self.problem = LinkPhase.WAITING, "it leaves"
        self._cancel_timer()
        self._timer = self._links.clock.callLater(self._backoff.failed(), self.dial)
        log.info("fleet: server {server} leaves", server=self.server)
        self._links.user.link_down(self, "it leaves")

    def _let_finish(self) -> None:
        """Have nothing more to do with the connection, which ends when its streams have."""
        session, self.session = self.session, None
        talk, self._talk = self._talk, None
        if session is None or session.lost:
            return
        self._departing.add(session)
        session.on_lost = lambda reason: self._departing.discard(session)
        session.go_away()
        if talk is not None and talk.transport is not None:
            talk.transport.loseConnection()

    def _session_lost(self, session: MuxSession, reason: Failure) -> None:
        if session is self.session:
            self._lost(loss(reason))

    def revoke(self, reason: str) -> None:
        """The server does not belong to the fleet any more, as far as this one knows."""
        self._fail(reason)

    def _fail(self, reason: str) -> None:
        """Give the connection up."""
        session = self.session
        if session is None:
            return  # it is given up, or only finishes what is under way
        self._lost(reason)
        session.abort(reason)

    def _lost(self, reason: str) -> None:
        """There is no connection any more: dial again, after a while."""
        self._cancel_timer()
        was, self.phase = self.phase, LinkPhase.WAITING
        first = not self.problem or self._backoff.failures == 0
        self.problem = reason
        self.session = self._talk = None
        pause = self._backoff.failed()
        self._timer = self._links.clock.callLater(pause, self.dial)
        if was is LinkPhase.UP:
            self.losses += 1
            log.warn(
                "fleet: the link to server {server} is lost: {reason}", server=self.server, reason=reason
            )
            self._links.user.link_down(self, reason)
        elif first:
            log.warn("fleet: no link to server {server}: {reason}", server=self.server, reason=reason)

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def changed(self, record: ServerRecord) -> None:
        """The server has another address, or is another process: find it at once."""
        old, self.record = self.record, record
        if (old.address, old.process) == (record.address, record.process):
            return
        self._backoff.reset()
        if self.phase is LinkPhase.WAITING:
            self.dial()

    def end(self, reason: str) -> None:
        """Dial no more; what is under way is finished."""
        was, self.phase = self.phase, LinkPhase.ENDED
        self._cancel_timer()
        dial, self._dial = self._dial, None
        if dial is not None:
            dial.cancel()
        if was is LinkPhase.UP:
            self._links.user.link_down(self, reason)
        self._let_finish()

    def abort(self, reason: str) -> None:
        """End it now, with all that is under way."""
        self.end(reason)
        for session in list(self._departing):
            session.abort(reason)


class OutgoingLinks:
    """
    The links to all other servers.

    @ivar id: what this server is called.
    @ivar clock: the reactor.
    @ivar user: who has a use for them.
    @ivar all: by the id of the server.
    """

    def __init__(
        self,
        server_id: str,
        clock: IReactorTime,
        random: Random,
        user: ILinkUser,
        endpoint: Callable[[str], IStreamClientEndpoint],
        prove: Callable[[Any, str], str],
    ) -> None:
        """
        @param endpoint: makes what dials an address; may raise L{ValueError}.
        @param prove: says why a connection's peer is not a certain server; empty if it is.
        """
        self.id = server_id
        self.clock = clock
        self.user = user
        self.endpoint = endpoint
        self.prove = prove
        self.all: dict[str, OutgoingLink] = {}
        self._random = random
        self._running = False

    def __iter__(self) -> Iterator[OutgoingLink]:
        return iter(list(self.all.values()))

    def get(self, server: str) -> OutgoingLink | None:
        """Find the link to a server."""
        return self.all.get(server)

    def reaches(self, server: str) -> bool:
        """Whether the link to a server is up."""
        link = self.all.get(server)
        return link is not None and link.phase is LinkPhase.UP

    def start(self) -> None:
        """Dial all servers that are known, and that will be."""
        self._running = True
        for link in self:
            self._begin(link)

    def _begin(self, link: OutgoingLink) -> None:
        """Dial soon: all others may have heard of the server at the same moment."""
        if link.phase is LinkPhase.IDLE:
            self.clock.callLater(self._random.uniform(0.0, FIRST_PAUSE / 2), self._first, link)

    def _first(self, link: OutgoingLink) -> None:
        if link.phase is LinkPhase.IDLE:
            link.dial()

    def add(self, record: ServerRecord) -> None:
        """There is another server."""
        if record.id == self.id or record.id in self.all:
            return
        link = OutgoingLink(self, record, Backoff(FIRST_PAUSE, LONGEST_PAUSE, self._random))
        self.all[record.id] = link
        if self._running:
            self._begin(link)

    def change(self, record: ServerRecord) -> None:
        """Something is different with a server."""
        link = self.all.get(record.id)
        if link is not None:
            link.changed(record)

    def remove(self, server: str, reason: str) -> None:
        """There is no such server any more."""
        link = self.all.pop(server, None)
        if link is not None:
            link.end(reason)

    def stop(self) -> None:
        """End all of them now."""
        self._running = False
        for server in list(self.all):
            self.all.pop(server).abort("stopping")
