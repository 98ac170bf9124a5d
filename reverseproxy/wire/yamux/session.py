"""
Many streams on one connection: yamux, as bytes in and events out.

A tunnel's two ends agree on this during the handshake.  From then on each of
them has a L{Mux}.  The tunnel server opens the streams, one for each connection
that it would otherwise have leased, so it is yamux's client; the protocol lets
both ends open streams, and so does this module.

Nothing is buffered on the way in: what has come of a frame is handed out at
once, and the window of its stream bounds what the owner may have to keep.  It
opens again when the owner says, with C{consumed}, that it has passed bytes on.
Nothing is written by this module: C{take} returns what is to be sent, the
frames of many streams in one piece.

What one stream does never ends another.  What ends the connection, as a
L{MuxError}, is what leaves the two ends with different ideas of it, and a peer
that makes us keep things without end, as it takes nothing of what we send.  One
that opens more streams than it may, or opens and resets them, has them refused.

Where yamux's specification is silent, this is what happens here:

- The numbers of the streams that an end opens increase.
- An end that has gone away takes the streams that the other one opens before it
  has gone away, too: it could not know.
- The window that a peer may use is what the specification says, 256 KiB, or
  what both ends have agreed on, and what it was told of since.  It may not have credit for more than 2 GiB.
- When we have reset a stream, the peer may have sent as much as its window had,
  and may end the stream or reset it too: that is dropped.  Anything else for a
  stream that is over is an error, except for what only concerns our sending.
- A stream that is refused is reset without an ACK.  One that has been accepted
  is acknowledged before it is reset, or with it: so the other end, if it is one
  of ours, knows which streams were never looked at.
- An ACK rides on the first frame that a stream sends back.  It is sent alone if
  L{ACK_AFTER} streams wait for theirs, or if the peer pings.
"""

from __future__ import annotations

__all__ = [
    "ACK_AFTER",
    "INITIAL_WINDOW",
    "LATE",
    "MAX_PINGS",
    "MAX_USELESS",
    "MAX_WINDOW",
    "MIN_WINDOW",
    "REMEMBERED_RESETS",
    "REPEATED",
    "RESETS_PER_SECOND",
    "SMALL_WINDOW",
    "SPARE_IDS",
    "TURN",
    "USELESS_PER_SECOND",
    "Mux",
]

from collections import OrderedDict
from operator import attrgetter
from typing import Final

from reverseproxy.errors import MuxError, NoMoreStreams
from reverseproxy.wire.budget import Budget
from reverseproxy.wire.window import TELL_EVERY, Growth, Reserve, Round
from reverseproxy.wire.yamux.events import (
    INITIAL_WINDOW,
    MAX_WINDOW,
    MIN_WINDOW,
    SMALL_WINDOW,
    Credit,
    Data,
    Ended,
    Event,
    GoAwayCode,
    GoneAway,
    Leaving,
    MuxLimits,
    Opened,
    Pong,
    Reset,
    Well,
)
from reverseproxy.wire.yamux.frames import (
    ACK,
    FIN,
    GO_AWAY,
    HEADER_SIZE,
    LEAVING,
    MAX_ID,
    ON_WIRE,
    PING,
    RST,
    SILENT,
    SYN,
    UNSENT,
    UPDATE,
    WELL,
    pack,
    unpack,
)
from reverseproxy.wire.yamux.outbound import ACK_AFTER, TURN, Output, Stream

REMEMBERED_RESETS: Final = 1024
"""Streams that we reset and remember, as the peer may have sent more for them."""

RESETS_PER_SECOND: Final = 1000.0
"""How fast used up L{MuxLimits.max_resets} come back, besides one for each stream that was of use."""

MAX_USELESS: Final = 1000
"""
Frames at once that serve no stream: pings, credit of nothing, data of no bytes, repeated GoAways.

Those that a peer may well send now and then, as it could not know better, count
for a L{LATE}th of one.
"""

USELESS_PER_SECOND: Final = 50.0
"""How fast used up L{MAX_USELESS} come back, besides one for each read with data."""

LATE: Final = 0.1
"""What a frame counts for that is for a stream that is over, or that opens one which is refused."""

REPEATED: Final = 50
"""What a GoAway counts for behind the first one."""

MAX_PINGS: Final = 64
"""Pings of ours whose answers are awaited; those before are given up."""

SPARE_IDS: Final = 1024
"""Streams that can still be opened when a connection is L{Mux.worn}."""

