"""
Many streams on one connection: yamux, as bytes in and events out.

A tunnel's two ends agree on this during the handshake.  From then on each of
them has a L{Mux}.  The tunnel server opens the streams, one for each connection
that it would otherwise have leased, so it is yamux's client; the protocol lets
both ends open streams, and so does this module.

Nothing received is buffered here: the data of a frame is returned as it comes, and
the window of its stream bounds how much the caller may have to keep.  It opens
again when the caller reports, with C{consumed}, that it has passed bytes on.
Nothing is written by this module: C{take} returns the bytes to send, the frames of
many streams in one piece.

A mistake on one stream never ends another.  The connection ends, with a
L{MuxError}, if its two ends have different states of it, or if the peer does not
read, so that frames pile up here.  Streams beyond the limits, or opened and reset
too often, are refused.

Where yamux's specification is silent, this is what happens here:

- The numbers of the streams that an end opens increase.
- An end that has sent GoAway takes the streams that the other one opens before it
  sends GoAway, too: it may not have known.
- The peer has the credit that the specification says, 256 KiB, or that both ends
  have agreed on, and what it was given since.  It may not have more than 2 GiB.
- When we have reset a stream, the peer may have sent as much as its window had,
  and may end the stream or reset it too: that is dropped.  Anything else for a
  stream that is over is an error, except for what only concerns our sending.
- A stream that is refused is reset without an ACK.  One that has been accepted
  is acknowledged before it is reset, or with it: so the other end, if it is of
  this project, knows which streams were never looked at.
- An ACK goes with the first frame that is sent on the stream.  It is sent alone if
  L{ACK_AFTER<reverseproxy.wire.yamux.outbound.ACK_AFTER>} streams wait for theirs, or if the peer pings.
"""

from __future__ import annotations

__all__ = ["Mux"]

from reverseproxy.errors import MuxError, NoMoreStreams
from reverseproxy.wire.window import Growth, Reserve
from reverseproxy.wire.yamux.events import Event, GoAwayCode, MuxLimits, Reset
from reverseproxy.wire.yamux.frames import GO_AWAY, LEAVING, PING, SYN, UNSENT, WELL, pack
from reverseproxy.wire.yamux.inbound import Inbound
from reverseproxy.wire.yamux.outbound import YamuxOutput
from reverseproxy.wire.yamux.reader import YamuxFrameReader, violation
from reverseproxy.wire.yamux.table import StreamTable
from reverseproxy.wire.yamux.windows import ReceiveWindows


