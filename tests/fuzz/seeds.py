"""
Bytes that lead far into the decoders, for the fuzzer to begin with.

The first byte of each says how a target cuts the rest; see
L{tests.fuzz.targets}.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from OpenSSL import SSL

from reverseproxy.fleet.link_frames import StreamHeader
from reverseproxy.fleet.link_frames import frame as fleet_frame
from reverseproxy.wire.mosn.frames import ConnectionInit, GracefulClose, InitResponse, Status, encode
from reverseproxy.wire.yamux.frames import LEAVING, WELL
from reverseproxy.workers.messages import encode as encode_message
from tests.wire.http1_cases import (
    BAD_BODIES,
    BAD_REQUESTS,
    BAD_RESPONSES,
    GOOD,
    ODD_RESPONSES,
    ODD_UNTIL_CLOSE,
)
from tests.wire.http2_frames import GET, raw
from tests.wire.mux_frames import ACK, DATA, FIN, GO_AWAY, PING, RST, SYN, UPDATE, frame
from tests.wire.test_bolt import HEARTBEAT, HEARTBEAT_ACK, REQUEST, REQUEST_2, RESPONSE, RESPONSE_2, with_crc
from tests.wire.test_dubbo import HEARTBEAT as DUBBO_HEARTBEAT
from tests.wire.test_dubbo import READ_ONLY
from tests.wire.test_dubbo import REQUEST as DUBBO_REQUEST
from tests.wire.test_dubbo import RESPONSE as DUBBO_RESPONSE
from tests.wire.test_frames import CLOSE, INIT

__all__ = [
    "GET",
    "bolt",
    "client_hello",
    "configuration",
    "detection",
    "dubbo",
    "http1_requests",
    "http1_responses",
    "http2",
    "json_of_go",
    "messages",
    "peer_streams",
    "mux_streams",
    "servers",
    "tunnel",
]

LONGEST: Final = 4000
"""Bytes of a seed at the most: longer ones only make the search slow."""

_EXAMPLES: Final = Path(__file__).parents[2] / "examples"


def _cut(*inputs: bytes) -> list[bytes]:
    return [bytes((number % 8,)) + data for number, data in enumerate(inputs) if len(data) <= LONGEST]


def http1_requests() -> list[bytes]:
    """Good requests, and all that are refused."""
    bad = [GOOD + data for _, data, _ in BAD_REQUESTS]
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n"
    return _cut(
        GOOD * 3,
        chunked + b"3;x=y\r\nabc\r\n0\r\nX: y\r\n\r\n" + GOOD,
        b"POST /a?b HTTP/1.0\r\nContent-Length: 3\r\nConnection: keep-alive, x\r\nX: y\r\n\r\nabc" + GOOD,
        b"GET http://user@a:80/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nrest",
        b"\r\nOPTIONS * HTTP/1.1\r\nhost:\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        *bad,
    )


def http1_responses() -> list[bytes]:
    """All the odd ones."""
    return _cut(
        *(data for _, data, *_ in ODD_RESPONSES),
        *(data for _, data, _ in ODD_UNTIL_CLOSE),
        *(data for _, data in BAD_RESPONSES),
        *(data for _, data in BAD_BODIES),
    )


def http2(encoder: Any) -> list[bytes]:
    """One frame of each kind, and some that go together."""
    get = encoder().encode(GET)
    ok = encoder().encode([(b":status", b"200"), (b"content-length", b"3")])
    settings = raw(4, 0, 0, b"\0\3\0\0\0\x64\0\4\0\1\0\0")
    begin = settings + raw(4, 1, 0)
    return _cut(
        begin + raw(1, 5, 1, get) + raw(1, 4, 3, get) + raw(0, 1, 3, b"abc"),
        begin + raw(1, 4, 1, ok) + raw(0, 0, 1, b"ab") + raw(0, 9, 1, b"\1c\0"),
        begin
        + raw(1, 0, 1, get[:3])
        + raw(9, 4, 1, get[3:])
        + raw(8, 0, 1, b"\0\0\1\0")
        + raw(3, 0, 1, b"\0\0\0\x08"),
        begin + raw(1, 0x25, 1, b"\0\0\0\0\x10" + get) + raw(2, 0, 1, b"\0\0\0\0\x10"),
        begin + raw(6, 0, 0, b"12345678") + raw(6, 1, 0, b"12345678") + raw(7, 0, 0, b"\0\0\0\1\0\0\0\0bye"),
        begin + raw(5, 4, 1, b"\0\0\0\2" + get) + raw(0xEE, 0, 1, b"?"),
    )


def mux_streams() -> list[bytes]:
    """Both roles, all kinds of frames."""
    opened = frame(UPDATE, SYN, 1) + frame(UPDATE, SYN, 2)
    return _cut(
        opened + frame(DATA, 0, 1, b"abc") + frame(DATA, FIN, 1, b"d") + frame(UPDATE, ACK, 1, 1000),
        opened + frame(DATA, ACK, 2, b"abc" * 30) + frame(UPDATE, RST, 2),
        frame(DATA, SYN | FIN, 1, b"abc") + frame(DATA, SYN, 3, b"") + frame(UPDATE, FIN, 3, 5),
        frame(PING, SYN, 0, 7) + frame(PING, ACK, 0, 7) + frame(GO_AWAY, 0, 0, 1),
        frame(WELL, 0, 0, 1) + frame(LEAVING, 0, 0, 500) + frame(WELL, 0, 0, 0),
    )


def bolt() -> list[bytes]:
    """Both versions."""
    return _cut(
        REQUEST + RESPONSE,
        HEARTBEAT + HEARTBEAT_ACK + REQUEST,
        REQUEST_2 + RESPONSE_2,
        with_crc(REQUEST_2) + with_crc(RESPONSE_2),
    )


def dubbo() -> list[bytes]:
    """All kinds of frames."""
    return _cut(DUBBO_REQUEST + DUBBO_RESPONSE, DUBBO_HEARTBEAT + READ_ONLY + DUBBO_REQUEST)


def tunnel() -> list[bytes]:
    """MOSN's frames and ours."""
    ours = {
        "reverseproxy": {
            "version": 1,
            "agent": "a",
            "mux": ["yamux"],
            "window": 262144,
            "metadata": {"a": "b"},
        }
    }
    return _cut(
        INIT + b"rest",
        CLOSE + CLOSE,
        encode(ConnectionInit("c", 5, "h", "token", "secret", ours)),
        encode(InitResponse(Status.SUCCESS, ours)),
        encode(GracefulClose(("127.0.0.1:1", "[::1]:2"), "c", ours)),
    )


