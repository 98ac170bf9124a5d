"""
Many streams over one connection.

A L{MuxSession} is the protocol of any transport: ours, Twisted's own, one with
TLS, one in memory.  Its streams are transports themselves
(L{reverseproxy.mux.stream}).  Either end may open them, and the other
one is given a protocol for each by a function of its own.

What all streams write in one turn of the reactor is sent in one go at its end.
A stream whose protocol does not read is stopped by its own window; the
connection is read on for the others.  A connection that takes no more pauses
whoever writes into its streams.

A peer from which nothing comes is asked whether it is there, and the connection
ends if nothing comes after that either.
"""

from __future__ import annotations

__all__ = [
    "CLOSE_TIMEOUT",
    "GRACE",
    "MAX_JITTER",
    "ORPHAN_TIMEOUT",
    "PING_INTERVAL",
    "PING_TIMEOUT",
    "MuxSession",
    "StreamRefused",
]

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.errors import ConnectionUnavailable, MuxError, NoMoreStreams
from reverseproxy.mux.rest import SESSIONS
from reverseproxy.mux.stream import MuxStream
from reverseproxy.mux.watch import GRACE, MAX_JITTER, PING_INTERVAL, PING_TIMEOUT, PeerWatch
from reverseproxy.refused import REFUSED
from reverseproxy.sockets import keep_short
from reverseproxy.transport import turn_end_of
from reverseproxy.transport.backlog import backlog_of
from reverseproxy.transport.departures import Departures
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

CLOSE_TIMEOUT: Final = 5.0
"""Seconds in which the peer must take something of what is left when a connection is closed."""

ORPHAN_TIMEOUT: Final = 60.0
"""Seconds that a peer may take to end its half of a stream that we have closed."""

_PASSES: Final = 4
"""How often the end of a turn looks for what it has brought about itself."""


def _reset(event: Reset) -> ConnectionLost:
    if event.refused:
        return StreamRefused("the peer took no more streams")
    if event.remote:
        return ConnectionLost("the stream was reset by the peer")
    return ConnectionLost("the stream held too much that its protocol did not read")


class StreamRefused(ConnectionLost):
    """A stream was refused by a peer that has certainly not looked at what came on it."""


