"""Tests for L{reverseproxy.proxy.http.http1_server} and L{reverseproxy.proxy.http.exchange}, in memory."""

from __future__ import annotations

import gc
import re
import weakref
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from twisted.internet.error import ConnectError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from reverseproxy.cluster.host import Host
from reverseproxy.interfaces import ConnectionInfo, IDrainable
from reverseproxy.proxy.closing import FRESH, QUIET
from reverseproxy.proxy.http.http1_closing import LINGER_BYTES
from reverseproxy.proxy.http.http1_server import HELD_LIMIT, Http1Proxy
from reverseproxy.proxy.http.sending import REQUEST_BUFFER
from reverseproxy.proxy.settings import LOG_BURST, LOG_RATE
from reverseproxy.transport.closing import LINGER, STALL
from reverseproxy.wire.http1.fields import chunk
from reverseproxy.wire.http1.requests import RequestParser
from reverseproxy.wire.http1.responses import ResponseParser
from tests import most
from tests.proxy.memory import HIGH_WATER, Wire, World
from tests.tunnel.logged import capture
from tests.wire.http1_cases import (
    BAD_BODIES,
    BAD_REQUESTS,
    BAD_RESPONSES,
    GOOD,
    ODD_RESPONSES,
    ODD_UNTIL_CLOSE,
    chunked,
    get,
    respond,
)
from tests.wire.test_http1 import CHUNKED_BODIES, cut, read_chunks

OK = respond(b"Content-Length: 2", body=b"ok")


def status_of(data: bytes) -> int:
    match = re.match(rb"HTTP/1\.1 (\d{3}) ", data)
    return int(match[1]) if match else 0


class Http1TestCase(SynchronousTestCase):
    def ask(self, world: World, request: bytes = GOOD, client: Wire | None = None) -> Wire:
        """Send a request."""
        client = client or world.client()
        client.send(request)
        return client

    def assert_status(self, client: Wire, status: int, text: bytes = b"", interim: int = 0) -> bytes:
        """Check a whole local reply, and what came before it."""
        data = client.take()
        head, _, body = data.partition(b"\r\n\r\n")
        if interim:
            self.assertEqual(status_of(data), interim, data)
            head, _, body = body.partition(b"\r\n\r\n")
        self.assertEqual(status_of(head), status, data)
        self.assertIn(text, body)
        self.assertIn(b"\r\ncontent-type: text/plain", head)
        self.assertIn(b"\r\ncontent-length: %d" % len(body), head)
        return data

    def assert_closed(self, world: World, client: Wire, lingers: bool = True) -> None:
        """Check that the client was told that nothing follows, and is let go in time."""
        world.turn()
        if lingers:
            self.assertTrue(client.write_ended)
            world.turn(LINGER)
        self.assertTrue(client.lost)
        self.assertEqual(world.clock.getDelayedCalls(), [])
        world.check_idle(self.fail)