def json_of_go() -> list[bytes]:
    """Members of all kinds."""
    return [
        b'{"a":1,"A":-5,"b":"x\\u2028\\ud800","c":["d"],"e":{"f":[1.5e3,null,true]},"g":""}',
        b'{"weight":9223372036854775807,"weight":1e2}',
        b" { } ",
    ]


def client_hello() -> list[bytes]:
    """What OpenSSL sends, in one record and in several."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_alpn_protos([b"h2", b"http/1.1"])
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    connection.set_tlsext_host_name(b"www.example.com")
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        hello = connection.bio_read(1 << 16)
    parts = [hello[5:][at : at + 100] for at in range(0, len(hello) - 5, 100)]
    several = b"".join(b"\x16\3\1" + len(part).to_bytes(2, "big") + part for part in parts)
    return _cut(hello, several)


def detection() -> list[bytes]:
    """A beginning of each protocol."""
    return [
        GOOD,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        REQUEST,
        REQUEST_2,
        DUBBO_REQUEST,
        b"\r\nRDG_OUT_DATA /a ",
    ]


def messages() -> list[bytes]:
    """Some that are whole, and one that is not."""
    two = encode_message({"kind": "a", "n": 1}) + encode_message({"kind": "b", "list": [1, {}]})
    return _cut(two, two[:-3], b"\xff\xff\xff\xff{")


def peer_streams() -> list[bytes]:
    """One that is whole, one that is not, and what is none."""
    header = StreamHeader("c", "0123456789abcdef" * 2, "Http1", "192.0.2.1:80").encode()
    return _cut(header + b"GET / HTTP/1.1", header[:-3], fleet_frame({"hello": "a", "v": 1}), b"\xff\xff{")


def configuration() -> list[bytes]:
    """The examples, of both kinds."""
    kinds = {".json": b"\0", ".yaml": b"\1"}
    paths = [path for path in sorted(_EXAMPLES.rglob("*")) if path.suffix in kinds]
    found = [kinds[path.suffix] + path.read_bytes() for path in paths]
    return [each for each in found if len(each) <= LONGEST]


def servers() -> list[bytes]:
    """Addresses of each form."""
    return [b"127.0.0.1:80", b"[::1]:443", b"a.example.com:1", b"unix:/a/b", b"a:0", b":5"]
