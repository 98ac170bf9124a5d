"""Tests for L{reverseproxy.proxy.http.http2_server}: clients that speak HTTP/2."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.models import RouterConfig
from reverseproxy.interfaces import IDrainable
from reverseproxy.proxy.closing import FRESH, QUIET
from reverseproxy.proxy.http import http2_connection
from reverseproxy.proxy.http.http2_closing import WARNING_TIME
from reverseproxy.proxy.settings import LOG_BURST
from reverseproxy.routing import Router
from reverseproxy.transport.closing import LINGER, STALL
from reverseproxy.wire.http2.frames import MAX_STREAM_ID, PREFACE, ErrorCode, Setting, settings
from tests.proxy.http2_memory import Http2Peer, Http2World
from tests.proxy.memory import ROUTES, Wire
from tests.wire.http1_cases import respond
from tests.wire.http2_frames import GET, POST, Fields, raw

HTTP1 = [
    {**rule, "route": {**rule["route"], "upstream_protocol": "Http1"}} if "route" in rule else rule
    for rule in ROUTES
]
"""The usual routes, to hosts that speak HTTP/1."""


def path(path: bytes, fields: Fields = GET) -> Fields:
    return [*fields[:3], (b":path", path)]


class Http2TestCase(SynchronousTestCase):
    def world(self, *args: Any, **more: Any) -> Http2World:
        world = Http2World(*args, **{"routes": HTTP1, **more})
        self.addCleanup(world.check_idle, self.fail)
        return world

    def ask(self, world: Http2World, client: Http2Peer, *args: Any, **more: Any) -> tuple[int, Wire]:
        """Send a request; its stream, and the connection to the host that it went to."""
        before = {wire: len(wire.written) for wire in world.endpoint.wires}
        number = client.ask(*args, **more)
        (wire,) = [w for w in world.endpoint.wires if len(w.written) > before.get(w, 0)]
        return number, wire


class ExchangeTests(Http2TestCase):
    def test_get(self) -> None:
        world = self.world()
        client = world.connect()
        number, host = self.ask(world, client, [*path(b"/a?b=c"), (b"accept", b"*/*")])
        self.assertEqual(host.take(), b"GET /a?b=c HTTP/1.1\r\nHost: example.com\r\naccept: */*\r\n\r\n")
        host.send(respond(b"Content-Length: 5", b"Server: x", b"Connection: keep-alive", body=b"hello"))
        answer = client[number]
        self.assertEqual(answer.heads, [[(b":status", b"200"), (b"content-length", b"5"), (b"server", b"x")]])
        self.assertEqual((answer.body, answer.ended), (b"hello", True))
        [record] = world.records
        self.assertEqual(
            (
                record.protocol,
                record.request.method,
                record.request.path,
                record.status,
                record.bytes_sent,
                record.flag,
            ),
            ("Http2", "GET", "/a", 200, 5, ""),
        )

    def test_post(self) -> None:
        world = self.world()
        client = world.connect()
        number, host = self.ask(world, client, [*POST, (b"content-length", b"6")], b"abc", end=False)
        self.assertEqual(host.take(), b"POST / HTTP/1.1\r\nHost: example.com\r\ncontent-length: 6\r\n\r\nabc")
        client.send(client.data(number, b"def", True))
        self.assertEqual(host.take(), b"def")
        host.send(respond(b"Content-Length: 0"))
        self.assertTrue(client[number].ended)

    def test_body_of_unknown_length_both_ways_with_trailers(self) -> None:
        world = self.world()
        client = world.connect()
        number, host = self.ask(world, client, POST, b"abc", [(b"x-sum", b"1")])
        self.assertTrue(host.take().endswith(b"chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n"))
        host.send(respond(b"Transfer-Encoding: chunked", body=b"2\r\nok\r\n0\r\nX-Sum: 2\r\n\r\n"))
        answer = client[number]
        self.assertEqual(answer.heads, [[(b":status", b"200")]])
        self.assertEqual((answer.body, answer.trailers, answer.ended), (b"ok", [(b"x-sum", b"2")], True))

    def test_head_and_empty_answers(self) -> None:
        world = self.world()
        client = world.connect()
        number, host = self.ask(world, client, [(b":method", b"HEAD"), *GET[1:]])
        host.send(respond(b"Content-Length: 99"))
        answer = client[number]
        self.assertEqual((answer.header(b"content-length"), answer.body, answer.ended), (b"99", b"", True))
        number, host = self.ask(world, client)
        host.send(respond(line=b"HTTP/1.1 304 Not Modified"))
        self.assertEqual((client[number].status, client[number].ended), (304, True))

    def test_body_until_the_connection_ends(self) -> None:
        world = self.world()
        client = world.connect()
        number, host = self.ask(world, client)
        host.send(respond(body=b"some"))
        self.assertFalse(client[number].ended)
        host.end()
        self.assertEqual((client[number].body, client[number].ended), (b"some", True))

    def test_many_at_once(self) -> None:
        world = self.world()
        client = world.connect()
        asked = [self.ask(world, client, path(b"/%d" % i)) for i in range(50)]
        self.assertEqual(len({host for _, host in asked}), 50)
        for number, host in reversed(asked):
            host.send(respond(b"Content-Length: 3", body=b"%03d" % number))
        self.assertEqual(
            [client[number].body for number, _ in asked], [b"%03d" % number for number, _ in asked]
        )
        self.assertFalse(world.clients[0].protocol.busy)

    def test_interim_answers(self) -> None:
        world = self.world()
        client = world.connect()
        number, host = self.ask(world, client, [*POST, (b"expect", b"100-continue")], b"", end=False)
        host.send(respond(line=b"HTTP/1.1 100 Continue"))
        host.send(respond(b"Link: x", line=b"HTTP/1.1 103 Early Hints"))
        host.send(respond(b"Content-Length: 0"))
        self.assertEqual([dict(h)[b":status"] for h in client[number].heads], [b"100", b"103", b"200"])

    def test_interim_answers_through_a_tunnel(self) -> None:
        """Our servers know what they are; MOSN's would take the first one for the answer."""
        for announced, expected in ((True, [b"100", b"103", b"200"]), (False, [b"200"])):
            world = self.world()
            client = world.connect(reverse=True, announced=announced)
            number, host = self.ask(world, client, [*POST, (b"expect", b"100-continue")], b"", end=False)
            host.send(respond(line=b"HTTP/1.1 100 Continue"))
            host.send(respond(b"Link: x", line=b"HTTP/1.1 103 Early Hints"))
            host.send(respond(b"Content-Length: 0"))
            self.assertEqual([dict(h)[b":status"] for h in client[number].heads], expected)

    def test_a_tunnel_server_that_has_not_introduced_itself_yet(self) -> None:
        """It hears nothing before its SETTINGS have come, which may be after its preface."""
        world = self.world()
        client = world.connect(reverse=True, greet=False)
        client.send(PREFACE)
        self.assertEqual(client.wire.take(), b"")
        client.send(client.settings())
        self.assertEqual(len(client.look().settings_seen), 1)

    def test_answer_before_the_end_of_the_request(self) -> None:
        world = self.world()
        client = world.connect()
        number, host = self.ask(world, client, POST, b"abc", end=False)
        host.send(respond(b"Content-Length: 4", line=b"HTTP/1.1 413 No", body=b"much"))
        answer = client[number]
        self.assertEqual((answer.status, answer.body, answer.ended), (413, b"much", True))
        self.assertEqual(answer.reset, ErrorCode.NO_ERROR)
        self.assertTrue(host.disconnecting)
        client.send(client.data(number, b"more"))
        self.assertEqual(client.ask(path(b"/direct")), number + 2)
        self.assertEqual(client[number + 2].status, 418)

    def test_local_answers(self) -> None:
        world = self.world()
        client = world.connect()
        for where, status, body, location in (
            (b"/direct", 418, b"short and stout", None),
            (b"/empty", 204, b"", None),
            (b"/moved", 302, b"", b"http://example.com/new"),
            (b"/nowhere", 404, b"there is no cluster 'unknown'\n", None),
        ):
            answer = client[client.ask(path(where))]
            self.assertEqual((answer.status, answer.body, answer.ended), (status, body, True))
            self.assertEqual(answer.header(b"location"), location)
        answer = client[client.ask([(b":method", b"HEAD"), *path(b"/direct")[1:]])]
        self.assertEqual((answer.header(b"content-length"), answer.body), (b"15", b""))
        self.assertEqual([record.status for record in world.records], [418, 204, 302, 404, 418])
        for status, length in ((204, None), (205, b"0"), (304, None)):
            answers = {"match": {"prefix": "/"}, "direct_response": {"status": status, "body": "none"}}
            client = Http2World(routes=[answers]).connect()
            answer = client[client.ask()]
            self.assertEqual((answer.header(b"content-length"), answer.body), (length, b""), status)

    def test_request_that_is_not_taken(self) -> None:
        world = self.world(http2={"max_header_list_size": 1024})
        client = world.connect()
        number = client.ask([*GET, (b"x", b"y" * 1000)])
        self.assertEqual((client[number].status, client[number].ended), (431, True))
        number = client.ask([(b":method", b"CONNECT"), (b":authority", b"a:1")], b"", end=False)
        self.assertEqual((client[number].status, client[number].header(b"allow")), (405, b""))
        client.send(client.data(number, b"x"))
        self.assertEqual([record.status for record in world.records], [431, 405])

    def test_request_that_is_not_taken_is_answered_in_its_own_way(self) -> None:
        """A response to HEAD has no body, and a call of gRPC gets a status of gRPC's."""
        world = self.world(http2={"max_header_list_size": 1024, "max_headers_count": 10})
        client = world.connect()
        large, many = [(b"x", b"y" * 1000)], [(b"x", b"y")] * 11
        head = [(b":method", b"HEAD"), *GET[1:]]
        for fields in (large, many):
            answer = client[client.ask([*head, *fields])]
            self.assertEqual((answer.status, answer.body, answer.ended), (431, b"", True))
            self.assertNotEqual(answer.header(b"content-length"), b"0")
        ftp = [head[0], (b":scheme", b"ftp"), *head[2:]]
        self.assertEqual((client[client.ask(ftp)].status, client[client.ask(ftp)].body), (400, b""))
        call = [*POST, (b"content-type", b"application/grpc"), (b"te", b"trailers")]
        for fields in (large, many):
            answer = client[client.ask([*call, *fields], b"x")]
            self.assertEqual((answer.status, answer.body, answer.ended), (200, b"", True))
            self.assertEqual(answer.header(b"grpc-status"), b"8")
        self.assertEqual([record.status for record in world.records], [431, 431, 400, 400, 431, 431])

    def test_malformed_request(self) -> None:
        world = self.world()
        client = world.connect()
        good, host = self.ask(world, client)
        bad = client.ask([*GET, (b"Connection", b"close")])
        self.assertEqual(client[bad].reset, ErrorCode.PROTOCOL_ERROR)
        host.send(respond(b"Content-Length: 0"))
        self.assertTrue(client[good].ended)

    def test_malformed_end_of_a_request(self) -> None:
        world = self.world()
        client = world.connect()
        number, host = self.ask(world, client, [*POST, (b"content-length", b"9")], b"abc")
        self.assertEqual(client[number].reset, ErrorCode.PROTOCOL_ERROR)
        self.assertTrue(host.aborted)
        [record] = world.records
        self.assertEqual(record.flag, "the client sent a bad request")

    def test_request_body_that_is_too_large(self) -> None:
        world = self.world(http2={"max_request_body_size": 10})
        client = world.connect()
        number = client.ask([*POST, (b"content-length", b"11")], b"", end=False)
        self.assertEqual(client[number].status, 413)
        number, host = self.ask(world, client, POST, b"0123456789", end=False)
        client.send(client.data(number, b"x"))
        self.assertEqual((client[number].status, host.aborted), (413, True))

    def test_forwarded_headers(self) -> None:
        world = self.world(http2={"via": "edge", "x_forwarded": "append"})
        _, host = self.ask(world, world.connect(secure=True))
        lines = host.take().split(b"\r\n")
        for line in (b"Via: 1.1 edge", b"X-Forwarded-For: 10.9.9.9", b"X-Forwarded-Proto: https"):
            self.assertIn(line, lines)
        world.host().send(respond(b"Content-Length: 0"))

    def test_client_that_names_no_host(self) -> None:
        """It goes on to name none (RFC 9112 3.2), and is routed by the address that it was sent to."""
        there = {"name": "here", "domains": ["10.0.0.1:80", "localhost"], "routers": HTTP1}
        for local in ("10.0.0.1:80", "unix:/a"):
            world = self.world()
            world.settings = replace(
                world.settings, router=Router(RouterConfig.model_validate({"virtual_hosts": [there]}))
            )
            _, host = self.ask(world, world.connect(local=local), [*GET[:2], GET[3]])
            self.assertIn(b"\r\nHost: \r\n", host.take())
            host.send(respond(b"Content-Length: 0"))

    def test_cancelled_request(self) -> None:
        world = self.world()
        client = world.connect()
        number, host = self.ask(world, client)
        client.send(client.rst(number))
        self.assertTrue(host.aborted)
        [record] = world.records
        self.assertEqual((record.flag, record.status), ("the client cancelled", 0))
        self.assertFalse(world.clients[0].protocol.busy)

    def test_answer_that_is_broken_off(self) -> None:
        world = self.world()
        client = world.connect()
        number, host = self.ask(world, client)
        host.send(respond(b"Content-Length: 9", body=b"some"))
        host.reset()
        self.assertEqual((client[number].body, client[number].reset), (b"some", ErrorCode.INTERNAL_ERROR))

    def test_answer_that_takes_too_long(self) -> None:
        world = self.world()
        client = world.connect()
        quick, _ = self.ask(world, client, path(b"/quick"))
        slow, host = self.ask(world, client, path(b"/forever"))
        world.turn(2)
        self.assertEqual(client[quick].status, 504)
        self.assertNotIn(slow, client.messages)
        world.turn(1000)
        host.send(respond(b"Content-Length: 0"))
        self.assertEqual(client[slow].status, 200)

    def test_grpc_goes_on_for_as_long_as_there_are_messages(self) -> None:
        world = self.world()
        client = world.connect()
        grpc = [*path(b"/quick", POST), (b"te", b"trailers"), (b"content-type", b"application/grpc+proto")]
        number, host = self.ask(world, client, grpc, b"x")
        host.send(respond(b"Transfer-Encoding: chunked"))
        for _ in range(5):
            world.run(299)
            host.send(b"1\r\nx\r\n")
        self.assertEqual((client[number].body, client[number].reset), (b"xxxxx", None))
        world.run(299)
        self.assertFalse(client[number].ended)
        world.run(77)
        self.assertEqual(
            client[number].trailers,
            [(b"grpc-status", b"4"), (b"grpc-message", b"the host sent nothing of the response for 5m0s")],
        )
        self.assertEqual((client[number].ended, client[number].reset), (True, None))

    def test_grpc_is_told_of_our_errors_in_its_own_way(self) -> None:
        world = self.world()
        client = world.connect()
        grpc = [(b"te", b"trailers"), (b"content-type", b"application/grpc+proto")]
        answer = client[client.ask([*path(b"/nowhere", POST), *grpc], b"x")]
        self.assertEqual((answer.status, answer.body, answer.ended), (200, b"", True))
        self.assertEqual(answer.header(b"content-type"), b"application/grpc")
        self.assertEqual(answer.header(b"grpc-status"), b"12")
        self.assertEqual(answer.header(b"grpc-message"), b"there is no cluster 'unknown'")
        number, _ = self.ask(world, client, [*path(b"/quick", POST), *grpc], b"x", end=False)
        world.run(376)
        self.assertEqual(client[number].header(b"grpc-status"), b"4")
        self.assertEqual(client[number].reset, ErrorCode.NO_ERROR)  # it may stop sending
        answer = client[client.ask([*path(b"/moved", POST), *grpc], b"x")]
        self.assertEqual(answer.status, 302)
        self.assertEqual([record.status for record in world.records], [404, 408, 302])

    def test_lines_about_bad_requests_are_bounded(self) -> None:
        world = self.world(http2={"max_resets": 1000})
        client = world.connect()
        seen: list[object] = []
        globalLogPublisher.addObserver(seen.append)
        self.addCleanup(globalLogPublisher.removeObserver, seen.append)
        for _ in range(200):
            client.ask([*GET, (b"Connection", b"close")])
        lines = [event for event in seen if "a bad request" in str(event)]
        self.assertEqual(len(lines), LOG_BURST)
        self.assertEqual(client.look().goaways, [])
        world.clock.advance(60)
        seen.clear()
        for _ in range(200):
            world.connect().send(raw(6, 0, 0, b"short"))
        lines = [event for event in seen if "broke the rules" in str(event)]
        self.assertEqual(len(lines), LOG_BURST)

    def test_no_other_answer_does(self) -> None:
        world = self.world()
        client = world.connect()
        number, host = self.ask(world, client, [*path(b"/quick"), (b"te", b"trailers")])
        host.send(respond(b"Transfer-Encoding: chunked"))
        host.send(b"1\r\nx\r\n")
        world.run(377)
        self.assertEqual(client[number].reset, ErrorCode.INTERNAL_ERROR)