@implementer(IPushProducer)
class MuxSession(Protocol):
    """
    A connection that carries streams.

    @ivar mux: the streams' frames.
    @ivar going: whether we have said that we take and open no more streams.
    @ivar peer_going: whether the peer has said so.
    @ivar lost: whether the connection is lost.
    @ivar full: whether the connection takes no more for now.
    @ivar scheduled: whether the end of the turn will see to what there is to send.
    @ivar reason: why we have broken the connection off, if we have; else empty.
    @ivar opened: how many streams the peer has ever opened.
    @ivar on_lost: called once when the connection is lost, before the streams
        are told.
    @ivar on_going: called once when the peer takes no more streams.
    @ivar on_rtt: called with how many seconds each ping took to be answered.
    @ivar on_leaving: called with the seconds after which the peer, which is about to leave, wants another
        connection dialled.
    @ivar on_well: called with what the peer says of its service: whether it can be reached.
    """

    transport: Any

    __slots__ = (
        "_accept",
        "_at_turn_end",
        "_attention",
        "_clock",
        "_closing",
        "_departures",
        "_host",
        "_later",
        "_newest",
        "_orphans",
        "_peer",
        "_seconds",
        "_streams",
        "_waiting",
        "_watch",
        "budget",
        "full",
        "going",
        "lost",
        "mux",
        "on_going",
        "on_leaving",
        "on_lost",
        "on_rtt",
        "on_well",
        "opened",
        "peer_going",
        "reason",
        "scheduled",
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
        @param client: which of the two ends we are; it does not matter which is
            which.
        @param clock: what has made the connection, if that is a reactor; streams
            are sent sooner then.
        @param accept: makes the protocol of a stream that the peer opens; the
            stream is refused where it returns L{None}, and without it.
        @param ping_interval: seconds without a byte from the peer after which it
            is asked whether it is there.
        @param ping_timeout: seconds that it has for its answer.
        @param on_lost: called once when the connection is lost, before the
            streams are told.
        @param on_going: called once when the peer takes no more streams.
        @param budget: bounds what the streams of all sessions hold that share it.
        @param reserve: what the windows of these may grow by.
        @param jitter: numbers from 0 to 1, by which questions are asked somewhat earlier:
            those of thousands of connections shall not be asked in one moment.
        """
        limits = limits or MuxLimits()
        if accept is None:
            # Those of the peer are refused at once, before anything is made of them.
            limits = replace(limits, accept_backlog=0)
        self.mux = Mux(client, limits, reserve)
        self.going = False
        self.peer_going = False
        self.lost = False
        self.full = False
        self.scheduled = False
        self.reason = ""
        self.opened = 0
        self.budget = budget
        self._clock = clock
        self._seconds = clock.seconds
        self._at_turn_end = turn_end_of(clock)
        self._accept = accept
        self.on_lost = on_lost
        self.on_going = on_going
        self.on_rtt: Callable[[float], object] | None = None
        self.on_well: Callable[[bool], object] | None = None
        self.on_leaving: Callable[[float], object] | None = None
        self._streams: dict[int, MuxStream] = {}
        self._newest = 0  # of those that we have opened
        self._departures: Departures | None = None
        self._orphans: dict[int, float] = {}  # streams without a protocol, and until when they are borne
        self._attention: list[MuxStream] = []  # may have sent everything, and have something to do then
        self._waiting: dict[int, MuxStream] = {}  # have not
        self._later: list[Callable[[], object]] = []
        self._watch = PeerWatch(self, clock, ping_interval, ping_timeout, jitter)
        self._closing: IDelayedCall | None = None
        self._peer: IAddress | None = None
        self._host: IAddress | None = None

    def __repr__(self) -> str:
        peer = self._peer
        name = f"{peer.host}:{peer.port}" if isinstance(peer, IPv4Address | IPv6Address) else peer
        return f"<MuxSession with {name}, {len(self._streams)} streams>"

    # for whoever has the session

    @property
    def streams(self) -> int:
        """How many streams have a protocol."""
        return len(self._streams)

    @property
    def busy(self) -> bool:
        """Whether there are any streams."""
        return bool(self._streams)

    @property
    def all(self) -> list[MuxStream]:
        """All streams that have a protocol."""
        return list(self._streams.values())

    @property
    def usable(self) -> bool:
        """Whether another stream may be opened."""
        return not (self.lost or self.going or self.peer_going or self._closing is not None)

    @property
    def rtt(self) -> float | None:
        """Seconds that the last ping took to be answered; L{None} before."""
        return self._watch.rtt

    @property
    def unanswered(self) -> float:
        """For how many seconds the peer has not answered a ping, and sent nothing else either."""
        watch = self._watch
        return self._seconds() - watch.asking_since if watch.asking else 0.0

    def open(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Open a stream, as one of Twisted's client endpoints connects.

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
            number = self.mux.open()
            if self.mux.ids_exhausted:
                self.go_away()
        except NoMoreStreams as error:
            return fail(ConnectionUnavailable(str(error)))
        except Exception as error:
            return fail(error)
        factory.doStart()
        self._newest = number
        stream = self._streams[number] = MuxStream(self, number, protocol, factory)
        if self._watch.rests:
            self._watch.wake()
        if not self.scheduled:
            self.schedule()
        try:
            protocol.makeConnection(stream)
        except Exception as error:
            stream.failed()
            return fail(error)
        return succeed(protocol)

    def note_wait(self, waits: bool) -> None:
        """
        Remember how far the connection has got, as the peer has acknowledged nothing for a while.

        If it turns out to be lost, streams of which nothing has ever left are told so
        (L{StreamRefused}).

        @param waits: whether that is still so.
        """
        departures = self._departures
        if self.lost or (departures is None and not waits):
            return
        if departures is None:
            departures = self._departures = Departures(self.transport)
        if waits:
            departures.note(self._newest)
        else:
            departures.forget()

    def go_away(self) -> None:
        """
        Let streams that are open finish, take no more, and then close.

        The peer may have opened some that it could not know not to open: it is
        done with that when it has gone away, too.
        """
        if self.going or self.lost:
            return
        self.going = True
        self.mux.go_away(GoAwayCode.NORMAL)
        if not self.scheduled:
            self.schedule()

    def tell(self, well: bool) -> None:
        """Say whether our service can be reached, if the peer wants to know."""
        if not self.lost:
            self.mux.tell(well)
            self.schedule()

    def tell_leaving(self, seconds: float) -> bool:
        """
        Say that we are about to leave: the peer dials another connection, and uses this one on.

        @param seconds: after which it is to dial.
        @return: whether the peer has agreed to do so.
        """
        if self.lost or not self.mux.moves:
            return False
        self.mux.tell_leaving(round(seconds * 1000))
        self.schedule()
        return True

    def close(self, reason: str) -> None:
        """
        Close the connection, once what was written is sent.

        @param reason: what streams that are open are told.
        """
        if self.lost or self._closing is not None:
            return
        self.reason = reason
        if not self.going:
            self.going = True
            self.mux.go_away(GoAwayCode.NORMAL)
        self._begin_close()

    def _begin_close(self) -> None:
        self._watch.stop()  # nothing is read any more, so that no ping would be answered
        self._send(bounded=False)
        self._closing = self._clock.callLater(
            CLOSE_TIMEOUT, self._look_at_close, backlog_of(self.transport).mark
        )
        self.transport.unregisterProducer()  # TLS transports don't close while they have a producer
        self.transport.loseConnection()

    def _look_at_close(self, before: Hashable) -> None:
        """See whether the peer still takes what is left for it."""
        waits = backlog_of(self.transport)
        if waits.size and waits.mark != before:
            self._closing = self._clock.callLater(CLOSE_TIMEOUT, self._look_at_close, waits.mark)
        else:
            self.transport.abortConnection()

    def abort(self, reason: str) -> None:
        """
        Break the connection off now.

        @param reason: what streams that are open are told.
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
        """Begin, and find out how far away the peer is."""
        transport = self.transport
        self._peer, self._host = transport.getPeer(), transport.getHost()
        transport.registerProducer(self, True)
        keep_short(transport)
        SESSIONS.count += 1
        self._watch.start()

    def dataReceived(self, data: bytes) -> None:
        """Tell streams of what has come for them."""
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
        streams = self._streams
        consumed = mux.consumed
        for event in events:
            kind = type(event)
            if kind is Data:
                number = event.stream
                stream = streams.get(number)
                if stream is None:
                    self._unwanted(number)
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
        elif not self.scheduled and mux.output.has_output:
            self.schedule()

    def _happened(self, kind: Any, event: Any) -> None:
        """Anything but data, which is much rarer."""
        if kind is Opened:
            self._opened(event.stream)
        elif kind is Ended:
            stream = self._streams.get(event.stream)
            if stream is not None:
                stream.end()
            else:
                self._orphans.pop(event.stream, None)
                self.schedule()
        elif kind is Reset:
            stream = self._streams.get(event.stream)
            if stream is None:
                self._orphans.pop(event.stream, None)
            elif self.forget(stream):
                stream.lost(Failure(_reset(event)))
            self.schedule()
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

    def _opened(self, number: int) -> None:
        self.opened += 1
        protocol = None
        if self._accept is not None:
            try:
                protocol = self._accept()
            except Exception:
                log.failure("{session}: no protocol for a stream", session=self)
        if protocol is None:
            self.mux.refuse(number)
            return
        stream = self._streams[number] = MuxStream(self, number, protocol)
        if self._watch.rests:
            self._watch.wake()
        try:
            protocol.makeConnection(stream)
        except Exception:
            stream.failed()

    def _unwanted(self, number: int) -> None:
        """Data for a stream that we have closed: as TCP has it, the peer is told that nobody listens."""
        self._orphans.pop(number, None)
        self.mux.reset(number)

    def _peer_goes(self, code: int) -> None:
        if code != GoAwayCode.NORMAL:
            self.abort(f"the peer gave the connection up with code {code}")
            return
        if not self.peer_going:
            self.peer_going = True
            if self.on_going is not None:
                self.on_going()
            self.schedule()

    def _broken(self, error: MuxError) -> None:
        """The peer has broken the rules, which ends the connection."""
        REFUSED["streams"] += 1
        log.warn("{session} is closed: {reason}", session=self, reason=str(error))
        self._send(bounded=False)
        self.abort(str(error))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End all streams but those that have everything, and only have to be read."""
        if self.lost:
            return
        self.lost = True
        SESSIONS.count -= 1
        self.mux.close()
        self._watch.stop()
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        if self.reason:
            reason = Failure(ConnectionLost(self.reason))
        elif reason.check(ConnectionDone) and self._streams:
            reason = Failure(ConnectionLost("the other end closed the connection, which carried streams"))
        if self.on_lost is not None:
            self.on_lost(reason)
        stayed = None if self._departures is None else self._departures.stayed
        self._departures = None
        for stream in list(self._streams.values()):
            if not stream.complete and self.forget(stream):
                if stayed is not None and stream.number > stayed and not (stream.number ^ self._newest) & 1:
                    stream.lost(Failure(StreamRefused("the connection was lost before it had left")))
                else:
                    stream.lost(reason)

    # called by streams

    def schedule(self) -> None:
        """See to what there is to send, and to do, at the end of the turn."""
        if not self.scheduled:
            self.scheduled = True
            self._at_turn_end(self._end_turn)

    def attend(self, stream: MuxStream) -> None:
        """Call C{written_out} of a stream as soon as all that it wrote is sent, but not now."""
        self._attention.append(stream)
        self.schedule()

    def look_later(self, call: Callable[[], object]) -> None:
        """Call something, but not now."""
        self._later.append(call)
        self.schedule()

    def lose_later(self, stream: MuxStream, reason: Failure) -> None:
        """Tell a stream that is forgotten of its end, but not now."""
        stream.shut = True
        self.look_later(lambda: stream.lost(reason))

    def forget(self, stream: MuxStream) -> bool:
        """
        Let a stream hear of nothing any more.

        @return: whether it has heard of things until now.
        """
        self._waiting.pop(stream.number, None)
        return self._streams.pop(stream.number, None) is not None

    def abandon(self, number: int) -> None:
        """Wait for the end of a stream that nobody listens to, for a while."""
        self._orphans[number] = self._seconds() + ORPHAN_TIMEOUT

    def consumed(self, number: int, size: int) -> None:
        """A stream has taken what it had to hold; the peer may send more."""
        if size and not self.lost:
            self.mux.consumed(number, size, self._seconds())
            self.schedule()

    # the end of a turn

    def _end_turn(self) -> None:
        output = self.mux.output
        try:
            # What is done here may bring about more of it.
            for _ in range(_PASSES):
                later, self._later = self._later, []
                for call in later:
                    call()
                if not self.full and not self.lost and output.has_output:
                    self._send()
                if self._attention and not self.full:
                    self._attend_to_streams()
                if not self._later and (self.full or not output.has_output):
                    break
        except Exception:
            # An error of ours: this connection can't be relied on any more.
            log.failure("{session} is closed, as something failed in it", session=self)
            self.abort("something failed in it")
        self.scheduled = False
        if self._later or (output.has_output and not self.full and not self.lost):
            self.schedule()
        if self.going and self.peer_going and not self.mux.streams:
            self._finish()

    def _send(self, bounded: bool = True) -> None:
        """Give the transport what there is to send, as long as it wants it."""
        output, write, waiting = self.mux.output, self.transport.write, self._waiting
        while not (bounded and self.full):
            data = output.take()
            if not data:
                return
            write(data)
            if output.drained and waiting:
                self._attention += [waiting.pop(number) for number in output.drained if number in waiting]

    def _attend_to_streams(self) -> None:
        streams, self._attention = self._attention, []
        pending = self.mux.pending
        for stream in streams:
            if stream.connected and pending(stream.number):
                self._waiting[stream.number] = stream
            else:
                stream.written_out()

    def _finish(self) -> None:
        """Close what neither end needs any more."""
        if not self.lost and self._closing is None:
            self._begin_close()

    # IPushProducer: we are the producer of the connection

    def pauseProducing(self) -> None:
        """The connection takes no more for now."""
        self.full = True

    def resumeProducing(self) -> None:
        """The connection takes more."""
        self.full = False
        self.schedule()

    def stopProducing(self) -> None:
        """The connection is lost; C{connectionLost} says so as well."""

    def clear_orphans(self, now: float) -> None:
        """Break off streams whose peer has not ended its half for too long."""
        for number in [number for number, until in self._orphans.items() if until <= now]:
            del self._orphans[number]
            self.mux.reset(number)
            self.schedule()
