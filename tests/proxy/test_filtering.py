"""Filters of requests on their way through the proxy, by every protocol."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.host import StaticHost
from reverseproxy.config.models import HostConfig
from reverseproxy.proxy.http.sending import REQUEST_BUFFER
from reverseproxy.wire.http1.fields import chunk
from reverseproxy.wire.rpc.bolt import BoltStatus, encode_request
from tests.proxy.filters.build import chain
from tests.proxy.http2_memory import Http2World
from tests.proxy.memory import Endpoint
from tests.proxy.rpc_world import Peer, request, response
from tests.proxy.rpc_world import World as RpcWorld
from tests.wire.http1_cases import get, respond
from tests.wire.http2_frames import GET, POST

OK = respond(b"Content-Length: 2", body=b"ok")
ROUTES = [
    {"match": {"path": "/quick"}, "route": {"cluster_name": "c", "timeout": 2.0}},
    {"match": {"path": "/direct"}, "direct_response": {"status": 200, "body": "direct"}},
    {
        "match": {"path": "/copied"},
        "route": {"cluster_name": "c"},
        "request_mirror_policies": {"cluster": "mirror", "percent": 100},
    },
    {
        "match": {"path": "/small"},
        "route": {"cluster_name": "c"},
        "per_filter_config": {"payload_limit": {"max_entity_size": 1}},
    },
    {"match": {"prefix": "/"}, "route": {"cluster_name": "c", "metadata_match": {"kind": "x"}}},
]


def chunks(*parts: bytes) -> bytes:
    """A whole body in chunks."""
    return b"".join(chunk(part) for part in parts) + b"0\r\n\r\n"


DENY = ("ip_access", {"default_action": "deny"})
ABORT = ("fault", {"abort": {"status": 503, "percentage": 100}})
DELAY = ("fault", {"delay": {"fixed_delay": "5s", "percentage": 100}})


def _to_http1(rule: dict[str, Any]) -> dict[str, Any]:
    """Let hosts be spoken to in HTTP/1, whatever clients speak."""
    if "route" not in rule:
        return rule
    return {**rule, "route": {**rule["route"], "upstream_protocol": "Http1"}}


class HttpTestCase(SynchronousTestCase):
    def world(self, *filters: tuple[str, dict[str, Any]], **more: Any) -> Http2World:
        routes = ROUTES if more.pop("routes", False) else ROUTES[-1:]
        world = Http2World(1, routes=[_to_http1(each) for each in routes], **more)
        world.settings = replace(world.settings, filters=chain(*filters, clock=world.clock))
        self.addCleanup(world.check_idle, self.fail)
        return world


class HttpTests(HttpTestCase):
    def ask(self, world: Http2World, version: int, target: str = "/", **headers: str) -> Any:
        """
        Send a request.

        @return: called for what has come of the answer: its status, or 0, and its body.
        """
        fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        if version == 1:
            client = world.client()
            lines = b"".join(b"%b: %b\r\n" % field for field in fields)
            client.send(b"GET %b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (target.encode(), lines))

            def answer() -> tuple[int, bytes]:
                head, _, body = client.take().partition(b"\r\n\r\n")
                return (int(head.split()[1]) if head else 0), body

            return answer
        peer = world.connect()
        number = peer.ask([*GET[:3], (b":path", target.encode()), *fields])

        def stream() -> tuple[int, bytes]:
            peer.look()
            message = peer.messages.get(number)
            return (0, b"") if message is None or not message.heads else (message.status, message.body)

        return stream

    def test_refused(self) -> None:
        for version in (1, 2):
            for filters, status, body, flag in (
                (DENY, 403, b"access denied\n", "refused by ip_access"),
                (ABORT, 503, b"fault injected\n", "fault injected"),
            ):
                world = self.world(filters)
                answer = self.ask(world, version)
                self.assertEqual(answer(), (status, body))
                self.assertEqual(world.endpoint.wires, [])
                [record] = world.records
                self.assertEqual((record.status, record.flag), (status, flag))

    def test_let_through(self) -> None:
        for version in (1, 2):
            world = self.world(("ip_access", {"ips": [{"addrs": ["10.9.9.9"]}], "default_action": "deny"}))
            answer = self.ask(world, version)
            world.host().send(OK)
            self.assertEqual(answer(), (200, b"ok"))

    def test_direct_responses_and_no_routes(self) -> None:
        """They go through filters, too."""
        for version in (1, 2):
            world = self.world(("ip_access", {}), routes=True)
            self.assertEqual(self.ask(world, version, "/direct")(), (200, b"direct"))
            world = self.world(ABORT, routes=True)
            self.assertEqual(self.ask(world, version, "/direct")()[0], 503)
            world = self.world(("ip_access", {}), router={"virtual_hosts": []})
            self.assertEqual(self.ask(world, version)()[0], 404)
            world = self.world(DENY, router={"virtual_hosts": []})
            self.assertEqual(self.ask(world, version)()[0], 403)

    def test_delayed(self) -> None:
        """The time that a filter takes is not the route's."""
        for version in (1, 2):
            world = self.world(DELAY, routes=True)
            answer = self.ask(world, version, "/quick")
            world.turn(4.9)
            self.assertEqual((answer(), world.endpoint.wires), ((0, b""), []))
            world.turn(0.2)
            world.turn(1.5)
            self.assertEqual(answer(), (0, b""))
            world.host().send(OK)
            self.assertEqual(answer(), (200, b"ok"))

    def test_delayed_and_too_slow(self) -> None:
        for version in (1, 2):
            world = self.world(DELAY, routes=True)
            answer = self.ask(world, version, "/quick")
            world.turn(5)
            world.turn(2.1)
            self.assertEqual(answer()[0], 504)

    def test_a_client_that_leaves_while_it_waits(self) -> None:
        for version in (1, 2):
            world = self.world(DELAY)
            self.ask(world, version)
            world.clients[0].reset()
            world.turn(10)
            self.assertEqual(world.endpoint.wires, [])
            self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_delayed_twice(self) -> None:
        world = self.world(DELAY, DELAY, ABORT)
        answer = self.ask(world, 1)
        for _ in range(2):
            self.assertEqual(answer(), (0, b""))
            world.turn(5)
        self.assertEqual(answer()[0], 503)

    def test_a_body_that_comes_while_it_waits(self) -> None:
        """It is held back, and sent on behind the wait."""
        world = self.world(DELAY)
        client = world.client()
        body = b"x" * (3 * REQUEST_BUFFER)
        client.send(get(b"Content-Length: %d" % len(body), line=b"POST / HTTP/1.1"))
        for start in range(0, len(body), 4096):
            client.send(body[start : start + 4096])
        self.assertFalse(client.reading)
        self.assertGreater(client.unread, REQUEST_BUFFER)
        world.turn(5)
        host = world.host()
        self.assertTrue(host.take().endswith(body[-10:]))
        self.assertEqual(client.unread, 0)
        host.send(OK)
        self.assertEqual(client.take(), OK)

    def test_the_next_request_on_the_connection(self) -> None:
        """It is filtered as the first one was."""
        world = self.world(
            ("fault", {"headers": [{"name": "x", "value": "1"}], "abort": {"percentage": 100}})
        )
        client = world.client()
        for number in range(4):
            client.send(get(b"X: %d" % (number % 2)))
            if number % 2:
                self.assertIn(b"fault injected", client.take())
            else:
                world.host().send(OK)
                self.assertEqual(client.take(), OK)

    def test_labels(self) -> None:
        """Those of the filter come before the route's."""
        rules = [
            {"header": "x-zone", "on_header_present": {"key": "zone"}, "remove": True},
            {"header": "x-kind", "on_header_present": {"key": "kind"}},
        ]
        subsets = {"lb_subset_config": {"fall_back_policy": 0, "subset_selectors": [["kind", "zone"]]}}
        for version in (1, 2):
            for zone, kind, expected in (("a", "", 1), ("b", "", 2), ("b", "y", None), ("c", "", None)):
                world = self.world(
                    ("header_to_metadata", {"request_rules": rules}), routes=True, cluster=subsets
                )
                for number, name in ((1, "a"), (2, "b")):
                    endpoint = Endpoint(world.clock)
                    config = HostConfig(address=f"10.1.0.{number}:80", metadata={"zone": name, "kind": "x"})
                    world.endpoints.append(endpoint)
                    world.cluster.add_host(StaticHost(config, endpoint, world.clock))  # type: ignore[arg-type]
                headers = {"x_zone": zone, "via": "b"} | ({"x_kind": kind} if kind else {})
                answer = self.ask(world, version, **headers)
                dialled = [n for n, endpoint in enumerate(world.endpoints) if endpoint.wires]
                self.assertEqual(dialled, [] if expected is None else [expected])
                if expected is None:
                    self.assertEqual(answer()[0], 502)
                    continue
                [wire] = world.endpoints[expected].wires
                head = wire.take()
                self.assertNotIn(b"x-zone", head.lower())
                self.assertIn(b"via: b", head.lower())
                wire.send(OK)
                self.assertEqual(answer(), (200, b"ok"))

    def test_headers_that_are_the_proxys_own_stay(self) -> None:
        rules = [
            {"header": name, "on_header_present": {"key": "a"}, "remove": True}
            for name in ("host", "content-length")
        ]
        world = self.world(("header_to_metadata", {"request_rules": rules}))
        client = world.client()
        client.send(get(b"Content-Length: 2", line=b"POST / HTTP/1.1", body=b"ab"))
        head = world.host().take().lower()
        self.assertIn(b"host: ", head)
        self.assertIn(b"content-length: 2", head)
        world.host().send(OK)

    def test_copies(self) -> None:
        for amplification in (1, 3):
            world = self.world(
                ("ip_access", {}), ("mirror", {"amplification": amplification}), routes=True, mirrors=1
            )
            answer = self.ask(world, 1, "/copied")
            copies = world.endpoints[1].wires
            self.assertEqual(len(copies), amplification)
            for wire in (*copies, world.host()):
                wire.send(OK)
            self.assertEqual(answer(), (200, b"ok"))


