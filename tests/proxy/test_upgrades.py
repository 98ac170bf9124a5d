"""
Upgrades from end to end, in memory: straight to a host, and through HTTP/2 in between.

What a client sees, and a host, must be the same either way, so that most tests
are run for each.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.proxy.http.http1_server import HELD_LIMIT
from reverseproxy.proxy.http.http2_server import Http2Proxy
from reverseproxy.wire.http1.fields import chunk
from reverseproxy.wire.http2.frames import Setting, settings
from tests.proxy.http2_memory import Http2Peer, Http2World
from tests.proxy.memory import Wire, World
from tests.proxy.test_http1 import OK, status_of
from tests.proxy.test_http2 import HTTP1
from tests.proxy.test_http2_client import HTTP2
from tests.wire.http1_cases import GOOD, get, respond
from tests.wire.http2_frames import GET, Fields
from tests.wire.test_http1 import read_chunks


def switched(protocol: bytes = b"tcp", *fields: bytes, body: bytes = b"") -> bytes:
    """A host's agreement."""
    return respond(
        b"Upgrade: " + protocol, b"Connection: Upgrade", *fields, line=b"HTTP/1.1 101 UPGRADED", body=body
    )


def asking(*fields: bytes, protocol: bytes = b"tcp", body: bytes = b"", method: bytes = b"POST") -> bytes:
    """A client's wish."""
    line = method + b" /exec HTTP/1.1"
    return get(b"Connection: Upgrade", b"Upgrade: " + protocol, *fields, line=line, body=body)


COUNTED = asking(b"Content-Type: application/json", b"Content-Length: 12", body=b'{"Tty":true}')
CHUNKED = asking(b"Transfer-Encoding: chunked", body=chunk(b'{"Tty"') + chunk(b":true}") + b"0\r\n\r\n")
EMPTY = asking(b"Content-Length: 0", protocol=b"SPDY/3.1")


class Way:
    """
    From clients of HTTP/1 to a host of HTTP/1.

    @ivar near: the world that clients connect to.
    @ivar far: the world that the host belongs to.
    """

    def __init__(self, automatic: bool = True, **settings: Any) -> None:
        self.near = self.far = World(**settings)
        self.far.endpoint.automatic = automatic
        self.automatic = automatic

    def client(self, request: bytes) -> Wire:
        client = self.near.client(automatic=self.automatic)
        client.send(request)
        self.pump()
        return client

    def pump(self, seconds: float = 0.0) -> None:
        """Let everything arrive."""
        self.near.turn(seconds)
        for wire in (*self.near.clients, *self.far.endpoint.wires):
            if wire.automatic:
                wire.receive()

    @property
    def host(self) -> Wire:
        """The connection to the host that was made last."""
        return self.far.host()

    def idle(self, fail: Any) -> None:
        self.near.check_idle(fail)


class Http2Way(Way):
    """The same through a tunnel that speaks HTTP/2, with an end of ours on either side."""

    def __init__(self, automatic: bool = True, **settings: Any) -> None:
        routes = settings.pop("routes", HTTP2)
        self.near = Http2World(routes=routes, **settings)
        self.far = Http2World(routes=HTTP1, idle_timeout=settings.get("idle_timeout", 90.0))
        self.automatic = automatic
        self.far.endpoint.automatic = automatic
        self._ends: dict[Wire, Wire] = {}

    def pump(self, seconds: float = 0.0) -> None:
        for turn in range(12):
            self.near.turn(0 if turn else seconds)
            self.far.turn(0 if turn else seconds)
            for near in self.near.endpoint.wires:
                far = self._ends.get(near)
                if far is None:
                    far = self._ends[near] = Wire(self.far.clock)
                    info = ConnectionInfo("10.9.9.9:9", "10.0.0.1:80", reverse=True, announced=True)
                    far.connect(Http2Proxy(self.far.settings, info))
                far.send(near.take())
                near.send(far.take())
        for wire in (*self.near.clients, *self.far.endpoint.wires):
            if wire.automatic:
                wire.receive()

    def idle(self, fail: Any) -> None:
        self.near.check_idle(fail)
        self.far.check_idle(fail)
        for wire in self._ends.values():
            if wire.protocol.busy:
                fail("a stream is left at the agent")
        for client in self.near.hosts[0].pools["Http2"]._open:
            if client.active:
                fail("a stream is left at the server")


WAYS = (Way, Http2Way)


def head_and_rest(data: bytes) -> tuple[bytes, bytes]:
    head, _, rest = data.partition(b"\r\n\r\n")
    return head.lower(), rest


