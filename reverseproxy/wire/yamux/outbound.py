"""
The sending half of a multiplexed connection.

What is written to a stream goes out at once, as long as the peer's credit lasts
and nobody waits; else it waits in its stream, and the streams take turns.

Streams with little to send, such as a request or a message, don't wait for all
those with much: they have a queue of their own, which is first in half of what is
sent.  So frames of bulk can be large, however many streams there are.
"""

from __future__ import annotations

__all__ = ["ACK_AFTER", "BRIEF", "TURN", "Output", "Stream"]

from collections import OrderedDict, deque
from typing import Final

from reverseproxy.wire.window import Round
from reverseproxy.wire.yamux.events import MuxLimits
from reverseproxy.wire.yamux.frames import ACK, DATA, FIN, ON_WIRE, SILENT, SYN, UPDATE, pack

TURN: Final = 65536
"""Bytes that one L{Output.take} returns, roughly, if it is not told otherwise."""

ACK_AFTER: Final = 64
"""Streams that wait for their ACK to ride on something, before it is sent alone."""

BRIEF: Final = 4096
"""Bytes up to which what waits in a stream is little."""


class Stream:
    """
    One stream.

    It is kept until both ends have ended it and what came has been consumed.

    @ivar remote_open: whether the peer may send more.
    @ivar local_open: whether we may.
    @ivar flags: what the first frame that we send is to carry: SYN, or ACK and
        L{SILENT}.
    @ivar acknowledged: whether the peer has accepted our stream.
    @ivar recv_window: bytes that the peer may send now; -1 if it has ended the
        stream.
    @ivar held: bytes that came and were not consumed.
    @ivar credit: bytes consumed that the peer has not been told of.
    @ivar window: the sum of these three.
    @ivar threshold: how much credit the peer is told of.
    @ivar since: when the peer was last told, or the stream was opened.
    @ivar part: what was consumed since a certain time, once the peer was told of any.
    @ivar send_window: bytes that we may send now; -1 if we have ended the stream.
    @ivar queue: what is to be sent.
    @ivar pending: bytes of that.
    @ivar ending: whether that is all.
    """

    __slots__ = (
        "acknowledged",
        "credit",
        "ending",
        "flags",
        "held",
        "id",
        "local_open",
        "part",
        "pending",
        "queue",
        "recv_window",
        "remote_open",
        "send_window",
        "since",
        "threshold",
        "window",
    )

    def __init__(self, number: int, first: int, window: int, threshold: int, flags: int, now: float) -> None:
        self.id = number
        self.remote_open = True
        self.local_open = True
        self.flags = flags
        self.acknowledged = False
        self.window = self.recv_window = window
        self.held = 0
        self.credit = 0
        self.threshold = threshold
        self.since = now
        self.part: Round | None = None
        self.send_window = first
        self.queue: deque[bytes | memoryview] | None = None
        self.pending = 0
        self.ending = False


