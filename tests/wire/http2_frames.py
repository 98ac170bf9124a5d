"""
A peer made of frames, for tests: written and read with the hyperframe library.

It keeps no rules, so that it can break all of them.
"""

from __future__ import annotations

from typing import Any

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from reverseproxy.errors import Http2Error
from reverseproxy.wire.http2.connection import ClientConnection, ServerConnection
from reverseproxy.wire.http2.events import Http2Limits, StreamReset
from reverseproxy.wire.http2.frames import PREFACE, ErrorCode

Fields = list[tuple[bytes, bytes]]

GET: Fields = [
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":authority", b"example.com"),
    (b":path", b"/"),
]
POST: Fields = [(b":method", b"POST"), *GET[1:]]
OK: Fields = [(b":status", b"200")]


def raw(kind: int, flags: int, stream: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """A frame of any kind, with any length in its header."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def read_frames(data: bytes) -> list[Any]:
    """Take written bytes apart."""
    data = data.removeprefix(PREFACE)
    frames = []
    while data:
        frame, length = Frame.parse_frame_header(memoryview(data[:9]))
        frame.parse_body(memoryview(data[9 : 9 + length]))
        frames.append(frame)
        data = data[9 + length :]
    return frames


class Peer:
    """
    The other end of a connection of ours.

    @ivar sent: the frames that the connection has sent since the last look.
    """

    def __init__(self, connection: Any, greet: bool = True) -> None:
        self.connection = connection
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.now = 0.0
        self.frames: list[Any] = []
        if greet:
            self.greet()

    def greet(self, **settings: int) -> None:
        preface = PREFACE if isinstance(self.connection, ServerConnection) else b""
        self.feed(preface + self.settings(), SettingsFrame(0, flags=["ACK"]).serialize())
        self.take()

    def feed(self, *data: bytes) -> list[tuple[int, Any]]:
        events: list[tuple[int, Any]] = self.connection.feed(b"".join(data), self.now)
        return [event for event in events if type(event[1]).__name__ != "PeerSettings"]

    def take(self, limit: int = 1 << 30) -> list[Any]:
        """The frames that are sent now."""
        return read_frames(self.connection.take(limit))

    # frames

    def headers(self, stream: int, fields: Fields, end: bool = False, **more: Any) -> bytes:
        frame = HeadersFrame(stream, self.encoder.encode(fields), **more)
        frame.flags.add("END_HEADERS")
        if end:
            frame.flags.add("END_STREAM")
        return frame.serialize()

    def data(self, stream: int, data: bytes = b"", end: bool = False, pad: int | None = None) -> bytes:
        frame = DataFrame(stream, data)
        if end:
            frame.flags.add("END_STREAM")
        if pad is not None:
            frame.pad_length = pad
            frame.flags.add("PADDED")
        return frame.serialize()

    def settings(self, values: dict[int, int] | None = None) -> bytes:
        return SettingsFrame(0, values or {}).serialize()

    def window(self, stream: int, increment: int) -> bytes:
        return WindowUpdateFrame(stream, increment).serialize() if increment else raw(8, 0, stream, bytes(4))

    def rst(self, stream: int, code: int = ErrorCode.CANCEL) -> bytes:
        return RstStreamFrame(stream, code).serialize()

    def goaway(self, last: int, code: int = 0, debug: bytes = b"") -> bytes:
        return GoAwayFrame(0, last, code, debug).serialize()

    def ping(self, data: bytes = b"12345678", ack: bool = False) -> bytes:
        return PingFrame(0, data, flags=["ACK"] if ack else []).serialize()

    def priority(self, stream: int, depends_on: int = 0) -> bytes:
        return PriorityFrame(stream, depends_on=depends_on, stream_weight=1).serialize()

    def blocks(self, stream: int, fields: Fields, pieces: int, end: bool = False) -> list[bytes]:
        """A field block in several frames."""
        block = self.encoder.encode(fields)
        size = -(-len(block) // pieces)
        frames: list[Any] = []
        for index in range(pieces):
            piece = block[index * size : (index + 1) * size]
            frames.append(ContinuationFrame(stream, piece) if index else HeadersFrame(stream, piece))
        if end:
            frames[0].flags.add("END_STREAM")
        frames[-1].flags.add("END_HEADERS")
        return [frame.serialize() for frame in frames]

    def fields(self, frame: Any) -> Fields:
        """Decode the field block of a frame; each exactly once, in order."""
        return [(bytes(name), bytes(value)) for name, value in self.decoder.decode(frame.data, raw=True)]


def server(**limits: int) -> Peer:
    """A client of a connection that serves."""
    return Peer(ServerConnection(Http2Limits(**limits)))


def client(**limits: int) -> Peer:
    """A server of a connection that asks."""
    return Peer(ClientConnection(Http2Limits(**limits)))


def outcome(peer: Peer, *data: bytes) -> str:
    """
    What bytes lead to, in short.

    @return: C{"connection CODE"}, C{"stream CODE"}, C{"fine"}, or C{"closed"}
        if the connection has failed before.
    """
    if peer.connection.closed:
        return "closed"
    events = peer.feed(*data)
    sent = peer.take()
    if events and isinstance(events[-1][1], Http2Error):
        code = events[-1][1].code
        goaway = sent[-1]
        assert isinstance(goaway, GoAwayFrame), sent
        assert goaway.error_code == code, goaway
        assert peer.connection.closed
        assert peer.feed(peer.ping()) == [] == peer.take()
        return f"connection {ErrorCode.name_of(code)}"
    assert not peer.connection.closed
    resets = [frame for frame in sent if isinstance(frame, RstStreamFrame)]
    if resets:
        assert not any(isinstance(frame, GoAwayFrame) for frame in sent)
        for number, event in events:
            if isinstance(event, StreamReset) and not event.remote:
                assert (number, event.code) in [(r.stream_id, r.error_code) for r in resets]
        return f"stream {ErrorCode.name_of(resets[-1].error_code)}"
    return "fine"