class UpgradeTests(SynchronousTestCase):
    def ways(self, **more: Any) -> list[Way]:
        return [way(**more) for way in WAYS]

    def switch(self, way: Way, request: bytes, protocol: bytes = b"tcp") -> tuple[Wire, Wire]:
        """Ask, and agree."""
        client = way.client(request)
        host = way.host
        way.pump()
        host.take()
        host.send(switched(protocol))
        way.pump()
        self.assertEqual(status_of(client.take()), 101)
        return client, host

    def end(self, way: Way, client: Wire, host: Wire) -> None:
        """Close both directions, one after the other."""
        client.end()
        way.pump()
        self.assertTrue(host.write_ended)
        self.assertFalse(client.write_ended or client.lost)
        host.send(b"last")
        way.pump()
        self.assertEqual(client.take(), b"last")
        host.end()
        way.pump()
        self.assertTrue(client.lost and host.lost)
        way.idle(self.fail)

    def test_bytes_behind_the_body_are_of_the_other_protocol(self) -> None:
        for way in self.ways():
            for request in (COUNTED, CHUNKED, EMPTY):
                for size in (1, 20, 10_000):
                    client = way.near.client()
                    whole = request + b"GET early"
                    for i in range(0, len(whole), size):
                        client.send(whole[i : i + size])
                    way.pump()
                    host = way.host
                    head, body = head_and_rest(host.take())
                    line, *lines = head.split(b"\r\n")
                    self.assertEqual(line, b"post /exec http/1.1")
                    protocol = b"spdy/3.1" if request is EMPTY else b"tcp"
                    self.assertIn(b"upgrade: " + protocol, lines)
                    self.assertIn(b"connection: upgrade", lines)
                    if request is CHUNKED:
                        self.assertIn(b"transfer-encoding: chunked", lines)
                        self.assertTrue(body.endswith(b"0\r\n\r\n"), body)
                        if size > 1000:
                            self.assertEqual(body, chunk(b'{"Tty":true}') + b"0\r\n\r\n")
                    else:
                        self.assertEqual(body, request.partition(b"\r\n\r\n")[2])
                    host.send(switched(protocol.upper(), b"X: y", body=b"hello"))
                    way.pump()
                    head, rest = head_and_rest(client.take())
                    lines = head.split(b"\r\n")
                    self.assertTrue(lines[0].startswith(b"http/1.1 101 "), head)
                    for line in (b"upgrade: " + protocol, b"connection: upgrade", b"x: y"):
                        self.assertIn(line, lines)
                    self.assertEqual(rest, b"hello")
                    self.assertEqual(host.take(), b"GET early")
                    for data in (b"\x00\r\n\r\n", b"x" * 200_000):
                        client.send(data)
                        host.send(data)
                        way.pump()
                        self.assertEqual((host.take(), client.take()), (data, data))
                    self.end(way, client, host)

    def test_in_the_access_log(self) -> None:
        for way in self.ways():
            client, host = self.switch(way, COUNTED)
            client.send(b"12345")
            host.send(b"123")
            way.pump()
            client.end()
            host.end()
            way.pump()
            for world in {id(way.near): way.near, id(way.far): way.far}.values():
                [record] = world.records
                self.assertEqual((record.status, record.request.method, record.flag), (101, "POST", ""))
                self.assertEqual((record.bytes_received, record.bytes_sent), (12 + 5, 3))

    def test_the_host_ends_first(self) -> None:
        for way in self.ways():
            client, host = self.switch(way, COUNTED)
            host.send(b"bye")
            host.end()
            way.pump()
            self.assertEqual(client.take(), b"bye")
            self.assertTrue(client.write_ended)
            client.send(b"more")
            way.pump()
            self.assertEqual(host.take(), b"more")
            client.end()
            way.pump()
            self.assertTrue(client.lost and host.lost)
            way.idle(self.fail)

    def test_all_of_the_last_bytes_arrive(self) -> None:
        """Also where they come together with the end, and the other direction has ended before."""
        data = bytes(range(256)) * 400
        for way in self.ways():
            for order in (0, 1):
                near, far = self.switch(way, COUNTED)[:: 1 if order else -1]
                near.end()
                way.pump()
                far.send(data)
                far.end()
                way.pump()
                way.pump()
                self.assertEqual(near.take(), data)
                # Nobody waits for anything any more.
                self.assertTrue(near.lost and far.lost)
                way.idle(self.fail)

    def test_a_loss_reaches_the_other_side(self) -> None:
        for way in self.ways():
            for side in (0, 1):
                wires = self.switch(way, COUNTED)
                wires[side].reset()
                way.pump()
                way.pump(20)
                self.assertTrue(wires[0].lost and wires[1].lost)
                way.idle(self.fail)

    def test_declined(self) -> None:
        """The answer is passed on, and what follows the request is HTTP."""
        for way in self.ways():
            for request in (COUNTED, CHUNKED, EMPTY):
                for answer in (
                    OK,
                    respond(b"Transfer-Encoding: chunked", body=b"2\r\nok\r\n0\r\n\r\n"),
                    respond(b"Content-Length: 2", line=b"HTTP/1.1 403 No", body=b"no"),
                    respond(b"Content-Length: 0", line=b"HTTP/1.1 204 Nothing"),
                    respond(b"Content-Length: 0", line=b"HTTP/1.1 302 Found"),
                ):
                    client = way.client(request + GOOD)
                    host = way.host
                    self.assertTrue(host.take().lower().startswith(b"post /exec "))
                    self.assertEqual(client.take(), b"")
                    host.send(answer)
                    way.pump()
                    data = client.take()
                    self.assertEqual(status_of(data), status_of(answer))
                    self.assertNotIn(b"\r\nupgrade:", data.lower())
                    body = answer.partition(b"\r\n\r\n")[2]
                    self.assertEqual(data.partition(b"\r\n\r\n")[2], body)
                    self.assertTrue(host.take().startswith(b"GET /good "))
                    host.send(OK)
                    way.pump()
                    self.assertTrue(client.take().endswith(b"ok"))
                    way.idle(self.fail)
            if isinstance(way, Http2Way):
                self.assertEqual(len(way.near.endpoint.wires), 1)

    def test_declined_before_the_body_is_complete(self) -> None:
        for way in self.ways():
            for request in (COUNTED, CHUNKED):
                client = way.client(request[:-3])
                host = way.host
                host.take()
                host.send(respond(b"Content-Length: 2", line=b"HTTP/1.1 401 No", body=b"no"))
                way.pump()
                head, body = head_and_rest(client.take())
                self.assertTrue(head.startswith(b"http/1.1 401 "))
                self.assertIn(b"connection: close", head)
                self.assertEqual(body, b"no")
                client.send(request[-3:] + b"more")
                way.pump()
                client.end()
                way.pump(20)
                self.assertTrue(client.lost)
                self.assertNotIn(b"more", host.take())
                way.idle(self.fail)

    def test_accepted_before_the_body_is_complete(self) -> None:
        """What is left of the body still goes to the host, and then the other protocol."""
        for way in self.ways():
            for request in (COUNTED, CHUNKED):
                client = way.client(request[:-9])
                host = way.host
                seen = host.take()
                host.send(switched(body=b"first"))
                way.pump()
                host.send(b"second")
                way.pump()
                begin = client.take()
                self.assertEqual(status_of(begin), 101)
                client.send(request[-9:] + b"GET raw")
                way.pump()
                body = head_and_rest(seen + host.take())[1]
                if request is COUNTED:
                    self.assertEqual(body, b'{"Tty":true}GET raw')
                else:
                    self.assertTrue(body.endswith(b"0\r\n\r\nGET raw"), body)
                    self.assertEqual(read_chunks(body.removesuffix(b"GET raw")), b'{"Tty":true}')
                self.assertTrue((begin + client.take()).endswith(b"\r\n\r\nfirstsecond"))
                self.end(way, client, host)

    def test_a_client_that_leaves_between_the_answer_and_its_end(self) -> None:
        for way in self.ways():
            client = way.client(CHUNKED[:-7])
            host = way.host
            host.send(switched(body=b"first"))
            way.pump()
            client.reset()
            way.pump(20)
            self.assertTrue(host.lost)
            way.idle(self.fail)

    def test_a_host_that_leaves_between_the_answer_and_the_end(self) -> None:
        for way in self.ways():
            client = way.client(CHUNKED[:-7])
            host = way.host
            host.send(switched(body=b"first"))
            way.pump()
            host.reset()
            way.pump()
            way.pump(20)
            self.assertTrue(client.lost)
            way.idle(self.fail)

    def test_bad_chunks_between_the_answer_and_the_end(self) -> None:
        for way in self.ways():
            client = way.client(CHUNKED[:-5])
            host = way.host
            host.send(switched())
            way.pump()
            client.send(b"no chunk")
            way.pump(20)
            client.end()
            way.pump(20)
            self.assertTrue(client.lost and host.lost)
            way.idle(self.fail)

    def test_expect(self) -> None:
        for way in self.ways():
            for request in (COUNTED, CHUNKED):
                head, _, body = request.partition(b"\r\n\r\n")
                client = way.client(head + b"\r\nExpect: 100-continue\r\n\r\n")
                host = way.host
                self.assertIn(b"expect: 100-continue", host.take().lower())
                host.send(b"HTTP/1.1 100 Continue\r\n\r\n")
                way.pump()
                self.assertEqual(client.take(), b"HTTP/1.1 100 Continue\r\n\r\n")
                client.send(body + b"raw")
                way.pump()
                self.assertNotIn(b"raw", host.take())
                host.send(switched())
                way.pump()
                self.assertEqual((status_of(client.take()), host.take()), (101, b"raw"))
                self.end(way, client, host)

    def test_accepted_without_100(self) -> None:
        """Such a client sends no body: what comes instead is the other protocol, and reaches the host."""
        for way in self.ways():
            head, _, _ = COUNTED.partition(b"\r\n\r\n")
            client = way.client(head + b"\r\nExpect: 100-continue\r\n\r\n")
            host = way.host
            host.take()
            host.send(switched())
            way.pump()
            client.send(b"raw")
            host.send(b"hello")
            way.pump()
            self.assertEqual((host.take(), client.take()[-5:]), (b"raw", b"hello"))
            client.reset()
            way.pump(20)
            way.idle(self.fail)

    def test_several_protocols(self) -> None:
        for way in self.ways():
            for chosen in (b"SPDY/3.1", b"websocket", b"other"):
                client = way.client(asking(protocol=b"SPDY/3.1, websocket, h2c,other"))
                host = way.host
                self.assertIn(b"\r\nupgrade: spdy/3.1, websocket, other\r\n", host.take().lower())
                host.send(switched(chosen))
                way.pump()
                self.assertIn(b"\r\nupgrade: " + chosen.lower(), client.take().lower())
                self.end(way, client, host)

    def test_another_protocol_than_was_asked_for(self) -> None:
        for way in self.ways():
            for chosen in (b"other", b"h2c", b"tcp, other", b"tcp/2"):
                client = way.client(asking(protocol=b"tcp/1, websocket"))
                host = way.host
                host.send(switched(chosen))
                way.pump()
                self.assertEqual(status_of(client.take()), 502)
                way.pump(20)
                self.assertTrue(host.lost)
                client.send(GOOD)
                way.pump()
                way.host.send(OK)
                way.pump()
                self.assertEqual(status_of(client.take()), 200)
                way.idle(self.fail)

    def test_unasked(self) -> None:
        for way in self.ways():
            for request in (
                GOOD,
                asking(b"HTTP2-Settings: x", protocol=b"h2c"),
                get(b"Connection: Upgrade", b"Upgrade: tcp", line=b"GET / HTTP/1.0"),
                get(b"Upgrade: tcp"),
            ):
                client = way.client(request)
                host = way.host
                self.assertNotIn(b"upgrade", host.take().lower())
                host.send(switched())
                way.pump()
                self.assertEqual(status_of(client.take()), 502)
                way.pump(20)
                way.idle(self.fail)

    def test_upgrade_required(self) -> None:
        for way in self.ways():
            client = way.client(GOOD)
            host = way.host
            answer = respond(
                *(b"Upgrade: TLS/1.0, HTTP/2.0", b"Connection: Upgrade", b"Content-Length: 2"),
                line=b"HTTP/1.1 426 Upgrade Required",
                body=b"no",
            )
            host.send(answer)
            way.pump()
            head, body = head_and_rest(client.take())
            lines = head.split(b"\r\n")
            self.assertEqual((lines[0], body), (b"http/1.1 426 upgrade required", b"no"))
            self.assertIn(b"upgrade: tls/1.0, http/2.0", lines)
            self.assertIn(b"connection: upgrade", lines)
            self.ask_on(way, client)

    def ask_on(self, way: Way, client: Wire) -> None:
        """The connection goes on."""
        client.send(GOOD)
        way.pump()
        way.host.send(OK)
        way.pump()
        self.assertEqual(status_of(client.take()), 200)
        way.idle(self.fail)

    def test_other_answers_lose_the_field(self) -> None:
        for way in self.ways():
            client = way.client(GOOD)
            way.host.send(respond(b"Upgrade: h2,h2c", b"Connection: Upgrade", b"Content-Length: 0"))
            way.pump()
            self.assertNotIn(b"upgrade", client.take().lower())
            self.ask_on(way, client)

    def test_a_host_that_takes_the_connection_over_with_200(self) -> None:
        """It is an answer until the end of its connection, and no more than that."""
        for way in self.ways():
            client = way.client(COUNTED + b"raw")
            host = way.host
            host.take()
            host.send(respond(b"Content-Type: application/vnd.docker.raw-stream", body=b"out"))
            host.send(b"put")
            way.pump()
            host.end()
            way.pump()
            head, body = head_and_rest(client.take())
            self.assertTrue(head.startswith(b"http/1.1 200 "))
            self.assertIn(b"transfer-encoding: chunked", head)
            self.assertIn(b"put", body)
            self.assertNotIn(b"raw", host.take())
            client.end()
            way.pump(20)
            way.idle(self.fail)

    def test_early_data_is_bounded(self) -> None:
        for way in self.ways():
            client = way.client(COUNTED)
            host = way.host
            host.take()
            for _ in range(20):
                client.send(b"x" * 10_000)
                way.pump()
            self.assertFalse(client.reading)
            self.assertLessEqual(200_000 - client.unread, HELD_LIMIT + 10_000)
            host.send(switched())
            way.pump()
            way.pump()
            self.assertEqual(len(host.take()), 200_000)
            client.reset()
            way.pump(20)
            way.idle(self.fail)

    def test_early_answers_are_bounded(self) -> None:
        """What a host sends in the other protocol waits for the end of the request, but not in our memory."""
        for way in self.ways():
            client = way.client(CHUNKED[:-5])
            host = way.host
            host.send(switched())
            for _ in range(40):
                host.send(b"x" * 10_000)
                way.pump()
            self.assertFalse(host.reading)
            self.assertLess(len(client.take()), 1000)
            client.send(CHUNKED[-5:])
            for _ in range(5):
                way.pump()
            self.assertEqual(len(client.take()), 400_000)
            client.reset()
            way.pump(20)
            way.idle(self.fail)

    def test_back_pressure(self) -> None:
        way = Way(automatic=False)
        client = way.client(COUNTED)
        host = way.host
        host.receive()
        host.send(switched())
        client.receive()
        for near, far in ((client, host), (host, client)):
            for _ in range(10):
                near.send(b"x" * 20_000)
            self.assertFalse(near.reading)
            while far.buffered:
                far.receive()
                way.near.turn()
        client.reset()
        way.pump(20)
        way.idle(self.fail)

    def test_a_body_that_is_too_large(self) -> None:
        way = Way(options={"max_request_body_size": 10})
        for request in (COUNTED, CHUNKED):
            client = way.client(request + b"raw")
            self.assertEqual(status_of(client.take()), 413)
            client.end()
            way.pump(20)
            way.idle(self.fail)

    def test_a_long_body(self) -> None:
        """It is not passed on by sockets that don't look at it: the other protocol follows."""
        body = bytes(300_000)
        for way in self.ways():
            client = way.client(asking(b"Content-Length: %d" % len(body)))
            host = way.host
            for i in range(0, len(body), 50_000):
                client.send(body[i : i + 50_000])
                way.pump()
            client.send(b"raw")
            way.pump()
            self.assertEqual(head_and_rest(host.take())[1], body)
            host.send(switched())
            way.pump()
            self.assertEqual(host.take(), b"raw")
            self.assertEqual(status_of(client.take()), 101)
            self.end(way, client, host)

    def test_trailers(self) -> None:
        for way in self.ways():
            client = way.client(CHUNKED[:-2] + b"X: y\r\n\r\nraw")
            host = way.host
            self.assertTrue(host.take().lower().endswith(b"0\r\nx: y\r\n\r\n"))
            host.send(switched())
            way.pump()
            self.assertEqual(host.take(), b"raw")
            client.take()
            self.end(way, client, host)

    def test_connection_close(self) -> None:
        for way in self.ways():
            request = COUNTED.replace(b"Connection: Upgrade", b"Connection: close, Upgrade")
            client, host = self.switch(way, request + b"raw")
            self.assertEqual(host.take(), b"raw")
            self.end(way, client, host)
            client = way.client(request + GOOD)
            host = way.host
            host.take()
            host.send(OK)
            way.pump()
            head, body = head_and_rest(client.take())
            self.assertIn(b"connection: close", head)
            self.assertEqual(body, b"ok")
            self.assertEqual(host.take(), b"")
            way.pump(20)
            way.idle(self.fail)

    def test_no_copy_is_sent(self) -> None:
        rule = {
            "match": {"prefix": "/"},
            "route": {"cluster_name": "c"},
            "request_mirror_policies": {"cluster": "mirror", "percent": 100},
        }
        way = Way(mirrors=1, routes=[rule])
        client, host = self.switch(way, COUNTED)
        self.assertEqual(way.near.endpoints[-1].wires, [])
        self.end(way, client, host)
        client = way.client(GOOD)
        self.assertEqual(len(way.near.endpoints[-1].wires), 1)
        for endpoint in way.near.endpoints:
            endpoint.wires[-1].send(OK)
        way.pump()
        self.assertEqual(status_of(client.take()), 200)

    def test_retries(self) -> None:
        """Nothing is begun twice: a host that may have seen it is asked once, whatever the method says."""
        policy = {"retry_on": True, "num_retries": 3}
        route = {"cluster_name": "c", "retry_policy": policy}
        for method in (b"POST", b"GET"):
            way = Way(routes=[{"match": {"prefix": "/"}, "route": route}])
            request = asking(b"Content-Length: 2", body=b"{}", method=method)
            client = way.client(request)
            way.host.reset()
            way.pump(5)
            self.assertEqual(status_of(client.take()), 502)
            client = way.client(request)
            way.host.send(respond(b"Content-Length: 0", line=b"HTTP/1.1 503 No"))
            way.pump(5)
            self.assertEqual(status_of(client.take()), 503)
            self.assertEqual(len(way.near.endpoint.wires), 2)
            way.idle(self.fail)

    def test_sent_again_if_nobody_has_seen_it(self) -> None:
        way = Way(hosts=2)
        way.near.endpoints[0].answer = ConnectionError("refused")
        for _ in range(2):
            client = way.client(COUNTED + b"raw")
            host = way.near.endpoints[1].wires[-1]
            self.assertEqual(head_and_rest(host.take())[1], b'{"Tty":true}')
            host.send(switched())
            way.pump()
            self.assertEqual((status_of(client.take()), host.take()), (101, b"raw"))
            client.reset()
            way.pump(20)
        way.idle(self.fail)

    def test_the_next_host_gets_a_websocket_that_one_has_not_taken(self) -> None:
        """Without a body it is a GET like any other, until it is accepted."""
        policy = {"retry_on": True, "num_retries": 3}
        route = {"cluster_name": "c", "retry_policy": policy}
        way = Way(hosts=2, routes=[{"match": {"prefix": "/"}, "route": route}])
        client = way.client(asking(protocol=b"websocket", method=b"GET") + b"raw")
        first = next(each.wires[0] for each in way.near.endpoints if each.wires)
        first.send(respond(b"Content-Length: 0", line=b"HTTP/1.1 503 No"))
        way.pump(5)
        second = next(w for each in way.near.endpoints for w in each.wires if w is not first)
        self.assertIn(b"Upgrade: websocket", second.take())
        second.send(switched(b"websocket"))
        way.pump()
        self.assertEqual((status_of(client.take()), second.take()), (101, b"raw"))
        client.reset()
        way.pump(20)
        way.idle(self.fail)

    def test_limits_of_a_cluster_count_sessions(self) -> None:
        for way in self.ways(cluster={"circuit_breakers": [{"max_requests": 1}]}):
            client, host = self.switch(way, COUNTED)
            self.assertEqual(way.near.cluster.active, 1)
            other = way.client(GOOD)
            way.pump(15)
            self.assertIn(status_of(other.take()), (503, 502))
            self.end(way, client, host)
            self.assertEqual(way.near.cluster.active, 0)

    def test_the_time_for_a_request_is_over_with_the_switch(self) -> None:
        for way in self.ways(idle_timeout=None):
            client, host = self.switch(way, COUNTED)
            way.pump(1000)
            self.assertFalse(client.lost or host.lost)
            self.end(way, client, host)

    def test_a_request_that_is_never_answered(self) -> None:
        route = {"cluster_name": "c", "timeout": "2s"}
        way = Way(routes=[{"match": {"prefix": "/"}, "route": route}])
        client = way.client(COUNTED)
        way.pump(3)
        self.assertEqual(status_of(client.take()), 504)
        way.idle(self.fail)

    def test_shutdown_waits_for_a_session(self) -> None:
        for way in self.ways():
            client, host = self.switch(way, COUNTED)
            self.assertTrue(client.protocol.busy)
            client.protocol.drain()
            client.send(b"more")
            way.pump()
            self.assertEqual(host.take(), b"more")
            self.end(way, client, host)
            self.assertFalse(client.protocol.busy)