class Mux:
    """
    One end of a connection.

    @ivar failed: whether the peer broke the rules: nothing more is read; send what
        C{take} returns, and close the connection.
    @ivar consumed: see L{ReceiveWindows.consumed}.
    @ivar send: see L{YamuxOutput.send}.
    @ivar end: see L{YamuxOutput.end}.
    @ivar take: see L{YamuxOutput.take}.
    @ivar pending: see L{YamuxOutput.pending}.
    @ivar credit: see L{YamuxOutput.credit}.
    @ivar output: the sending half.
    """

    __slots__ = (
        "_inbound",
        "_max_held",
        "_reader",
        "_table",
        "_useless",
        "consumed",
        "credit",
        "end",
        "failed",
        "output",
        "pending",
        "send",
        "take",
    )

    def __init__(self, client: bool, limits: MuxLimits | None = None, reserve: Reserve | None = None) -> None:
        """
        @param client: whether our streams have odd numbers, and the peer's even ones.
        @param reserve: what windows may grow by, together with those of other
            connections.
        """
        limits = limits or MuxLimits()
        table = self._table = StreamTable(client, limits, reserve or Reserve())
        output = self.output = YamuxOutput(table)
        self._inbound = Inbound(table, output)
        self._reader = YamuxFrameReader(table.streams, self._inbound, _highest_kind(limits))
        self._useless = table.abuse.useless
        self._max_held = limits.max_held
        self.failed = False
        # Called for every message, hence without a call in between.
        self.consumed = ReceiveWindows(table, output).consumed
        self.send = output.send
        self.end = output.end
        self.take = output.take
        self.pending = output.pending
        self.credit = output.credit

    @property
    def streams(self) -> int:
        """How many streams are open in a direction, or have ended with bytes that are not consumed."""
        return len(self._table.streams)

    @property
    def held(self) -> int:
        """Bytes that came on all streams together and were not consumed."""
        return self._table.held

    @property
    def growth(self) -> Growth:
        """
        The sizes of the receive windows.

        The caller, who sends pings and has the clock, reports the round trip to it.
        """
        return self._table.growth

    @property
    def remote_goaway(self) -> bool:
        """Whether the peer takes no more streams from us."""
        return self._inbound.remote_goaway

    @property
    def local_goaway(self) -> bool:
        """
        Whether we have sent GoAway: we open no more streams, and refuse those that the peer opens
        after its own GoAway.
        """
        return self.output.local_goaway

    @property
    def room(self) -> int:
        """How many more streams L{open} can open now."""
        if self.failed or self.remote_goaway or self.local_goaway or self.output.overflow:
            return 0
        table = self._table
        return max(0, min(table.limits.max_streams - len(table.streams), table.ids.left))

    @property
    def moves(self) -> bool:
        """Whether the peer dials another connection when L{tell_leaving} says that we are about to leave."""
        return self._table.limits.moves

    @property
    def ids_exhausted(self) -> bool:
        """Whether our 2**31 numbers are nearly used up, so that it is time for GoAway."""
        return self._table.ids.exhausted

    # receiving

    def feed(self, data: bytes, now: float = 0.0) -> list[Event]:
        """
        Take bytes.

        @param now: the time in seconds, for what is limited by time.
        @return: their events, in order.
        @raise MuxError: if the peer broke the rules.  The events before that are in its
            C{events}, and our GoAway is in L{take}; nothing more is read.
        """
        events: list[Event] = []
        if self.failed:
            return events
        table = self._table
        table.now = now
        try:
            if self.output.overflow:
                raise violation(
                    f"expected the peer to take the {self.output.waiting} frames that wait for it",
                    data,
                    0,
                    GoAwayCode.INTERNAL_ERROR,
                )
            received = self._reader.read(data, events)
        except MuxError as error:
            error.events = tuple(events)
            self.failed = True
            self.output.fail(error.code)
            raise
        if received:
            table.held += received
            self._useless.earn()
        if table.held > self._max_held:
            self._relieve(events)
        return events

    def _relieve(self, events: list[Event]) -> None:
        """Reset the streams that hold most, as too much is held; see C{max_held} of L{MuxLimits}."""
        table = self._table
        while table.held > self._max_held:
            stream = table.fullest()
            self.output.reset(stream, 0)
            events.append(Reset(stream.id, False, False))

    def close(self) -> None:
        """Give back what windows have grown by: the connection is over."""
        self.growth.close()

    # streams

    def open(self) -> int:
        """
        Open a stream; it can be written to at once.

        @return: its number.
        @raise NoMoreStreams: if either end has sent GoAway, there are too many streams, no
            numbers are left, or the peer does not read.
        """
        table = self._table
        if self.failed or self._inbound.remote_goaway or self.output.local_goaway:
            raise NoMoreStreams("the connection takes no more streams, as one of its ends goes away")
        if len(table.streams) >= table.limits.max_streams:
            raise NoMoreStreams(f"the connection has {len(table.streams)} streams, and may have no more")
        if self.output.overflow:
            raise NoMoreStreams("the peer takes nothing, and too many frames wait for it")
        stream = table.add(table.ids.take(), SYN)
        self.output.open(stream)
        return stream.id

    def refuse(self, number: int) -> None:
        """
        Refuse a stream that the peer has opened and that was not looked at.

        The peer may then try its request or session elsewhere.
        """
        stream = self._table.streams.get(number)
        if stream is not None:
            self.output.withhold_ack(stream)
            self.output.reset(stream, 0)

    def disown(self, number: int) -> None:
        """
        Reset a stream that the peer has opened and of which nothing was passed on.

        Like L{refuse}, but for a stream that may have been acknowledged.  Peers that have
        not agreed on L{MuxLimits.tells} see an ordinary reset.
        """
        self.reset(number, UNSENT if self._table.limits.tells else 0)

    def reset(self, number: int, code: int = 0) -> None:
        """
        Reset a stream, and drop what waits to be sent on it; it has no more events.

        @param code: in place of the credit of the frame; see
            L{UNSENT<reverseproxy.wire.yamux.frames.UNSENT>}.
        """
        stream = self._table.streams.get(number)
        if stream is not None:
            self.output.reset(stream, code)

    @property
    def has_output(self) -> bool:
        """Whether L{take} would return something."""
        return self.output.has_output

    @property
    def drained(self) -> list[int]:
        """Streams that had bytes L{pending}, and have none since the last L{take}."""
        return self.output.drained

    # the connection's own frames

    def ping(self, token: int) -> None:
        """
        Send a ping, which the peer answers with a L{Pong<reverseproxy.wire.yamux.events.Pong>}.

        @param token: 32 bits, which the answer repeats.
        """
        if not self.failed:
            self.output.put_first(pack(PING, SYN, 0, token))
            self._inbound.expect_pong(token)

    def tell(self, well: bool) -> None:
        """Tell the peer whether our service can be reached, if both ends have agreed on that."""
        if not self.failed and self._table.limits.tells:
            self.output.put_first(pack(WELL, 0, 0, int(well)))

    def tell_leaving(self, after: int) -> None:
        """
        Tell the peer that we are about to leave, if both ends have agreed on that.

        @param after: after how many milliseconds the peer is to dial another connection.
        """
        if not self.failed and self._table.limits.moves:
            self.output.put_first(pack(LEAVING, 0, 0, after))

    def go_away(self, code: int = GoAwayCode.NORMAL) -> None:
        """Send GoAway: no more streams are opened; those that are open go on."""
        if not self.failed:
            self.output.go_away(code)


def _highest_kind(limits: MuxLimits) -> int:
    """Return the highest type of frames that both ends know."""
    if limits.moves:
        return LEAVING
    return WELL if limits.tells else GO_AWAY
