"""Tests for L{reverseproxy.proxy.http.http2_client}: hosts that speak HTTP/2."""

from __future__ import annotations

from typing import Any

from hpack import Decoder, NeverIndexedHeaderTuple
from hyperframe.frame import HeadersFrame
from twisted.internet.error import ConnectError
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.errors import QueueFull
from reverseproxy.proxy.http import http2_client, http2_connection, http2_pool
from reverseproxy.proxy.http.http2_client import GREETING_TIME
from reverseproxy.proxy.http.http2_pool import MAX_STREAMS, POOL, Http2Pool
from reverseproxy.proxy.pools import pool_of
from reverseproxy.wire.http2.frames import MAX_STREAM_ID, ErrorCode
from tests.proxy.http2_memory import Http2Peer, Http2World
from tests.proxy.memory import ROUTES, Wire
from tests.proxy.test_http2 import path
from tests.wire.http1_cases import get
from tests.wire.http2_frames import GET, OK, POST, Fields, raw, read_frames

HTTP2 = [
    {**rule, "route": {**rule["route"], "upstream_protocol": "Http2"}} if "route" in rule else rule
    for rule in ROUTES
]
"""The usual routes, to hosts that speak HTTP/2."""


class UpstreamTestCase(SynchronousTestCase):
    def world(self, *args: Any, **more: Any) -> Http2World:
        world = Http2World(*args, **{"routes": HTTP2, **more})
        self.addCleanup(world.check_idle, self.fail)
        return world

    def pair(
        self, world: Http2World, fields: Fields = GET, **settings: int
    ) -> tuple[Http2Peer, Http2Peer, int]:
        """A client, a host, and a request that has come as far."""
        client = world.connect()
        number = client.ask(fields)
        return client, world.peer(), number

    def pool(self, world: Http2World, number: int = 0) -> Http2Pool:
        pool = world.hosts[number].pools[POOL]
        assert isinstance(pool, Http2Pool)
        return pool


