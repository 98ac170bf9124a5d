"""
What is fuzzed, and what must hold.

A target takes any bytes and raises if something is wrong with what became of
them.  Most of them claim these:

 - Nothing is raised but what the decoder's documentation names.
 - Bytes mean the same in one piece and in many.
 - What is written again, as it goes on to the next peer, means the same to a
   strict reader: nobody smuggles anything past it.
 - What is kept of a message that is not complete has a bound.

The first byte says how the others are cut.
"""

from __future__ import annotations

__all__ = ["TARGETS", "Target"]

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import h11
from hpack import Encoder

from reverseproxy.config.loader import loads
from reverseproxy.errors import (
    ConfigError,
    FrameError,
    Http2Error,
    HttpError,
    MuxError,
    RpcHeaderError,
    WireError,
)
from reverseproxy.fleet.link_frames import MAX_FRAME as MAX_FLEET_FRAME
from reverseproxy.fleet.link_frames import LinkFrameReader, StreamHeader
from reverseproxy.proxy.detect import detect_http1, detect_http2
from reverseproxy.tls.client_hello import MAX_HELLO, ClientHello, ClientHelloReader
from reverseproxy.tunnel.agent.discovery import parse_server
from reverseproxy.wire.http.message import End
from reverseproxy.wire.http1.fields import chunk, last_chunk
from reverseproxy.wire.http1.heads import RequestHead, ResponseHead, request_head_bytes, response_head_bytes
from reverseproxy.wire.http1.requests import RequestParser
from reverseproxy.wire.http1.responses import ResponseParser
from reverseproxy.wire.http2.connection import ClientConnection, ServerConnection
from reverseproxy.wire.http2.events import Http2Limits, PingAck
from reverseproxy.wire.http2.frames import PREFACE
from reverseproxy.wire.mosn import gojson
from reverseproxy.wire.mosn.extensions import Announcement, CloseProof, ServerAnnouncement
from reverseproxy.wire.mosn.frames import FrameDecoder as TunnelDecoder
from reverseproxy.wire.mosn.frames import GracefulClose, encode
from reverseproxy.wire.rpc.bolt import Bolt
from reverseproxy.wire.rpc.dubbo import Dubbo
from reverseproxy.wire.rpc.xprotocol import RpcFrameDecoder, XProtocol
from reverseproxy.wire.yamux.events import Data, MuxLimits
from reverseproxy.wire.yamux.session import Mux
from reverseproxy.workers.messages import ControlMessageReader
from tests.fuzz import seeds, worlds

SIZES: Final = (1, 2, 3, 5, 9, 17, 64, 500)

MAX_HEAD: Final = 2048
"""Bytes of a head that are taken here, so that the bound is met often."""

MAX_FRAME: Final = 4096
"""The same for frames of RPC protocols."""


@dataclass(frozen=True, slots=True)
class Target:
    """
    Something that reads bytes.

    @ivar check: raises if something does not hold.
    @ivar seeds: bytes to begin with, that lead far in.
    """

    check: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


def pieces(data: bytes) -> tuple[bytes, list[bytes]]:
    """What the first byte is followed by, whole and cut."""
    size = SIZES[data[0] % len(SIZES)] if data else 1
    data = data[1:]
    return data, [data[at : at + size] for at in range(0, len(data), size)]


def same(whole: object, cut: object) -> None:
    """Complain if what should be equal is not."""
    if whole != cut:
        raise AssertionError(f"in one piece:\n  {whole!r}\nin many:\n  {cut!r}")


def merged(events: list[Any]) -> list[Any]:
    """Events that can be compared, with the bytes that follow each other in one piece."""
    simple: list[Any] = []
    for event in events:
        if isinstance(event, bytes):
            if simple and isinstance(simple[-1], bytes):
                simple[-1] += event
            elif event:
                simple.append(event)
        elif isinstance(event, RequestHead):
            simple.append(
                (
                    *(event.method, event.target, event.host, event.http11, event.headers, event.length),
                    *(
                        event.keep_alive,
                        event.upgrade,
                        event.awaits_continue,
                        request_head_bytes(event, None, b"me"),
                    ),
                )
            )
        elif isinstance(event, ResponseHead):
            simple.append(
                (
                    *(event.status, event.reason, event.http11, event.headers, event.length),
                    *(event.keep_alive, response_head_bytes(event, b"", event.length < 0)),
                )
            )
        elif isinstance(event, End):
            simple.append(("end", event.trailers))
        elif isinstance(event, HttpError):
            # Which of several mistakes is named, and what of a body comes before, depends on what had come.
            if simple and isinstance(simple[-1], bytes):
                simple.pop()
            simple.append("error")
        elif isinstance(event, PingAck):
            simple.append(("pong", event.data))
        elif isinstance(event, Http2Error):
            simple.append(("broken", event.code))
        else:
            simple.append(re.sub(" at 0x[0-9a-f]+", "", repr(event)))
    return simple


