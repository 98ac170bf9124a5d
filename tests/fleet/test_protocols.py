"""Every protocol reaches agents of other servers: whole processes in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import h2.events
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.testing import Recorder
from tests.fleet.worlds import FleetWorld, get
from tests.integration.http2_configs import spoken
from tests.wire.test_bolt import REQUEST as BOLT
from tests.wire.test_bolt import REQUEST_2 as BOLT_2
from tests.wire.test_bolt import RESPONSE as BOLT_ANSWER
from tests.wire.test_bolt import RESPONSE_2 as BOLT_2_ANSWER
from tests.wire.test_dubbo import REQUEST as DUBBO
from tests.wire.test_dubbo import RESPONSE as DUBBO_ANSWER

SERVICE = 7000


class Service(Protocol):
    """Answers the first bytes, and echoes what follows."""

    transport: Any

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(self._answer(data))


def rpc(document: dict[str, Any], protocol: str) -> dict[str, Any]:
    """Have requests of an RPC protocol forwarded, whatever they are for."""
    for server in document["servers"]:
        for listener in server["listeners"]:
            for each in listener["filter_chains"][0]["filters"]:
                if each["type"] == "proxy":
                    each["config"] |= {
                        "downstream_protocol": "X",
                        "extend_config": {"sub_protocol": protocol},
                    }
        for router in server["routers"]:
            for host in router["virtual_hosts"]:
                for rule in host["routers"]:
                    rule["match"] = {"headers": [{"name": "service", "value": ".*", "regex": True}]}
    return document


class ProtocolTests(SynchronousTestCase):
    """Each for agents with streams, and for such whose connections carry one thing at a time."""

    def run_fleet(
        self,
        change: Callable[[dict[str, Any]], dict[str, Any]],
        answer: Callable[[bytes], bytes],
        plain: bool,
    ) -> FleetWorld:
        world = FleetWorld()
        self.addCleanup(world.stop)
        for name in "ab":
            world.server(name, change=change)

        class Services(Factory):
            noisy = False

            def buildProtocol(self, addr: object) -> Any:
                return Service(answer)

        world.reactor.listenTCP(SERVICE, Services(), interface="127.0.0.1")
        world.agent(0, answer="", backend=f"127.0.0.1:{SERVICE}", plain=plain, change=change)
        self.assertEqual(len(world.fleet("b").remote.hosts), 1)
        return world

    def exchange(self, world: FleetWorld, data: bytes) -> Recorder:
        client = world.client(1)
        client.transport.write(data)
        world.pass_time(0.5)
        return client

    def check_rpc(self, protocol: str, request: bytes, answer: bytes, number: slice) -> None:
        def answering(data: bytes) -> bytes:
            return answer[: number.start] + data[number] + answer[number.stop :]

        for plain in (False, True):
            world = self.run_fleet(lambda document: rpc(document, protocol), answering, plain)
            for _ in range(2):
                client = self.exchange(world, request)
                self.assertEqual(client.data, answer, (protocol, plain))
            [peer] = world.fleet("b").peers()
            self.assertGreater(peer["forwarded"], 0)

    def test_bolt(self) -> None:
        self.check_rpc("bolt", BOLT, BOLT_ANSWER, slice(5, 9))

    def test_boltv2(self) -> None:
        self.check_rpc("boltv2", BOLT_2, BOLT_2_ANSWER, slice(6, 10))

    def test_dubbo(self) -> None:
        self.check_rpc("dubbo", DUBBO, DUBBO_ANSWER, slice(4, 12))

    def test_websocket(self) -> None:
        def answer(data: bytes) -> bytes:
            if data.startswith(b"GET"):
                return (
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
                )
            return b"\x81\x02ok"

        request = (
            b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        for plain in (False, True):
            world = self.run_fleet(dict, answer, plain)
            client = self.exchange(world, request)
            self.assertTrue(client.data.startswith(b"HTTP/1.1 101 "), client.data)
            for number in (1, 2):
                client.transport.write(b"\x81\x82\0\0\0\0hi")
                world.pass_time(0.2)
                self.assertEqual(client.data.count(b"\x81\x02ok"), number)

    def test_a_long_body_both_ways(self) -> None:
        """More than windows and buffers hold, and no more than they hold."""
        size = 3_000_000
        for plain in (False, True):
            received = [0]

            def answer(data: bytes, received: list[int] = received) -> bytes:
                received[0] += len(data)
                if received[0] < size:
                    return b""
                return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"y" * size

            world = self.run_fleet(dict, answer, plain)
            client = world.client(1)
            client.transport.write(get(method="POST", body=b"x" * size))
            world.pass_time(3)
            self.assertEqual(client.data.count(b"y"), size)

    def http2(self, plain: bool, requests: int) -> tuple[FleetWorld, list[tuple[Any, bytes]]]:
        world = FleetWorld()
        self.addCleanup(world.stop)
        change: Callable[[dict[str, Any]], dict[str, Any]] = lambda document: spoken(document, "Http2")  # noqa: E731
        for name in "ab":
            world.server(name, change=change)
        world.agent(0, answer="by HTTP/2", plain=plain, change=change)
        connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        connection.initiate_connection()
        for _ in range(requests):
            headers = [(":method", "GET"), (":path", "/"), (":authority", "a"), (":scheme", "http")]
            connection.send_headers(connection.get_next_available_stream_id(), headers, end_stream=True)
        client = world.client(1)
        client.transport.write(connection.data_to_send())
        world.pass_time(0.5)
        found = []
        for event in connection.receive_data(client.data):
            if isinstance(event, h2.events.ResponseReceived):
                found.append((dict(event.headers)[":status"], b""))
            elif isinstance(event, h2.events.DataReceived):
                found.append((None, event.data))
        return world, found

    def test_http2(self) -> None:
        for plain in (False, True):
            world, found = self.http2(plain, 20)
            self.assertEqual([status for status, _ in found if status], ["200"] * 20)
            self.assertEqual([data for _, data in found if data], [b"by HTTP/2"] * 20)
            [peer] = world.fleet("b").peers()
            self.assertEqual(peer["forwarded"], 1)  # one stream of a link carries all of them
