"""PROXY protocol: headers that are read and written, and from which peers they are accepted."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.loader import loads
from reverseproxy.errors import ConfigError
from reverseproxy.listener.proxy_protocol import HEADER_TIMEOUT, MAX_LINE, HeaderReader, ProxyHeaderError
from reverseproxy.net.formatting import format_address
from reverseproxy.testing import MemoryReactor, Recorder, run
from reverseproxy.wire.proxy_protocol import SIGNATURE, encode_header
from tests.integration.configs import quick_agent, server

V4 = ("1.2.3.4:1000", "5.6.7.8:80")
V6 = ("[2001:db8::1]:1000", "[2001:db8::2]:80")


class WritingTests(SynchronousTestCase):
    def test_version_1(self) -> None:
        self.assertEqual(encode_header("v1", *V4), b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 80\r\n")
        self.assertEqual(encode_header("v1", *V6), b"PROXY TCP6 2001:db8::1 2001:db8::2 1000 80\r\n")
        self.assertEqual(
            encode_header("v1", "[::ffff:1.2.3.4]:1", "5.6.7.8:2"), b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"
        )

    def test_who_is_not_known(self) -> None:
        for ends in (("unix:", "unix:/x"), (V4[0], V6[1]), ("a:1", "b:2"), ("", ""), ("1.2.3.4:x", V4[1])):
            self.assertEqual(encode_header("v1", *ends), b"PROXY UNKNOWN\r\n")
            self.assertEqual(encode_header("v2", *ends), SIGNATURE + b"\x21\x00\x00\x00")
        self.assertRaises(ValueError, encode_header, "v3", *V4)

    def test_there_and_back(self) -> None:
        for version in ("v1", "v2"):
            for ends in (V4, V6):
                source, destination, rest = self.read(encode_header(version, *ends) + b"rest")
                self.assertEqual((format_address(source), format_address(destination)), ends)
                self.assertEqual(rest, b"rest")

    def read(self, data: bytes) -> Any:
        found = HeaderReader().feed(data)
        assert found is not None
        return found


class ReadingTests(SynchronousTestCase):
    def test_in_pieces(self) -> None:
        for header in (
            encode_header("v1", *V4),
            encode_header("v2", *V6),
            b"PROXY UNKNOWN\r\n",
            b"PROXY UNKNOWN whatever stands here\r\n",
        ):
            whole = HeaderReader().feed(header)
            assert whole is not None
            for cut in range(1, len(header)):
                reader = HeaderReader()
                self.assertIsNone(reader.feed(header[:cut]), (header, cut))
                self.assertEqual(reader.feed(header[cut:] + b"more"), (*whole[:2], b"more"))

    def test_who_is_not_named(self) -> None:
        for header in (
            b"PROXY UNKNOWN\r\n",
            SIGNATURE + b"\x20\x00\x00\x00",  # a health check of the load balancer's own
            SIGNATURE + b"\x20\x11\x00\x0c" + bytes(12),
            SIGNATURE + b"\x21\x00\x00\x00",
        ):
            self.assertEqual(HeaderReader().feed(header), (None, None, b""))

    def test_further_facts_are_skipped(self) -> None:
        header = encode_header("v2", *V4)
        more = b"\x03\x00\x04abcd"
        longer = header[:14] + (len(header) - 16 + len(more)).to_bytes(2, "big") + header[16:] + more
        found = HeaderReader().feed(longer + b"x")
        assert found is not None
        self.assertEqual((format_address(found[0]), found[2]), (V4[0], b"x"))

    def test_what_is_none(self) -> None:
        for data in (
            b"GET / HTTP/1.1\r\n",
            b"PROXYX",
            b"\r\n\r\nX",
            b"\x16\x03\x01",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 70000\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n",
            b"PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
            b"PROXY TCP4 \xff 5.6.7.8 1 2\r\n",
            b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
            b"PROXY \r\n",
            b"PROXY " + b"1" * MAX_LINE,
            SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),  # version 1 in version 2's form
            SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12),
            SIGNATURE + b"\x21\x41\x00\x0c" + bytes(12),
            SIGNATURE + b"\x21\x12\x00\x0c" + bytes(12),  # UDP
            SIGNATURE + b"\x21\x11\x00\x04" + bytes(4),
            SIGNATURE + b"\x21\x11\xff\xff",
        ):
            self.assertRaises(ProxyHeaderError, HeaderReader().feed, data)


class Serving(SynchronousTestCase):
    trusted = ("127.0.0.1",)

    def setUp(self) -> None:
        self.reactor = MemoryReactor()
        self.services: list[Any] = []
        self.addCleanup(self.stop)

    def stop(self) -> None:
        for service in reversed(self.services):
            service.stopService()
        self.pass_time(40)

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds * 4)):
            self.reactor.advance(0.25)

    def start(self, document: dict[str, Any]) -> Any:
        self.services.append(run(document, self.reactor))
        self.pass_time(1)
        return self.services[-1]

    def serve(self, **more: Any) -> Any:
        options = {"proxy_protocol": {"trusted_proxies": list(self.trusted)}}
        return self.start(
            server(client="127.0.0.1:80", tunnel="127.0.0.1:81", client_listener=options, **more)
        )

    def listen(self) -> Any:
        """A service that takes one connection."""
        service = Recorder()
        port = self.reactor.listenTCP(7000, _Once(service), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return service

    def dial(self, *data: bytes, port: int = 80) -> Any:
        client = self.reactor.dial("127.0.0.1", port, Recorder())
        for each in data:
            client.transport.write(each)
            self.pass_time(0.25)
        self.pass_time(1)
        return client


SERVICE = {"hosts": [{"address": "127.0.0.1:7000"}]}

TCP = {"type": "tcp_proxy", "config": {"cluster": "clientCluster"}}

REQUEST = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class InTests(Serving):
    def seen(self, *data: bytes) -> bytes:
        """Who the client is to the service, by X-Forwarded-For."""
        heard: list[bytes] = []

        class Service(Protocol):
            """Takes a request down."""

            def dataReceived(self, data: bytes) -> None:
                heard.append(data)

        cluster = {"hosts": [{"address": "127.0.0.1:7000"}]}
        config = {
            "downstream_protocol": "Http1",
            "router_config_name": "client_router",
            "extend_config": {"Http1": {"x_forwarded": "append"}},
        }
        proxy = {"type": "proxy", "config": config}
        self.serve(client_filter=proxy, cluster=cluster)
        self.reactor.listenTCP(7000, Factory.forProtocol(Service), interface="127.0.0.1")
        self.client = self.dial(*data)
        head = b"".join(heard).lower()
        _, found, rest = head.partition(b"x-forwarded-for: ")
        return rest.partition(b"\r\n")[0] if found else head

    def test_the_client(self) -> None:
        self.assertEqual(self.seen(encode_header("v1", *V4), REQUEST), b"1.2.3.4")

    def test_version_2_in_one_piece(self) -> None:
        self.assertEqual(self.seen(encode_header("v2", *V6) + REQUEST), b"2001:db8::1")

    def test_byte_by_byte(self) -> None:
        header = encode_header("v2", *V4)
        self.assertEqual(self.seen(*[header[i : i + 1] for i in range(len(header))], REQUEST), b"1.2.3.4")

    def test_who_is_not_named(self) -> None:
        self.assertEqual(self.seen(b"PROXY UNKNOWN\r\n" + REQUEST), b"127.0.0.1")

    def test_no_header(self) -> None:
        self.assertEqual(self.seen(REQUEST), b"")
        self.assertIsNotNone(self.client.reason)

    def test_a_header_that_does_not_come(self) -> None:
        self.assertEqual(self.seen(b"PROXY TCP4"), b"")
        self.assertIsNone(self.client.reason)
        self.pass_time(HEADER_TIMEOUT)
        self.assertIsNotNone(self.client.reason)

    def test_a_connection_that_ends_before_its_header(self) -> None:
        self.seen(b"PROXY")
        self.client.transport.abortConnection()
        self.pass_time(HEADER_TIMEOUT + 1)

    def test_another_connection_is_not_touched(self) -> None:
        self.assertEqual(self.seen(REQUEST), b"")
        other = self.dial(encode_header("v1", *V4), REQUEST)
        self.assertIsNone(other.reason)


class StrangerTests(Serving):
    """Whoever is not trusted is not believed, and needs no header."""

    trusted = ("10.0.0.0/8",)

    def test_no_header(self) -> None:
        self.serve(client_filter=TCP, cluster=SERVICE)
        service = self.listen()
        client = self.dial(b"hello")
        self.assertEqual(bytes(service.data), b"hello")
        client.transport.loseConnection()

    def test_what_looks_like_one(self) -> None:
        """It is a part of what the client sends."""
        self.serve(client_filter=TCP, cluster=SERVICE)
        service = self.listen()
        client = self.dial(encode_header("v2", *V6), b"hello")
        self.assertEqual(bytes(service.data), encode_header("v2", *V6) + b"hello")
        client.transport.loseConnection()


class TunnelTests(Serving):
    def test_agents_keep_their_addresses(self) -> None:
        """An agent behind a load balancer joins with its own address."""
        tunnel = {"proxy_protocol": {"trusted_proxies": ["*"]}}
        service = self.start(
            server(client="127.0.0.1:80", tunnel="127.0.0.1:81", tunnel_listener=tunnel, kind="tcp")
        )

        class Balancer(Protocol):
            """Passes one connection on, with a header before it."""

            def connectionMade(self) -> None:
                self.other = Recorder()
                reactor.connectTCP("127.0.0.1", 81, _Once(self.other))
                self.waiting = [encode_header("v2", "9.9.9.9:99", "127.0.0.1:81")]
                self.other.dataReceived = self.transport.write  # type: ignore[assignment, method-assign, union-attr]

            def dataReceived(self, data: bytes) -> None:
                self.waiting.append(data)
                transport: Any = self.other.transport
                if transport is not None:
                    waiting, self.waiting = self.waiting, []
                    transport.writeSequence(waiting)

        reactor = self.reactor
        factory = Factory.forProtocol(Balancer)
        factory.noisy = False
        reactor.listenTCP(82, factory, interface="127.0.0.1")
        self.start(quick_agent(82))
        self.pass_time(5)
        (host,) = service.clusters.get("clientCluster").hosts.values()
        self.assertEqual(host.address, "9.9.9.9:99")


class _Once(Factory):
    noisy = False

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def startedConnecting(self, connector: Any) -> None:
        """Nothing to do."""

    def clientConnectionLost(self, connector: Any, reason: Any) -> None:
        """Nothing to do."""

    clientConnectionFailed = clientConnectionLost

    def buildProtocol(self, addr: Any) -> Any:
        return self._protocol


class OutTests(Serving):
    def tcp(self, version: str) -> dict[str, Any]:
        return {"type": "tcp_proxy", "config": {"cluster": "clientCluster", "proxy_protocol": version}}

    def test_to_a_service(self) -> None:
        for version in ("v1", "v2"):
            service = Recorder()
            factory = _Once(service)
            port = self.reactor.listenTCP(7000, factory, interface="127.0.0.1")
            running = self.serve(
                client_filter=self.tcp(version), cluster={"hosts": [{"address": "127.0.0.1:7000"}]}
            )
            client = self.dial(encode_header("v1", *V4), b"hello")
            self.assertEqual(bytes(service.data), encode_header(version, *V4) + b"hello")
            client.transport.loseConnection()
            port.stopListening()
            self.services.remove(running)
            running.stopService()
            self.pass_time(5)

    def test_to_a_program_behind_a_tunnel(self) -> None:
        """Twisted's own wrapper for endpoints understands it."""
        self.serve(client_filter=self.tcp("v2"))
        peers: list[Any] = []

        class Program(Protocol):
            """Looks who is there."""

            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                peers.append((format_address(self.transport.getPeer()), data))

        endpoint = serverFromString(self.reactor, "haproxy:tunnel:127.0.0.1:81:cluster=clientCluster")
        port = self.successResultOf(endpoint.listen(Factory.forProtocol(Program)))
        self.addCleanup(port.stopListening)
        self.pass_time(2)
        client = self.dial(encode_header("v1", *V4), b"hello")
        self.assertEqual(peers, [(V4[0], b"hello")])
        client.transport.loseConnection()
        self.pass_time(2)


class CheckTests(SynchronousTestCase):
    def problem(self, options: Any) -> str:
        document = server(client_listener={"proxy_protocol": options})
        return str(self.assertRaises(ConfigError, loads, json.dumps(document), "file"))

    def test_mistakes(self) -> None:
        self.assertIn("trusted_proxies", self.problem({}))
        self.assertIn("trusted_proxies", self.problem({"trusted_proxies": []}))
        self.assertIn("neither an IP address", self.problem({"trusted_proxies": ["example.com"]}))
        self.assertIn("unknown key", self.problem({"trusted_proxies": ["*"], "versoin": 1}))