def _held_is_bounded(parser: Any) -> None:
    held = sum(
        len(value) for name in _slots(parser) if isinstance(value := getattr(parser, name, None), bytes)
    )
    assert held <= 4 * MAX_HEAD, f"{held} bytes of a head are kept"


def _slots(thing: Any) -> Iterator[str]:
    for kind in type(thing).__mro__:
        yield from getattr(kind, "__slots__", ())


def http1_requests(data: bytes) -> None:
    """Requests of clients: strict."""
    whole, cut = pieces(data)
    events = RequestParser(MAX_HEAD).feed(whole)
    parser = RequestParser(MAX_HEAD)
    cut_events: list[Any] = []
    for piece in cut:
        cut_events += parser.feed(piece)
        if parser.in_head:
            _held_is_bounded(parser)
    same(merged(events), merged(cut_events))
    if any(isinstance(event, RequestHead) and event.upgrade for event in events):
        return
    for head, body in _messages(events, RequestHead):
        _forward_request(head, body)


def _messages(events: list[Any], kind: type) -> Iterator[tuple[Any, list[Any]]]:
    """Complete messages, each a head and what comes behind it."""
    message: list[Any] = []
    for event in events:
        if isinstance(event, kind):
            message = [event]
        else:
            message.append(event)
        if isinstance(event, End) and isinstance(message[0], kind):
            yield message[0], message[1:]


def _forward_request(head: RequestHead, rest: list[Any]) -> None:
    body = b"".join(event for event in rest if isinstance(event, bytes))
    out = request_head_bytes(head, None, b"me")
    assert head.headers is not None
    same(out, request_head_bytes(head, None, b"me"))
    assert not head.trails
    if head.length < 0:
        out += (chunk(body) if body else b"") + last_chunk(rest[-1].trailers)
    else:
        out += body
    # What goes on is one request for us, and for somebody else's strict parser.
    events = RequestParser(4 * MAX_HEAD).feed(out)
    again = [event for event in events if isinstance(event, RequestHead)]
    assert len(again) == 1, f"{out!r} is {len(again)} requests"
    assert isinstance(events[-1], End), f"{out!r} has no end: {events!r}"
    assert (again[0].method, again[0].length < 0) == (head.method, head.length < 0), out
    if head.method == b"CONNECT" or head.target == b"*":
        return
    reader = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    same(body, _read_h11(reader, out))


def _read_h11(reader: h11.Connection, data: bytes, ended: bool = False) -> bytes:
    """The body of one message, all of it there."""
    reader.receive_data(data)
    if ended:
        reader.receive_data(b"")
    body = b""
    while True:
        event = reader.next_event()
        if isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            break
        elif event in (h11.NEED_DATA, h11.PAUSED):
            raise AssertionError(f"{data!r} has no end for a strict reader")
    rest, _ = reader.trailing_data
    assert not rest, f"{data!r}: {rest!r} is left to a strict reader"
    return body


def http1_responses(data: bytes) -> None:
    """Responses of hosts: lenient, and normalised before they go on."""
    whole, cut = pieces(data)

    def read(feeds: list[bytes]) -> list[Any]:
        parser = ResponseParser(MAX_HEAD)
        parser.expect(False)
        events: list[Any] = []
        for feed in feeds:
            events += parser.feed(feed)
            if parser.in_head:
                _held_is_bounded(parser)
        return events + parser.eof()

    events = read([whole])
    same(merged(events), merged(read(cut)))
    for head, rest in _messages(events, ResponseHead):
        if head.status >= 200 and head.status not in (204, 304):
            _forward_response(head, rest)


def _forward_response(head: ResponseHead, rest: list[Any]) -> None:
    body = b"".join(event for event in rest if isinstance(event, bytes))
    chunked = head.length < 0
    out = response_head_bytes(head, b"", chunked)
    out += ((chunk(body) if body else b"") + last_chunk(rest[-1].trailers)) if chunked else body
    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    reader.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    reader.send(h11.EndOfMessage())
    try:
        same(body, _read_h11(reader, out))
    except h11.RemoteProtocolError as error:
        # What h11 finds wrong with names, values and phrases is its taste; framing must be plain.
        if "illegal" not in str(error):
            raise AssertionError(f"{out!r} is refused by a strict reader") from error