class Http2ClientTests(SynchronousTestCase):
    """Clients of HTTP/2, which know extended CONNECT (RFC 8441) and nothing else."""

    def start(self, **more: Any) -> tuple[Http2World, Http2Peer]:
        world = Http2World(routes=HTTP1, **more)
        self.addCleanup(world.check_idle, self.fail)
        return world, world.connect()

    def ours(self, world: Http2World) -> Http2Peer:
        """A client that says that it is one of ours."""
        client = world.connect()
        client.send(settings([(Setting.UPGRADES, 1)]))
        return client

    def connect(self, protocol: bytes, *fields: tuple[bytes, bytes]) -> Fields:
        return [(b":method", b"CONNECT"), (b":protocol", protocol), *GET[1:], *fields]

    def test_protocols(self) -> None:
        for protocol in (b"connect-udp", b"SPDY/3.1", b"tcp"):
            world, client = self.start()
            number = client.ask(self.connect(protocol), end=False)
            host = world.host()
            self.assertIn(b"upgrade: " + protocol + b"\r\nConnection: Upgrade\r\n", host.take())
            host.send(switched(protocol, body=b"hello"))
            self.assertEqual((client[number].status, client[number].body), (200, b"hello"))
            client.send(client.data(number, b"raw"))
            self.assertEqual(host.take(), b"raw")
            client.send(client.rst(number))
            world.turn(20)

    def test_a_host_that_answers_without_switching(self) -> None:
        """A 2xx would tell the client that the other protocol begins."""
        for answer in (OK, respond(b"Transfer-Encoding: chunked", body=b"2\r\nok\r\n0\r\n\r\n")):
            world, client = self.start()
            number = client.ask(self.connect(b"tcp"), end=False)
            world.host().send(answer)
            message = client[number]
            self.assertEqual((message.status, message.body, message.ended), (502, b"ok", True))
            self.assertEqual(world.records[0].status, 502)
            self.assertIn("did not switch", world.records[0].flag)

    def test_another_protocol_than_was_asked_for(self) -> None:
        world, client = self.start()
        number = client.ask(self.connect(b"tcp"), end=False)
        world.host().send(switched(b"other"))
        self.assertEqual(client[number].status, 502)

    def test_h2c(self) -> None:
        world, client = self.start()
        number = client.ask(self.connect(b"h2c"), end=False)
        self.assertEqual(client[number].status, 501)
        self.assertEqual(world.endpoint.wires, [])

    def test_a_length_is_not_passed_on(self) -> None:
        world, client = self.start()
        number = client.ask(self.connect(b"tcp", (b"content-length", b"5")), end=False)
        self.assertNotIn(b"content-length", world.host().take().lower())
        client.send(client.rst(number))
        world.turn(20)

    def test_our_own_way_needs_our_own_settings(self) -> None:
        _, client = self.start()
        fields = self.connect(b"tcp")
        fields.insert(2, (b":upgrade", b"POST 3 tcp"))
        number = client.ask(fields, b"abc", end=False)
        self.assertIsNotNone(client[number].reset)

    def test_our_own_way(self) -> None:
        world = Http2World(routes=HTTP1)
        client = self.ours(world)
        self.assertEqual(client.settings_seen[0][Setting.UPGRADES], 1)
        fields = self.connect(b"tcp", (b"content-length", b"3"))
        fields.insert(2, (b":upgrade", b"POST 3 tcp"))
        number = client.ask(fields, b"abcraw", end=False)
        host = world.host()
        self.assertTrue(host.take().endswith(b"\r\n\r\nabc"))
        host.send(switched())
        self.assertEqual(
            client[number].heads[0], [(b":status", b"200"), (b":upgrade", b"tcp")], client[number].heads
        )
        self.assertEqual(host.take(), b"raw")
        client.send(client.rst(number))
        world.turn(20)
        world.check_idle(self.fail)

    def test_a_stream_that_ends_within_its_body(self) -> None:
        for length, body in ((b"5", b"abc"), (b"chunked", b"3\r\nabc\r\n")):
            world = Http2World(routes=HTTP1)
            client = self.ours(world)
            fields = self.connect(b"tcp")
            if length != b"chunked":
                fields.append((b"content-length", length))
            fields.insert(2, (b":upgrade", b"POST %b tcp" % length))
            number = client.ask(fields, body, end=True)
            self.assertEqual(client[number].status, 400)
            world.turn()
            world.check_idle(self.fail)

    def test_a_stream_that_ends_behind_its_body(self) -> None:
        world = Http2World(routes=HTTP1)
        client = self.ours(world)
        fields = self.connect(b"tcp", (b"content-length", b"3"))
        fields.insert(2, (b":upgrade", b"POST 3 tcp"))
        client.ask(fields, b"abcraw", end=True)
        host = world.host()
        host.send(switched())
        world.turn()
        self.assertTrue(host.take().endswith(b"\r\n\r\nabcraw"))
        self.assertTrue(host.write_ended)
        host.end()
        world.turn()
        world.check_idle(self.fail)

    def test_malformed_chunks(self) -> None:
        world = Http2World(routes=HTTP1)
        client = self.ours(world)
        fields = self.connect(b"tcp")
        fields.insert(2, (b":upgrade", b"POST chunked tcp"))
        number = client.ask(fields, b"no chunk\r\n", end=False)
        self.assertEqual(client[number].status, 400)
        world.turn()
        world.check_idle(self.fail)

    def test_a_body_that_waits_for_a_slow_host(self) -> None:
        """The window stays closed while the host does not take the body, as for any request."""
        world = Http2World(routes=HTTP1)
        world.endpoint.automatic = False
        client = self.ours(world)
        size = 600_000
        fields = self.connect(b"tcp", (b"content-length", b"%d" % size))
        fields.insert(2, (b":upgrade", b"POST %d tcp" % size))
        number = client.ask(fields, end=False)
        sent = 0
        for _ in range(16):
            client.send(client.data(number, bytes(16_000)))
            sent += 16_000
        self.assertFalse([w for w in client.look().windows if w[0] == number][1:])
        host = world.host()
        for _ in range(10):
            host.receive()
            world.turn()
        self.assertTrue([w for w in client.look().windows if w[0] == number])
        client.send(client.rst(number))
        world.turn(20)
        world.check_idle(self.fail)