class BackPressureTests(Http2TestCase):
    def stuff(self, world: Http2World) -> Http2Peer:
        """Let a client ask and take nothing, until it is not read any more."""
        self.patch(http2_connection, "MOST_QUEUED", 20_000)
        client = world.connect(automatic=False)
        client.wire.receive()
        while client.wire.reading:
            client.ask(path(b"/moved"))
            self.assertLess(client.wire.protocol.http2.queued(), 21_000)
        return client

    def test_client_that_asks_and_takes_nothing(self) -> None:
        """Answers without a body need no window: it is not read until it has taken them."""
        world = self.world()
        client = self.stuff(world)
        last = client.ask(path(b"/empty"))
        self.assertTrue(client.wire.unread)
        for _ in range(3):
            client.wire.receive()
            world.turn()
        self.assertEqual((client[last - 2].status, client[last].status), (302, 204))
        self.assertTrue(client.wire.reading)

    def test_interim_answers_to_a_client_that_takes_nothing(self) -> None:
        world = self.world()
        client = self.stuff(world)
        client.wire.protocol.resumeProducing()  # as if there were room for a moment
        client.wire.protocol.full = False
        number = client.ask()
        client.wire.protocol.full = True
        for _ in range(100):
            link = b"Link: %d" % len(world.host().written) + b"x" * 2500
            world.host().send(respond(link, line=b"HTTP/1.1 103 Early Hints"))
        self.assertLess(client.wire.protocol.http2.queued(), 25_000)
        world.host().send(respond(b"Content-Length: 0"))
        for _ in range(3):
            client.wire.receive()
            world.turn()
        self.assertEqual(client[number].status, 200)

    def test_a_switch_of_protocols_to_a_client_that_takes_nothing(self) -> None:
        """It is no interim response: what follows would make no sense without it."""
        world = self.world()
        client = self.stuff(world)
        client.wire.protocol.resumeProducing()  # as if there were room for a moment
        client.send(settings([(Setting.UPGRADES, 1)]))
        fields = [(b":method", b"CONNECT"), (b":protocol", b"tcp"), (b":upgrade", b"GET 0 tcp"), *GET[1:]]
        number = client.ask(fields, end=False)
        client.wire.protocol.full = True
        for each in b"abcdefghij":
            link = b"Link: " + bytes((each,)) * 2500
            world.host().send(respond(link, line=b"HTTP/1.1 103 Early Hints"))
        self.assertTrue(client.wire.protocol.overfull)
        accepted = (b"Upgrade: tcp", b"Connection: Upgrade")
        world.host().send(respond(*accepted, line=b"HTTP/1.1 101 Switching Protocols", body=b"raw"))
        for _ in range(3):
            client.wire.receive()
            world.turn()
        self.assertEqual(client[number].heads[-1], [(b":status", b"200"), (b":upgrade", b"tcp")])
        self.assertEqual(client[number].body, b"raw")
        client.send(client.rst(number))
        world.turn(20)

    def test_client_that_takes_nothing_is_closed(self) -> None:
        world = self.world()
        client = self.stuff(world)
        world.run(90 + STALL * 1.5, 5)
        self.assertTrue(client.wire.lost)
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_client_that_takes_nothing_and_is_drained(self) -> None:
        """What it sends still is read, and dropped."""
        world = self.world()
        client = self.stuff(world)
        client.wire.protocol.drain()
        world.run(WARNING_TIME, 1)
        self.assertTrue(client.wire.reading)
        client.wire.receive()
        world.run(60, 5)
        self.assertTrue(client.wire.lost)

    def test_slow_client_pauses_its_host_alone(self) -> None:
        world = self.world()
        client = world.connect({4: 1000})
        slow, slow_host = self.ask(world, client)
        fast, fast_host = self.ask(world, client)
        slow_host.send(respond(b"Content-Length: 500000", body=bytes(100_000)))
        self.assertFalse(slow_host.reading)
        self.assertEqual(len(client[slow].body), 1000)
        fast_host.send(respond(b"Content-Length: 900", body=bytes(900)))
        self.assertTrue(client[fast].ended)
        client.send(client.window(0, 1_000_000), client.window(slow, 80_000))
        self.assertFalse(slow_host.reading)
        client.send(client.window(slow, 18_000))
        self.assertTrue(slow_host.reading)
        self.assertEqual(len(client[slow].body), 99_000)
        slow_host.send(bytes(400_000))
        client.send(client.window(slow, 500_000))
        self.assertEqual((len(client[slow].body), client[slow].ended), (500_000, True))

    def test_client_whose_connection_is_full(self) -> None:
        world = self.world()
        client = world.connect({4: 10_000_000}, automatic=False)
        client.send(client.window(0, 10_000_000))
        wire = client.wire
        one, one_host = self.ask(world, client)
        other, other_host = self.ask(world, client)
        for _ in range(10):
            one_host.send(
                respond(b"Content-Length: 5000000", body=bytes(200_000)) if _ == 0 else bytes(200_000)
            )
            other_host.send(respond(b"Content-Length: 100", body=bytes(100)) if _ == 0 else b"")
        self.assertLess(wire.most_buffered, 300_000)
        self.assertFalse(one_host.reading)
        # Whatever the slow stream has to send, the other one gets its turn.
        while not client.look().messages.get(other) or not client.messages[other].ended:
            wire.receive(50_000)
        self.assertLess(len(client[one].body), 400_000)
        client.send(client.rst(one))

    def test_slow_host_holds_back_its_client(self) -> None:
        world = self.world(http2={"initial_window_size": 65_536})
        world.endpoint.automatic = False
        client = world.connect()
        client.look()
        number = client.ask(POST, bytes(49_152), end=False)
        host = world.host()
        opened = client.look().windows[1:]
        self.assertEqual(opened, [(number, 49_152)])  # the host's connection takes that much
        client.send(*[client.data(number, bytes(16_384)) for _ in range(4)])
        # It had enough with that, so the client is not told that it may send more.
        self.assertEqual(client.look().windows[2:], [])
        for _ in range(5):
            host.receive()
            world.turn()
        self.assertEqual(client.look().windows[2:], [(number, 65_536)])
        client.send(client.rst(number))

    def test_client_that_takes_nothing_of_an_answer(self) -> None:
        world = self.world()
        client = world.connect({4: 10})
        number, host = self.ask(world, client)
        host.send(respond(b"Content-Length: 100", body=bytes(100)))
        self.assertTrue(world.clients[0].protocol.busy)
        for _ in range(2):
            world.run(STALL - 1)
            client.send(client.window(number, 10))
        self.assertIsNone(client[number].reset)
        world.run(STALL * 1.25 + 1)
        self.assertEqual((len(client[number].body), client[number].reset), (30, ErrorCode.CANCEL))
        self.assertFalse(world.clients[0].protocol.busy)

    def test_client_that_takes_everything_in_the_end(self) -> None:
        world = self.world()
        client = world.connect({4: 10})
        number, host = self.ask(world, client)
        host.send(respond(b"Content-Length: 100", body=bytes(100)))
        client.send(client.window(number, 90))
        self.assertTrue(client[number].ended)
        self.assertFalse(world.clients[0].protocol.busy)
        world.run(STALL + 1)
        self.assertIsNone(client[number].reset)