def _http2(make: Callable[[], Any], opening: bytes, data: bytes) -> None:
    whole, cut = pieces(data)

    def read(feeds: list[bytes]) -> dict[int, list[Any]]:
        connection = make()
        streams: dict[int, list[Any]] = {}
        for feed in [opening, *feeds]:
            for number, event in connection.feed(feed):
                streams.setdefault(number, []).append(event)
        connection.take(1 << 20)
        return {number: merged(events) for number, events in streams.items()}

    same(read([whole]), read(cut))


_LIMITS: Final = Http2Limits()


def http2_server(data: bytes) -> None:
    """Frames of a client."""
    _http2(lambda: ServerConnection(_LIMITS), PREFACE, data)


def http2_client(data: bytes) -> None:
    """Frames of a host, which answers two requests."""

    def make() -> ClientConnection:
        connection = ClientConnection(_LIMITS)
        for ended in (True, False):
            connection.request(seeds.GET, ended)
        return connection

    _http2(make, b"", data)


def mux_streams(data: bytes) -> None:
    """Frames of a multiplexed connection, which both ends may send."""
    whole, cut = pieces(data)

    def read(feeds: list[bytes], client: bool, agreed: bool) -> list[Any]:
        mux = Mux(client, MuxLimits(max_streams=4, tells=agreed, moves=agreed))
        if client:
            mux.open()
        events: list[Any] = []
        try:
            for feed in feeds:
                events += mux.feed(feed)
        except MuxError as error:
            events += [*error.events, "broken"]
        mux.take(1 << 20)
        return _merged_streams(events)

    for client, agreed in product((True, False), repeat=2):  # on what is not of yamux
        same(read([whole], client, agreed), read(cut, client, agreed))


def _merged_streams(events: list[Any]) -> list[Any]:
    """What the streams of a multiplexed connection have brought, and the rest of its events."""
    bodies: dict[int, bytes] = {}
    others: list[str] = []
    for event in events:
        if isinstance(event, Data):
            bodies[event.stream] = bodies.get(event.stream, b"") + bytes(event.data)
        else:
            others.append(repr(event))
    return [others, {number: body for number, body in bodies.items() if body}]


def _rpc(protocol: XProtocol, data: bytes) -> None:
    whole, cut = pieces(data)

    def read(feeds: list[bytes]) -> list[Any]:
        decoder = RpcFrameDecoder(protocol, MAX_FRAME)
        facts: list[Any] = []
        for feed in feeds:
            for frame in decoder.feed(feed):
                facts.append((frame.kind, frame.id, frame.timeout, bytes(frame.data)))
                facts.append(_headers(protocol, frame))
            assert not decoder.in_frame or decoder.begun(7) is None or len(decoder._buffer) <= MAX_FRAME
        # It may wait for a frame that can only be wrong.
        return [*facts, decoder.error is None and not decoder.in_frame]

    same(read([whole]), read(cut))
    with contextlib.suppress(IndexError):
        protocol.detect(whole)


def _headers(protocol: XProtocol, frame: Any) -> Any:
    before = bytes(frame.data)
    try:
        facts = (frame.header("service"), frame.service, frame.method, frame.fields(), frame.body_size)
    except RpcHeaderError as error:
        return str(error)
    if facts[3] is not None:
        # Headers that are written as they were read change nothing.
        frame.set_fields(facts[3])
        [again] = RpcFrameDecoder(protocol, 2 * MAX_FRAME).feed(bytes(frame.data))
        same((facts[3], frame.body_size), (again.fields(), again.body_size))
    frame.set_id(frame.id)
    return (*facts, before[:1])


def bolt(data: bytes) -> None:
    """Frames of bolt, of both versions."""
    _rpc(Bolt(), data)
    _rpc(Bolt(2), data)


def dubbo(data: bytes) -> None:
    """Frames of dubbo, with what there is of hessian in them."""
    _rpc(Dubbo(), data)


def tunnel(data: bytes) -> None:
    """What comes first on a connection of an agent, from anybody at all."""
    whole, cut = pieces(data)

    def read(feeds: list[bytes]) -> list[Any]:
        decoder = TunnelDecoder()
        frames: list[Any] = []
        try:
            for feed in feeds:
                frame = decoder.feed(feed)
                while frame is not None:
                    frames.append(frame)
                    frame = decoder.feed(b"")
        except FrameError as error:
            # How much of what is wrong had come says how much of it is shown.
            return [*frames, type(error)]
        return [*frames, decoder.buffered]

    frames = read([whole])
    same(frames, read(cut))
    for frame in frames[:-1]:
        for kind in (Announcement, ServerAnnouncement, CloseProof):
            with contextlib.suppress(ValueError):
                kind.from_extra(frame.extra)
        if isinstance(frame, GracefulClose) or not frame.extra:
            continue
        with contextlib.suppress(ValueError):
            same(frame, TunnelDecoder().feed(encode(frame)))


