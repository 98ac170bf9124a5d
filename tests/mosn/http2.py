"""
HTTP/2 as MOSN writes it: one write for each frame, and none of them waits for another.

MOSN's HTTP/2 is a copy of Go's with its own reading and writing.  What matters
here: whoever is first writes the preface, frame by frame, while another thread
already reads, so that an acknowledgement may come before SETTINGS; a request
ends with an empty DATA frame of its own, as does a response.
"""

from __future__ import annotations

__all__ = ["Frame", "FrameReader", "Http2Answerer", "Http2Asker", "frame"]

from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from typing import NamedTuple

from hpack import Decoder, Encoder

from tests.mosn.talk import Answered, Answerer, Asker, Unexpected

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

LARGEST = 16384
"""Bytes of a DATA frame of MOSN's at the most."""

ALMOST_NOTHING = 4096
"""Bytes of a stream's window below which MOSN gives more; the connection's is practically without end."""

ACK = END_STREAM = 0x1
END_HEADERS = 0x4

MAX_FRAME_SIZE = 5
INITIAL_WINDOW_SIZE = 4


class Kind(IntEnum):
    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: Kind, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def settings(**values: int) -> bytes:
    """A SETTINGS frame; C{s4=...} is setting 4."""
    pairs = ((int(name[1:]), value) for name, value in values.items())
    payload = b"".join(number.to_bytes(2, "big") + value.to_bytes(4, "big") for number, value in pairs)
    return frame(Kind.SETTINGS, payload=payload)


