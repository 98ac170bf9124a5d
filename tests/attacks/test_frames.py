"""Expensive and empty frames of HTTP/2, in either direction: a peer that sends many is disconnected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.wire.http2.connection import ClientConnection, ServerConnection
from reverseproxy.wire.http2.events import Http2Limits
from reverseproxy.wire.http2.frames import ErrorCode
from tests.proxy.http2_memory import Http2Peer, Http2World
from tests.proxy.test_http2_client import HTTP2
from tests.wire.http2_frames import GET, OK, POST, Peer, raw

REQUEST = b"\x82\x84\x86\x41\x01a"
"""The fields of a request, for a block that a test goes on with."""

FLOODS: dict[str, Callable[[int], bytes]] = {
    "answers to no PING": lambda number: raw(6, 1, 0, bytes(8)),
    "answers to an old question for the round trip": lambda number: raw(6, 1, 0, b"far?\0\0\0\0"),
    "frames of unknown kinds": lambda number: raw(77, 0, 1),
    "empty frames with padding": lambda number: raw(0, 8, 1, b"\0"),
    "PRIORITY": lambda number: raw(2, 0, 1, bytes(5)),
    "GOAWAY": lambda number: raw(7, 0, 0, bytes(8)),
    "SETTINGS": lambda number: raw(4, 0, 0),
    "acknowledgements of SETTINGS": lambda number: raw(4, 1, 0),
    "credit": lambda number: raw(8, 0, 1, b"\0\0\0\1"),
}

HEADS: dict[str, Callable[[int], bytes]] = {
    "changes of the table's size": lambda number: raw(1, 5, number, b"\x20" * 1000 + REQUEST),
    "a thousand fields": lambda number: raw(1, 5, number, REQUEST + b"\x90" * 1000),
    "data for who has said all": lambda number: raw(1, 5, number, REQUEST) + raw(0, 0, number, b"x"),
    "credit of 0": lambda number: raw(1, 5, number, REQUEST) + raw(8, 0, number, bytes(4)),
    "streams that depend on themselves": lambda number: raw(
        1, 0x25, number, number.to_bytes(4, "big") + b"\0" + REQUEST
    ),
}


class FloodTests(SynchronousTestCase):
    MOST = 20_000
    """Frames until when the connection must be over; for credit more are allowed."""

    def drive(self, connection: Any, frame: Callable[[int], bytes], first: int = 1) -> int:
        """Send one after the other in no time; how many until the connection was over."""
        for count in range(self.MOST):
            connection.feed(frame(first + 2 * count), 1.0)
            connection.take(0)
            if connection.closed:
                return count
        return self.MOST

    def test_floods(self) -> None:
        for kind, frame in FLOODS.items():
            server = Peer(ServerConnection(Http2Limits()))
            server.feed(server.headers(1, POST))
            client = Peer(ClientConnection(Http2Limits()))
            client.connection.request(GET, True)
            client.take()
            client.feed(client.headers(1, OK))
            for peer in (server, client):
                self.assertLess(self.drive(peer.connection, frame), self.MOST, kind)

    def test_heads(self) -> None:
        for kind, frame in HEADS.items():
            peer = Peer(ServerConnection(Http2Limits()))
            # Two hundred streams may be broken off at once; work is charged besides.
            self.assertLess(self.drive(peer.connection, frame), 250, kind)

    def test_what_is_usual_costs_nothing(self) -> None:
        """Cookies that come in pieces, and answers to questions."""
        peer = Peer(ServerConnection(Http2Limits(max_fields=1000)))
        for number in range(1, 4001, 2):
            peer.feed(peer.headers(number, [*GET, *[(b"cookie", b"a=b")] * 200], True))
            peer.connection.send_head(number, OK, True)
            peer.connection.ping(b"are you?")
            peer.feed(raw(6, 1, 0, b"are you?"))
            peer.take()
        self.assertFalse(peer.connection.closed)


class ServiceTests(SynchronousTestCase):
    """Services that are about to answer, again and again."""

    def test_interim_responses(self) -> None:
        world = Http2World(routes=HTTP2)
        client = world.connect()
        number = client.ask()
        host = Http2Peer(world.host(), False)
        host.look()
        host.send(b"".join(host.headers(1, [(b":status", b"103")], False) for _ in range(10_000)))
        world.turn()
        self.assertEqual(client[number].status, 502)
        self.assertEqual(host[1].reset, ErrorCode.ENHANCE_YOUR_CALM)
        self.assertFalse(host.wire.lost)
        # Others use the connection on.
        number = client.ask()
        host.answer(3)
        self.assertEqual(client[number].status, 200)
