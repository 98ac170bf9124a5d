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
from reverseproxy.mux.progress import Journey
from reverseproxy.mux.rest import PATIENCE, SESSIONS, has_taken_all
from reverseproxy.mux.stream import MuxStream
from reverseproxy.patience import MOST_EXCUSES, lateness
from reverseproxy.refused import REFUSED
from reverseproxy.sockets import SLOW_WAYS, keep_short, was_heard
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

PING_INTERVAL: Final = 2.0
"""Seconds without a byte from the peer after which it is asked whether it is there."""

PING_TIMEOUT: Final = 2.5
"""Seconds that it has for its answer."""

GRACE: Final = 0.05
"""
Seconds for one last look before a peer counts as dead.

If it was us who stood still, its answer has come, and is about to be read.
"""

JOURNEY_LOOKS: Final = 0.5
"""Seconds between two looks at a question that has to wait behind something else."""

MAX_JITTER: Final = 0.25
"""By how much of the time a question may be asked earlier."""

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
    @ivar rtt: seconds that the last ping took to be answered; L{None} before.
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
        "_asked",
        "_asking",
        "_asking_since",
        "_at_turn_end",
        "_attention",
        "_clock",
        "_closing",
        "_departures",
        "_due",
        "_excuses",
        "_heard",
        "_host",
        "_jitter",
        "_journey",
        "_last_look",
        "_later",
        "_newest",
        "_orphans",
        "_pause",
        "_peer",
        "_ping_interval",
        "_ping_timeout",
        "_pinged",
        "_rests",
        "_seconds",
        "_streams",
        "_timer",
        "_token",
        "_waiting",
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
        "rtt",
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
        self.rtt: float | None = None
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
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._heard = 0.0
        self._pinged = self._asked = self._asking_since = self._due = 0.0
        self._excuses = 0
        self._asking = False  # nothing has come since
        self._journey: Journey | None = None  # of the question, if something was before it
        self._jitter = jitter
        self._pause = ping_interval  # from the last byte to the next question
        self._rests = False  # it is longer, as nobody uses the connection
        self._last_look = False
        self._token = 0
        self._timer: IDelayedCall | None = None
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
    def unanswered(self) -> float:
        """For how many seconds the peer has not answered a ping, and sent nothing else either."""
        return self._seconds() - self._asking_since if self._asking else 0.0

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
            if self.mux.worn:
                self.go_away()
        except NoMoreStreams as error:
            return fail(ConnectionUnavailable(str(error)))
        except Exception as error:
            return fail(error)
        factory.doStart()
        self._newest = number
        stream = self._streams[number] = MuxStream(self, number, protocol, factory)
        if self._rests:
            self._wake()
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
        if self._timer is not None and self._timer.active():
            self._timer.cancel()  # nothing is read any more, so that no ping would be answered
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
        self._heard = self._seconds()
        SESSIONS.count += 1
        self._ping()
        self._look_in(min(self._pause, self._ping_timeout))

    def dataReceived(self, data: bytes) -> None:
        """Tell streams of what has come for them."""
        self._heard = now = self._seconds()
        self._asking = False
        self._excuses = 0
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
        elif not self.scheduled and mux.has_output:
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
            if event.token == self._token:
                self.rtt = self._heard - self._pinged
                if self.on_rtt is not None:
                    self.on_rtt(self.rtt)
                self.mux.growth.measured(self.rtt, self._heard)
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
        if self._rests:
            self._wake()
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
        for call in (self._timer, self._closing):
            if call is not None and call.active():
                call.cancel()
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
        try:
            # What is done here may bring about more of it.
            for _ in range(_PASSES):
                later, self._later = self._later, []
                for call in later:
                    call()
                if not self.full and not self.lost and self.mux.has_output:
                    self._send()
                if self._attention and not self.full:
                    self._attend_to_streams()
                if not self._later and (self.full or not self.mux.has_output):
                    break
        except Exception:
            # An error of ours: this connection can't be relied on any more.
            log.failure("{session} is closed, as something failed in it", session=self)
            self.abort("something failed in it")
        self.scheduled = False
        if self._later or (self.mux.has_output and not self.full and not self.lost):
            self.schedule()
        if self.going and self.peer_going and not self.mux.streams:
            self._finish()

    def _send(self, bounded: bool = True) -> None:
        """Give the transport what there is to send, as long as it wants it."""
        mux, write, waiting = self.mux, self.transport.write, self._waiting
        while not (bounded and self.full):
            data = mux.take()
            if not data:
                return
            write(data)
            if mux.drained and waiting:
                self._attention += [waiting.pop(number) for number in mux.drained if number in waiting]

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

    # is the peer alive?

    def _ping(self) -> None:
        self._token = (self._token + 1) & 0xFFFFFFFF
        self._pinged = self._asked = self._seconds()
        if not self._asking:
            self._asking = True
            self._asking_since = self._asked
        self._last_look = False
        pause = self._ping_interval if self._streams else SESSIONS.stretch(self._ping_interval)
        self._rests = pause > self._ping_interval
        if self._jitter is not None:
            pause *= 1.0 - MAX_JITTER * self._jitter()
        self._pause = pause
        journey = Journey(self.transport)
        self._journey = journey if journey.under_way else None
        self.mux.ping(self._token)
        self.schedule()

    def _wake(self) -> None:
        """Somebody uses the connection, and wants to know soon if nobody is there."""
        self._rests = False
        self._pause = self._ping_interval
        if self._timer is not None and self._timer.active():
            wait = max(self._heard + self._pause - self._seconds(), GRACE)
            self._due = self._seconds() + wait
            self._timer.reset(wait)

    def _bears(self, now: float) -> bool:
        """Whether an answer may be late: of many, nobody waits for it, and the peer's kernel is there."""
        return (
            SESSIONS.many
            and not self._streams
            and now - self._asking_since < PATIENCE * self._ping_timeout
            and has_taken_all(self.transport)
        )

    def _look(self) -> None:
        """See whether the peer has been silent for too long."""
        now = self._seconds()
        self._clear_orphans(now)
        wait = self._heard + self._pause - now
        if self._asking:
            self._excuse(now)
            wait = self._wait_for_answer(now)
            if wait <= 0:
                if not self._last_look:
                    self._last_look = True
                elif was_heard(self.transport, now - self._asked):
                    # It is us who are late: what has come waits to be read, behind that of
                    # thousands perhaps, so that to look often would make it later still.
                    self._asked = self._asking_since = now
                    self._last_look = False
                    wait = self._ping_timeout
                elif self._bears(now):
                    self._ping()
                    wait = self._ping_timeout
                else:
                    self._give_up(now)
                    return
        elif wait <= 0 or self.mux.growth.due(now):
            self._ping()
            # If the answer comes at once, there is another question to be asked before it would be due.
            wait = min(self._pause, self._ping_timeout)
            if self._journey is not None:
                wait = min(wait, JOURNEY_LOOKS)
        self._look_in(max(wait, GRACE))

    def _look_in(self, seconds: float) -> None:
        self._due = self._seconds() + seconds
        self._timer = self._clock.callLater(seconds, self._look)

    def _excuse(self, now: float) -> None:
        """Don't count the time for which this process had no turn, in which it could not hear anything."""
        late = lateness(self._due, now)
        if late and self._excuses < MOST_EXCUSES:
            self._excuses += 1
            self._last_look = False
            self._asked = max(self._asked, now - self._ping_timeout + min(late, self._ping_timeout))
            self._asking_since = min(now, self._asking_since + late)

    def _wait_for_answer(self, now: float) -> float:
        """Say how long to wait further for the answer to a question, unless that is over."""
        journey = self._journey
        if journey is not None and journey.moves():
            self._asked = self._asking_since = now
            self._last_look = False
        if journey is not None and not journey.under_way:
            self._journey = journey = None
        wait = self._asked + self._ping_timeout - now
        if wait <= 0:
            wait += SLOW_WAYS.allowance(getattr(self._peer, "host", ""), now)
        return wait if journey is None or wait <= 0 else min(wait, JOURNEY_LOOKS)

    def _give_up(self, now: float) -> None:
        self._timer = None
        silent = now - self._heard
        log.warn("{session} is closed: nothing has come for {silent:.1f} s", session=self, silent=silent)
        self.abort(f"no answer to a ping, and nothing else for {silent:.1f} s")

    def _clear_orphans(self, now: float) -> None:
        """Break off streams whose peer has not ended its half for too long."""
        for number in [number for number, until in self._orphans.items() if until <= now]:
            del self._orphans[number]
            self.mux.reset(number)
            self.schedule()
