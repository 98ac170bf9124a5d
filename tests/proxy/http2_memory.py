"""Clients and hosts that speak HTTP/2, for the world in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from reverseproxy.config.models import Http2Options
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.proxy.http.http1_server import Http1Proxy
from reverseproxy.proxy.http.http2_server import Http2Proxy
from reverseproxy.proxy.http.settings import HttpSettings
from reverseproxy.wire.http2.frames import PREFACE
from tests.proxy.memory import Wire, World
from tests.wire.http2_frames import GET, OK, Fields, Peer, read_frames


@dataclass
class Message:
    """What has come on a stream."""

    heads: list[Fields] = field(default_factory=list)
    body: bytes = b""
    trailers: Fields | None = None
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        return int(dict(self.heads[-1])[b":status"])

    def header(self, name: bytes) -> bytes | None:
        return dict(self.heads[-1]).get(name)


class Http2Peer(Peer):
    """
    The other end of a L{Wire}, in frames.

    @ivar messages: what has come, by stream.
    @ivar goaways: the GOAWAY frames that have come.
    @ivar pings: the PING frames that have come and are no answers.
    @ivar windows: by how much which windows were opened.
    """

    def __init__(
        self, wire: Wire, client: bool, settings: dict[int, int] | None = None, greet: bool = True
    ) -> None:
        self.wire = wire
        self.client = client
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.messages: dict[int, Message] = {}
        self.goaways: list[GoAwayFrame] = []
        self.pings: list[PingFrame] = []
        self.pongs: list[PingFrame] = []
        self.windows: list[tuple[int, int]] = []
        self.settings_seen: list[dict[int, int]] = []
        self.preface = b""
        self._rest = b""
        self._started = client
        self._next = 1
        if greet:
            self.send((PREFACE if client else b"") + self.settings(settings))

    def send(self, *data: bytes) -> None:
        self.wire.send(b"".join(data))

    def look(self) -> Http2Peer:
        """Take in what was written since the last look, and acknowledge SETTINGS."""
        data = self._rest + self.wire.take()
        if not self._started and len(data) >= len(PREFACE):
            self.preface, data = data[: len(PREFACE)], data[len(PREFACE) :]
            assert self.preface == PREFACE, self.preface
            self._started = True
        end = 0
        while len(data) - end >= 9:
            size = int.from_bytes(data[end : end + 3], "big")
            if len(data) - end - 9 < size:
                break
            end += 9 + size
        self._rest = data[end:]
        for frame in read_frames(data[:end]):
            self._take_in(frame)
        return self

    def _take_in(self, frame: Any) -> None:
        message = self.messages.setdefault(frame.stream_id, Message()) if frame.stream_id else Message()
        if isinstance(frame, HeadersFrame):
            assert "END_HEADERS" in frame.flags
            fields = self.fields(frame)
            if message.heads and fields[0][0][:1] != b":":
                message.trailers = fields
            else:
                message.heads.append(fields)
            message.ended |= "END_STREAM" in frame.flags
        elif isinstance(frame, DataFrame):
            message.body += frame.data
            message.ended |= "END_STREAM" in frame.flags
        elif isinstance(frame, RstStreamFrame):
            message.reset = frame.error_code
        elif isinstance(frame, SettingsFrame):
            if "ACK" not in frame.flags:
                self.settings_seen.append(frame.settings)
                if not self.wire.lost:
                    self.send(SettingsFrame(0, flags=["ACK"]).serialize())
        elif isinstance(frame, GoAwayFrame):
            self.goaways.append(frame)
        elif isinstance(frame, PingFrame):
            (self.pongs if "ACK" in frame.flags else self.pings).append(frame)
        elif isinstance(frame, WindowUpdateFrame):
            self.windows.append((frame.stream_id, frame.window_increment))
        else:
            assert not isinstance(frame, ContinuationFrame)
            raise AssertionError(frame)

    def __getitem__(self, number: int) -> Message:
        return self.look().messages[number]

    # as a client

    def ask(
        self,
        fields: Fields = GET,
        body: bytes | None = None,
        trailers: Fields | None = None,
        end: bool = True,
    ) -> int:
        """Send a request; the number of its stream."""
        number = self._next
        self._next += 2
        self.send(self.headers(number, fields, end and body is None and trailers is None))
        if body is not None:
            self.send(*self.pieces(number, body, end and trailers is None))
        if trailers is not None:
            self.send(self.headers(number, trailers, end))
        return number

    # as a host

    def answer(
        self,
        number: int,
        fields: Fields = OK,
        body: bytes | None = b"ok",
        trailers: Fields | None = None,
        end: bool = True,
    ) -> None:
        self.send(self.headers(number, fields, end and body is None and trailers is None))
        if body is not None:
            self.send(*self.pieces(number, body, end and trailers is None))
        if trailers is not None:
            self.send(self.headers(number, trailers, end))

    def pieces(self, number: int, body: bytes, end: bool) -> list[bytes]:
        frames = [self.data(number, body[i : i + 16384]) for i in range(0, len(body), 16384)]
        if end:
            frames.append(self.data(number, b"", True))
        return frames


class Http2World(World):
    """A world whose clients and hosts may speak HTTP/2."""

    def __init__(self, hosts: int = 1, *, http2: dict[str, Any] | None = None, **more: Any) -> None:
        super().__init__(hosts, http2=Http2Options(**(http2 or {})), **more)

    def connect(
        self,
        settings: dict[int, int] | None = None,
        *,
        automatic: bool = True,
        greet: bool = True,
        reverse: bool = False,
        **info: Any,
    ) -> Http2Peer:
        """Connect a client that speaks HTTP/2."""
        where = {"remote": "10.9.9.9:1234", "local": "10.0.0.1:80", "reverse": reverse, **info}
        wire = Wire(self.clock, automatic)
        self.clients.append(wire)
        wire.connect(Http2Proxy(self.settings, ConnectionInfo(**where)))
        peer = Http2Peer(wire, True, settings, greet)
        return peer.look() if greet else peer

    def http1_client(self, settings: HttpSettings | None = None) -> Wire:
        """Connect a client that speaks HTTP/1."""
        wire = Wire(self.clock)
        self.clients.append(wire)
        info = ConnectionInfo(remote="10.9.9.9:1234", local="10.0.0.1:80")
        return wire.connect(Http1Proxy(settings or self.settings, info))

    def peer(
        self, wire: Wire | None = None, settings: dict[int, int] | None = None, greet: bool = True
    ) -> Http2Peer:
        """The other end of a connection to a host, the last one by default."""
        return Http2Peer(self.host() if wire is None else wire, False, settings, greet).look()