class ConnectionTests(Http2TestCase):
    def test_nothing_is_said_first_on_a_reverse_connection(self) -> None:
        world = self.world(idle_timeout=None)
        client = world.connect(reverse=True, greet=False)
        world.turn(1000)
        self.assertEqual(client.wire.take(), b"")
        client.send(PREFACE, client.settings())
        self.assertEqual(client[client.ask(path(b"/direct"))].status, 418)

    def test_http1_is_closed_with_a_reason(self) -> None:
        world = self.world()
        client = world.connect(greet=False)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        [goaway] = client.look().goaways
        self.assertEqual(goaway.error_code, ErrorCode.PROTOCOL_ERROR)
        self.assertTrue(client.wire.write_closed)

    def test_error_of_the_connection_ends_everything(self) -> None:
        world = self.world()
        client = world.connect()
        _, host = self.ask(world, client)
        client.send(raw(6, 0, 0, b"short"))
        self.assertEqual(client.look().goaways[0].error_code, ErrorCode.FRAME_SIZE_ERROR)
        self.assertTrue(host.aborted)
        self.assertTrue(client.wire.write_closed)
        # What comes still is dropped, for a while and up to a limit.
        client.send(b"x" * 1000)
        self.assertFalse(client.wire.aborted)
        client.send(b"x" * 2_000_000)
        self.assertTrue(client.wire.aborted)

    def test_peer_that_does_not_close_is_closed(self) -> None:
        world = self.world()
        client = world.connect()
        client.send(raw(6, 0, 0, b"short"))
        world.turn(LINGER - 1)
        self.assertFalse(client.wire.aborted)
        world.turn(2)
        self.assertTrue(client.wire.aborted)

    def test_flood(self) -> None:
        world = self.world(http2={"max_control_frames": 20})
        client = world.connect()
        client.send(*[client.ping() for _ in range(30)])
        self.assertEqual(client.look().goaways[0].error_code, ErrorCode.ENHANCE_YOUR_CALM)
        self.assertEqual(len(client.pongs), 20)

    def test_rapid_reset(self) -> None:
        world = self.world(http2={"max_resets": 20})
        client = world.connect()
        for _ in range(30):
            number = client._next
            client._next += 2
            client.send(client.headers(number, GET, True), client.rst(number))
        self.assertEqual(client.look().goaways[0].error_code, ErrorCode.ENHANCE_YOUR_CALM)
        self.assertTrue(all(wire.aborted for wire in world.endpoint.wires))

    def test_rapid_reset_of_a_tunnel_server(self) -> None:
        """Each of its clients may cancel requests, and there are many."""
        for announced in (False, True):
            world = self.world()
            server = world.connect(reverse=True, announced=announced)
            number = server.ask()
            for _ in range(2000):
                cancelled = server.ask()
                server.send(server.rst(cancelled))
            self.assertEqual(server.look().goaways, [])
            world.host(0).send(respond(b"Content-Length: 0"))
            self.assertTrue(server[number].ended)

    def test_too_many_streams(self) -> None:
        world = self.world(http2={"max_concurrent_streams": 1})
        client = world.connect()
        number, host = self.ask(world, client)
        refused = client.ask()
        self.assertEqual(client[refused].reset, ErrorCode.REFUSED_STREAM)
        self.assertEqual(client.settings_seen[0][3], 1)
        host.send(respond(b"Content-Length: 0"))
        self.assertTrue(client[number].ended)

    def test_idle_timeout(self) -> None:
        world = self.world()
        client = world.connect()
        self.assertEqual(client[client.ask(path(b"/direct"))].status, 418)
        world.turn(89)
        client.send(client.ping())
        self.assertEqual(client.look().goaways, [])
        world.turn(2)
        [goaway] = client.look().goaways
        self.assertEqual((goaway.error_code, goaway.last_stream_id), (ErrorCode.NO_ERROR, 1))
        self.assertTrue(client.wire.write_closed)

    def test_no_idle_timeout_while_a_request_is_under_way(self) -> None:
        world = self.world()
        client = world.connect()
        number, host = self.ask(world, client, path(b"/forever"))
        world.turn(1000)
        host.send(respond(b"Content-Length: 0"))
        self.assertTrue(client[number].ended)
        world.turn(89)
        self.assertEqual(client.look().goaways, [])
        world.turn(2)
        self.assertEqual(len(client.look().goaways), 1)

    def test_client_without_settings(self) -> None:
        world = self.world()
        client = world.connect(greet=False)
        client.send(PREFACE)
        world.turn(59)
        self.assertFalse(client.wire.write_closed)
        world.turn(2)
        self.assertEqual(client.look().goaways[0].error_code, ErrorCode.SETTINGS_TIMEOUT)

    def test_client_that_acknowledges_in_time(self) -> None:
        world = self.world(idle_timeout=None)
        client = world.connect().look()
        world.turn(1000)
        self.assertEqual(client.look().goaways, [])

    def test_client_that_closes(self) -> None:
        world = self.world()
        client = world.connect()
        _, host = self.ask(world, client)
        client.wire.reset()
        world.turn()
        self.assertTrue(host.aborted)

    def test_client_that_goes_away_gets_its_answers(self) -> None:
        world = self.world()
        client = world.connect()
        number, host = self.ask(world, client)
        client.send(client.goaway(0, 2, b"bye"))
        self.assertFalse(client.wire.disconnecting)
        host.send(respond(b"Content-Length: 0"))
        self.assertTrue(client[number].ended)
        self.assertTrue(client.wire.disconnecting)

    def test_no_timer_is_left(self) -> None:
        world = self.world()
        client = world.connect()
        self.ask(world, client)
        client.wire.reset()
        world.turn(0)
        self.assertEqual([c for c in world.clock.getDelayedCalls() if "http2" in str(c.func)], [])