def window_update(stream: int, increment: int) -> bytes:
    return frame(Kind.WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


class FrameReader:
    """Takes bytes apart into frames."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[Frame]:
        self._buffer += data
        frames = []
        while len(self._buffer) >= 9:
            end = 9 + int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) < end:
                break
            number = int.from_bytes(self._buffer[5:9], "big") & 0x7FFFFFFF
            frames.append(Frame(self._buffer[3], self._buffer[4], number, self._buffer[9:end]))
            self._buffer = self._buffer[end:]
        return frames


Fields = list[tuple[bytes, bytes]]


@dataclass
class _Stream:
    """
    @ivar window: bytes that may be sent.
    @ivar room: bytes that may come.
    @ivar unsent: of the body; L{None} if all is sent.
    @ivar trailers: what comes behind the body, if anything.
    """

    number: int
    window: int
    room: int
    answered: Answered | None = None
    fields: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    unsent: bytes | None = None
    trailers: Fields = field(default_factory=list)


class _Http2:
    """
    What both ends have in common: settings, windows, and whole messages.

    @ivar room: bytes that the other end may send on one stream.
    """

    pieces: list[bytes]
    room = 65535

    def __init__(self) -> None:
        self._reader = FrameReader()
        self._encoder = Encoder()
        self._decoder = Decoder()
        self._streams: dict[int, _Stream] = {}
        self._window = 65535
        self._initial = 65535
        self._block = b""

    def _received(self, data: bytes) -> None:
        for each in self._reader.feed(data):
            self._frame(each)

    def _frame(self, each: Frame) -> None:
        match each.kind:
            case Kind.SETTINGS if not each.flags & ACK:
                self._settings(each.payload)
                self.pieces.append(frame(Kind.SETTINGS, ACK))
            case Kind.SETTINGS:
                self._acknowledged()
            case Kind.PING if not each.flags & ACK:
                self.pieces.append(frame(Kind.PING, ACK, 0, each.payload))
            case Kind.WINDOW_UPDATE:
                self._more_window(each)
            case Kind.HEADERS | Kind.CONTINUATION:
                self._block += each.payload
                if each.flags & END_HEADERS:
                    self._headers(each)
            case Kind.DATA:
                self._data(each)
            case Kind.RST_STREAM:
                self._reset(each)
            case Kind.GOAWAY:
                self._goaway(each)
            case Kind.PING:
                pass
            case _:
                # MOSN says GOAWAY and closes, where it should ignore it
                raise Unexpected(f"a frame of kind {each.kind}, which MOSN can't bear")

    def _settings(self, payload: bytes) -> None:
        for start in range(0, len(payload), 6):
            number = int.from_bytes(payload[start : start + 2], "big")
            value = int.from_bytes(payload[start + 2 : start + 6], "big")
            if number == INITIAL_WINDOW_SIZE:
                for stream in self._streams.values():
                    stream.window += value - self._initial
                self._initial = value
        self._flush()

    def _more_window(self, each: Frame) -> None:
        increment = int.from_bytes(each.payload, "big") & 0x7FFFFFFF
        if not each.stream:
            self._window += increment
        elif each.stream in self._streams:
            self._streams[each.stream].window += increment
        self._flush()

    def _headers(self, each: Frame) -> None:
        block, self._block = self._block, b""
        fields = {bytes(name): bytes(value) for name, value in self._decoder.decode(block, raw=True)}
        stream = self._opened(each.stream)
        if stream is None:
            return
        stream.fields.update(fields)
        if each.flags & END_STREAM:
            self._complete(stream)

    def _data(self, each: Frame) -> None:
        stream = self._streams.get(each.stream)
        if stream is None:
            return
        stream.room -= len(each.payload)
        if stream.room < 0:
            raise Unexpected(f"{-stream.room} bytes more than the window of stream {each.stream} allows")
        if stream.room < ALMOST_NOTHING:
            self.pieces.append(window_update(each.stream, self.room - stream.room))
            stream.room = self.room
        stream.body += each.payload
        if each.flags & END_STREAM:
            self._complete(stream)

    def _send(self, stream: _Stream, fields: Fields, body: bytes, trailers: Fields | None = None) -> None:
        """Write a message: HEADERS, DATA, and an empty DATA frame or trailers that end it."""
        end = 0 if body or trailers else END_STREAM
        block = self._encoder.encode(fields)
        self.pieces.append(frame(Kind.HEADERS, END_HEADERS | end, stream.number, block))
        if end:
            self._sent(stream)
        else:
            stream.unsent, stream.trailers = body, trailers or []
            self._flush()

    def _flush(self) -> None:
        for stream in list(self._streams.values()):
            while stream.unsent and (room := min(LARGEST, self._window, stream.window)) > 0:
                piece, stream.unsent = stream.unsent[:room], stream.unsent[room:]
                self._window -= len(piece)
                stream.window -= len(piece)
                self.pieces.append(frame(Kind.DATA, 0, stream.number, piece))
            if stream.unsent == b"":
                stream.unsent = None
                self.pieces.append(self._end(stream))
                self._sent(stream)

    def _end(self, stream: _Stream) -> bytes:
        if not stream.trailers:
            return frame(Kind.DATA, END_STREAM, stream.number)
        block = self._encoder.encode(stream.trailers)
        return frame(Kind.HEADERS, END_HEADERS | END_STREAM, stream.number, block)

    # what differs

    def _acknowledged(self) -> None:
        """Our SETTINGS have been acknowledged."""

    def _opened(self, number: int) -> _Stream | None:
        """The stream of a field block."""
        raise NotImplementedError

    def _complete(self, stream: _Stream) -> None:
        """A message has come to its end."""
        raise NotImplementedError

    def _sent(self, stream: _Stream) -> None:
        """A message has been written."""

    def _reset(self, each: Frame) -> None:
        code = int.from_bytes(each.payload, "big")
        raise Unexpected(f"stream {each.stream} was reset with code {code}")

    def _goaway(self, each: Frame) -> None:
        raise Unexpected(f"GOAWAY: {each.payload!r}")


class Http2Asker(_Http2, Asker):
    """
    A client's or MOSN's end; every second request is one of gRPC, with trailers.

    @ivar early: whether it has acknowledged the other end's SETTINGS before its
        own were out.
    """

    room = 4 << 20
    early = False

    def __init__(self, hasty: bool = False) -> None:
        """
        @param hasty: whether what is read is answered before all of the beginning
            is out, as it happens to MOSN.
        """
        _Http2.__init__(self)
        Asker.__init__(self)
        self._next = 1
        self._hasty = hasty
        self._unsaid: list[bytes] = []

    def begin(self) -> None:
        greeting = [settings(s2=0, s4=4 << 20, s6=1 << 20), window_update(0, 1 << 30)]
        self.pieces.append(PREFACE)
        if self._hasty:
            self._unsaid = greeting
        else:
            self.pieces += greeting

    @property
    def hesitates(self) -> bool:
        """Whether the thread that writes the beginning has been interrupted."""
        return bool(self._unsaid)

    def say_the_rest(self) -> None:
        """That thread goes on."""
        unsaid, self._unsaid = self._unsaid, []
        self.pieces += unsaid

    def ask(self, body: bytes, answered: Answered) -> None:
        self.say_the_rest()
        stream = self._streams[self._next] = _Stream(self._next, self._initial, self.room, answered)
        self._next += 2
        fields = [
            (b":authority", b"example.com"),
            (b":method", b"POST" if body else b"GET"),
            (b":path", b"/echo"),
            (b":scheme", b"http"),
        ]
        if body and stream.number % 4 == 3:
            fields += [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
        elif body:
            fields.append((b"content-length", b"%d" % len(body)))
        self._send(stream, fields, body)

    def feed(self, data: bytes) -> None:
        self._received(data)
        self.early = self.early or (self.hesitates and frame(Kind.SETTINGS, ACK) in self.pieces)
        self.say_the_rest()

    def _opened(self, number: int) -> _Stream | None:
        return self._streams.get(number)

    def _complete(self, stream: _Stream) -> None:
        del self._streams[stream.number]
        status, content = stream.fields.get(b":status"), stream.fields.get(b"content-type")
        if status != b"200":
            raise Unexpected(f"status {status!r}: {stream.body[:200]!r}")
        if content == b"application/grpc" and stream.fields.get(b"grpc-status") != b"0":
            raise Unexpected(f"gRPC without a good end: {stream.fields}")
        assert stream.answered is not None
        stream.answered(stream.body)

    def _goaway(self, each: Frame) -> None:
        last, code = (int.from_bytes(each.payload[at : at + 4], "big") for at in (0, 4))
        if code or any(number > last for number in self._streams):
            raise Unexpected(f"GOAWAY {code}, last stream {last}, {list(self._streams)} under way")
        self.spent = True

    @property
    def under_way(self) -> int:
        return len(self._streams)


class Http2Answerer(_Http2, Answerer):
    """A service's or MOSN's end."""

    room = 1 << 30

    def __init__(self, streamed: bool = False) -> None:
        """
        @param streamed: whether to answer as MOSN does with C{http2_use_stream}: the
            length of what it has so far, which is nothing, goes for the whole.
        """
        _Http2.__init__(self)
        Answerer.__init__(self)
        self._streamed = streamed
        self._greeted = b""
        self._highest = 0
        self._gone = False

    def feed(self, data: bytes) -> None:
        if len(self._greeted) < len(PREFACE):
            missing = len(PREFACE) - len(self._greeted)
            self._greeted, data = self._greeted + data[:missing], data[missing:]
            if not PREFACE.startswith(self._greeted):
                raise Unexpected(f"no preface, but {self._greeted!r}")
            if self._greeted == PREFACE:
                self.pieces += [
                    settings(s5=1 << 20, s3=25000, s6=1 << 20, s4=1 << 30),
                    window_update(0, (1 << 30) - 65535),
                ]
        self._received(data)

    def _opened(self, number: int) -> _Stream | None:
        if number > self._highest:
            if self._gone:
                return None  # MOSN reads it, and does nothing
            self._highest = number
            self._streams[number] = _Stream(number, self._initial, self.room)
        return self._streams.get(number)

    def _complete(self, stream: _Stream) -> None:
        self.answer(partial(self._respond, stream))

    def _respond(self, stream: _Stream) -> None:
        if stream.number not in self._streams:
            return  # it has been reset
        grpc = stream.fields.get(b"content-type") == b"application/grpc"
        fields = [
            (b":status", b"200"),
            (b"content-type", b"application/grpc" if grpc else b"application/octet-stream"),
            (b"date", b"Tue, 14 Jul 2026 10:27:37 GMT"),
        ]
        if self._streamed or not stream.body:
            fields.append((b"content-length", b"0"))
        elif not grpc:
            fields.append((b"content-length", b"%d" % len(stream.body)))
        self._send(stream, fields, stream.body, [(b"grpc-status", b"0")] if grpc else None)

    def _sent(self, stream: _Stream) -> None:
        self._streams.pop(stream.number, None)

    def _reset(self, each: Frame) -> None:
        self._streams.pop(each.stream, None)

    def _goaway(self, each: Frame) -> None:
        """MOSN answers with GOAWAY of its own."""
        self.go_away()

    def go_away(self) -> None:
        if not self._gone:
            self._gone = True
            self.pieces.append(frame(Kind.GOAWAY, payload=self._highest.to_bytes(4, "big") + bytes(4)))