class ForeignHostTests(SynchronousTestCase):
    """Hosts of HTTP/2 that are not ours: a MOSN, or a server that knows RFC 8441."""

    def ask(self, request: bytes, settings: dict[int, int] | None) -> tuple[Http2World, Wire, Http2Peer]:
        world = Http2World(routes=HTTP2)
        self.addCleanup(world.check_idle, self.fail)
        client = world.http1_client()
        client.send(request)
        return world, client, world.peer(settings=settings)

    def test_what_needs_its_upgrade_is_refused(self) -> None:
        for known in (None, {8: 1}):
            for request in (COUNTED, CHUNKED, EMPTY):
                _, client, host = self.ask(request + GOOD, known)
                data = client.take()
                self.assertEqual(status_of(data), 501, data)
                self.assertIn(b"the host speaks HTTP/2", data)
                # Nothing of it went out, and the connection goes on.
                self.assertEqual(dict(host[1].heads[0])[b":path"], b"/good")
                host.answer(1)
                self.assertEqual(status_of(client.take()), 200)

    def test_a_websocket_is_refused(self) -> None:
        _, client, host = self.ask(asking(method=b"GET", protocol=b"websocket"), None)
        self.assertIn(b"it can't upgrade", client.take())
        self.assertEqual(host.look().messages, {})

    def test_what_does_not_need_it_goes_on_without(self) -> None:
        _, client, host = self.ask(asking(method=b"GET", protocol=b"other"), None)
        fields = dict(host[1].heads[0])
        self.assertEqual((fields[b":method"], b"upgrade" in fields, host[1].ended), (b"GET", False, True))
        host.answer(1)
        self.assertEqual(status_of(client.take()), 200)

    def test_a_websocket_among_others(self) -> None:
        _, client, host = self.ask(asking(method=b"GET", protocol=b"other/1, WebSocket"), {8: 1})
        fields = dict(host[1].heads[0])
        self.assertEqual((fields[b":method"], fields[b":protocol"]), (b"CONNECT", b"WebSocket"))
        host.send(host.headers(1, [(b":status", b"200")]))
        self.assertIn(b"\r\nupgrade: WebSocket\r\n", client.take())
        client.reset()
        host.send(host.data(1, b"", True))

    def test_another_protocol(self) -> None:
        _, client, host = self.ask(asking(method=b"GET", protocol=b"connect-udp"), {8: 1})
        self.assertEqual(dict(host[1].heads[0])[b":protocol"], b"connect-udp")
        host.send(host.headers(1, [(b":status", b"200")]), host.data(1, b"raw", True))
        self.assertTrue(client.take().endswith(b"\r\n\r\nraw"))
        client.reset()

    def test_they_hear_nothing_of_our_way(self) -> None:
        _, _, host = self.ask(GOOD, {8: 1})
        self.assertEqual([each.get(Setting.UPGRADES) for each in host.settings_seen], [None])
        host.answer(1)
        world = Http2World(routes=HTTP1)
        server = world.connect(reverse=True)
        self.assertNotIn(Setting.UPGRADES, server.settings_seen[0])
        server = world.connect(reverse=True, announced=True)
        self.assertEqual(server.settings_seen[0][Setting.UPGRADES], 1)


