"""
A connection that carries many streams.

A L{MuxSession} is a protocol for any transport: ours, Twisted's own, TLS, or one
in memory.  Its streams are transports themselves (L{reverseproxy.mux.stream}).
Either end may open streams; the other end makes the protocols of these by its
C{accept} function.

What all streams write in one turn of the reactor is sent at the end of the turn.
A stream whose protocol does not read is stopped by its own window; reading goes on
for the others.  When the connection's buffer is full, the producers of its streams
are paused.

A peer from which nothing arrives is pinged, and the connection is aborted if
nothing arrives after that either.
"""

from __future__ import annotations

__all__ = [
    "GRACE",
    "MAX_JITTER",
    "ORPHAN_TIMEOUT",
    "PING_INTERVAL",
    "PING_TIMEOUT",
    "MuxSession",
    "StreamRefused",
]

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.errors import ConnectionUnavailable, MuxError, NoMoreStreams
from reverseproxy.limits.refusals import REFUSALS
from reverseproxy.mux.idle_pings import SESSIONS
from reverseproxy.mux.orphans import ORPHAN_TIMEOUT
from reverseproxy.mux.stream import MuxStream
from reverseproxy.mux.streams import SessionStreams, StreamRefused
from reverseproxy.mux.turn import TurnEnd
from reverseproxy.mux.watch import GRACE, MAX_JITTER, PING_INTERVAL, PING_TIMEOUT, PeerWatch
from reverseproxy.net.tcp_options import limit_unsent
from reverseproxy.transport import turn_end_of
from reverseproxy.transport.closing import LINGER, CloseLimits, DelayedClose
from reverseproxy.transport.memory import HELD, WINDOWS, HeldBytes
from reverseproxy.wire.window import Reserve
from reverseproxy.wire.yamux.events import (
    Data,
    Ended,
    GoAwayCode,
    GoneAway,
    Leaving,
    MuxLimits,
    Opened,
    Pong,
    Reset,
    Well,
)
from reverseproxy.wire.yamux.session import Mux

log = Logger()

_CLOSE_LIMITS: Final = CloseLimits(stall=LINGER)