class PayloadTests(HttpTestCase):
    LIMIT = ("payload_limit", {"max_entity_size": 10, "http_status": 500})

    def test_announced(self) -> None:
        """No host hears of it."""
        world = self.world(self.LIMIT)
        client = world.client()
        client.send(get(b"Content-Length: 11", line=b"POST / HTTP/1.1"))
        self.assertIn(b"request body larger than 10 bytes", client.take())
        peer = world.connect()
        number = peer.ask([*POST, (b"content-length", b"11")], b"x" * 11)
        self.assertEqual(
            (peer[number].status, peer[number].body), (500, b"request body larger than 10 bytes\n")
        )
        self.assertEqual(world.endpoint.wires, [])

    def test_not_announced(self) -> None:
        world = self.world(self.LIMIT)
        client = world.client()
        client.send(get(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.1") + b"a\r\n0123456789\r\n")
        host = world.host()
        client.send(b"1\r\nx\r\n")
        self.assertIn(b" 500 ", client.take())
        # It is broken off rather than ended, so that the host can't take it for all of the request.
        self.assertTrue(host.aborted or host.lost or host.disconnecting)
        self.assertNotIn(b"0\r\n\r\n", host.take())
        peer = world.connect()
        number = peer.ask(POST, b"x" * 11, end=False)
        self.assertEqual(peer[number].status, 500)

    def test_small_enough(self) -> None:
        for body in (
            b"Content-Length: 10\r\n\r\n0123456789",
            b"Transfer-Encoding: chunked\r\n\r\n" + chunks(b"01234", b"56789"),
        ):
            world = self.world(self.LIMIT)
            client = world.client()
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + body)
            world.host().send(OK)
            self.assertEqual(client.take(), OK)

    def test_at_once(self) -> None:
        """What has come with the head counts as well."""
        world = self.world(self.LIMIT)
        client = world.client()
        client.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(b"x" * 6, b"y" * 5)
        )
        self.assertIn(b" 500 ", client.take())
        self.assertEqual(world.endpoint.wires, [])

    def test_behind_a_wait(self) -> None:
        world = self.world(DELAY, self.LIMIT)
        client = world.client()
        client.send(get(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.1") + b"5\r\nabcde\r\n")
        client.send(b"6\r\nabcdef\r\n")
        world.turn(5)
        self.assertIn(b" 500 ", client.take())
        self.assertEqual(world.endpoint.wires, [])

    def test_when_the_answer_has_begun(self) -> None:
        """It is broken off."""
        world = self.world(self.LIMIT)
        client = world.client()
        client.send(get(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.1") + b"1\r\na\r\n")
        world.host().send(respond(b"Content-Length: 100", body=b"begin"))
        self.assertTrue(client.take().endswith(b"begin"))
        client.send(b"b\r\n01234567890\r\n")
        world.turn()
        self.assertEqual(client.take(), b"")
        self.assertTrue(client.write_closed)
        self.assertEqual(world.records[0].flag, "request body larger than 10 bytes")

    def test_of_a_route(self) -> None:
        world = self.world(self.LIMIT, routes=True)
        client = world.client()
        client.send(get(b"Content-Length: 2", line=b"POST /small HTTP/1.1", body=b"ab"))
        self.assertIn(b" 413 ", client.take())


class RpcTests(SynchronousTestCase):
    def world(self, *filters: tuple[str, dict[str, Any]], **more: Any) -> RpcWorld:
        world = RpcWorld(1, **more)
        world.settings = replace(world.settings, filters=chain(*filters, clock=world.clock))
        self.addCleanup(world.check_idle, self.fail)
        return world

    def test_refused(self) -> None:
        world = self.world(DENY)
        client = world.client()
        client.send(request(5), request(6))
        self.assertEqual(
            client.answers(), [(5, BoltStatus.SERVER_EXCEPTION), (6, BoltStatus.SERVER_EXCEPTION)]
        )
        self.assertEqual([record.flag for record in world.records], ["refused by ip_access"] * 2)

    def test_let_through(self) -> None:
        world = self.world(("ip_access", {"ips": [{"addrs": ["10.0.0.0/8"]}], "default_action": "deny"}))
        client = world.client()
        client.send(request(5))
        self.assertEqual(len(world.host().echo()), 1)
        self.assertEqual(client.answers(), [(5, BoltStatus.SUCCESS)])

    def test_payload(self) -> None:
        """It is the content that counts, without the headers."""
        world = self.world(("payload_limit", {"max_entity_size": 10, "http_status": 503}))
        client = world.client()
        client.send(request(5, content=b"x" * 10), request(6, content=b"x" * 11))
        self.assertEqual(len(world.host().echo()), 1)
        self.assertEqual(
            sorted(client.answers()), [(5, BoltStatus.SUCCESS), (6, BoltStatus.SERVER_THREADPOOL_BUSY)]
        )

    def test_delayed(self) -> None:
        """Others are not held up, and answers come in whatever order."""
        world = self.world(
            ("fault", {"headers": [{"name": "service", "value": "quick"}], **DELAY[1]}),
        )
        client = world.client()
        client.send(request(5, "quick"), request(6))
        self.assertEqual(len(world.host().echo()), 1)
        self.assertEqual(client.answers(), [(6, BoltStatus.SUCCESS)])
        world.turn(5)
        world.turn(1.9)
        self.assertEqual(len(world.host().echo()), 1)
        self.assertEqual(client.answers(), [(5, BoltStatus.SUCCESS)])

    def test_a_client_that_leaves_while_it_waits(self) -> None:
        world = self.world(DELAY)
        client = world.client()
        client.send(request(5))
        client.wire.reset()
        world.turn(10)
        self.assertEqual(world.endpoint.wires, [])

    def test_labels(self) -> None:
        rules = [{"header": "zone", "on_header_present": {"key": "zone"}, "remove": True}]
        subsets = {"lb_subset_config": {"fall_back_policy": 0, "subset_selectors": [["zone"]]}}
        world = self.world(("header_to_metadata", {"request_rules": rules}), cluster=subsets)
        endpoint = Endpoint(world.clock)
        config = HostConfig(address="10.1.0.9:80", metadata={"zone": "a"})
        world.cluster.add_host(StaticHost(config, endpoint, world.clock))  # type: ignore[arg-type]
        client = world.client()
        client.send(encode_request(5, {"service": "echo", "zone": "a", "other": "b"}))
        [wire] = endpoint.wires
        frame = Peer(wire, world.protocol).one()
        self.assertEqual(dict(frame.headers), {"service": "echo", "other": "b"})
        wire.send(response(frame.id))
        self.assertEqual(client.answers(), [(5, BoltStatus.SUCCESS)])

    def test_an_answer_of_the_routers(self) -> None:
        world = self.world(("ip_access", {}))
        client = world.client()
        client.send(request(5, "direct"), request(6, "unknown"), request(7, ""))
        self.assertEqual(len(client.answers()), 3)

    def test_copies(self) -> None:
        world = self.world(("mirror", {"amplification": 2}))
        client = world.client()
        client.send(request(5, "copied"))
        copies = [frame for wire in world.copied.wires for frame in Peer(wire, world.protocol).frames()]
        self.assertEqual(len(copies), 2)
        for wire in world.copied.wires:
            wire.reset()
        self.assertEqual(len(world.host().echo()), 1)
        self.assertEqual(client.answers(), [(5, BoltStatus.SUCCESS)])
        world.turn(100)

    def test_headers_that_can_not_be_read(self) -> None:
        world = self.world(("fault", {"headers": [{"name": "a", "value": "b"}]}))
        client = world.client()
        frame = bytearray(request(5))
        position = frame.index(b"service") - 1
        frame[position] = 250
        client.send(bytes(frame))
        self.assertEqual(client.answers()[0][0], 5)
        self.assertEqual(world.endpoint.wires, [])
