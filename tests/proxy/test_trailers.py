"""Trailers from one version of HTTP to the other, and an empty Host."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.wire.http.fields import forbidden_in_trailers
from reverseproxy.wire.http1.fields import chunk
from reverseproxy.wire.http1.heads import RequestHead, request_head_bytes
from reverseproxy.wire.http1.requests import RequestParser
from tests.proxy.http2_memory import Http2Peer, Http2World
from tests.proxy.memory import Wire
from tests.proxy.test_http2 import HTTP1, path
from tests.proxy.test_http2_client import HTTP2
from tests.wire.http1_cases import get, respond
from tests.wire.http2_frames import GET, OK, POST, Fields

FIVE = (b"content-length", b"5")
TRAILERS = [(b"x-sum", b"abc"), (b"grpc-status", b"0")]
LAST = b"0\r\nx-sum: abc\r\ngrpc-status: 0\r\n\r\n"
ASKING = get(b"TE: trailers", b"Connection: TE")


class TrailersTestCase(SynchronousTestCase):
    def world(self, routes: list[dict[str, Any]]) -> Http2World:
        world = Http2World(routes=routes)
        self.addCleanup(world.check_idle, self.fail)
        return world


class FromHttp2Tests(TrailersTestCase):
    def ask(self, request: bytes) -> tuple[Wire, Http2Peer, Http2World]:
        world = self.world(HTTP2)
        client = world.http1_client()
        client.send(request)
        return client, world.peer(), world

    def answer(self, host: Http2Peer, fields: Fields, pieces: bool) -> None:
        """Answer with a body of five bytes and with trailers, at once or one after the other."""
        frames = [
            host.headers(1, [*OK, *fields], False),
            host.data(1, b"hello"),
            host.headers(1, TRAILERS, True),
        ]
        for part in frames if pieces else [b"".join(frames)]:
            host.send(part)

    def test_with_a_length(self) -> None:
        for request, fields, pieces in (
            (ASKING, [FIVE], True),
            (ASKING, [FIVE], False),
            (get(b"te: gzip, Trailers"), [FIVE], True),
            (get(), [FIVE, (b"trailer", b"x-sum")], True),
            (get(), [FIVE], False),  # they are there anyway
            (get(), [], True),
        ):
            with self.subTest(request, fields=fields, pieces=pieces):
                client, host, _ = self.ask(request)
                self.answer(host, fields, pieces)
                head, _, body = client.take().partition(b"\r\n\r\n")
                self.assertIn(b"\r\nTransfer-Encoding: chunked", head)
                self.assertNotIn(b"content-length", head.lower())
                self.assertEqual(body, chunk(b"hello") + LAST)

    def test_the_length_is_worth_more(self) -> None:
        """If nobody has said anything of trailers, or there are none, or the client can't take them."""
        for request, pieces, trailers in (
            (get(), True, True),
            (ASKING, False, False),
            (get(b"TE: trailers", b"Connection: keep-alive", line=b"GET / HTTP/1.0"), True, True),
            (get(b"TE: gzip"), True, True),
        ):
            with self.subTest(request, pieces=pieces):
                client, host, _ = self.ask(request)
                if trailers:
                    self.answer(host, [FIVE], pieces)
                else:
                    host.send(host.headers(1, [*OK, FIVE], False) + host.data(1, b"hello", True))
                head, _, body = client.take().partition(b"\r\n\r\n")
                self.assertIn(b"\r\ncontent-length: 5", head)
                self.assertNotIn(b"chunked", head)
                self.assertEqual(body, b"hello")

    def test_head_and_no_body(self) -> None:
        client, host, _ = self.ask(get(b"TE: trailers", line=b"HEAD / HTTP/1.1"))
        host.answer(1, [*OK, FIVE], None)
        self.assertIn(b"content-length: 5\r\n\r\n", client.take())

    def test_the_connection_goes_on(self) -> None:
        client, host, _ = self.ask(ASKING)
        self.answer(host, [FIVE], True)
        client.take()
        client.send(get())
        host.look()
        host.answer(3, [*OK, FIVE], b"again")
        self.assertTrue(client.take().endswith(b"content-length: 5\r\n\r\nagain"))

    def test_forbidden_ones(self) -> None:
        client, host, _ = self.ask(ASKING)
        bad = [(b"content-length", b"9"), (b"host", b"evil"), (b"set-cookie", b"a=b"), (b"location", b"/")]
        host.answer(1, OK, b"hello", [*bad, *TRAILERS])
        self.assertTrue(client.take().endswith(LAST))

    def test_of_requests(self) -> None:
        """From HTTP/1, with chunks, to a host of HTTP/2."""
        _, host, _ = self.ask(
            get(b"Transfer-Encoding: chunked", b"Trailer: x-sum", body=chunk(b"hello") + LAST)
        )
        self.assertEqual((host[1].body, host[1].trailers), (b"hello", TRAILERS))
        self.assertEqual(host[1].header(b"trailer"), b"x-sum")
        host.answer(1)