class MuxSession(Protocol):
    """
    A connection that carries streams.

    @ivar mux: the state machine of the protocol (yamux).
    @ivar turn: sends what streams have written, at the end of each turn.
    @ivar reason: why this end has closed the connection; empty if it hasn't.
    @ivar on_lost: called once when the connection is lost, before C{connectionLost} of
        its streams.
    @ivar on_going: called once when the peer accepts no more streams (GOAWAY).
    @ivar on_rtt: called with the round-trip time of each ping, in seconds.
    @ivar on_leaving: called when the peer is about to leave, with the seconds after which another
        connection should be dialled.
    @ivar on_well: called with whether the peer's service can be reached.
    """

    transport: Any

    __slots__ = (
        "_clock",
        "_delayed_close",
        "_host",
        "_peer",
        "_seconds",
        "_streams",
        "_watch",
        "mux",
        "on_going",
        "on_leaving",
        "on_lost",
        "on_rtt",
        "on_well",
        "reason",
        "turn",
    )

    def __init__(
        self,
        client: bool,
        clock: IReactorTime,
        limits: MuxLimits | None = None,
        accept: Callable[[], IProtocol | None] | None = None,
        ping_interval: float = PING_INTERVAL,
        ping_timeout: float = PING_TIMEOUT,
        on_lost: Callable[[Failure], object] | None = None,
        on_going: Callable[[], object] | None = None,
        budget: HeldBytes = HELD,
        reserve: Reserve = WINDOWS,
        jitter: Callable[[], float] | None = None,
    ) -> None:
        """
        @param client: whether this end opens odd-numbered streams; either end may.
        @param clock: the reactor that has made the connection, so that streams are sent
            at the end of its turns; or any other clock.
        @param accept: makes the protocol of a stream that the peer opens; L{None}, or
            that it returns L{None}, refuses the stream.
        @param ping_interval: seconds without a byte from the peer after which it is pinged.
        @param ping_timeout: seconds that it has for its answer.
        @param on_lost: called once when the connection is lost, before C{connectionLost}
            of its streams.
        @param on_going: called once when the peer accepts no more streams.
        @param budget: bounds what the streams of all sessions buffer that share it.
        @param reserve: what the windows of these may grow by.
        @param jitter: returns numbers from 0 to 1, by which pings are sent somewhat earlier,
            so that thousands of connections don't ping in the same moment.
        """
        limits = limits or MuxLimits()
        if accept is None:
            # The peer's streams are refused by the state machine.
            limits = replace(limits, accept_backlog=0)
        self.mux = Mux(client, limits, reserve)
        self.turn = TurnEnd(turn_end_of(clock), self.mux.output, self._close_if_done, self._failed)
        self.reason = ""
        self.on_lost = on_lost
        self.on_going = on_going
        self.on_rtt: Callable[[float], object] | None = None
        self.on_well: Callable[[bool], object] | None = None
        self.on_leaving: Callable[[float], object] | None = None
        self._clock = clock
        self._seconds = clock.seconds
        self._streams = SessionStreams(self, self.mux, self.turn, budget, clock.seconds, accept)
        self._watch = PeerWatch(self, clock, ping_interval, ping_timeout, jitter)
        self._delayed_close: DelayedClose | None = None
        self._peer: IAddress | None = None
        self._host: IAddress | None = None

    def __repr__(self) -> str:
        peer = self._peer
        name = f"{peer.host}:{peer.port}" if isinstance(peer, IPv4Address | IPv6Address) else peer
        return f"<MuxSession with {name}, {self.streams} streams>"

    # for the owner of the session

    @property
    def streams(self) -> int:
        """How many streams have a protocol."""
        return len(self._streams.by_number)

    @property
    def busy(self) -> bool:
        """Whether there are any streams."""
        return bool(self._streams.by_number)

    @property
    def all(self) -> list[MuxStream]:
        """All streams that have a protocol."""
        return list(self._streams.by_number.values())

    @property
    def lost(self) -> bool:
        """Whether the connection is lost."""
        return self._streams.lost

    @property
    def going(self) -> bool:
        """Whether this end accepts and opens no more streams, and has sent GOAWAY."""
        return self.mux.local_goaway

    @property
    def peer_going(self) -> bool:
        """Whether the peer accepts and opens no more streams."""
        return self.mux.remote_goaway

    @property
    def usable(self) -> bool:
        """Whether another stream may be opened."""
        mux = self.mux
        return not (
            self._streams.lost or mux.local_goaway or mux.remote_goaway or self._delayed_close is not None
        )

    @property
    def rtt(self) -> float | None:
        """Seconds that the answer to the last ping took; L{None} before."""
        return self._watch.last.rtt

    @property
    def unanswered(self) -> float:
        """For how many seconds a ping is unanswered, and nothing else has arrived; 0 if none is."""
        watch = self._watch
        return self._seconds() - watch.asking_since if watch.asking else 0.0

    def open(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Open a stream, as C{connect} of a client endpoint.

        It may be written to at once.

        @return: fires at once; fails with L{ConnectionUnavailable} if no
            stream can be opened.
        """
        if not self.usable:
            return fail(ConnectionUnavailable("the connection takes no more streams"))
        try:
            protocol = factory.buildProtocol(self.getPeer())
            if protocol is None:
                return fail(ConnectionUnavailable("no protocol wants a stream"))
            stream = self._streams.open(protocol, factory)
            if self.mux.ids_exhausted:
                self.go_away()
        except NoMoreStreams as error:
            return fail(ConnectionUnavailable(str(error)))
        except Exception as error:
            return fail(error)
        factory.doStart()
        if self._watch.rests:
            self._watch.wake()
        self.turn.schedule()
        try:
            protocol.makeConnection(stream)
        except Exception as error:
            stream.failed()
            return fail(error)
        return succeed(protocol)

    def note_wait(self, waits: bool) -> None:
        """
        Note how much was sent, as the peer has acknowledged nothing for a while.

        If the connection is lost, streams of which nothing was ever sent are lost with
        L{StreamRefused}, so that their requests may be tried elsewhere.

        @param waits: whether the peer still acknowledges nothing.
        """
        self._streams.note_wait(waits)

    def go_away(self) -> None:
        """
        Send GOAWAY: accept no more streams, let open ones finish, and then close.

        The peer may have opened further streams before it received that; it opens none
        once it has sent GOAWAY, too.
        """
        if not (self.going or self.lost):
            self.mux.go_away(GoAwayCode.NORMAL)
            self.turn.schedule()

    def tell(self, well: bool) -> None:
        """Tell the peer whether our service can be reached, if it supports that."""
        if not self.lost:
            self.mux.tell(well)
            self.turn.schedule()

    def tell_leaving(self, seconds: float) -> bool:
        """
        Tell the peer that we are about to leave: it dials another connection, and goes on using this one.

        @param seconds: the time after which it should dial.
        @return: whether the peer supports that.
        """
        if self.lost or not self.mux.moves:
            return False
        self.mux.tell_leaving(round(seconds * 1000))
        self.turn.schedule()
        return True

    def close(self, reason: str) -> None:
        """
        Close the connection behind what was written.

        @param reason: why, for open streams.
        """
        if self.lost or self._delayed_close is not None:
            return
        self.reason = reason
        if not self.going:
            self.mux.go_away(GoAwayCode.NORMAL)
        self._begin_close()

    def _begin_close(self) -> None:
        self._watch.stop()  # nothing is read any more, so that no ping would be answered
        self.turn.send(bounded=False)
        self._delayed_close = DelayedClose(self._clock, self.transport, _CLOSE_LIMITS)
        self.transport.unregisterProducer()  # TLS transports don't close while they have a producer
        self.transport.loseConnection()

    def abort(self, reason: str) -> None:
        """
        Abort the connection now.

        @param reason: why, for open streams.
        """
        if not self.lost:
            self.reason = self.reason or reason
            self.transport.abortConnection()

    def getPeer(self) -> IAddress:
        """The peer's address; see L{ITransport<twisted.internet.interfaces.ITransport>}."""
        assert self._peer is not None
        return self._peer

    def getHost(self) -> IAddress:
        """Our own address; see L{ITransport<twisted.internet.interfaces.ITransport>}."""
        assert self._host is not None
        return self._host

    # the connection

    def connectionMade(self) -> None:
        """Register as a producer, and send the first ping."""
        transport = self.transport
        self._peer, self._host = transport.getPeer(), transport.getHost()
        self.turn.connect(transport)
        transport.registerProducer(self.turn, True)
        limit_unsent(transport)
        SESSIONS.count += 1
        self._watch.start()

    def dataReceived(self, data: bytes) -> None:
        """Parse frames, and deliver their data to the streams."""
        watch = self._watch
        watch.heard = now = self._seconds()
        watch.asking = False
        watch.excuses = 0
        mux = self.mux
        broken = None
        events: Any
        try:
            events = mux.feed(data, now)
        except MuxError as error:
            broken, events = error, error.events
        streams = self._streams.by_number
        consumed = mux.consumed
        for event in events:
            kind = type(event)
            if kind is Data:
                number = event.stream
                stream = streams.get(number)
                if stream is None:
                    self._streams.unwanted(number)
                elif stream.paused or stream._held is not None or stream.disconnecting:
                    stream.hold(event.data)
                else:
                    try:
                        stream.protocol.dataReceived(event.data)
                    except BaseException:
                        stream.failed()
                    else:
                        if stream.paused:
                            stream.delivered(len(event.data))
                        else:
                            consumed(number, len(event.data), now)
            else:
                self._happened(kind, event)
        if broken is not None:
            self._broken(broken)
        elif not self.turn.scheduled and mux.output.has_output:
            self.turn.schedule()

    def _happened(self, kind: Any, event: Any) -> None:
        """Handle any event but data."""
        if kind is Opened:
            if self._streams.accept(event.stream) and self._watch.rests:
                self._watch.wake()
        elif kind is Ended:
            self._streams.ended(event.stream)
        elif kind is Reset:
            self._streams.was_reset(event)
        elif kind is Pong:
            rtt = self._watch.answered(event.token)
            if rtt is not None:
                if self.on_rtt is not None:
                    self.on_rtt(rtt)
                self.mux.growth.measured(rtt, self._watch.heard)
        elif kind is GoneAway:
            self._peer_goes(event.code)
        elif kind is Well and self.on_well is not None:
            self.on_well(event.well)
        elif kind is Leaving and self.on_leaving is not None:
            self.on_leaving(event.after / 1000)

    def _peer_goes(self, code: int) -> None:
        if code != GoAwayCode.NORMAL:
            self.abort(f"the peer gave the connection up with code {code}")
            return
        on_going, self.on_going = self.on_going, None
        if on_going is not None:
            on_going()
        self.turn.schedule()

    def _broken(self, error: MuxError) -> None:
        """Abort the connection, as the peer has violated the protocol."""
        REFUSALS["streams"] += 1
        log.warn("{session} is closed: {reason}", session=self, reason=str(error))
        self.turn.send(bounded=False)
        self.abort(str(error))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Close all streams, except those that have received everything and are still being read."""
        if self.lost:
            return
        self._streams.lost = True
        SESSIONS.count -= 1
        self.mux.close()
        self._watch.stop()
        if self._delayed_close is not None:
            self._delayed_close.stop()
        self.turn.disconnect()
        if self.reason:
            reason = Failure(ConnectionLost(self.reason))
        elif reason.check(ConnectionDone) and self.busy:
            reason = Failure(ConnectionLost("the other end closed the connection, which carried streams"))
        if self.on_lost is not None:
            self.on_lost(reason)
        self._streams.lose(reason)

    def _close_if_done(self) -> None:
        """Close the connection after GOAWAY, if the peer has sent one too and no streams are left."""
        mux = self.mux
        if mux.remote_goaway and not (mux.streams or self.lost or self._delayed_close is not None):
            self._begin_close()

    def _failed(self) -> None:
        """Abort the connection after an unexpected exception, as its state may be wrong."""
        log.failure("{session} is closed, as something failed in it", session=self)
        self.abort("something failed in it")

    # for the watch

    def send_ping(self, token: int) -> None:
        """See L{WatchedSession<reverseproxy.mux.watch.WatchedSession>}."""
        self.mux.ping(token)
        self.turn.schedule()

    def needs_rtt(self, now: float) -> bool:
        """See L{WatchedSession<reverseproxy.mux.watch.WatchedSession>}."""
        return self.mux.growth.due(now)

    def clear_orphans(self, now: float) -> None:
        """See L{WatchedSession<reverseproxy.mux.watch.WatchedSession>}."""
        self._streams.clear_orphans(now)
