"""The state of one stream, which the parts of a connection that receive, send and keep windows share."""

from __future__ import annotations

__all__ = ["YamuxStream"]

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import deque

    from reverseproxy.wire.window import Round


class YamuxStream:
    """
    The state of one stream.

    It is kept until both ends have ended the stream and all that came was consumed.

    @ivar remote_open: whether the peer may send more.
    @ivar local_open: whether we may.
    @ivar flags: what the first frame that we send has to carry: SYN, or ACK and
        L{SILENT<reverseproxy.wire.yamux.frames.SILENT>}.
    @ivar acknowledged: whether the peer has accepted our stream.
    @ivar recv_window: bytes that the peer may send now; -1 if it has ended the
        stream.
    @ivar held: bytes that came and were not consumed.
    @ivar credit: bytes consumed for which no credit was sent yet.
    @ivar window: the sum of these three.
    @ivar threshold: bytes from which on credit is sent.
    @ivar since: when credit was last sent, or the stream was opened.
    @ivar part: how much was consumed since a certain time, once credit was sent.
    @ivar send_window: bytes that we may send now; -1 if we have ended the stream.
    @ivar queue: the bytes that wait to be sent.
    @ivar pending: how many these are.
    @ivar ending: whether FIN follows them.
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
        """
        @param first: bytes that we may send.
        @param window: bytes that the peer may send.
        """
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