class Output:
    """
    What is to be sent, and when.

    @ivar drained: streams of which something was L{pending}, and nothing is
        since the last L{take}.
    """

    __slots__ = (
        "_acknowledge_now",
        "_brief",
        "_control",
        "_extra",
        "_first",
        "_frames",
        "_limits",
        "_max_frame",
        "_max_frames",
        "_opening",
        "_out",
        "_ready",
        "_room",
        "_streams",
        "_tail",
        "_tail_flags",
        "_unacknowledged",
        "drained",
    )

    def __init__(self, limits: MuxLimits) -> None:
        self.drained: list[int] = []
        self._limits = limits
        self._first = limits.first
        self._extra = limits.window - limits.first
        self._max_frame = limits.max_frame
        self._max_frames = limits.max_pending_control + 2 * limits.max_streams
        self._streams: dict[int, Stream] = {}
        self._control: list[bytes] = []  # goes first
        self._out: list[bytes | memoryview] = []  # what has to keep its order
        self._frames = 0  # in _out, without those of data
        self._room = TURN  # bytes that may be put into _out without waiting for a turn
        self._tail = 0  # the stream whose data stands last in _out
        self._tail_flags = 0
        self._opening: deque[Stream] = deque()  # ours that the peer does not know of, in their order
        self._unacknowledged: dict[int, Stream] = {}
        self._acknowledge_now = False
        # These may send and wait for a turn, those with little apart.
        self._ready: OrderedDict[int, Stream] = OrderedDict()
        self._brief: OrderedDict[int, Stream] = OrderedDict()

    def _finish(self, stream: Stream) -> None:
        """Forget a stream if nothing more is to be done with it."""
        raise NotImplementedError

    @property
    def _clogged(self) -> bool:
        """Whether the peer takes nothing, and too much was queued meanwhile."""
        return len(self._control) + self._frames > self._max_frames

    def send(self, number: int, data: bytes) -> None:
        """
        Send bytes on a stream, as soon as the peer's credit and other streams allow.

        Nothing happens if the stream is over, or we have ended it.
        """
        stream = self._streams.get(number)
        if stream is None:
            return
        size = len(data)
        # Nobody else waits, and as our window is not used up, nothing of this stream does.
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
                self._queue(stream, before)

    def _queue(self, stream: Stream, before: int = 0) -> None:
        """
        Let a stream that may send wait for its turn.

        @param before: bytes of it that waited already, L{BRIEF} at the most.
        """
        if stream.pending <= BRIEF:
            self._brief[stream.id] = stream
        else:
            if before:
                self._brief.pop(stream.id, None)
            self._ready[stream.id] = stream

    def _leave_queue(self, number: int) -> None:
        """A stream has nothing to send any more."""
        self._brief.pop(number, None)
        self._ready.pop(number, None)

    def _first_flags(self, stream: Stream) -> int:
        """Take what the first frame of a stream has to carry."""
        flags = stream.flags
        if flags & SYN and (self._extra or self._opening[0] is not stream):
            self._announce(stream)
            return 0
        if flags & SYN:
            self._opening.popleft()
        elif flags & ACK:
            del self._unacknowledged[stream.id]
        stream.flags = 0
        return flags & ON_WIRE

    def _announce(self, last: Stream | None = None) -> None:
        """Tell the peer of streams that we have opened, up to one of them: their numbers must increase."""
        opening = self._opening
        while opening:
            stream = opening.popleft()
            stream.flags = 0
            self._put(pack(UPDATE, SYN, stream.id, self._extra))
            if stream is last:
                break

    def _acknowledge(self) -> None:
        """Tell the peer that we have its streams."""
        for stream in self._unacknowledged.values():
            stream.flags = SILENT
            self._control.append(pack(UPDATE, ACK, stream.id, 0))
        self._unacknowledged.clear()
        self._acknowledge_now = False

    def _put(self, frame: bytes) -> None:
        """Send a frame behind those that are there."""
        self._out.append(frame)
        self._frames += 1
        self._tail = 0

    def pending(self, number: int) -> int:
        """How many bytes of a stream wait for credit, or for their turn."""
        stream = self._streams.get(number)
        return 0 if stream is None else stream.pending

    def credit(self, number: int) -> int:
        """How many bytes may be sent on a stream now; 0 for none, or if it is over."""
        stream = self._streams.get(number)
        return 0 if stream is None else max(0, stream.send_window)

    def end(self, number: int) -> None:
        """End a stream behind what was sent; the peer still may send."""
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
            self._put(pack(UPDATE, flags | FIN, number, 0))
        self._local_end(stream)

    def _local_end(self, stream: Stream) -> None:
        """All that we send on a stream is in the output."""
        stream.local_open = False
        stream.send_window = -1
        self._finish(stream)

    @property
    def has_output(self) -> bool:
        """Whether L{take} has something."""
        return bool(
            self._out
            or self._control
            or self._ready
            or self._brief
            or self._opening
            or self._acknowledge_now
            or len(self._unacknowledged) >= ACK_AFTER
        )

    def take(self, limit: int = TURN) -> bytes:
        """
        Take what is to be sent now.

        Call it again until it returns nothing, or the transport is full.

        @param limit: bytes, roughly: what comes without data is not held back.
        """
        if self.drained:
            self.drained = []
        if self._opening:
            self._announce()
        if self._acknowledge_now or len(self._unacknowledged) >= ACK_AFTER:
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
        self, ready: OrderedDict[int, Stream], out: list[bytes | memoryview], limit: int
    ) -> int:
        """
        Send a frame of each stream that can, again and again.

        @return: how many bytes that were.
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

    def _take_pending(self, stream: Stream, size: int, out: list[bytes | memoryview]) -> None:
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