class DrainTests(Http2TestCase):
    def test_provides(self) -> None:
        world = self.world()
        self.assertTrue(IDrainable.providedBy(world.connect().wire.protocol))

    def test_nothing_under_way(self) -> None:
        world = self.world()
        client = world.connect()
        protocol = client.wire.protocol
        protocol.drain()
        protocol.drain()
        [warning] = client.look().goaways
        self.assertEqual(warning.last_stream_id, MAX_STREAM_ID)
        [ping] = client.pings
        client.send(client.ping(ping.opaque_data, ack=True))
        self.assertEqual(client.look().goaways[1].last_stream_id, 0)
        self.assertTrue(client.wire.write_closed)
        self.assertTrue(protocol.busy)

    def test_requests_under_way_are_served(self) -> None:
        world = self.world()
        client = world.connect()
        first, first_host = self.ask(world, client)
        client.wire.protocol.drain()
        # This one was sent before the warning had arrived.
        second, second_host = self.ask(world, client)
        client.send(client.ping(client.look().pings[0].opaque_data, ack=True))
        self.assertEqual([g.last_stream_id for g in client.look().goaways], [MAX_STREAM_ID, second])
        late = client.ask()
        self.assertEqual(client[late].reset, ErrorCode.REFUSED_STREAM)
        for host in (first_host, second_host):
            self.assertFalse(client.wire.write_closed)
            host.send(respond(b"Content-Length: 0"))
        self.assertEqual([client[n].ended for n in (first, second)], [True, True])
        self.assertTrue(client.wire.write_closed)

    def test_the_time_is_over(self) -> None:
        """What has not begun is an error, what has is broken off, and the client knows which was the last."""
        world = self.world()
        client = world.connect()
        waiting, _ = self.ask(world, client)
        begun, host = self.ask(world, client)
        host.send(respond(b"Content-Length: 100", body=b"some"))
        protocol = client.wire.protocol
        protocol.drain()
        self.assertEqual(protocol.doing, "HTTP/2 with 2 streams")
        protocol.end("the server stops")
        first, *others = [g.last_stream_id for g in client.look().goaways]
        self.assertEqual((first, set(others)), (MAX_STREAM_ID, {begun}))
        self.assertEqual(client[waiting].status, 503)
        self.assertEqual(client[begun].reset, ErrorCode.INTERNAL_ERROR)
        self.assertEqual(protocol.doing, "")
        self.assertTrue(client.wire.write_closed)

    def test_the_time_is_over_at_an_agent(self) -> None:
        """Whose server sees to the connection."""
        world = self.world()
        client = world.connect(reverse=True)
        number, _ = self.ask(world, client)
        client.wire.protocol.end("the agent stops")
        self.assertEqual(client[number].status, 503)
        self.assertEqual(client.look().goaways, [])
        self.assertFalse(client.wire.write_closed)

    def test_client_that_answers_no_ping(self) -> None:
        world = self.world()
        client = world.connect()
        number, host = self.ask(world, client, path(b"/forever"))
        client.wire.protocol.drain()
        world.turn(WARNING_TIME + 0.1)
        self.assertEqual([g.last_stream_id for g in client.look().goaways], [MAX_STREAM_ID, number])
        client.send(client.ping(b"draining", ack=True))
        self.assertEqual(len(client.look().goaways), 2)
        host.send(respond(b"Content-Length: 0"))
        self.assertTrue(client.wire.write_closed)

    def test_client_that_has_not_begun(self) -> None:
        world = self.world()
        client = world.connect(greet=False)
        world.clock.advance(FRESH)
        client.wire.protocol.drain()
        self.assertTrue(client.wire.write_closed)

    def test_client_that_has_just_connected(self) -> None:
        """Its first request may be on its way."""
        world = self.world()
        silent, client = world.connect(greet=False), world.connect(greet=False)
        for each in (silent, client):
            each.wire.protocol.drain()
            self.assertFalse(each.wire.write_closed)
        client.send(PREFACE, client.settings())
        stream, host = self.ask(world, client)
        world.clock.advance(QUIET)
        self.assertTrue(silent.wire.write_closed)
        self.assertFalse(client.wire.write_closed)
        host.send(respond(b"Content-Length: 0"))
        self.assertEqual(client.look().goaways[-1].last_stream_id, stream)
        self.assertTrue(client.wire.write_closed)

    def test_reverse_connection_is_left_open(self) -> None:
        world = self.world()
        client = world.connect(reverse=True)
        protocol = client.wire.protocol
        self.assertFalse(protocol.busy)
        protocol.drain()
        self.assertEqual(client.look().goaways, [])
        number, host = self.ask(world, client)
        self.assertTrue(protocol.busy)
        host.send(respond(b"Content-Length: 0"))
        self.assertTrue(client[number].ended)
        self.assertFalse(protocol.busy)