_QUOTED: Final = 24
"""Bytes that an error quotes."""

_held = attrgetter("held")


class Mux(Output):
    """
    One end of a connection.

    @ivar growth: how large the windows are that the peer may use.  The owner,
        who has the clock and sends pings, tells it of the round trip.
    @ivar failed: the peer broke the rules: nothing more is read, and what
        L{take} returns is to be sent before the connection is closed.
    @ivar going: the peer takes no more streams from us.
    @ivar gone: we want no more streams from the peer, nor open any.  Those that
        it opens before it has gone away, too, are taken: it could not know.
    """

    __slots__ = (
        "_broken",
        "_broken_at",
        "_current",
        "_current_flags",
        "_forgotten",
        "_held",
        "_left",
        "_next",
        "_now",
        "_parity",
        "_peer_last",
        "_pings",
        "_resets",
        "_rest",
        "_threshold",
        "_useless",
        "_window",
        "failed",
        "going",
        "gone",
        "growth",
    )

    def __init__(self, client: bool, limits: MuxLimits | None = None, reserve: Reserve | None = None) -> None:
        """
        @param client: whether our streams have odd numbers; the other end's
            then have even ones.
        @param reserve: what windows may grow by, together with those of other
            connections.
        """
        limits = limits or MuxLimits()
        super().__init__(limits)
        self.growth = Growth(limits.window, limits.max_window, limits.receive_budget, reserve or Reserve())
        self.failed = False
        self.going = False
        self.gone = False
        self._window = limits.window
        self._threshold = self.growth.threshold(limits.window)
        self._next = 1 if client else 2
        self._parity = self._next & 1
        self._peer_last = 0
        self._now = 0.0
        self._resets: OrderedDict[int, int] = OrderedDict()  # and what the peer may have sent for them
        self._forgotten = [0, 0]  # by parity, the highest stream that was dropped from _resets
        self._broken = 0.0  # streams of the peer that it reset, over those that were of use
        self._broken_at = 0.0
        self._useless = Budget(MAX_USELESS, USELESS_PER_SECOND)
        self._held = 0  # of all streams
        self._rest = b""  # the beginning of a header
        self._left = 0  # bytes to come of a frame that has begun
        self._current: Stream | None = None  # its stream, or None to drop them
        self._current_flags = 0
        self._pings: list[int] = []  # that wait for their answers, not more than MAX_PINGS

    @property
    def streams(self) -> int:
        """How many streams are open in a direction, or have ended with bytes that are not consumed."""
        return len(self._streams)

    @property
    def room(self) -> int:
        """How many more streams L{open} can open now."""
        if self.failed or self.going or self.gone or self._clogged or self._next > MAX_ID:
            return 0
        return max(0, min(self._limits.max_streams - len(self._streams), (MAX_ID - self._next) // 2 + 1))

    @property
    def moves(self) -> bool:
        """Whether a peer that is told that we are about to leave dials another connection."""
        return self._limits.moves

    @property
    def worn(self) -> bool:
        """Whether our numbers are nearly used up, so that it is time to go away: a connection has 2**31."""
        return self._next > MAX_ID - 2 * SPARE_IDS

    # receiving

    def feed(self, data: bytes, now: float = 0.0) -> list[Event]:
        """
        Take bytes.

        @param now: the time in seconds, for what is limited by time.
        @return: what they mean, in order.
        @raise MuxError: if the peer broke the rules.  What came before is in
            its C{events}, and our GoAway in L{take}; nothing more is read.
        """
        events: list[Event] = []
        if self.failed:
            return events
        self._now = now
        try:
            if self._clogged:
                waiting = len(self._control) + self._frames
                raise _violation(
                    f"expected the peer to take the {waiting} frames that wait for it",
                    data,
                    0,
                    GoAwayCode.INTERNAL_ERROR,
                )
            offset = self._continue(data, events) if self._left else 0
            if self._rest:
                data = self._rest + data
                self._rest = b""
            self._read(data, offset, events)
        except MuxError as error:
            error.events = tuple(events)
            self._fail(error.code)
            raise
        if self._held > self._limits.max_held:
            self._relieve(events)
        return events

    def _fail(self, code: int) -> None:
        """Give everything up, but for what was put into the output already."""
        self.failed = True
        self._current = None
        self._rest = b""
        self._streams.clear()
        self._resets.clear()
        self._opening.clear()
        self._unacknowledged.clear()
        self._acknowledge_now = False
        self._ready.clear()
        self._brief.clear()
        self._pings.clear()
        self._held = 0
        self.growth.close()
        self._put(pack(GO_AWAY, 0, 0, code))

    def _continue(self, data: bytes, events: list[Event]) -> int:
        """Take what comes of a frame of data that has begun; return how many bytes that were."""
        size = len(data)
        left = self._left
        stream = self._current
        if size < left:
            self._left = left - size
            if stream is not None and size:
                events.append(Data(stream.id, data))
            return size
        self._left = 0
        if stream is not None:
            events.append(Data(stream.id, data[:left]))
            if self._current_flags & FIN:
                self._remote_end(stream, events)
            self._current = None
        return left

    def _read(self, data: bytes, offset: int, events: list[Event]) -> None:
        """Take whole headers, and what there is of the data behind them."""
        end = len(data)
        get = self._streams.get
        append = events.append
        received = 0
        try:
            while offset + HEADER_SIZE <= end:
                kind, flags, number, length = unpack(data, offset)
                if not kind:
                    stream = get(number)
                    if flags or stream is None or not 0 < length <= stream.recv_window:
                        stream = self._on_data(number, flags, length, stream, events)
                    else:
                        stream.recv_window -= length
                        stream.held += length
                        received += length
                    offset += HEADER_SIZE
                    stop = offset + length
                    if stop <= end:
                        if stream is not None:
                            if length:
                                append(Data(number, data[offset:stop]))
                            if flags & FIN:
                                self._remote_end(stream, events)
                        offset = stop
                    else:
                        if stream is not None and offset < end:
                            append(Data(number, data[offset:]))
                        self._left = stop - end
                        self._current = stream
                        self._current_flags = flags
                        return
                else:
                    self._on_control(kind, flags, number, length, events)
                    offset += HEADER_SIZE
        except MuxError as error:
            raise _violation(str(error), data, offset, error.code) from None
        finally:
            self._held += received
        if received:
            self._useless.earn()
        if offset < end:
            self._keep(data[offset:])

    def _on_control(self, kind: int, flags: int, number: int, length: int, events: list[Event]) -> None:
        """Take a frame that is no more than its header."""
        if kind == UPDATE:
            stream = self._streams.get(number)
            if flags or stream is None:
                self._on_update(number, flags, length, stream, events)
            elif length:
                self._on_credit(stream, length, events)
            else:
                self._waste("grants of no credit")
        elif kind == PING:
            self._on_ping(number, flags, length, events)
        else:
            self._on_session(kind, number, flags, length, events)

    def _keep(self, rest: bytes) -> None:
        """Keep the beginning of a header, unless it is none."""
        if rest[0] or rest[1:2] > (b"\4" if self._limits.tells else b"\3"):
            raise _violation("expected version 0 and a type from 0 to 3", rest, 0, GoAwayCode.PROTOCOL_ERROR)
        self._rest = rest

    def _on_data(
        self, number: int, flags: int, length: int, stream: Stream | None, events: list[Event]
    ) -> Stream | None:
        """
        Look at a frame of data that is not the most ordinary.

        @return: the stream that the data is for; L{None} to drop it.
        """
        if flags & ~ON_WIRE:
            raise MuxError(f"expected flags that are known on stream {number}")
        if not (length or flags & (SYN | FIN | RST)) and (not flags or stream is None or stream.acknowledged):
            self._waste("frames of data without any")
        if flags & SYN:
            stream = self._on_syn(number, flags, stream, events)
            if stream is None and number in self._resets:
                self._on_late(number, flags, length)
                return None
        elif stream is None:
            self._on_late(number, flags, length)
        if stream is None:
            return None
        if flags & ACK:
            stream.acknowledged = True
        if flags & RST:
            self._on_reset(stream, 0, events)
            return None
        if length > stream.recv_window:
            if not stream.remote_open:
                raise MuxError(f"expected nothing more on stream {number}, which the peer has ended")
            raise MuxError(f"expected {stream.recv_window} bytes at most on stream {number}")
        stream.recv_window -= length
        stream.held += length
        self._held += length
        return stream

    def _on_update(
        self, number: int, flags: int, length: int, stream: Stream | None, events: list[Event]
    ) -> None:
        if flags & ~ON_WIRE:
            raise MuxError(f"expected flags that are known on stream {number}")
        if flags & SYN:
            stream = self._on_syn(number, flags, stream, events)
        elif stream is None:
            self._check_known(number)
            self._waste("frames for streams that are over", LATE)
            if flags & (FIN | RST):
                self._resets.pop(number, None)
        if stream is None:
            return
        acknowledged = stream.acknowledged
        if flags & ACK:
            stream.acknowledged = True
        if flags & RST:
            self._on_reset(stream, length, events)
            return
        if flags & FIN and not stream.remote_open:
            raise MuxError(f"expected nothing more on stream {number}, which the peer has ended")
        if flags == ACK and acknowledged:
            self._waste("acknowledgements of a stream", LATE)
        self._on_credit(stream, length, events)
        if flags & FIN:
            self._remote_end(stream, events)

    def _on_syn(self, number: int, flags: int, stream: Stream | None, events: list[Event]) -> Stream | None:
        """The peer opens a stream; return it, unless it is refused or reset at once."""
        if number & 1 == self._parity or number <= self._peer_last:
            parity = "even" if self._parity else "odd"
            raise MuxError(f"expected an {parity} number over {self._peer_last} for a new stream")
        self._peer_last = number
        limits = self._limits
        if flags & RST:
            self._waste("streams that are opened and reset at once", LATE)
            self._break()
            return None
        if (
            (self.gone and self.going)
            or len(self._streams) >= limits.max_streams
            or len(self._unacknowledged) >= limits.accept_backlog
            or (self._broken >= limits.max_resets and not self._mend())
        ):
            self._waste("streams that are refused", LATE if limits.accept_backlog else 1)
            self._put(pack(UPDATE, RST, number, 0))
            if not flags & FIN:
                self._remember(number, self._first)
            return None
        stream = Stream(number, self._first, self._window, self._threshold, ACK | SILENT, self._now)
        self._streams[number] = stream
        if self._extra:
            stream.flags = SILENT
            self._control.append(pack(UPDATE, ACK, number, self._extra))
        else:
            self._unacknowledged[number] = stream
        events.append(Opened(number))
        return stream

    def _on_reset(self, stream: Stream, code: int, events: list[Event]) -> None:
        if not stream.local_open and not stream.remote_open:
            return  # it is over, and the owner shall have what came
        if stream.flags & SYN:
            raise MuxError(f"expected a stream that was opened, which {stream.id} was not")
        if stream.flags:
            self._break()
        # Ours, no ACK, and no data either: the peer has thrown it away unseen.  Or it says so.
        refused = stream.id & 1 == self._parity and (
            (not stream.acknowledged and stream.recv_window == stream.window)
            or (self._limits.tells and code == UNSENT)
        )
        self._drop(stream)
        events.append(Reset(stream.id, True, refused))

    def _waste(self, what: str, cost: float = 1) -> None:
        """The peer makes us work for nothing."""
        if not self._useless.spend(self._now, cost):
            raise MuxError(f"expected fewer {what}", GoAwayCode.PROTOCOL_ERROR)

    def _break(self) -> None:
        """The peer has broken a stream off that was of no use yet."""
        if not self._broken:
            self._broken_at = self._now
        self._broken += 1

    def _mend(self) -> bool:
        """Forgive the peer what it reset some time ago; find whether it may open streams again."""
        self._broken -= (self._now - self._broken_at) * RESETS_PER_SECOND
        self._broken_at = self._now
        if self._broken < 0:
            self._broken = 0.0
        return self._broken < self._limits.max_resets

    def _check_known(self, number: int) -> None:
        """Find that a stream was there once."""
        if not number:
            raise MuxError("expected the number of a stream")
        if number >= self._next if number & 1 == self._parity else number > self._peer_last:
            raise MuxError(f"expected a stream that was opened, which {number} was not")

    def _on_late(self, number: int, flags: int, length: int) -> None:
        """Data came for a stream that is over, or never was."""
        window = self._resets.get(number)
        if window is None:
            self._check_known(number)
            if flags & RST or number <= self._forgotten[number & 1]:
                self._waste("frames for streams that are over", LATE)
                return
            raise MuxError(f"expected nothing more on stream {number}, which is over")
        if length > window:
            raise MuxError(f"expected {window} bytes at most on stream {number}, which was reset")
        if flags & (FIN | RST):
            del self._resets[number]
        else:
            self._resets[number] = window - length

    def _on_credit(self, stream: Stream, length: int, events: list[Event]) -> None:
        if not stream.local_open:
            return
        before = stream.send_window
        window = before + length
        if window > MAX_WINDOW:
            raise MuxError(f"expected credit of {MAX_WINDOW - before} bytes at most for stream {stream.id}")
        stream.send_window = window
        if not before and length:
            if stream.pending:
                self._queue(stream)
            else:
                events.append(Credit(stream.id))

    def _on_ping(self, number: int, flags: int, token: int, events: list[Event]) -> None:
        if number:
            raise MuxError("expected stream 0 for a ping")
        if flags == SYN:
            self._waste("pings")
            self._control.append(pack(PING, ACK, 0, token))
            self._acknowledge_now = bool(self._unacknowledged)
        elif flags == ACK:
            if token in self._pings:
                self._pings.remove(token)
                events.append(Pong(token))
            else:
                self._waste("answers to pings that were not sent")
        else:
            raise MuxError("expected SYN or ACK on a ping")

    def _on_session(self, kind: int, number: int, flags: int, code: int, events: list[Event]) -> None:
        """Take a GoAway, what we have agreed on besides, or what is no frame at all."""
        if kind == WELL and self._limits.tells:
            if number or flags or code > 1:
                raise MuxError("expected stream 0, no flags, and 0 or 1 for the health of a service")
            events.append(Well(bool(code)))
            return
        if kind == LEAVING and self._limits.moves:
            if number or flags:
                raise MuxError("expected stream 0 and no flags for a server that is about to leave")
            self._waste("announcements of leaving", REPEATED)
            events.append(Leaving(code))
            return
        if kind != GO_AWAY:
            raise MuxError("expected version 0 and a type from 0 to 3")
        if number or flags:
            raise MuxError("expected stream 0 and no flags for a GoAway")
        if self.going:
            self._waste("GoAways", REPEATED)
        self.going = True
        events.append(GoneAway(code))

    def _remote_end(self, stream: Stream, events: list[Event]) -> None:
        """All that the peer sends on a stream has come."""
        stream.remote_open = False
        stream.recv_window = -1
        events.append(Ended(stream.id))
        self._finish(stream)

    def _finish(self, stream: Stream) -> None:
        """Forget a stream if nothing more is to be done with it."""
        if not (stream.local_open or stream.remote_open or stream.held):
            self._drop(stream)
            if self._broken > 0:
                self._broken -= 1

    def _drop(self, stream: Stream) -> None:
        number = stream.id
        del self._streams[number]
        stream.local_open = stream.remote_open = False
        stream.recv_window = stream.send_window = -1
        if stream is self._current:
            self._current = None
        if stream.flags & ACK:
            del self._unacknowledged[number]
        if stream.pending:
            self._leave_queue(number)
            stream.queue = None
            stream.pending = 0
        self._held -= stream.held
        if stream.part is not None:
            self.growth.forget(number, stream.window)

    def _remember(self, number: int, window: int) -> None:
        """Be ready for what may be under way for a stream that we reset."""
        resets = self._resets
        resets[number] = window
        if len(resets) > REMEMBERED_RESETS:
            number, _ = resets.popitem(last=False)
            self._forgotten[number & 1] = max(self._forgotten[number & 1], number)

    def _relieve(self, events: list[Event]) -> None:
        """Too much is held: break off what holds most."""
        while self._held > self._limits.max_held:
            stream = max(self._streams.values(), key=_held)
            self.reset(stream.id)
            events.append(Reset(stream.id, False, False))

    def consumed(self, number: int, size: int, now: float) -> None:
        """
        Let the peer send as much again as has been passed on.

        Every byte of every L{Data} has to be reported at some time, also if it
        was thrown away, and also when the stream has L{Ended}; unless the stream
        is reset.

        @param number: the stream; nothing happens if there is none any more.
        @param size: bytes.
        @param now: the time in seconds.
        @raise ValueError: if there are not so many bytes to report.
        """
        stream = self._streams.get(number)
        if stream is None:
            return
        held = stream.held - size
        if held < 0:
            raise ValueError(f"{size} bytes of stream {number} can't be consumed, there are {stream.held}")
        stream.held = held
        self._held -= size
        if stream.recv_window < 0:
            self._finish(stream)
            return
        credit = stream.credit + size
        if credit >= stream.threshold:
            self._grant(stream, credit, now)
        elif now - stream.since < TELL_EVERY:
            stream.credit = credit
        elif stream.window > self._window:
            self._grant(stream, credit, now)
        else:
            self._tell(stream, credit, now)  # too little for it to say anything of the way

    def _grant(self, stream: Stream, credit: int, now: float) -> None:
        """Tell the peer what was consumed, and how its window has changed: a part of that is always left."""
        if stream.part is None:
            stream.part = Round(stream.since, stream.window)
        growth = self.growth
        more = growth.change(stream.id, stream.window, stream.part, credit, now)
        if more:
            stream.window += more
            stream.threshold = growth.threshold(stream.window)
            credit += more
        self._tell(stream, credit, now)

    def _tell(self, stream: Stream, credit: int, now: float) -> None:
        """Tell the peer of some bytes."""
        stream.since = now
        stream.credit = 0
        stream.recv_window += credit
        flags = 0
        if stream.flags & ACK:
            flags = ACK
            stream.flags = SILENT
            del self._unacknowledged[stream.id]
        self._control.append(pack(UPDATE, flags, stream.id, credit))

    def close(self) -> None:
        """Let go of what windows have grown by: the connection is lost."""
        self.growth.close()

    # sending

    def open(self) -> int:
        """
        Open a stream; it can be written to at once.

        @return: its number.
        @raise NoMoreStreams: if either end goes away, or there are too many
            streams, or no numbers are left, or the peer takes nothing.
        """
        number = self._next
        if self.going or self.gone or self.failed:
            raise NoMoreStreams("the connection takes no more streams, as one of its ends goes away")
        if len(self._streams) >= self._limits.max_streams:
            raise NoMoreStreams(f"the connection has {len(self._streams)} streams, and may have no more")
        if number > MAX_ID:
            raise NoMoreStreams("the connection has used up its numbers of streams")
        if self._clogged:
            raise NoMoreStreams("the peer takes nothing, and too many frames wait for it")
        self._next = number + 2
        stream = Stream(number, self._first, self._window, self._threshold, SYN, self._now)
        self._streams[number] = stream
        self._opening.append(stream)
        return number

    def refuse(self, number: int) -> None:
        """
        Reset a stream that the peer has opened and that was not looked at.

        Other than after L{reset}, the peer may then try what it wanted elsewhere.
        """
        stream = self._streams.get(number)
        if stream is not None and stream.flags & ACK:
            stream.flags = SILENT
            del self._unacknowledged[number]
        self.reset(number)

    def disown(self, number: int) -> None:
        """
        Reset a stream that the peer has opened and of which nothing was passed on.

        As L{refuse}, but it may have been looked at, and the peer may know that.
        Peers that have not agreed on L{MuxLimits.tells} see a reset.
        """
        self.reset(number, UNSENT if self._limits.tells else 0)

    def reset(self, number: int, code: int = 0) -> None:
        """
        Break a stream off, and forget what waits to be sent on it.

        Nothing more comes for it.

        @param code: what the frame says besides; see L{UNSENT}.
        """
        stream = self._streams.get(number)
        if stream is None:
            return
        if stream.flags & SYN:
            self._opening.remove(stream)  # the peer never hears of it
        elif stream.local_open or stream.remote_open:
            self._put(pack(UPDATE, RST | stream.flags & ACK, number, code))
            if stream.remote_open:
                self._remember(number, stream.recv_window)
        self._drop(stream)

    def ping(self, token: int) -> None:
        """
        Ask the peer for a L{Pong}.

        @param token: 32 bits for the peer to repeat.
        """
        if not self.failed:
            self._control.append(pack(PING, SYN, 0, token))
            self._pings.append(token)
            del self._pings[:-MAX_PINGS]

    def tell(self, well: bool) -> None:
        """Say whether our service can be reached, if both ends have agreed on that."""
        if not self.failed and self._limits.tells:
            self._control.append(pack(WELL, 0, 0, int(well)))

    def tell_leaving(self, after: int) -> None:
        """
        Say that we are about to leave, if both ends have agreed on that.

        @param after: in how many milliseconds the peer is to dial another connection.
        """
        if not self.failed and self._limits.moves:
            self._control.append(pack(LEAVING, 0, 0, after))

    def go_away(self, code: int = GoAwayCode.NORMAL) -> None:
        """Take no more streams, nor open any; those that are open go on."""
        if not self.failed:
            self._announce()
            self.gone = True
            self._put(pack(GO_AWAY, 0, 0, code))


def _violation(expected: str, data: bytes, offset: int, code: int) -> MuxError:
    return MuxError(f"{expected}; the peer sent {data[offset : offset + _QUOTED]!r}", code)