class ToHttp1Tests(TrailersTestCase):
    def test_responses(self) -> None:
        world = self.world(HTTP1)
        client = world.connect()
        number = client.ask(GET)
        forbidden = b"Content-Length: 3\r\nExpires: 0\r\n"
        body = chunk(b"hello") + LAST.replace(b"0\r\n", b"0\r\n" + forbidden, 1)
        world.host().send(respond(b"Transfer-Encoding: chunked", body=body))
        self.assertEqual((client[number].body, client[number].trailers), (b"hello", TRAILERS))

    def send(self, fields: Fields, trailers: Fields | None) -> bytes:
        """Send a request with a body, and perhaps trailers; return what the host gets."""
        world = self.world(HTTP1)
        client = world.connect()
        client.ask([*POST, *fields], b"hello", trailers)
        data = world.host().take()
        world.host().send(respond(b"Content-Length: 0"))
        return data

    def test_requests(self) -> None:
        self.assertTrue(self.send([], TRAILERS).endswith(chunk(b"hello") + LAST))
        data = self.send([FIVE, (b"trailer", b"x-sum")], TRAILERS)
        self.assertTrue(data.endswith(chunk(b"hello") + LAST))
        self.assertNotIn(b"content-length", data.lower())
        self.assertIn(b"Transfer-Encoding: chunked\r\n", data)
        self.assertIn(b"trailer: x-sum\r\n", data)

    def test_requests_of_known_length(self) -> None:
        """There is no room for trailers that are not announced: not every host understands chunks."""
        data = self.send([FIVE], TRAILERS)
        self.assertTrue(data.endswith(b"content-length: 5\r\n\r\nhello"))
        self.assertTrue(self.send([FIVE, (b"trailer", b"x")], None).endswith(chunk(b"hello") + b"0\r\n\r\n"))


class LengthTests(TrailersTestCase):
    """A body of HTTP/1 with a length stays one, whoever has looked at the head, and whatever it announces."""

    REQUEST = get(
        *(b"Content-Length: 5", b"Trailer: x-sum", b"X: y", b"Cookie: a=b"),
        line=b"POST / HTTP/1.1",
        body=b"hello",
    )

    def test_requests(self) -> None:
        match = {"prefix": "/", "headers": [{"name": "x", "value": "y"}]}
        changes = {"request_headers_to_add": [{"header": {"name": "z", "value": "1"}}]}
        for route in (
            {"match": {"prefix": "/"}, "route": {"cluster_name": "c"}},
            {"match": match, "route": {"cluster_name": "c"}},
            {"match": match, "route": {"cluster_name": "c", **changes}},
        ):
            with self.subTest(route):
                world = self.world([route])
                world.http1_client().send(self.REQUEST)
                head, _, body = world.host().take().partition(b"\r\n\r\n")
                if b"Content-Length: 5" in head:
                    self.assertNotIn(b"chunked", head)
                    self.assertEqual(body, b"hello")
                else:
                    self.assertIn(b"Transfer-Encoding: chunked", head)
                    self.assertEqual(body, chunk(b"hello") + b"0\r\n\r\n")
                world.host().send(respond(b"Content-Length: 0"))

    def test_in_every_form(self) -> None:
        """What is written does not depend on who has asked for the fields meanwhile."""
        for fields in ([], [b"Content-Length: 05"], [b"Transfer-Encoding: chunked"]):
            [head, *_] = RequestParser().feed(get(b"Trailer: x", *(fields or [b"Content-Length: 5"])))
            assert isinstance(head, RequestHead)
            before = request_head_bytes(head, None, b"")
            self.assertEqual(dict(head.headers)[b"Trailer"], b"x")
            self.assertEqual(request_head_bytes(head, None, b""), before)
            self.assertFalse(head.trails)


class ForbiddenTests(SynchronousTestCase):
    def test_names(self) -> None:
        for name in (
            *(b"Transfer-Encoding", b"content-length", b"HOST", b"Cache-Control", b"Expect", b"Max-Forwards"),
            *(b"Pragma", b"Range", b"TE", b"If-Match", b"If-Range", b"Authorization", b"Proxy-Authorization"),
            *(b"WWW-Authenticate", b"Set-Cookie", b"Cookie", b"Age", b"Expires", b"Date", b"Location"),
            *(b"Retry-After", b"Vary", b"Warning", b"Content-Encoding", b"Content-Type", b"Content-Range"),
            *(b"Trailer", b"Connection", b"Upgrade", b"Keep-Alive", b"Proxy-Connection"),
        ):
            self.assertTrue(forbidden_in_trailers(name), name)
        for name in (b"ETag", b"Digest", b"Server-Timing", b"grpc-message", b"x-checksum"):
            self.assertFalse(forbidden_in_trailers(name), name)


class EmptyHostTests(TrailersTestCase):
    def test_from_http1_to_http2(self) -> None:
        """It means that there is no authority, which is what it means there that there is none."""
        for request, expected in (
            (get(host=b"Host:\r\n"), None),
            (get(host=b"Host: \r\n", line=b"OPTIONS * HTTP/1.1"), None),
            (get(host=b"", line=b"GET / HTTP/1.0"), b"10.0.0.1:80"),
            (get(), b"a"),
        ):
            world = self.world(HTTP2)
            client = world.http1_client()
            client.send(request)
            fields = dict(world.peer()[1].heads[0])
            self.assertEqual(fields.get(b":authority"), expected)
            self.assertNotIn(b"host", fields)
            client.reset()

    def test_from_http2_to_http1(self) -> None:
        world = self.world(HTTP1)
        client = world.connect()
        number = client.ask([field for field in path(b"/") if field[0] != b":authority"])
        self.assertTrue(world.host().take().startswith(b"GET / HTTP/1.1\r\nHost: \r\n"))
        world.host().send(respond(b"Content-Length: 0"))
        self.assertEqual(client[number].status, 200)

    def test_with_a_route_that_changes_something(self) -> None:
        for change, expected in (
            ({"request_headers_to_add": [{"header": {"name": "x", "value": "y"}}]}, b""),
            ({"host_rewrite": "other"}, b"other"),
        ):
            world = self.world([{"match": {"prefix": "/"}, "route": {"cluster_name": "c", **change}}])
            client = world.http1_client()
            client.send(get(host=b"Host:\r\n"))
            self.assertIn(b"\r\nHost: %b\r\n" % expected, world.host().take())
            client.reset()