class WebSocketTests(Http2TestCase):
    CONNECT: ClassVar[Fields] = [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        *path(b"/chat")[1:],
        (b"sec-websocket-version", b"13"),
    ]

    def open(self, world: Http2World, client: Http2Peer) -> tuple[int, Wire]:
        number, host = self.ask(world, client, self.CONNECT, end=False)
        host.send(self.accept(host))
        self.assertEqual(client[number].heads, [[(b":status", b"200")]])
        return number, host

    def accept(self, host: Wire, wrong: bool = False) -> bytes:
        from base64 import b64encode
        from hashlib import sha1

        lines = dict(line.split(b": ") for line in host.take().split(b"\r\n")[1:-2])
        key = lines[b"sec-websocket-key"] + (b"x" if wrong else b"")
        digest = sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        return respond(
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + b64encode(digest),
            line=b"HTTP/1.1 101 Switching Protocols",
        )

    def test_request_becomes_an_upgrade(self) -> None:
        world = self.world()
        client = world.connect()
        number, host = self.ask(world, client, self.CONNECT, end=False)
        self.assertEqual(client.settings_seen[0][8], 1)
        head = host.take().split(b"\r\n")
        self.assertEqual(head[0], b"GET /chat HTTP/1.1")
        for line in (b"upgrade: websocket", b"Connection: Upgrade", b"sec-websocket-version: 13"):
            self.assertIn(line, head)
        client.send(client.rst(number))

    def test_bytes_pass_both_ways(self) -> None:
        world = self.world()
        client = world.connect()
        number, host = self.open(world, client)
        host.take()
        client.send(client.data(number, b"ping"))
        self.assertEqual(host.take(), b"ping")
        host.send(b"pong")
        self.assertEqual(client[number].body, b"pong")
        self.assertTrue(client.wire.protocol.busy)
        client.send(client.data(number, b"", True))
        world.turn()
        self.assertTrue(host.write_closed)
        host.end()
        world.turn()
        self.assertTrue(client[number].ended)
        self.assertFalse(client.wire.protocol.busy)
        [record] = world.records
        self.assertEqual((record.status, record.bytes_received, record.bytes_sent), (101, 4, 4))

    def test_what_comes_before_the_answer_waits(self) -> None:
        world = self.world()
        client = world.connect()
        number, host = self.ask(world, client, self.CONNECT, end=False)
        client.send(client.data(number, b"early"), client.data(number, b"", True))
        answer = self.accept(host)
        host.send(answer + b"hello")
        self.assertEqual(client[number].body, b"hello")
        world.turn()
        self.assertEqual((host.take(), host.write_closed), (b"early", True))
        host.end()
        world.turn()

    def test_declined(self) -> None:
        world = self.world()
        client = world.connect()
        number, host = self.ask(world, client, self.CONNECT, end=False)
        client.send(client.data(number, b"early"))
        host.send(respond(b"Content-Length: 2", line=b"HTTP/1.1 403 No", body=b"no"))
        answer = client[number]
        self.assertEqual((answer.status, answer.body, answer.ended), (403, b"no", True))
        self.assertEqual(answer.reset, ErrorCode.NO_ERROR)
        self.assertFalse(client.wire.protocol.busy)

    def test_host_that_understood_something_else(self) -> None:
        world = self.world()
        client = world.connect()
        number, host = self.ask(world, client, self.CONNECT, end=False)
        host.send(self.accept(host, wrong=True))
        self.assertEqual((client[number].status, host.aborted), (502, True))

    def test_other_protocols_need_no_key(self) -> None:
        world = self.world()
        client = world.connect()
        number, host = self.ask(
            world, client, [(b":method", b"CONNECT"), (b":protocol", b"other"), *GET[1:]], end=False
        )
        self.assertNotIn(b"sec-websocket-key", host.take())
        host.send(respond(b"Upgrade: other", b"Connection: Upgrade", line=b"HTTP/1.1 101 Yes"))
        self.assertEqual(client[number].status, 200)
        client.send(client.rst(number))
        world.turn()
        world.turn(20)
        self.assertTrue(host.lost)

    def test_host_that_closes(self) -> None:
        world = self.world()
        client = world.connect()
        number, host = self.open(world, client)
        host.reset()
        self.assertTrue(client[number].ended)
        self.assertTrue(client.wire.protocol.busy)
        client.send(client.data(number, b"late"), client.data(number, b"", True))
        self.assertFalse(client.wire.protocol.busy)

    def test_client_that_does_not_agree_to_a_close(self) -> None:
        world = self.world()
        client = world.connect()
        number, host = self.open(world, client)
        host.reset()
        world.turn(16)
        self.assertEqual(client[number].reset, ErrorCode.CANCEL)
        self.assertFalse(client.wire.protocol.busy)

    def test_client_that_cancels(self) -> None:
        world = self.world()
        client = world.connect()
        number, host = self.open(world, client)
        client.send(client.rst(number))
        world.turn()
        self.assertTrue(host.disconnecting or host.lost)
        self.assertFalse(client.wire.protocol.busy)
        world.turn(20)

    def test_connection_that_is_lost(self) -> None:
        world = self.world()
        client = world.connect()
        _, host = self.open(world, client)
        client.wire.reset()
        world.turn()
        self.assertTrue(host.disconnecting or host.lost)
        world.turn(20)

    def test_back_pressure(self) -> None:
        world = self.world()
        client = world.connect({4: 1000})
        number, host = self.open(world, client)
        host.send(bytes(100_000))
        self.assertFalse(host.reading)
        client.send(client.window(0, 200_000), client.window(number, 200_000))
        world.turn()
        self.assertTrue(host.reading)
        self.assertEqual(len(client[number].body), 100_000)
        client.send(client.rst(number))
        world.turn(20)

    def test_back_pressure_of_the_host(self) -> None:
        world = self.world(http2={"initial_window_size": 65_536})
        world.endpoint.automatic = False
        client = world.connect()
        number = client.ask(self.CONNECT, end=False)
        host = world.host()
        host.receive()
        host.send(self.accept(host))
        client.look()
        client.send(*[client.data(number, bytes(13_000)) for _ in range(4)])
        seen = len(client.look().windows)
        client.send(*[client.data(number, bytes(13_000)) for _ in range(4)])
        self.assertEqual(len(client.look().windows), seen)
        for _ in range(3):
            host.receive()
            world.turn()
        self.assertGreater(len(client.look().windows), seen)
        client.send(client.rst(number))
        world.turn(20)

    def test_idle_tunnel_is_closed(self) -> None:
        world = self.world(session_idle=30.0)
        client = world.connect()
        number, host = self.open(world, client)
        for _ in range(5):
            world.run(20)
            host.send(b"x")
        self.assertFalse(client[number].ended)
        world.run(38)
        self.assertTrue(client[number].ended)
        client.send(client.data(number, b"", True))
        world.turn(20)
