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

    @ivar failed: the peer broke the rules: nothing more is read, and what
        C{take} returns is to be sent before the connection is closed.
    @ivar consumed: see L{ReceiveWindows.consumed}.
    @ivar send: see L{YamuxOutput.send}.
    @ivar end: see L{YamuxOutput.end}.
    @ivar take: see L{YamuxOutput.take}.
    @ivar pending: see L{YamuxOutput.pending}.
    @ivar credit: see L{YamuxOutput.credit}.
    @ivar output: all of that half.
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
        @param client: whether our streams have odd numbers; the other end's
            then have even ones.
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
        # They are called for every message: without a step in between.
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
        How large the windows are that the peer may use.

        The owner, who has the clock and sends pings, tells it of the round trip.
        """
        return self._table.growth

    @property
    def remote_goaway(self) -> bool:
        """Whether the peer takes no more streams from us."""
        return self._inbound.remote_goaway

    @property
    def local_goaway(self) -> bool:
        """
        Whether we want no more streams from the peer, nor open any.

        Those that it opens before it has gone away, too, are taken: it could not know.
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
        """Whether a peer that is told that we are about to leave dials another connection."""
        return self._table.limits.moves

    @property
    def ids_exhausted(self) -> bool:
        """Whether our numbers are nearly used up, so that it is time to go away: a connection has 2**31."""
        return self._table.ids.exhausted

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
        """Too much is held: break off what holds most."""
        table = self._table
        while table.held > self._max_held:
            stream = table.fullest()
            self.output.reset(stream, 0)
            events.append(Reset(stream.id, False, False))

    def close(self) -> None:
        """Let go of what windows have grown by: the connection is lost."""
        self.growth.close()

    # streams

    def open(self) -> int:
        """
        Open a stream; it can be written to at once.

        @return: its number.
        @raise NoMoreStreams: if either end goes away, or there are too many
            streams, or no numbers are left, or the peer takes nothing.
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
        Reset a stream that the peer has opened and that was not looked at.

        Other than after L{reset}, the peer may then try what it wanted elsewhere.
        """
        stream = self._table.streams.get(number)
        if stream is not None:
            self.output.withhold_ack(stream)
            self.output.reset(stream, 0)

    def disown(self, number: int) -> None:
        """
        Reset a stream that the peer has opened and of which nothing was passed on.

        As L{refuse}, but it may have been looked at, and the peer may know that.
        Peers that have not agreed on L{MuxLimits.tells} see a reset.
        """
        self.reset(number, UNSENT if self._table.limits.tells else 0)

    def reset(self, number: int, code: int = 0) -> None:
        """
        Break a stream off, and forget what waits to be sent on it.

        Nothing more comes for it.

        @param code: what the frame says besides; see
            L{UNSENT<reverseproxy.wire.yamux.frames.UNSENT>}.
        """
        stream = self._table.streams.get(number)
        if stream is not None:
            self.output.reset(stream, code)

    @property
    def has_output(self) -> bool:
        """Whether L{take} has something."""
        return self.output.has_output

    @property
    def drained(self) -> list[int]:
        """Streams of which something was L{pending}, and nothing is since the last L{take}."""
        return self.output.drained

    # the connection's own frames

    def ping(self, token: int) -> None:
        """
        Ask the peer for a L{Pong<reverseproxy.wire.yamux.events.Pong>}.

        @param token: 32 bits for the peer to repeat.
        """
        if not self.failed:
            self.output.put_first(pack(PING, SYN, 0, token))
            self._inbound.expect_pong(token)

    def tell(self, well: bool) -> None:
        """Say whether our service can be reached, if both ends have agreed on that."""
        if not self.failed and self._table.limits.tells:
            self.output.put_first(pack(WELL, 0, 0, int(well)))

    def tell_leaving(self, after: int) -> None:
        """
        Say that we are about to leave, if both ends have agreed on that.

        @param after: in how many milliseconds the peer is to dial another connection.
        """
        if not self.failed and self._table.limits.moves:
            self.output.put_first(pack(LEAVING, 0, 0, after))

    def go_away(self, code: int = GoAwayCode.NORMAL) -> None:
        """Take no more streams, nor open any; those that are open go on."""
        if not self.failed:
            self.output.go_away(code)


def _highest_kind(limits: MuxLimits) -> int:
    """The highest kind of frame that both ends know."""
    if limits.moves:
        return LEAVING
    return WELL if limits.tells else GO_AWAY