def json_of_go(data: bytes) -> None:
    """JSON as Go reads and writes it."""
    try:
        members = gojson.read_members(data)
    except ValueError:
        return
    for _, value in members:
        for take in (gojson.as_int64, gojson.as_string, gojson.as_strings, gojson.as_object):
            with contextlib.suppress(ValueError):
                take(value)


def client_hello(data: bytes) -> None:
    """The first bytes of a TLS client."""
    whole, cut = pieces(data)

    def read(feeds: list[bytes]) -> ClientHello | None:
        reader = ClientHelloReader()
        for feed in feeds:
            hello = reader.feed(feed)
            if hello is not None:
                return hello
        return None

    if len(whole) < MAX_HELLO:
        same(read([whole]), read(cut))


def detection(data: bytes) -> None:
    """Which protocol it is: once it is clear, more bytes change nothing."""
    for detect in (detect_http1, detect_http2, Bolt().detect, Dubbo().detect):
        said: bool | None = None
        for end in range(1, min(len(data), 300)):
            now = detect(data[:end])
            assert said is None or now is said, (
                f"{detect}: {said} for {data[: end - 1]!r}, {now} with one more"
            )
            said = now


def messages(data: bytes) -> None:
    """What workers tell each other."""
    whole, cut = pieces(data)

    def read(feeds: list[bytes]) -> list[Any]:
        reader = ControlMessageReader()
        found: list[Any] = []
        try:
            for feed in feeds:
                reader.feed(feed)
                while (message := reader.next()) is not None:
                    found.append(repr(message))
        except WireError as error:
            found.append(type(error))
        return found

    same(read([whole]), read(cut))


def peer_streams(data: bytes) -> None:
    """What servers of a fleet say at the beginning of a stream; what is understood is said again alike."""
    whole, cut = pieces(data)

    def read(feeds: list[bytes]) -> list[Any]:
        reader = LinkFrameReader()
        found: list[Any] = []
        try:
            for feed in feeds:
                reader.feed(feed)
                while (message := reader.next()) is not None:
                    found.append(repr(message))
                    with contextlib.suppress(WireError):
                        found.append(header := StreamHeader.decode(message))
                        again = LinkFrameReader()
                        again.feed(header.encode())
                        said = again.next()
                        assert said is not None
                        assert StreamHeader.decode(said) == header
                assert len(reader._data) <= MAX_FLEET_FRAME + 1
        except WireError as error:
            found.append(type(error))
        return found

    same(read([whole]), read(cut))


def configuration(data: bytes) -> None:
    """A file that somebody has written by hand."""
    text = data[1:].decode("utf-8", "replace")
    with contextlib.suppress(ConfigError):
        loads(text, "fuzz", yaml=bool(data[:1] and data[0] & 1))


def servers(data: bytes) -> None:
    """An address that a lister has found."""
    with contextlib.suppress(ValueError):
        server = parse_server(data.decode("latin-1"))
        assert 0 < server.port < 65536 or not server.host, server


def _http2_seeds() -> list[bytes]:
    return seeds.http2(Encoder)


def _through(play: Callable[[bytes, list[bytes]], None]) -> Callable[[bytes], None]:
    return lambda data: play(*pieces(data))


TARGETS: Final[dict[str, Target]] = {
    "http1_requests": Target(http1_requests, seeds.http1_requests),
    "http1_responses": Target(http1_responses, seeds.http1_responses),
    "proxied_requests": Target(_through(worlds.proxied_requests), seeds.http1_requests),
    "proxied_responses": Target(_through(worlds.proxied_responses), seeds.http1_responses),
    "proxied_http2": Target(_through(worlds.proxied_http2), _http2_seeds),
    "proxied_http2_responses": Target(_through(worlds.proxied_http2_responses), _http2_seeds),
    "http2_server": Target(http2_server, _http2_seeds),
    "http2_client": Target(http2_client, _http2_seeds),
    "mux_streams": Target(mux_streams, seeds.mux_streams),
    "bolt": Target(bolt, seeds.bolt),
    "dubbo": Target(dubbo, seeds.dubbo),
    "tunnel": Target(tunnel, seeds.tunnel),
    "json_of_go": Target(json_of_go, seeds.json_of_go),
    "client_hello": Target(client_hello, seeds.client_hello),
    "detection": Target(detection, seeds.detection),
    "messages": Target(messages, seeds.messages),
    "peer_streams": Target(peer_streams, seeds.peer_streams),
    "configuration": Target(configuration, seeds.configuration),
    "servers": Target(servers, seeds.servers),
}
"""By name; the name is a folder's in C{corpus/}, too."""