class ExchangeTests(Http1TestCase):
    def test_bytes_are_forwarded_as_they_are(self) -> None:
        world = World()
        client = self.ask(world)
        self.assertEqual(world.host().take(), GOOD)
        world.host().send(OK)
        self.assertEqual(client.take(), OK)
        self.assertEqual((world.pool.idle, world.cluster.active), (1, 0))
        self.ask(world, client=client)
        self.assertEqual(world.host().take(), GOOD)
        self.assertEqual(len(world.endpoint.wires), 1)

    def test_one_write_for_each_read(self) -> None:
        world = World()
        client = world.client()
        writes: list[bytes] = []
        for wire in (client,):
            wire.write = writes.append  # type: ignore[method-assign]
        self.ask(world, get(b"Content-Length: 3", body=b"abc"), client)
        self.assertEqual(world.host().take(), get(b"Content-Length: 3", body=b"abc"))
        world.host().send(respond(b"Transfer-Encoding: chunked", body=chunk(b"a") + chunk(b"b")))
        world.host().send(chunk(b"c") + b"0\r\n\r\n")
        self.assertEqual(len(writes), 2)

    def test_bodies_both_ways(self) -> None:
        for request in (
            get(b"Content-Length: 3", line=b"POST /x HTTP/1.1", body=b"abc"),
            chunked(chunk(b"a") + chunk(b"bc") + b"0\r\n\r\n"),
            chunked(chunk(b"abc") + b"0\r\nT: 1\r\n\r\n"),
        ):
            for response in (
                OK,
                respond(b"Transfer-Encoding: chunked", body=chunk(b"o") + chunk(b"k") + b"0\r\nT: 1\r\n\r\n"),
                respond(line=b"HTTP/1.1 204 No Content"),
                respond(b"Content-Length: 5", line=b"HTTP/1.1 304 Not Modified"),
            ):
                world = World()
                client = world.client()
                for i in range(len(request)):
                    client.send(request[i : i + 1])
                forwarded = world.host().take()
                if b"abc" in request:
                    self.assertEqual(forwarded.replace(b"1\r\na\r\n1\r\nb\r\n1\r\nc", b"3\r\nabc"), request)
                for i in range(len(response)):
                    world.host().send(response[i : i + 1])
                self.assertEqual(client.take(), response)
                self.assertEqual(world.pool.idle, 1)
                world.check_idle(self.fail)

    @settings(deadline=None, max_examples=most(200))
    @given(cut(CHUNKED_BODIES))
    def test_chunks_both_ways(self, case: tuple[bytes, list[bytes]]) -> None:
        """What is in a body, and how it comes, does not change it."""
        data, parts = case
        world = World()
        client = self.ask(world, chunked(b""))
        for part in parts:
            client.send(part)
        _, _, forwarded = world.host().take().partition(b"\r\n\r\n")
        self.assertEqual(read_chunks(forwarded), read_chunks(data))
        world.host().send(respond(b"Transfer-Encoding: chunked"))
        for part in parts:
            world.host().send(part)
        _, _, forwarded = client.take().partition(b"\r\n\r\n")
        self.assertEqual(read_chunks(forwarded), read_chunks(data))
        self.assertEqual(world.pool.idle, 1)
        world.check_idle(self.fail)

    def test_an_error_of_the_parser(self) -> None:
        """Who sent what brings one about gets an answer, and the log says what it was."""

        def feed(parser: object, data: bytes) -> list[Any]:
            raise ValueError("unheard of")

        world = World()
        client = world.client()
        with patch.object(RequestParser, "feed_one", feed):
            self.ask(world, client=client)
        self.assert_status(client, 400)
        self.assert_closed(world, client)
        client = self.ask(world)
        with patch.object(ResponseParser, "feed_one", feed):
            world.host().send(OK)
        self.assertNotIn(b"unheard", self.assert_status(client, 502))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    def test_an_error_of_the_parser_behind_an_upgrade(self) -> None:
        def resume(parser: object) -> list[Any]:
            raise ValueError("unheard of")

        world = World()
        client = self.ask(world, get(b"Connection: Upgrade", b"Upgrade: websocket") + GOOD)
        with patch.object(RequestParser, "resume", resume):
            world.host().send(OK)
        data = client.take()
        self.assertTrue(data.startswith(OK), data)
        self.assertIn(b"HTTP/1.1 400 ", data)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_no_data_is_no_chunk(self) -> None:
        """An empty chunk would be the last one."""
        world = World()
        client = self.ask(world, chunked(chunk(b"a")))
        upstream = world.host().protocol
        upstream.send([b"", b"b", b""])
        self.assertTrue(world.host().take().endswith(chunk(b"a") + chunk(b"b")))
        world.host().send(respond(b"Transfer-Encoding: chunked", body=chunk(b"a")))
        upstream._exchange.upstream_events([b"", b"b", b""])
        self.assertTrue(client.take().endswith(chunk(b"a") + chunk(b"b")))

    def test_body_goes_on_at_once(self) -> None:
        world = World()
        client = self.ask(world, get(b"Content-Length: 6", body=b"abc"))
        self.assertTrue(world.host().take().endswith(b"\r\n\r\nabc"))
        client.send(b"de")
        self.assertEqual(world.host().take(), b"de")
        world.host().send(respond(b"Content-Length: 4", body=b"1"))
        self.assertTrue(client.take().endswith(b"\r\n\r\n1"))
        client.send(b"f")
        self.assertEqual(world.host().take(), b"f")
        world.host().send(b"23")
        self.assertEqual(client.take(), b"23")
        world.host().send(b"4")
        self.assertEqual(client.take(), b"4")
        self.assertEqual(world.pool.idle, 1)

    def test_response_may_begin_first(self) -> None:
        """A host may answer while the request is still coming: neither waits for the other."""
        world = World()
        client = self.ask(world, chunked(chunk(b"a")))
        world.host().send(respond(b"Transfer-Encoding: chunked", body=chunk(b"A")))
        self.assertTrue(client.take().endswith(chunk(b"A")))
        client.send(chunk(b"b"))
        self.assertTrue(world.host().take().endswith(chunk(b"b")))
        client.send(b"0\r\n\r\n")
        world.host().send(b"0\r\n\r\n")
        self.assertEqual(client.take(), b"0\r\n\r\n")
        self.assertEqual(world.pool.idle, 1)

    def test_response_to_an_incomplete_request(self) -> None:
        """Its head says that the connection closes, and so it does, whether the rest comes or not."""
        for response in (OK, respond(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")):
            for rest in (b"", b"de", b"defgh", b"defgh" + GOOD):
                world = World()
                client = self.ask(world, get(b"Content-Length: 8", line=b"POST / HTTP/1.1", body=b"abc"))
                head, _, body = response.partition(b"\r\n\r\n")
                world.host().send(head + b"\r\n\r\n")
                announced = client.take()
                self.assertIn(b"\r\nConnection: close\r\n", announced)
                client.send(rest)
                world.host().send(body)
                self.assertEqual(announced.count(b"\r\n\r\n"), 1)
                self.assertEqual(client.take(), body)
                client.send(GOOD)
                self.assertEqual(client.take(), b"")
                self.assertNotIn(GOOD, world.host().take())
                self.assert_closed(world, client)

    def test_head(self) -> None:
        world = World()
        client = self.ask(world, get(line=b"HEAD / HTTP/1.1"))
        head = respond(b"Content-Length: 1000")
        world.host().send(head)
        self.assertEqual(client.take(), head)
        self.assertEqual(world.pool.idle, 1)
        self.ask(world, client=client)
        world.host().send(OK)
        self.assertEqual(client.take(), OK)

    def test_until_close(self) -> None:
        for line, expected in (
            (
                b"GET / HTTP/1.1",
                b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"ab") + chunk(b"c") + b"0\r\n\r\n",
            ),
            (b"GET / HTTP/1.0", b"Connection: close\r\n\r\nabc"),
        ):
            world = World()
            client = self.ask(world, get(b"Connection: keep-alive", line=line))
            world.host().send(respond(body=b"ab"))
            world.host().send(b"c")
            world.host().end()
            self.assertEqual(client.take(), b"HTTP/1.1 200 OK\r\n" + expected)
            world.turn()
            self.assertTrue(world.host().lost)
            self.assertEqual(client.write_ended or client.lost, line.endswith(b"0"))
            self.assertEqual(world.pool.connections, 0)
            world.check_idle(self.fail)

    def test_http10_client(self) -> None:
        for fields, response, expected, closes in (
            ((), OK, b"Content-Length: 2\r\nConnection: close\r\n\r\nok", True),
            (
                (b"Connection: Keep-Alive",),
                OK,
                b"Content-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
                False,
            ),
            (
                (b"Connection: keep-alive",),
                respond(b"Transfer-Encoding: chunked", body=chunk(b"ok") + b"0\r\nT: 1\r\n\r\n"),
                b"Connection: close\r\n\r\nok",
                True,
            ),
        ):
            world = World()
            client = self.ask(world, get(*fields, line=b"GET / HTTP/1.0"))
            self.assertEqual(world.host().take(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            world.host().send(response)
            self.assertEqual(client.take(), b"HTTP/1.1 200 OK\r\n" + expected)
            self.assertEqual(world.pool.idle, 1)
            world.turn()
            self.assertEqual(client.lost or client.write_ended, closes)

    def test_http10_without_host(self) -> None:
        world = World()
        self.ask(world, b"GET / HTTP/1.0\r\n\r\n")
        self.assertEqual(world.host().take(), b"GET / HTTP/1.1\r\nHost: 10.0.0.1:80\r\n\r\n")
        self.ask(world, b"GET / HTTP/1.0\r\n\r\n", world.client(local="unix:/s"))
        self.assertEqual(world.host().take(), b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")

    def test_client_asks_for_close(self) -> None:
        world = World()
        client = self.ask(world, get(b"Connection: close"))
        self.assertEqual(world.host().take(), get())
        world.host().send(OK)
        self.assertEqual(
            client.take(), b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
        )
        self.assertEqual(world.pool.idle, 1)
        self.assert_closed(world, client, lingers=False)

    def test_host_asks_for_close(self) -> None:
        world = World()
        client = self.ask(world)
        world.host().send(respond(b"Connection: close", b"Content-Length: 2", body=b"ok"))
        self.assertEqual(client.take(), respond(b"Content-Length: 2", body=b"ok"))
        world.turn()
        self.assertTrue(world.host().lost)
        self.ask(world, client=client)
        self.assertEqual(len(world.endpoint.wires), 2)

    def test_forwarded_headers(self) -> None:
        world = World(options={"via": "edge", "x_forwarded": "append"})
        self.ask(world)
        self.assertEqual(
            world.host().take(),
            get(
                b"Via: 1.1 edge",
                b"X-Forwarded-For: 10.9.9.9",
                b"X-Forwarded-Proto: http",
                b"X-Forwarded-Host: a",
                line=b"GET /good HTTP/1.1",
            ),
        )

    def test_secure(self) -> None:
        world = World(options={"x_forwarded": "replace"})
        self.ask(world, client=world.client(secure=True))
        self.assertIn(b"X-Forwarded-Proto: https", world.host().take())
        self.ask(world, get(line=b"GET /moved HTTP/1.1"), world.client(secure=True))
        self.assertIn(b"location: https://a/new", world.clients[-1].take())

    def test_options_asterisk(self) -> None:
        world = World()
        self.ask(world, get(line=b"OPTIONS * HTTP/1.1"))
        self.assertEqual(world.host().take()[:20], b"OPTIONS * HTTP/1.1\r\n")

    def test_any_method(self) -> None:
        """Routes, mirrors and access logs know it by the name that the client has for it."""
        mirrored = {"request_mirror_policies": {"cluster": "mirror", "percent": 100}}
        method = {"name": "method", "value": "RDG_OUT_DATA"}
        variable = [{"name": "x-mosn-method", "value": "M-SEARCH"}]
        routes: list[dict[str, Any]] = [
            {"match": {"prefix": "/", "headers": [method]}, "route": {"cluster_name": "c"}, **mirrored},
            {"match": {"variables": variable}, "direct_response": {"status": 418, "body": ""}},
        ]
        world = World(routes=routes, mirrors=1)
        request = get(b"Content-Length: 3", line=b"RDG_OUT_DATA /x HTTP/1.1", body=b"abc")
        client = self.ask(world, request)
        self.assertEqual(world.host().take(), request)
        self.assertEqual(world.endpoints[1].wires[0].take(), request)
        world.host().send(OK)
        self.assertEqual(client.take(), OK)
        for line, status in ((b"M-SEARCH /x HTTP/1.1", 418), (b"m-search /x HTTP/1.1", 404)):
            self.ask(world, get(line=line), client)
            self.assertEqual(status_of(client.take()), status)
        self.assertEqual(
            [record.request.method for record in world.records], ["RDG_OUT_DATA", "M-SEARCH", "m-search"]
        )

    def test_access_record(self) -> None:
        world = World()
        client = world.client()
        world.clock.advance(5)
        self.ask(world, get(b"Content-Length: 3", b"X: y", line=b"POST /a?b HTTP/1.1", body=b"abc"), client)
        world.clock.advance(1)
        world.host().send(respond(b"Content-Length: 2", b"Z: z"))
        world.clock.advance(1)
        world.host().send(b"ok")
        (record,) = world.records
        self.assertEqual(
            (
                record.protocol,
                record.request.method,
                record.request.path,
                record.request.query,
                record.request.host,
                record.request.scheme,
            ),
            ("Http1", "POST", "/a", "b", "a", "http"),
        )
        self.assertEqual((record.status, record.bytes_received, record.bytes_sent), (200, 3, 2))
        self.assertEqual((record.duration, record.times.sent, record.times.answered), (2, 0, 1))
        self.assertEqual(
            (
                record.client.remote,
                record.client.local,
                record.upstream.host,
                record.upstream.local,
                record.upstream.cluster,
            ),
            ("10.9.9.9:1234", "10.0.0.1:80", "10.1.0.0:80", "10.0.0.1:1", "c"),
        )
        self.assertEqual(record.flag, "")
        assert record.request.headers is not None
        assert record.response_headers is not None
        self.assertEqual((record.request.headers("x"), record.response_headers("z")), ("y", "z"))
        # Connections have numbers: the same for what comes, or goes, over the same one.
        self.ask(world, get(), client)
        world.host().send(respond(b"Content-Length: 0"))
        self.ask(world, get())
        world.host().send(respond(b"Content-Length: 0"))
        numbers = [(each.client.number, each.upstream.connection) for each in world.records]
        self.assertNotIn(0, [*numbers[0], *numbers[2]])
        self.assertEqual(numbers[0], numbers[1])
        self.assertNotEqual(numbers[1][0], numbers[2][0])

    def test_no_access_log(self) -> None:
        world = World(access_log=None)
        client = self.ask(world)
        world.host().send(OK)
        self.assertEqual(client.take(), OK)


class PipelineTests(Http1TestCase):
    def test_answered_in_order(self) -> None:
        world = World()
        client = self.ask(world, b"".join(get(b"Id: %d" % i) for i in range(3)))
        for i in range(3):
            self.assertEqual(world.host().take(), get(b"Id: %d" % i))
            self.assertEqual(client.take(), b"")
            world.host().send(respond(b"Content-Length: 1", body=b"%d" % i))
            self.assertEqual(client.take()[-1:], b"%d" % i)
        world.check_idle(self.fail)

    def test_not_read_while_something_waits(self) -> None:
        world = World()
        client = self.ask(world, GOOD)
        self.assertTrue(client.reading)
        client.send(GOOD + GOOD[:5])
        self.assertFalse(client.reading)
        client.send(GOOD[5:])
        self.assertEqual(client.unread, len(GOOD) - 5)
        for _ in range(3):
            world.host().send(OK)
            world.turn()
        self.assertEqual(client.take(), OK * 3)
        self.assertTrue(client.reading)
        self.assertEqual(client.unread, 0)

    def test_local_replies_in_order(self) -> None:
        world = World()
        direct = get(line=b"GET /direct HTTP/1.1")
        client = self.ask(world, direct + GOOD + direct * 500 + GOOD)
        self.assertEqual(client.take().count(b"418"), 1)
        world.host().send(OK)
        self.assertEqual(client.take().count(b"HTTP/1.1 418"), 500)
        world.host().send(OK)
        self.assertEqual(client.take(), OK)

    def test_bad_request_behind_a_good_one(self) -> None:
        world = World()
        client = self.ask(world, GOOD + b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual(client.take(), b"")
        world.host().send(OK)
        data = client.take()
        self.assertTrue(data.startswith(OK))
        self.assertEqual(status_of(data[len(OK) :]), 400)
        self.assert_closed(world, client)

    def test_close_ends_the_pipeline(self) -> None:
        world = World()
        client = self.ask(world, get(b"Connection: close") + GOOD)
        world.host().send(OK)
        self.assertEqual(client.take().count(b"HTTP/1.1 "), 1)
        self.assert_closed(world, client, lingers=False)
        self.assertEqual(world.host().take(), get())

    def test_client_that_does_not_read(self) -> None:
        """Answers of our own stop as well when nobody takes them."""
        world = World()
        client = world.client(automatic=False)
        direct = get(line=b"GET /direct HTTP/1.1")
        client.send(direct * 5000)
        self.assertLess(client.buffered, HIGH_WATER + 1000)
        self.assertFalse(client.reading)
        total = 0
        while client.buffered:
            total += client.buffered
            client.receive()
            world.turn()
        self.assertEqual(client.take().count(b"418"), 5000)
        self.assertTrue(client.reading)


class LocalReplyTests(Http1TestCase):
    def test_routes(self) -> None:
        for request, status, body in (
            (get(line=b"GET /direct HTTP/1.1"), 418, b"short and stout"),
            (get(host=b"Host: nobody\r\n"), 404, b"no route"),
            (get(line=b"GET /nowhere HTTP/1.1"), 404, b"unknown"),
        ):
            world = World()
            client = self.ask(world, request)
            self.assert_status(client, status, body)
            world.turn()
            self.assertFalse(client.disconnecting or client.write_closed)
            self.ask(world, client=client)
            world.host().send(OK)
            self.assertEqual(client.take(), OK)

    def test_no_body(self) -> None:
        world = World()
        self.assertEqual(
            self.ask(world, get(line=b"GET /empty HTTP/1.1")).take(), b"HTTP/1.1 204 No Content\r\n\r\n"
        )
        data = self.ask(world, get(line=b"HEAD /direct HTTP/1.1")).take()
        self.assertTrue(data.endswith(b"content-length: 15\r\n\r\n"))
        for status, length in ((204, b""), (205, b"content-length: 0\r\n"), (304, b"")):
            answer = {"match": {"prefix": "/"}, "direct_response": {"status": status, "body": "none"}}
            data = self.ask(World(routes=[answer])).take()
            self.assertEqual(data.partition(b"\r\n")[2], length + b"\r\n", status)

    def test_method_that_is_not_allowed(self) -> None:
        """Allow says which are (RFC 9110 15.5.6): none, on what we can't reach."""
        answer = {"match": {"prefix": "/"}, "direct_response": {"status": 405, "body": "none"}}
        for request in (get(), get(line=b"CONNECT a:443 HTTP/1.1")):
            data = self.ask(World(routes=[answer]), request).take()
            self.assertEqual(status_of(data), 405)
            self.assertEqual(data.count(b"\r\nallow: \r\n"), 1, data)

    def test_redirect(self) -> None:
        world = World()
        data = self.ask(world, get(line=b"GET /moved?q HTTP/1.1")).take()
        self.assertEqual(status_of(data), 302)
        self.assertIn(b"\r\nlocation: http://a/new?q\r\n", data)
        self.assertTrue(data.endswith(b"content-length: 0\r\nlocation: http://a/new?q\r\n\r\n"))

    def test_http10(self) -> None:
        world = World()
        request = get(b"Connection: keep-alive", line=b"GET /direct HTTP/1.0")
        client = self.ask(world, request)
        self.assertIn(b"\r\nconnection: keep-alive\r\n", client.take())
        world = World()
        client = self.ask(world, get(line=b"GET /direct HTTP/1.0"))
        self.assertIn(b"\r\nconnection: close\r\n", client.take())
        self.assert_closed(world, client, lingers=False)

    def test_unread_body(self) -> None:
        """The body is read to its end, or the connection is closed, slowly."""
        world = World()
        line = b"POST /direct HTTP/1.1"
        client = self.ask(world, get(b"Content-Length: 3", line=line, body=b"abc"))
        self.assertNotIn(b"close", self.assert_status(client, 418))
        self.ask(world, get(b"Content-Length: 1000000", line=line, body=b"abc"), client)
        self.assertIn(b"\r\nconnection: close\r\n", self.assert_status(client, 418))
        client.send(GOOD * 1000)
        self.assertEqual(client.unread, 0)
        self.assert_closed(world, client)
        self.assertEqual(world.cluster.taken, 0)

    def test_lingering_ends_with_the_client(self) -> None:
        world = World()
        client = self.ask(world, b"\x16\x03\x01")
        world.turn()
        self.assertFalse(client.lost)
        client.end()
        world.turn()
        self.assertTrue(client.lost)
        self.assertFalse(client.aborted)

    def test_lingering_is_bounded(self) -> None:
        world = World()
        client = self.ask(world, b"\x16\x03\x01")
        for _ in range(LINGER_BYTES // 65536 + 1):
            client.send(b"x" * 65536)
        world.turn()
        self.assertTrue(client.lost)

    def test_client_that_never_reads_the_reply(self) -> None:
        world = World()
        client = world.client(automatic=False)
        client.send(b"\x16\x03\x01")
        world.run(STALL - 1)
        self.assertFalse(client.lost)
        world.run(1)
        self.assertTrue(client.lost)
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_a_flood_of_bad_requests_does_not_fill_the_log(self) -> None:
        world = World()
        with capture() as events:
            for _ in range(LOG_BURST + 7):
                self.ask(world, b"nonsense\r\n\r\n")
            self.assertEqual(events.text().count("sent a bad request"), LOG_BURST)
            world.clock.advance(1 / LOG_RATE)
            self.ask(world, b"nonsense\r\n\r\n")
        self.assertIn("(7 such lines left out before)", events.text())

    def test_bad_requests(self) -> None:
        for name, data, status in BAD_REQUESTS:
            with self.subTest(name):
                world = World()
                client = self.ask(world, data)
                reply = client.take()
                self.assertEqual((name, status_of(reply)), (name, status))
                self.assertIn(b"\r\nconnection: close\r\n", reply)
                client.send(GOOD)
                self.assertEqual(client.take(), b"")
                world.turn()
                # A request whose body is malformed may have gone on in part, but never whole.
                for wire in world.endpoint.wires:
                    self.assertIn(b"chunked", wire.take().lower())
                    self.assertTrue(wire.aborted)
                self.assert_closed(world, client)
                (record,) = world.records
                self.assertEqual(record.status, status)
                self.assertTrue(record.flag)

    def test_bad_requests_for_heads(self) -> None:
        """Even then a response to HEAD has no body."""
        for count in (0, 2):
            for reads in (
                [get(b"X: " + b"y" * 9000, line=b"HEAD / HTTP/1.1")],
                [b"HEAD /" + b"x" * 5000, b"x" * 5000],
                [get(*[b"X: y"] * 101, line=b"HEAD / HTTP/1.1")],
                [get(line=b"HEAD / HTTP/1.1", host=b"")],
                [get(b"X: \x01", line=b"HEAD / HTTP/1.1")],
                [get(b"X y", line=b"HEAD / HTTP/1.1")[:-4], b"\r\n\r\n"],
            ):
                world = World()
                client = world.client()
                for _ in range(count):
                    self.ask(world, client=client)
                    world.host().send(OK)
                client.take()
                for data in reads:
                    client.send(data)
                head, end, body = client.take().partition(b"\r\n\r\n")
                self.assertTrue(400 <= status_of(head) < 500 and end, reads)
                self.assertEqual(body, b"")
                self.assertNotIn(b"content-length: 0", head)

    def test_too_large(self) -> None:
        world = World(options={"max_request_body_size": 10})
        post = b"POST / HTTP/1.1"
        client = self.ask(world, get(b"Content-Length: 11", line=post))
        self.assert_status(client, 413, b"10 bytes")
        self.assert_closed(world, client)
        client = self.ask(world, chunked(chunk(b"x" * 10)))
        self.assertEqual(client.take(), b"")
        client.send(chunk(b"x"))
        self.assert_status(client, 413)
        self.assert_closed(world, client)
        self.assertTrue(world.host().aborted)
        client = self.ask(world, get(b"Content-Length: 10", line=post, body=b"x" * 10))
        world.host().send(OK)
        self.assertEqual(client.take(), OK)

    def test_too_large_behind_the_response(self) -> None:
        world = World(options={"max_request_body_size": 10})
        client = self.ask(world, chunked(chunk(b"x" * 10)))
        world.host().send(respond(b"Transfer-Encoding: chunked"))
        client.send(chunk(b"x"))
        self.assertEqual(client.take(), respond(b"Connection: close", b"Transfer-Encoding: chunked"))
        self.assert_closed(world, client)
        self.assertTrue(world.host().aborted)


class NoHostTests(Http1TestCase):
    def test_no_host(self) -> None:
        world = World(hosts=0)
        self.assert_status(self.ask(world), 502, b"has no host")

    def test_all_refuse(self) -> None:
        for hosts, dials in ((1, 1), (2, 2), (6, 4)):
            world = World(hosts=hosts)
            for endpoint in world.endpoints:
                endpoint.answer = ConnectError(string="refused")
            client = self.ask(world)
            self.assert_status(client, 502)
            self.assertEqual(sum(len(endpoint.dials) for endpoint in world.endpoints), dials)
            world.check_idle(self.fail)
            self.assertFalse(client.disconnecting)
            self.assertTrue(world.records[0].flag)

    def test_another_host(self) -> None:
        world = World(hosts=3)
        for endpoint in world.endpoints:
            endpoint.answer = ConnectError(string="refused")
        good = world.endpoints[2]
        good.answer = "connect"
        request = get(b"Content-Length: 3", line=b"POST / HTTP/1.1", body=b"abc")
        for _ in range(3):
            client = self.ask(world, request)
            self.assertEqual(good.wires[-1].take(), request)
            good.wires[-1].send(OK)
            self.assertEqual(client.take(), OK)
        world.check_idle(self.fail)

    def test_slow_dial(self) -> None:
        world = World(hosts=2)
        for endpoint in world.endpoints:
            endpoint.answer = "wait"
        client = self.ask(world)
        world.turn(10)
        world.turn(10)
        self.assert_status(client, 502)
        self.assertTrue(all(endpoint.dials[0].cancelled for endpoint in world.endpoints))
        world.check_idle(self.fail)

    def test_queue(self) -> None:
        world = World(hosts=0, cluster={"circuit_breakers": [{"max_pending_requests": 1}]})
        agent = world.agent()
        first = self.ask(world)
        second = self.ask(world)
        third = self.ask(world)
        self.assert_status(third, 503, b"wait")
        agent.send(OK)
        self.assertEqual(first.take(), OK)
        self.assertEqual(agent.take(), GOOD * 2)
        agent.send(OK)
        self.assertEqual(second.take(), OK)
        self.ask(world, client=first)
        self.ask(world, client=second)
        world.turn(10.1)
        self.assert_status(second, 503, b"in time")
        agent.send(OK)
        world.check_idle(self.fail)

    def test_gone_while_waiting(self) -> None:
        world = World(hosts=0)
        agent = world.agent()
        self.ask(world)
        waiting = self.ask(world)
        self.assertEqual(world.cluster.waiting, 1)
        waiting.reset()
        self.assertEqual(world.cluster.waiting, 0)
        agent.send(OK)
        world.check_idle(self.fail)

    def test_gone_while_dialling(self) -> None:
        world = World()
        world.endpoint.answer = "wait"
        client = self.ask(world)
        client.reset()
        world.turn()
        self.assertTrue(world.endpoint.dials[0].cancelled)
        self.assertTrue(client.lost)
        world.check_idle(self.fail)

    def test_host_gone_while_dialling(self) -> None:
        """The request goes to another one at once."""
        world = World(2)
        world.endpoint.answer = "wait"
        client = self.ask(world)
        world.hosts[0].close("test")
        self.assertTrue(world.endpoints[0].dials[0].cancelled)
        world.endpoints[1].wires[0].send(OK)
        world.turn()
        self.assertEqual(status_of(client.take()), 200)
        self.assertEqual(world.hosts[0].connections, 0)
        world.check_idle(self.fail)

    def test_body_waits_for_a_host(self) -> None:
        world = World()
        world.endpoint.answer = "wait"
        client = self.ask(world, get(b"Content-Length: 1000000", line=b"POST / HTTP/1.1"))
        for _ in range(10):
            client.send(b"x" * 20_000)
        self.assertFalse(client.reading)
        self.assertGreaterEqual(client.unread, 200_000 - REQUEST_BUFFER - 20_000)
        host = world.endpoint.dials[0].succeed()
        world.turn()
        self.assertTrue(client.reading)
        self.assertTrue(host.take().endswith(b"x" * 200_000))

    def test_deadline_while_waiting(self) -> None:
        world = World()
        world.endpoint.answer = "wait"
        client = self.ask(world, get(line=b"GET /quick HTTP/1.1"))
        world.turn(2)
        self.assert_status(client, 504)
        self.assertTrue(world.endpoint.dials[0].cancelled)
        world.check_idle(self.fail)


class HostFailureTests(Http1TestCase):
    def test_bad_responses(self) -> None:
        for name, data in BAD_RESPONSES:
            with self.subTest(name):
                world = World()
                client = self.ask(world)
                world.host().send(data)
                # An interim response has no body, whatever it says: what follows it is what is wrong.
                self.assert_status(client, 502, interim=104 if b" 104 " in data else 0)
                world.turn()
                self.assertTrue(world.host().lost, name)
                self.assertFalse(client.disconnecting)
                world.check_idle(self.fail)

    def test_odd_responses(self) -> None:
        """What is understood goes on as it should have been, whatever it came as."""
        for name, data, raw, body, certain in ODD_RESPONSES:
            for size in (len(data), 50):
                if len(data) > 1000 > size:
                    continue
                with self.subTest(name, size=size):
                    world = World()
                    client = self.ask(world)
                    for begin in range(0, len(data), size):
                        world.host().send(data[begin : begin + size])
                    received = client.take()
                    head, _, rest = received.partition(b"\r\n\r\n")
                    if b"chunked" in raw:
                        rest = read_chunks(rest)
                    self.assertEqual((head + b"\r\n\r\n", rest), (raw, body), name)
                    self.assertEqual(world.pool.idle, int(certain), name)
                    self.ask(world, client=client)
                    world.host().send(OK)
                    self.assertEqual(client.take(), OK)
                    world.check_idle(self.fail)

    def test_odd_responses_that_end_with_their_connection(self) -> None:
        for name, data, body in ODD_UNTIL_CLOSE:
            with self.subTest(name):
                world = World()
                client = self.ask(world, GOOD + GOOD)
                first = world.host()
                first.send(data)
                first.end()
                head, _, rest = client.take().partition(b"\r\n\r\n")
                self.assertNotIn(b"\n", head.replace(b"\r\n", b""))
                self.assertEqual(read_chunks(rest), body, name)
                world.turn()
                self.assertTrue(first.lost)
                # The next request, which was there already, has not gone to that connection.
                self.assertEqual(first.take(), GOOD)
                self.assertEqual(len(world.endpoint.wires), 2)
                self.assertEqual(world.host().take(), GOOD)
                world.host().send(OK)
                self.assertEqual(client.take(), OK)

    def test_bad_bodies(self) -> None:
        for name, data in BAD_BODIES:
            with self.subTest(name):
                world = World()
                client = self.ask(world)
                with capture() as lines:
                    world.host().send(data)
                self.assertEqual(len(lines), 1)
                self.assertFalse(client.take().endswith(b"0\r\n\r\n"), name)
                world.turn(LINGER)
                self.assertTrue(client.lost and world.host().lost)
                world.check_idle(self.fail)

    def test_lost_before_the_response(self) -> None:
        for fault in (Wire.reset, Wire.end):
            world = World()
            client = self.ask(world)
            fault(world.host())
            self.assert_status(client, 502, b"lost")
            world.check_idle(self.fail)
            self.ask(world, client=client)
            world.host().send(OK)
            self.assertEqual(client.take(), OK)

    def test_lost_within_the_response(self) -> None:
        for part in (
            respond(b"Content-Length: 10", body=b"part"),
            respond(b"Transfer-Encoding: chunked", body=chunk(b"part")),
            respond(b"Transfer-Encoding: chunked", body=chunk(b"part") + b"zzz"),
        ):
            for fault in (Wire.reset, Wire.end):
                world = World()
                client = self.ask(world)
                world.host().send(part)
                fault(world.host())
                self.assertTrue(client.take().endswith(b"part" if b"Length" in part else b"part\r\n"))
                world.turn()
                self.assertTrue(client.lost)
                world.check_idle(self.fail)
                self.assertEqual(world.clock.getDelayedCalls(), [])
                self.assertTrue(world.records[0].flag)
                self.assertEqual(world.records[0].status, 200)

    def test_reset_is_no_end(self) -> None:
        """Whoever can't tell it by the body must be able to tell it by the connection."""
        for line in (b"GET / HTTP/1.1", b"GET / HTTP/1.0"):
            world = World()
            client = self.ask(world, get(line=line))
            world.host().send(respond(body=b"part"))
            world.host().reset()
            world.turn()
            self.assertTrue(client.lost)
            self.assertEqual(client.aborted, line.endswith(b"0"))
            self.assertNotIn(b"0\r\n\r\n", client.take())

    def test_data_behind_the_response(self) -> None:
        world = World()
        client = self.ask(world)
        world.host().send(OK + b"HTTP/1.1 200 OK\r\n")
        self.assertEqual(client.take(), OK)
        world.turn()
        self.assertTrue(world.host().lost)
        self.ask(world, client=client)
        self.assertEqual(len(world.endpoint.wires), 2)
        world.host().send(OK)
        self.assertEqual(client.take(), OK)

    def test_timeout(self) -> None:
        for path, seconds in ((b"/", 60), (b"/quick", 2)):
            world = World()
            client = self.ask(world, get(line=b"GET %b HTTP/1.1" % path))
            world.turn(seconds - 0.5)
            self.assertEqual(client.take(), b"")
            world.turn(0.5)
            self.assert_status(client, 504)
            self.assertTrue(world.host().aborted)
            world.turn()
            world.check_idle(self.fail)
            self.assertFalse(client.disconnecting)

    def test_timeout_within_the_response(self) -> None:
        """It is the time without a byte that counts, and not how long it takes."""
        world = World()
        client = self.ask(world, get(line=b"GET /quick HTTP/1.1"))
        world.host().send(respond(b"Content-Length: 10", body=b"part"))
        world.run(299)
        self.assertFalse(client.lost)
        world.run(77)
        self.assertTrue(client.lost)
        self.assertTrue(client.take().endswith(b"part"))
        world.check_idle(self.fail)

    def test_no_timeout(self) -> None:
        world = World()
        client = self.ask(world, get(line=b"GET /forever HTTP/1.1"))
        world.turn(100_000)
        world.host().send(OK)
        self.assertEqual(client.take(), OK)

    def test_time_runs_from_the_last_of_the_request(self) -> None:
        world = World()
        client = self.ask(world, get(b"Content-Length: 10", line=b"POST /quick HTTP/1.1"))
        for _ in range(10):
            world.turn(1.5)
            client.send(b"x")
        world.turn(1.5)
        self.assertEqual(client.take(), b"")
        world.host().send(OK)
        self.assertEqual(client.take(), OK)

    def test_client_gone(self) -> None:
        for part in (b"", respond(b"Content-Length: 10", body=b"part")):
            world = World()
            client = self.ask(world)
            world.host().send(part)
            client.reset()
            world.turn()
            self.assertTrue(world.host().aborted)
            world.check_idle(self.fail)
            self.assertEqual(world.clock.getDelayedCalls(), [])
            self.assertTrue(world.records[0].flag)

    def test_early_response(self) -> None:
        """A final response before the end of the request: nobody mistakes the rest for a request."""
        early = respond(b"Content-Length: 3", line=b"HTTP/1.1 413 Content Too Large", body=b"big")
        closing = early.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        for response in (early, closing):
            world = World()
            client = self.ask(world, get(b"Content-Length: 100", line=b"POST / HTTP/1.1", body=b"x"))
            world.host().send(response)
            self.assertEqual(client.take(), closing)
            client.send(GOOD)
            world.turn()
            self.assertTrue(world.host().disconnecting or world.host().aborted)
            self.assertNotIn(GOOD, world.host().take())
            self.assertEqual(len(world.endpoint.wires), 1)
            self.assert_closed(world, client)


class RetryTests(Http1TestCase):
    def reused(self, world: World) -> tuple[Wire, Wire]:
        """Use a connection once; returns it with a client."""
        client = self.ask(world)
        host = world.host()
        host.send(OK)
        self.assertEqual(client.take(), OK)
        host.take()
        return client, host

    def test_reused_connection(self) -> None:
        for fault in (Wire.reset, Wire.end):
            world = World()
            client, old = self.reused(world)
            self.ask(world, client=client)
            self.assertEqual(old.take(), GOOD)
            fault(old)
            self.assertIsNot(world.host(), old)
            self.assertEqual(world.host().take(), GOOD)
            world.host().send(OK)
            self.assertEqual(client.take(), OK)
            world.turn()
            world.check_idle(self.fail)

    def test_only_once(self) -> None:
        world = World()
        client, old = self.reused(world)
        self.ask(world, client=client)
        old.reset()
        world.host().reset()
        self.assert_status(client, 502)
        self.assertEqual(len(world.endpoint.wires), 2)
        world.check_idle(self.fail)

    def test_not_on_another_idle_connection(self) -> None:
        world = World()
        first, second = self.ask(world), self.ask(world)
        for wire in list(world.endpoint.wires):
            wire.send(OK)
        self.assertEqual(world.pool.idle, 2)
        first.take()
        second.take()
        self.ask(world, client=first)
        world.host(-1).reset()
        self.assertEqual(len(world.endpoint.wires), 3)
        self.assertEqual(world.host().take(), GOOD)

    def test_not_these(self) -> None:
        for request, part in (
            (get(line=b"POST / HTTP/1.1"), b""),
            (get(line=b"DELETE / HTTP/1.1"), b""),
            (get(line=b"LIST / HTTP/1.1"), b""),
            (get(line=b"get / HTTP/1.1"), b""),
            (GOOD, b"H"),
        ):
            world = World()
            client, old = self.reused(world)
            self.ask(world, request, client)
            old.send(part)
            old.reset()
            self.assert_status(client, 502)
            self.assertEqual(len(world.endpoint.wires), 1)
            world.check_idle(self.fail)

    def test_reverse_host(self) -> None:
        """An agent may have closed its connection while the first request was on its way."""
        world = World(hosts=0)
        first = world.agent("agent:1")
        second = world.agent("agent:2")
        client = self.ask(world)
        used, other = (first, second) if first.take() else (second, first)
        used.reset()
        self.assertEqual(other.take(), GOOD)
        other.send(OK)
        self.assertEqual(client.take(), OK)
        world.check_idle(self.fail)

    def same_agent(self, world: World, *names: str) -> dict[Wire, Host]:
        """Let one agent bring several hosts."""
        wires = {world.agent(name): world.hosts[-1] for name in names}
        same_agent = dict.fromkeys(wires.values())
        for host in same_agent:
            host.same_agent = same_agent.keys()
        self.lose = same_agent.pop  # as the tunnel server does it
        return wires

    def test_agent_that_is_gone(self) -> None:
        """Of its connections, none of which has shown it but the first, no other one is tried."""
        for _ in range(8):
            world = World(hosts=0)
            dying = self.same_agent(world, *(f"agent:{number}" for number in range(7)))
            other = world.agent("other:1")
            client = self.ask(world)
            used = [wire for wire in dying if wire.take()]
            if used:
                self.lose(dying[used[0]])
                used[0].reset()
                self.assertEqual([wire for wire in dying if wire.take()], [])
                self.assertEqual(other.take(), GOOD)
            other.send(OK)
            self.assertEqual(client.take(), OK)
            world.check_idle(self.fail)

    def gone_while_others_are_busy(self, world: World) -> tuple[Wire, Wire]:
        """
        One of two connections of an agent is lost, while that of another agent is busy.

        @return: the agent's second connection, and the other agent's.
        """
        same_agent = self.same_agent(world, "agent:1", "agent:2")
        one, two = same_agent
        other = world.agent("other:1")
        for _ in range(3):
            self.ask(world)
        two.send(OK)
        self.assertTrue(all(wire.take() for wire in (one, two, other)))
        self.lose(same_agent[one])
        one.reset()
        return two, other

    def test_others_are_waited_for(self) -> None:
        world = World(hosts=0)
        two, other = self.gone_while_others_are_busy(world)
        self.assertEqual((two.take(), world.cluster.waiting), (b"", 1))
        world.turn(0.5)
        other.send(OK)
        self.assertEqual((two.take(), other.take()), (b"", GOOD))

    def test_but_not_for_long(self) -> None:
        world = World(hosts=0)
        two, other = self.gone_while_others_are_busy(world)
        world.turn(1.1)
        self.assertEqual((two.take(), other.take()), (GOOD, b""))
        two.send(OK)
        other.send(OK)
        world.check_idle(self.fail)

    def test_nor_if_they_go_too(self) -> None:
        world = World(hosts=0)
        two, other = self.gone_while_others_are_busy(world)
        world.cluster.set_health(world.hosts[2], False)
        world.turn(1.1)
        self.assertEqual((two.take(), other.take()), (GOOD, b""))

    def test_reverse_host_that_comes_back(self) -> None:
        world = World(hosts=0)
        world.agent("agent:1").reset()
        client = self.ask(world)
        world.turn(1)
        agent = world.agent("agent:1")
        self.assertEqual(agent.take(), GOOD)
        agent.reset()
        agent = world.agent("agent:1")
        self.assertEqual(agent.take(), GOOD)
        agent.send(OK)
        self.assertEqual(client.take(), OK)
        world.check_idle(self.fail)


class ContinueTests(Http1TestCase):
    REQUEST = get(b"Expect: 100-continue", b"Content-Length: 3", line=b"POST / HTTP/1.1")
    CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

    def test_forwarded(self) -> None:
        world = World()
        client = self.ask(world, self.REQUEST)
        self.assertEqual(world.host().take(), self.REQUEST)
        world.host().send(self.CONTINUE)
        self.assertEqual(client.take(), self.CONTINUE)
        client.send(b"abc")
        self.assertEqual(world.host().take(), b"abc")
        world.host().send(OK)
        self.assertEqual(client.take(), OK)
        self.assertEqual(world.pool.idle, 1)

    def test_final_status_instead(self) -> None:
        world = World()
        client = self.ask(world, self.REQUEST)
        line = b"HTTP/1.1 417 Expectation Failed"
        world.host().send(respond(b"Content-Length: 0", line=line))
        self.assertEqual(client.take(), respond(b"Content-Length: 0", b"Connection: close", line=line))
        self.assert_closed(world, client)

    def test_local_status_instead(self) -> None:
        world = World(hosts=0)
        client = self.ask(world, self.REQUEST)
        self.assertIn(b"connection: close", self.assert_status(client, 502))
        self.assert_closed(world, client)

    def test_interim(self) -> None:
        hints = respond(b"Link: x", line=b"HTTP/1.1 103 Early Hints")
        world = World()
        client = self.ask(world)
        world.host().send(self.CONTINUE + hints + OK)
        self.assertEqual(client.take(), hints + OK)
        client = self.ask(world, get(b"Expect: 100-continue", line=b"GET / HTTP/1.0"))
        self.assertNotIn(b"Expect", world.host().take())
        world.host().send(self.CONTINUE + hints + OK)
        self.assertEqual(client.take().count(b"HTTP/1.1"), 1)


class UpgradeTests(Http1TestCase):
    REQUEST = get(b"Connection: Upgrade", b"Upgrade: websocket")
    SWITCH = respond(b"Upgrade: websocket", b"Connection: Upgrade", line=b"HTTP/1.1 101 Switching Protocols")

    def upgraded(self, world: World, automatic: bool = True) -> tuple[Wire, Wire]:
        world.endpoint.automatic = automatic
        client = self.ask(world, self.REQUEST + b"early", world.client(automatic=automatic))
        host = world.host()
        client.receive()
        host.receive()
        self.assertEqual(host.take(), get(b"Upgrade: websocket", b"Connection: Upgrade"))
        host.send(self.SWITCH + b"first")
        client.receive()
        host.receive()
        self.assertEqual(client.take(), self.SWITCH + b"first")
        self.assertEqual(host.take(), b"early")
        return client, host

    def test_relay(self) -> None:
        world = World()
        client, host = self.upgraded(world)
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 100_000):
            client.send(data)
            self.assertEqual(host.take(), data)
            host.send(data)
            self.assertEqual(client.take(), data)
        self.assertEqual((world.cluster.active, world.pool.idle), (1, 0))
        self.assertTrue(client.protocol.busy)
        host.end()
        world.turn()
        self.assertTrue(client.write_ended)
        self.assertFalse(client.lost)
        client.send(b"more")
        self.assertEqual(host.take(), b"more")
        client.end()
        world.turn()
        self.assertTrue(client.lost and host.lost)
        world.check_idle(self.fail)
        self.assertEqual(world.pool.connections, 0)
        self.assertEqual(world.clock.getDelayedCalls(), [])
        (record,) = world.records
        self.assertEqual((record.status, record.bytes_sent), (101, 100_018 + 5))
        self.assertEqual(record.bytes_received, 100_018 + 5 + 4)

    def test_reset(self) -> None:
        for side in (0, 1):
            world = World()
            wires = self.upgraded(world)
            wires[side].reset()
            world.turn()
            self.assertTrue(wires[0].lost and wires[1].lost)
            world.check_idle(self.fail)
            self.assertEqual(world.clock.getDelayedCalls(), [])
            self.assertEqual(len(world.records), 1)

    def test_back_pressure(self) -> None:
        world = World()
        client, host = self.upgraded(world, automatic=False)
        for near, far in ((client, host), (host, client)):
            for _ in range(10):
                near.send(b"x" * 20_000)
            self.assertFalse(near.reading)
            self.assertLess(far.buffered, HIGH_WATER + 20_000)
            while far.buffered:
                far.receive()
                world.turn()
            self.assertEqual(len(far.take()), 200_000)

    def test_idle(self) -> None:
        world = World(session_idle=90.0)
        client, host = self.upgraded(world)
        for _ in range(5):
            world.run(80)
            host.send(b"x")
        world.run(80)
        self.assertFalse(client.lost)
        world.run(50)
        self.assertTrue(client.lost and host.lost)
        self.assertIn("nothing has passed for 1m30s", world.records[0].flag)
        world.check_idle(self.fail)

    def test_long(self) -> None:
        """The time for an exchange is not the time for a tunnel."""
        world = World(idle_timeout=None)
        client, host = self.upgraded(world)
        world.turn(100_000)
        self.assertFalse(client.lost or host.lost)

    def test_declined(self) -> None:
        world = World()
        client = self.ask(world, self.REQUEST + GOOD)
        world.host().send(OK)
        self.assertEqual(client.take(), OK)
        self.assertTrue(world.host().take().endswith(GOOD))
        world.host().send(OK)
        self.assertEqual(client.take(), OK)

    def test_declined_by_us(self) -> None:
        world = World()
        request = self.REQUEST.replace(b"GET / ", b"GET /direct ")
        client = self.ask(world, request + GOOD)
        self.assertEqual(status_of(client.take()), 418)
        self.assertEqual(world.host().take(), GOOD)

    def test_early_data_is_bounded(self) -> None:
        world = World()
        client = self.ask(world, self.REQUEST)
        for _ in range(10):
            client.send(b"x" * 20_000)
        self.assertFalse(client.reading)
        self.assertGreaterEqual(client.unread, 200_000 - HELD_LIMIT - 20_000)
        world.host().send(self.SWITCH)
        world.turn()
        self.assertTrue(world.host().take().endswith(b"x" * 200_000))

    def test_reverse_host_is_used_up(self) -> None:
        world = World(hosts=0)
        agent = world.agent()
        client = self.ask(world, self.REQUEST)
        agent.send(self.SWITCH)
        client.send(b"raw")
        self.assertTrue(agent.take().endswith(b"raw"))
        agent.send(b"back")
        self.assertTrue(client.take().endswith(b"back"))
        client.end()
        world.turn()
        agent.end()
        world.turn()
        self.assertTrue(agent.lost and client.lost)
        self.assertEqual(world.cluster.hosts, {})
        world.check_idle(self.fail)


class BackPressureTests(Http1TestCase):
    CHUNK = 20_000

    def test_slow_client(self) -> None:
        world = World()
        client = self.ask(world, client=world.client(automatic=False))
        host = world.host()
        host.send(respond(b"Content-Length: %d" % (50 * self.CHUNK)))
        for _ in range(50):
            host.send(b"x" * self.CHUNK)
        self.assertFalse(host.reading)
        rounds = 0
        while client.buffered or host.unread:
            self.assertLess(client.most_buffered, HIGH_WATER + 2 * self.CHUNK)
            client.receive(10_000)
            world.turn()
            rounds += 1
        self.assertGreater(rounds, 50)
        self.assertTrue(client.take().endswith(b"x" * (50 * self.CHUNK)))
        self.assertTrue(host.reading)
        self.assertEqual(world.pool.idle, 1)

    def test_slow_host(self) -> None:
        world = World()
        world.endpoint.automatic = False
        client = self.ask(world, get(b"Content-Length: %d" % (50 * self.CHUNK), line=b"POST / HTTP/1.1"))
        host = world.host()
        for _ in range(50):
            client.send(b"x" * self.CHUNK)
        self.assertFalse(client.reading)
        while host.buffered or client.unread:
            self.assertLess(host.most_buffered, HIGH_WATER + 2 * self.CHUNK)
            host.receive(10_000)
            world.turn()
        self.assertTrue(host.take().endswith(b"x" * (50 * self.CHUNK)))
        self.assertTrue(client.reading)

    def test_full_client_gets_the_next_response_slowly_too(self) -> None:
        world = World()
        client = self.ask(world, GOOD, world.client(automatic=False))
        size = 100_000
        big = respond(b"Content-Length: %d" % size, body=b"x" * size)
        world.host().send(big)
        client.send(GOOD)
        self.assertEqual(world.host().take(), GOOD)  # not the second one
        client.receive()
        world.turn()
        self.assertEqual(world.host().take(), GOOD)
        self.assertTrue(world.host().reading)

    def test_dropped_request_of_a_full_host(self) -> None:
        """A host that neither reads nor is read from is closed, not waited for."""
        world = World()
        world.endpoint.automatic = False
        client = self.ask(world, get(b"Content-Length: 100000", line=b"POST / HTTP/1.1", body=b"x" * 100_000))
        world.host().send(OK)
        self.assertEqual(client.take(), OK)
        world.turn()
        self.assertTrue(world.host().lost)
        self.assertTrue(client.reading)
        self.ask(world, client=client)
        self.assertEqual(len(world.endpoint.wires), 2)


class TimerTests(Http1TestCase):
    def test_idle(self) -> None:
        world = World()
        client = world.client()
        world.turn(89)
        self.ask(world, client=client)
        world.host().send(OK)
        world.turn(89)
        self.assertFalse(client.write_closed)
        world.turn(1)
        self.assertTrue(client.write_closed)
        self.assert_closed(world, client)

    def test_idle_with_requests_that_wait_for_room(self) -> None:
        """A client that asks and asks but reads nothing is idle, too."""
        world = World()
        client = world.client(automatic=False)
        client.send(get(line=b"GET /direct HTTP/1.1") * 5000)
        self.assertFalse(client.reading)
        world.run(380)
        self.assertFalse(client.lost)
        world.run(11)
        self.assertTrue(client.lost)
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_never_idle(self) -> None:
        world = World(idle_timeout=None)
        client = world.client()
        self.assertEqual(world.clock.getDelayedCalls(), [])
        world.turn(1_000_000)
        self.ask(world, client=client)
        world.host().send(OK)
        world.turn(1_000_000)
        self.assertFalse(client.write_closed)
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_empty_lines_are_no_requests(self) -> None:
        world = World()
        client = world.client()
        for _ in range(9):
            world.turn(10)
            client.send(b"\r\n")
        self.assertTrue(client.write_closed)

    def test_slow_head(self) -> None:
        for idle in (None, 90.0):
            world = World(idle_timeout=idle)
            client = world.client()
            if idle is None:
                world.turn(1000)
            client.send(b"GET /")
            for _ in range(59):
                world.turn(1)
                client.send(b"x")
            self.assertEqual(client.take(), b"")
            world.turn(1)
            self.assert_status(client, 408)
            self.assert_closed(world, client)

    def test_slow_head_behind_a_request(self) -> None:
        world = World()
        client = self.ask(world, GOOD + b"GET /")
        world.turn(50)
        world.host().send(OK)
        self.assertEqual(client.take(), OK)
        world.turn(59)
        self.assertEqual(client.take(), b"")
        world.turn(1)
        self.assert_status(client, 408)

    def test_one_timer(self) -> None:
        """Requests do not move the timer."""
        world = World()
        client = world.client()
        resets = []
        for _ in range(100):
            self.ask(world, client=client)
            world.host().send(OK)
            world.turn(0.1)
            resets.append([call.getTime() for call in world.clock.getDelayedCalls()])
        self.assertEqual(len(resets[-1]), 1)
        self.assertEqual(resets[0], resets[-1])

    def test_nothing_is_left_behind(self) -> None:
        """Not even work for the garbage collector, with as many connections as there may be."""
        world = World()
        client = self.ask(world)
        host = world.host()
        host.send(OK)
        client.end()
        host.end()
        world.turn()
        self.assertEqual(world.clock.getDelayedCalls(), [])
        proxies = [weakref.ref(client.protocol), weakref.ref(host.protocol)]
        gc.disable()
        self.addCleanup(gc.enable)
        client.protocol = host.protocol = None
        world.records.clear()
        self.assertEqual([proxy() for proxy in proxies], [None, None])


class DrainTests(Http1TestCase):
    def test_interface(self) -> None:
        world = World()
        verifyObject(IDrainable, Http1Proxy(world.settings, ConnectionInfo("a:1", "b:2")))

    def test_idle(self) -> None:
        world = World()
        client = world.client()
        world.clock.advance(FRESH)
        self.assertFalse(client.protocol.busy)
        client.protocol.drain()
        self.assertTrue(client.write_closed)
        self.assert_closed(world, client)
        client.protocol.drain()

    def test_fresh(self) -> None:
        """A request may be on its way."""
        for asked in (False, True):
            world = World()
            client = world.client()
            if asked:
                self.ask(world, client=client)
                world.host().send(OK)
                client.take()
            client.protocol.drain()
            client.protocol.drain()
            world.clock.advance(QUIET - 0.1)
            self.assertFalse(client.write_closed)
            if asked:
                self.ask(world, client=client)
                world.host().send(OK)
                self.assertIn(b"Connection: close", client.take())
            else:
                world.clock.advance(0.1)
            self.assertTrue(client.write_closed)
            self.assert_closed(world, client)

    def test_fresh_without_a_limit_for_idle_ones(self) -> None:
        world = World(idle_timeout=None)
        client = world.client()
        world.clock.advance(1000)
        client.protocol.drain()
        self.assertFalse(client.write_closed)
        world.clock.advance(QUIET)
        self.assertTrue(client.write_closed)

    def test_idle_reverse(self) -> None:
        world = World()
        client = world.client(reverse=True)
        client.protocol.drain()
        world.turn()
        self.ask(world, client=client)
        self.assertTrue(client.protocol.busy)
        world.host().send(OK)
        self.assertEqual(client.take(), OK)
        self.assertFalse(client.disconnecting or client.write_closed)
        self.assertFalse(client.protocol.busy)

    def test_busy(self) -> None:
        for reverse in (False, True):
            world = World()
            client = self.ask(world, client=world.client(reverse=reverse))
            self.assertTrue(client.protocol.busy)
            client.protocol.drain()
            world.host().send(OK)
            self.assertIn(b"\r\nConnection: close\r\n", client.take())
            self.assert_closed(world, client)

    def test_busy_with_a_local_reply(self) -> None:
        world = World()
        client = self.ask(world, b"GET /direct HT")
        self.assertTrue(client.protocol.busy)
        client.protocol.drain()
        client.send(b"TP/1.1\r\nHost: a\r\n\r\n")
        self.assertIn(b"\r\nconnection: close\r\n", self.assert_status(client, 418))
        self.assert_closed(world, client)

    def test_response_has_begun(self) -> None:
        world = World()
        client = self.ask(world)
        world.host().send(OK[:-1])
        client.protocol.drain()
        world.host().send(OK[-1:])
        self.assertEqual(client.take(), OK)
        self.assert_closed(world, client)

    def test_pipelined(self) -> None:
        world = World()
        client = self.ask(world, GOOD * 3)
        client.protocol.drain()
        world.host().send(OK)
        self.assertEqual(client.take().count(b"HTTP/1.1 "), 1)
        self.assert_closed(world, client)


class FactsTests(Http1TestCase):
    def test_no_echo(self) -> None:
        """Nothing of what a client sends comes back from us."""
        secret: Any = b"s3cr3t"
        for request in (
            get(b"X: " + secret, line=b"GET /nowhere/" + secret + b" HTTP/1.1"),
            get(b"X: " + secret + b"\x00"),
            get(b"Host: " + secret),
            get(b"Authorization: " + secret, host=b"Host: nobody\r\n"),
        ):
            data = self.ask(World(), request).take()
            self.assertGreaterEqual(status_of(data), 400)
            self.assertNotIn(secret, data)
