"""
The sending half of a multiplexed connection.

What is written to a stream is sent at once, if the peer's credit allows it and no
other stream waits.  Otherwise it waits in its stream, and the streams take turns.

Streams with little to send, such as a request or a message, don't wait for those
with much: they have a queue of their own, which gets half of what is sent first.
So bulk can go in large frames, however many streams there are.
"""

from __future__ import annotations

__all__ = ["ACK_AFTER", "BRIEF", "TURN", "YamuxOutput"]

from collections import OrderedDict, deque
from typing import Final

from reverseproxy.wire.yamux.frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    ON_WIRE,
    PING,
    RST,
    SILENT,
    SYN,
    UPDATE,
    pack,
)
from reverseproxy.wire.yamux.stream import YamuxStream
from reverseproxy.wire.yamux.table import StreamTable

TURN: Final = 65536
"""Bytes that one L{YamuxOutput.take} returns, roughly, if it is not told otherwise."""

ACK_AFTER: Final = 64
"""Streams whose ACK waits for a frame to go with, beyond which ACKs are sent alone."""

BRIEF: Final = 4096
"""Bytes up to which a stream has little to send."""


class YamuxOutput:
    """
    Sends the frames of one connection.

    @ivar drained: streams that had bytes L{pending}, and have none since the last L{take}.
    @ivar unacknowledged: the peer's streams that have not been acknowledged, by number.
    @ivar local_goaway: whether we have sent GoAway.
    """

    __slots__ = (
        "_acknowledge_now",
        "_brief",
        "_control",
        "_extra",
        "_frames",
        "_max_frame",
        "_max_frames",
        "_opening",
        "_out",
        "_ready",
        "_room",
        "_streams",
        "_table",
        "_tail",
        "_tail_flags",
        "drained",
        "local_goaway",
        "unacknowledged",
    )

    def __init__(self, table: StreamTable) -> None:
        limits = table.limits
        self.drained: list[int] = []
        self.local_goaway = False
        self._extra = limits.window - limits.first
        self._max_frame = limits.max_frame
        self._max_frames = limits.max_pending_control + 2 * limits.max_streams
        self._table = table
        self._streams = table.streams
        self._control: list[bytes] = []  # frames that go first
        self._out: list[bytes | memoryview] = []  # frames that have to keep their order
        self._frames = 0  # how many of these have no data
        self._room = TURN  # bytes of data that may be put into _out without waiting for a turn
        self._tail = 0  # the stream whose data is last in _out
        self._tail_flags = 0
        self._opening: deque[YamuxStream] = deque()  # our streams whose SYN was not sent, in their order
        self.unacknowledged: dict[int, YamuxStream] = {}
        self._acknowledge_now = False
        # Streams that have credit and wait for a turn: those with much, and those with little.
        self._ready: OrderedDict[int, YamuxStream] = OrderedDict()
        self._brief: OrderedDict[int, YamuxStream] = OrderedDict()

    # frames without data

    @property
    def waiting(self) -> int:
        """How many frames without data wait for the peer to read."""
        return len(self._control) + self._frames

    @property
    def overflow(self) -> bool:
        """Whether the peer does not read, and too many frames wait for it."""
        return len(self._control) + self._frames > self._max_frames

    def put_first(self, frame: bytes) -> None:
        """Send a frame before all that waits."""
        self._control.append(frame)

    def put(self, frame: bytes) -> None:
        """Send a frame behind those that wait."""
        self._out.append(frame)
        self._frames += 1
        self._tail = 0

    def pong(self, token: int) -> None:
        """Answer a ping, and acknowledge the peer's streams with it."""
        self._control.append(pack(PING, ACK, 0, token))
        self._acknowledge_now = bool(self.unacknowledged)

    def go_away(self, code: int) -> None:
        """Send GoAway: we take no more streams.  The SYNs of our own go before it."""
        self._announce()
        self.local_goaway = True
        self.put(pack(GO_AWAY, 0, 0, code))

    def fail(self, code: int) -> None:
        """Drop all streams, and send GoAway with the reason, behind the frames that wait."""
        self._table.clear()
        self.local_goaway = True
        self._opening.clear()
        self.unacknowledged.clear()
        self._acknowledge_now = False
        self._ready.clear()
        self._brief.clear()
        self.put(pack(GO_AWAY, 0, 0, code))

    # beginning and end of streams

    def open(self, stream: YamuxStream) -> None:
        """Send the SYN of a stream of ours, with its first data if there is some by the next L{take}."""
        self._opening.append(stream)

    def accept(self, stream: YamuxStream) -> None:
        """Send the ACK of a peer's stream, with our first frame on it if there is one soon."""
        if self._extra:
            stream.flags = SILENT
            self._control.append(pack(UPDATE, ACK, stream.id, self._extra))
        else:
            self.unacknowledged[stream.id] = stream

    def withhold_ack(self, stream: YamuxStream) -> None:
        """Send no ACK of a stream, if that was not sent yet."""
        if stream.flags & ACK:
            stream.flags = SILENT
            del self.unacknowledged[stream.id]

    def grant(self, stream: YamuxStream, credit: int) -> None:
        """Send the peer credit for more bytes on a stream."""
        flags = stream.flags & ACK
        if flags:
            self.withhold_ack(stream)
        self._control.append(pack(UPDATE, flags, stream.id, credit))

    def resume(self, stream: YamuxStream) -> None:
        """Let a stream with bytes pending wait for its turn, now that it has credit."""
        if stream.pending <= BRIEF:
            self._brief[stream.id] = stream
        else:
            self._ready[stream.id] = stream

    def refuse(self, number: int, ended: bool) -> None:
        """
        Refuse a stream that the peer opens: RST without an ACK, as it was not looked at.

        @param ended: whether the peer has ended it at once.
        """
        self.put(pack(UPDATE, RST, number, 0))
        if not ended:
            table = self._table
            table.resets.remember(number, table.limits.first)

    def reset(self, stream: YamuxStream, code: int) -> None:
        """
        Reset a stream; the peer gets RST if it knows of the stream, and has not ended or reset it.

        @param code: in place of the credit in that frame.
        """
        if stream.flags & SYN:
            self._opening.remove(stream)
        elif stream.local_open or stream.remote_open:
            self.put(pack(UPDATE, RST | stream.flags & ACK, stream.id, code))
            if stream.remote_open:
                self._table.resets.remember(stream.id, stream.recv_window)
        self.drop(stream)

    def drop(self, stream: YamuxStream) -> None:
        """Forget a stream, and all that waits on it."""
        if stream.flags & ACK:
            del self.unacknowledged[stream.id]
        if stream.pending:
            self._brief.pop(stream.id, None)
            self._ready.pop(stream.id, None)
            stream.queue = None
            stream.pending = 0
        self._table.drop(stream)

    # data

    def send(self, number: int, data: bytes) -> None:
        """
        Send bytes on a stream, as soon as the peer's credit and other streams allow.

        Nothing happens if the stream is over, or we have ended it.
        """
        stream = self._streams.get(number)
        if stream is None:
            return
        size = len(data)
        # No other stream waits; and as the credit is not used up, nothing of this one does.
        if (
            0 < size <= self._max_frame
            and size <= stream.send_window
            and size <= self._room
            and not self._ready
            and not self._brief
        ):
            flags = self._first_flags(stream) if stream.flags else 0
            stream.send_window -= size
            self._room -= size + 12
            out = self._out
            out.append(pack(DATA, flags, number, size))
            out.append(data)
            self._tail = number
            self._tail_flags = flags
        elif size and stream.local_open and not stream.ending:
            if stream.flags & SYN:
                self._announce(stream)
            if stream.queue is None:
                stream.queue = deque()
            stream.queue.append(data)
            before = stream.pending
            stream.pending += size
            if stream.send_window and before <= BRIEF and number not in self._ready:
                if stream.pending > BRIEF:
                    self._brief.pop(number, None)
                self.resume(stream)

    def _first_flags(self, stream: YamuxStream) -> int:
        """Return the flags that the first frame of a stream has to carry, once."""
        flags = stream.flags
        if flags & SYN and (self._extra or self._opening[0] is not stream):
            self._announce(stream)
            return 0
        if flags & SYN:
            self._opening.popleft()
        elif flags & ACK:
            del self.unacknowledged[stream.id]
        stream.flags = 0
        return flags & ON_WIRE

    def _announce(self, last: YamuxStream | None = None) -> None:
        """Send the SYNs of our streams, up to one of them: their numbers must increase."""
        opening = self._opening
        while opening:
            stream = opening.popleft()
            stream.flags = 0
            self.put(pack(UPDATE, SYN, stream.id, self._extra))
            if stream is last:
                break

    def _acknowledge(self) -> None:
        """Send the ACKs of the peer's streams."""
        for stream in self.unacknowledged.values():
            stream.flags = SILENT
            self._control.append(pack(UPDATE, ACK, stream.id, 0))
        self.unacknowledged.clear()
        self._acknowledge_now = False

    def pending(self, number: int) -> int:
        """Return how many bytes of a stream wait for credit, or for their turn."""
        stream = self._streams.get(number)
        return 0 if stream is None else stream.pending

    def credit(self, number: int) -> int:
        """Return how many bytes may be sent on a stream now; 0 if it is over."""
        stream = self._streams.get(number)
        return 0 if stream is None else max(0, stream.send_window)

    def end(self, number: int) -> None:
        """Send FIN on a stream, behind what is pending; the peer may still send."""
        stream = self._streams.get(number)
        if stream is None or not stream.local_open:
            return
        if stream.pending:
            stream.ending = True
            return
        if self._tail == number:
            out = self._out
            out[-2] = pack(DATA, self._tail_flags | FIN, number, len(out[-1]))
            self._tail = 0
        else:
            flags = self._first_flags(stream) if stream.flags else 0
            self.put(pack(UPDATE, flags | FIN, number, 0))
        self._local_end(stream)

    def _local_end(self, stream: YamuxStream) -> None:
        """Note that FIN was put into the output."""
        stream.local_open = False
        stream.send_window = -1
        self._table.finish(stream)

    @property
    def has_output(self) -> bool:
        """Whether L{take} would return something."""
        return bool(
            self._out
            or self._control
            or self._ready
            or self._brief
            or self._opening
            or self._acknowledge_now
            or len(self.unacknowledged) >= ACK_AFTER
        )

    def take(self, limit: int = TURN) -> bytes:
        """
        Return the bytes to send now.

        Call it again until it returns nothing, or the transport is full.

        @param limit: bytes of data, roughly: frames without data are not held back.
        """
        if self.drained:
            self.drained = []
        if self._opening:
            self._announce()
        if self._acknowledge_now or len(self.unacknowledged) >= ACK_AFTER:
            self._acknowledge()
        out = self._out
        if self._control:
            out = [*self._control, *out]
            self._control.clear()
        room = limit - TURN + self._room
        if self._brief:
            room -= self._send_in_turns(self._brief, out, room if not self._ready else room // 2)
        if self._ready:
            self._send_in_turns(self._ready, out, room)
        if not out:
            return b""
        self._out = []
        self._room = TURN
        self._frames = 0
        self._tail = 0
        return b"".join(out)

    def _send_in_turns(
        self, ready: OrderedDict[int, YamuxStream], out: list[bytes | memoryview], limit: int
    ) -> int:
        """
        Send frames of data, one of each stream in turn.

        @param ready: streams with pending bytes and credit.
        @param out: gets the frames.
        @param limit: bytes, roughly.
        @return: how many bytes were sent.
        """
        most = self._max_frame
        room = limit
        while ready and room > 0:
            number, stream = ready.popitem(last=False)
            size = min(most, stream.send_window, stream.pending)
            flags = self._first_flags(stream) if stream.flags else 0
            if stream.ending and size == stream.pending:
                flags |= FIN
            out.append(pack(DATA, flags, number, size))
            self._take_pending(stream, size, out)
            room -= size + 12
            if not stream.pending:
                self.drained.append(number)
                if flags & FIN:
                    self._local_end(stream)
            elif stream.send_window:
                ready[number] = stream
        return limit - room

    def _take_pending(self, stream: YamuxStream, size: int, out: list[bytes | memoryview]) -> None:
        queue = stream.queue
        assert queue is not None
        stream.pending -= size
        stream.send_window -= size
        while size:
            piece = queue.popleft()
            if len(piece) > size:
                view = memoryview(piece)
                queue.appendleft(view[size:])
                piece = view[:size]
            out.append(piece)
            size -= len(piece)