class RouteTests(SynchronousTestCase):
    def test_answers_of_our_own(self) -> None:
        """What follows the request is HTTP."""
        for request in (COUNTED, CHUNKED, EMPTY):
            for path, status in ((b"/direct", 418), (b"/nowhere", 404), (b"/moved", 302)):
                world = World()
                client = world.client()
                client.send(request.replace(b"/exec", path) + GOOD)
                self.assertEqual(status_of(client.take()), status)
                self.assertTrue(world.host().take().startswith(b"GET /good"))
                world.host().send(OK)
                self.assertEqual(client.take(), OK)
                world.check_idle(self.fail)

    def test_a_body_that_has_not_come(self) -> None:
        world = World()
        client = world.client()
        client.send(COUNTED.replace(b"/exec", b"/direct")[:-5])
        self.assertIn(b"connection: close", client.take())
        client.send(COUNTED[-5:])
        client.end()
        world.turn(20)
        self.assertTrue(client.lost)
        self.assertEqual(world.endpoint.wires, [])

    def test_changed_on_the_way(self) -> None:
        route = {
            "cluster_name": "c",
            "prefix_rewrite": "/new",
            "request_headers_to_add": [{"header": {"name": "X-Added", "value": "y"}}],
        }
        world = World(routes=[{"match": {"prefix": "/exec"}, "route": route}])
        client = world.client()
        client.send(COUNTED + b"raw")
        head, body = head_and_rest(world.host().take())
        lines = head.split(b"\r\n")
        self.assertEqual(lines[0], b"post /new http/1.1")
        for line in (b"x-added: y", b"upgrade: tcp", b"connection: upgrade"):
            self.assertIn(line, lines)
        self.assertEqual(body, b'{"Tty":true}')
        world.host().send(switched())
        self.assertEqual((status_of(client.take()), world.host().take()), (101, b"raw"))
        client.reset()
        world.turn(20)
        world.check_idle(self.fail)