class ExchangeTests(UpstreamTestCase):
    def test_get(self) -> None:
        world = self.world()
        client, host, number = self.pair(world, [*path(b"/a?b"), (b"te", b"trailers"), (b"x", b"y")])
        self.assertEqual(
            host[1].heads,
            [
                [
                    (b":method", b"GET"),
                    (b":scheme", b"http"),
                    (b":authority", b"example.com"),
                    (b":path", b"/a?b"),
                    (b"x", b"y"),
                    (b"te", b"trailers"),
                ]
            ],
        )
        self.assertTrue(host[1].ended)
        self.assertEqual(host.settings_seen[0][2], 0)
        host.answer(1, [*OK, (b"server", b"z")], b"hello", [(b"grpc-status", b"0")])
        answer = client[number]
        self.assertEqual(answer.heads, [[(b":status", b"200"), (b"server", b"z")]])
        self.assertEqual(
            (answer.body, answer.trailers, answer.ended), (b"hello", [(b"grpc-status", b"0")], True)
        )

    def test_a_host_that_takes_nothing(self) -> None:
        """Requests that are cancelled wait there nevertheless: no more are added beyond a bound."""
        self.patch(http2_connection, "MOST_QUEUED", 50_000)
        only = {"circuit_breakers": [{"max_connections": 1}]}
        world = self.world(http2={"max_resets": 10_000}, cluster=only)
        world.endpoint.automatic = False
        client = world.connect()
        first = client.ask()
        world.host().receive()
        for number in range(50):
            cancelled = client.ask([*GET, (b"x", b"%d" % number + b"y" * 6000)])
            client.send(client.rst(cancelled))
        self.assertLess(world.host().protocol.http2.queued(), 60_000)
        self.assertEqual(client[client.ask()].status, 503)
        for _ in range(3):
            world.host().receive()
            world.turn()
        last = client.ask()
        self.assertNotIn(last, client.look().messages)
        client.send(client.rst(first), client.rst(last))

    def test_clients_that_cancel_do_not_cost_the_connection(self) -> None:
        """What the host has sent until it hears of that is no flood, whatever others make of it."""
        world = self.world(http2={"max_resets": 1000})
        client, host, number = self.pair(world)
        for _ in range(600):
            cancelled = client.ask()
            [*_, asked] = host.look().messages
            client.send(client.rst(cancelled))
            host.send(host.headers(asked, OK), host.data(asked, b"x") * 20)
        host.answer(1)
        self.assertTrue(client[number].ended)
        self.assertEqual(len(world.endpoint.wires), 1)

    def test_secrets_stay_secrets(self) -> None:
        """A guess that another client has put into the table of the host does not match them."""
        world = self.world()
        secret = NeverIndexedHeaderTuple(b"x-api-key", b"secret")
        _client, host, _ = self.pair(world, [*GET, (b"x-api-key", b"secret")])
        host.answer(1)
        world.connect().ask([*GET, secret])
        [frame] = [frame for frame in read_frames(host.wire.take()) if isinstance(frame, HeadersFrame)]
        *_, forwarded = host.decoder.decode(frame.data, raw=True)
        self.assertEqual((tuple(forwarded), forwarded.indexable), (tuple(secret), False))
        host.answer(3, [*OK, secret])
        [wire] = world.clients[1:]
        *_, frame = [frame for frame in read_frames(wire.take()) if isinstance(frame, HeadersFrame)]
        *_, forwarded = Decoder().decode(frame.data, raw=True)
        self.assertFalse(forwarded.indexable)

    def test_answer_of_trailers_alone(self) -> None:
        world = self.world()
        client, host, number = self.pair(world, POST)
        host.answer(1, [*OK, (b"content-type", b"application/grpc"), (b"grpc-status", b"5")], None)
        answer = client[number]
        self.assertEqual(len(answer.heads), 1)
        self.assertEqual((answer.header(b"grpc-status"), answer.trailers, answer.ended), (b"5", None, True))

    def test_streaming_both_ways(self) -> None:
        world = self.world()
        client = world.connect()
        number = client.ask(POST, b"one", end=False)
        host = world.peer()
        self.assertEqual((host[1].body, host[1].ended), (b"one", False))
        host.send(host.headers(1, OK))
        self.assertEqual(client[number].status, 200)
        for index in range(5):
            client.send(client.data(number, b"%d" % index))
            host.send(host.data(1, b"%d!" % index))
        self.assertEqual((host[1].body, client[number].body), (b"one01234", b"0!1!2!3!4!"))
        client.send(client.headers(number, [(b"a", b"b")], True))
        self.assertEqual((host[1].trailers, host[1].ended), ([(b"a", b"b")], True))
        host.send(host.headers(1, [(b"c", b"d")], True))
        self.assertEqual((client[number].trailers, client[number].ended), ([(b"c", b"d")], True))

    def test_http1_client(self) -> None:
        world = self.world()
        client = world.http1_client()
        client.send(get(b"Connection: close, X", b"X: 1", b"Cookie: b=c"))
        host = world.peer()
        self.assertEqual(
            host[1].heads[0][1:],
            [(b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/"), (b"cookie", b"b=c")],
        )
        host.answer(1, [*OK, (b"x", b"y")], b"hello", [(b"sum", b"1")])
        self.assertEqual(
            client.take(),
            b"HTTP/1.1 200 OK\r\nx: y\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n0\r\nsum: 1\r\n\r\n",
        )

    def test_http1_clients_body_and_trailers(self) -> None:
        world = self.world()
        client = world.http1_client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        host = world.peer()
        client.send(b"0\r\nX-Sum: 1\r\n\r\n")
        self.assertEqual((host[1].body, host[1].trailers), (b"abc", [(b"x-sum", b"1")]))
        host.answer(1, OK, None)
        self.assertEqual(client.take(), b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab")
        self.assertEqual(
            (host[3].body, host[3].header(b"content-length"), host[3].ended), (b"ab", b"2", True)
        )
        host.answer(3, [(b":status", b"204")], None)
        self.assertEqual(client.take(), b"HTTP/1.1 204 No Content\r\n\r\n")

    def test_head(self) -> None:
        world = self.world()
        client = world.http1_client()
        client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        world.peer().answer(1, [*OK, (b"content-length", b"9")], None)
        self.assertEqual(client.take(), b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")

    def test_interim_answers(self) -> None:
        world = self.world()
        client, host, number = self.pair(world, [*POST, (b"expect", b"100-continue")])
        host.send(host.headers(1, [(b":status", b"100")]), host.headers(1, OK, True))
        self.assertEqual([dict(head)[b":status"] for head in client[number].heads], [b"100", b"200"])

    def test_many_requests_share_a_connection(self) -> None:
        world = self.world()
        client = world.connect()
        numbers = [client.ask(path(b"/%d" % i)) for i in range(80)]
        self.assertEqual(len(world.endpoint.wires), 1)
        host = world.peer()
        for stream in reversed(range(1, 161, 2)):
            host.answer(stream, OK, host[stream].header(b":path"))
        self.assertEqual([client[n].body for n in numbers], [b"/%d" % i for i in range(80)])
        [connection] = self.pool(world)._open
        self.assertEqual(connection.active, 0)

    def test_requests_that_wait_for_the_same_connection(self) -> None:
        world = self.world()
        world.endpoint.answer = "wait"
        client = world.connect()
        numbers = [client.ask() for _ in range(3)]
        self.assertEqual(len(world.endpoint.dials), 1)
        client.send(client.rst(numbers[1]))
        world.endpoint.dials[0].succeed()
        host = world.peer()
        self.assertEqual(sorted(host.messages), [1, 3])
        host.answer(1)
        host.answer(3)
        self.assertTrue(client[numbers[0]].ended and client[numbers[2]].ended)

    def test_host_that_cant_be_reached(self) -> None:
        world = self.world()
        world.endpoint.answer = ConnectError()
        client = world.connect()
        self.assertEqual(client[client.ask()].status, 502)

    def test_cancelled_request(self) -> None:
        world = self.world()
        client, host, number = self.pair(world)
        client.send(client.rst(number))
        self.assertEqual(host[1].reset, ErrorCode.CANCEL)
        # What was under way for it does no harm.
        host.answer(1)
        self.assertEqual(client[client.ask(path(b"/direct"))].status, 418)
        self.assertEqual(self.pool(world).connections, 1)

    def test_reset_by_the_host(self) -> None:
        for code in (ErrorCode.CANCEL, ErrorCode.INTERNAL_ERROR):
            world = self.world()
            client, host, number = self.pair(world, POST)
            host.send(host.headers(1, OK), host.data(1, b"some"), host.rst(1, code))
            self.assertEqual((client[number].body, client[number].reset), (b"some", code))
            before = client.ask(POST)
            host.send(host.rst(3, code))
            self.assertEqual(client[before].status, 502)

    def test_answer_before_the_end_of_the_request(self) -> None:
        world = self.world()
        client = world.connect()
        number = client.ask(POST, b"abc", end=False)
        host = world.peer()
        host.answer(1, [(b":status", b"413")], b"no")
        self.assertEqual((client[number].status, client[number].ended), (413, True))
        self.assertEqual((client[number].reset, host[1].reset), (ErrorCode.NO_ERROR, ErrorCode.NO_ERROR))

    def test_malformed_answer_harms_nobody_else(self) -> None:
        world = self.world()
        client = world.connect()
        bad, good = client.ask(), client.ask()
        host = world.peer()
        host.answer(1, [*OK, (b"Connection", b"close")])
        self.assertEqual((client[bad].status, host[1].reset), (502, ErrorCode.PROTOCOL_ERROR))
        host.answer(3)
        self.assertEqual(client[good].body, b"ok")

    def test_answer_that_turns_out_malformed(self) -> None:
        world = self.world()
        client, host, number = self.pair(world)
        host.answer(1, [*OK, (b"content-length", b"9")], b"short")
        self.assertEqual(client[number].reset, ErrorCode.INTERNAL_ERROR)

    def test_request_head_that_the_host_does_not_take(self) -> None:
        world = self.world()
        client, host, number = self.pair(world)
        host.send(host.settings({6: 200}))
        host.answer(1)
        refused = client.ask([*GET, (b"x", b"y" * 200)])
        self.assertEqual((client[refused].status, client[number].status), (431, 200))
        self.assertEqual(sorted(host.look().messages), [1])

    def test_timeout(self) -> None:
        world = self.world()
        client, host, number = self.pair(world, path(b"/quick"))
        world.turn(2)
        self.assertEqual((client[number].status, host[1].reset), (504, ErrorCode.CANCEL))


class BackPressureTests(UpstreamTestCase):
    def test_slow_client_closes_the_window_of_its_stream_alone(self) -> None:
        world = self.world()
        client = world.connect({4: 1000})
        slow, fast = client.ask(), client.ask()
        host = world.peer()
        window = http2_pool.LIMITS.stream_window
        host.send(host.headers(1, OK), *host.pieces(1, bytes(window), False))
        self.assertEqual(len(client[slow].body), 1000)
        # It may send no more: nearly nothing of that has gone on.
        opened = sum(size for stream, size in host.look().windows if stream == 1)
        self.assertEqual(opened, 0)
        host.answer(3, OK, bytes(900))
        self.assertTrue(client[fast].ended)
        client.send(client.window(0, 1_000_000), client.window(slow, 1_000_000))
        self.assertEqual(len(client[slow].body), window)
        self.assertEqual(sum(size for stream, size in host.look().windows if stream == 1), window)
        host.send(host.data(1, b"", True))
        self.assertTrue(client[slow].ended)

    def test_slow_host_holds_back_its_client(self) -> None:
        world = self.world()
        client = world.connect()
        number = client.ask(POST, bytes(100_000), end=False)
        host = world.peer(settings={4: 1000})
        exchange = world.clients[0].protocol._streams[number].exchange
        self.assertTrue(exchange.holds_back)
        host.send(host.window(0, 90_000), host.window(1, 90_000))
        self.assertFalse(exchange.holds_back)
        other = client.ask()
        host.answer(3)
        self.assertTrue(client[other].ended)
        client.send(client.rst(number))

    def test_host_whose_connection_is_full(self) -> None:
        world = self.world()
        world.endpoint.automatic = False
        client = world.connect()
        number = client.ask(POST, bytes(200_000), end=False)
        wire = world.host()
        host = Http2Peer(wire, False, {4: 10_000_000})
        host.send(host.window(0, 10_000_000))
        self.assertLess(wire.most_buffered, 150_000)
        for _ in range(10):
            wire.receive()
            world.turn()
        self.assertEqual(len(host[1].body), 200_000)
        client.send(client.rst(number))

    def test_slow_http1_client(self) -> None:
        world = self.world()
        client = world.http1_client()
        client.automatic = False
        client.send(get())
        host = world.peer()
        host.send(host.headers(1, OK), *host.pieces(1, bytes(160_000), False))
        self.assertEqual([size for stream, size in host.look().windows if stream], [])
        host.send(*host.pieces(1, bytes(100_000), True))
        self.assertEqual([size for stream, size in host.look().windows if stream], [])
        while client.buffered:
            client.receive()
            world.turn()
        self.assertTrue(client.take().endswith(b"0\r\n\r\n"))


class GoAwayTests(UpstreamTestCase):
    def test_streams_that_were_not_processed_are_sent_again(self) -> None:
        world = self.world()
        client = world.connect()
        numbers = [client.ask(POST, b"body%d" % i) for i in range(3)]
        first = world.peer()
        first.send(first.goaway(1, ErrorCode.NO_ERROR))
        self.assertEqual(len(world.endpoint.wires), 2)
        second = world.peer()
        self.assertEqual([second[n].body for n in (1, 3)], [b"body1", b"body2"])
        self.assertFalse(first.wire.disconnecting)
        first.answer(1)
        self.assertTrue(first.wire.disconnecting)
        second.answer(1)
        second.answer(3)
        self.assertEqual([client[n].body for n in numbers], [b"ok"] * 3)

    def test_the_next_connection_does_not_wait_for_the_last_stream(self) -> None:
        """A connection that takes no more requests does not count for C{max_connections}."""
        world = self.world(cluster={"circuit_breakers": [{"max_connections": 1}]})
        client, first, number = self.pair(world)
        first.send(first.goaway(1))
        self.assertEqual(world.hosts[0].connections, 0)
        other = client.ask()
        world.peer().answer(1)
        first.answer(1)
        self.assertTrue(client[number].ended and client[other].ended)
        self.assertTrue(first.wire.disconnecting)
        self.assertEqual(world.hosts[0].connections, 1)

    def test_warning(self) -> None:
        world = self.world()
        client, first, number = self.pair(world)
        first.send(first.goaway(MAX_STREAM_ID))
        other = client.ask()
        second = world.peer()
        second.answer(1)
        self.assertTrue(client[other].ended)
        first.answer(1)
        self.assertTrue(client[number].ended)
        self.assertTrue(first.wire.disconnecting)

    def test_idle_connection_closes(self) -> None:
        world = self.world()
        _, host, _ = self.pair(world)
        host.answer(1)
        host.send(host.goaway(1))
        self.assertTrue(host.wire.disconnecting)
        self.assertEqual(self.pool(world).connections, 0)

    def test_refused_stream_is_sent_again(self) -> None:
        world = self.world(hosts=2)
        client = world.connect()
        number = client.ask(POST, b"body")
        [wire] = [w for e in world.endpoints for w in e.wires]
        first = world.peer(wire)
        first.send(first.rst(1, ErrorCode.REFUSED_STREAM))
        [other] = [w for e in world.endpoints for w in e.wires if w is not wire]
        second = world.peer(other)
        self.assertEqual(second[1].body, b"body")
        second.answer(1)
        self.assertTrue(client[number].ended)

    def test_lost_connection(self) -> None:
        world = self.world()
        client = world.connect()
        safe, unsafe = client.ask(GET), client.ask(POST)
        host = world.peer()
        host.wire.reset()
        self.assertEqual(client[unsafe].status, 500)
        again = world.peer()
        again.answer(1)
        self.assertEqual(client[safe].status, 200)

    def test_error_of_the_connection(self) -> None:
        world = self.world()
        client, host, number = self.pair(world, POST)
        host.send(raw(6, 0, 0, b"short"))
        self.assertEqual(client[number].status, 500)
        self.assertEqual(host.look().goaways[0].error_code, ErrorCode.FRAME_SIZE_ERROR)
        self.assertTrue(host.wire.write_closed)
        self.assertEqual(self.pool(world).connections, 0)

    def test_host_that_speaks_http1(self) -> None:
        world = self.world()
        client = world.connect()
        number = client.ask(POST)
        world.host().send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.assertEqual(client[number].status, 502)


class ConnectionTests(UpstreamTestCase):
    def test_host_that_allows_few_streams(self) -> None:
        world = self.world()
        client, first, _ = self.pair(world)
        first.send(first.settings({3: 1}))
        client.ask()
        self.assertEqual(len(world.endpoint.wires), 2)
        world.peer().answer(1)
        first.answer(1)
        client.ask()
        self.assertEqual(len(world.endpoint.wires), 2)
        first.answer(3)

    def test_no_settings(self) -> None:
        world = self.world()
        client = world.connect()
        number = client.ask(path(b"/forever", POST))
        world.turn(GREETING_TIME + 0.1)
        self.assertTrue(world.host().aborted)
        self.assertEqual(client[number].status, 502)

    def test_idle_timeout(self) -> None:
        world = self.world(cluster={"idle_timeout": 30.0})
        _, host, _ = self.pair(world)
        host.answer(1)
        world.turn(29)
        self.assertFalse(host.wire.disconnecting)
        world.turn(2)
        self.assertTrue(host.wire.disconnecting)
        self.assertEqual(host.look().goaways[0].error_code, ErrorCode.NO_ERROR)

    def test_no_idle_timeout_while_a_request_is_under_way(self) -> None:
        world = self.world(cluster={"idle_timeout": 30.0})
        client, host, number = self.pair(world, path(b"/forever"))
        world.turn(100)
        host.answer(1)
        self.assertTrue(client[number].ended)
        world.turn(31)
        self.assertTrue(host.wire.disconnecting)

    def test_keepalive(self) -> None:
        world = self.world(cluster={"keepalive": {"interval": 10.0, "timeout": 3.0}})
        _, host, _ = self.pair(world)
        host.answer(1)
        for count in range(1, 4):
            world.turn(10)
            self.assertEqual(len(host.look().pings), count)
            host.send(host.ping(host.pings[-1].opaque_data, ack=True))
            world.turn(0)
        world.turn(10)
        world.turn(2)
        self.assertFalse(host.wire.aborted)
        world.turn(1)
        self.assertTrue(host.wire.aborted)
        self.assertEqual(self.pool(world).connections, 0)

    def test_keepalive_of_a_process_that_had_no_turn(self) -> None:
        """It hears of the time that is over before it hears the answer."""
        world = self.world(cluster={"keepalive": {"interval": 10.0, "timeout": 3.0}})
        _, host, _ = self.pair(world)
        host.answer(1)
        for _ in range(3):
            asked = len(host.look().pings)
            while len(host.look().pings) == asked:
                world.turn(1)
            world.clock.advance(60)
            world.turn(0)
            self.assertFalse(host.wire.aborted)
            for _ in range(2):  # it asks again as soon as it has a turn
                host.look()
                host.send(host.ping(host.pings[-1].opaque_data, ack=True))
                world.turn(3)
                self.assertFalse(host.wire.aborted)
        world.turn(10)
        world.turn(10)
        world.turn(3)
        self.assertTrue(host.wire.aborted)

    def negotiate(self, protocol: str | None) -> None:
        """Let TLS be there, and agree on a protocol."""
        self.patch(http2_client, "negotiated_protocol", lambda _: protocol)

    def test_alpn(self) -> None:
        for protocol, scheme in (("h2", b"https"), (None, b"http")):
            self.negotiate(protocol)
            world = self.world()
            _, host, _ = self.pair(world)
            self.assertEqual(dict(host[1].heads[0])[b":scheme"], scheme)
            host.answer(1)

    def test_alpn_of_something_else(self) -> None:
        self.negotiate("http/1.1")
        world = self.world()
        client = world.connect()
        self.assertEqual(client[client.ask()].status, 502)
        self.assertEqual(world.host().written, b"")

    def test_alpn_of_something_else_where_clients_may_choose(self) -> None:
        """Then it is what the host speaks that counts, and no fault of the host's."""
        self.negotiate("http/1.1")
        world = Http2World(routes=[{"match": {"prefix": "/"}, "route": {"cluster_name": "c"}}])
        object.__setattr__(world.settings, "protocols_differ", True)
        reported: list[Outcome] = []
        report = world.cluster.report
        self.patch(world.cluster, "report", lambda *told: reported.append(told[1]) or report(*told))
        for _ in range(3):
            client = world.connect()
            number = client.ask()
            host = world.host()
            self.assertTrue(host.written.startswith(b"GET / HTTP/1.1\r\n"), host.written)
            host.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            self.assertEqual((client[number].status, client[number].body), (200, b"ok"))
            world.turn()
        self.assertNotIn(Outcome.UNREACHABLE, reported)
        self.assertEqual(len(world.endpoint.wires), 4)  # it was tried once

    def test_host_that_leaves(self) -> None:
        world = self.world()
        client, host, number = self.pair(world)
        world.cluster.remove_host(world.hosts[0])
        self.assertFalse(host.wire.disconnecting)
        host.answer(1)
        self.assertTrue(client[number].ended)
        self.assertTrue(host.wire.disconnecting)

    def test_host_that_is_closed(self) -> None:
        world = self.world()
        client, host, number = self.pair(world, POST)
        world.cluster.close("for the test")
        self.assertTrue(host.wire.aborted)
        self.assertEqual(client[number].status, 500)

    def test_host_that_is_closed_while_it_is_dialled(self) -> None:
        world = self.world()
        world.endpoint.answer = "wait"
        client = world.connect()
        number = client.ask()
        world.cluster.close("for the test")
        self.assertTrue(world.endpoint.dials[0].cancelled)
        self.assertEqual(client[number].status, 502)

    def test_host_that_leaves_while_it_is_dialled(self) -> None:
        """The requests that have waited for the connection are answered, and then it goes."""
        world = self.world()
        world.endpoint.answer = "wait"
        client = world.connect()
        number = client.ask()
        world.cluster.remove_host(world.hosts[0])
        world.endpoint.dials[0].succeed()
        host = world.peer()
        self.assertFalse(host.wire.disconnecting)
        host.answer(1)
        self.assertEqual(client[number].status, 200)
        self.assertTrue(host.wire.disconnecting)

    def test_host_that_closes_its_side(self) -> None:
        world = self.world()
        client, host, number = self.pair(world, POST)
        host.wire.end()
        self.assertEqual(client[number].status, 500)
        self.assertTrue(host.wire.disconnecting)

    def test_local_address(self) -> None:
        world = self.world()
        _, host, _ = self.pair(world)
        host.answer(1)
        self.assertEqual(world.records[0].upstream.local, "10.0.0.1:1")
        self.assertGreater(world.records[0].upstream.connection, 0)


class LimitTests(UpstreamTestCase):
    def test_max_request_per_conn(self) -> None:
        world = self.world(cluster={"max_request_per_conn": 2})
        client = world.connect()
        first = [client.ask() for _ in range(3)]
        self.assertEqual(len(world.endpoint.wires), 2)
        self.assertEqual(world.hosts[0].connections, 1)
        old, new = world.peer(world.endpoint.wires[0]), world.peer(world.endpoint.wires[1])
        for number in (1, 3):
            self.assertFalse(world.endpoint.wires[0].disconnecting)
            old.answer(number, OK, b"x")
        world.turn()
        self.assertTrue(world.endpoint.wires[0].lost)
        self.assertEqual(old.look().goaways[0].error_code, ErrorCode.NO_ERROR)
        new.answer(1, OK, b"x")
        self.assertTrue(all(client[number].ended for number in first))
        world.hosts[0].close("test")

    def test_connections_that_leave_are_closed_with_their_host(self) -> None:
        world = self.world(cluster={"max_request_per_conn": 1})
        client = world.connect()
        number = client.ask(POST)
        self.assertEqual(self.pool(world).connections, 0)
        world.hosts[0].close("test")
        self.assertTrue(world.endpoint.wires[0].aborted)
        self.assertEqual(client[number].status, 502)

    def test_max_connections(self) -> None:
        """Requests wait that would need another connection."""
        world = self.world(cluster={"circuit_breakers": [{"max_connections": 1}]})
        client = world.connect()
        numbers = [client.ask()]
        host = world.peer(settings={3: 2})
        numbers += [client.ask() for _ in range(4)]
        self.assertEqual((len(world.endpoint.wires), world.cluster.waiting), (1, 3))
        for number in (1, 3, 5, 7, 9):
            host.answer(number, OK, b"x")
        self.assertTrue(all(client[number].ended for number in numbers))

    def test_max_connections_while_one_is_made(self) -> None:
        """It may have less room than was thought."""
        world = self.world(cluster={"circuit_breakers": [{"max_connections": 1}]})
        pool = pool_of(POOL, world.hosts[0], world.clock, None)
        assert isinstance(pool, Http2Pool)
        world.hosts[0].connection_opened()
        self.failureResultOf(pool.connect(), QueueFull)
        world.hosts[0].connection_closed()


class ReverseTests(UpstreamTestCase):
    def test_one_connection_carries_many_requests(self) -> None:
        world = self.world(hosts=0)
        wire = world.agent()
        client = world.connect()
        numbers = [client.ask() for _ in range(50)]
        agent = world.peer(wire)
        self.assertEqual(world.hosts[0].capacity, MAX_STREAMS)
        for stream in range(1, 101, 2):
            agent.answer(stream)
        self.assertEqual([client[n].body for n in numbers], [b"ok"] * 50)

    def test_nothing_is_said_before_the_first_request(self) -> None:
        world = self.world(hosts=0)
        wire = world.agent()
        world.turn(100)
        self.assertEqual(wire.take(), b"")

    def test_agent_that_allows_few_streams(self) -> None:
        world = self.world(hosts=0)
        agent_wire = world.agent()
        client = world.connect()
        first = client.ask()
        agent = world.peer(agent_wire, {3: 2})
        second, third = client.ask(), client.ask()
        self.assertEqual(sorted(agent.look().messages), [1, 3])
        self.assertEqual(world.cluster.waiting, 1)
        agent.answer(1)
        self.assertEqual(sorted(agent.look().messages), [1, 3, 5])
        agent.answer(3)
        agent.answer(5)
        self.assertEqual([client[n].body for n in (first, second, third)], [b"ok"] * 3)

    def test_no_idle_timeout(self) -> None:
        world = self.world(hosts=0, cluster={"idle_timeout": 30.0})
        wire = world.agent()
        client = world.connect()
        client.ask()
        world.peer(wire).answer(1)
        world.turn(10_000)
        self.assertFalse(wire.disconnecting)

    def test_goaway_takes_the_host_out_of_its_cluster(self) -> None:
        world = self.world(hosts=0)
        wire, other = world.agent("a:1"), None
        client = world.connect()
        number, late = client.ask(), client.ask(POST, b"x")
        agent = world.peer(wire)
        other = world.agent("a:2")
        agent.send(agent.goaway(1))
        self.assertEqual(list(world.cluster.hosts), ["a:2"])
        second = world.peer(other)
        self.assertEqual(second[1].body, b"x")
        second.answer(1)
        self.assertFalse(wire.disconnecting)
        agent.answer(1)
        self.assertEqual([client[n].body for n in (number, late)], [b"ok", b"ok"])
        self.assertTrue(wire.disconnecting)
        self.assertFalse(wire.aborted)

    def test_goaway_of_an_idle_agent(self) -> None:
        world = self.world(hosts=0)
        wire = world.agent()
        client = world.connect()
        client.ask()
        agent = world.peer(wire)
        agent.answer(1)
        agent.send(agent.goaway(1))
        world.turn()
        self.assertTrue(wire.disconnecting)
        self.assertEqual(world.cluster.hosts, {})

    def test_error_takes_the_host_out_of_its_cluster(self) -> None:
        world = self.world(hosts=0)
        wire = world.agent()
        client = world.connect()
        number = client.ask(POST)
        agent = world.peer(wire)
        agent.send(raw(6, 0, 0, b"short"))
        self.assertEqual(world.cluster.hosts, {})
        self.assertEqual(client[number].status, 500)
        self.assertEqual(len(agent.look().goaways), 1)
        world.turn(20)
        self.assertTrue(wire.lost)

    def test_lost_connection(self) -> None:
        world = self.world(hosts=0)
        wire = world.agent()
        client = world.connect()
        number = client.ask(POST)
        wire.reset()
        self.assertEqual(client[number].status, 502)
        self.assertEqual(world.cluster.hosts, {})

    def test_retired_host(self) -> None:
        world = self.world(hosts=0)
        wire = world.agent()
        client = world.connect()
        number = client.ask()
        agent = world.peer(wire)
        world.cluster.remove_host(world.hosts[0], "drained")
        self.assertFalse(wire.disconnecting)
        agent.answer(1)
        self.assertTrue(client[number].ended)
        world.turn()
        self.assertTrue(wire.disconnecting)
        self.assertEqual(agent.look().goaways[0].error_code, ErrorCode.NO_ERROR)
        world.turn(20)

    def test_retired_idle_host(self) -> None:
        world = self.world(hosts=0)
        wire = world.agent()
        client = world.connect()
        client.ask()
        agent = world.peer(wire)
        agent.answer(1)
        world.cluster.remove_host(world.hosts[0], "drained")
        self.assertTrue(wire.disconnecting)
        self.assertEqual(len(agent.look().goaways), 1)
        world.turn(20)


class WebSocketTests(UpstreamTestCase):
    UPGRADE = get(
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        b"Sec-WebSocket-Version: 13",
    )

    def open(self, world: Http2World) -> tuple[Wire, Http2Peer]:
        client = world.http1_client()
        client.send(self.UPGRADE)
        host = world.peer(settings={8: 1})
        self.assertEqual(
            host[1].heads[0],
            [
                (b":method", b"CONNECT"),
                (b":scheme", b"http"),
                (b":authority", b"a"),
                (b":path", b"/"),
                (b":protocol", b"websocket"),
                (b"sec-websocket-version", b"13"),
            ],
        )
        self.assertFalse(host[1].ended)
        return client, host

    def test_upgrade_becomes_a_connect(self) -> None:
        world = self.world()
        client, host = self.open(world)
        host.send(host.headers(1, [*OK, (b"sec-websocket-protocol", b"chat")]), host.data(1, b"hello"))
        head, _, rest = client.take().partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        self.assertEqual(lines[0], b"HTTP/1.1 101 Switching Protocols")
        for line in (
            b"upgrade: websocket",
            b"Connection: Upgrade",
            b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            b"sec-websocket-protocol: chat",
        ):
            self.assertIn(line, lines)
        self.assertEqual(rest, b"hello")
        client.send(b"ping")
        self.assertEqual(host[1].body, b"ping")
        host.send(host.data(1, b"pong", True))
        self.assertEqual(client.take(), b"pong")
        world.turn()
        self.assertTrue(client.write_closed)
        client.end()
        world.turn()
        self.assertTrue(host[1].ended)

    def test_answer_and_end_at_once(self) -> None:
        world = self.world()
        client, host = self.open(world)
        host.send(host.headers(1, OK), host.data(1, b"bye", True))
        world.turn()
        self.assertTrue(client.take().endswith(b"\r\n\r\nbye"))
        self.assertTrue(client.write_closed)
        client.end()
        world.turn()

    def test_declined(self) -> None:
        world = self.world()
        client, host = self.open(world)
        host.answer(1, [(b":status", b"403")], b"no")
        self.assertIn(b"HTTP/1.1 403", client.take())

    def test_host_that_can_only_http(self) -> None:
        world = self.world()
        client = world.http1_client()
        client.send(self.UPGRADE)
        host = world.peer()
        self.assertEqual(host.look().messages, {})
        self.assertIn(b"HTTP/1.1 501", client.take())

    def test_client_that_leaves_before_the_settings(self) -> None:
        world = self.world()
        client = world.http1_client()
        client.send(self.UPGRADE)
        client.reset()
        host = world.peer(settings={8: 1})
        self.assertEqual(host.look().messages, {})

    def test_host_that_leaves_before_its_settings(self) -> None:
        world = self.world()
        client = world.http1_client()
        client.send(self.UPGRADE)
        for _ in range(4):
            # Each time certainly unseen by the host, so that it is sent again.
            self.assertEqual(client.take(), b"")
            world.host().reset()
        self.assertIn(b"HTTP/1.1 502", client.take())

    def test_client_that_leaves(self) -> None:
        world = self.world()
        client, host = self.open(world)
        host.send(host.headers(1, OK))
        client.reset()
        self.assertTrue(host[1].ended)
        host.send(host.data(1, b"", True))
        world.turn(20)
        self.assertIsNone(host[1].reset)

    def test_client_that_leaves_while_the_host_stays(self) -> None:
        world = self.world()
        client, host = self.open(world)
        host.send(host.headers(1, OK))
        client.reset()
        world.turn(20)
        self.assertEqual(host[1].reset, ErrorCode.CANCEL)

    def test_host_that_resets(self) -> None:
        world = self.world()
        client, host = self.open(world)
        host.send(host.headers(1, OK), host.rst(1))
        world.turn(20)
        self.assertTrue(client.lost)

    def test_http2_at_both_ends(self) -> None:
        world = self.world()
        client = world.connect()
        number = client.ask([(b":method", b"CONNECT"), (b":protocol", b"websocket"), *GET[1:]], end=False)
        host = world.peer(settings={8: 1})
        self.assertEqual(dict(host[1].heads[0])[b":protocol"], b"websocket")
        host.send(host.headers(1, OK), host.data(1, b"hello"))
        self.assertEqual((client[number].status, client[number].body), (200, b"hello"))
        client.send(client.data(number, bytes(300_000)[:16384]), client.data(number, b"", True))
        self.assertEqual((len(host[1].body), host[1].ended), (16384, True))
        host.send(host.data(1, b"", True))
        self.assertTrue(client[number].ended)
        self.assertFalse(world.clients[0].protocol.busy)
